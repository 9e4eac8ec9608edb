package discovery

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// keeper is the core of [LastGood]: it decides what a report means for the set
// in use. It knows no clock and no goroutines.
type keeper struct {
	grace    time.Duration // 0 or less: none
	minShare float64       // 0 or less: off

	known    bool // an answer was let through, so set means something
	set      []Endpoint
	holding  bool // the source says empty, set is kept until emptyAt
	emptyAt  time.Time
	answered time.Time // when the source last answered
}

// step is what follows from a report or from the passing of time.
type step struct {
	failed  error // tell it
	update  bool  // tell the set, with what was skipped
	skipped error
	events  []Event // tell them after that
}

// take decides about a report.
func (k *keeper) take(now time.Time, r report) step {
	if r.failed != nil {
		return k.failure(now, r.failed)
	}
	good, bad := vet(r.endpoints)
	skipped := r.skipped
	if bad.Count > 0 {
		skipped = errors.Join(skipped, bad)
	}
	if len(good) == 0 && skipped != nil {
		return k.failure(now, fmt.Errorf("discovery: nothing usable in the answer: %w", skipped))
	}
	k.answered = now
	s := k.answer(now, good)
	if skipped != nil {
		s.skipped = skipped
		e := k.event(now, Skipped, s.events[0].Before, skipped)
		e.Skipped = countSkipped(skipped)
		s.events = slices.Insert(s.events, 0, e)
	}
	return s
}

// tick decides whether the grace time of an empty answer is over.
func (k *keeper) tick(now time.Time) step {
	if !k.holding || now.Before(k.emptyAt) {
		return step{}
	}
	return k.replace(now, nil, Emptied)
}

func (k *keeper) failure(now time.Time, err error) step {
	return step{failed: err, events: []Event{k.event(now, Failed, len(k.set), err)}}
}

// answer decides about a set without invalid endpoints and duplicates.
func (k *keeper) answer(now time.Time, set []Endpoint) step {
	switch {
	case len(set) == 0 && len(k.set) > 0:
		return k.empty(now)
	case k.known && sameSet(k.set, set):
		k.holding = false
		return step{events: []Event{k.event(now, Unchanged, len(k.set), nil)}}
	case len(set) == 0: // the first answer of all: there is nothing to hold on to
		return k.replace(now, set, Emptied)
	}
	before := len(k.set)
	s := k.replace(now, set, Updated)
	if k.minShare > 0 && float64(len(set)) < k.minShare*float64(before) {
		s.events = slices.Insert(s.events, 0, k.event(now, Dropped, before, nil))
	}
	return s
}

// empty decides about an answer without endpoints while some are in use.
func (k *keeper) empty(now time.Time) step {
	if !k.holding {
		k.holding, k.emptyAt = true, now.Add(k.grace)
	}
	if s := k.tick(now); s.update {
		return s
	}
	return step{events: []Event{k.event(now, Held, len(k.set), nil)}}
}

func (k *keeper) replace(now time.Time, set []Endpoint, kind EventKind) step {
	before := len(k.set)
	k.set, k.known, k.holding = set, true, false
	return step{update: true, events: []Event{k.event(now, kind, before, nil)}}
}

func (k *keeper) event(now time.Time, kind EventKind, before int, err error) Event {
	return Event{Kind: kind, Time: now, Answered: k.answered, Size: len(k.set), Before: before, Err: err}
}

// vet returns the endpoints that can be used, each identity once. If all are
// good, that is the slice itself.
func vet(endpoints []Endpoint) (good []Endpoint, bad *SkippedError) {
	bad = &SkippedError{}
	seen := make(map[Key]struct{}, len(endpoints))
	for i, e := range endpoints {
		reason := e.Validate()
		if _, twice := seen[e.Key()]; reason == nil && twice {
			reason = errors.New("the same endpoint twice")
		}
		if reason != nil {
			if bad.Count == 0 {
				good = slices.Clone(endpoints[:i])
			}
			bad.Add(fmt.Errorf("endpoint %q: %w", e.label(), reason))
			continue
		}
		seen[e.Key()] = struct{}{}
		if bad.Count > 0 {
			good = append(good, e)
		}
	}
	if bad.Count == 0 {
		return endpoints, bad
	}
	return good, bad
}

// sameSet reports whether a and b, both without duplicates, have the same
// endpoints in whatever order.
func sameSet(a, b []Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	if slices.EqualFunc(a, b, Endpoint.Equal) { // most sources keep their order
		return true
	}
	byKey := make(map[Key]Endpoint, len(a))
	for _, e := range a {
		byKey[e.Key()] = e
	}
	for _, e := range b {
		if o, ok := byKey[e.Key()]; !ok || !o.Equal(e) {
			return false
		}
	}
	return true
}

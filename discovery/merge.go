package discovery

import (
	"context"
	"fmt"
	"sync"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Merge is a service whose endpoints come from several places: the union of what
// its resolvers say. Where two have an endpoint with the same [Key], the one of
// the earlier resolver counts, so a list in front can correct one behind it.
//
// A resolver that fails keeps the endpoints it said last, and its error is
// passed on. A watch that breaks is started again, after 1s or more, at most
// 60s while it goes on breaking. Each resolver is asked for a fresh look when
// the owner asks for one.
//
// The first update comes as soon as one resolver has endpoints: a registry that
// is down does not keep the others from being used. An update without any
// endpoints waits, at first, until every resolver has answered or failed.
type Merge []Resolver

// Watch implements [Resolver]. It returns an error other than that of ctx only
// if it is empty or one of the resolvers is nil.
func (m Merge) Watch(ctx context.Context, sink Sink) error {
	var errs field.Errors
	if m.check(&errs); errs.Err() != nil {
		return errs.Err()
	}
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	reports := make(chan report)
	asks := make([]chan struct{}, len(m))
	for i, r := range m {
		asks[i] = make(chan struct{}, 1)
		each := sink
		each.Refresh = asks[i]
		wg.Go(func() { supervise(inner, i, r, each, reports) })
	}
	wg.Go(func() { fanOut(inner, sink.Refresh, asks) })
	return newUnion(len(m)).run(ctx, sink, reports)
}

// Validate returns all problems joined, or nil: its own, and those of every
// resolver that is a [Validator].
func (m Merge) Validate() error {
	var errs field.Errors
	m.check(&errs)
	for i, r := range m {
		if v, ok := r.(Validator); ok {
			errs.Under(fmt.Sprintf("Merge[%d]", i), v.Validate())
		}
	}
	return errs.Err()
}

// check finds what Watch cannot do without. What is wrong with one resolver is
// that one's failure, and does not keep the others from being watched.
func (m Merge) check(errs *field.Errors) {
	errs.Check(len(m) > 0, "Merge", m, "must not be empty")
	for i, r := range m {
		errs.Check(r != nil, fmt.Sprintf("Merge[%d]", i), r, "must not be nil")
	}
}

// fanOut passes each request for a refresh on to all, without waiting for any.
func fanOut(ctx context.Context, refresh <-chan struct{}, asks []chan struct{}) {
	for {
		select {
		case _, open := <-refresh:
			if !open {
				return
			}
		case <-ctx.Done():
			return
		}
		for _, ask := range asks {
			select {
			case ask <- struct{}{}:
			default: // it has been asked already
			}
		}
	}
}

// union is what the resolvers of a [Merge] have said.
type union struct {
	sets  [][]Endpoint
	heard []bool // has answered or failed
	told  bool   // an update was told
	mute  int    // how many were not heard
	any   bool   // one has answered
}

func newUnion(n int) *union {
	return &union{sets: make([][]Endpoint, n), heard: make([]bool, n), mute: n}
}

// run tells the sink about all reports until ctx is done. It is the only
// goroutine that calls the sink.
func (u *union) run(ctx context.Context, sink Sink, reports <-chan report) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-reports:
			if r.failed != nil {
				sink.Fail(fmt.Errorf("source %d: %w", r.source, r.failed))
			}
			if set, news := u.take(r); news {
				sink.Update(set, within(r.source, r.skipped))
			}
		}
	}
}

func within(source int, skipped error) error {
	if skipped == nil {
		return nil
	}
	return fmt.Errorf("source %d: %w", source, skipped)
}

// take notes a report and returns the union, and whether it is to be told.
func (u *union) take(r report) (set []Endpoint, news bool) {
	last := false // the last one to be heard of
	if !u.heard[r.source] {
		u.heard[r.source] = true
		u.mute--
		last = u.mute == 0
	}
	if r.failed == nil {
		u.sets[r.source] = r.endpoints
		u.any = true
	}
	set = u.merged()
	switch {
	case r.failed == nil:
		news = u.told || len(set) > 0 || u.mute == 0
	default: // may end the wait of an empty answer for the others
		news = last && u.any && !u.told
	}
	u.told = u.told || news
	return set, news
}

func (u *union) merged() []Endpoint {
	var set []Endpoint
	seen := map[Key]struct{}{}
	for _, endpoints := range u.sets {
		for _, e := range endpoints {
			if _, twice := seen[e.Key()]; twice {
				continue
			}
			seen[e.Key()] = struct{}{}
			set = append(set, e)
		}
	}
	return set
}

package breaker

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/row"
)

// State is what a breaker does with calls.
type State uint8

// The states.
const (
	// Closed: calls pass.
	Closed State = iota
	// Open: calls are refused.
	Open
	// HalfOpen: a few calls pass, as probes, and decide what comes next.
	HalfOpen
)

var stateNames = [...]string{"closed", "open", "half-open"}

// String returns the name of the state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// phase is the time between two changes of state, and what is counted in it. Fields are
// not changed once it is the breaker's, but for those that say so.
type phase struct {
	breaker *Breaker
	state   State
	because Reason
	began   time.Duration
	until   time.Duration // open: when probes are let through; closed: when the ramp ends
	refusal *OpenError    // what those get who are refused; nil if nobody is

	rejected atomic.Uint64

	// In the state Closed:
	mute     bool        // nothing is counted
	ramping  atomic.Bool // only a part of the calls is let through
	row      row.Row
	window   window // nil if nobody looks at rates
	closedBy *phase // the probes that closed the breaker, nil if none did

	probes probes // in the state HalfOpen, and Open for calls that were forced through; guarded by the breaker's lock
}

// forever is the end of a phase that time does not end.
const forever = time.Duration(math.MaxInt64)

// after returns the instant d after another one. It is never forever, however long d is.
func after(at, d time.Duration) time.Duration {
	if at >= 0 && d >= forever-at {
		return forever - 1
	}
	return at + d
}

// newPhase returns a phase that begins now.
func (b *Breaker) newPhase(state State, because Reason, at, until time.Duration) *phase {
	set := b.settings.Load()
	p := &phase{breaker: b, state: state, because: because, began: at, until: until}
	switch {
	case state != Closed:
		p.refusal = b.refusalOf(set, p)
	case set.mode == Disabled:
		p.mute = true
	default:
		p.window = newWindow(set)
		if until > at {
			p.ramping.Store(true)
			p.refusal = b.refusalOf(set, p)
		}
	}
	return p
}

// refusalOf returns the error of calls that are refused in a phase.
func (b *Breaker) refusalOf(set *settings, p *phase) *OpenError {
	e := &OpenError{Name: b.name, State: p.state, Because: p.because, until: p.until, elapsed: set.elapsed}
	if p.state == Open && p.until != forever {
		e.Until = set.start.Add(p.until)
	}
	return e
}

// counts returns what was counted in the phase. The breaker's lock must be held.
func (p *phase) counts(at time.Duration) Counts {
	c := Counts{Rejected: p.rejected.Load()}
	switch {
	case p.state != Closed:
		c.Successes, c.Failures = p.probes.good, p.probes.bad
	case p.window != nil:
		c.Successes, c.Failures, c.Slow = p.window.counts(at)
	}
	c.ConsecutiveFailures = p.row.Len()
	return c
}

// share returns which part of the calls passes while the traffic grows: at least a
// tenth, and all at the end.
func (p *phase) share(at time.Duration) float64 {
	if !p.ramping.Load() {
		return 1
	}
	return min(max(float64(at-p.began)/float64(p.until-p.began), 0.1), 1)
}

// probes are the calls that decide what follows a half-open breaker. They are numbered
// from 1.
type probes struct {
	last      int32   // the number of the latest
	underWay  []probe // in the order in which they began
	good, bad int     // of those that have ended
}

type probe struct {
	number int32
	began  time.Duration
}

// next lets another probe begin, unless there are enough: as many as may be under way,
// or as could count.
func (p *probes) next(set *settings, at time.Duration) (number int32, ok bool) {
	if !p.room(set) {
		return 0, false
	}
	p.last++
	p.underWay = append(p.underWay, probe{p.last, at})
	return p.last, true
}

// room reports whether another probe may begin.
func (p *probes) room(set *settings) bool {
	return len(p.underWay) < set.Probes && len(p.underWay)+p.good < max(set.Probes, set.ProbeSuccesses)
}

// end ends a probe. It reports whether it was under way: one that took too long has
// been given up.
func (p *probes) end(number int32) bool {
	for i := range p.underWay {
		if p.underWay[i].number == number {
			p.underWay = append(p.underWay[:i], p.underWay[i+1:]...)
			return true
		}
	}
	return false
}

// giveUp ends the oldest probe as failed if it has taken too long, and returns when
// that was.
func (p *probes) giveUp(set *settings, at time.Duration) (when time.Duration, late bool) {
	if len(p.underWay) == 0 || at-p.underWay[0].began < set.ProbeTimeout {
		return 0, false
	}
	when = p.underWay[0].began + set.ProbeTimeout
	p.underWay = p.underWay[1:]
	p.bad++
	return when, true
}

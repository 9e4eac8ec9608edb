package breaker

import (
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// Permit allows one call. It must be given back by Done or Report when the call has
// ended; a second time does nothing. It must not be copied, and belongs to one
// goroutine at a time.
type Permit struct {
	phase *phase // nil if it was given back, or nothing is counted
	probe int32  // number of the probe; 0 for other calls
	start time.Duration
}

// forced is the probe number of calls that pass although there is no room for a probe.
// They are no risk that the breaker takes, but what they find out it takes into account.
const forced int32 = -1

// Result is how a call went.
type Result struct {
	// Class is what it meant.
	Class outcome.Class
	// Took is how long it took. Zero means the time since the permit was given.
	Took time.Duration
	// RetryAfter is for how long the server wants to be left alone, if it failed.
	RetryAfter time.Duration
}

// Done gives the permit back and tells what the call meant. It reports whether that
// counted: it does not if the breaker has changed its state meanwhile, or if the class
// says nothing about what was called. outcome.Canceled gives back a permit of which no
// use was made.
func (p *Permit) Done(c outcome.Class) (counted bool) { return p.Report(Result{Class: c}) }

// Report is [Permit.Done] that tells more.
func (p *Permit) Report(r Result) (counted bool) {
	ph := p.phase
	if ph == nil {
		return false
	}
	p.phase = nil
	set, at := ph.breaker.settings.Load(), unread
	if set.SlowAfter > 0 && r.Took == 0 && p.start != unread {
		at = set.elapsed()
		r.Took = at - p.start
	}
	return ph.ended(set, p.probe, at, set.verdictOf(r.Class), r, false)
}

// verdict is what the class of a call means to a breaker.
type verdict uint8

const (
	ignored verdict = iota // nothing
	alive                  // the server answers: enough for a probe, otherwise nothing
	good
	bad
)

func (s *settings) verdictOf(c outcome.Class) verdict {
	switch {
	case c == outcome.Success:
		return good
	case c == outcome.ClientError:
		return alive
	case c.Bad(), c == outcome.Overload && s.OverloadFails:
		return bad
	}
	return ignored
}

// slow reports whether a call that took so long was slow.
func (s *settings) slow(took time.Duration) bool { return s.SlowAfter > 0 && took > s.SlowAfter }

// ended takes the result of a call that began in the phase. underWay says that the body of
// its answer is still to come.
func (p *phase) ended(set *settings, number int32, at time.Duration, v verdict, r Result, underWay bool) (counted bool) {
	slow := set.slow(r.Took)
	switch {
	case p.state != Closed:
		if slow && v != ignored {
			v = bad
		}
		return p.breaker.probed(p, number, set.read(at), v, r.RetryAfter)
	case p.mute || v == ignored || v == alive:
		return false
	case v == bad || slow:
		return p.breaker.suffered(p, p.whenCounted(set, at), v == bad, slow, underWay, r.RetryAfter)
	default:
		return p.succeeded(p.whenCounted(set, at), underWay)
	}
}

// whenCounted returns the instant for which a call of a closed breaker counts, unread if it
// counts for none.
func (p *phase) whenCounted(set *settings, at time.Duration) time.Duration {
	if p.ramping.Load() || (p.window != nil && p.window.timed()) {
		return set.read(at)
	}
	return at
}

// succeeded counts a call of a closed breaker that was good and fast: the way that
// nearly all take.
func (p *phase) succeeded(at time.Duration, underWay bool) (counted bool) {
	if p.breaker.phase.Load() != p {
		return false
	}
	p.row.End(underWay)
	if p.window != nil {
		p.window.success(at)
	}
	return true
}

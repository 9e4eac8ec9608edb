package breaker

import (
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// advanceLocked does what time has brought: an open breaker whose time is up is
// half-open, and probes that take too long have failed. It returns the phase.
func (b *Breaker) advanceLocked(set *settings, at time.Duration) *phase {
	for {
		p := b.phase.Load()
		switch p.state {
		case Open:
			if at < p.until {
				return p
			}
			b.enterLocked(b.newPhase(HalfOpen, OpenTimeOver, p.until, forever))
		case HalfOpen:
			when, late := p.probes.giveUp(set, at)
			if !late {
				return p
			}
			if p.probes.bad >= set.ProbeFailures {
				b.openLocked(set, ProbeTimedOut, when, 0)
			}
		default:
			return p
		}
	}
}

// openLocked opens the breaker. The open time doubles with each opening, up to its
// maximum, and each such time that the breaker was closed without a break takes one
// doubling back, as the ejection time of Envoy's outlier detection does.
func (b *Breaker) openLocked(set *settings, because Reason, at, retryAfter time.Duration) {
	if p := b.phase.Load(); p.state == Closed {
		for calm := at - p.began; b.level > 0; b.level-- {
			d, _ := set.openFor(b.level)
			if calm < d {
				break
			}
			calm -= d
		}
	}
	if _, more := set.openFor(b.level); more || b.level == 0 {
		b.level++
	}
	d, _ := set.openFor(b.level)
	jitter := max(set.Jitter, 0) * set.random()
	wait := d - time.Duration(jitter*float64(d))
	if !set.IgnoreRetryAfter && retryAfter > 0 { // never earlier: here the jitter comes on top
		later := time.Duration(jitter * float64(retryAfter))
		wait = max(wait, min(after(retryAfter, later), set.MaxOpenFor))
	}
	b.enterLocked(b.newPhase(Open, because, at, after(at, wait)))
}

// closeLocked closes the breaker.
func (b *Breaker) closeLocked(set *settings, at time.Duration) {
	ramp := set.RampFor
	if b.gate != nil {
		ramp = 0
	}
	next := b.newPhase(Closed, ProbesSucceeded, at, after(at, ramp))
	next.closedBy = b.phase.Load()
	b.enterLocked(next)
}

// enterLocked begins the next phase.
func (b *Breaker) enterLocked(next *phase) {
	last := b.phase.Load()
	b.phase.Store(next)
	if last.state == next.state || b.changes.Tell == nil {
		return
	}
	set := b.settings.Load()
	c := Change{
		Name: b.name, From: last.state, To: next.state, Reason: next.because, Mode: set.mode,
		Counts: last.counts(next.began), At: set.start.Add(next.began),
	}
	if next.state == Open && next.until != forever {
		c.Until = set.start.Add(next.until)
	}
	b.changes.Add(c)
}

// unlock lets go of the lock, and then tells what has changed.
func (b *Breaker) unlock() {
	changed := b.pushLocked()
	b.mu.Unlock()
	b.tell(changed)
}

// pushLocked tells the node that the breaker guards, if any, whether it would refuse. It
// reports whether the owner of the node is to be told.
func (b *Breaker) pushLocked() (changed bool) { return b.gate != nil && b.gate.pushLocked() }

// tell tells what has changed.
func (b *Breaker) tell(changed bool) {
	if changed && b.gate != nil {
		b.gate.node.Changed()
	}
	b.changes.Flush()
}

// tellFor is tell for somebody who does not get the permit if a callback panics.
func (b *Breaker) tellFor(permit *Permit) {
	told := false
	defer func() {
		if !told {
			permit.Done(outcome.Unknown)
		}
	}()
	b.tell(true)
	told = true
}

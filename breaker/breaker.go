package breaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/events"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Breaker is a circuit breaker. Use [New] to make one. It is safe for concurrent use.
type Breaker struct {
	name     string
	settings atomic.Pointer[settings]
	phase    atomic.Pointer[phase]
	changes  *events.Queue[Change]
	gate     *gate // nil unless a balancer asks it

	mu    sync.Mutex // guards what follows, and changes of the fields above; no callback runs under it
	level int        // how many openings the open time has doubled for
}

// New returns a breaker in the state [Closed], or all that is wrong with the
// configuration. The name is for errors and events.
func New(name string, cfg Config) (*Breaker, error) {
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	return newBreaker(name, set, &events.Queue[Change]{Tell: cfg.OnChange}, nil), nil
}

func newBreaker(name string, set *settings, c *events.Queue[Change], g *gate) *Breaker {
	b := &Breaker{name: name, changes: c, gate: g}
	b.settings.Store(set)
	b.phase.Store(b.phaseOfMode(Created, set.elapsed()))
	return b
}

// phaseOfMode returns the phase with which a mode begins.
func (b *Breaker) phaseOfMode(because Reason, at time.Duration) *phase {
	if b.settings.Load().Mode == ForcedOpen {
		return b.newPhase(Open, because, at, forever)
	}
	return b.newPhase(Closed, because, at, at)
}

// Name returns the name that the breaker was made with.
func (b *Breaker) Name() string { return b.name }

// Allow asks for one call. The permit must be given back when the call has ended. The
// error is an [*OpenError]. It never blocks and allocates nothing.
func (b *Breaker) Allow() (Permit, error) {
	set, p := b.settings.Load(), b.phase.Load()
	if p.state == Closed && !p.ramping.Load() {
		permit := Permit{phase: p, start: unread}
		if set.SlowAfter > 0 {
			permit.start = set.elapsed()
		}
		return permit, nil
	}
	permit, refusal, news := b.admit(set, set.elapsed(), false)
	if news {
		b.tellFor(&permit)
	}
	if refusal != nil {
		return Permit{}, refusal
	}
	return permit, nil
}

// admit decides whether a call passes that does not just pass. One that must, passes
// in any case. It calls nobody back, and says whether there is something to tell.
func (b *Breaker) admit(set *settings, at time.Duration, must bool) (permit Permit, refusal *OpenError, news bool) {
	before := b.phase.Load()
	switch {
	case before.state == Open && at < before.until:
		permit, refusal = b.refuse(set, before, at, must)
		return permit, refusal, false
	case before.state == Closed:
		permit, refusal = b.ramp(set, before, at, must)
		return permit, refusal, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.advanceLocked(set, at)
	permit = Permit{phase: p, start: at}
	ok := p.state == Closed
	if p.state == HalfOpen {
		permit.probe, ok = p.probes.next(set, at)
	}
	if !ok {
		permit, refusal = b.refuse(set, p, at, must)
	}
	return permit, refusal, b.pushLocked() || p != before
}

// ramp lets a growing part of the calls through.
func (b *Breaker) ramp(set *settings, p *phase, at time.Duration, must bool) (Permit, *OpenError) {
	share := p.share(at)
	if share >= 1 {
		p.ramping.Store(false)
	} else if set.random() >= share {
		return b.refuse(set, p, at, must)
	}
	return Permit{phase: p, start: at}, nil
}

// refuse refuses a call, unless it must pass or the mode is to let all pass. Nothing must
// pass what somebody has opened by hand.
func (b *Breaker) refuse(set *settings, p *phase, at time.Duration, must bool) (Permit, *OpenError) {
	if must && set.Mode != ForcedOpen {
		return Permit{phase: p, probe: forced, start: at}, nil
	}
	p.rejected.Add(1)
	if set.Mode == MetricsOnly {
		return Permit{}, nil
	}
	return Permit{}, p.refusal
}

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
	b.enterLocked(b.newPhase(Closed, ProbesSucceeded, at, after(at, ramp)))
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
		Name: b.name, From: last.state, To: next.state, Reason: next.because, Mode: set.Mode,
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

// suffered counts a call of a closed breaker that failed or was slow, at an instant that
// need not have been read if the window does not need it.
func (b *Breaker) suffered(p *phase, at time.Duration, failed, slow bool, retryAfter time.Duration) (counted bool) {
	b.mu.Lock()
	if b.phase.Load() != p {
		b.mu.Unlock()
		return false
	}
	if failed {
		p.consecutive.Add(1)
	} else {
		p.endRow(at)
	}
	if p.window != nil {
		p.window.add(at, failed, slow)
	}
	b.judgeAndUnlock(p, at, retryAfter)
	return true
}

// judgeAndUnlock opens the breaker if what was counted is enough for that.
func (b *Breaker) judgeAndUnlock(p *phase, at, retryAfter time.Duration) {
	set := b.settings.Load()
	counts := p.counts(at)
	because := set.trip(counts, p.share(at))
	if because == "" && set.TripIf != nil {
		b.mu.Unlock()
		trip := set.TripIf(counts)
		b.mu.Lock()
		if trip && b.phase.Load() == p {
			because = Predicate
		}
	}
	if because != "" {
		b.openLocked(set, because, set.read(at), retryAfter)
	}
	b.unlock()
}

// trip returns why a breaker with these counts is to open, or nothing. While only a
// share of the calls is let through, as small a share of the minimum is enough.
func (s *settings) trip(c Counts, share float64) Reason {
	enough := float64(c.Calls()) >= max(1, float64(s.MinCalls)*share)
	switch {
	case s.ConsecutiveFailures != Off && c.ConsecutiveFailures >= s.ConsecutiveFailures:
		return ConsecutiveFailures
	case s.FailureRate != Off && enough && c.FailureRate() >= s.FailureRate:
		return FailureRate
	case s.SlowAfter > 0 && enough && c.SlowRate() >= s.SlowRate:
		return SlowRate
	}
	return ""
}

// probed takes the result of a probe, or of a call that was forced through.
func (b *Breaker) probed(p *phase, number int32, at time.Duration, v verdict, retryAfter time.Duration) (counted bool) {
	b.mu.Lock()
	defer b.unlock()
	set := b.settings.Load()
	if b.advanceLocked(set, at) != p || (number != forced && !p.probes.end(number)) || v == ignored {
		return false
	}
	switch {
	case v != bad:
		p.probes.good++
	case p.state == Open: // forced through: only successes in a row count
		p.probes.bad++
		p.probes.good = 0
	default:
		p.probes.bad++
	}
	b.judgeProbesLocked(set, p, at, retryAfter)
	return true
}

// judgeProbesLocked opens or closes the breaker if enough probes have failed or succeeded.
func (b *Breaker) judgeProbesLocked(set *settings, p *phase, at, retryAfter time.Duration) {
	switch {
	case set.Mode == ForcedOpen:
	case p.state == HalfOpen && p.probes.bad >= set.ProbeFailures:
		b.openLocked(set, ProbeFailed, at, retryAfter)
	case p.probes.good >= set.ProbeSuccesses:
		b.closeLocked(set, at)
	}
}

// brokeLate counts a call of the phase as failed, in place of what it had counted: its
// answer was good, and then its body broke.
func (b *Breaker) brokeLate(p *phase, answered, at time.Duration, v verdict, slow bool) {
	b.mu.Lock()
	set := b.settings.Load()
	switch {
	case b.advanceLocked(set, at) != p || p.mute:
		b.unlock()
	case p.state == Closed:
		p.goOnWithRow(answered)
		switch {
		case p.window == nil:
		case v == good:
			p.window.broke(at, slow)
		default: // it had counted nothing
			p.window.add(at, true, slow)
		}
		b.judgeAndUnlock(p, at, 0)
	default:
		p.probes.good = max(p.probes.good-1, 0)
		p.probes.bad++
		b.judgeProbesLocked(set, p, at, 0)
		b.unlock()
	}
}

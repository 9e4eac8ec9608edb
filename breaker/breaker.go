package breaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/events"
)

// Breaker is a circuit breaker. Use [New] to make one. It is safe for concurrent use.
type Breaker struct {
	name     string
	settings atomic.Pointer[settings]
	phase    atomic.Pointer[phase]
	changes  *events.Queue[Change]
	gate     *gate // nil unless a balancer asks it

	mu    sync.Mutex // guards what follows, and changes of the fields above; of what users set, only Clock and Rand run under it
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
	b.phase.Store(b.firstPhase(Created, set.elapsed()))
	return b
}

// firstPhase returns the phase with which a mode begins. What was before does not count.
func (b *Breaker) firstPhase(because Reason, at time.Duration) *phase {
	b.level = 0
	if b.settings.Load().mode == ForcedOpen {
		return b.newPhase(Open, because, at, forever)
	}
	return b.newPhase(Closed, because, at, at)
}

// Name returns the name that the breaker was made with.
func (b *Breaker) Name() string { return b.name }

// Allow asks for one call. The permit must be given back when the call has ended. The
// error is an [*OpenError]. It does not wait for anything, and allocates nothing.
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
	if must && set.mode != ForcedOpen {
		return Permit{phase: p, probe: forced, start: at}, nil
	}
	p.rejected.Add(1)
	if set.mode == MetricsOnly {
		return Permit{}, nil
	}
	return Permit{}, p.refusal
}

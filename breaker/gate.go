package breaker

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/pushback"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// gate is the breaker of a balancer's endpoint. The balancer does not pick an endpoint
// whose breaker would refuse, so it must be told when that changes: by the reasons of
// the node, which are set under the breaker's lock together with the state. Since nobody asks the breaker meanwhile, a timer does.
type gate struct {
	breaker *Breaker
	group   *Group
	node    *node.Node

	// Guarded by the breaker's lock.
	timer  clock.Timer   // nil if there is none
	due    time.Duration // when it is
	timers int           // how many there were
	gone   bool
}

// Acquire implements [node.Gate].
func (g *gate) Acquire(now time.Time, must bool) node.Admission {
	b := g.breaker
	if p := b.phase.Load(); p.state == Closed {
		return node.Admission{OK: true, Pass: p}
	}
	set := b.settings.Load()
	permit, refusal, news := b.admit(set, set.read(set.at(now)), must)
	if refusal != nil && !news { // it may have opened just now: wait until the node knows
		b.mu.Lock()
		b.mu.Unlock() //nolint:staticcheck // nothing is to be done under it
	}
	a := node.Admission{OK: refusal == nil, Changed: news, Number: permit.probe}
	if permit.phase != nil { // else nothing is counted
		a.Pass = permit.phase
	}
	return a
}

// Refusal implements [node.Gate].
func (g *gate) Refusal() (until time.Time, err error) {
	if p := g.breaker.phase.Load(); p.refusal != nil {
		return p.refusal.Until, p.refusal
	}
	return time.Time{}, nil
}

// Answered implements [node.Pass].
func (p *phase) Answered(probe int32, a outcome.Answer) (watch bool) {
	set := p.breaker.settings.Load()
	r, at := Result{Class: a.Class, Took: a.Took}, set.at(a.Now)
	v := set.verdictOfAnswer(a)
	if v == bad {
		at = set.read(at)
		r.RetryAfter, _ = pushback.RetryAfter(a.Header, set.start.Add(at))
	}
	counted := p.ended(set, probe, at, v, r, true)
	switch {
	case v != good && v != alive:
		return false
	case p.state == Closed:
		return counted || v == alive
	default:
		return counted && !set.slow(a.Took) // a slow probe is a bad one already
	}
}

// Whole implements [node.Pass].
func (p *phase) Whole() { p.row.Whole() }

// verdictOfAnswer is verdictOf for what came over HTTP: a server that is not available
// has failed, also if it says for how long, and one that lets go of a connection in good
// order has not.
func (s *settings) verdictOfAnswer(a outcome.Answer) verdict {
	switch {
	case a.Class == outcome.Overload && a.Status == http.StatusServiceUnavailable:
		return bad
	case a.Class == outcome.NeverSent && a.Connected:
		return ignored
	}
	return s.verdictOf(a.Class)
}

// Broke implements [node.Pass].
func (p *phase) Broke(a outcome.Answer) {
	set := p.breaker.settings.Load()
	p.breaker.brokeLate(p, set.elapsed(), set.verdictOfAnswer(a), set.slow(a.Took))
}

// Gone implements [node.Gate].
func (g *gate) Gone() {
	b := g.breaker
	b.mu.Lock()
	g.gone = true
	g.armLocked(forever)
	b.mu.Unlock()
	g.group.mu.Lock()
	delete(g.group.gates, g)
	g.group.mu.Unlock()
}

// pushLocked tells the node whether the breaker would refuse. It reports whether
// the owner of the node is to be told.
func (g *gate) pushLocked() (changed bool) {
	b := g.breaker
	set, p := b.settings.Load(), b.phase.Load()
	reason, due := node.Reasons(0), forever
	switch p.state {
	case Open:
		reason, due = node.Open, p.until
	case HalfOpen:
		if !p.probes.room(set) {
			reason = node.Open
		}
		if len(p.probes.underWay) > 0 {
			due = after(p.probes.underWay[0].began, set.ProbeTimeout)
		}
	case Closed:
	}
	switch set.mode {
	case ForcedOpen:
		reason = node.ForcedOpen
	case MetricsOnly:
		reason = 0
	case Auto, Disabled:
	}
	changed = g.node.Set(node.Open|node.ForcedOpen, reason)
	g.armLocked(due)
	return changed
}

// armLocked sets the timer to an instant, unless it is.
func (g *gate) armLocked(due time.Duration) {
	if g.gone {
		due = forever
	}
	if g.timer != nil && g.due == due {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if due != forever {
		set := g.breaker.settings.Load()
		g.timers++
		which := g.timers
		g.due, g.timer = due, set.Clock.AfterFunc(due-set.elapsed(), func() { g.wake(which) })
	}
}

// wake does what time has brought.
func (g *gate) wake(timer int) {
	b := g.breaker
	b.mu.Lock()
	defer b.unlock()
	if g.timer == nil || timer != g.timers {
		return // it was too late to stop it
	}
	g.timer = nil
	set := b.settings.Load()
	b.advanceLocked(set, set.elapsed())
}

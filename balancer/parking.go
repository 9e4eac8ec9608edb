package balancer

import (
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/pushback"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// parking is an endpoint that has asked to be left alone for a while: it gets no traffic
// until then, unless there is no other, and comes back by way of slow start. Guarded by the
// pool's lock.
type parking struct {
	lasts time.Duration
	until time.Time
	timer clock.Timer // nil unless it is parked
	left  bool        // the endpoint is not in the pool any more
}

const defaultMaxPark = 5 * time.Minute

// spread is by which part of itself a wait that a server has asked for is made longer at
// most, so that not all clients come back at once. It is never made shorter, but for the
// longest, which are cut off.
const spread = 0.5

// shortPark is a park after which an endpoint does not begin slowly: it was hardly away.
const shortPark = time.Second

// Overloaded implements [node.Watcher].
func (m *member) Overloaded(a outcome.Answer) {
	if d, ok := pushback.Wait(a.Status, a.Header, m.pool.clock.Now); ok && d > 0 {
		m.pool.park(m, d)
	}
}

// park keeps traffic away from a member for d and a bit more.
func (p *Pool) park(m *member, d time.Duration) {
	p.mu.Lock()
	most := p.rules.MaxPark
	if p.closed || m.left || most < 0 {
		p.mu.Unlock()
		return
	}
	if d > most {
		d = most - most/3
	}
	random := float64(p.rand()>>11) / (1 << 53)
	d += time.Duration(random * min(spread*float64(d), float64(most-d)))
	until := p.now().Add(d)
	if m.timer != nil && !until.After(m.until) {
		p.mu.Unlock()
		return
	}
	m.unparkLocked()
	m.lasts, m.until = d, until
	p.armParkLocked(m, d)
	changed := m.node.Set(node.Parked, node.Parked)
	p.mu.Unlock()
	if changed {
		m.node.Changed()
	}
}

// armParkLocked sets the timer that ends the parking.
func (p *Pool) armParkLocked(m *member, d time.Duration) {
	m.timer = p.clock.AfterFunc(d, func() { p.unpark(m) })
}

// unpark lets traffic come back when the time is over.
func (p *Pool) unpark(m *member) {
	p.mu.Lock()
	changed := false
	switch left := m.until.Sub(p.now()); {
	case m.timer == nil: // it was too late to stop it
	case left > 0: // parked anew meanwhile, or the timer was early
		m.timer.Stop()
		p.armParkLocked(m, left)
	default:
		m.timer = nil
		changed = m.node.Set(node.Parked, 0)
	}
	p.mu.Unlock()
	if changed {
		m.node.Changed()
	}
}

// unparkLocked stops the timer.
func (m *member) unparkLocked() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// wasAway reports whether a member that is available again has been away, for the reasons that
// it had, for so long that it had better begin slowly.
func (m *member) wasAway(reasons node.Reasons) bool {
	return reasons != node.Parked || m.lasts >= shortPark
}

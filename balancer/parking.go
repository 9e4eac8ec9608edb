package balancer

import (
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/pushback"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// parking is an endpoint that has asked to be left alone for a while: it gets no traffic
// until then, unless too few others are available (Rules.Panic), and comes back by way of
// slow start. Guarded by the pool's lock.
type parking struct {
	until time.Time
	timer clock.Timer // nil unless it is parked
}

const defaultMaxPark = 5 * time.Minute

// spread is by which part of itself a wait that a server has asked for is made longer at
// most, so that not all clients come back at once. It is never made shorter.
const spread = 0.5

// Overloaded implements [node.Watcher].
func (m *member) Overloaded(a outcome.Answer) {
	if d, ok := pushback.Wait(a.Status, a.Header, a.Now); ok && d > 0 {
		m.pool.park(m, d)
	}
}

// park keeps traffic away from a member for d and a bit more.
func (p *Pool) park(m *member, d time.Duration) {
	p.mu.Lock()
	most := p.rules.MaxPark
	if p.closed || most < 0 || m.node.Reasons()&node.Removed != 0 {
		p.mu.Unlock()
		return
	}
	random := float64(p.rand()>>11) / (1 << 53)
	d = min(d+time.Duration(spread*random*float64(d)), most)
	until := p.now().Add(d)
	if m.timer != nil && !until.After(m.until) {
		p.mu.Unlock()
		return
	}
	m.unparkLocked()
	m.until, m.timer = until, p.clock.AfterFunc(d, func() { p.unpark(m) })
	changed := m.node.Set(node.Parked, node.Parked)
	p.mu.Unlock()
	if changed {
		m.node.Changed()
	}
}

// unpark lets traffic come back when the time is over.
func (p *Pool) unpark(m *member) {
	p.mu.Lock()
	if m.timer == nil || p.now().Before(m.until) { // parked anew meanwhile, or gone
		p.mu.Unlock()
		return
	}
	m.timer = nil
	p.mu.Unlock()
	m.node.Clear(node.Parked)
}

// unparkLocked stops the timer.
func (m *member) unparkLocked() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

package balancer

import (
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Change is an event: the endpoints of a pool, or how many of them are available,
// have changed.
type Change struct {
	// Added and Removed are who came and who left.
	Added, Removed []discovery.Endpoint
	// Size is how many endpoints the pool has now, Available how many of them
	// have no reason against them.
	Size, Available int
	// Panic says that so few endpoints of some priority are healthy that their
	// health is ignored, or calls fail, as Rules.Panic says. Entering and
	// leaving panic are events of their own.
	Panic bool
}

// update makes the pool hold exactly these endpoints. Those that stay keep all
// that is known of them. A new snapshot is published before those that left are
// marked, so that a pick which still finds one knows to look again.
func (p *Pool) update(endpoints []discovery.Endpoint) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := p.now()
	change, gone := p.takeLocked(endpoints, now)
	p.publishLocked(now, &change)
	for _, n := range gone {
		p.drainLocked(n)
	}
	p.armSweepLocked()
	p.readyLocked()
	p.mu.Unlock()

	for _, n := range gone {
		n.Remove()
	}
	p.tell()
}

// takeLocked replaces the members. Sets are large, change little, and are mostly
// told in the same order, so it takes over whole runs of endpoints that are the
// same, and looks up only what is between them.
func (p *Pool) takeLocked(endpoints []discovery.Endpoint, now time.Time) (change Change, gone []*node.Node) {
	old, before := p.members, p.endpoints
	members, kept := make([]*member, len(endpoints)), make([]bool, len(old))
	moved := false
	at := 0 // the place in old of the next one, if nothing has changed
	for i := 0; i < len(endpoints); {
		if n := sameRun(endpoints[i:], before[min(at, len(before)):]); n > 0 {
			copy(members[i:], old[at:at+n])
			for k := range n {
				kept[at+k] = true
			}
			i, at = i+n, at+n
			continue
		}
		e := &endpoints[i]
		m := p.byKey[e.Key()]
		switch {
		case m == nil:
			m = p.newMember(*e)
			m.noteLeaving(now)
			if len(old) > 0 {
				m.since, m.warming = now, true
			}
			p.byKey[e.Key()] = m
			change.Added = append(change.Added, *e)
			at++ // most likely in place of the one that was there
		default:
			at = m.index
			if !e.Equal(before[at]) {
				m.take(*e)
				m.noteLeaving(now)
				moved = true
			}
			kept[at] = true
			at++
		}
		members[i] = m
		i++
	}
	for i, m := range old {
		if !kept[i] {
			m.unparkLocked()
			m.left = true
			gone = append(gone, m.node)
			change.Removed = append(change.Removed, before[i])
			if p.byKey[before[i].Key()] == m {
				delete(p.byKey, before[i].Key())
			}
		}
	}
	p.members, p.endpoints = members, endpoints
	for i, m := range members {
		if i >= len(old) || old[i] != m {
			m.index = i
		}
	}
	if moved || len(change.Added) > 0 || len(gone) > 0 {
		p.directory = nil
		if p.cfg.Sessions != nil {
			p.cfg.Sessions.Endpoints(endpoints)
		}
		p.orderLocked()
		p.settleLocked(gone, now)
	}
	return change, gone
}

// settleLocked lets those who watch the health of the endpoints draw their conclusions, before
// anybody sees the new set: too many may be ejected now.
func (p *Pool) settleLocked(gone []*node.Node, now time.Time) {
	if p.cfg.Health == nil {
		return
	}
	for _, n := range gone {
		n.Set(node.Draining, node.Draining) // they do not count any more
	}
	if p.cfg.Health.Settle() {
		for _, m := range p.members {
			p.seeLocked(m, now)
		}
	}
}

// sameRun returns how many endpoints the two sets begin with that are the same.
func sameRun(a, b []discovery.Endpoint) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := &a[i], &b[i]
		same := x.Address == y.Address && x.ID == y.ID && x.Weight == y.Weight && x.Zone == y.Zone &&
			x.Priority == y.Priority && x.Standby == y.Standby && x.Draining == y.Draining &&
			((len(x.Attributes) == 0 && len(y.Attributes) == 0) || x.Equal(*y))
		if !same {
			return i
		}
	}
	return n
}

// orderLocked puts the members into this client's order, if it uses a part of
// them only.
func (p *Pool) orderLocked() {
	if size := p.subsetSize(p.rules); size > 0 {
		p.rules.Subset.orderMembers(p.members, p.seed, size, p.rules.Zones.Local != "")
	}
}

func (p *Pool) newMember(e discovery.Endpoint) *member {
	p.serial++
	conns := &conns{endpoint: e, pool: p}
	m := &member{pool: p, observer: p.observer(e, nil)}
	m.node = node.New(e, p.serial, conns, m)
	if p.cfg.Breakers != nil {
		m.node.Guard(p.cfg.Breakers.Gate(m.node))
	}
	if p.cfg.Health != nil {
		m.node.Watch(p.cfg.Health.Monitor(m.node))
	}
	m.node.SetLimit(uint32(p.rules.MaxInFlight))
	conns.node = m.node
	m.take(e)
	return m
}

// maxWeight keeps sums of weights finite.
const maxWeight = 1e100

// take notes what discovery says of the endpoint now.
func (m *member) take(e discovery.Endpoint) {
	m.node.Update(e)
	m.weight, m.zone, m.reasons = min(e.EffectiveWeight(), maxWeight), e.Zone, m.node.Reasons()
	m.rank = rank{standby: e.Standby, priority: e.Priority}
	if e.Standby {
		m.rank.priority = 0
	}
}

// observer asks the algorithm what it wants to keep for an endpoint.
func (p *Pool) observer(e discovery.Endpoint, previous node.Observer) node.Observer {
	if o := p.builder.Observer(e, previous); o != nil {
		p.learns = true
		return o
	}
	return nil
}

// readyLocked lets go those who wait for the first set, or for the end.
func (p *Pool) readyLocked() {
	if !p.isReady() {
		close(p.ready)
	}
}

// drainLocked bounds the time that the requests of a removed node have left.
func (p *Pool) drainLocked(n *node.Node) {
	var limit clock.Timer
	if p.cfg.DrainTimeout > 0 {
		limit = p.clock.AfterFunc(p.cfg.DrainTimeout, n.Base().Close)
	}
	p.draining[n] = limit
}

// drained is told when the connections of a removed node are closed.
func (p *Pool) drained(n *node.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit := p.draining[n]; limit != nil {
		limit.Stop()
	}
	delete(p.draining, n)
}

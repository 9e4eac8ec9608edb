package balancer

import (
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Change is an event: the endpoints of a pool have changed.
type Change struct {
	// Added and Removed are who came and who left.
	Added, Removed []discovery.Endpoint
	// Size is how many endpoints the pool has now, Available how many of
	// them may be picked.
	Size, Available int
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
	before := p.byKey
	var change Change
	p.byKey = make(map[discovery.Key]*member, len(endpoints))
	p.members = make([]*member, 0, len(endpoints))
	for _, e := range endpoints {
		m := before[e.Key()]
		if m == nil {
			m = p.newMember(e)
			change.Added = append(change.Added, e)
		}
		m.node.Update(e)
		p.byKey[e.Key()] = m
		p.members = append(p.members, m)
	}
	var gone []*node.Node
	for key, m := range before {
		if p.byKey[key] != m {
			gone = append(gone, m.node)
			change.Removed = append(change.Removed, m.node.Endpoint())
		}
	}
	change.Size, change.Available = len(p.members), p.publishLocked()
	for _, n := range gone {
		p.drainLocked(n)
	}
	p.armSweepLocked()
	p.readyLocked()
	p.mu.Unlock()

	for _, n := range gone {
		n.Remove()
	}
	if p.cfg.OnChange != nil {
		p.cfg.OnChange(change)
	}
}

// readyLocked lets go those who wait for the first set, or for the end.
func (p *Pool) readyLocked() {
	if !p.isReady() {
		close(p.ready)
	}
}

func (p *Pool) newMember(e discovery.Endpoint) *member {
	p.serial++
	conns := &conns{endpoint: e, pool: p}
	n := node.New(e, p.serial, conns)
	conns.node = n
	return &member{node: n, observer: p.observer(e, nil)}
}

// observer asks the algorithm what it wants to keep for an endpoint.
func (p *Pool) observer(e discovery.Endpoint, previous node.Observer) node.Observer {
	if o := p.builder.Observer(e, previous); o != nil {
		return o
	}
	return nil
}

// publishLocked makes picks see the members, and returns how many are available.
func (p *Pool) publishLocked() int {
	cause := errNoneFound
	if len(p.members) > 0 {
		cause = errAllUnavailable
	}
	s := newSnapshot(p.members, p.builder, cause)
	p.snapshot.Store(s)
	return s.available()
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

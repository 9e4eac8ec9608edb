package memnet

import "time"

// place is an address with everything that is known of it. Its fields are
// guarded by the network's mutex.
type place struct {
	addr     Addr
	listener *listener // nil while nobody listens
	links    map[*link]struct{}
	dials    int
	latency  time.Duration
	fault    fault
	changed  chan struct{} // closed, and replaced, when the fault changes
}

type fault uint8

const (
	healthy fault = iota
	refuse
	blackHole
	unreachable
)

func (n *Network) placeLocked(addr Addr) *place {
	p := n.places[addr]
	if p == nil {
		p = &place{addr: addr, links: make(map[*link]struct{}), changed: make(chan struct{})}
		n.places[addr] = p
	}
	return p
}

func (p *place) linksLocked() []*link {
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// Refuse makes dials to the address fail with ECONNREFUSED, as if nobody
// listened. Connections that exist are left alone.
func (n *Network) Refuse(address string) { n.setFault(address, refuse) }

// Unreachable makes dials to the address fail with ENETUNREACH, as without a
// route. Connections that exist are left alone.
func (n *Network) Unreachable(address string) { n.setFault(address, unreachable) }

// BlackHole makes the address silent, as behind a firewall that drops: dials
// hang until their context ends, and on connections that exist nothing arrives
// any more, in both directions, neither data nor the news that the other end
// closed. Writes succeed until the buffer is full. Data that had arrived before
// can still be read.
func (n *Network) BlackHole(address string) { n.setFault(address, blackHole) }

// Heal ends the fault of an address. What was sent into a black hole arrives
// now, as TCP would send it again, and dials that hang go on.
func (n *Network) Heal(address string) { n.setFault(address, healthy) }

func (n *Network) setFault(address string, f fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.placeLocked(parseAddr(address))
	if p.fault == f {
		return
	}
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	// Under n.mu, so that two faults reach every link in the same order.
	for l := range p.links {
		l.setSilent(f == blackHole)
	}
}

// SetLatency sets how long a byte travels to and from the address, one way. It
// holds for what is sent from now on; what is under way is not overtaken. As the
// buffer of a direction also holds what is under way, a latency bounds the
// throughput to [BufferSize] per one-way trip.
func (n *Network) SetLatency(address string, oneWay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.placeLocked(parseAddr(address))
	p.latency = max(oneWay, 0)
	for l := range p.links {
		l.setLatency(p.latency)
	}
}

// ResetConnections resets all connections to the address (RST): both ends fail
// with ECONNRESET at once, also in a black hole, and what was not read is lost.
func (n *Network) ResetConnections(address string) {
	n.mu.Lock()
	links := n.placeLocked(parseAddr(address)).linksLocked()
	n.mu.Unlock()
	resetAll(links)
}

func resetAll(links []*link) {
	for _, l := range links {
		l.reset()
	}
}

// Dials returns how often the address was dialled, with or without success.
func (n *Network) Dials(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.placeLocked(parseAddr(address)).dials
}

// OpenConns returns how many connections to the address the dialling side
// holds: established, not closed by it, not reset. What the listening side still
// has open does not count, for it is not the client's leak.
func (n *Network) OpenConns(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.placeLocked(parseAddr(address)).openLocked()
}

// AllOpenConns returns [Network.OpenConns] of every address where it is not
// zero, in the form in which the addresses were given.
func (n *Network) AllOpenConns() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string]int)
	for addr, p := range n.places {
		if open := p.openLocked(); open > 0 {
			all[addr.given()] = open
		}
	}
	return all
}

func (p *place) openLocked() int {
	open := 0
	for l := range p.links {
		if l.clientOpen() {
			open++
		}
	}
	return open
}

// forget drops a link of which neither end is in use.
func (n *Network) forget(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(l.place.links, l)
}

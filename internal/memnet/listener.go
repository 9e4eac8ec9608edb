package memnet

import (
	"net"
	"sync"
)

// listener implements [net.Listener]. Its fields are guarded by the network's
// mutex. The queue has no bound: a test orders a full backlog by a black hole.
type listener struct {
	network *Network
	place   *place
	arrived *sync.Cond // on the network's mutex
	queue   []*Conn
	closed  bool
}

func newListener(n *Network, p *place) *listener {
	return &listener{network: n, place: p, arrived: sync.NewCond(&n.mu)}
}

func (ln *listener) enqueueLocked(c *Conn) {
	ln.queue = append(ln.queue, c)
	ln.arrived.Signal()
}

// Accept implements [net.Listener].
func (ln *listener) Accept() (net.Conn, error) {
	ln.network.mu.Lock()
	defer ln.network.mu.Unlock()
	for len(ln.queue) == 0 && !ln.closed {
		ln.arrived.Wait()
	}
	if ln.closed {
		return nil, opError("accept", nil, ln.place.addr, net.ErrClosed)
	}
	c := ln.queue[0]
	ln.queue = ln.queue[1:]
	return c, nil
}

// Close implements [net.Listener]. Connections that nobody accepted are reset,
// as a kernel does; accepted ones live on.
func (ln *listener) Close() error {
	ln.network.mu.Lock()
	if ln.closed {
		ln.network.mu.Unlock()
		return opError("close", nil, ln.place.addr, net.ErrClosed)
	}
	orphans := ln.closeLocked()
	ln.network.mu.Unlock()
	for _, c := range orphans {
		c.link.reset()
	}
	return nil
}

// closeLocked returns the connections that nobody accepted, for the caller to
// reset once it has released the mutex.
func (ln *listener) closeLocked() []*Conn {
	orphans := ln.queue
	ln.closed, ln.queue = true, nil
	ln.place.listener = nil
	ln.arrived.Broadcast()
	return orphans
}

// Addr implements [net.Listener].
func (ln *listener) Addr() net.Addr { return ln.place.addr }

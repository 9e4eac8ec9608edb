package memnet

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is where listeners are found and connections live. Make one with
// [New], inside the bubble that uses it. It is safe for concurrent use.
//
// Addresses are names, not numbers: "users:80" and "10.0.0.1:8080" are whatever
// listens there, and "unix:/run/users.sock" is a Unix socket. A fault may be
// ordered for an address before anybody listens there.
type Network struct {
	// mu guards what follows and the fields of every place. It is taken
	// before the mutex of a link, never while one is held.
	mu      sync.Mutex
	places  map[Addr]*place
	clients int           // diallers so far, for their addresses
	closed  chan struct{} // ends what waits in dials
}

// New returns a network on which nobody listens.
func New() *Network {
	return &Network{places: make(map[Addr]*place), closed: make(chan struct{})}
}

// Listen starts to listen at the address. It fails with EADDRINUSE as long as
// another listener there is open.
func (n *Network) Listen(address string) (net.Listener, error) {
	addr := parseAddr(address)
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.placeLocked(addr)
	switch {
	case n.isClosed():
		return nil, opError("listen", nil, addr, net.ErrClosed)
	case p.listener != nil:
		return nil, opError("listen", nil, addr, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	p.listener = newListener(n, p)
	return p.listener, nil
}

// DialContext connects to a listener, with the errors of a [net.Dialer]. The
// connection is established when it waits to be accepted, as in a kernel. Over
// a place with latency that takes a round trip.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	addr, err := dialAddr(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	conn, err := n.dial(ctx, n.dialled(addr))
	if err != nil {
		return nil, opError("dial", nil, addr, err)
	}
	return conn, nil
}

func (n *Network) dialled(addr Addr) *place {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.placeLocked(addr)
	p.dials++
	return p
}

func (n *Network) dial(ctx context.Context, p *place) (net.Conn, error) {
	travelled := false // the handshake has had its round trip
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n.mu.Lock()
		fault, changed, trip := p.fault, p.changed, 2*p.latency
		switch {
		case n.isClosed():
			n.mu.Unlock()
			return nil, net.ErrClosed
		case fault == unreachable:
			n.mu.Unlock()
			return nil, os.NewSyscallError("connect", syscall.ENETUNREACH)
		case fault == blackHole:
			trip = forever
		case travelled || trip == 0:
			conn, err := n.connectLocked(p)
			n.mu.Unlock()
			return conn, err
		}
		n.mu.Unlock()
		travelled = n.pause(ctx, trip, changed)
	}
}

// connectLocked is what happens when the first packet of a dial arrives.
func (n *Network) connectLocked(p *place) (net.Conn, error) {
	if p.fault == refuse || p.listener == nil {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	n.clients++
	l := newLink(n, p, clientAddr(p.addr.network, n.clients-1))
	p.links[l] = struct{}{}
	p.listener.enqueueLocked(l.server)
	return l.client, nil
}

const forever time.Duration = -1

// pause waits for d and reports whether it waited that long: anything that
// happens before is for the caller to look at.
func (n *Network) pause(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	var over <-chan time.Time
	if d != forever {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-over:
		return true
	case <-changed:
	case <-ctx.Done():
	case <-n.closed:
	}
	return false
}

// Close closes every listener, resets every connection and ends every dial.
// Calls after the first do nothing.
func (n *Network) Close() {
	n.mu.Lock()
	if n.isClosed() {
		n.mu.Unlock()
		return
	}
	close(n.closed)
	var links []*link
	for _, p := range n.places {
		if p.listener != nil {
			p.listener.closeLocked()
		}
		links = append(links, p.linksLocked()...)
	}
	n.mu.Unlock()
	resetAll(links)
}

func (n *Network) isClosed() bool {
	select {
	case <-n.closed:
		return true
	default:
		return false
	}
}

func opError(op string, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: addr.Network(), Source: source, Addr: addr, Err: err}
}

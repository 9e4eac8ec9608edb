package balancer

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

const (
	// sweepInterval is how long an endpoint must be without requests for its
	// transport to be dropped. It is made anew when it is needed again.
	sweepInterval = 5 * time.Minute
	// retireInterval is how often connections that are too old are looked at.
	retireInterval = time.Second
)

// conns are the connections of one endpoint. Requests keep the URL, Host and TLS
// server name of the target: only the dial goes to the endpoint's address, so
// that a connection to one endpoint can never be used for another.
type conns struct {
	endpoint discovery.Endpoint
	pool     *Pool
	node     *node.Node

	sender atomic.Pointer[sender]
	used   atomic.Bool // since the last sweep

	mu      sync.Mutex // guards what follows; nothing is called under it that takes another lock
	open    map[*conn]struct{}
	retired map[*sender]clock.Timer // which have open connections, see retire
	closed  bool
	stopped bool // the pool is closed
}

// sender is what sends: the endpoint's transport with the user's wrapper.
type sender struct {
	http.RoundTripper
	transport http.RoundTripper
	wrapped   bool      // else the two are the same
	born      time.Time // zero if it does not age
	youth     float64   // the part of Rules.MaxConnectionAge after which it retires
	retired   bool      // guarded by the lock of the connections
}

// RoundTrip implements [http.RoundTripper].
func (c *conns) RoundTrip(req *http.Request) (*http.Response, error) {
	s := c.sender.Load()
	if s != nil && c.pool.maxConnAge.Load() > 0 {
		s = c.renew(s)
	}
	if s == nil {
		s = c.makeSender()
	}
	if !c.used.Load() {
		c.used.Store(true)
	}
	return s.RoundTrip(req)
}

func (c *conns) makeSender() *sender {
	s := &sender{}
	if custom := c.pool.cfg.EndpointTransport; custom != nil {
		s.transport = custom(c.endpoint)
	} else {
		s.transport = c.newTransport(s)
		s.born = c.pool.now()
		s.youth = 1 - float64(c.pool.rand()>>11)/(1<<53)/10
	}
	s.RoundTripper = s.transport
	if c.pool.cfg.Wrap != nil {
		s.RoundTripper, s.wrapped = c.pool.cfg.Wrap(s.transport), true
	}
	for !c.sender.CompareAndSwap(nil, s) {
		if first := c.sender.Load(); first != nil {
			return first // another request was faster
		}
	}
	return s
}

// renew returns nil if the sender is too old for another request, after it has let
// go of it: a new one makes new connections.
func (c *conns) renew(s *sender) *sender {
	age := time.Duration(s.youth * float64(c.pool.maxConnAge.Load()))
	if s.born.IsZero() || c.pool.now().Sub(s.born) < age {
		return s
	}
	if c.sender.CompareAndSwap(s, nil) {
		c.retire(s)
	}
	return c.sender.Load()
}

// retire closes the connections of a sender as they become idle. What net/http
// does with a connection of HTTP/2 that becomes idle after it was told to close
// those that are is to keep it, so it is told again until none is left.
func (c *conns) retire(s *sender) {
	s.closeIdle()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.retired = true
	delete(c.retired, s)
	for nc := range c.open {
		if nc.sender == s {
			c.retireLaterLocked(s)
			return
		}
	}
}

// retireLaterLocked sees to it that the connections of a sender are looked at again.
func (c *conns) retireLaterLocked(s *sender) {
	if c.closed || c.stopped || c.retired[s] != nil {
		return
	}
	if c.retired == nil {
		c.retired = map[*sender]clock.Timer{}
	}
	c.retired[s] = c.pool.clock.AfterFunc(retireInterval, func() { c.retire(s) })
}

// stop ends all that happens by itself. Requests may go on.
func (c *conns) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.stopTimersLocked()
}

func (c *conns) stopTimersLocked() {
	for _, t := range c.retired {
		t.Stop()
	}
	c.retired = nil
}

// HTTP2 reports whether requests of the scheme may go out as HTTP/2.
func (c *conns) HTTP2(scheme string) bool {
	if c.pool.cfg.EndpointTransport != nil {
		return false // not known: what does not repeat by itself needs no bound
	}
	p := c.pool.template.Protocols
	return scheme == "https" || (p != nil && p.UnencryptedHTTP2())
}

func (c *conns) newTransport(s *sender) *http.Transport {
	t := c.pool.template.Clone()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		network, address := c.endpoint.Network()
		nc, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c.track(nc, s)
	}
	return t
}

// CloseIdleConnections closes the connections that nobody uses.
func (c *conns) CloseIdleConnections() {
	if s := c.sender.Load(); s != nil {
		s.closeIdle()
	}
}

// closeIdle asks the wrapper, which may or may not pass it on, and the transport.
func (s *sender) closeIdle() {
	for _, rt := range []http.RoundTripper{s.RoundTripper, s.transport} {
		if i, ok := rt.(interface{ CloseIdleConnections() }); ok {
			i.CloseIdleConnections()
		}
		if !s.wrapped {
			return // they are the same
		}
	}
}

// Close closes all connections. It is called when the endpoint has left and its
// last request has ended, or the time for that is over.
func (c *conns) Close() {
	c.CloseIdleConnections()
	c.mu.Lock()
	c.closed = true
	c.stopTimersLocked()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for nc := range open {
		_ = nc.Conn.Close()
	}
	c.pool.drained(c.node)
}

// DropIdle lets go of a transport that was not used since the last call.
func (c *conns) DropIdle() {
	if s := c.sender.Load(); s != nil && !c.used.Swap(false) && c.node.InFlight() == 0 {
		c.sender.CompareAndSwap(s, nil)
		s.closeIdle()
	}
}

// track makes Close find the connection.
func (c *conns) track(nc net.Conn, s *sender) (net.Conn, error) {
	tracked := &conn{Conn: nc, of: c, sender: s}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = nc.Close()
		return nil, &net.OpError{Op: "dial", Net: nc.RemoteAddr().Network(), Addr: nc.RemoteAddr(), Err: net.ErrClosed}
	}
	if c.open == nil {
		c.open = map[*conn]struct{}{}
	}
	c.open[tracked] = struct{}{}
	if s.retired { // while it was being made
		c.retireLaterLocked(s)
	}
	return tracked, nil
}

func (c *conns) openConns() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// conn is a connection that its endpoint knows of.
type conn struct {
	net.Conn
	of     *conns
	sender *sender
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// ReadFrom keeps the short cuts of the operating system for uploads.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

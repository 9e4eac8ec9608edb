package health

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// lines are the connections of probes. They are made as those of the traffic are, with the same
// dialer and the same TLS settings and names, but are apart from them: a probe never waits for a
// connection of the traffic, nor does it keep one open. One transport serves all endpoints: each has
// a host name there that is its own, so that no connection is used for another.
type lines struct {
	target *url.URL // nil if each endpoint is its own
	clock  clock.Clock
	custom func(discovery.Endpoint) http.RoundTripper
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	web    *http.Transport // as the traffic
	h2     *http.Transport // HTTP/2 only, for gRPC
}

func newLines(target *url.URL, ways node.Ways, c clock.Clock) *lines {
	ls := &lines{target: target, clock: c, custom: ways.Custom, dial: ways.Template.DialContext}
	ls.web = ls.transport(ways.Template)
	ls.h2 = ls.transport(ways.Template)
	ls.h2.ForceAttemptHTTP2 = true
	ls.h2.Protocols = new(http.Protocols)
	ls.h2.Protocols.SetHTTP2(true)
	ls.h2.Protocols.SetUnencryptedHTTP2(true)
	return ls
}

// transport returns a clone that dials the endpoint of the request, whatever its URL says.
func (ls *lines) transport(template *http.Transport) *http.Transport {
	t := template.Clone()
	t.Proxy = nil
	t.DisableCompression = true // what is compressed is nobody's bomb then
	t.MaxResponseHeaderBytes = maxBody
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = 0, 1, 0
	t.IdleConnTimeout = 0 // they go with their endpoint
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	if ls.target != nil && t.TLSClientConfig.ServerName == "" {
		t.TLSClientConfig.ServerName = ls.target.Hostname()
	}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(destinationKey{}).(destination).dial(ctx)
	}
	return t
}

// close closes all connections that are not used.
func (ls *lines) close() {
	ls.web.CloseIdleConnections()
	ls.h2.CloseIdleConnections()
}

// destinationKey is where the dialer finds its destination in the context.
type destinationKey struct{}

type destination struct {
	line  *line
	port  int             // 0 is that of the endpoint
	probe context.Context //nolint:containedctx // that of the request: net/http dials under another one, which outlives it
}

// dial opens a connection, no longer than the probe takes.
func (d destination) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.probe, cancel)() //nolint:contextcheck // there are two: it ends with the first
	nc, err := d.line.dial(ctx, d.port)
	if err != nil {
		return nil, err
	}
	return d.line.track(d.probe, nc) //nolint:contextcheck // so are there here
}

// line is what leads to one endpoint.
type line struct {
	lines    *lines
	endpoint discovery.Endpoint // as it joined; the address never changes
	serial   uint64

	mu     sync.Mutex        // guards what follows
	own    http.RoundTripper // what lines.custom has made, nil before
	open   map[*conn]struct{}
	closed bool
}

// address returns what to dial, at the endpoint's port or another one of its host.
func (l *line) address(port int) (network, address string) {
	network, address = l.endpoint.Network()
	if port != 0 && network == "tcp" {
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = net.JoinHostPort(host, strconv.Itoa(port))
		}
	}
	return network, address
}

// dial opens a connection to the endpoint, as the traffic does.
func (l *line) dial(ctx context.Context, port int) (net.Conn, error) {
	network, address := l.address(port)
	return l.lines.dial(ctx, network, address)
}

// send sends a request whose URL has a path only.
func (l *line) send(req *http.Request, via *http.Transport, port int) (*http.Response, error) {
	target := l.lines.target
	if target == nil {
		target = &url.URL{Scheme: "http", Host: l.endpoint.Address}
		if strings.HasPrefix(target.Host, "unix:") {
			target.Host = "localhost"
		}
	}
	if req.Host == "" {
		req.Host = target.Host
	}
	req.URL.Scheme = target.Scheme
	if l.lines.custom != nil {
		req.URL.Host = target.Host
		return l.customised().RoundTrip(req)
	}
	req.URL.Host = "endpoint" + strconv.FormatUint(l.serial, 10) + "-" + strconv.Itoa(port) + ".invalid"
	return via.RoundTrip(req.WithContext(context.WithValue(req.Context(), destinationKey{}, destination{l, port, req.Context()})))
}

// drop closes the connections to the endpoint, because a probe had no answer: one that is dead would
// be used again, and one whose handshake hangs be kept.
func (l *line) drop() {
	l.mu.Lock()
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for nc := range open {
		_ = nc.Conn.Close()
	}
}

// customised returns the transport of the endpoint's own that the user makes.
func (l *line) customised() http.RoundTripper {
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	if own != nil {
		return own
	}
	own = l.lines.custom(l.endpoint) // the user's: under no lock. There is one probe at a time.
	l.mu.Lock()
	l.own = own
	l.mu.Unlock()
	return own
}

// closeOwn closes the idle connections of the user's transport, or does so only if the line is
// closed.
func (l *line) closeOwn(onlyIfClosed bool) {
	l.mu.Lock()
	own, closed := l.own, l.closed
	l.mu.Unlock()
	if c, ok := own.(interface{ CloseIdleConnections() }); ok && (closed || !onlyIfClosed) {
		c.CloseIdleConnections()
	}
}

// close closes all connections to the endpoint, and refuses others.
func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.drop()
	l.closeOwn(false)
}

// track makes close find the connection, unless it comes too late.
func (l *line) track(probe context.Context, nc net.Conn) (net.Conn, error) {
	tracked := &conn{Conn: nc, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || probe.Err() != nil {
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	if l.open == nil {
		l.open = map[*conn]struct{}{}
	}
	l.open[tracked] = struct{}{}
	return tracked, nil
}

// conn is a connection that its line knows of.
type conn struct {
	net.Conn
	of *line
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

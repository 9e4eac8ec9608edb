package evenkeel_test

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

// as is errors.As in one expression; it returns nil where there is none.
func as[E error](err error) E {
	var e E
	_ = errors.As(err, &e)
	return e
}

// seeded returns a source for a random test, and says its seed.
func seeded(t *testing.T, seed uint64) rand.Source {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.NewPCG(seed, seed)
}

// longest is a source that makes every backoff as long as its jitter allows, less
// a nanosecond.
type longest struct{}

func (longest) Uint64() uint64 { return math.MaxUint64 }

// roundTripFunc is a transport of the test's own, without CloseIdleConnections.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answerTo makes the response of a transport of the test's own.
func answerTo(req *http.Request, status int, body io.ReadCloser) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: body, ContentLength: -1, Request: req,
	}
}

func textBody(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

// refuseFirst refuses the first n dials, as a server does that just restarts.
func refuseFirst(n int64) func(dialFunc) dialFunc {
	var dials atomic.Int64
	return func(next dialFunc) dialFunc {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) <= n {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			}
			return next(ctx, network, address)
		}
	}
}

// atMost lets n dials through.
func atMost(n int64) func(dialFunc) dialFunc {
	var dials atomic.Int64
	return func(next dialFunc) dialFunc {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) > n {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("dialled too often")}
			}
			return next(ctx, network, address)
		}
	}
}

// pushed is a resolver whose answers come from the test. Push returns when the
// pool has taken the answer in.
type pushed struct {
	answers chan []discovery.Endpoint
	taken   chan struct{}
}

func newPushed() *pushed {
	return &pushed{answers: make(chan []discovery.Endpoint), taken: make(chan struct{})}
}

func (p *pushed) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case endpoints := <-p.answers:
			sink.Update(endpoints, nil)
			select {
			case p.taken <- struct{}{}:
			case <-ctx.Done():
			}
		}
	}
}

func (p *pushed) push(endpoints ...discovery.Endpoint) {
	p.answers <- endpoints
	<-p.taken
	synctest.Wait() // the answer has passed on to the pool
}

func (p *pushed) pushServers(servers ...*evenkeeltest.Server) {
	endpoints := make([]discovery.Endpoint, len(servers))
	for i, s := range servers {
		endpoints[i] = s.Endpoint()
	}
	p.push(endpoints...)
}

// resolverFunc is a resolver of the test's own.
type resolverFunc func(context.Context, discovery.Sink) error

func (f resolverFunc) Watch(ctx context.Context, sink discovery.Sink) error { return f(ctx, sink) }

// hungResolver never answers.
func hungResolver() discovery.Resolver {
	return resolverFunc(func(ctx context.Context, _ discovery.Sink) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

// totalRequests is how many requests reached any of the servers.
func (s *stackUnderTest) totalRequests() int {
	n := 0
	for _, server := range s.servers {
		n += server.Requests()
	}
	return n
}

// counter counts things by name, from any goroutine.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[name]++
}

func (c *counter) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// soon is a backoff of exactly a millisecond, for rows in which its length does
// not matter.
const soon = time.Millisecond

// closeNoted is a response's body that remembers its Close.
type closeNoted struct {
	io.ReadCloser
	closed bool
}

func (b *closeNoted) Close() error {
	b.closed = true
	return b.ReadCloser.Close()
}

package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// house is a pool of endpoints a:80, b:80 and c:80, whose transports the test plays, with sessions
// around it.
type house struct {
	http.RoundTripper
	keeper *session.Keeper
	pool   *balancer.Pool
	pushed *pushed

	mu     sync.Mutex // guards what follows
	act    map[string]func(*http.Request) (*http.Response, error)
	seen   []string // addresses, in order
	bodies []*body
	events []session.Event
}

// newHouse makes one without retries. It is closed with the test.
func newHouse(t *testing.T, p session.Policy, endpoints ...discovery.Endpoint) *house {
	t.Helper()
	h := newUnresolved(t, p)
	if len(endpoints) == 0 {
		endpoints = []discovery.Endpoint{{Address: "a:80"}, {Address: "b:80"}, {Address: "c:80"}}
	}
	h.pushed.sets <- endpoints
	require.NoError(t, h.pool.Ready(t.Context()))
	return h
}

// newUnresolved is newHouse before the resolver has answered.
func newUnresolved(t *testing.T, p session.Policy) *house {
	t.Helper()
	h := &house{pushed: &pushed{sets: make(chan []discovery.Endpoint)}, act: map[string]func(*http.Request) (*http.Response, error){}}
	var err error
	h.keeper, err = session.NewKeeper(session.Config{Policy: &p, Target: "http://users:80", OnEvent: h.note})
	require.NoError(t, err)
	h.pool, err = balancer.NewPool(balancer.Config{
		Resolver: h.pushed, Algorithm: balancer.RoundRobin{}, Sessions: h.keeper,
		EndpointTransport: func(e discovery.Endpoint) http.RoundTripper {
			return tripper(func(req *http.Request) (*http.Response, error) { return h.answer(e.Address, req) })
		},
	})
	require.NoError(t, err)
	t.Cleanup(h.pool.Close)
	h.RoundTripper, err = session.NewTransport(balancer.NewTransport(h.pool, nil), h.keeper)
	require.NoError(t, err)
	return h
}

// retrying puts retries, without waits, between the sessions and the pool.
func (h *house) retrying(t *testing.T) *house {
	t.Helper()
	again, err := retry.NewTransport(balancer.NewTransport(h.pool, nil), retry.Policy{MaxAttempts: 3})
	require.NoError(t, err)
	h.RoundTripper, err = session.NewTransport(again, h.keeper)
	require.NoError(t, err)
	return h
}

// pushed is a resolver whose sets come from the test.
type pushed struct{ sets chan []discovery.Endpoint }

func (p *pushed) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case set := <-p.sets:
			sink.Update(set, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tripper is a transport of the test's own.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// body is one that knows whether it was closed.
type body struct {
	io.Reader
	closes atomic.Int32
}

func newBody(text string) *body { return &body{Reader: strings.NewReader(text)} }

func (b *body) Close() error {
	b.closes.Add(1)
	return nil
}

// answers answers with a status and lines of headers.
func answers(status int, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		h := http.Header{}
		for _, line := range headers {
			name, value, _ := strings.Cut(line, ": ")
			h.Add(name, value)
		}
		return &http.Response{StatusCode: status, Header: h, Request: req, ProtoMajor: 1, ProtoMinor: 1}, nil
	}
}

var errBroken = errors.New("the connection broke")

func breaks(*http.Request) (*http.Response, error) { return nil, errBroken }

func (h *house) answer(address string, req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	act := h.act[address]
	h.seen = append(h.seen, address)
	h.mu.Unlock()
	if act == nil {
		act = answers(http.StatusOK)
	}
	if req.Body != nil {
		_ = req.Body.Close()
	}
	resp, err := act(req)
	if resp != nil {
		b := newBody(address)
		resp.Body = b
		h.mu.Lock()
		h.bodies = append(h.bodies, b)
		h.mu.Unlock()
	}
	return resp, err
}

func (h *house) note(e session.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// let says what endpoints do from now on.
func (h *house) let(act func(*http.Request) (*http.Response, error), addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addresses {
		h.act[a] = act
	}
}

// all are the endpoints of a house.
var all = []string{"a:80", "b:80", "c:80"}

// without returns the others.
func without(address string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == address })
}

// push makes these the endpoints, in a bubble of package synctest.
func (h *house) push(addresses ...string) {
	set := make([]discovery.Endpoint, len(addresses))
	for i, a := range addresses {
		set[i].Address = a
	}
	h.pushed.sets <- set
	synctest.Wait()
}

// kinds returns the kinds of the events so far.
func (h *house) kinds() []session.EventKind {
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := []session.EventKind{}
	for _, e := range h.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// get returns a request with lines of headers.
func get(t testing.TB, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/", http.NoBody)
	require.NoError(t, err)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return req
}

// keyed returns a request with a key.
func keyed(t testing.TB, key string) *http.Request {
	t.Helper()
	req := get(t)
	return req.WithContext(session.WithKey(req.Context(), key))
}

// ask returns which endpoint has answered, and the answer, whose body it has read and closed.
func (h *house) ask(t testing.TB, req *http.Request) (address string, resp *http.Response) {
	t.Helper()
	resp, err := h.RoundTrip(req)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(text), resp
}

// assertClean fails the test unless all bodies are closed and nothing is in flight.
func (h *house) assertClean(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, b := range h.bodies {
		assert.Positive(t, b.closes.Load(), "the body of answer %d is open", i+1)
	}
	for _, e := range h.pool.Status().Endpoints {
		assert.Zero(t, e.InFlight, e.Endpoint)
	}
}

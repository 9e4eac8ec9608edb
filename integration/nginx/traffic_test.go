//go:build unix

package nginx_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// app is the application behind the nginx servers. It is a second witness: it
// also sees the calls that a killed nginx has had no time to log.
type app struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]int // calls by ID
}

// work is how long the application takes, so that there are calls under way
// whenever something happens to a server.
const work = 20 * time.Millisecond

func startApp(t *testing.T) *app {
	t.Helper()
	a := &app{seen: map[string]int{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		a.mu.Lock()
		a.seen[r.Header.Get(idHeader)]++
		a.mu.Unlock()
		time.Sleep(work)
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(a.Close)
	return a
}

// location passes calls on to the application.
func (a *app) location() string { return "proxy_pass " + a.URL + ";" }

func (a *app) times(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[id]
}

// endpoints is a resolver whose answer the test changes.
type endpoints struct {
	mu      sync.Mutex
	current []discovery.Endpoint
	changed chan struct{}
}

func newEndpoints(servers ...*nginx) *endpoints {
	e := &endpoints{changed: make(chan struct{})}
	for _, s := range servers {
		e.current = append(e.current, discovery.Endpoint{Address: s.Address})
	}
	return e
}

// Watch implements [discovery.Resolver].
func (e *endpoints) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		e.mu.Lock()
		current, changed := e.current, e.changed
		e.mu.Unlock()
		sink.Update(current, nil)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (e *endpoints) update(change func([]discovery.Endpoint) []discovery.Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = change(slices.Clone(e.current)) // the old slice is evenkeel's
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *endpoints) add(s *nginx) {
	e.update(func(all []discovery.Endpoint) []discovery.Endpoint {
		return append(all, discovery.Endpoint{Address: s.Address})
	})
}

func (e *endpoints) drain(s *nginx) {
	e.update(func(all []discovery.Endpoint) []discovery.Endpoint {
		for i := range all {
			all[i].Draining = all[i].Draining || all[i].Address == s.Address
		}
		return all
	})
}

func (e *endpoints) remove(s *nginx) {
	e.update(func(all []discovery.Endpoint) []discovery.Endpoint {
		return slices.DeleteFunc(all, func(o discovery.Endpoint) bool { return o.Address == s.Address })
	})
}

// idHeader carries what tells calls apart, in the logs and for the application.
const idHeader = "X-Request-Id"

// client makes calls, and remembers them.
type client struct {
	target    string
	transport *evenkeel.Transport
	http      *http.Client
	calls     atomic.Int64 // that have ended
}

func newClient(t *testing.T, target string, options ...evenkeel.Option) *client {
	t.Helper()
	transport, err := evenkeel.New(target, options...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, transport.Close()) })
	return &client{target: target, transport: transport, http: &http.Client{Transport: transport, Timeout: patience}}
}

// call is a call that has ended.
type call struct {
	method, id string
	err        error
	status     int
	server     string        // that answered, as it says itself
	info       evenkeel.Info // if there was an answer
}

// send makes a call. No POST has an Idempotency-Key, so none may be repeated
// unless it was certainly not sent.
func (c *client) send(method, id string) call {
	defer c.calls.Add(1)
	done := call{method: method, id: id}
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("something to do")
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.target+"/", body)
	if err != nil {
		done.err = err
		return done
	}
	req.Header.Set(idHeader, id)
	resp, err := c.http.Do(req)
	if err != nil {
		done.err = err
		return done
	}
	defer resp.Body.Close()
	_, done.err = io.Copy(io.Discard, resp.Body)
	done.status, done.server = resp.StatusCode, resp.Header.Get("X-Server")
	done.info, _ = evenkeel.InfoOf(resp)
	return done
}

// series makes n calls, one after the other.
func (c *client) series(method string, n int) []call {
	calls := make([]call, n)
	for i := range calls {
		calls[i] = c.send(method, fmt.Sprintf("%s-%d", method, i))
	}
	return calls
}

// callers is how many calls are under way at a time.
const callers = 12

// traffic makes GETs and POSTs in turn, from several callers, until the function
// that it returns is called, which returns all calls.
func (c *client) traffic(t *testing.T) (stop func() []call) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls := make([][]call, callers)
	var wg sync.WaitGroup
	for caller := range calls {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				method := [...]string{http.MethodGet, http.MethodPost}[i%2]
				calls[caller] = append(calls[caller], c.send(method, fmt.Sprintf("%s-%d-%d", method, caller, i)))
			}
		})
	}
	stop = func() []call {
		cancel()
		wg.Wait()
		return slices.Concat(calls...)
	}
	t.Cleanup(func() { stop() }) // if the test has failed
	return stop
}

// quit ends servers when all calls have been made, after which their logs are
// complete. An nginx that is told to quit waits a minute for the first request on
// a connection that has had none yet, and net/http opens more connections than it
// comes to use: so they are closed first.
func (c *client) quit(t *testing.T, servers ...*nginx) {
	t.Helper()
	c.http.CloseIdleConnections()
	for _, s := range servers {
		s.quit(t)
	}
}

// awaitCalls waits until n more calls have ended.
func (c *client) awaitCalls(t *testing.T, n int64) {
	t.Helper()
	until := c.calls.Load() + n
	eventually(t, func() bool { return c.calls.Load() >= until }, "no calls")
}

// awaitDrained waits until the client knows that the server is to be left alone,
// and has no calls there.
func (c *client) awaitDrained(t *testing.T, s *nginx) {
	t.Helper()
	eventually(t, func() bool {
		for _, e := range c.transport.Stats().Pool.Endpoints {
			if e.Endpoint.Address == s.Address {
				return e.Unavailable != "" && e.InFlight == 0
			}
		}
		return true
	}, "%s still has calls", s.Address)
}

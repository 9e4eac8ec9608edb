package evenkeel_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// repeatRows are: what is sent again, and where.
func repeatRows() []row {
	rows := []row{
		{"R-02", "a POST goes elsewhere after a refused dial", wherePicked, false, aPostGoesElsewhereAfterARefusedDial},
		{"R-02", "a POST goes elsewhere after a failed handshake", wherePicked.over("there is no handshake", http2), false, aPostGoesElsewhereAfterAFailedHandshake},
		{"R-02", "a POST goes elsewhere after a dial that hung", wherePicked, false, aPostGoesElsewhereAfterAHungDial},
		{"R-02", "a POST goes elsewhere after a handshake that hung", wherePicked.over("there is no handshake", http2), false, aPostGoesElsewhereAfterAHungHandshake},
		{"R-02", "a POST is tried again after a refused dial", whereRetried, false, aPostIsTriedAgainAfterARefusedDial},
		{"R-01", "a POST is sent once over a transport that reports nothing", everywhere.over("the transport is the test's own, and knows no protocol", http1), false, aPostIsSentOnceWithoutTrace},
		{"R-14", "the last real error survives a cancelled wait", whereRetried.over("HTTP/2 hides the error of the connection", http1), false, theLastErrorSurvivesACancelledWait},
		{"R-14", "the last real error survives a deadline that forbids the wait", whereRetried.over("HTTP/2 hides the error of the connection", http1), false, theLastErrorSurvivesTheDeadline},
		{"R-17", "a lone endpoint is tried again after the backoff", whereRetried, false, aLoneEndpointIsTriedAgain},
		{"R-17", "when all were tried it starts over", wherePicked, false, whenAllWereTriedItStartsOver},
		{"R-18", "the first failover is immediate", wherePicked, false, theFirstFailoverIsImmediate},
	}
	for _, e := range endings() {
		rows = append(rows, row{"R-01", "a POST is sent once, " + e.name, everywhere, false, e.postIsSentOnce})
	}
	for name, a := range algorithms() {
		rows = append(rows, row{"R-17", "attempt 2 goes elsewhere, by " + name, wherePicked, false, func(t *testing.T, s *stackUnderTest) {
			attemptTwoGoesElsewhere(t, s, a)
		}})
	}
	return rows
}

func algorithms() map[string]balancer.Algorithm {
	return map[string]balancer.Algorithm{
		"round robin": balancer.RoundRobin{}, "random": balancer.Random{},
		"least request": balancer.LeastRequest{}, "peak EWMA": balancer.PeakEWMA{},
	}
}

// ending is a way in which an attempt ends after the server has the request.
type ending struct {
	name string
	step http.Handler
}

func endings() []ending {
	return []ending{
		{"reset after the headers", evenkeeltest.ResetAfter(0)},
		{"reset in the body", evenkeeltest.ResetAfter(3)},
		{"closed after the headers", evenkeeltest.CloseAfter(0)},
		{"closed after the body", evenkeeltest.CloseAfter(1 << 20)},
		{"time limit of the attempt", evenkeeltest.Hang()},
		{"500", evenkeeltest.Status(500)},
		{"502", evenkeeltest.Status(502)},
		{"503", evenkeeltest.Status(503)},
		{"503 with Retry-After", evenkeeltest.Status(503).Header("Retry-After", "0")},
		{"504", evenkeeltest.Status(504)},
		{"429", evenkeeltest.Status(429)},
	}
}

// Given a POST or PATCH without an idempotency mark, when the attempt ends this
// way, then exactly one request has reached any server, on a new connection and
// on one that was used before.
func (e ending) postIsSentOnce(t *testing.T, s *stackUnderTest) {
	get := func(r *http.Request) bool { return r.Method == http.MethodGet }
	step := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if get(r) {
			evenkeeltest.OK("warm").ServeHTTP(w, r)
			return
		}
		e.step.ServeHTTP(w, r)
	})
	s.serve("a", step)
	s.serve("b", step)
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second, Backoff: retry.Backoff{Base: soon}}})
	for _, warm := range []bool{false, true} {
		for _, req := range []*http.Request{
			s.replayable(http.MethodPost, evenkeeltest.NewBody("order 1")),
			s.replayable(http.MethodPatch, evenkeeltest.NewBody("order 2")),
			s.request(http.MethodPost), // nothing to rewind, so net/http asks nobody
			s.stream(http.MethodPost, evenkeeltest.NewBody("order 3")),
		} {
			if warm {
				s.get()
				s.get()
			}
			before := s.totalRequests()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			resp, err := s.do(req.WithContext(ctx))
			if err == nil {
				readBody(t, resp)
			}
			cancel()
			synctest.Wait()
			assert.Equal(t, 1, s.totalRequests()-before, "%s, warm: %v, %v", req.Method, warm, err)
		}
	}
}

// Given a transport of the user's that knows nothing of httptrace, then its silence
// is no proof that nothing was sent.
func aPostIsSentOnceWithoutTrace(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.serve("b")
	sends := 0
	s.use(config{endpoint: func(discovery.Endpoint) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends++
			_, _ = io.Copy(io.Discard, req.Body)
			req.Body.Close()
			return nil, errOrdered
		})
	}})

	err := s.fail(s.replayable(http.MethodPost, evenkeeltest.NewBody("order 1")))

	require.ErrorIs(t, err, errOrdered)
	assert.Equal(t, 1, sends)
}

// postsAreAnsweredBy sends POSTs until each of two endpoints was picked first, and
// expects the server's answer to each.
func (s *stackUnderTest) postsAreAnsweredBy(server *evenkeeltest.Server) {
	s.t.Helper()
	for range 4 {
		body := evenkeeltest.NewBody("order 1")
		status, _ := s.answer(s.replayable(http.MethodPost, body))
		require.Equal(s.t, http.StatusOK, status)
	}
	server.AssertRequests(s.t, 4)
	for _, r := range server.Received() {
		assert.Equal(s.t, "order 1", string(r.Body))
	}
}

func aPostGoesElsewhereAfterARefusedDial(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	b := s.serve("b")
	s.network.Refuse("a:80")
	s.use(config{})
	s.postsAreAnsweredBy(b)
	assert.Positive(t, s.failures(s.servers[0]))
}

// Given a server that does not speak TLS where TLS is expected.
func aPostGoesElsewhereAfterAFailedHandshake(t *testing.T, s *stackUnderTest) {
	a := s.network.Serve("a:80", nil)
	s.servers = append(s.servers, a)
	b := s.serve("b")
	s.use(config{})
	s.postsAreAnsweredBy(b)
	assert.Positive(t, s.failures(a))
}

func aPostGoesElsewhereAfterAHungDial(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	b := s.serve("b")
	s.network.BlackHole("a:80")
	s.use(config{dial: func(next dialFunc) dialFunc {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // as a net.Dialer does
			defer cancel()
			return next(ctx, network, address)
		}
	}})
	s.postsAreAnsweredBy(b)
	assert.Positive(t, s.failures(s.servers[0]))
}

// Given a server that accepts the connection and says nothing.
func aPostGoesElsewhereAfterAHungHandshake(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	b := s.serve("b")
	s.use(config{
		template: func(tr *http.Transport) { tr.TLSHandshakeTimeout = 5 * time.Second },
		dial: func(next dialFunc) dialFunc {
			return func(ctx context.Context, network, address string) (net.Conn, error) {
				if address != "a:80" {
					return next(ctx, network, address)
				}
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				return ours, nil
			}
		},
	})
	s.postsAreAnsweredBy(b)
	assert.Positive(t, s.failures(s.servers[0]))
}

func aPostIsTriedAgainAfterARefusedDial(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{dial: refuseFirst(2), retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	status, _ := s.answer(s.replayable(http.MethodPost, evenkeeltest.NewBody("order 1")))

	assert.Equal(t, http.StatusOK, status)
	a.AssertRequests(t, 1)
}

// twoResets is a lone endpoint that resets everything, asked at 0 s and at 1 s;
// the third attempt would be at 3 s.
func (s *stackUnderTest) twoResets() {
	s.serve("a", evenkeeltest.ResetAfter(0))
	s.use(config{rand: longest{}, retry: retry.Policy{MaxAttempts: 5, Backoff: retry.Backoff{Base: time.Second, Max: time.Hour}}})
}

// Given two resets, when the caller's patience ends during the wait, by a
// deadline that nobody could see before, then the error holds both and the count.
func theLastErrorSurvivesACancelledWait(t *testing.T, s *stackUnderTest) {
	s.twoResets()
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(2*time.Second, func() { cancel(context.DeadlineExceeded) })
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, 2*time.Second, time.Since(start))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	assert.Equal(t, 2, sent(err))
	assert.Equal(t, outcome.Caller, reason(err))
	if s.kind == full {
		assert.Contains(t, err.Error(), "2 attempt")
	}
}

// Given two resets and a deadline that the next wait would overrun, then the call
// ends now, and its error says the same: time, and the resets.
func theLastErrorSurvivesTheDeadline(t *testing.T, s *stackUnderTest) {
	s.twoResets()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.InDelta(t, time.Second, time.Since(start), float64(time.Microsecond), "nobody waits for what cannot happen")
	require.ErrorIs(t, err, syscall.ECONNRESET)
	assert.Equal(t, 2, sent(err))
	assert.Equal(t, outcome.Deadline, reason(err))
	timeout := as[interface {
		error
		Timeout() bool
	}](err)
	require.NotNil(t, timeout)
	assert.True(t, timeout.Timeout(), "the call ended for lack of time")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// Given A that fails and B that does not, then every call succeeds: attempt 2 is
// B's whenever attempt 1 was A's. Each pool is new, so that nothing was learnt.
func attemptTwoGoesElsewhere(t *testing.T, s *stackUnderTest, algorithm balancer.Algorithm) {
	const pools, calls = 20, 3
	a, b := s.serve("a", evenkeeltest.Status(503)), s.serve("b")
	source := seeded(t, 17)
	firstAtA := 0
	for i := range pools {
		refused := i%2 == 0
		if refused {
			s.network.Refuse("a:80")
		}
		s.use(config{balancer: algorithm, rand: source})
		for range calls {
			before := a.Dials() + a.Requests()
			require.Equal(t, "b", s.get())
			if a.Dials()+a.Requests() > before {
				firstAtA++
			}
		}
		s.close()
		s.network.Heal("a:80")
	}
	assert.Positive(t, firstAtA, "A was never picked first")
	b.AssertRequests(t, pools*calls)
}

func aLoneEndpointIsTriedAgain(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503), evenkeeltest.Status(503), evenkeeltest.OK("a"))
	s.use(config{rand: longest{}})

	s.get()

	got := a.Received()
	require.Len(t, got, 3)
	assert.InDelta(t, 50*time.Millisecond, got[1].At.Sub(got[0].At), float64(time.Microsecond))
	assert.InDelta(t, 100*time.Millisecond, got[2].At.Sub(got[1].At), float64(time.Microsecond))
}

// Given two endpoints that both fail and six attempts, then the exclusion of those
// tried is cleared whenever all are: each pair of attempts has both, and the
// answer is never that there is nobody.
func whenAllWereTriedItStartsOver(t *testing.T, s *stackUnderTest) {
	const calls = 10
	s.serve("a", evenkeeltest.Status(503).Header("X-By", "a"))
	s.serve("b", evenkeeltest.Status(503).Header("X-By", "b"))
	var by []string
	s.use(config{
		balancer: balancer.Random{}, rand: seeded(t, 4),
		retry: retry.Policy{MaxAttempts: 6, Backoff: retry.Backoff{Base: soon}, Budget: retry.Quota{Size: -1}},
		attempt: func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp, err := next.RoundTrip(req)
				if err == nil {
					by = append(by, resp.Header.Get("X-By"))
				}
				return resp, err
			})
		},
	})
	for range calls {
		by = nil
		status, _ := s.answer(s.request(http.MethodGet))
		assert.Equal(t, 503, status)
		require.Len(t, by, 6)
		for i := 0; i < len(by); i += 2 {
			assert.NotEqual(t, by[i], by[i+1], "attempts %d and %d of %s", i+1, i+2, strings.Join(by, ""))
		}
	}
}

// Given a refused connection and an endpoint that was not tried, then there is no
// wait; nor is there after a 503. The wait comes before an endpoint is tried
// again.
func theFirstFailoverIsImmediate(t *testing.T, s *stackUnderTest) {
	const calls = 2 // too few for a circuit breaker
	a := s.serve("a", evenkeeltest.Status(503))
	b := s.serve("b", evenkeeltest.Repeat(2*calls, evenkeeltest.OK("b")), evenkeeltest.Status(503))
	s.use(config{rand: longest{}})
	start := time.Now()

	s.network.Refuse("a:80")
	for range calls {
		s.get()
	}
	assert.Zero(t, time.Since(start), "after a refused connection")
	a.AssertRequests(t, 0)

	s.network.Heal("a:80")
	for range calls {
		s.get()
	}
	assert.Zero(t, time.Since(start), "after a 503")
	assert.Positive(t, a.Requests())

	before := s.totalRequests()
	status, _ := s.answer(s.request(http.MethodGet))
	assert.Equal(t, 503, status)
	assert.Equal(t, 3, s.totalRequests()-before)
	assert.Equal(t, start, b.Received()[2*calls].At, "the first attempt at B")
	assert.InDelta(t, 50*time.Millisecond, time.Since(start), float64(time.Microsecond), "the third attempt")
}

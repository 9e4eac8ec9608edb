package breaker_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// guards are all ways to put a breaker or a throttle around a transport.
func guards(t *testing.T, next http.RoundTripper) map[string]http.RoundTripper {
	t.Helper()
	throttle, err := breaker.NewThrottle(breaker.ThrottleConfig{})
	require.NoError(t, err)
	keyed, err := breaker.NewThrottleTransport(next, breaker.ThrottleConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, keyed.Close()) })
	b, err := breaker.New("a", breaker.Config{})
	require.NoError(t, err)
	return map[string]http.RoundTripper{
		"bare": next, "breakers": around(t, next, breaker.Config{}), "breaker": b.Transport(next),
		"throttles": keyed, "throttle": throttle.Transport(next), "both": around(t, throttle.Transport(next), breaker.Config{}),
	}
}

// send returns a request with a body that can be had again.
func send(t *testing.T, method, address, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	return req
}

// mortal is a connection that can die without notice.
type mortal struct {
	net.Conn
	dead atomic.Bool
}

func (m *mortal) Write(p []byte) (int, error) {
	if m.dead.Load() {
		return 0, syscall.EPIPE
	}
	return m.Conn.Write(p)
}

// net/http sends a request again if its idle connection turns out to be dead before anything
// was written. It does so behind a breaker or a throttle as well, also if there is a body:
// the call failed there, and nowhere else.
func TestTransport_DeadIdleConnection(t *testing.T) {
	for _, name := range []string{"bare", "breakers", "breaker", "throttles", "throttle", "both"} {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				var got []string
				network.Serve("a:80", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					got = append(got, r.Method+" "+string(body))
				}))
				next := base(t, network)
				dial := next.DialContext
				var latest *mortal
				next.DialContext = func(ctx context.Context, kind, address string) (net.Conn, error) {
					conn, err := dial(ctx, kind, address)
					latest = &mortal{Conn: conn}
					return latest, err
				}
				tr := guards(t, next)[name]
				for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPost} {
					code, err := status(t, tr, send(t, method, "http://a/", "all of it"))
					require.NoError(t, err)
					assert.Equal(t, http.StatusOK, code)
					latest.dead.Store(true)
				}
				assert.Equal(t, []string{"POST all of it", "PUT all of it", "POST all of it"}, got)
				assert.Equal(t, 3, network.Dials("a:80"))
				if one, ok := tr.(*breaker.Transport); ok && one.Group() != nil {
					assert.Equal(t, breaker.Counts{Successes: 3}, only(t, one).Counts())
				}
			})
		})
	}
}

// Retries inside a breaker or a throttle repeated no request that has a body.
func TestTransport_AroundRetriesOfABody_K16(t *testing.T) {
	for _, name := range []string{"bare", "breakers", "breaker", "throttles", "throttle", "both"} {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				var got []string
				network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					got = append(got, string(body))
					if len(got) < 3 {
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				}))
				inner, err := retry.NewTransport(base(t, network), retry.Policy{Backoff: retry.Backoff{Base: time.Millisecond}})
				require.NoError(t, err)
				code, err := status(t, guards(t, inner)[name], send(t, http.MethodPut, "http://a/", "all of it"))
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, code)
				assert.Equal(t, []string{"all of it", "all of it", "all of it"}, got)
			})
		})
	}
}

// Given a call of several attempts, then it takes as long as all of them together. When the
// last one had opened a connection, all before that was left out.
func TestTransport_AroundRetriesSlow_K16(t *testing.T) {
	for _, shape := range []string{"kept", "fresh"} {
		t.Run(shape, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				first := evenkeeltest.Status(503).Delay(2 * time.Second)
				if shape == "fresh" {
					first = first.Header("Connection", "close")
				}
				network.Serve("a:80", evenkeeltest.Script(first, evenkeeltest.OK("a")))
				inner, err := retry.NewTransport(base(t, network), retry.Policy{Backoff: retry.Backoff{Base: time.Millisecond}})
				require.NoError(t, err)
				cfg := plain(nil)
				cfg.SlowAfter = time.Second
				tr := around(t, inner, cfg)
				for i, slow := range []int{1, 1} {
					code, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
					assert.Equal(t, http.StatusOK, code)
					assert.Equal(t, breaker.Counts{Successes: i + 1, Slow: slow}, only(t, tr).Counts(), "call %d", i)
				}
			})
		})
	}
}

// Given two transports of a group, when one is closed, then the other has the breakers
// still: it went on without any.
func TestTransport_CloseLeavesTheGroup_K14(t *testing.T) {
	g, err := breaker.NewGroup(plain(stillClock()))
	require.NoError(t, err)
	t.Cleanup(g.Close)
	one, two := g.Transport(replying(500)), g.Transport(replying(500))
	for range 2 {
		_, err = status(t, one, get(t, "http://a/"))
		require.NoError(t, err)
	}
	require.NoError(t, one.Close())
	for range 2 {
		_, err = status(t, two, get(t, "http://a/"))
		require.ErrorIs(t, err, breaker.ErrOpen)
		_, err = status(t, two, get(t, "http://b/"))
		require.NoError(t, err)
	}
	_, err = status(t, two, get(t, "http://b/"))
	require.ErrorIs(t, err, breaker.ErrOpen)
	assert.Equal(t, []string{"a:80", "b:80"}, names(g))
}

// Given a server whose bodies all break, then the probe that closes the breaker with its
// headers is the first failure after that, so that the next ones open it again. Nothing was
// counted for it.
func TestTransport_BrokenBodyOfTheLastProbe_K04_K16(t *testing.T) {
	for name, window := range windows {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				network.Serve("a:80", evenkeeltest.OK("all of it").CloseMidBody(3))
				cfg := plain(nil)
				window(&cfg)
				tr := around(t, base(t, network), cfg)
				call := func() {
					t.Helper()
					_, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
				}
				call()
				call()
				b := only(t, tr)
				for _, wait := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
					require.Equal(t, breaker.Open, b.State())
					time.Sleep(wait)
					call()
					require.Equal(t, breaker.Closed, b.State())
					assert.Equal(t, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, b.Counts())
					call()
				}
				cfg.ConsecutiveFailures = 1
				require.NoError(t, b.Use(cfg))
				time.Sleep(40 * time.Second)
				call()
				assert.Equal(t, breaker.Open, b.State(), "also if it is enough by itself")
			})
		})
	}
}

// Transports asked the classifier with which they were made, whatever Use had brought since.
func TestTransport_UseClassifier_K06_P01(t *testing.T) {
	bad := func(outcome.Attempt) outcome.Outcome { return outcome.Outcome{Class: outcome.Failure} }
	next := replying(200)
	cfg := plain(stillClock())
	then := cfg
	then.Classifier = bad
	b, err := breaker.New("a", cfg)
	require.NoError(t, err)
	tr := around(t, next, cfg)
	for name, row := range map[string]struct {
		tr  *breaker.Transport
		use func(breaker.Config) error
	}{
		"of a breaker": {b.Transport(next), b.Use},
		"of a group":   {tr, tr.Group().Use},
	} {
		_, err = status(t, row.tr, get(t, "http://a/"))
		require.NoError(t, err)
		require.NoError(t, row.use(then), name)
		for range 2 {
			_, err = status(t, row.tr, get(t, "http://a/"))
			require.NoError(t, err, name)
		}
		_, err = status(t, row.tr, get(t, "http://a/"))
		assert.ErrorIs(t, err, breaker.ErrOpen, name)
	}

	throttle, err := breaker.NewThrottle(breaker.ThrottleConfig{})
	require.NoError(t, err)
	throttled := throttle.Transport(next)
	for i, classify := range []outcome.Classifier{nil, bad, nil} {
		require.NoError(t, throttle.Use(breaker.ThrottleConfig{Classifier: classify}))
		_, err = status(t, throttled, get(t, "http://a/"))
		require.NoError(t, err)
		assert.Equal(t, []int{1, 1, 2}[i], throttle.Status().Accepts)
	}
}

// What throttles by host have counted could not be looked at.
func TestThrottleTransport_Status(t *testing.T) {
	tr, err := breaker.NewThrottleTransport(replying(503), breaker.ThrottleConfig{Clock: stillClock(), MinRate: breaker.Off})
	require.NoError(t, err)
	assert.Empty(t, tr.Status())
	for _, address := range []string{"http://b/", "http://a/"} {
		_, err = status(t, tr, get(t, address))
		require.NoError(t, err)
	}
	assert.Equal(t, []breaker.ThrottleStatus{{Name: "a:80", Requests: 1, Refusal: 0.5}, {Name: "b:80", Requests: 1, Refusal: 0.5}}, tr.Status())
	require.NoError(t, tr.Close())
	assert.Empty(t, tr.Status())
	throttle, err := breaker.NewThrottle(breaker.ThrottleConfig{})
	require.NoError(t, err)
	assert.Empty(t, throttle.Transport(replying(200)).Status(), "that one has a Status of its own")
}

package breaker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// tripper is a transport of the test's own.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// reply makes the response of such a transport.
func reply(req *http.Request, status int, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: http.NoBody, Request: req,
	}
}

// replying answers all requests with a status.
func replying(status int, header ...string) tripper {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			req.Body.Close()
		}
		return reply(req, status, header...), nil
	}
}

// failing never has an answer.
func failing(err error) tripper {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
}

// get returns a request without a body.
func get(t *testing.T, address string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	return req
}

// status sends a request and returns the status of the answer, whose body is read.
func status(t *testing.T, rt http.RoundTripper, req *http.Request) (int, error) {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		assert.Nil(t, resp, "an error beside a response")
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode, nil
}

// plain is the configuration of these tests: two failures in a row open a breaker for
// exactly 5 s, and one good probe closes it.
func plain(fake clock.Clock) breaker.Config {
	return breaker.Config{ConsecutiveFailures: 2, Jitter: breaker.Off, Probes: 1, Clock: fake}
}

func stillClock() *clock.Fake { return clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) }

// around puts a breaker for each host around a transport.
func around(t *testing.T, next http.RoundTripper, cfg breaker.Config) *breaker.Transport {
	t.Helper()
	tr, err := breaker.NewTransport(next, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tr.Close()) })
	return tr
}

// only returns the one breaker of a transport.
func only(t *testing.T, tr *breaker.Transport) *breaker.Breaker {
	t.Helper()
	all := tr.Group().All()
	require.Len(t, all, 1)
	return all[0]
}

// names returns the names of the breakers of a group.
func names(g *breaker.Group) (list []string) {
	for _, s := range g.Status() {
		list = append(list, s.Name)
	}
	return list
}

// online runs a test in a bubble, with a network.
func online(t *testing.T, f func(t *testing.T, network *evenkeeltest.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, evenkeeltest.NewNetwork(t)) })
}

// base returns the network's transport, which is closed with the test.
func base(t *testing.T, network *evenkeeltest.Network) *http.Transport {
	t.Helper()
	tr := network.Transport()
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Each host and port has its own breaker, however it is written.
func TestTransport_BreakerPerHost(t *testing.T) {
	for _, row := range []struct {
		name string
		urls []string
	}{
		{"a:80", []string{"http://a/", "http://A/x?y", "http://a:80/", "http://A:80", "http://u:p@a/", "http://a:/"}},
		{"a:8080", []string{"http://a:8080/", "http://A:8080/", "https://a:8080/"}},
		{"a:443", []string{"https://a/", "https://a:443/", "https://A"}},
		{"10.0.0.1:80", []string{"http://10.0.0.1/", "http://10.0.0.1:80/"}},
		{"[::1]:80", []string{"http://[::1]/", "http://[::1]:80/"}},
		{"[fe80::ab]:443", []string{"https://[fe80::AB]/", "https://[fe80::ab]:443/"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := around(t, replying(500), plain(stillClock()))
			for i := range 2 {
				_, err := status(t, tr, get(t, row.urls[i%len(row.urls)]))
				require.NoError(t, err)
			}
			for _, u := range row.urls {
				_, err := status(t, tr, get(t, u))
				assert.ErrorIs(t, err, breaker.ErrOpen, u)
			}
			assert.Equal(t, []string{row.name}, names(tr.Group()))
			for _, u := range []string{"http://other/", "http://a:81/", "http://b.a/"} {
				_, err := status(t, tr, get(t, u))
				assert.NoError(t, err, u)
			}
		})
	}
}

// A Host header does not decide where a request goes.
func TestTransport_HostHeaderIsNotTheHost(t *testing.T) {
	tr := around(t, replying(200), plain(stillClock()))
	req := get(t, "http://a/")
	req.Host = "virtual.example"
	_, err := status(t, tr, req)
	require.NoError(t, err)
	assert.Equal(t, []string{"a:80"}, names(tr.Group()))
}

func TestTransport_Key(t *testing.T) {
	cfg := plain(stillClock())
	cfg.Key = func(req *http.Request) string { return req.Header.Get("X-Tenant") }
	tr := around(t, replying(500), cfg)
	ask := func(u, tenant string) error {
		req := get(t, u)
		req.Header.Set("X-Tenant", tenant)
		_, err := status(t, tr, req)
		return err
	}
	require.NoError(t, ask("http://a/", "red"))
	require.NoError(t, ask("http://b/", "red"))
	require.ErrorIs(t, ask("http://c/", "red"), breaker.ErrOpen)
	require.NoError(t, ask("http://a/", "blue"))
	assert.Equal(t, []string{"blue", "red"}, names(tr.Group()))

	cfg.Key = nil
	require.NoError(t, tr.Group().Use(cfg))
	require.NoError(t, ask("http://a/", "red"), "by host from now on")
}

// One breaker, or a group that others use as well, may guard a transport too.
func TestTransport_OfABreakerAndOfAGroup(t *testing.T) {
	b, _ := guarding(t, nil)
	tr := b.Transport(replying(503))
	assert.Nil(t, tr.Group())
	for _, u := range []string{"http://a/", "http://b/"} {
		_, err := status(t, tr, get(t, u))
		require.NoError(t, err)
	}
	_, err := status(t, tr, get(t, "http://c/"))
	assert.ErrorIs(t, err, breaker.ErrOpen, "one for all")
	require.NoError(t, tr.Close())
	assert.Equal(t, breaker.Open, b.State(), "it is not the transport's to close")

	g, err := breaker.NewGroup(plain(stillClock()))
	require.NoError(t, err)
	t.Cleanup(g.Close)
	first, second := g.Transport(replying(500)), g.Transport(replying(200))
	assert.Same(t, g, first.Group())
	for range 2 {
		_, err = status(t, first, get(t, "http://a/"))
		require.NoError(t, err)
	}
	_, err = status(t, second, get(t, "http://a/"))
	assert.ErrorIs(t, err, breaker.ErrOpen, "they share the breakers")
}

// What speaks against a server opens its breaker.
func TestTransport_FailuresOpen(t *testing.T) {
	for name, step := range map[string]http.Handler{
		"500": evenkeeltest.Status(500), "502": evenkeeltest.Status(502), "503": evenkeeltest.Status(503),
		"504": evenkeeltest.Status(504), "599": evenkeeltest.Status(599),
		"reset": evenkeeltest.ResetAfter(0), "closed": evenkeeltest.CloseAfter(0), "silent": evenkeeltest.Hang(),
		"refused": nil, "unreachable": nil, "unknown": nil,
	} {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				if name != "unknown" {
					network.Serve("a:80", step)
				}
				switch name {
				case "refused":
					network.Refuse("a:80")
				case "unreachable":
					network.Unreachable("a:80")
				}
				next := base(t, network)
				next.ResponseHeaderTimeout = time.Second
				tr := around(t, next, plain(nil))
				for i := range 2 {
					assert.LessOrEqual(t, len(tr.Group().All()), 1)
					_, err := status(t, tr, get(t, "http://a/"))
					require.NotErrorIs(t, err, breaker.ErrOpen, "call %d", i)
				}
				_, err := status(t, tr, get(t, "http://a/"))
				require.ErrorIs(t, err, breaker.ErrOpen)
				s := only(t, tr).Status()
				assert.Equal(t, breaker.ConsecutiveFailures, s.Because)
				assert.EqualValues(t, 1, s.Counts.Rejected)
			})
		})
	}
}

// Errors of the client count neither way: they do not open, they do not thin out failures,
// they do not interrupt a row of them. As the answer to a probe they are a sign of life.
func TestTransport_ClientErrors_K06(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 409, 413, 422, 499, 501, 505} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			fake := stillClock()
			answer := code
			next := tripper(func(req *http.Request) (*http.Response, error) { return reply(req, answer), nil })
			tr := around(t, next, breaker.Config{Jitter: breaker.Off, Probes: 1, Clock: fake})
			ask := func(code int) {
				t.Helper()
				answer = code
				got, err := status(t, tr, get(t, "http://a/"))
				require.NoError(t, err)
				require.Equal(t, code, got)
			}
			for range 1000 {
				ask(code)
			}
			b := only(t, tr)
			assert.Equal(t, breaker.Closed, b.State())
			assert.Equal(t, breaker.Counts{}, b.Counts())

			for i := range 10 { // of 20 with 4xx between them, which would be a quarter of all
				require.Equal(t, breaker.Closed, b.State(), "after %d", i)
				for _, c := range []int{code, 200, code, 500} {
					ask(c)
				}
			}
			require.Equal(t, breaker.Open, b.State())
			assert.Equal(t, breaker.FailureRate, b.Status().Because)

			fake.Advance(5 * time.Second)
			ask(code)
			assert.Equal(t, breaker.Closed, b.State(), "it is alive")
			for range 4 {
				ask(500)
				ask(code)
			}
			require.Equal(t, breaker.Closed, b.State())
			ask(500)
			assert.Equal(t, breaker.Open, b.State(), "5 in a row, but for 4xx")
		})
	}
}

// A 429 is back-pressure: it counts neither way, unless the configuration says so. A probe
// that is answered so leaves its place to the next.
func TestTransport_TooManyRequests_K07(t *testing.T) {
	for _, row := range []struct {
		fails bool
		want  breaker.State
	}{{false, breaker.Closed}, {true, breaker.Open}} {
		fake := stillClock()
		answer := 429
		next := tripper(func(req *http.Request) (*http.Response, error) {
			return reply(req, answer, "Retry-After", "60"), nil
		})
		cfg := plain(fake)
		cfg.OverloadFails = row.fails
		tr := around(t, next, cfg)
		for range 2 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		b := only(t, tr)
		require.Equal(t, row.want, b.State())
		if row.fails {
			assert.Equal(t, fake.Now().Add(time.Minute), b.Status().Until, "as a failure, it says for how long")
			continue
		}
		for range 1000 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		assert.Equal(t, breaker.Counts{}, b.Counts())

		answer = 500
		for range 2 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		fake.Advance(time.Minute)
		answer = 429
		for range 3 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
			assert.Equal(t, breaker.HalfOpen, b.State())
		}
	}
}

// A 503 is a failure also if it says for how long. Then the breaker is open for at least
// that, within MaxOpenFor.
func TestTransport_RetryAfter(t *testing.T) {
	fake := stillClock()
	in := func(d time.Duration) string { return fake.Now().Add(d).UTC().Format(http.TimeFormat) }
	for _, row := range []struct {
		name   string
		header []string
		change func(*breaker.Config)
		want   time.Duration
	}{
		{"none", nil, nil, 5 * time.Second},
		{"seconds", []string{"Retry-After", "30"}, nil, 30 * time.Second},
		{"fewer than the open time", []string{"Retry-After", "1"}, nil, 5 * time.Second},
		{"zero", []string{"Retry-After", "0"}, nil, 5 * time.Second},
		{"nonsense", []string{"Retry-After", "soon"}, nil, 5 * time.Second},
		{"date", []string{"Retry-After", in(time.Minute)}, nil, time.Minute},
		{"date by the server's clock", []string{"Retry-After", in(time.Hour + time.Minute), "Date", in(time.Hour)}, nil, time.Minute},
		{"longest", []string{"Retry-After", "86400"}, nil, 5 * time.Minute},
		{"longest by configuration", []string{"Retry-After", "60"}, func(c *breaker.Config) { c.MaxOpenFor = 20 * time.Second }, 20 * time.Second},
		{"ignored", []string{"Retry-After", "60"}, func(c *breaker.Config) { c.IgnoreRetryAfter = true }, 5 * time.Second},
	} {
		for _, code := range []int{503, 500} {
			t.Run(fmt.Sprint(row.name, " ", code), func(t *testing.T) {
				cfg := plain(fake)
				if row.change != nil {
					row.change(&cfg)
				}
				tr := around(t, replying(code, row.header...), cfg)
				for range 2 {
					_, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
				}
				_, err := status(t, tr, get(t, "http://a/"))
				var refused *breaker.OpenError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, row.want, refused.RetryAfter())
				assert.Equal(t, fake.Now().Add(row.want), refused.Until)
			})
		}
	}
}

var errLeft = errors.New("the user has left")

// Given callers that give up, each in a way of its own, then nothing is counted, and a probe
// leaves its place. Given time limits that are not the caller's, then that is a failure.
func TestTransport_CallerGivesUp_K01_K02(t *testing.T) {
	type rig struct {
		next   *http.Transport
		client *http.Client
	}
	for _, row := range []struct {
		name    string
		neutral bool
		prepare func(*rig)
		ctx     func(context.Context) (context.Context, context.CancelFunc)
	}{
		{name: "cancel", neutral: true, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}},
		{name: "cancel with a cause", neutral: true, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errLeft) })
			return ctx, func() { cancel(nil) }
		}},
		{name: "deadline", neutral: true, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}},
		{name: "http.Client.Timeout", neutral: true, prepare: func(r *rig) { r.client.Timeout = time.Second }},
		{name: "time limit of the transport", prepare: func(r *rig) { r.next.ResponseHeaderTimeout = time.Second }},
	} {
		t.Run(row.name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				server := network.Serve("a:80", evenkeeltest.Script(
					evenkeeltest.Repeat(2, evenkeeltest.Hang()), evenkeeltest.Repeat(2, evenkeeltest.Status(500)),
					evenkeeltest.Hang(), evenkeeltest.OK("a")))
				cfg := plain(nil)
				cfg.ConsecutiveFailures = 3
				next := base(t, network)
				tr := around(t, next, cfg)
				r := &rig{next: next, client: &http.Client{Transport: tr}}
				if row.prepare != nil {
					row.prepare(r)
				}
				call := func(lasts bool) error {
					t.Helper()
					start := time.Now()
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if row.ctx != nil {
						ctx, cancel = row.ctx(ctx)
					}
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://a/", http.NoBody)
					require.NoError(t, err)
					resp, err := r.client.Do(req)
					if err == nil {
						resp.Body.Close()
					}
					if lasts {
						assert.Equal(t, time.Second, time.Since(start))
						require.Error(t, err)
					}
					return err
				}
				for range 2 {
					_ = call(true)
				}
				b := only(t, tr)
				if !row.neutral {
					assert.Equal(t, breaker.Counts{Failures: 2, ConsecutiveFailures: 2}, b.Counts())
					return
				}
				assert.Equal(t, breaker.Counts{}, b.Counts())
				require.NoError(t, call(false))
				require.NoError(t, call(false))
				require.Equal(t, 2, b.Counts().ConsecutiveFailures)
				network.Refuse("a:80")
				next.CloseIdleConnections()
				require.Error(t, call(false))
				network.Heal("a:80")
				require.Equal(t, breaker.Open, b.State())

				time.Sleep(5 * time.Second)
				_ = call(true) // a probe
				assert.Equal(t, breaker.HalfOpen, b.State())
				assert.Equal(t, breaker.Counts{}, b.Counts())
				require.NoError(t, call(false))
				assert.Equal(t, breaker.Closed, b.State())
				server.AssertRequests(t, 6)
			})
		})
	}
}

// A request that is refused is not sent, and its body is closed exactly once.
func TestTransport_RefusedBodyIsClosed_T06(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		a := network.Serve("a:80", evenkeeltest.Status(500))
		tr := around(t, base(t, network), plain(nil))
		for range 2 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		dials := a.Dials()
		stream, replayable := evenkeeltest.NewBody("order 1"), evenkeeltest.NewBody("order 2")
		for i, body := range []*evenkeeltest.Body{stream, replayable} {
			req := get(t, "http://a/")
			req.Method = http.MethodPost
			if i == 0 {
				body.Stream(req)
			} else {
				body.Replayable(req)
			}
			_, err := status(t, tr, req)
			require.ErrorIs(t, err, breaker.ErrOpen)
			body.AssertClosed(t)
			assert.Zero(t, body.Account().Reads)
			assert.Same(t, body, req.Body, "the caller's request is not changed")
		}
		a.AssertRequests(t, 2)
		assert.Equal(t, dials, a.Dials())
	})
}

// What can never be sent is refused before a breaker is asked.
func TestTransport_InvalidRequests(t *testing.T) {
	fake := stillClock()
	tr := around(t, failing(io.EOF), plain(fake))
	for range 3 {
		body := evenkeeltest.NewBody("never sent")
		req := get(t, "http://a/")
		body.Stream(req)
		req.Header.Set("X-Bad", "line\nbreak")
		_, err := status(t, tr, req)
		require.ErrorIs(t, err, outcome.ErrInvalidRequest)
		body.AssertClosed(t)
	}
	assert.Empty(t, tr.Group().All())
}

// The error tells all that a caller of an http.Client needs.
func TestTransport_ErrorThroughAClient(t *testing.T) {
	fake := stillClock()
	client := &http.Client{Transport: around(t, replying(500), plain(fake))}
	ask := func() error {
		resp, err := client.Do(get(t, "http://orders.internal/v1"))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.NoError(t, ask())
	require.NoError(t, ask())
	opened := fake.Now()
	fake.Advance(1500*time.Millisecond + 300*time.Microsecond)
	err := ask()
	require.ErrorIs(t, err, breaker.ErrOpen)
	var refused *breaker.OpenError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "orders.internal:80", refused.Name)
	assert.Equal(t, breaker.Open, refused.State)
	assert.Equal(t, breaker.ConsecutiveFailures, refused.Because)
	assert.Equal(t, opened.Add(5*time.Second), refused.Until)
	assert.Equal(t, 3500*time.Millisecond-300*time.Microsecond, refused.RetryAfter())
	assert.Equal(t, outcome.Open, outcome.ReasonOf(err))
	assert.EqualError(t, err, `Get "http://orders.internal/v1": `+
		`breaker: orders.internal:80 is open (consecutive_failures), next try in 3.5s`)
	var wrapped *url.Error
	require.ErrorAs(t, err, &wrapped)
	assert.False(t, wrapped.Timeout())
}

// A gateway that got the error from behind it can serve it: 503, and Retry-After in whole
// seconds, rounded up, at least one.
func TestOpenError_ServeHTTP(t *testing.T) {
	fake := stillClock()
	tr := around(t, replying(500), plain(fake))
	gateway := &httputil.ReverseProxy{
		Transport: tr,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "a"}) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var answers http.Handler
			if assert.ErrorAs(t, err, &answers) {
				answers.ServeHTTP(w, r)
			}
		},
	}
	serve := func() *http.Response {
		w := httptest.NewRecorder()
		gateway.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		resp := w.Result()
		resp.Body.Close()
		return resp
	}
	for range 2 {
		require.Equal(t, 500, serve().StatusCode)
	}
	for _, row := range []struct {
		after time.Duration // since it opened
		want  string
	}{
		{0, "5"},
		{1, "5"},
		{time.Second - 1, "5"},
		{time.Second, "4"},
		{4*time.Second - 1, "2"},
		{4 * time.Second, "1"},
		{5*time.Second - 1, "1"},
	} {
		fake.Advance(row.after - fake.Now().Sub(stillClock().Now()))
		resp := serve()
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, row.want, resp.Header.Get("Retry-After"), "after %v", row.after)
	}

	require.NoError(t, only(t, tr).SetMode(breaker.ForcedOpen))
	resp := serve()
	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "1", resp.Header.Get("Retry-After"), "when that ends nobody knows")
}

// A panic of the transport below counts as a failure, gives the place of a probe back, and
// goes on.
func TestTransport_Panic_K16(t *testing.T) {
	fake := stillClock()
	answer := func(*http.Request) (*http.Response, error) { panic("ordered") }
	cfg := plain(fake)
	cfg.ProbeFailures = 2
	tr := around(t, tripper(func(req *http.Request) (*http.Response, error) { return answer(req) }), cfg)
	boom := func() {
		t.Helper()
		body := evenkeeltest.NewBody("never sent")
		req := get(t, "http://a/")
		body.Stream(req)
		assert.PanicsWithValue(t, "ordered", func() { _, _ = tr.RoundTrip(req) })
		body.AssertClosed(t)
	}
	boom()
	b := only(t, tr)
	assert.Equal(t, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, b.Counts())
	boom()
	require.Equal(t, breaker.Open, b.State())
	fake.Advance(5 * time.Second)
	boom()
	assert.Equal(t, breaker.HalfOpen, b.State())
	assert.Equal(t, breaker.Counts{Failures: 1}, b.Counts())
	answer = replying(200)
	_, err := status(t, tr, get(t, "http://a/"))
	require.NoError(t, err)
	assert.Equal(t, breaker.Closed, b.State())

	// The end of the goroutine, too.
	answer = func(*http.Request) (*http.Response, error) { runtime.Goexit(); return nil, nil }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = tr.RoundTrip(get(t, "http://a/")) //nolint:testifylint // the URL is good
	}()
	<-done
	assert.Equal(t, 1, b.Counts().ConsecutiveFailures)
}

// windows are the ways of counting.
var windows = map[string]func(*breaker.Config){
	"time":     func(c *breaker.Config) { c.Window = 10 * time.Second },
	"calls":    func(c *breaker.Config) { c.WindowCalls = 100 },
	"slow too": func(c *breaker.Config) { c.SlowAfter = time.Second },
}

// Given a 2xx whose body breaks, then that is one failed call, and no success: neither
// before, nor however often the body is asked again.
func TestTransport_BrokenBody_K16(t *testing.T) {
	for name, window := range windows {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				broken := evenkeeltest.OK("all of it").CloseMidBody(3)
				network.Serve("a:80", evenkeeltest.Script(
					evenkeeltest.Repeat(3, evenkeeltest.OK("a")), broken, broken, evenkeeltest.OK("a"), broken))
				cfg := plain(nil)
				cfg.ConsecutiveFailures = 3
				window(&cfg)
				tr := around(t, base(t, network), cfg)
				for range 3 {
					_, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
				}
				b := only(t, tr)
				require.Equal(t, breaker.Counts{Successes: 3}, b.Counts())

				resp, err := tr.RoundTrip(get(t, "http://a/"))
				require.NoError(t, err)
				assert.Equal(t, breaker.Counts{Successes: 4}, b.Counts(), "so far it is good")
				_, err = io.ReadAll(resp.Body)
				require.Error(t, err)
				for range 3 {
					_, _ = resp.Body.Read(make([]byte, 1))
				}
				resp.Body.Close()
				_, _ = resp.Body.Read(make([]byte, 1))
				assert.Equal(t, breaker.Counts{Successes: 3, Failures: 1, ConsecutiveFailures: 1}, b.Counts())

				_, err = status(t, tr, get(t, "http://a/"))
				require.NoError(t, err)
				assert.Equal(t, breaker.Counts{Successes: 3, Failures: 2, ConsecutiveFailures: 2}, b.Counts(),
					"its headers seemed to end the row, which goes on")
				_, err = status(t, tr, get(t, "http://a/"))
				require.NoError(t, err)
				assert.Equal(t, breaker.Counts{Successes: 4, Failures: 2}, b.Counts())
				assert.Equal(t, breaker.Closed, b.State())
			})
		})
	}
}

// Given a 404 whose body breaks, then the call is a failure, and none of the others is
// less: it was no success that could be taken back.
func TestTransport_BrokenBodyOfAClientError_K06_K16(t *testing.T) {
	for name, window := range windows {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				network.Serve("a:80", evenkeeltest.Script(
					evenkeeltest.Repeat(3, evenkeeltest.OK("a")), evenkeeltest.Status(404).Body("not there").CloseMidBody(3)))
				cfg := plain(nil)
				window(&cfg)
				tr := around(t, base(t, network), cfg)
				for range 4 {
					_, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
				}
				assert.Equal(t, 3, only(t, tr).Counts().Successes)
				assert.Equal(t, 1, only(t, tr).Counts().Failures)
			})
		})
	}
}

// Given an answer that is slow and whose body then breaks, then it is one call.
func TestTransport_BrokenBodyOfASlowCall_K16(t *testing.T) {
	for name, window := range windows {
		for _, others := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " ", others), func(t *testing.T) {
				online(t, func(t *testing.T, network *evenkeeltest.Network) {
					network.Serve("a:80", evenkeeltest.Script(
						evenkeeltest.Repeat(others, evenkeeltest.OK("a")),
						evenkeeltest.OK("all of it").Delay(2*time.Second).CloseMidBody(3)))
					cfg := plain(nil)
					window(&cfg)
					cfg.SlowAfter = time.Second
					tr := around(t, base(t, network), cfg)
					for range others + 1 {
						_, err := status(t, tr, get(t, "http://a/"))
						require.NoError(t, err)
					}
					c := only(t, tr).Counts()
					assert.Equal(t, others, c.Successes)
					assert.Equal(t, 1, c.Failures)
				})
			})
		}
	}
}

// Bodies that break open the breaker, like other failures.
func TestTransport_BrokenBodiesOpen_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.OK("all of it").CloseMidBody(3))
		cfg := plain(nil)
		cfg.ConsecutiveFailures, cfg.MinCalls = breaker.Off, 2
		tr := around(t, base(t, network), cfg)
		for range 2 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		_, err := status(t, tr, get(t, "http://a/"))
		require.ErrorIs(t, err, breaker.ErrOpen)
		assert.Equal(t, breaker.FailureRate, only(t, tr).Status().Because)
	})
}

// Given a probe whose body breaks, then it has failed: if the breaker is still half-open,
// it opens again.
func TestTransport_BrokenBodyOfAProbe_K04_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.Repeat(2, evenkeeltest.Status(500)),
			evenkeeltest.OK("all of it").CloseMidBody(3), evenkeeltest.OK("a")))
		cfg := plain(nil)
		cfg.Probes = 2
		tr := around(t, base(t, network), cfg)
		for range 2 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		time.Sleep(5 * time.Second)
		_, err := status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
		s := only(t, tr).Status()
		assert.Equal(t, breaker.Open, s.State)
		assert.Equal(t, breaker.ProbeFailed, s.Because)
		time.Sleep(10 * time.Second) // twice as long
		for range 2 {
			_, err = status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		assert.Equal(t, breaker.Closed, only(t, tr).State())
	})
}

// Given a body that breaks after the state in which its call began is over, then that
// changes nothing.
func TestTransport_BrokenBodyOfAnOlderPhase_K05(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.OK("all of it").Drip(1, 20*time.Second).CloseMidBody(3),
			evenkeeltest.Repeat(2, evenkeeltest.Status(500)), evenkeeltest.OK("a")))
		tr := around(t, base(t, network), plain(nil))
		old, err := tr.RoundTrip(get(t, "http://a/"))
		require.NoError(t, err)
		for range 2 {
			_, err = status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		b := only(t, tr)
		require.Equal(t, breaker.Open, b.State())
		time.Sleep(5 * time.Second)
		_, err = status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
		require.Equal(t, breaker.Closed, b.State())
		_, err = io.ReadAll(old.Body)
		require.Error(t, err)
		old.Body.Close()
		assert.Equal(t, breaker.Closed, b.State())
		assert.Equal(t, breaker.Counts{}, b.Counts())
	})
}

// A caller that stops reading, or goes away, says nothing about the server.
func TestTransport_UnreadBody_K01(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.OK("all of it").Drip(1, time.Second))
		tr := around(t, base(t, network), plain(nil))
		for _, leave := range []func(cancel context.CancelFunc, body io.ReadCloser){
			func(_ context.CancelFunc, body io.ReadCloser) { body.Close() },
			func(_ context.CancelFunc, body io.ReadCloser) {
				body.Close()
				_, _ = body.Read(make([]byte, 1))
			},
			func(cancel context.CancelFunc, body io.ReadCloser) {
				cancel()
				_, err := io.ReadAll(body)
				assert.Error(t, err)
				body.Close()
			},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := tr.RoundTrip(get(t, "http://a/").WithContext(ctx))
			require.NoError(t, err)
			leave(cancel, resp.Body)
			cancel()
		}
		assert.Equal(t, breaker.Counts{Successes: 3}, only(t, tr).Counts())
	})
}

// A probe is over with the headers of its answer: neither a long body nor an upgrade
// keeps the breaker half-open.
func TestTransport_LongAnswersHoldNoProbe_K08(t *testing.T) {
	for name, upgrade := range map[string]bool{"long body": false, "upgrade": true} {
		t.Run(name, func(t *testing.T) {
			online(t, func(t *testing.T, network *evenkeeltest.Network) {
				step := http.Handler(evenkeeltest.OK("all of it").Drip(1, time.Hour))
				if upgrade {
					step = evenkeeltest.Upgrade()
				}
				network.Serve("a:80", evenkeeltest.Script(evenkeeltest.Repeat(2, evenkeeltest.Status(500)), step))
				cfg := plain(nil)
				cfg.ProbeSuccesses = 3
				tr := around(t, base(t, network), cfg)
				for range 2 {
					_, err := status(t, tr, get(t, "http://a/"))
					require.NoError(t, err)
				}
				b := only(t, tr)
				time.Sleep(5 * time.Second)
				var open []*http.Response
				for i := range 3 {
					require.Equal(t, breaker.HalfOpen, b.State())
					assert.Equal(t, i, b.Counts().Successes)
					req := get(t, "http://a/")
					if upgrade {
						req.Header.Set("Connection", "Upgrade")
						req.Header.Set("Upgrade", "echo")
					}
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					open = append(open, resp)
				}
				assert.Equal(t, breaker.Closed, b.State())
				for _, resp := range open {
					if upgrade {
						require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
						conn, ok := resp.Body.(io.ReadWriteCloser)
						require.True(t, ok, "the body is a %T", resp.Body)
						_, err := io.WriteString(conn, "ahoy\n")
						require.NoError(t, err)
						line, err := bufio.NewReader(conn).ReadString('\n')
						require.NoError(t, err)
						assert.Equal(t, "ahoy\n", line)
					}
					resp.Body.Close()
				}
				assert.Equal(t, breaker.Closed, b.State())
				assert.Zero(t, b.Counts().Failures)
			})
		})
	}
}

// What is slow is the answer: neither opening the connection, nor reading the body.
func TestTransport_SlowIsTheTimeToTheHeaders(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.OK("a").Delay(time.Second), evenkeeltest.OK("all of it").Drip(1, time.Minute),
			evenkeeltest.OK("a").Delay(1500*time.Millisecond), evenkeeltest.OK("a").Delay(1700*time.Millisecond)))
		next := base(t, network)
		dial := next.DialContext
		next.DialContext = func(ctx context.Context, kind, address string) (net.Conn, error) {
			time.Sleep(10 * time.Second)
			return dial(ctx, kind, address)
		}
		cfg := plain(nil)
		cfg.SlowAfter, cfg.WindowCalls = 1600*time.Millisecond, 10
		tr := around(t, next, cfg)
		for i := range 4 {
			_, err := status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
			want := 0
			if i == 3 {
				want = 1
			}
			assert.Equal(t, want, only(t, tr).Counts().Slow, "call %d", i)
		}
	})
}

// With retries around the breaker, each attempt is a sample. An open breaker ends the call
// with the reason, at once.
func TestTransport_RetryAround_K15_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		a := network.Serve("a:80", evenkeeltest.Status(503).Body("sorry"))
		cfg := plain(nil)
		cfg.ConsecutiveFailures = 5
		br := around(t, base(t, network), cfg)
		tr, err := retry.NewTransport(br, retry.Policy{Backoff: retry.Backoff{Base: time.Second}})
		require.NoError(t, err)

		_, err = status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
		b := only(t, br)
		a.AssertRequests(t, 3)
		assert.Equal(t, breaker.Counts{Failures: 3, ConsecutiveFailures: 3}, b.Counts())

		resp, err := tr.RoundTrip(get(t, "http://a/"))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, "sorry", string(body), "the answer before the refusal is the caller's")
		assert.Equal(t, breaker.Open, b.State())
		a.AssertRequests(t, 5)

		start := time.Now()
		_, err = status(t, tr, get(t, "http://a/"))
		var failed *retry.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Open, failed.Reason)
		assert.Empty(t, failed.Attempts)
		require.ErrorIs(t, err, breaker.ErrOpen)
		assert.Zero(t, time.Since(start))
		a.AssertRequests(t, 5)
	})
}

// A time limit of the retry policy is the server's failure, unlike those of the caller.
func TestTransport_PerAttemptTimeoutIsAFailure_K01(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.Hang())
		br := around(t, base(t, network), plain(nil))
		tr, err := retry.NewTransport(br, retry.Policy{MaxAttempts: 2, PerAttemptTimeout: time.Second})
		require.NoError(t, err)
		_, err = status(t, tr, get(t, "http://a/"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, breaker.Open, only(t, br).State())
	})
}

// With the breaker around retries, each call is a sample, however many attempts it took.
func TestTransport_AroundRetries_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		a := network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.Repeat(2, evenkeeltest.Status(503)), evenkeeltest.OK("a"), // a call that succeeds in the end
			evenkeeltest.Status(404),
			evenkeeltest.Repeat(6, evenkeeltest.Status(503)), // two that do not
			evenkeeltest.Status(503), evenkeeltest.OK("a")))
		inner, err := retry.NewTransport(base(t, network), retry.Policy{Backoff: retry.Backoff{Base: time.Millisecond}})
		require.NoError(t, err)
		tr := around(t, inner, plain(nil))
		for i, want := range []breaker.Counts{
			{Successes: 1},
			{Successes: 1},
			{Successes: 1, Failures: 1, ConsecutiveFailures: 1},
		} {
			_, err = status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
			assert.Equal(t, want, only(t, tr).Counts(), "call %d", i)
		}
		_, err = status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
		b := only(t, tr)
		require.Equal(t, breaker.Open, b.State())
		_, err = status(t, tr, get(t, "http://a/"))
		require.ErrorIs(t, err, breaker.ErrOpen)
		a.AssertRequests(t, 10)

		time.Sleep(5 * time.Second)
		_, err = status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
		assert.Equal(t, breaker.Closed, b.State(), "a probe of two attempts")
	})
}

// The same holds where the endpoints are chosen below: a body that breaks is a failure of
// the call.
func TestTransport_AroundRetriesBrokenBody_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.OK("all of it").CloseMidBody(3))
		inner, err := retry.NewTransport(base(t, network), retry.Policy{})
		require.NoError(t, err)
		tr := around(t, inner, plain(nil))
		for range 2 {
			_, err = status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		assert.Equal(t, breaker.Open, only(t, tr).State())
	})
}

// A throttle around retries counts calls as well.
func TestThrottleTransport_AroundRetries_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.Repeat(2, evenkeeltest.Status(503)), evenkeeltest.OK("a"), evenkeeltest.Status(503)))
		inner, err := retry.NewTransport(base(t, network), retry.Policy{Backoff: retry.Backoff{Base: time.Millisecond}})
		require.NoError(t, err)
		throttle, err := breaker.NewThrottle(breaker.ThrottleConfig{})
		require.NoError(t, err)
		tr := throttle.Transport(inner)
		for range 2 {
			_, err = status(t, tr, get(t, "http://a/"))
			require.NoError(t, err)
		}
		s := throttle.Status()
		assert.Equal(t, 2, s.Requests)
		assert.Equal(t, 1, s.Accepts)
	})
}

// Given retries around a breaker around a balancer, then each attempt is a sample of the
// breaker, endpoints are left to the balancer, and a second attempt goes elsewhere.
func TestTransport_BetweenRetryAndBalancer_K16(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		a := network.Serve("a:80", evenkeeltest.Status(503))
		b := network.Serve("b:80", evenkeeltest.OK("b"))
		pool, err := balancer.NewPool(balancer.Config{
			Resolver: discovery.List{a.Endpoint(), b.Endpoint()}, Template: network.Transport(), Algorithm: balancer.RoundRobin{},
		})
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		require.NoError(t, pool.Ready(t.Context()))
		cfg := plain(nil)
		cfg.ConsecutiveFailures = 3
		br := around(t, balancer.NewTransport(pool, nil), cfg)
		tr, err := retry.NewTransport(br, retry.Policy{})
		require.NoError(t, err)
		const calls = 6
		for range calls {
			code, err := status(t, tr, get(t, "http://svc/"))
			require.NoError(t, err)
			assert.Equal(t, 200, code)
		}
		b.AssertRequests(t, calls)
		assert.Positive(t, a.Requests())
		counts := only(t, br).Counts()
		assert.Equal(t, calls, counts.Successes)
		assert.Equal(t, a.Requests(), counts.Failures)
		assert.Equal(t, []string{"svc:80"}, names(br.Group()))

		network.Refuse("a:80")
		network.Refuse("b:80")
		br.CloseIdleConnections()
		synctest.Wait()
		assert.Zero(t, a.OpenConns()+b.OpenConns())
		_, err = status(t, tr, get(t, "http://svc/"))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		start := time.Now()
		_, err = status(t, tr, get(t, "http://svc/"))
		require.ErrorIs(t, err, breaker.ErrOpen)
		assert.Zero(t, time.Since(start))
		for _, e := range pool.Status().Endpoints {
			assert.Zero(t, e.InFlight)
		}
	})
}

// What no endpoint was found for says nothing about the service: a probe that was not sent
// leaves its place.
func TestTransport_NothingToPickFrom(t *testing.T) {
	online(t, func(t *testing.T, network *evenkeeltest.Network) {
		a := network.Serve("a:80", evenkeeltest.Script(evenkeeltest.Repeat(2, evenkeeltest.Status(500)), evenkeeltest.OK("a")))
		pool, err := balancer.NewPool(balancer.Config{
			Resolver: discovery.List{a.Endpoint()}, Template: network.Transport(), Rules: balancer.Rules{Panic: balancer.Panic{Threshold: -1}},
		})
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		tr := around(t, balancer.NewTransport(pool, nil), plain(nil))
		for range 2 {
			_, err = status(t, tr, get(t, "http://svc/"))
			require.NoError(t, err)
		}
		b := only(t, tr)
		time.Sleep(5 * time.Second)
		require.Equal(t, breaker.HalfOpen, b.State())
		require.True(t, pool.SetHealthy(a.Endpoint().Key(), false))
		for range 3 {
			_, err = status(t, tr, get(t, "http://svc/"))
			require.ErrorIs(t, err, balancer.ErrNoEndpoints)
			assert.Equal(t, breaker.HalfOpen, b.State())
		}
		require.True(t, pool.SetHealthy(a.Endpoint().Key(), true))
		_, err = status(t, tr, get(t, "http://svc/"))
		require.NoError(t, err)
		assert.Equal(t, breaker.Closed, b.State())
	})
}

// A dial that fails speaks against the server. On a connection, a request that the server
// would not begin, as HTTP/2 tells, does not: it lets go in good order.
func TestTransport_NeverSent(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	declared := fmt.Errorf("mine: %w", outcome.ErrNeverSent)
	for _, row := range []struct {
		name      string
		err       error
		connected bool
		want      breaker.Counts
	}{
		{"dial", dial, false, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}},
		{"declared", declared, false, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}},
		{"on a connection", declared, true, breaker.Counts{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := around(t, tripper(func(req *http.Request) (*http.Response, error) {
				if row.connected {
					trace := httptrace.ContextClientTrace(req.Context())
					trace.GetConn("a:80")
					trace.GotConn(httptrace.GotConnInfo{})
				}
				return nil, row.err
			}), plain(stillClock()))
			_, err := status(t, tr, get(t, "http://a/"))
			require.ErrorIs(t, err, row.err)
			assert.Equal(t, row.want, only(t, tr).Counts())
		})
	}
}

func TestNewTransport_WhatIsWrong_P02(t *testing.T) {
	fieldsOf := func(err error) (list []string) {
		var joined interface{ Unwrap() []error }
		require.ErrorAs(t, err, &joined)
		for _, e := range joined.Unwrap() {
			var wrong *field.Error
			require.ErrorAs(t, e, &wrong)
			list = append(list, wrong.Field)
		}
		slices.Sort(list)
		return list
	}
	_, err := breaker.NewTransport(nil, breaker.Config{})
	assert.Equal(t, []string{"next"}, fieldsOf(err))
	_, err = breaker.NewTransport(nil, breaker.Config{FailureRate: 2, OpenFor: -1})
	assert.Equal(t, []string{"FailureRate", "OpenFor", "next"}, fieldsOf(err))
	_, err = breaker.NewTransport(http.DefaultTransport, breaker.Config{Probes: -1})
	assert.Equal(t, []string{"Probes"}, fieldsOf(err))
}

// idling is a transport that counts the calls of CloseIdleConnections.
type idling struct {
	http.RoundTripper
	n int
}

func (i *idling) CloseIdleConnections() { i.n++ }

func TestTransport_CloseIdleConnections_T12(t *testing.T) {
	next := &idling{RoundTripper: replying(200)}
	tr := around(t, next, plain(stillClock()))
	(&http.Client{Transport: tr}).CloseIdleConnections()
	assert.Equal(t, 1, next.n)
	tr = around(t, replying(200), plain(stillClock()))
	assert.NotPanics(t, tr.CloseIdleConnections)
}

// Close drops the breakers and ends the events. Calls go on unguarded: the transport below
// is not ours to close.
func TestTransport_Close_K13_K14(t *testing.T) {
	fake := stillClock()
	var told []breaker.Change
	cfg := plain(fake)
	cfg.OnChange = func(c breaker.Change) { told = append(told, c) }
	tr := around(t, replying(500), cfg)
	b := tr.Group().Breaker("a:80")
	for range 2 {
		_, err := status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
	}
	require.Len(t, told, 1)
	assert.Equal(t, breaker.Change{
		Name: "a:80", From: breaker.Closed, To: breaker.Open, Reason: breaker.ConsecutiveFailures,
		Counts: breaker.Counts{Failures: 2, ConsecutiveFailures: 2}, At: fake.Now(), Until: fake.Now().Add(5 * time.Second),
	}, told[0])
	require.Positive(t, fake.Pending(), "what sweeps breakers that nobody uses")
	for range 2 {
		require.NoError(t, tr.Close())
		assert.Empty(t, tr.Group().All())
		assert.Zero(t, fake.Pending())
	}
	fake.Advance(5 * time.Second)
	assert.Equal(t, breaker.HalfOpen, b.State())
	for range 5 {
		_, err := status(t, tr, get(t, "http://a/"))
		require.NoError(t, err)
	}
	assert.Len(t, told, 1)
	assert.Empty(t, tr.Group().All())
}

// Hosts that nobody asks any more are forgotten, and more than MaxKeys are never held.
func TestTransport_IsBounded_K14(t *testing.T) {
	fake := stillClock()
	cfg := plain(fake)
	cfg.MaxKeys, cfg.IdleFor = 10, time.Minute
	tr := around(t, replying(200), cfg)
	for i := range 1000 {
		_, err := status(t, tr, get(t, fmt.Sprintf("http://h%d/", i)))
		require.NoError(t, err)
		require.LessOrEqual(t, len(tr.Group().All()), 10)
	}
	fake.Advance(2 * time.Minute)
	assert.Empty(t, tr.Group().All())
	assert.Zero(t, fake.Pending())
}

// The request that the transport below gets is not the caller's, and the caller's is not
// changed; the response is as it was.
func TestTransport_LeavesTheRest_T07(t *testing.T) {
	var below *http.Request
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"X": {"y"}}, Body: io.NopCloser(strings.NewReader("body"))}
	tr := around(t, tripper(func(req *http.Request) (*http.Response, error) {
		below = req
		assert.NotNil(t, req.Header)
		return resp, nil
	}), plain(stillClock()))
	req := (&http.Request{Method: http.MethodGet, URL: get(t, "http://a/x").URL}).WithContext(context.WithValue(t.Context(), ctxKey{}, "mine"))
	got, err := tr.RoundTrip(req)
	require.NoError(t, err)
	assert.Same(t, resp, got)
	assert.NotSame(t, req, below)
	assert.Equal(t, "mine", below.Context().Value(ctxKey{}))
	assert.Nil(t, req.Header)
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	assert.Equal(t, "body", string(body))
	got.Body.Close()
}

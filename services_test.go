package evenkeel_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// echoed is a base transport that tells in headers what it was asked to send.
type echoed struct{}

func (echoed) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	resp := answerTo(req, http.StatusOK, http.NoBody)
	resp.Header.Set("X-Url", req.URL.String())
	if resp.Header.Set("X-Host", req.Host); req.Host == "" {
		resp.Header.Set("X-Host", req.URL.Host)
	}
	return resp, nil
}

// inProcess are the options of services whose endpoints all are the given transport.
func inProcess(base http.RoundTripper) []evenkeel.Option {
	return []evenkeel.Option{
		evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return base }),
	}
}

func newServices(tb testing.TB, c evenkeel.ServicesConfig) *evenkeel.Services {
	tb.Helper()
	s, err := evenkeel.NewServices(c)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// watched counts the watches of resolvers, and those that go on.
type watched struct{ begun, open atomic.Int32 }

func (w *watched) Watch(ctx context.Context, sink discovery.Sink) error {
	w.begun.Add(1)
	w.open.Add(1)
	defer w.open.Add(-1)
	return discovery.Static{"a:80"}.Watch(ctx, sink)
}

func watchedBy(w *watched) []evenkeel.Option {
	return append(inProcess(echoed{}), evenkeel.WithResolver(w))
}

func TestServices_RouteByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: inProcess(echoed{}),
			Services: map[string]evenkeel.Service{
				"plain":      {},
				"Users":      {Target: "http://Users.Internal:8080"},
				"secure":     {Target: "https://secure.internal"},
				"twin-1":     {Target: "http://twins:81"},
				"twin-2":     {Target: "http://twins:81"},
				"namesake":   {Target: "http://plain"},
				"ip6":        {Target: "http://[::1]:8080"},
				"elsewhere":  {Target: "http://orders:80"},
				"sub.domain": {Target: "http://10.0.0.1"},
			},
		})
		for _, row := range []struct {
			url, host string // of the request
			sent      string // empty: it is refused
			hostSent  string
			why       error
		}{
			{url: "http://plain/x?y=z", sent: "http://plain/x?y=z", hostSent: "plain"},
			{url: "lb://plain/x", sent: "http://plain/x", hostSent: "plain"},
			{url: "http://users/x", sent: "http://Users.Internal:8080/x", hostSent: "Users.Internal:8080"},
			{url: "http://USERS./x", sent: "http://Users.Internal:8080/x", hostSent: "Users.Internal:8080"},
			{url: "http://users:80/x", sent: "http://Users.Internal:8080/x", hostSent: "Users.Internal:8080"},
			{url: "lb://uSers/%2f?a=b", sent: "http://Users.Internal:8080/%2f?a=b", hostSent: "Users.Internal:8080"},
			{url: "http://users.internal:8080/x", sent: "http://Users.Internal:8080/x", hostSent: "Users.Internal:8080"},
			{url: "http://secure/x", sent: "https://secure.internal/x", hostSent: "secure.internal"},
			{url: "https://secure/x", sent: "https://secure.internal/x", hostSent: "secure.internal"},
			{url: "https://secure:443/x", sent: "https://secure.internal/x", hostSent: "secure.internal"},
			{url: "lb://secure/x", sent: "https://secure.internal/x", hostSent: "secure.internal"},
			{url: "https://secure.internal:443/x", sent: "https://secure.internal/x", hostSent: "secure.internal"},
			{url: "http://[::1]:8080/", sent: "http://[::1]:8080/", hostSent: "[::1]:8080"},
			{url: "http://orders/", sent: "http://orders:80/", hostSent: "orders:80"},
			{url: "http://sub.domain/", sent: "http://10.0.0.1/", hostSent: "10.0.0.1"},
			{url: "http://twin-2/", sent: "http://twins:81/", hostSent: "twins:81"},

			{url: "http://users/x", host: "www.example.com", sent: "http://Users.Internal:8080/x", hostSent: "www.example.com"},
			{url: "http://plain/x", host: "www.example.com", sent: "http://plain/x", hostSent: "www.example.com"},
			{url: "http://users/x", host: "-", sent: "http://Users.Internal:8080/x", hostSent: "Users.Internal:8080"},

			{url: "https://users/x", why: evenkeel.ErrWrongTarget},
			{url: "https://plain/x", why: evenkeel.ErrWrongTarget},
			{url: "http://nobody/x", why: evenkeel.ErrUnknownService},
			{url: "http://users:81/x", why: evenkeel.ErrUnknownService},
			{url: "lb://users:80/x", why: evenkeel.ErrUnknownService},
			{url: "http://users:443/x", why: evenkeel.ErrUnknownService},
			{url: "https://users:80/x", why: evenkeel.ErrUnknownService},
			{url: "http://secure.internal/x", why: evenkeel.ErrUnknownService},
			{url: "lb://users.internal:8080/x", why: evenkeel.ErrUnknownService},
			{url: "http://twins:81/", why: evenkeel.ErrUnknownService},
			{url: "http://[::1]/", why: evenkeel.ErrUnknownService},
			{url: "http://users..x/", why: evenkeel.ErrUnknownService},
			{url: "ftp://users/x", why: outcome.ErrInvalidRequest},
			{url: "lb:///x", why: outcome.ErrInvalidRequest},
			{url: "lb:users", why: outcome.ErrInvalidRequest},
			{url: "//users/x", why: outcome.ErrInvalidRequest},
		} {
			req := getRequest(t, row.url)
			switch row.host {
			case "":
			case "-":
				req.Host = ""
			default:
				req.Host = row.host
			}
			body := evenkeeltest.NewBody("hello")
			req.Method = http.MethodPost
			body.Stream(req)
			before := *req
			resp, err := s.RoundTrip(req)
			body.AssertClosed(t)
			assert.Equal(t, row.url, req.URL.String())
			assert.Equal(t, before.Host, req.Host, row.url)
			if row.why != nil {
				require.ErrorIs(t, err, row.why, row.url)
				assert.Nil(t, resp)
				assert.NotNil(t, as[*evenkeel.Error](err), row.url)
				continue
			}
			require.NoError(t, err, row.url)
			assert.Equal(t, row.sent, resp.Header.Get("X-Url"), row.url)
			assert.Equal(t, row.hostSent, resp.Header.Get("X-Host"), row.url)
			assert.Equal(t, row.sent, resp.Request.URL.String())
			info, ok := evenkeel.InfoOf(resp)
			assert.True(t, ok)
			assert.Len(t, info.Attempts, 1)
		}
		require.NoError(t, s.Close())
	})
}

func TestServices_RefusalsAreTyped(t *testing.T) {
	s := newServices(t, evenkeel.ServicesConfig{
		Defaults: inProcess(echoed{}), Services: map[string]evenkeel.Service{"users": {}}, Eager: true,
	})
	for _, row := range []struct {
		url    string
		target string
		reason outcome.Reason
		name   string // of the unknown service
	}{
		{"http://joe:secret@Nobody/x", "http://Nobody", outcome.WrongTarget, "nobody"},
		{"lb://nobody:8080/x", "lb://nobody:8080", outcome.WrongTarget, "nobody:8080"},
		{"https://users/x", "https://users", outcome.WrongTarget, ""},
		{"gopher://users/x", "(not shown)", outcome.Invalid, ""},
	} {
		_, err := s.RoundTrip(getRequest(t, row.url))
		e := as[*evenkeel.Error](err)
		require.NotNil(t, e, row.url)
		assert.Equal(t, row.target, e.Target)
		assert.Equal(t, row.reason, e.Reason)
		assert.NotContains(t, err.Error(), "secret")
		unknown := as[*evenkeel.UnknownServiceError](err)
		if row.name == "" {
			assert.Nil(t, unknown, row.url)
			continue
		}
		require.NotNil(t, unknown, row.url)
		assert.Equal(t, row.name, unknown.Name)
	}
	_, err := s.RoundTrip(&http.Request{})
	require.ErrorIs(t, err, outcome.ErrInvalidRequest)
	assert.Zero(t, s.Stats()["users"].Calls, "what is refused is no call of a service")
	_, err = s.RoundTrip(getRequest(t, "http://users/"))
	require.NoError(t, err)
	assert.EqualValues(t, 1, s.Stats()["users"].Calls)
}

func TestNewServices_ReportsAllProblemsAtOnce(t *testing.T) {
	var w watched
	s, err := evenkeel.NewServices(evenkeel.ServicesConfig{
		Eager:    true,
		Defaults: watchedBy(&w),
		Services: map[string]evenkeel.Service{
			"good":       {},
			"users":      {Target: "users:8080", Options: []evenkeel.Option{evenkeel.WithRetry(retry.Policy{MaxAttempts: -1})}},
			"orders":     {Target: "http://orders/path", Options: []evenkeel.Option{evenkeel.WithTimeout(-time.Second)}},
			"Twice":      {},
			"twice":      {},
			"with:80":    {},
			"":           {},
			"a b":        {},
			"[::1]":      {},
			"bücher":     {Options: []evenkeel.Option{evenkeel.WithHealthCheck(health.Check{})}},
			"unresolved": {Options: []evenkeel.Option{evenkeel.WithResolver(discovery.Static{"what"})}},
		},
	})
	assert.Nil(t, s)
	var fields []string
	parts, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	for _, part := range parts.Unwrap() {
		problem := as[*evenkeel.FieldError](part)
		require.NotNil(t, problem, "%v", part)
		fields = append(fields, problem.Field)
	}
	assert.Equal(t, []string{
		`Services[""]`, `Services["[::1]"]`, `Services["a b"]`, `Services["bücher"].Target`,
		`Services["orders"].Target`, `Services["orders"].Timeout`, `Services["twice"]`,
		`Services["unresolved"].Resolver.Static[0]`,
		`Services["users"].Target`, `Services["users"].Retry.MaxAttempts`,
		`Services["with:80"]`,
	}, slices.Compact(fields), "%v", err) // that target has two problems
	assert.Zero(t, w.begun.Load(), "nothing is made")

	_, err = evenkeel.NewServices(evenkeel.ServicesConfig{
		Defaults: []evenkeel.Option{evenkeel.WithTimeout(-1)},
		Find:     func(context.Context, string) (evenkeel.Service, error) { return evenkeel.Service{}, nil },
	})
	require.NotNil(t, as[*evenkeel.FieldError](err))
	assert.Equal(t, "Defaults.Timeout", as[*evenkeel.FieldError](err).Field)
}

// refusingBalancer is valid, and yet cannot be made.
type refusingBalancer struct{ balancer.Random }

func (b refusingBalancer) NewBuilder(env balancer.Env) (balancer.Builder, error) {
	if env.Now.IsZero() { // it is only checked
		return b.Random.NewBuilder(env)
	}
	return nil, io.ErrNoProgress
}

func TestNewServices_ClosesWhatItHasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		c := evenkeel.ServicesConfig{Eager: true, Defaults: watchedBy(&w), Services: map[string]evenkeel.Service{
			"a": {}, "b": {}, "c": {Options: []evenkeel.Option{evenkeel.WithBalancer(refusingBalancer{})}},
		}}
		_, err := evenkeel.NewServices(c)
		require.ErrorIs(t, err, io.ErrNoProgress)
		assert.ErrorContains(t, err, `Services["c"]`)
		assert.Zero(t, w.open.Load())

		c.Eager = false
		s := newServices(t, c)
		_, err = s.RoundTrip(getRequest(t, "http://c/"))
		require.ErrorIs(t, err, io.ErrNoProgress)
		assert.NotNil(t, as[*evenkeel.UnknownServiceError](err))
		require.NoError(t, s.Close())
	})
}

func TestServices_LazyAndEager(t *testing.T) {
	for _, eager := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var w watched
			s := newServices(t, evenkeel.ServicesConfig{
				Eager: eager, Defaults: watchedBy(&w),
				Services: map[string]evenkeel.Service{"A": {}, "b": {}, "c": {}},
			})
			synctest.Wait()
			want := map[bool]int32{false: 0, true: 3}[eager]
			assert.Equal(t, want, w.begun.Load())
			assert.Len(t, s.Stats(), int(want))
			assert.Equal(t, []string{"a", "b", "c"}, s.Names())

			_, err := s.RoundTrip(getRequest(t, "https://b/"))
			require.ErrorIs(t, err, evenkeel.ErrWrongTarget)
			_, err = s.RoundTrip(getRequest(t, "http://a/"))
			require.NoError(t, err)
			tr, err := s.Transport("A")
			require.NoError(t, err)
			assert.EqualValues(t, 1, tr.Stats().Calls)
			assert.Equal(t, max(want, 1), w.begun.Load())

			require.NoError(t, s.Ready(t.Context()))
			assert.EqualValues(t, 3, w.begun.Load(), "Ready makes all of them")
			for name, stats := range s.Stats() {
				assert.Len(t, stats.Pool.Endpoints, 1, name)
			}
			require.NoError(t, s.Close())
			assert.Zero(t, w.open.Load())
		})
	}
}

// What each service has for itself counts over what all have.
func TestServices_PoliciesOverDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent counter
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: append(inProcess(roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent.add(req.URL.Host)
				return unavailable(req)
			})), evenkeel.WithRetry(retry.Policy{MaxAttempts: 3})),
			Services: map[string]evenkeel.Service{
				"three": {},
				"one":   {Options: []evenkeel.Option{evenkeel.WithRetry(retry.Policy{MaxAttempts: 1})}},
			},
		})
		for name, want := range map[string]int{"three": 3, "one": 1} {
			_, err := s.RoundTrip(getRequest(t, "http://"+name+"/"))
			require.NoError(t, err)
			assert.Equal(t, want, sent.get(name))
		}
		tr, err := s.Transport("one")
		require.NoError(t, err)
		c := tr.Config()
		c.Retry.MaxAttempts = 2
		require.NoError(t, tr.Update(c))
		_, err = s.RoundTrip(getRequest(t, "http://one/"))
		require.NoError(t, err)
		assert.Equal(t, 1+2, sent.get("one"))
		require.NoError(t, s.Close())
	})
}

// Every attempt of a call goes to the target, those beside each other included.
func TestServices_AllAttemptsGoToTheTarget(t *testing.T) {
	for name, policy := range map[string]retry.Policy{
		"one after the other": {MaxAttempts: 2},
		"hedged":              {MaxAttempts: 2, Hedge: &retry.Hedge{After: time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var hosts counter
			var n atomic.Int32
			s := newServices(t, evenkeel.ServicesConfig{
				Defaults: append(inProcess(roundTripFunc(func(req *http.Request) (*http.Response, error) {
					hosts.add(req.URL.String() + " " + req.Host)
					if n.Add(1) == 1 {
						time.Sleep(2 * time.Second)
						return unavailable(req)
					}
					return answerTo(req, http.StatusOK, http.NoBody), nil
				})), evenkeel.WithRetry(policy)),
				Services: map[string]evenkeel.Service{"users": {Target: "http://10.0.0.1:8080"}},
			})
			resp, err := s.RoundTrip(getRequest(t, "lb://users/"))
			require.NoError(t, err, name)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, 2, hosts.get("http://10.0.0.1:8080/ 10.0.0.1:8080"), "%s: %v", name, hosts.n)
			require.NoError(t, s.Close())
			time.Sleep(2 * time.Second) // the attempt that nobody waits for does not look at its context
		})
	}
}

// overNetwork serves two services on a network in memory: users over HTTP, secure over TLS.
func overNetwork(t *testing.T, users http.Handler) *evenkeel.Services {
	t.Helper()
	n := evenkeeltest.NewNetwork(t)
	n.Serve("10.0.0.1:8080", users)
	n.Start(evenkeeltest.ServerConfig{
		Address: "10.0.0.2:443", Protocol: evenkeeltest.HTTPS, Certificate: "secure.internal",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "secure ", r.Host, " ", r.TLS.ServerName)
		}),
	})
	return newServices(t, evenkeel.ServicesConfig{
		Defaults: []evenkeel.Option{evenkeel.WithTransport(n.Transport())},
		Services: map[string]evenkeel.Service{
			"users": {Target: "http://10.0.0.1:8080"},
			"secure": {Target: "https://secure.internal", Options: []evenkeel.Option{
				evenkeel.WithResolver(discovery.Static{"10.0.0.2:443"}),
			}},
		},
	})
}

func TestServices_ServersSeeTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprint(w, "users ", r.Host, " ", r.RequestURI, " ", string(body))
		}))
		client := &http.Client{Transport: s}
		for url, want := range map[string]string{
			"http://users/a?b":    "users 10.0.0.1:8080 /a?b hi",
			"lb://users/a%2fb":    "users 10.0.0.1:8080 /a%2fb hi",
			"http://secure/":      "secure secure.internal secure.internal",
			"https://secure/":     "secure secure.internal secure.internal",
			"lb://joe:pw@secure/": "secure secure.internal secure.internal",
		} {
			resp, err := client.Post(url, "text/plain", strings.NewReader("hi")) //nolint:noctx // the bubble bounds it
			require.NoError(t, err, url)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, want, string(body), url)
		}
		client.CloseIdleConnections()
		require.NoError(t, s.Close())
	})
}

func TestServices_Redirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overNetwork(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "seen", Value: r.URL.Path[1:]})
			switch r.URL.Path {
			case "/relative":
				w.Header().Set("Location", "end?by=path")
			case "/absolute":
				w.Header().Set("Location", "http://"+r.Host+"/end?by=origin")
			case "/named":
				w.Header().Set("Location", "http://secure/")
			case "/away":
				w.Header().Set("Location", "http://evil.example.com/")
			default:
				_, err := r.Cookie("seen")
				fmt.Fprint(w, r.URL.RequestURI(), " cookie: ", err == nil)
				return
			}
			w.WriteHeader(http.StatusFound)
		}))
		for url, want := range map[string]string{
			"lb://users/relative":   "/end?by=path cookie: false", // a jar knows http and https only
			"http://users/relative": "/end?by=path cookie: true",
			"lb://users/absolute":   "/end?by=origin cookie: false",
			"http://users/absolute": "/end?by=origin cookie: false",
			"http://users/named":    "secure secure.internal secure.internal",
			"http://users/away":     "",
			"lb://users/away":       "",
		} {
			jar, err := cookiejar.New(nil)
			require.NoError(t, err)
			resp, err := (&http.Client{Transport: s, Jar: jar}).Do(getRequest(t, url))
			if want == "" {
				require.ErrorIs(t, err, evenkeel.ErrUnknownService, url)
				assert.Equal(t, "evil.example.com", as[*evenkeel.UnknownServiceError](err).Name)
				continue
			}
			require.NoError(t, err, url)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, want, string(body), url)
		}
		require.NoError(t, s.Close())
	})
}

func TestServices_Upgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overNetwork(t, evenkeeltest.Upgrade())
		req := getRequest(t, "lb://users/")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := s.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		conn, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok)
		_, err = io.WriteString(conn, "ahoy\n")
		require.NoError(t, err)
		line, err := bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "ahoy\n", line)
		require.NoError(t, conn.Close())
		require.NoError(t, s.Close())
	})
}

// The callers change and reuse their requests, and read their own URLs in hooks.
func TestServices_HooksSeeWhatTheCallerWrote(t *testing.T) {
	var seen []string
	s := newServices(t, evenkeel.ServicesConfig{
		Services: map[string]evenkeel.Service{"users": {Target: "http://10.0.0.1:8080"}},
		Defaults: append(inProcess(echoed{}), evenkeel.WithHooks(evenkeel.Hooks{
			Called: func(c evenkeel.Call) { seen = append(seen, c.Request.URL.String()) },
		})),
	})
	req := getRequest(t, "lb://users/x")
	u := *req.URL
	_, err := s.RoundTrip(req)
	require.NoError(t, err)
	req.Method = "GET IT" // the transport of the service refuses it, as it does without services
	_, err = s.RoundTrip(req)
	require.ErrorIs(t, err, outcome.ErrInvalidRequest)
	assert.Equal(t, []string{"lb://users/x", "lb://users/x"}, seen)
	assert.Equal(t, u, *req.URL)
}

func TestServices_OneTransportForAll(t *testing.T) {
	for _, found := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var w watched
			var asked counter
			c := evenkeel.ServicesConfig{Defaults: watchedBy(&w)}
			if found {
				c.Find = func(_ context.Context, name string) (evenkeel.Service, error) {
					asked.add(name)
					time.Sleep(time.Second)
					return evenkeel.Service{Target: "http://found:81"}, nil
				}
			} else {
				c.Services = map[string]evenkeel.Service{"users": {Target: "http://found:81"}}
			}
			s := newServices(t, c)
			forms := []string{"http://users/", "http://Users/", "lb://USERS/"}
			var all sync.WaitGroup
			for i := range 100 {
				all.Go(func() {
					resp, err := s.RoundTrip(getRequest(t, forms[i%len(forms)]))
					if assert.NoError(t, err) {
						assert.Equal(t, "http://found:81/", resp.Header.Get("X-Url"))
					}
				})
			}
			all.Wait()
			assert.EqualValues(t, 1, w.begun.Load())
			assert.Equal(t, map[bool]int{true: 1}[found], asked.get("users"))
			assert.Equal(t, []string{"users"}, s.Names())
			assert.EqualValues(t, 100, s.Stats()["users"].Calls)

			resp, err := s.RoundTrip(getRequest(t, "http://found:81/")) // its target is known now
			require.NoError(t, err)
			assert.NotNil(t, resp)
			require.NoError(t, s.Close())
		})
	}
}

func TestServices_FindIsAskedAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("the registry is down")
		answers := []error{down, fmt.Errorf("not here: %w", evenkeel.ErrUnknownService), nil}
		var names []string
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: inProcess(echoed{}),
			Services: map[string]evenkeel.Service{"known": {}},
			Find: func(_ context.Context, name string) (evenkeel.Service, error) {
				names = append(names, name)
				if name == "bad" {
					return evenkeel.Service{Target: "bad:80"}, nil
				}
				err := answers[0]
				answers = answers[1:]
				return evenkeel.Service{}, err
			},
		})
		for i, want := range []error{down, evenkeel.ErrUnknownService} {
			body := evenkeeltest.NewBody("x")
			req := getRequest(t, "lb://Users/")
			req.Method = http.MethodPost
			body.Stream(req)
			_, err := s.RoundTrip(req)
			body.AssertClosed(t)
			require.ErrorIs(t, err, want)
			require.NotNil(t, as[*evenkeel.UnknownServiceError](err))
			assert.Equal(t, i == 1, errors.Is(err, evenkeel.ErrUnknownService))
			assert.Equal(t, outcome.WrongTarget, as[*evenkeel.Error](err).Reason)
		}
		assert.Equal(t, []string{"known"}, s.Names())
		for range 3 {
			_, err := s.RoundTrip(getRequest(t, "http://users/"))
			require.NoError(t, err)
		}
		_, err := s.RoundTrip(getRequest(t, "https://users/"))
		require.ErrorIs(t, err, evenkeel.ErrWrongTarget)
		_, err = s.RoundTrip(getRequest(t, "http://known/"))
		require.NoError(t, err)
		assert.Equal(t, []string{"users", "users", "users"}, names)
		assert.Equal(t, []string{"known", "users"}, s.Names())

		_, err = s.Transport("bad")
		require.NotNil(t, as[*evenkeel.UnknownServiceError](err))
		assert.Equal(t, `Services["bad"].Target`, as[*evenkeel.FieldError](err).Field)
		names = nil
		for _, url := range []string{"http://a:81/", "http://a..b/", "http://[::1]/", "lb://a:80/"} {
			_, err = s.RoundTrip(getRequest(t, url))
			require.ErrorIs(t, err, evenkeel.ErrUnknownService, url)
		}
		_, err = s.Transport("a:81")
		require.ErrorIs(t, err, evenkeel.ErrUnknownService)
		assert.Empty(t, names, "what is no name is not looked for")
		require.NoError(t, s.Close())
	})
}

// slowFind finds everything, in a second.
func slowFind(ended *atomic.Int32) func(context.Context, string) (evenkeel.Service, error) {
	return func(ctx context.Context, _ string) (evenkeel.Service, error) {
		select {
		case <-time.After(time.Second):
			return evenkeel.Service{}, nil
		case <-ctx.Done():
			ended.Add(1)
			return evenkeel.Service{}, ctx.Err()
		}
	}
}

func TestServices_SlowFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: inProcess(echoed{}), Find: slowFind(&ended),
			Services: map[string]evenkeel.Service{"known": {}},
		})
		start := time.Now()
		var all sync.WaitGroup
		all.Go(func() { // the first to ask gives up, and takes nobody with him
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := s.RoundTrip(getRequest(t, "http://slow/").WithContext(ctx))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			e := as[*evenkeel.Error](err)
			assert.Equal(t, outcome.Caller, e.Reason)
			assert.True(t, e.Timeout())
			assert.Equal(t, 100*time.Millisecond, time.Since(start))
		})
		all.Go(func() {
			synctest.Wait() // the first one waits
			_, err := s.RoundTrip(getRequest(t, "http://slow/"))
			assert.NoError(t, err)
			assert.Equal(t, time.Second, time.Since(start))
		})
		all.Go(func() {
			_, err := s.RoundTrip(getRequest(t, "http://known/"))
			assert.NoError(t, err)
			assert.Zero(t, time.Since(start))
		})
		all.Go(func() {
			gone := make(chan struct{})
			close(gone)
			req := getRequest(t, "http://other/")
			req.Cancel = gone //nolint:staticcheck // http.Client sets it
			_, err := s.RoundTrip(req)
			assert.ErrorIs(t, err, context.Canceled)
		})
		all.Wait()
		assert.EqualValues(t, 1, ended.Load(), "nobody waited for the other one any more")

		gone := errors.New("gone home")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		_, err := s.RoundTrip(getRequest(t, "http://third/").WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, gone)
		synctest.Wait()
		assert.EqualValues(t, 1, ended.Load(), "for one who has gone already, nobody looks")
		assert.Equal(t, []string{"known", "slow"}, s.Names())
		require.NoError(t, s.Close())
	})
}

// When all have given up, a find that comes too late counts no more, and the next request asks anew.
func TestServices_FindThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		var n atomic.Int32
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: watchedBy(&w),
			Find: func(context.Context, string) (evenkeel.Service, error) {
				k := n.Add(1)
				time.Sleep(time.Duration(k) * time.Minute) // deaf to its context
				return evenkeel.Service{Target: fmt.Sprintf("http://find-%d", k)}, nil
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.RoundTrip(getRequest(t, "http://users/").WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var all sync.WaitGroup
		for _, after := range []time.Duration{0, 90 * time.Second} { // before and after the first one has returned
			all.Go(func() {
				time.Sleep(after)
				resp, err := s.RoundTrip(getRequest(t, "http://users/"))
				if assert.NoError(t, err) {
					assert.Equal(t, "http://find-2/", resp.Header.Get("X-Url"))
				}
			})
		}
		all.Wait()
		assert.EqualValues(t, 1, w.begun.Load())
		assert.EqualValues(t, 2, n.Load())
		require.NoError(t, s.Close())
	})
}

func TestServices_CloseWhileFinding(t *testing.T) {
	for _, heedless := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var w watched
			var ended atomic.Int32
			find := slowFind(&ended)
			if heedless {
				find = func(context.Context, string) (evenkeel.Service, error) {
					time.Sleep(time.Second)
					return evenkeel.Service{}, nil
				}
			}
			s := newServices(t, evenkeel.ServicesConfig{Defaults: watchedBy(&w), Find: find})
			start := time.Now()
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					_, err := s.RoundTrip(getRequest(t, "http://users/"))
					assert.ErrorIs(t, err, evenkeel.ErrClosed)
					assert.Equal(t, outcome.Closed, as[*evenkeel.Error](err).Reason)
					assert.Zero(t, time.Since(start))
				})
			}
			synctest.Wait()
			require.NoError(t, s.Close())
			assert.Equal(t, map[bool]time.Duration{true: time.Second}[heedless], time.Since(start), "it waits for Find")
			all.Wait()
			assert.Zero(t, w.open.Load())
			assert.Empty(t, s.Names())
		})
	}
}

// slowBalancer takes as long as the test wants until it is made.
type slowBalancer struct {
	balancer.Random
	begun, goOn chan struct{}
}

func (b slowBalancer) NewBuilder(env balancer.Env) (balancer.Builder, error) {
	if !env.Now.IsZero() { // else it is only checked
		close(b.begun)
		<-b.goOn
	}
	return b.Random.NewBuilder(env)
}

func TestServices_CloseWhileMaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		b := slowBalancer{begun: make(chan struct{}), goOn: make(chan struct{})}
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: append(watchedBy(&w), evenkeel.WithBalancer(b)),
			Services: map[string]evenkeel.Service{"users": {}},
		})
		go func() {
			<-b.begun
			go func() {
				synctest.Wait() // Close waits for it
				close(b.goOn)
			}()
			assert.NoError(t, s.Close())
			assert.Zero(t, w.open.Load())
		}()
		_, err := s.RoundTrip(getRequest(t, "http://users/"))
		require.ErrorIs(t, err, evenkeel.ErrClosed)
		_, err = s.Transport("users")
		require.ErrorIs(t, err, evenkeel.ErrClosed)
	})
}

// A transport that is being made is made to the end, whoever has gone.
func TestServices_GiveUpWhileMaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		b := slowBalancer{begun: make(chan struct{}), goOn: make(chan struct{})}
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: append(watchedBy(&w), evenkeel.WithBalancer(b)),
			Services: map[string]evenkeel.Service{"users": {}},
		})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := s.RoundTrip(getRequest(t, "http://users/").WithContext(ctx))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		close(b.goOn)
		_, err := s.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		assert.EqualValues(t, 1, w.begun.Load())
		require.NoError(t, s.Close())
	})
}

func TestServices_CloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: watchedBy(&w),
			Services: map[string]evenkeel.Service{"made": {}, "unmade": {}},
			Find: func(_ context.Context, name string) (evenkeel.Service, error) {
				if name == "nobody" {
					return evenkeel.Service{}, evenkeel.ErrUnknownService
				}
				return evenkeel.Service{}, nil
			},
		})
		for _, name := range []string{"made", "found"} {
			_, err := s.RoundTrip(getRequest(t, "http://"+name+"/"))
			require.NoError(t, err)
		}
		assert.EqualValues(t, 2, w.open.Load())
		s.CloseIdleConnections()
		require.NoError(t, s.Close())
		assert.Zero(t, w.open.Load())
		require.NoError(t, s.Close())
		require.NoError(t, s.Shutdown(t.Context()))
		for _, name := range []string{"made", "unmade", "found", "nobody", "nobody:81"} {
			body := evenkeeltest.NewBody("x")
			req := getRequest(t, "http://"+name+"/")
			req.Method = http.MethodPost
			body.Stream(req)
			_, err := s.RoundTrip(req)
			require.ErrorIs(t, err, evenkeel.ErrClosed, name)
			assert.Equal(t, outcome.Closed, as[*evenkeel.Error](err).Reason)
			body.AssertClosed(t)
		}
		require.ErrorIs(t, s.Ready(t.Context()), evenkeel.ErrClosed)
		assert.EqualValues(t, 2, w.begun.Load())
	})
}

// Shutdown waits for the calls of all services beside each other, under one context.
func TestServices_Shutdown(t *testing.T) {
	for limit, done := range map[time.Duration]bool{5 * time.Second: true, 3 * time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			var w watched
			s := newServices(t, evenkeel.ServicesConfig{
				Defaults: append(watchedBy(&w), evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper {
					return roundTripFunc(func(req *http.Request) (*http.Response, error) {
						time.Sleep(4 * time.Second)
						return answerTo(req, http.StatusOK, http.NoBody), nil
					})
				})),
				Services: map[string]evenkeel.Service{"a": {}, "b": {}, "c": {}},
			})
			var all sync.WaitGroup
			for _, name := range []string{"a", "b", "a"} {
				all.Go(func() {
					_, err := s.RoundTrip(getRequest(t, "http://"+name+"/"))
					assert.NoError(t, err)
				})
			}
			synctest.Wait()
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			all.Go(func() {
				synctest.Wait()
				_, err := s.RoundTrip(getRequest(t, "http://c/"))
				assert.ErrorIs(t, err, evenkeel.ErrClosed)
			})
			err := s.Shutdown(ctx)
			assert.Equal(t, min(limit, 4*time.Second), time.Since(start))
			if done {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.ErrorContains(t, err, "service a")
				assert.ErrorContains(t, err, "service b")
				assert.NotContains(t, err.Error(), "service c")
			}
			assert.Zero(t, w.open.Load())
			all.Wait()
		})
	}
}

// A service that is not ready is named.
func TestServices_Ready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: inProcess(echoed{}),
			Services: map[string]evenkeel.Service{
				"users": {}, "orders": {Options: []evenkeel.Option{evenkeel.WithResolver(hungResolver())}},
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Ready(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "service orders")
		assert.NotContains(t, err.Error(), "users")
		require.NoError(t, s.Close())
	})
}

// Requests, searches and the end of it all at the same time, for the race detector.
func TestServices_ConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		s := newServices(t, evenkeel.ServicesConfig{
			Defaults: watchedBy(&w), Services: map[string]evenkeel.Service{"known": {}},
			Find: func(context.Context, string) (evenkeel.Service, error) {
				time.Sleep(time.Millisecond)
				return evenkeel.Service{}, nil
			},
		})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				for k := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%3)*time.Millisecond)
					_, err := s.RoundTrip(getRequest(t, fmt.Sprintf("http://s%d/", (i+k)%20)).WithContext(ctx))
					assert.True(t, err == nil || errors.Is(err, evenkeel.ErrClosed) || errors.Is(err, context.DeadlineExceeded), "%v", err)
					cancel()
					_, _ = s.Names(), s.Stats()
				}
			})
		}
		all.Go(func() {
			time.Sleep(4 * time.Millisecond)
			assert.NoError(t, s.Close())
		})
		all.Wait()
		require.NoError(t, s.Close())
		assert.Zero(t, w.open.Load())
	})
}

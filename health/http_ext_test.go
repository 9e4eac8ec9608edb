package health_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
)

// verdict probes a handler once or more, and returns what is known of it.
func verdict(t *testing.T, p health.Probe, h http.Handler) (st health.Status) {
	t.Helper()
	inScene(t, func(t *testing.T, s *scene) {
		s.network.Serve("a:80", h)
		check := oneByOne(p)
		check.Fall = 1
		s.check(check)
		s.add("a:80")
		s.settle(5 * time.Second)
		s.settle(check.WithDefaults().Timeout)
		st = s.status("a:80")
		s.monitor.Close()
		synctest.Wait()
		s.network.AssertNoConns(t)
	})
	return st
}

// What the answer means, by status and body.
func TestHTTP_Verdicts_H05(t *testing.T) {
	t.Parallel()
	ok := func(body string) http.Handler { return evenkeeltest.OK(body) }
	status := func(code int) http.Handler { return evenkeeltest.Status(code) }
	strict := health.HTTP{Statuses: []health.Statuses{{From: 204, To: 204}, {From: 400, To: 403}}}
	match := health.HTTP{BodyMatch: `(?m)^ready\b`}
	for _, row := range []struct {
		name    string
		probe   health.HTTP
		handler http.Handler
		good    bool
		says    string
	}{
		{"200", health.HTTP{}, ok("a"), true, ""},
		{"299", health.HTTP{}, status(299), true, ""},
		{"204", health.HTTP{}, status(204), true, ""},
		{"300", health.HTTP{}, status(300), false, "300"},
		{"404", health.HTTP{}, status(404), false, "404"},
		{"500", health.HTTP{}, status(500), false, "500"},
		{"a redirect", health.HTTP{}, evenkeeltest.Status(302).Header("Location", "http://a:80/health"), false, "302"},
		{"a permanent one", health.HTTP{}, evenkeeltest.Status(308).Header("Location", "/health"), false, "308"},
		{"switching protocols", health.HTTP{}, evenkeeltest.Upgrade(), false, "400"},
		{"a range, its lower end", strict, status(400), true, ""},
		{"a range, its upper end", strict, status(403), true, ""},
		{"a range, above", strict, status(404), false, "404"},
		{"a range, a single one", strict, status(204), true, ""},
		{"a range, 200 not in it", strict, ok("a"), false, "200"},
		{"a match", match, ok("not\nready to serve\n"), true, ""},
		{"no match", match, ok("not ready"), false, "body of the answer"},
		{"an empty body", match, ok(""), false, "body of the answer"},
		{"a match within 64 KiB", match, ok(strings.Repeat("\n", 64<<10-5) + "ready"), true, ""},
		{"a match beyond 64 KiB", match, ok(strings.Repeat("\n", 64<<10) + "ready"), false, "body of the answer"},
		{"a match under another status", match, evenkeeltest.Status(500).Body("ready"), false, "500"},
		{"a body that breaks", match, evenkeeltest.OK("ready" + strings.Repeat(" ", 1000)).CloseMidBody(500), false, "broke"},
		{"a body that breaks and is not looked at", health.HTTP{}, evenkeeltest.OK(strings.Repeat(" ", 1000)).CloseMidBody(500), true, ""},
		{"a body that is closed early", match, evenkeeltest.CloseAfter(0), false, "EOF"},
		{"a reset", health.HTTP{}, evenkeeltest.ResetAfter(0), false, "reset"},
		{"never", health.HTTP{}, evenkeeltest.Hang(), false, "took too long"},
		{"too late", health.HTTP{}, evenkeeltest.OK("a").Delay(2*time.Second + 1), false, "took too long"},
		{"just in time", health.HTTP{}, evenkeeltest.OK("a").Delay(2*time.Second - 100*time.Millisecond), true, ""},
		{"too slow a body", match, evenkeeltest.OK("ready"+strings.Repeat(" ", 100)).Drip(1, 100*time.Millisecond), false, "took too long"},
		{"a slow body that is not looked at", health.HTTP{}, evenkeeltest.OK(strings.Repeat(" ", 100)).Drip(1, 100*time.Millisecond), true, ""},
		{"404 that drains", health.HTTP{DrainOn404: true}, status(404), false, "draining"},
		{"404 that is a success", health.HTTP{Statuses: []health.Statuses{{From: 404, To: 404}}}, status(404), true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			st := verdict(t, row.probe, row.handler)
			if row.good {
				assert.Equal(t, health.Healthy, st.State, "%v", st.Err)
				assert.NoError(t, st.Err)
				return
			}
			assert.NotEqual(t, health.Healthy, st.State)
			assert.ErrorContains(t, st.Err, row.says)
			assert.LessOrEqual(t, st.Took, 2*time.Second)
		})
	}
}

// A report is believed, and what is none is judged by its status.
func TestHTTP_Report(t *testing.T) {
	t.Parallel()
	big := map[string]health.ComponentReport{}
	for i := range 1000 { // fits
		big[fmt.Sprint("c", i)] = health.ComponentReport{Status: health.Down}
	}
	most, err := json.Marshal(health.Report{Status: health.Down, Details: big})
	require.NoError(t, err)
	require.Less(t, len(most), 64<<10)
	for i := range 10_000 {
		big[fmt.Sprint("component-", i)] = health.ComponentReport{Status: health.Down}
	}
	huge, err := json.Marshal(health.Report{Status: health.Down, Details: big})
	require.NoError(t, err)
	lines := `{"status":"DOWN","details":{"a\nb\u0000\u001b[31m":{"status":"DOWN"},"fine":{"status":"UP"},"db":{"status":"DOWN","error":"x"}}}`
	for _, row := range []struct {
		name   string
		status int
		body   string
		want   health.State
		says   string
	}{
		{"UP", 200, `{"status":"UP"}`, health.Healthy, ""},
		{"DEGRADED", 200, `{"status":"DEGRADED","details":{"cache":{"status":"DOWN"}}}`, health.Healthy, ""},
		{"UP, but 503", 503, `{"status":"UP"}`, health.Unknown, "503"},
		{"DEGRADED, but 503", 503, `{"status":"DEGRADED"}`, health.Unknown, "503"},
		{"DOWN", 503, `{"status":"DOWN"}`, health.Unhealthy, "is down"},
		{"DOWN, but 200", 200, `{"status":"DOWN"}`, health.Unhealthy, "is down"},
		{"DOWN with names", 503, lines, health.Unhealthy, `is down: "a\nb\x00\x1b[31m", "db"`},
		{"DOWN with many names", 503, string(most), health.Unhealthy, `, 990 more`},
		{"DOWN with so many that the report is cut", 503, string(huge), health.Unknown, "503"},
		{"not JSON", 200, "all is well", health.Healthy, ""},
		{"not JSON, and 503", 503, "DOWN", health.Unknown, "503"},
		{"nothing", 200, "", health.Healthy, ""},
		{"JSON that is no report", 200, `["DOWN"]`, health.Healthy, ""},
		{"a million brackets", 503, strings.Repeat("[", 60<<10), health.Unknown, "503"},
		{"another case", 200, `{"status":"down"}`, health.Healthy, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			inScene(t, func(t *testing.T, s *scene) {
				s.network.Serve("a:80", evenkeeltest.Status(row.status).Body(row.body))
				check := oneByOne(health.HTTP{Report: true})
				check.Fall = 1000
				s.check(check)
				e := s.add("a:80")
				s.settle(5 * time.Second)
				st := e.Status()
				assert.Equal(t, row.want, st.State, "%v", st.Err)
				if row.says == "" {
					assert.NoError(t, st.Err)
					return
				}
				assert.ErrorContains(t, st.Err, row.says)
				assert.Less(t, len(st.Err.Error()), 1000)
				assert.NotContains(t, st.Err.Error(), "\n")
			})
		})
	}
}

// The text of an error is fit for a log, however long the names of components are.
func TestHTTP_ReportWithLongNames(t *testing.T) {
	name := strings.Repeat("\x01", 8<<10)
	body, err := json.Marshal(health.Report{Status: health.Down, Details: map[string]health.ComponentReport{name: {Status: health.Down}}})
	require.NoError(t, err)
	st := verdict(t, health.HTTP{Report: true}, evenkeeltest.Status(503).Body(string(body)))
	assert.Equal(t, health.Unhealthy, st.State)
	assert.ErrorIs(t, st.Err, health.ErrDown)
	assert.Less(t, len(st.Err.Error()), 4<<10)
}

// The probe's own side and the server's own side understand each other.
func TestHTTP_ReportOfAHandler(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		broken := atomic.Bool{}
		h, err := health.NewHandler(health.HandlerConfig{Components: []health.Component{{Name: "db", Check: func(context.Context) error {
			if broken.Load() {
				return assert.AnError
			}
			return nil
		}}}})
		require.NoError(t, err)
		mux := http.NewServeMux()
		mux.Handle("/health", h)
		s.network.Serve("a:80", mux)
		s.check(oneByOne(health.HTTP{Report: true}))
		e := s.add("a:80")
		s.settle(7 * time.Second)
		assert.Equal(t, health.Healthy, e.Status().State, "%v", e.Status().Err)
		broken.Store(true)
		s.settle(10 * time.Second)
		assert.Equal(t, health.Unhealthy, e.Status().State)
		assert.ErrorContains(t, e.Status().Err, `"db"`)
	})
}

// An endpoint that answers 404 leaves, finishes what it has, and comes back when it is well again.
func TestHTTP_DrainOn404(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		gone := atomic.Bool{}
		a := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() && r.URL.Path == "/health" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = io.WriteString(w, "a")
		})
		s.network.Serve("a:80", a)
		s.network.Serve("b:80", evenkeeltest.OK("b"))
		s.check(oneByOne(health.HTTP{DrainOn404: true}))
		tr := s.balance(balancer.Config{Rules: balancer.Rules{SlowStart: balancer.SlowStart{Window: -1}}}, "a:80", "b:80")
		time.Sleep(10 * time.Second)
		gone.Store(true)
		s.settle(5 * time.Second)
		assert.Equal(t, "withdrawn", tr.unavailable("a:80"))
		assert.Equal(t, map[string]int{"b": 10}, tr.share(10))
		gone.Store(false)
		s.settle(7 * time.Second)
		assert.Empty(t, tr.unavailable("a:80"))
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, tr.share(10))
		assert.Equal(t, []string{"a:80 withdrawn", "a:80 healthy"}, s.journal.kinds()[2:])
		assert.ErrorIs(t, s.journal.all()[2].Err, health.ErrDraining)
	})
}

// An endpoint that asks to be left alone is, up to MaxDownInterval.
func TestHTTP_HeedRetryAfter(t *testing.T) {
	for _, row := range []struct {
		after string
		heed  bool
		want  time.Duration
	}{
		{"8", true, 8 * time.Second},
		{"8", false, time.Second},
		{"3600", true, 20 * time.Second},
		{"99999999999999999999", true, 20 * time.Second},
		{"0", true, time.Second},
		{"-5", true, time.Second},
		{"soon", true, time.Second},
		{"Sat, 01 Jan 2000 01:00:00 GMT", true, 20 * time.Second},
	} {
		t.Run(fmt.Sprintf("%s, heed %v", row.after, row.heed), func(t *testing.T) {
			assertLeftAlone(t, row.after, row.heed, false, row.want)
		})
	}
}

// A request that fails meanwhile makes no difference: the endpoint has said when it can be asked.
func TestHTTP_HeedRetryAfter_AlsoWhenRequestsFail(t *testing.T) {
	assertLeftAlone(t, "8", true, true, 8*time.Second)
}

// assertLeftAlone checks the time between the probes of an endpoint that always answers 503.
func assertLeftAlone(t *testing.T, after string, heed, failing bool, want time.Duration) {
	t.Helper()
	inScene(t, func(t *testing.T, s *scene) {
		server := s.network.Serve("a:80", evenkeeltest.Status(503).Header("Retry-After", after))
		check := oneByOne(health.HTTP{HeedRetryAfter: heed})
		check.Fall = 100
		s.check(check)
		e := s.add("a:80")
		for s.elapsed() < 60*time.Second {
			if failing {
				e.Answered(failure())
			}
			s.settle(50 * time.Millisecond)
		}
		var at []time.Time
		for _, r := range server.Received() {
			at = append(at, r.At)
		}
		require.Greater(t, len(at), 2)
		for _, gap := range gaps(at) {
			require.InDelta(t, want.Seconds(), gap.Seconds(), 0.001)
		}
	})
}

// What a probe sends is what was asked for, and one connection for each endpoint is enough for 50.
func TestHTTP_Request_H05(t *testing.T) {
	for _, row := range []struct {
		name   string
		probe  health.HTTP
		target string
		method string
		path   string
		host   string
		dials  int
	}{
		{"nothing", health.HTTP{}, "", "GET", "/health", "a:80", 1},
		{"a target", health.HTTP{}, "http://users.internal", "GET", "/health", "users.internal", 1},
		{"a target with a port and a path", health.HTTP{}, "http://users.internal:8080/base?x=1", "GET", "/health", "users.internal:8080", 1},
		{"all", health.HTTP{
			Method: "POST", Path: "/a%2Fb/x?deep=1&q=%20", Host: "other.example:81",
			Header: http.Header{"X-Token": {"one", "two"}, "User-Agent": {"probe"}},
		}, "http://users.internal", "POST", "/a%2Fb/x?deep=1&q=%20", "other.example:81", 1},
		{"HEAD", health.HTTP{Method: "HEAD"}, "", "HEAD", "/health", "a:80", 1},
		{"new connections", health.HTTP{NewConnections: true}, "", "GET", "/health", "a:80", 50},
	} {
		t.Run(row.name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				server, other := s.network.Serve("a:80", nil), s.network.Serve("b:80", nil)
				check := oneByOne(row.probe)
				s.watch(health.Config{Check: &check, Target: row.target})
				s.add("a:80")
				s.add("b:80")
				s.settle(250 * time.Second)
				received := server.Received()
				require.Len(t, received, 50)
				for _, r := range received {
					assert.Equal(t, row.method+" "+row.path+" "+row.host, r.Method+" "+r.Path+" "+r.Host)
					for name, values := range row.probe.Header {
						assert.Equal(t, values, r.Header[name])
					}
					assert.Empty(t, r.Header["Accept-Encoding"], "nobody is to compress")
					assert.True(t, r.BodyEnd)
				}
				assert.Equal(t, row.dials, server.Dials())
				assert.Equal(t, row.dials, other.Dials())
				if row.dials > 1 {
					assert.Zero(t, server.OpenConns(), "no connection is kept")
				} else {
					assert.Equal(t, 1, server.OpenConns())
				}
			})
		})
	}
}

// Also if the body is not looked at, and is not that small: of a body, 64 KiB may be read.
func TestHTTP_ConnectionIsKept_H05(t *testing.T) {
	for _, size := range []int{0, 100, 4 << 10, 8 << 10, 60 << 10} {
		for _, match := range []string{"", "^x*"} {
			t.Run(fmt.Sprintf("%d bytes, match %q", size, match), func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					server := s.network.Serve("a:80", evenkeeltest.OK(strings.Repeat("x", size)))
					s.check(oneByOne(health.HTTP{BodyMatch: match}))
					s.add("a:80")
					s.settle(50 * time.Second)
					assert.Equal(t, 1, server.Dials())
				})
			})
		}
	}
}

// Another port of the same host, on IPv6 as well; Unix sockets have none.
func TestHTTP_Port_H05(t *testing.T) {
	for _, row := range []struct{ endpoint, asked, host string }{
		{"a:80", "a:9000", "a:80"},
		{"[::1]:80", "[::1]:9000", "[::1]:80"},
		{"[fe80::1%eth0]:80", "[fe80::1%eth0]:9000", "[fe80::1]:80"}, // net/http takes the zone out
		{"unix:/run/a.sock", "unix:/run/a.sock", "localhost"},
	} {
		inScene(t, func(t *testing.T, s *scene) {
			server := s.network.Serve(row.asked, nil)
			s.check(oneByOne(health.HTTP{Port: 9000}))
			e := s.add(row.endpoint)
			s.settle(10 * time.Second)
			assert.Equal(t, health.Healthy, e.Status().State, "%s: %v", row.endpoint, e.Status().Err)
			for _, r := range server.Received() {
				assert.Equal(t, row.host, r.Host)
			}
			assert.Equal(t, 1, server.Dials())
			e.Remove()
			s.settle(0)
			s.network.AssertNoConns(t)
		})
	}
}

// Host, TLS server name and the check of the certificate are those of the target, as for the traffic,
// over each protocol; the endpoint's address is dialled, and that is all.
func TestHTTP_TLSOfTheTarget_H05(t *testing.T) {
	for name, row := range map[string]struct {
		protocol    evenkeeltest.Protocol
		target      string
		certificate string
		host        string // of the probe
		want        health.State
		server      string
	}{
		"HTTP/2":               {evenkeeltest.HTTPS, "https://users.internal:8443", "users.internal", "", health.Healthy, "users.internal"},
		"HTTP/1.1":             {evenkeeltest.HTTPS1, "https://users.internal", "users.internal", "", health.Healthy, "users.internal"},
		"custom Host":          {evenkeeltest.HTTPS, "https://users.internal", "users.internal", "admin.internal", health.Healthy, "users.internal"},
		"another certificate":  {evenkeeltest.HTTPS, "https://users.internal", "10.0.0.1", "", health.Unknown, ""},
		"of the custom Host":   {evenkeeltest.HTTPS1, "https://users.internal", "admin.internal", "admin.internal", health.Unknown, ""},
		"an address as target": {evenkeeltest.HTTPS1, "https://10.9.9.9", "10.9.9.9", "", health.Healthy, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				server := s.network.Start(evenkeeltest.ServerConfig{Address: "10.0.0.1:443", Protocol: row.protocol, Certificate: row.certificate})
				check := oneByOne(health.HTTP{Host: row.host})
				check.Fall = 1000
				s.watch(health.Config{Check: &check, Target: row.target})
				tr := s.balance(balancer.Config{}, "10.0.0.1:443")
				s.settle(60 * time.Second)
				st := s.status("10.0.0.1:443")
				assert.Equal(t, row.want, st.State, "%v", st.Err)
				_, _, err := tr.get(row.target + "/")
				assert.Equal(t, row.want == health.Healthy, err == nil, "the traffic fares as the probes: %v", err)
				received := server.Received()
				if row.want != health.Healthy {
					assert.ErrorContains(t, st.Err, "certificate")
					assert.Empty(t, received)
					return
				}
				assert.Equal(t, 2, server.Dials(), "one for all probes, one for the request")
				host := strings.TrimPrefix(row.target, "https://")
				assert.Equal(t, host, received[len(received)-1].Host)
				if row.host != "" {
					host = row.host
				}
				for _, r := range received[:len(received)-1] {
					assert.Equal(t, row.server, r.ServerName)
					assert.Equal(t, host, r.Host)
					assert.Equal(t, received[len(received)-1].Proto, r.Proto, "as the traffic")
				}
			})
		})
	}
}

// soonest is a source of randomness by which nothing waits for its turn.
type soonest struct{}

func (soonest) Uint64() uint64 { return 0 }

// The same over real sockets, where a template without a dialer speaks HTTP/2 by itself; also the first
// clone of it.
func TestHTTP_TLSOverSockets_H05(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	proto := make(chan string, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		proto <- r.Proto + " " + r.Host + " " + r.TLS.ServerName
	}))
	server.EnableHTTP2 = true
	server.StartTLS() // its certificate is for example.com, among others
	t.Cleanup(server.Close)
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = nil // the client's own, which dials the server whatever the name
	for _, target := range []string{"https://example.com", "https://users.internal"} {
		changes := make(chan health.Change, 10)
		// Real time, on a machine that may be busy: the first probe begins at once, and has a minute.
		check := health.Check{Interval: time.Minute, Timeout: time.Minute, Fall: 1, IdleInterval: health.Off}
		m, err := health.NewMonitor(health.Config{
			Check: &check, Target: target, Transport: transport, Rand: soonest{}, OnChange: func(c health.Change) { changes <- c },
		})
		require.NoError(t, err)
		_, err = m.Add(discovery.Endpoint{Address: server.Listener.Addr().String()})
		require.NoError(t, err)
		first := <-changes
		m.Close()
		if target == "https://example.com" {
			assert.Equal(t, health.TurnedHealthy, first.Kind, "%v", first.Err)
			assert.Equal(t, "HTTP/2.0 example.com example.com", <-proto)
			asked.Store(0)
			continue
		}
		assert.Equal(t, health.TurnedUnhealthy, first.Kind)
		assert.ErrorContains(t, first.Err, "certificate")
		assert.Zero(t, asked.Load())
	}
}

// A real Unix socket.
func TestHTTP_UnixSocket_H05(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: evenkeeltest.OK("a")}} //nolint:gosec // a test
	server.Start()
	t.Cleanup(server.Close)
	for _, p := range []health.Probe{health.HTTP{Port: 9}, health.TCP{Port: 9}} {
		changes := make(chan health.Change, 10)
		m, err := health.NewMonitor(health.Config{Check: &health.Check{Probe: p, Interval: 500 * time.Millisecond}, OnChange: func(c health.Change) { changes <- c }})
		require.NoError(t, err)
		_, err = m.Add(discovery.Endpoint{Address: "unix:" + path})
		require.NoError(t, err)
		assert.Equal(t, health.TurnedHealthy, (<-changes).Kind)
		m.Close()
	}
}

// A body without end is not read to its end, however fast or slow it comes, and what remains is closed.
func TestHTTP_EndlessBody_H05(t *testing.T) {
	for _, pause := range []time.Duration{0, 10 * time.Millisecond, time.Hour} {
		for _, p := range []health.HTTP{{}, {BodyMatch: "x"}, {Report: true}} {
			t.Run(fmt.Sprintf("%v %+v", pause, p), func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					var sent atomic.Int64
					s.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						piece := bytes.Repeat([]byte("x"), 1024)
						for r.Context().Err() == nil {
							n, err := w.Write(piece)
							sent.Add(int64(n))
							if err != nil {
								return
							}
							if pause > 0 {
								_ = http.NewResponseController(w).Flush()
								select {
								case <-time.After(pause):
								case <-r.Context().Done():
								}
							}
						}
					}))
					check := oneByOne(p)
					s.check(check)
					e := s.add("a:80")
					s.settle(30 * time.Second)
					probes := s.network.Dials("a:80")
					assert.Greater(t, probes, 4)
					assert.LessOrEqual(t, sent.Load(), int64(probes)*(1<<20), "what fits into buffers, and the bound")
					assert.LessOrEqual(t, e.Status().Took, 2*time.Second)
					s.settle(100 * time.Millisecond)
					e.Remove()
					s.settle(time.Second)
					s.network.AssertNoConns(t)
				})
			})
		}
	}
}

// What is compressed stays so: a gigabyte is a few megabytes, of which 64 KiB are read.
func TestHTTP_CompressedBomb_H05(t *testing.T) {
	t.Parallel()
	var member bytes.Buffer
	z := gzip.NewWriter(&member)
	_, err := z.Write(bytes.Repeat([]byte("healthy "), 1<<17))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	bomb := bytes.Repeat(member.Bytes(), 1<<10) // gzip files one after the other are one
	for _, p := range []health.HTTP{{BodyMatch: "healthy healthy"}, {Report: true}, {Header: http.Header{"Accept-Encoding": {"gzip"}}, BodyMatch: "healthy healthy"}} {
		inScene(t, func(t *testing.T, s *scene) {
			s.network.Serve("a:80", evenkeeltest.OK(string(bomb)).Header("Content-Encoding", "gzip").Header("Content-Type", "text/plain"))
			s.check(oneByOne(p))
			e := s.add("a:80")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s.settle(20 * time.Second)
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20))
			if p.BodyMatch != "" {
				assert.NotEqual(t, health.Healthy, e.Status().State, "what it means is not seen")
			}
		})
	}
}

// Headers without end are an error, soon enough.
func TestHTTP_HeaderBomb_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		var sent atomic.Int64
		s.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			line := []byte("X-" + strings.Repeat("y", 1000) + ": z\r\n")
			for {
				n, err := conn.Write(line)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}))
		check := oneByOne(health.HTTP{})
		check.Fall = 1
		s.check(check)
		e := s.add("a:80")
		s.settle(5 * time.Second)
		assert.Equal(t, health.Unhealthy, e.Status().State)
		assert.Error(t, e.Status().Err)
		assert.Less(t, sent.Load(), int64(64<<20))
		e.Remove()
		s.settle(time.Second)
		s.network.AssertNoConns(t)
	})
}

// Given a template that allows one connection, and a request that hangs on it, then probes go on
// nevertheless, by a connection of their own, which no request uses.
func TestProbes_ApartFromTheTraffic_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		server := s.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hang" {
				<-r.Context().Done()
			}
		}))
		s.check(oneByOne(health.HTTP{}))
		template := s.network.Transport()
		template.MaxConnsPerHost, template.MaxIdleConns, template.IdleConnTimeout = 1, 1, time.Second
		template.DisableKeepAlives = false
		tr := s.balance(balancer.Config{Template: template}, "a:80")
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://svc.example/hang", http.NoBody)
		require.NoError(t, err)
		done := make(chan error)
		go func() {
			_, err := tr.rt.RoundTrip(req)
			done <- err
		}()
		s.settle(60 * time.Second)
		assert.Equal(t, health.Healthy, s.status("a:80").State)
		assert.Equal(t, 2, server.OpenConns())
		cancel()
		require.Error(t, <-done)
		for range 10 {
			_, _, err := tr.get("http://svc.example/fast")
			require.NoError(t, err)
		}
		byPath := map[int]string{}
		for _, r := range server.Received() {
			if path, known := byPath[r.Conn]; known {
				assert.Equal(t, path, r.Path, "connection %d", r.Conn)
			}
			byPath[r.Conn] = r.Path
		}
	})
}

// Given an endpoint that turns unhealthy, then its idle data connections are closed, once, and those of
// others stay.
func TestUnhealthy_ClosesIdleConnections_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		ill := atomic.Bool{}
		a := &asked{answer: func(_ context.Context, address string) error {
			if address == "a:80" && ill.Load() {
				return assert.AnError
			}
			return nil
		}}
		servers := []*evenkeeltest.Server{s.network.Serve("a:80", evenkeeltest.OK("a").Delay(time.Second)), s.network.Serve("b:80", evenkeeltest.OK("b").Delay(time.Second))}
		s.check(oneByOne(a.probe()))
		tr := s.balance(balancer.Config{}, "a:80", "b:80")
		load := func(n int) {
			done := make(chan struct{})
			for range n {
				go func() {
					_, _, err := tr.get("http://svc.example/")
					assert.NoError(t, err)
					done <- struct{}{}
				}()
			}
			for range n {
				<-done
			}
		}
		load(20)
		require.Equal(t, 10, servers[0].OpenConns())
		require.Equal(t, 10, servers[1].OpenConns())
		ill.Store(true)
		for s.status("a:80").State != health.Unhealthy {
			require.Equal(t, 10, servers[0].OpenConns())
			s.settle(100 * time.Millisecond)
		}
		assert.Zero(t, servers[0].OpenConns())
		assert.Equal(t, 10, servers[1].OpenConns())

		load(10) // panic: half of the traffic goes there nevertheless, or not
		open := servers[0].OpenConns()
		s.settle(30 * time.Second) // probes go on failing
		assert.Equal(t, open, servers[0].OpenConns(), "it is closed when it turns unhealthy, and not each time")
	})
}

// The transports of the user's own are used for probes as well, one for each endpoint.
func TestProbes_TransportsOfTheUser_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		made, closed := map[string]int{}, atomic.Int64{}
		s.check(oneByOne(health.HTTP{Path: "/ready"}))
		var paths []string
		tr := s.balance(balancer.Config{EndpointTransport: func(e discovery.Endpoint) http.RoundTripper {
			made[e.Address]++
			return &ownTransport{closed: &closed, answer: func(r *http.Request) (*http.Response, error) {
				paths = append(paths, r.URL.String())
				if e.Address == "b:80" {
					panic("oops")
				}
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
			}}
		}}, "a:80", "b:80")
		s.settle(20 * time.Second)
		assert.Equal(t, map[string]int{"a:80": 1, "b:80": 1}, made)
		assert.Equal(t, health.Healthy, s.status("a:80").State)
		assert.Equal(t, health.Unhealthy, s.status("b:80").State)
		assert.ErrorContains(t, s.status("b:80").Err, "panicked: oops")
		assert.Contains(t, paths, "http://a:80/ready")
		tr.say("a:80")
		s.settle(0)
		assert.Equal(t, int64(1), closed.Load(), "its idle connections are closed")
	})
}

type ownTransport struct {
	closed *atomic.Int64
	answer func(*http.Request) (*http.Response, error)
}

func (o *ownTransport) RoundTrip(r *http.Request) (*http.Response, error) { return o.answer(r) }

func (o *ownTransport) CloseIdleConnections() { o.closed.Add(1) }

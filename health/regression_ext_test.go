package health_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
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
	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

// mute serves an address at which connections are accepted, and nothing is ever said.
func mute(t *testing.T, address string) *memnet.Network {
	t.Helper()
	network := memnet.New()
	listener, err := network.Listen(address)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, listener.Close()) })
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				_, _ = io.Copy(io.Discard, nc)
			}()
		}
	}()
	return network
}

// everySecond is a check whose probes are due each second whatever they find.
func everySecond(p health.Probe) health.Check {
	return health.Check{
		Probe: p, Interval: time.Second, Timeout: 500 * time.Millisecond, FastInterval: time.Second, DownInterval: time.Second,
		MaxDownInterval: time.Second, Jitter: health.Off, IdleInterval: health.Off,
	}
}

// Given a server that accepts connections and never ends the TLS handshake, and a template that does
// not bound it, then the connections and goroutines of a probe end with it: net/http goes on with the
// handshake for the next request, without end.
func TestProbes_HandshakeNeverEnds_H06(t *testing.T) {
	for name, probe := range map[string]health.Probe{"HTTP": health.HTTP{}, "HTTP, each anew": health.HTTP{NewConnections: true}, "GRPC": health.GRPC{}} {
		t.Run(name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				network := mute(t, "a:443")
				check := everySecond(probe)
				s.watch(health.Config{Check: &check, Target: "https://users", Transport: &http.Transport{DialContext: network.DialContext}})
				e := s.add("a:443")
				s.settle(10*time.Second + 750*time.Millisecond)
				require.Equal(t, health.Unhealthy, e.Status().State)
				dials, goroutines := network.Dials("a:443"), runtime.NumGoroutine()
				most := 0
				for range 600 {
					s.settle(100 * time.Millisecond)
					most = max(most, network.OpenConns("a:443"))
				}
				assert.InDelta(t, dials+40, network.Dials("a:443"), 2, "each takes half a second until it ends")
				assert.Equal(t, 1, most, "that of the probe under way")
				assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+5)
				s.monitor.Close()
				synctest.Wait()
				assert.Zero(t, network.OpenConns("a:443"))
			})
		})
	}
}

// Given a dialer that heeds no context, then a connection that it brings when its probe is over is closed
// at once, and no handshake begins.
func TestProbes_DialIsTooLate_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		network := mute(t, "a:443")
		check := everySecond(health.HTTP{})
		s.watch(health.Config{Check: &check, Target: "https://users", Transport: &http.Transport{
			DialContext: func(ctx context.Context, protocol, address string) (net.Conn, error) {
				time.Sleep(600 * time.Millisecond)
				return network.DialContext(context.WithoutCancel(ctx), protocol, address)
			},
		}})
		s.add("a:443")
		for range 300 {
			s.settle(100 * time.Millisecond)
			require.Zero(t, network.OpenConns("a:443"))
		}
		assert.GreaterOrEqual(t, network.Dials("a:443"), 15)
	})
}

// lossy dials connections whose bytes a firewall may drop, without a word, from some moment on.
type lossy struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	made []*lossyConn
}

func (l *lossy) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	made := &lossyConn{Conn: nc}
	l.made = append(l.made, made)
	return made, nil
}

// forget drops what is sent over the connections there are.
func (l *lossy) forget() {
	for _, nc := range l.made {
		nc.forgotten.Store(true)
	}
}

type lossyConn struct {
	net.Conn
	forgotten atomic.Bool
}

func (c *lossyConn) Write(p []byte) (int, error) {
	if c.forgotten.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Given a connection over which nothing arrives any more, because a firewall has forgotten it, while new
// ones work, then the probe that finds this out is the only one that fails: the next dials anew, and
// long before HTTP/2 would have sent a ping in vain.
func TestProbes_DeadConnection_H07(t *testing.T) {
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for name, row := range map[string]struct {
		probe     health.Probe
		protocol  evenkeeltest.Protocol
		protocols *http.Protocols
		target    string
	}{
		"HTTP/1.1":       {health.HTTP{}, evenkeeltest.HTTP1, nil, "http://users"},
		"HTTP/2":         {health.HTTP{}, evenkeeltest.H2C, h2c, "http://users"},
		"HTTP/2 and TLS": {health.HTTP{}, evenkeeltest.HTTPS, nil, "https://users"},
		"gRPC":           {health.GRPC{}, evenkeeltest.H2C, nil, "http://users"},
	} {
		t.Run(name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				server := s.network.Start(evenkeeltest.ServerConfig{Address: "a:443", Protocol: row.protocol, Handler: servingGRPC()})
				roads := &lossy{dial: s.network.DialContext}
				transport := &http.Transport{DialContext: roads.DialContext, Protocols: row.protocols, TLSClientConfig: s.network.ClientTLS(), ForceAttemptHTTP2: true}
				check := everySecond(row.probe)
				s.watch(health.Config{Check: &check, Target: row.target, Transport: transport})
				e := s.add("a:443")
				s.settle(5 * time.Second)
				require.Equal(t, health.Healthy, e.Status().State, "%v", e.Status().Err)
				require.Equal(t, 1, server.Dials(), "one connection for all")
				failed := 0
				for i := range 30 {
					if i == 5 || i == 10 {
						roads.forget()
					}
					s.settle(time.Second)
					if e.Status().Err != nil {
						failed++
					}
				}
				assert.Equal(t, 2, failed, "%v", e.Status().Err)
				assert.Equal(t, 3, server.Dials())
				assert.Equal(t, health.Healthy, e.Status().State)
				assert.LessOrEqual(t, server.OpenConns(), 1)
			})
		})
	}
}

// servingGRPC answers probes over HTTP with 200, and those over gRPC with SERVING.
func servingGRPC() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("Content-Type") != "application/grpc" {
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
		w.Header().Set("Grpc-Status", "0")
	})
}

// The same if it dies in the middle of an answer whose body is read.
func TestProbes_ConnectionDiesInTheAnswer_H07(t *testing.T) {
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for name, probe := range map[string]health.Probe{"HTTP": health.HTTP{BodyMatch: "ok"}, "gRPC": health.GRPC{}} {
		t.Run(name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				hang := atomic.Bool{}
				server := s.network.Start(evenkeeltest.ServerConfig{Address: "a:80", Protocol: evenkeeltest.H2C, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if hang.Swap(false) {
						w.Header().Set("Content-Type", "application/grpc")
						_ = http.NewResponseController(w).Flush()
						<-r.Context().Done()
						return
					}
					if name == "HTTP" {
						_, _ = io.WriteString(w, "ok")
						return
					}
					servingGRPC().ServeHTTP(w, r)
				})})
				check := everySecond(probe)
				s.watch(health.Config{Check: &check, Target: "http://users", Transport: &http.Transport{DialContext: s.network.DialContext, Protocols: h2c}})
				e := s.add("a:80")
				s.settle(5 * time.Second)
				require.Equal(t, health.Healthy, e.Status().State, "%v", e.Status().Err)
				require.Equal(t, 1, server.Dials())
				hang.Store(true)
				s.settle(3 * time.Second)
				assert.Equal(t, 2, server.Dials(), "it may be the connection")
				assert.NoError(t, e.Status().Err)
			})
		})
	}
}

// Given a server that closes a connection just when the next probe is sent over it, as one does whose
// keep-alive time is the interval of probes, then the probe goes over another connection, whatever its
// method: that it closes connections is nothing that is wrong with it.
func TestHTTP_ServerClosesIdleConnections_H05(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "CHECK"} {
		for _, key := range []string{"", "of the user"} {
			t.Run(method+" "+key, func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					n := atomic.Int64{}
					server := s.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if n.Add(1)%2 == 0 { // each connection serves one probe
							evenkeeltest.CloseAfter(0).ServeHTTP(w, r)
						}
					}))
					probe := health.HTTP{Method: method}
					if key != "" {
						probe.Header = http.Header{"Idempotency-Key": {key}}
					}
					s.check(everySecond(probe))
					e := s.add("a:80")
					for range 30 {
						s.settle(time.Second)
						require.NoError(t, e.Status().Err)
					}
					require.Equal(t, health.Healthy, e.Status().State)
					assert.Greater(t, server.Requests(), 50, "all but the first were sent twice")
					assert.Greater(t, server.Dials(), 25)
					for _, r := range server.Received() {
						if key == "" {
							assert.NotContains(t, r.Header, "Idempotency-Key", "nothing is sent")
							continue
						}
						assert.Equal(t, []string{key}, r.Header["Idempotency-Key"])
					}
				})
			})
		}
	}
}

// Given probes over HTTP/2 by transports of the user's own, when the endpoint leaves or the monitor is
// closed, in whatever state the probe under way, then no connection of theirs stays: nobody else would
// ever close it.
func TestProbes_OwnTransportsOfHTTP2_H06(t *testing.T) {
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for _, way := range []string{"removal", "Close"} {
		for _, state := range []string{"idle", "reading the body", "making the transport", "dialling"} {
			t.Run(way+" "+state, func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					hold := make(chan struct{})
					server := s.network.Start(evenkeeltest.ServerConfig{Address: "a:80", Protocol: evenkeeltest.H2C, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						switch state {
						case "reading the body":
							_ = http.NewResponseController(w).Flush()
							<-r.Context().Done()
						default:
							_, _ = io.WriteString(w, "ok")
						}
					})})
					check := everySecond(health.HTTP{BodyMatch: "ok"})
					check.Interval, check.Timeout = time.Hour, time.Hour
					s.check(check)
					tr := s.balance(balancer.Config{EndpointTransport: func(discovery.Endpoint) http.RoundTripper {
						if state == "making the transport" {
							<-hold
						}
						dial := s.network.DialContext
						if state == "dialling" {
							dial = func(ctx context.Context, network, address string) (net.Conn, error) {
								select {
								case <-hold:
								case <-ctx.Done():
								}
								return s.network.DialContext(ctx, network, address)
							}
						}
						return &http.Transport{DialContext: dial, Protocols: h2c}
					}}, "a:80")
					for range 61 {
						s.settle(time.Minute)
					}
					switch state {
					case "idle":
						require.Equal(t, health.Healthy, s.status("a:80").State, "%v", s.status("a:80").Err)
						require.Equal(t, 1, server.OpenConns())
					case "reading the body":
						require.Equal(t, 1, server.ActiveRequests())
					default:
						require.Zero(t, server.Dials())
					}
					if way == "removal" {
						tr.say()
					} else {
						s.monitor.Close()
					}
					synctest.Wait()
					close(hold)
					s.settle(time.Second)
					assert.Zero(t, server.OpenConns())
				})
			})
		}
	}
}

// Close waits for the probes of ours: also for one whose dial does not end when it should.
func TestClose_WaitsForProbes_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		dialling := atomic.Int64{}
		check := oneByOne(health.TCP{})
		check.Interval, check.Timeout = time.Hour, time.Hour
		s.watch(health.Config{Check: &check, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialling.Add(1)
			defer dialling.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Second)
			return nil, ctx.Err()
		}}})
		s.add("a:80")
		s.add("b:80")
		for dialling.Load() < 2 {
			s.settle(time.Minute)
		}
		start := time.Now()
		s.monitor.Close()
		assert.Zero(t, dialling.Load())
		assert.Equal(t, time.Second, time.Since(start))
	})
}

// A monitor that nobody tells of answers has no idle intervals: it is used for its probes only, and
// finds within a few of them that an endpoint is down, however long after the start.
func TestIdleInterval_NotWhereNobodyTellsOfTraffic(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		down := atomic.Bool{}
		a := &asked{answer: func(context.Context, string) error {
			if down.Load() {
				return assert.AnError
			}
			return nil
		}}
		s.check(health.Check{Probe: a.probe()})
		e := s.add("a:80")
		s.settle(10 * time.Minute)
		assert.InDelta(t, 120, a.count("a:80"), 12)
		down.Store(true)
		start := time.Now()
		for e.Available() {
			s.settle(100 * time.Millisecond)
		}
		assert.LessOrEqual(t, time.Since(start), 8*time.Second)
	})
}

// What is switched off is forgotten, and told: the result of the last probe, and that an endpoint which
// was down serves again. When the probe is another one, the connections of the old one go.
func TestUse_OffForgets_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		server := s.network.Start(evenkeeltest.ServerConfig{Address: "a:80", Handler: evenkeeltest.Status(500)})
		s.check(everySecond(health.HTTP{}))
		e := s.add("a:80")
		s.settle(10 * time.Second)
		require.False(t, e.Available())
		require.Equal(t, 1, server.OpenConns())
		s.use(nil)
		synctest.Wait()
		st := e.Status()
		assert.True(t, e.Available())
		assert.NoError(t, st.Err)
		assert.Zero(t, st.Probed)
		assert.Zero(t, st.Took)
		assert.Equal(t, health.Unknown, st.State)
		require.Equal(t, []string{"a:80 unhealthy", "a:80 unknown"}, s.journal.kinds())
		assert.NoError(t, s.journal.all()[1].Err)
		assert.Zero(t, server.OpenConns())

		for _, next := range []health.Probe{health.HTTP{}, health.TCP{}, health.HTTP{Path: "/ready"}, health.GRPC{}} {
			check := everySecond(next)
			before := server.Dials()
			s.use(&check)
			s.settle(3 * time.Second)
			assert.Greater(t, server.Dials(), before, "%T: over connections of its own", next)
		}
		check := everySecond(health.TCP{})
		s.use(&check)
		s.settle(10*time.Second + 500*time.Millisecond)
		assert.Zero(t, server.OpenConns(), "nobody uses them any more")
	})
}

package balancer

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

// wire is a pool whose endpoints are servers on a network in the test's bubble. The
// servers note which connections requests come by.
type wire struct {
	*testing.T
	network *evenkeeltest.Network
	proto   evenkeeltest.Protocol
	scheme  string
	p       *Pool
	rt      *Transport

	mu    sync.Mutex
	conns map[string]*lifetime // by the address of the client
	count map[string]int       // requests by server
}

// lifetime is when the first and the last request of a connection arrived.
type lifetime struct{ first, last time.Time }

// overEachProtocol runs a test for each.
func overEachProtocol(t *testing.T, f func(w *wire)) {
	t.Helper()
	for name, proto := range map[string]evenkeeltest.Protocol{
		"HTTP1": evenkeeltest.HTTP1, "HTTPS1": evenkeeltest.HTTPS1, "HTTP2": evenkeeltest.HTTPS, "h2c": evenkeeltest.H2C,
	} {
		t.Run(name, func(t *testing.T) { overProtocol(t, proto, f) })
	}
}

// overProtocol runs a test in a bubble.
func overProtocol(t *testing.T, proto evenkeeltest.Protocol, f func(w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{
			T: t, network: evenkeeltest.NewNetwork(t), proto: proto, scheme: "http",
			conns: map[string]*lifetime{}, count: map[string]int{},
		}
		if proto == evenkeeltest.HTTPS || proto == evenkeeltest.HTTPS1 {
			w.scheme = "https"
		}
		f(w)
	})
}

func (w *wire) http2() bool { return w.proto == evenkeeltest.HTTPS || w.proto == evenkeeltest.H2C }

// serve starts a server. The path says how long it takes to answer; a path of two
// parts, how long until the headers and until the end of the body.
func (w *wire) serve(name string) discovery.Endpoint {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		l := w.conns[r.RemoteAddr]
		if l == nil {
			l = &lifetime{first: time.Now()}
			w.conns[r.RemoteAddr] = l
		}
		l.last = time.Now()
		w.count[name]++
		w.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		parts := strings.Split(r.URL.Path[1:], "/")
		sleep(r.Context(), parts[0])
		rw.WriteHeader(http.StatusOK)
		if len(parts) > 1 {
			_ = http.NewResponseController(rw).Flush()
			sleep(r.Context(), parts[1])
		}
		_, _ = io.WriteString(rw, name)
	})
	return w.network.Start(evenkeeltest.ServerConfig{Address: name + ":80", Protocol: w.proto, Handler: handler}).Endpoint()
}

func sleep(ctx context.Context, duration string) {
	d, err := time.ParseDuration(duration)
	if err != nil {
		panic(err)
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (w *wire) use(cfg Config, endpoints ...discovery.Endpoint) {
	w.Helper()
	if cfg.EndpointTransport == nil {
		cfg.Template = w.network.Transport()
		if w.proto == evenkeeltest.H2C {
			cfg.Template = w.network.TransportH2C()
		}
		cfg.Template.IdleConnTimeout = 0 // for ever: what is left is left by us
	}
	w.p = testPool(w.T, cfg, endpoints...)
	w.rt = NewTransport(w.p, nil)
}

// get sends a request and returns its response, whose body is not read.
func (w *wire) get(path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.scheme+"://svc.example/"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return w.rt.RoundTrip(req)
}

// mustGet returns who answered.
func (w *wire) mustGet(path string) string {
	w.Helper()
	resp, err := w.get(path)
	require.NoError(w, err)
	return w.read(resp)
}

func (w *wire) read(resp *http.Response) string {
	w.Helper()
	body, err := io.ReadAll(resp.Body)
	assert.NoError(w, err)
	assert.NoError(w, resp.Body.Close())
	return string(body)
}

func (w *wire) open(e discovery.Endpoint) int {
	synctest.Wait()
	return w.network.OpenConns(e.Address)
}

// Given a maximum age of a minute, and a request every second for ten minutes, then
// none fails, none comes by a connection that is older, each connection is used for
// nine tenths of the time or more, and old ones are closed.
func TestMaxConnectionAge_OneAfterTheOther_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		const seed = 1
		w.Logf("seed %d", seed)
		w.use(Config{Rand: rand.NewPCG(seed, 0), Rules: Rules{MaxConnectionAge: time.Minute}}, e)
		for range 400 {
			w.mustGet("0s")
			require.Equal(w, 1, w.open(e), "the old one is closed")
			assert.Equal(w, 1, w.p.Status().Endpoints[0].Connections)
			time.Sleep(time.Second)
		}
		assert.InDelta(w, 7.5, w.network.Dials(e.Address), 0.6)
		different := map[time.Duration]bool{}
		for _, l := range w.conns {
			age := l.last.Sub(l.first)
			assert.LessOrEqual(w, age, time.Minute)
			if l.last.Before(time.Now().Add(-time.Minute)) {
				assert.GreaterOrEqual(w, age, 53*time.Second)
				different[age] = true
			}
		}
		assert.Greater(w, len(different), 1, "at random: %v", slices.Collect(maps.Keys(different)))
	})
}

// Without it, connections are used for ever.
func TestMaxConnectionAge_Off_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		w.use(Config{}, e)
		for range 100 {
			w.mustGet("0s")
			time.Sleep(time.Minute)
		}
		assert.Equal(w, 1, w.network.Dials(e.Address))

		require.NoError(w, w.p.Use(nil, Rules{MaxConnectionAge: time.Hour})) // it has long passed
		w.mustGet("0s")
		assert.Equal(w, 2, w.network.Dials(e.Address))
		assert.Equal(w, 1, w.open(e))
		require.NoError(w, w.p.Use(nil, Rules{}))
		for range 100 {
			time.Sleep(time.Minute)
			w.mustGet("0s")
		}
		assert.Equal(w, 2, w.network.Dials(e.Address))
	})
}

// Given many requests at once, some of which take longer than the age, then none
// fails, and no new one comes by an old connection. When all is over, one generation
// of connections is left.
func TestMaxConnectionAge_ManyAtOnce_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		const workers = 20
		w.use(Config{Rules: Rules{MaxConnectionAge: 10 * time.Second}}, e)
		var wg sync.WaitGroup
		for k := range workers {
			wg.Go(func() {
				for i := range 30 {
					path := fmt.Sprintf("%dms", (k*37+i*101)%900)
					if i%15 == k {
						path = "1s/15s"
					}
					resp, err := w.get(path)
					if assert.NoError(w, err) {
						assert.Equal(w, "a", w.read(resp))
					}
				}
			})
		}
		wg.Wait()
		for _, l := range w.conns {
			assert.LessOrEqual(w, l.last.Sub(l.first), 10*time.Second)
		}
		w.mustGet("0s")
		time.Sleep(retireInterval + 20*time.Second)
		w.mustGet("0s")
		time.Sleep(retireInterval)
		assert.Equal(w, 1, w.open(e))
		assert.Zero(w, inFlight(w.p))
		w.p.Close()
		assert.Zero(w, w.open(e))
	})
}

// A response that streams on for long is not cut; its connection gets no other
// request, and is closed when it is over.
func TestMaxConnectionAge_StreamGoesOn_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		w.use(Config{Rules: Rules{MaxConnectionAge: time.Minute}}, e)
		stream, err := w.get("0s/10m")
		require.NoError(w, err)
		w.mustGet("0s")
		for range 20 {
			time.Sleep(20 * time.Second)
			w.mustGet("0s")
			if w.http2() {
				require.LessOrEqual(w, w.open(e), 2, "the stream's and the present one")
			}
		}
		assert.Equal(w, "a", w.read(stream))
		time.Sleep(retireInterval)
		assert.Equal(w, 1, w.open(e))
	})
}

// An upload, too.
func TestMaxConnectionAge_UploadGoesOn_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		w.use(Config{Rules: Rules{MaxConnectionAge: time.Minute}}, e)
		w.mustGet("0s")
		body, writer := io.Pipe()
		req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.scheme+"://svc.example/0s", body)
		require.NoError(w, err)
		done := make(chan string)
		go func() {
			resp, err := w.rt.RoundTrip(req)
			if !assert.NoError(w, err) {
				close(done)
				return
			}
			done <- w.read(resp)
		}()
		for range 10 {
			_, err := io.WriteString(writer, "a part of it")
			require.NoError(w, err)
			time.Sleep(30 * time.Second)
			w.mustGet("0s")
		}
		require.NoError(w, writer.Close())
		assert.Equal(w, "a", <-done)
		time.Sleep(retireInterval)
		assert.Equal(w, 1, w.open(e))
	})
}

// Given a connection that is still being made when its age is over, then it is closed
// once its request has ended, like any other.
func TestMaxConnectionAge_DialIsUnderWay_B13(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		e := w.serve("a")
		w.network.SetLatency(e.Address, time.Second)
		w.use(Config{Rules: Rules{MaxConnectionAge: time.Second}}, e)
		done := make(chan string, 2)
		go func() { done <- w.mustGet("0s") }()
		time.Sleep(1500 * time.Millisecond)
		go func() { done <- w.mustGet("0s") }()
		<-done
		<-done
		time.Sleep(time.Minute)
		w.network.SetLatency(e.Address, 0)
		w.mustGet("0s")
		time.Sleep(2 * retireInterval)
		assert.Equal(w, 1, w.open(e), "of %d", w.network.Dials(e.Address))
	})
}

// When the endpoint leaves, its old connections end with it, and when the pool is
// closed, nothing is left that would happen later.
func TestMaxConnectionAge_LeavesNothing_T18(t *testing.T) {
	overEachProtocol(t, func(w *wire) {
		a, b := w.serve("a"), w.serve("b")
		fake := clock.NewFake(epoch)
		w.use(Config{Algorithm: RoundRobin{}, Clock: fake, Rules: Rules{MaxConnectionAge: time.Minute}, DrainTimeout: -1}, a, b)
		idle := fake.Pending()
		streams := []*http.Response{}
		for range 2 {
			stream, err := w.get("0s/1h")
			require.NoError(w, err)
			streams = append(streams, stream)
		}
		fake.Advance(time.Minute)
		w.mustGet("0s")
		w.mustGet("0s")
		assert.Equal(w, idle+2, fake.Pending(), "old connections of both are looked after")
		fake.Advance(10 * time.Second)
		assert.Equal(w, idle+2, fake.Pending())
		assert.Equal(w, 2, w.open(a))

		w.p.update([]discovery.Endpoint{b})
		time.Sleep(time.Hour) // of the servers
		for _, stream := range streams {
			w.read(stream)
		}
		assert.Zero(w, w.open(a), "it has left, and its last request has ended")
		fake.Advance(2 * retireInterval)
		assert.Equal(w, 1, w.open(b))
		assert.Equal(w, idle, fake.Pending())

		stream, err := w.get("0s/1h")
		require.NoError(w, err)
		fake.Advance(time.Hour)
		w.mustGet("0s")
		assert.Equal(w, idle+1, fake.Pending())
		w.p.Close()
		assert.Zero(w, fake.Pending())
		time.Sleep(time.Hour)
		assert.Equal(w, "b", w.read(stream), "what is under way goes on")
		assert.Zero(w, w.open(b))
		assert.Zero(w, fake.Pending())
	})
}

// It has no effect on what the user makes himself.
func TestMaxConnectionAge_NotForTransportsOfTheUser(t *testing.T) {
	made := 0
	fake := clock.NewFake(epoch)
	p := testPool(t, Config{
		Clock: fake, Rules: Rules{MaxConnectionAge: time.Second},
		EndpointTransport: func(discovery.Endpoint) http.RoundTripper { made++; return &closable{} },
	}, addresses("a")...)
	for range 3 {
		pick := mustPick(t, p, Info{})
		_, err := pick.Transport().RoundTrip(&http.Request{})
		require.NoError(t, err)
		pick.Done()
		fake.Advance(time.Minute)
	}
	assert.Equal(t, 1, made)
}

// Given HTTP/2 and three endpoints under load, when a fourth joins, then requests are
// spread over all of them, give or take a tenth: who has a connection already has no
// advantage.
func TestHTTP2_NewEndpointGetsItsShare_B13(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin{}, LeastRequest{}, PeakEWMA{}} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			overProtocol(t, evenkeeltest.H2C, func(w *wire) {
				endpoints := []discovery.Endpoint{w.serve("a"), w.serve("b"), w.serve("c"), w.serve("d")}
				w.use(Config{Algorithm: a, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, endpoints[:3]...)
				const workers, calls = 10, 100
				load := func(calls int) {
					var wg sync.WaitGroup
					for k := range workers {
						wg.Go(func() {
							for i := range calls {
								resp, err := w.get(fmt.Sprintf("%dms", 5+(k+i*7)%10))
								if assert.NoError(w, err) {
									w.read(resp)
								}
							}
						})
					}
					wg.Wait()
				}
				load(10)
				go func() {
					time.Sleep(20 * time.Millisecond)
					w.p.update(endpoints)
				}()
				load(10)
				clear(w.count)
				load(calls)
				for _, name := range []string{"a", "b", "c", "d"} {
					assert.InDelta(w, workers*calls/4, w.count[name], workers*calls/4/10, "%s: %v", name, w.count)
				}
				for _, e := range endpoints {
					assert.Equal(w, 1, w.open(e), "connections")
				}
			})
		})
	}
}

package health_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// scene is a bubble with a network and a monitor, which is closed before the bubble ends: that makes
// every test here one for leaks.
type scene struct {
	*testing.T
	network *evenkeeltest.Network
	monitor *health.Monitor
	start   time.Time
	journal eventLog
}

// inScene runs a test in a bubble of its own.
func inScene(t *testing.T, f func(t *testing.T, s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, &scene{T: t, network: evenkeeltest.NewNetwork(t), start: time.Now()})
	})
}

// watch makes the monitor of the scene. Nothing is ejected unless the configuration says so.
func (s *scene) watch(cfg health.Config) *health.Monitor {
	s.Helper()
	if cfg.Outlier == (health.Outlier{}) {
		cfg.Outlier.Disabled = true
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.NewPCG(1, 2)
	}
	if cfg.Transport == nil {
		cfg.Transport = s.network.Transport()
	}
	if cfg.OnChange == nil {
		cfg.OnChange = s.journal.note
	}
	m, err := health.NewMonitor(cfg)
	require.NoError(s, err)
	s.Cleanup(m.Close)
	s.monitor = m
	return m
}

// check makes a monitor that only probes.
func (s *scene) check(c health.Check) *health.Monitor {
	s.Helper()
	return s.watch(health.Config{Check: &c})
}

// use brings the monitor under another check, nil for none.
func (s *scene) use(c *health.Check) {
	s.Helper()
	require.NoError(s, s.monitor.Use(health.Config{Check: c, Outlier: health.Outlier{Disabled: true}}))
}

func (s *scene) add(address string) *health.Member {
	s.Helper()
	e, err := s.monitor.Add(discovery.Endpoint{Address: address})
	require.NoError(s, err)
	return e
}

// elapsed is the time since the scene began.
func (s *scene) elapsed() time.Duration { return time.Since(s.start) }

// settle lets d pass, and all that is due by then happen.
func (s *scene) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// status returns what the monitor knows of an endpoint.
func (s *scene) status(address string) health.Status {
	s.Helper()
	for _, st := range s.monitor.Status() {
		if st.Endpoint.Address == address {
			return st
		}
	}
	require.Fail(s, "not watched", address)
	return health.Status{}
}

// eventLog keeps the changes that it is told of.
type eventLog struct {
	mu   sync.Mutex
	list []health.Change
}

func (l *eventLog) note(c health.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, c)
}

func (l *eventLog) all() []health.Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// kinds returns the changes as text: "a:80 unhealthy".
func (l *eventLog) kinds() []string {
	texts := []string{}
	for _, c := range l.all() {
		texts = append(texts, c.Endpoint.Address+" "+c.Kind.String())
	}
	return texts
}

// asked is a probe that keeps account of when it was called, for whom, and how often at once.
type asked struct {
	answer func(ctx context.Context, address string) error // nil is good

	mu        sync.Mutex
	at        map[string][]time.Time
	now, most int
}

func (a *asked) probe() health.Func {
	return func(ctx context.Context, e discovery.Endpoint) error {
		a.mu.Lock()
		if a.at == nil {
			a.at = map[string][]time.Time{}
		}
		a.at[e.Address] = append(a.at[e.Address], time.Now())
		a.now++
		a.most = max(a.most, a.now)
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.now--
		}()
		if a.answer == nil {
			return nil
		}
		return a.answer(ctx, e.Address)
	}
}

func (a *asked) times(address string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.at[address])
}

func (a *asked) count(address string) int { return len(a.times(address)) }

// total returns how many probes there were at all.
func (a *asked) total() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.at {
		n += len(at)
	}
	return n
}

// atOnce returns how many are under way, and how many were at most.
func (a *asked) atOnce() (now, most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now, a.most
}

// gaps returns the times between one instant and the next.
func gaps(at []time.Time) []time.Duration {
	var between []time.Duration
	for i := 1; i < len(at); i++ {
		between = append(between, at[i].Sub(at[i-1]))
	}
	return between
}

// assertAbout checks times that are jittered by a tenth.
func assertAbout(t testing.TB, want []time.Duration, got []time.Duration) {
	t.Helper()
	if !assert.Len(t, got, len(want), "%v", got) {
		return
	}
	for i := range want {
		assert.InDelta(t, want[i].Seconds(), got[i].Seconds(), want[i].Seconds()*0.1+1e-6, "%d of %v", i, got)
	}
}

// hang waits for the end of its context.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// source is a resolver that the test tells what to say.
type source struct{ sets chan []discovery.Endpoint }

func newSource(first ...string) *source {
	r := &source{make(chan []discovery.Endpoint, 1)}
	r.say(first...)
	return r
}

// say makes the endpoints those that are given.
func (r *source) say(addresses ...string) {
	set := []discovery.Endpoint{}
	for _, a := range addresses {
		set = append(set, discovery.Endpoint{Address: a})
	}
	r.sets <- set
}

// Watch implements [discovery.Resolver].
func (r *source) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case set := <-r.sets:
			sink.Update(set, nil)
		case <-sink.Refresh:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// traffic is a pool whose endpoints the scene's monitor watches.
type traffic struct {
	*scene
	*source
	pool *balancer.Pool
	rt   *balancer.Transport
}

// balance makes a pool of the addresses.
func (s *scene) balance(cfg balancer.Config, addresses ...string) *traffic {
	s.Helper()
	tr := &traffic{scene: s, source: newSource(addresses...)}
	cfg.Resolver, cfg.Health = discovery.LastGood{Resolver: tr.source, EmptyGrace: -1}, s.monitor
	if cfg.Template == nil && cfg.EndpointTransport == nil {
		cfg.Template = s.network.Transport()
	}
	if cfg.Algorithm == nil {
		cfg.Algorithm = balancer.RoundRobin{}
	}
	pool, err := balancer.NewPool(cfg)
	require.NoError(s, err)
	s.Cleanup(pool.Close)
	tr.pool, tr.rt = pool, balancer.NewTransport(pool, nil)
	synctest.Wait()
	return tr
}

// get returns the status and the body of an answer.
func (tr *traffic) get(url string) (int, string, error) {
	req, err := http.NewRequestWithContext(tr.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := tr.rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// share returns how many of n requests each endpoint has answered, by the body.
func (tr *traffic) share(n int) map[string]int {
	tr.Helper()
	got := map[string]int{}
	for range n {
		_, body, err := tr.get("http://svc.example/")
		if err != nil {
			body = err.Error()
		}
		got[body]++
	}
	return got
}

// unavailable returns why an endpoint is not picked, empty if it is.
func (tr *traffic) unavailable(address string) string {
	tr.Helper()
	for _, e := range tr.pool.Status().Endpoints {
		if e.Endpoint.Address == address {
			return e.Unavailable
		}
	}
	return "not in the pool"
}

func succeeded() outcome.Answer {
	return outcome.Answer{Class: outcome.Success, Status: http.StatusOK, Took: time.Millisecond, Connected: true}
}

func failure() outcome.Answer {
	return outcome.Answer{Class: outcome.Failure, Status: http.StatusInternalServerError, Took: time.Millisecond, Connected: true}
}

// slots counts instants by the tenth of a second after a start in which they are.
func slots(at []time.Time, start time.Time, n int) []int {
	counts := make([]int, n)
	for _, instant := range at {
		if since := instant.Sub(start); since >= 0 && since < time.Duration(n)*100*time.Millisecond {
			counts[since/(100*time.Millisecond)]++
		}
	}
	return counts
}

// assertSpread fails if any slot has more than three times the mean.
func assertSpread(t testing.TB, counts []int, what string) {
	t.Helper()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	mean := float64(sum) / float64(len(counts))
	require.Greater(t, mean, 3.0, "%s: enough to judge", what)
	assert.LessOrEqual(t, float64(slices.Max(counts)), 3*mean, "%s: mean %.1f, %v", what, mean, counts)
}

func name(i int) string { return fmt.Sprintf("e%d:80", i) }

package evenkeel_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
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
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// What a server of a ward does instead of answering with a status.
const (
	resets = -1
	hangs  = -2
	often  = -3 // 503 to 30 % of the requests
)

// patient is a server whose probes are answered apart from its traffic.
type patient struct {
	*evenkeeltest.Server
	name           string
	traffic, probe atomic.Int32 // the status that it answers with, 0 for 200, or one of the above
	calls, probes  atomic.Int32 // how many it got
}

func (p *patient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, n := p.traffic.Load(), int32(0)
	if strings.HasPrefix(r.URL.Path, "/health") {
		status = p.probe.Load()
		p.probes.Add(1)
	} else {
		n = p.calls.Add(1)
	}
	switch {
	case status == resets:
		evenkeeltest.ResetAfter(0).ServeHTTP(w, r)
	case status == hangs:
		evenkeeltest.Hang().ServeHTTP(w, r)
	case status == often && n*7%10 < 3:
		evenkeeltest.Status(503).ServeHTTP(w, r)
	case status > 0:
		evenkeeltest.Status(int(status)).Body("sorry").ServeHTTP(w, r)
	default:
		evenkeeltest.OK(p.name).ServeHTTP(w, r)
	}
}

// ward is a fleet of patients.
type ward struct {
	*fleet
	list    discovery.List
	of      map[string]*patient
	history struct {
		sync.Mutex
		changes []health.Change
		panics  int // of the pool
	}
}

// serveWard makes no transport yet.
func serveWard(t *testing.T, names ...string) *ward {
	t.Helper()
	w := &ward{fleet: bare(t), of: map[string]*patient{}}
	for _, name := range names {
		p := &patient{name: name}
		p.Server = w.network.Serve(name+":80", p)
		w.servers, w.of[name] = append(w.servers, p.Server), p
		w.list = append(w.list, p.Endpoint())
	}
	return w
}

// newWard makes a transport without breakers and retries, that picks in turn and starts nobody
// slowly, unless the options say otherwise.
func newWard(t *testing.T, names []string, options ...evenkeel.Option) *ward {
	t.Helper()
	w := serveWard(t, names...)
	w.begin(options...)
	return w
}

func (w *ward) begin(options ...evenkeel.Option) {
	w.Helper()
	w.use(append([]evenkeel.Option{
		evenkeel.WithResolver(w.list), noBreaker, evenkeel.WithHooks(w.hooks()), evenkeel.WithRand(seeded(w.T, 1)),
	}, options...)...)
	require.NoError(w, w.Ready(w.Context()))
}

var noBreaker = evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled})

func (w *ward) hooks() evenkeel.Hooks {
	return evenkeel.Hooks{
		Health: func(c health.Change) {
			w.history.Lock()
			defer w.history.Unlock()
			w.history.changes = append(w.history.changes, c)
		},
		Endpoints: func(c balancer.Change) {
			w.history.Lock()
			defer w.history.Unlock()
			if c.Panic {
				w.history.panics++
			}
		},
	}
}

// events returns what was told of health, as text without instants, since it was last asked.
func (w *ward) events() (list []string) {
	synctest.Wait()
	w.history.Lock()
	defer w.history.Unlock()
	for _, c := range w.history.changes {
		text := strings.TrimSuffix(c.Endpoint.Address, ":80") + " " + c.Kind.String()
		if c.Cause != "" {
			text += ", " + string(c.Cause)
		}
		list = append(list, text)
	}
	w.history.changes = nil
	return list
}

// panics returns how many changes of the pool have spoken of panic.
func (w *ward) panics() int {
	synctest.Wait()
	w.history.Lock()
	defer w.history.Unlock()
	return w.history.panics
}

// health returns what is known of an endpoint.
func (w *ward) health(name string) health.Status {
	w.Helper()
	for _, s := range w.Stats().Health {
		if s.Endpoint.Address == name+":80" {
			return s
		}
	}
	require.Fail(w, "nothing is known", name)
	return health.Status{}
}

// reasons returns why an endpoint gets no traffic.
func (w *ward) reasons(name string) string {
	w.Helper()
	synctest.Wait()
	for _, e := range w.Stats().Pool.Endpoints {
		if e.Endpoint.Address == name+":80" {
			return e.Unavailable
		}
	}
	require.Fail(w, "not in the pool", name)
	return ""
}

// step is how exactly until looks.
const step = 50 * time.Millisecond

// until lets time pass, and calls if there are to be any, until the condition holds.
func (w *ward) until(limit time.Duration, calls int, condition func() bool) (took time.Duration) {
	w.Helper()
	start := time.Now()
	for synctest.Wait(); !condition(); synctest.Wait() {
		require.LessOrEqual(w, time.Since(start), limit, "in vain")
		w.calls(calls)
		time.Sleep(step)
	}
	return time.Since(start)
}

func (w *ward) isAway(name string) func() bool { return func() bool { return w.reasons(name) != "" } }

func (w *ward) isBack(name string) func() bool { return func() bool { return w.reasons(name) == "" } }

// as many as it takes to be ejected, for exactly 10 s the first time.
var brisk = health.Outlier{ConsecutiveFailures: 5, LocalFailures: 5, EjectFor: 10 * time.Second, Jitter: health.Off}

// keenCheck finds within 3 s that an endpoint is down, and within 2 s that it is up.
var keenCheck = health.Check{
	Interval: time.Second, Timeout: 500 * time.Millisecond, FastInterval: time.Second, DownInterval: time.Second,
	MaxDownInterval: time.Second, Jitter: health.Off, IdleInterval: health.Off, IgnoreTraffic: true,
}

// Outlier detection is on, probes are off. Rows of failures are left to the breakers, where there
// are some that count them; where there are none, five are enough. What was set stays.
func TestHealth_Defaults(t *testing.T) {
	for _, row := range []struct {
		name         string
		breaker      breaker.Config
		outlier      health.Outlier
		rows, lost   int
		gateway      int
		nothingAtAll bool
	}{
		{"New", breaker.Config{}, health.Outlier{}, 0, 0, health.Off, false},
		{"no breakers", breaker.Config{Mode: breaker.Disabled}, health.Outlier{}, 5, 5, health.Off, false},
		{"breakers that only count", breaker.Config{Mode: breaker.MetricsOnly}, health.Outlier{}, 5, 5, health.Off, false},
		{"breakers without rows", breaker.Config{ConsecutiveFailures: breaker.Off}, health.Outlier{}, 5, 5, health.Off, false},
		{"breakers with other rows", breaker.Config{ConsecutiveFailures: 50}, health.Outlier{}, 0, 0, health.Off, false},
		{"set beside breakers", breaker.Config{}, health.Outlier{ConsecutiveFailures: 7, LocalFailures: 8, GatewayFailures: 9}, 7, 8, 9, false},
		{"one set beside breakers", breaker.Config{}, health.Outlier{LocalFailures: 8}, 0, 8, health.Off, false},
		{"set", breaker.Config{Mode: breaker.Disabled}, health.Outlier{ConsecutiveFailures: 7, LocalFailures: health.Off}, 7, health.Off, health.Off, false},
		{"switched off", breaker.Config{}, health.Outlier{Disabled: true}, 0, 0, health.Off, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, []string{"a", "b"}, evenkeel.WithBreaker(row.breaker), evenkeel.WithOutlierDetection(row.outlier))
				check := func() {
					t.Helper()
					c := w.Config()
					assert.Nil(t, c.HealthCheck)
					o := c.Outlier
					assert.Equal(t, []int{row.rows, row.lost, row.gateway}, []int{o.ConsecutiveFailures, o.LocalFailures, o.GatewayFailures})
					assert.Equal(t, row.nothingAtAll, o.Disabled)
					o.ConsecutiveFailures, o.LocalFailures, o.GatewayFailures, o.Disabled = health.Off, health.Off, health.Off, false
					assert.Equal(t, health.Outlier{
						Enforce: 1, ConsecutiveFailures: health.Off, LocalFailures: health.Off, GatewayFailures: health.Off,
						Deviation: 0.05, FalseAlarms: 0.001, SlowerByTime: 50 * time.Millisecond, Interval: 10 * time.Second,
						EjectFor: 30 * time.Second, MaxEjectFor: 5 * time.Minute, Jitter: 0.25, MaxEjected: 0.5,
					}, o)
				}
				check()
				before := w.Config()
				require.NoError(t, w.Update(before))
				assert.Equal(t, before, w.Config(), "what Config returns can be applied")
				check()
				time.Sleep(5 * time.Minute)
				for _, name := range []string{"a", "b"} {
					assert.Zero(t, w.of[name].probes.Load())
					s := w.health(name)
					assert.Equal(t, health.Status{Endpoint: s.Endpoint}, s)
				}
				require.NoError(t, w.Update(evenkeel.Config{Breaker: row.breaker, Outlier: row.outlier}))
				check()
				c := w.Config() // what was left to breakers is not, when there are none any more
				c.Breaker.Mode = breaker.Disabled
				require.NoError(t, w.Update(c))
				o := w.Config().Outlier
				assert.Equal(t, cmp.Or(row.rows, 5), o.ConsecutiveFailures)
				assert.Equal(t, cmp.Or(row.lost, 5), o.LocalFailures)
			})
		})
	}
}

// The zero Check is the one that is documented, and probes once it is there, as New and Update
// are told.
func TestHealth_DefaultCheck(t *testing.T) {
	want := health.Check{
		Probe: health.HTTP{}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, FastInterval: time.Second,
		DownInterval: time.Second, MaxDownInterval: 20 * time.Second, IdleInterval: time.Minute, Jitter: 0.1, MaxConcurrent: 128,
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, []string{"a"}, evenkeel.WithHealthCheck(health.Check{}))
		assert.Equal(t, &want, w.Config().HealthCheck)
		require.NoError(t, w.Update(w.Config()))
		assert.Equal(t, &want, w.Config().HealthCheck)
		took := w.until(5*time.Second, 0, func() bool { return w.of["a"].probes.Load() > 0 })
		t.Logf("first probe after %v", took)
		assert.Equal(t, health.Healthy, w.health("a").State)
		r := w.servers[0].Received()[0]
		assert.Equal(t, "GET /health", r.Method+" "+r.Path)

		require.NoError(t, w.Update(evenkeel.Config{}))
		assert.Nil(t, w.Config().HealthCheck)
		assert.Equal(t, health.Unknown, w.health("a").State)
		had := w.of["a"].probes.Load()
		time.Sleep(10 * time.Minute)
		assert.Equal(t, had, w.of["a"].probes.Load())
	})
}

// attempts counts those at each endpoint, and tells by what a call began.
type attempts struct {
	counter
	mu    sync.Mutex
	first map[string]int
}

func (a *attempts) hook(at evenkeel.Attempt) {
	a.add(at.Endpoint.Address)
	if at.Number == 1 {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.first[at.Endpoint.Address]++
	}
}

func (a *attempts) firsts(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first[name+":80"]
}

// Given A whose dials never end, then five attempts find that out, each of which is repeated
// elsewhere; no other call is begun there until the ejection ends. The next ones find it out anew,
// for longer, and when A is back, it serves.
func TestHealth_BlackHoleIsLearnt_B08_B11(t *testing.T) {
	for name, limit := range map[string]evenkeel.Option{
		"per attempt": evenkeel.WithRetry(retry.Policy{PerAttemptTimeout: time.Second}),
		"template":    evenkeel.WithRetry(retry.Policy{}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := &attempts{first: map[string]int{}}
				w := serveWard(t, "a", "b", "c")
				template := w.network.Transport()
				if name == "template" {
					template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						ctx, cancel := context.WithTimeout(ctx, time.Second)
						defer cancel()
						return w.network.DialContext(ctx, network, address)
					}
				}
				hooks := w.hooks()
				hooks.Attempt = told.hook
				w.begin(limit, evenkeel.WithTransport(template), evenkeel.WithHooks(hooks), evenkeel.WithOutlierDetection(brisk))
				w.network.BlackHole("a:80")

				for round, lasts := range []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second} {
					before := told.firsts("a")
					for i := 0; w.health("a").Ejected == ""; i++ {
						require.Less(t, i, 100)
						_, err := w.call()
						require.NoError(t, err)
					}
					assert.Equal(t, 5, told.firsts("a")-before, "round %d", round)
					s := w.health("a")
					assert.Equal(t, health.LocalFailures, s.Ejected)
					assert.Equal(t, lasts, time.Until(s.Until))
					assert.Equal(t, "ejected", w.reasons("a"))
					all, dials := told.get("a:80"), w.network.Dials("a:80")
					for time.Now().Before(s.Until) {
						assert.Equal(t, map[string]int{"b": 1, "c": 1}, w.calls(2))
						time.Sleep(100 * time.Millisecond)
					}
					assert.Equal(t, all, told.get("a:80"))
					assert.Equal(t, dials, w.network.Dials("a:80"))
					assert.Empty(t, w.reasons("a"))
				}
				w.network.Heal("a:80")
				assert.Equal(t, map[string]int{"a": 10, "b": 10, "c": 10}, w.calls(30))
				assert.Zero(t, w.Stats().Failed)
				w.idle()
			})
		})
	}
}

// The whole stack as it is by default: the breaker does the same, without an ejection, and the
// attempts at the black hole are its five and its probes.
func TestHealth_BlackHoleByDefault_B08(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serveWard(t, "a", "b", "c")
		told := &attempts{first: map[string]int{}}
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(w.list), evenkeel.WithTransport(w.network.Transport()),
			evenkeel.WithBalancer(balancer.RoundRobin{}), evenkeel.WithRetry(retry.Policy{PerAttemptTimeout: time.Second}),
			evenkeel.WithHooks(evenkeel.Hooks{Attempt: told.hook}), evenkeel.WithRand(seeded(t, 3)))
		require.NoError(t, err)
		defer tr.Close()
		w.Transport = tr
		require.NoError(t, w.Ready(t.Context()))
		w.calls(9)
		w.network.Reset("a:80")
		w.network.BlackHole("a:80")
		had := told.get("a:80")
		for range 600 { // a minute and more
			who, err := w.call()
			require.NoError(t, err)
			assert.NotEqual(t, "a", who)
			time.Sleep(100 * time.Millisecond)
		}
		// five, then three probes at most after 5, 10, 20 and 40 s and a bit
		assert.GreaterOrEqual(t, told.get("a:80")-had, 5+3)
		assert.LessOrEqual(t, told.get("a:80")-had, 5+3*4)
		assert.Zero(t, w.Stats().Failed)
		assert.Zero(t, w.health("a").Ejections)
		w.network.Heal("a:80")
		took := w.until(2*time.Minute, 1, func() bool { return w.state("a").State == breaker.Closed })
		t.Logf("back after %v", took)
	})
}

// keyed makes a call for a user.
func (w *ward) keyed(user int) (string, error) {
	w.Helper()
	req := getRequest(w, "http://users/")
	req.Header.Set("X-User", fmt.Sprint(user))
	return w.send(req)
}

// Given one endpoint of three that fails in any of the ways, then whatever picks, traffic leaves it
// and returns when it is well; no key moves that was not its; and no call fails that a retry may
// repeat. A 500 is not repeated by default.
func TestHealth_LeavesAndReturns_B08_B11_B16(t *testing.T) {
	keys := []balancer.HashKey{{Header: "X-User"}}
	algorithms := map[string]balancer.Algorithm{
		"round robin": balancer.RoundRobin{}, "ring": balancer.RingHash{Keys: keys},
		"maglev": balancer.Maglev{Keys: keys, TableSize: 251}, "peak EWMA": balancer.PeakEWMA{},
	}
	for name, algorithm := range algorithms {
		for way, status := range map[string]int32{"500": 500, "resets": resets, "30 percent": often} {
			t.Run(name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWard(t, []string{"a", "b", "c"}, evenkeel.WithBalancer(algorithm), evenkeel.WithRetry(retry.Policy{}),
						evenkeel.WithOutlierDetection(health.Outlier{Jitter: health.Off}), evenkeel.WithRules(balancer.Rules{}))
					const users = 30
					owner := map[int]string{}
					round := func(mayFail bool) (got map[string]int) {
						got = map[string]int{}
						for user := range users {
							who, err := w.keyed(user)
							if !mayFail {
								require.NoError(t, err)
								require.NotContains(t, "500 503", who)
							}
							got[who]++
							if strings.HasPrefix(name, "r") && name != "round robin" || name == "maglev" {
								if owner[user] == "" {
									owner[user] = who
								}
								if owner[user] != "a" {
									assert.Equal(t, owner[user], who, "user %d", user)
								}
							}
						}
						return got
					}
					time.Sleep(31 * time.Second) // nobody is new
					assert.Len(t, round(false), 3)
					w.of["a"].traffic.Store(status)
					start := time.Now()
					for w.health("a").Ejected == "" {
						require.Less(t, time.Since(start), 3*time.Minute, "it is not found out")
						round(way == "500")
						time.Sleep(time.Second)
						synctest.Wait() // the look at the rates may be at this very moment
					}
					t.Logf("left after %v: %s", time.Since(start), w.health("a").Ejected)
					if name != "peak EWMA" { // which asks it seldom
						assert.LessOrEqual(t, time.Since(start), 20*time.Second, "two sweeps")
					}
					w.of["a"].traffic.Store(0)
					had, until := w.of["a"].calls.Load(), w.health("a").Until
					for time.Until(until) > time.Second { // a round with retries takes a while, too
						assert.Zero(t, round(false)["a"])
						time.Sleep(time.Second)
					}
					assert.Equal(t, had, w.of["a"].calls.Load())
					time.Sleep(time.Until(until))
					synctest.Wait()
					require.Empty(t, w.reasons("a"))
					got := round(false)["a"] + round(false)["a"]
					switch {
					case len(owner) > 0:
						assert.Equal(t, 2*len(slices.DeleteFunc(slices.Collect(maps.Values(owner)), func(o string) bool { return o != "a" })), got)
					case name == "round robin":
						assert.Positive(t, got)
						assert.LessOrEqual(t, got, 6, "it begins slowly: with a tenth of a share of 20")
					}
					time.Sleep(40 * time.Second)
					got = 0
					for range 5 {
						got += round(false)["a"]
						time.Sleep(100 * time.Millisecond)
					}
					if len(owner) == 0 {
						assert.InDelta(t, 5*users/3, got, 25)
					}
					assert.EqualValues(t, 1, w.health("a").Ejections)
					w.idle()
				})
			})
		}
	}
}

// Given that all fail, then at most half of them are ejected at any moment, by number and by
// weight, a single one never is, and there is no panic.
func TestHealth_AllFail_B10(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1}, {3, 1}, {1, 3, 1, 1}, {5, 1, 1, 1, 1, 1}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var names []string
				total := 0
				for i, weight := range weights {
					names, total = append(names, string(rune('a'+i))), total+weight
				}
				w := serveWard(t, names...)
				for i := range w.list {
					w.list[i].Weight = float64(weights[i])
					w.of[names[i]].traffic.Store([]int32{500, 502, resets}[i%3])
				}
				w.begin(evenkeel.WithOutlierDetection(brisk))
				most, ejections := 0, 0
				for range 1200 { // a minute
					_, _ = w.call()
					out, weight := 0, 0
					for i, name := range names {
						if w.health(name).Ejected != "" {
							out++
							weight += weights[i]
						}
					}
					most = max(most, out)
					require.LessOrEqual(t, out, len(names)/2)
					require.LessOrEqual(t, 2*weight, total)
					require.False(t, w.Stats().Pool.Panic)
					time.Sleep(50 * time.Millisecond)
				}
				for _, name := range names {
					ejections += int(w.health(name).Ejections)
				}
				assert.Zero(t, w.panics())
				if len(names) == 1 {
					assert.Zero(t, ejections)
				} else {
					assert.Greater(t, ejections, 1, "they return, and others take their places")
				}
			})
		})
	}
}

// The cap is on all endpoints, whatever their priorities, so that it may take all of a small one.
// Those that are left take all traffic. (It counts as panic of that priority, see Outlier.MaxEjected.)
func TestHealth_EjectionsOfAWholePriority_B10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serveWard(t, "a", "b", "c", "d")
		for i := range w.list[1:] {
			w.list[1+i].Priority = 1
		}
		w.begin(evenkeel.WithOutlierDetection(brisk))
		w.of["a"].traffic.Store(500)
		w.until(time.Second, 10, func() bool { return w.health("a").Ejected != "" })
		w.of["b"].traffic.Store(500)
		w.until(time.Second, 10, func() bool { return w.health("b").Ejected != "" })
		assert.Equal(t, map[string]int{"c": 10, "d": 10}, w.calls(20))
		w.of["c"].traffic.Store(500)
		assert.Equal(t, map[string]int{"500": 10, "d": 10}, w.calls(20), "two of four is the most")
	})
}

// Those who are leaving count neither among the ejected nor among those of whom so many may be:
// when two of four begin to drain, one of the others may be ejected, and if two are, one comes back.
func TestHealth_TheCapCountsNobodyWhoDrains_B10(t *testing.T) {
	for name, row := range map[string]struct{ drainFirst, counted bool }{
		"they fail, then others drain": {false, false}, "others drain, then they fail": {true, false},
		"others drain after a look at the rates": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := serveWard(t, "a", "b", "c", "d")
				r := newPushed()
				w.use(evenkeel.WithResolver(r), noBreaker, evenkeel.WithHooks(w.hooks()), evenkeel.WithOutlierDetection(brisk))
				r.push(w.list...)
				w.calls(4)
				if row.counted {
					time.Sleep(11 * time.Second)
					w.calls(4)
				}
				drain := func() {
					leaving := slices.Clone(w.list)
					leaving[2].Draining, leaving[3].Draining = true, true
					r.push(leaving...)
				}
				fail := func() {
					w.of["a"].traffic.Store(500)
					w.of["b"].traffic.Store(500)
					w.calls(40)
				}
				if row.drainFirst {
					drain()
					fail()
				} else {
					fail()
					drain()
				}
				synctest.Wait()
				out := 0
				for _, s := range w.Stats().Health {
					if s.Ejected != "" {
						out++
					}
				}
				assert.Equal(t, 1, out, "of a and b")
				assert.False(t, w.Stats().Pool.Panic)
				w.history.Lock()
				defer w.history.Unlock()
				assert.Zero(t, w.history.panics, "also for a moment")
			})
		})
	}
}

// A health check that calls everything unhealthy takes nothing away: no call fails, neither while
// it condemns them one after the other, nor afterwards, and all are used. When it is mended, all is
// as before.
func TestHealth_BrokenCheckTakesNothingAway_B09(t *testing.T) {
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := []string{"a", "b", "c", "d"}
				w := newWard(t, names, evenkeel.WithBalancer(algorithm), evenkeel.WithHealthCheck(keenCheck))
				w.until(2*time.Second, 0, func() bool { return w.health("a").State == health.Healthy && w.health("d").State == health.Healthy })
				seen := map[string]int{}
				pass := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
						for user := range 4 {
							who, err := w.keyed(user)
							require.NoError(t, err)
							require.Len(t, who, 1)
							seen[who]++
						}
					}
				}
				for _, name := range names {
					w.of[name].probe.Store(500)
					pass(3*time.Second + time.Millisecond)
					require.Equal(t, "unhealthy", w.reasons(name))
				}
				require.True(t, w.Stats().Pool.Panic)
				seen = map[string]int{}
				pass(10 * time.Second)
				if name == "round robin" || name == "random" || name == "least request" { // the others have keys, or favourites
					for _, name := range names {
						assert.InDelta(t, 100, seen[name], 50, name)
					}
				}
				for _, name := range names {
					w.of[name].probe.Store(0)
				}
				pass(2*time.Second + time.Millisecond)
				assert.False(t, w.Stats().Pool.Panic)
				for _, name := range names {
					assert.Empty(t, w.reasons(name))
				}
				assert.Zero(t, w.Stats().Failed)
			})
		})
	}
}

// Given no panic, then a check that calls everything unhealthy does take the service away, as was
// asked for: calls fail at once, with a reason, and their bodies are closed.
func TestHealth_BrokenCheckWithoutPanic_B09_O04_T06(t *testing.T) {
	for name, panicking := range map[string]balancer.Panic{"reject": {Reject: true}, "off": {Threshold: -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, []string{"a", "b"}, evenkeel.WithHealthCheck(keenCheck), evenkeel.WithRetry(retry.Policy{}),
					evenkeel.WithRules(balancer.Rules{Panic: panicking}))
				w.calls(2)
				w.of["a"].probe.Store(500)
				w.of["b"].probe.Store(500)
				w.until(4*time.Second, 0, func() bool { return w.reasons("a") != "" && w.reasons("b") != "" })
				sent := w.of["a"].calls.Load() + w.of["b"].calls.Load()
				start := time.Now()
				body := evenkeeltest.NewBody("order 1")
				req := getRequest(t, "http://users/")
				req.Method = http.MethodPost
				body.Stream(req)
				_, err := w.send(req)
				var failed *evenkeel.Error
				require.ErrorAs(t, err, &failed)
				assert.Equal(t, outcome.NoEndpoints, failed.Reason)
				assert.Empty(t, failed.Attempts)
				require.ErrorIs(t, err, balancer.ErrNoEndpoints)
				assert.NotContains(t, err.Error(), "breaker")
				body.AssertClosed(t)
				assert.Zero(t, time.Since(start))
				assert.Equal(t, sent, w.of["a"].calls.Load()+w.of["b"].calls.Load())
				assert.Error(t, w.Check(t.Context()))
				w.of["a"].probe.Store(0)
				w.of["b"].probe.Store(0)
				w.until(3*time.Second, 0, func() bool { return w.reasons("a") == "" && w.reasons("b") == "" })
				assert.Equal(t, map[string]int{"a": 5, "b": 5}, w.calls(10))
				assert.NoError(t, w.Check(t.Context()))
			})
		})
	}
}

// Probes, ejections, breakers and pauses each have their own say; an endpoint is used when none is
// left, whatever the order in which they go.
func TestHealth_ReasonsCombine_B08_H04_K15(t *testing.T) {
	for _, row := range []struct {
		name                  string
		probes, ejects, opens time.Duration // when each ends, after the failures have
		steps                 []string
	}{
		{"probes last", 9 * time.Second, 3 * time.Second, 6 * time.Second, []string{"unhealthy,ejected,open", "unhealthy,open", "unhealthy", ""}},
		{"ejection last", 3 * time.Second, 9 * time.Second, 6 * time.Second, []string{"unhealthy,ejected,open", "ejected,open", "ejected", ""}},
		{"breaker last", 6 * time.Second, 3 * time.Second, 9 * time.Second, []string{"unhealthy,ejected,open", "unhealthy,open", "open", ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, out, check := fragile, brisk, keenCheck
				cfg.OpenFor, out.EjectFor, out.ConsecutiveFailures = row.opens, row.ejects, 2
				check.Fall, check.Rise = 1, 1
				w := newWard(t, []string{"a", "b", "c"}, evenkeel.WithBreaker(cfg), evenkeel.WithOutlierDetection(out),
					evenkeel.WithHealthCheck(check))
				w.until(2*time.Second, 3, func() bool { return w.health("a").State == health.Healthy })
				time.Sleep(5 * time.Millisecond) // nobody does anything at the same instant as a probe
				w.of["a"].traffic.Store(500)
				w.of["a"].probe.Store(500)
				w.until(2*time.Second, 0, func() bool { return w.reasons("a") == "unhealthy" })
				// unhealthy ones get none: so that it fails, the others must be gone
				w.of["b"].probe.Store(500)
				w.of["c"].probe.Store(500)
				w.until(2*time.Second, 0, func() bool { return w.reasons("b") != "" && w.reasons("c") != "" })
				w.calls(6)
				start := time.Now()
				w.of["b"].probe.Store(0)
				w.of["c"].probe.Store(0)
				w.of["a"].traffic.Store(0)
				w.until(2*time.Second, 0, func() bool { return w.reasons("b") == "" && w.reasons("c") == "" })
				had := w.of["a"].calls.Load()
				steps := []string{w.reasons("a")}
				for len(steps) < 4 && time.Since(start) < 20*time.Second {
					if why := w.reasons("a"); why != steps[len(steps)-1] {
						steps = append(steps, why)
					}
					if w.reasons("a") != "" {
						assert.Zero(t, w.calls(2)["a"])
						assert.Equal(t, had, w.of["a"].calls.Load())
					}
					if time.Since(start) > row.probes-time.Second {
						w.of["a"].probe.Store(0)
					}
					time.Sleep(20 * time.Millisecond)
				}
				assert.Equal(t, row.steps, steps)
				assert.Positive(t, w.calls(6)["a"])
			})
		})
	}
}

// Given a priority of which probes and answers condemn so much, then the next one helps out, and
// standby endpoints before the ill, until it is well.
func TestHealth_PrioritiesAndStandby_B09(t *testing.T) {
	for name, standby := range map[string]bool{"priority": false, "standby": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := serveWard(t, "a", "b", "c", "d")
				for i := range w.list[2:] {
					if standby {
						w.list[2+i].Standby = true
					} else {
						w.list[2+i].Priority = 1
					}
				}
				w.begin(evenkeel.WithHealthCheck(keenCheck), evenkeel.WithOutlierDetection(brisk), evenkeel.WithRetry(retry.Policy{}))
				assert.Equal(t, map[string]int{"a": 10, "b": 10}, w.calls(20))
				w.of["a"].traffic.Store(502)
				w.calls(20)
				assert.Equal(t, "ejected", w.reasons("a"))
				got := w.calls(100)
				assert.Zero(t, got["a"])
				if standby {
					assert.Equal(t, map[string]int{"b": 100}, got, "half is enough")
				} else {
					assert.InDelta(t, 70, got["b"], 15, "half of the endpoints take 70 %")
				}
				w.of["b"].probe.Store(500)
				w.until(4*time.Second, 1, w.isAway("b"))
				assert.Equal(t, map[string]int{"c": 10, "d": 10}, w.calls(20))
				w.of["c"].probe.Store(500)
				w.of["d"].probe.Store(500)
				w.until(4*time.Second, 1, func() bool { return w.reasons("c") != "" && w.reasons("d") != "" })
				w.of["a"].traffic.Store(0)
				assert.NotContains(t, w.calls(40), "error", "all are ill: panic")
				for _, name := range []string{"b", "c", "d"} {
					w.of[name].probe.Store(0)
				}
				w.until(12*time.Second, 1, func() bool { return w.reasons("a")+w.reasons("b")+w.reasons("c")+w.reasons("d") == "" })
				assert.Equal(t, map[string]int{"a": 10, "b": 10}, w.calls(20))
				assert.Zero(t, w.Stats().Failed)
			})
		})
	}
}

// Given an ejection, then probes do not end it, neither good nor bad ones; unless the policy says
// so: then as many good ones in a row as it takes to be healthy. When it ends, an endpoint that is
// found unhealthy stays away.
func TestHealth_ProbesAndEjections_H04(t *testing.T) {
	for _, row := range []struct {
		name   string
		rise   bool
		probes []int32 // the answers after the ejection, a second apart, the last one for ever
		back   time.Duration
	}{
		{"good", false, []int32{0}, 10 * time.Second},
		{"bad, then good", false, []int32{500, 500, 500, 500, 0}, 10 * time.Second},
		{"good, and that counts", true, []int32{0}, 3 * time.Second},
		{"in turn", true, []int32{0, 0, 500, 0, 0, 500, 0, 0, 0}, 9 * time.Second},
		{"bad, and that counts", true, []int32{500, 500, 500, 500, 0}, 7 * time.Second},
		{"bad for longer", true, []int32{500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500, 0}, 15 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check, out := keenCheck, brisk
				check.Rise, out.ReturnOnRise = 3, row.rise
				w := newWard(t, []string{"a", "b"}, evenkeel.WithHealthCheck(check), evenkeel.WithOutlierDetection(out))
				w.until(2*time.Second, 0, func() bool { return w.health("a").State == health.Healthy })
				time.Sleep(100 * time.Millisecond) // until here from the probe before
				w.of["a"].traffic.Store(500)
				w.calls(10)
				require.Equal(t, "ejected", w.reasons("a"))
				w.of["a"].traffic.Store(0)
				start, probes := time.Now(), w.of["a"].probes.Load()
				took := w.until(20*time.Second, 0, func() bool {
					n := int(w.of["a"].probes.Load() - probes) // this many have been answered
					w.of["a"].probe.Store(row.probes[min(n, len(row.probes)-1)])
					return w.reasons("a") == ""
				})
				assert.InDelta(t, row.back.Seconds(), took.Seconds(), 0.2)
				assert.Equal(t, row.back > 10*time.Second || !row.rise, time.Since(start) >= 10*time.Second)
				assert.Equal(t, map[string]int{"a": 5, "b": 5}, w.calls(10))
			})
		})
	}
}

// Given an endpoint that asks for a pause in the answers by which it is ejected, then it is back
// when both are over. A 429 ejects nobody.
func TestHealth_ParkedAndEjected_H04_R10(t *testing.T) {
	for _, row := range []struct {
		name  string
		step  http.Handler
		steps []string
	}{
		{"the pause is shorter", busy(503, "2"), []string{"ejected,parked", "ejected", ""}},
		{"the pause is longer", busy(503, "30"), []string{"ejected,parked", "parked", ""}},
		{"429", busy(429, "2"), []string{"parked", ""}},
		{"429 without", evenkeeltest.Status(429), []string{""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := brisk
				out.GatewayFailures = 1
				f := newScripted(t, [][]http.Handler{
					script(row.step, evenkeeltest.OK("a")), script(evenkeeltest.OK("b")), script(evenkeeltest.OK("c")),
				}, evenkeel.WithOutlierDetection(out))
				_, err := f.call()
				require.NoError(t, err)
				synctest.Wait()
				steps := []string{f.why(0)}
				for range 500 {
					synctest.Wait()
					if why := f.why(0); why != steps[len(steps)-1] {
						steps = append(steps, why)
					}
					if f.why(0) != "" {
						assert.Zero(t, f.calls(2)["a"])
					}
					time.Sleep(100 * time.Millisecond)
				}
				assert.Equal(t, row.steps, steps)
				assert.Equal(t, map[string]int{"a": 5}, f.calls(5))
			})
		})
	}
}

// Given an endpoint that answers probes that it is about to leave, then it gets nothing new while
// there are others, what it has is finished on the same connection, and it is used if nothing else
// is left.
func TestHealth_Withdrawn_B12_H04(t *testing.T) {
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := keenCheck
				check.Probe = health.HTTP{DrainOn404: true}
				w := serveWard(t, "a", "b")
				var slow atomic.Bool
				b := w.network.Serve("slow:80", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if slow.Load() && !strings.HasPrefix(r.URL.Path, "/health") {
						evenkeeltest.OK("0123456789").Drip(1, time.Second).ServeHTTP(rw, r)
						return
					}
					w.of["b"].ServeHTTP(rw, r)
				}))
				w.list[1] = b.Endpoint()
				w.begin(evenkeel.WithBalancer(algorithm), evenkeel.WithHealthCheck(check),
					evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
				w.until(3*time.Second, 1, func() bool { return w.health("a").State == health.Healthy && w.health("slow").State == health.Healthy })
				w.events()
				slow.Store(true)
				var stream *http.Response
				for user := 0; stream == nil; user++ {
					require.Less(t, user, 1000)
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(user))
					resp, err := w.RoundTrip(req)
					require.NoError(t, err)
					if info, _ := evenkeel.InfoOf(resp); info.Endpoint.Address == "slow:80" {
						stream = resp
					} else {
						readBody(t, resp)
					}
				}
				w.of["b"].probe.Store(404)
				took := w.until(2*time.Second, 0, w.isAway("slow"))
				assert.LessOrEqual(t, took, time.Second+step, "the first such answer counts")
				assert.Equal(t, "withdrawn", w.reasons("slow"))
				assert.Equal(t, []string{"slow withdrawn"}, w.events())
				for user := range 50 {
					who, err := w.keyed(user)
					require.NoError(t, err)
					assert.Equal(t, "a", who)
				}
				assert.Equal(t, "0123456789", readBody(t, stream))
				slow.Store(false)
				w.network.Refuse("a:80")
				w.network.Reset("a:80")
				w.of["a"].probe.Store(500)
				w.until(4*time.Second, 0, w.isAway("a"))
				got := map[string]int{}
				for user := range 50 {
					who, _ := w.keyed(user)
					got[who]++
				}
				assert.Positive(t, got["b"], "nothing else is left")
				w.network.Heal("a:80")
				w.of["a"].probe.Store(0)
				w.of["b"].probe.Store(0)
				w.until(5*time.Second, 0, func() bool { return w.reasons("a")+w.reasons("slow") == "" })
			})
		})
	}
}

// Probes speak like the traffic: with its method of naming the service, whatever the target's port,
// and over connections of their own.
func TestHealth_ProbesSpeakLikeTheTraffic_H05(t *testing.T) {
	for _, row := range []struct {
		target   string
		protocol evenkeeltest.Protocol
	}{
		{"http://users", evenkeeltest.HTTP1},
		{"http://users:80", evenkeeltest.HTTP1},
		{"http://users:8080", evenkeeltest.HTTP1},
		{"https://users", evenkeeltest.HTTPS},
		{"https://users:8443", evenkeeltest.HTTPS1},
	} {
		t.Run(row.target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				server := network.Start(evenkeeltest.ServerConfig{Address: "a:1", Protocol: row.protocol})
				tr, err := evenkeel.New(row.target, evenkeel.WithResolver(discovery.List{server.Endpoint()}),
					evenkeel.WithTransport(network.Transport()), evenkeel.WithHealthCheck(health.Check{}))
				require.NoError(t, err)
				defer tr.Close()
				readBody(t, func() *http.Response {
					resp, err := tr.RoundTrip(getRequest(t, row.target+"/"))
					require.NoError(t, err)
					return resp
				}())
				time.Sleep(6 * time.Second)
				synctest.Wait()
				assert.Equal(t, health.Healthy, tr.Stats().Health[0].State)
				got := server.Received()
				require.GreaterOrEqual(t, len(got), 2)
				assert.Equal(t, "/health", got[1].Path)
				assert.Equal(t, got[0].Host, got[1].Host)
				assert.Equal(t, got[0].ServerName, got[1].ServerName)
				assert.Equal(t, got[0].Proto, got[1].Proto)
				assert.NotEqual(t, got[0].Conn, got[1].Conn)
			})
		})
	}
}

// Given five bodies under way at an endpoint that is ejected, when they break after its return, then
// that is no reason to eject it again: they began before.
func TestHealth_WhatBeganBeforeDoesNotCount_B11(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		var broken atomic.Bool
		a := f.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/stream":
				evenkeeltest.OK(strings.Repeat("x", 100)).Drip(1, time.Second).ServeHTTP(w, r)
			case broken.Load():
				evenkeeltest.ResetAfter(0).ServeHTTP(w, r)
			default:
				evenkeeltest.OK("a").ServeHTTP(w, r)
			}
		}))
		b := f.network.Serve("b:80", evenkeeltest.OK("b"))
		out := brisk
		out.EjectFor = 5 * time.Second
		f.use(evenkeel.WithResolver(discovery.List{a.Endpoint(), b.Endpoint()}), noBreaker, evenkeel.WithBalancer(first("a:80")),
			evenkeel.WithOutlierDetection(out))
		var streams []*http.Response
		for range 5 {
			resp, err := f.RoundTrip(getRequest(t, "http://users/stream"))
			require.NoError(t, err)
			streams = append(streams, resp)
		}
		broken.Store(true)
		f.calls(5)
		require.Equal(t, "ejected", f.why(0))
		broken.Store(false)
		time.Sleep(6 * time.Second)
		require.Empty(t, f.why(0))
		f.network.Reset("a:80")
		for _, stream := range streams {
			_, _ = io.Copy(io.Discard, stream.Body)
			stream.Body.Close()
		}
		synctest.Wait()
		assert.Empty(t, f.why(0), "since its return nothing that was asked of it has failed")
		assert.Equal(t, map[string]int{"a": 10}, f.calls(10))
	})
}

// Given removal, then no probe starts later and nothing of the endpoint is left; the same address
// under another identity starts afresh: neither unhealthy nor ejected.
func TestHealth_EndpointLeaves_H06_B14(t *testing.T) {
	for _, row := range []struct{ name, reason string }{{"unhealthy", "unhealthy"}, {"ejected", "ejected"}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := serveWard(t, "a", "b", "c")
				r := newPushed()
				w.use(evenkeel.WithResolver(r), noBreaker, evenkeel.WithHooks(w.hooks()), evenkeel.WithHealthCheck(keenCheck),
					evenkeel.WithOutlierDetection(brisk))
				one, others := discovery.Endpoint{ID: "pod-1", Address: "a:80"}, w.list[1:]
				push := func(id string) {
					one.ID = id
					r.push(append(slices.Clone(others), one)...)
				}
				push("pod-1")
				if row.reason == "unhealthy" {
					w.of["a"].probe.Store(500)
				} else {
					w.of["a"].traffic.Store(500)
				}
				w.until(5*time.Second, 3, w.isAway("a"))
				require.Equal(t, row.reason, w.reasons("a"))
				w.events()

				push("pod-2") // without being away
				assert.Empty(t, w.reasons("a"))
				assert.Equal(t, health.Unknown, w.health("a").State)
				assert.Zero(t, w.health("a").Ejections)
				assert.Empty(t, w.events(), "nobody has returned")
				got := w.calls(30)
				assert.Positive(t, got["a"]+got["500"])
				if row.reason == "ejected" {
					assert.Equal(t, "ejected", w.reasons("a"), "the one before takes no place any more")
				}

				r.push(others...)
				had := w.of["a"].probes.Load()
				time.Sleep(time.Minute)
				assert.Equal(t, had, w.of["a"].probes.Load())
				assert.Zero(t, w.network.OpenConns("a:80"))
				assert.Len(t, w.Stats().Health, 2)
				push("pod-3")
				assert.Empty(t, w.reasons("a"))
				require.NoError(t, w.Close())
				synctest.Wait()
				w.network.AssertNoConns(t)
			})
		})
	}
}

// Given removal, or the end of the transport, while a probe hangs, then the probe ends, too.
func TestHealth_HungProbeEnds_H06_T18(t *testing.T) {
	for _, way := range []string{"removal", "Close", "Shutdown"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := keenCheck
				check.Interval, check.Timeout = time.Hour, time.Hour
				w := serveWard(t, "a", "b")
				r := newPushed()
				w.use(evenkeel.WithResolver(r), evenkeel.WithHooks(w.hooks()), evenkeel.WithHealthCheck(check))
				w.of["a"].probe.Store(hangs)
				r.push(w.list...)
				w.until(time.Hour, 0, func() bool { return w.servers[0].ActiveRequests() == 1 })
				start := time.Now()
				switch way {
				case "removal":
					r.push(w.list[1])
				case "Close":
					require.NoError(t, w.Close())
				default:
					require.NoError(t, w.Shutdown(t.Context()))
				}
				synctest.Wait()
				assert.Zero(t, w.servers[0].ActiveRequests())
				assert.Zero(t, w.network.OpenConns("a:80"))
				assert.Zero(t, time.Since(start))
				assert.NotContains(t, strings.Join(w.events(), ";"), "unhealthy", "that says nothing")
			})
		})
	}
}

// While Shutdown waits, probes and ejections go on; when it has returned, nothing does.
func TestHealth_Shutdown_H06_T18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, []string{"a", "b"}, evenkeel.WithHealthCheck(keenCheck), evenkeel.WithOutlierDetection(brisk))
		w.of["a"].traffic.Store(500)
		w.calls(10)
		require.Equal(t, "ejected", w.reasons("a"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		w.of["b"].traffic.Store(hangs)
		var calling sync.WaitGroup
		calling.Go(func() { _, _ = w.send(getRequest(t, "http://users/").WithContext(ctx)) })
		synctest.Wait()
		had := w.of["b"].probes.Load()
		require.NoError(t, w.Shutdown(t.Context()))
		calling.Wait()
		assert.Greater(t, w.of["b"].probes.Load(), had+3)
		had = w.of["a"].probes.Load() + w.of["b"].probes.Load()
		w.events()
		time.Sleep(time.Minute)
		assert.Equal(t, had, w.of["a"].probes.Load()+w.of["b"].probes.Load())
		assert.Empty(t, w.events(), "also not the return of a")
		w.network.AssertNoConns(t)
	})
}

// Hooks.Health is told of every change, in order, with what it takes to understand it.
func TestHealth_Hooks_O04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check, out := keenCheck, brisk
		check.Probe = health.HTTP{DrainOn404: true}
		w := newWard(t, []string{"a", "b", "c"}, evenkeel.WithHealthCheck(check), evenkeel.WithOutlierDetection(out))
		w.until(2*time.Second, 0, func() bool { return len(w.events()) == 0 && w.health("a").State == health.Healthy })
		w.until(2*time.Second, 0, func() bool { return w.health("b").State == health.Healthy && w.health("c").State == health.Healthy })
		w.events()
		w.of["a"].probe.Store(404)
		w.until(5*time.Second, 0, w.isAway("a"))
		w.of["a"].probe.Store(500)
		w.until(5*time.Second, 0, func() bool { return w.reasons("a") == "unhealthy" })
		w.of["a"].probe.Store(0)
		w.until(5*time.Second, 0, w.isBack("a"))
		w.of["b"].traffic.Store(500)
		start := time.Now()
		w.calls(15)
		w.history.Lock()
		changes := slices.Clone(w.history.changes)
		w.history.Unlock()
		w.until(15*time.Second, 0, w.isBack("b"))
		w.of["b"].traffic.Store(resets)
		w.calls(15)
		assert.Equal(t, []string{
			"a withdrawn", "a unhealthy", "a healthy", "b eject, consecutive failures", "b return, consecutive failures",
			"b eject, local failures",
		}, w.events())
		require.Len(t, changes, 4)
		assert.ErrorIs(t, changes[0].Err, health.ErrDraining)
		assert.ErrorContains(t, changes[1].Err, "500")
		assert.NoError(t, changes[2].Err)
		for _, c := range changes[:3] {
			assert.Zero(t, c.Until)
		}
		assert.Equal(t, start, changes[3].Time)
		assert.Equal(t, start.Add(10*time.Second), changes[3].Until)
		assert.False(t, changes[3].Shadow)
		s := w.health("b")
		assert.Equal(t, health.LocalFailures, s.Ejected)
		assert.EqualValues(t, 2, s.Ejections)
		assert.Equal(t, 2, s.Level)
		assert.Equal(t, 20*time.Second, time.Until(s.Until))
	})
}

// Given a hook that uses the transport, then nothing waits for itself, whoever has brought the
// change about: a probe, a call, a timer or an Update.
func TestHealth_HookUsesTheTransport_O04(t *testing.T) {
	for _, way := range []string{"a probe", "a call", "a timer", "Update"} {
		t.Run(way, func(t *testing.T) { // not in a bubble, where a deadlock would not be found
			var tr *evenkeel.Transport
			told := make(chan health.Kind, 100)
			var broken atomic.Bool
			check, out := keenCheck, brisk
			check.Interval, check.Timeout, check.FastInterval = 10*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
			check.Probe = health.Func(func(context.Context, discovery.Endpoint) error { return nil })
			out.EjectFor, out.MaxEjectFor = time.Hour, time.Hour
			if way == "a timer" {
				out.EjectFor, out.MaxEjectFor = 10*time.Millisecond, 10*time.Millisecond
			}
			ready := make(chan struct{})
			options := []evenkeel.Option{
				evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}), noBreaker, evenkeel.WithBalancer(first("a:80")),
				evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}), evenkeel.WithOutlierDetection(out),
				evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper {
					return roundTripper(func(req *http.Request) (*http.Response, error) {
						status := 200
						if broken.Load() {
							status = 500
						}
						return answerTo(req, status, textBody("")), nil
					})
				}),
				evenkeel.WithHooks(evenkeel.Hooks{Health: func(c health.Change) {
					<-ready
					tr.Stats()
					config := tr.Config()
					config.Timeout += time.Second
					if err := tr.Update(config); err == nil {
						told <- c.Kind
					}
				}}),
			}
			if way == "a probe" {
				options = append(options, evenkeel.WithHealthCheck(check))
			}
			tr, err := evenkeel.New("http://users", options...)
			require.NoError(t, err)
			hold := tr
			close(ready)
			require.NoError(t, tr.Ready(t.Context()))
			want := health.TurnedHealthy
			if way != "a probe" {
				broken.Store(true)
				want = health.Eject
				req := getRequest(t, "http://users/")
				go func() {
					for range 5 {
						if resp, err := hold.RoundTrip(req); err == nil {
							resp.Body.Close()
						}
					}
				}()
			}
			await := func(want health.Kind) {
				t.Helper()
				select {
				case kind := <-told:
					assert.Equal(t, want, kind)
				case <-time.After(5 * time.Second):
					require.Fail(t, "the hook waits for itself", "%v", want)
				}
			}
			await(want)
			switch way {
			case "a timer":
				await(health.Return)
			case "Update":
				go func() {
					config := hold.Config()
					config.Outlier.Disabled = true
					_ = hold.Update(config)
				}()
				await(health.Return)
			}
			require.NoError(t, tr.Close())
		})
	}
}

// Given an ejected endpoint, then it costs neither an attempt nor time nor quota, and nobody hedges
// there.
func TestHealth_EjectedCostsNothing_B08_R20(t *testing.T) {
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, []string{"a", "b", "c"}, evenkeel.WithBalancer(algorithm), noBreaker, evenkeel.WithRand(seeded(t, 4)),
					evenkeel.WithOutlierDetection(health.Outlier{ConsecutiveFailures: 1, EjectFor: time.Hour, MaxEjectFor: time.Hour}))
				p.down["a"].Store(502)
				for user := 0; p.why(0) == ""; user++ {
					require.Less(t, user, 1000)
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(user))
					_, who := p.do(req)
					require.NotEqual(t, "a", who)
					time.Sleep(10 * time.Millisecond)
				}
				before, had := p.Stats(), p.ids["a"].Requests()
				start := time.Now()
				for user := range 50 {
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(user))
					info, _ := p.do(req)
					assert.Len(t, info.Attempts, 1)
				}
				assert.Zero(t, time.Since(start))
				assert.Equal(t, before.Retries, p.Stats().Retries)
				p.take(150*time.Millisecond, "a", "b", "c")
				for user := range 20 {
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(user))
					info, _ := p.do(req)
					require.Len(t, info.Attempts, 2, "it is hedged")
				}
				assert.Equal(t, had, p.ids["a"].Requests())
				p.idle()
			})
		})
	}
}

// Callers who give up, and attempts that another one beside them was faster than, eject nobody and
// bring no probe forward. Time limits of ours do eject.
func TestHealth_CallersAreNeutral_R20_T09(t *testing.T) {
	aggressive := health.Outlier{ConsecutiveFailures: 1, LocalFailures: 1, Deviation: 0.01, FailureRate: 0.01, FalseAlarms: 0.5, Interval: time.Second, Jitter: health.Off}
	check := keenCheck
	check.IgnoreTraffic, check.Interval, check.Timeout = false, time.Hour, time.Hour
	check.Probe = health.TCP{}
	for _, row := range []struct {
		name    string
		neutral bool
		option  evenkeel.Option
		ctx     func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"cancel", true, evenkeel.WithTimeout(time.Hour), func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(io.ErrUnexpectedEOF) })
			return ctx, func() { cancel(nil) }
		}},
		{"deadline", true, evenkeel.WithTimeout(time.Hour), func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}},
		{"hedge", true, evenkeel.WithRetry(hedging), context.WithCancel},
		{"time limit", false, evenkeel.WithRetry(retry.Policy{MaxAttempts: 1, PerAttemptTimeout: time.Second}), context.WithCancel},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, []string{"a", "b"}, row.option, evenkeel.WithOutlierDetection(aggressive), evenkeel.WithHealthCheck(check))
				w.of["a"].traffic.Store(hangs)
				if row.name != "hedge" {
					w.of["b"].traffic.Store(hangs)
				}
				dials := w.network.Dials("a:80")
				for range 20 {
					ctx, cancel := row.ctx(t.Context())
					_, err := w.send(getRequest(t, "http://users/").WithContext(ctx))
					cancel()
					assert.Equal(t, row.name == "hedge", err == nil)
				}
				time.Sleep(10 * time.Second)
				assert.Equal(t, row.neutral, w.health("a").Ejections+w.health("b").Ejections == 0)
				if row.neutral {
					assert.Empty(t, w.reasons("a")+w.reasons("b"))
					assert.LessOrEqual(t, w.network.Dials("a:80")-dials, 20, "no probes")
					assert.Zero(t, w.health("a").Probed)
				}
			})
		})
	}
}

// With a clock of the test's own, probes and ejections follow it, and Close leaves no timer.
func TestHealth_FollowsTheClock_X01_T18(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	var probes, status atomic.Int32
	tr, err := evenkeel.New("http://users", evenkeel.WithClock(fake), evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}), noBreaker,
		evenkeel.WithBalancer(first("a:80")), evenkeel.WithOutlierDetection(brisk), evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
		evenkeel.WithHealthCheck(health.Check{IdleInterval: time.Minute, Probe: health.Func(func(context.Context, discovery.Endpoint) error {
			probes.Add(1)
			return nil
		})}),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				return answerTo(req, int(status.Load()), http.NoBody), nil
			})
		}))
	require.NoError(t, err)
	require.NoError(t, tr.Ready(context.Background()))
	call := func() {
		resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		resp.Body.Close()
	}
	status.Store(500)
	for range 5 {
		call()
	}
	assert.Equal(t, "ejected", tr.Stats().Pool.Endpoints[0].Unavailable)
	fake.Advance(10*time.Second - 1)
	assert.Equal(t, "ejected", tr.Stats().Pool.Endpoints[0].Unavailable)
	fake.Advance(1)
	assert.Empty(t, tr.Stats().Pool.Endpoints[0].Unavailable)
	require.Eventually(t, func() bool { return probes.Load() >= 2 }, 5*time.Second, time.Millisecond)
	fake.Advance(10 * time.Minute)
	call() // there is traffic again, which makes probes due
	assert.Positive(t, fake.Pending())
	require.NoError(t, tr.Close())
	assert.Zero(t, fake.Pending())
}

// Given an interval of 30 s and a server that restarts within a second, or is found to be down, then
// it is back within 5 s of its start.
func TestHealth_ShortRestart_H07(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 3 * time.Second, 4 * time.Second} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, []string{"a", "b", "c"}, evenkeel.WithHealthCheck(health.Check{Interval: 30 * time.Second}),
					evenkeel.WithRetry(retry.Policy{}), evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
				w.until(30*time.Second, 3, func() bool { return w.health("a").State == health.Healthy })
				w.servers[0].Kill()
				start := time.Now()
				for time.Since(start) < outage {
					w.calls(3)
					time.Sleep(step)
				}
				if outage > 2500*time.Millisecond { // a probe at once, two more after a second each, and a tenth
					assert.Equal(t, "unhealthy", w.reasons("a"))
				}
				w.servers[0].Restart()
				took := w.until(5*time.Second, 3, w.isBack("a"))
				t.Logf("back after %v", took)
				assert.Equal(t, map[string]int{"a": 5, "b": 5, "c": 5}, w.calls(15))
				assert.Zero(t, w.Stats().Failed)
			})
		})
	}
}

// Given a set of endpoints that is replaced as a whole, all of which are held back until a probe was
// good, then calls go there at once, whatever is to happen in panic: there is nothing else, and
// nothing is known against them.
func TestHealth_HoldNewFailsNoCall_H03(t *testing.T) {
	for name, panicking := range map[string]balancer.Panic{"default": {}, "reject": {Reject: true}, "off": {Threshold: -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := keenCheck
				check.HoldNew, check.Interval, check.Timeout = 10*time.Second, 30*time.Second, 30*time.Second
				w := serveWard(t, "a", "b", "c", "d", "e")
				r := newPushed()
				w.use(evenkeel.WithResolver(r), noBreaker, evenkeel.WithHooks(w.hooks()), evenkeel.WithHealthCheck(check),
					evenkeel.WithRules(balancer.Rules{Panic: panicking, SlowStart: balancer.SlowStart{Window: -1}}))
				r.push(w.list[:2]...)
				assert.Equal(t, map[string]int{"a": 5, "b": 5}, w.calls(10), "nobody is held at the start")
				w.until(31*time.Second, 0, func() bool { return w.health("a").State == health.Healthy && w.health("b").State == health.Healthy })
				r.push(w.list[:3]...)
				assert.Equal(t, map[string]int{"a": 5, "b": 5}, w.calls(10), "c joins others")
				assert.Equal(t, "pending", w.reasons("c"))
				took := w.until(11*time.Second, 0, w.isBack("c"))
				t.Logf("held for %v", took)
				w.of["d"].probe.Store(hangs)
				w.of["e"].probe.Store(hangs)
				r.push(w.list[3:]...)
				assert.Equal(t, map[string]int{"d": 5, "e": 5}, w.calls(10), "there is nothing else")
				assert.Zero(t, w.panics())
			})
		})
	}
}

// Given that all that is left is about to leave, then it is used, whatever is to happen in panic: it
// is not ill.
func TestHealth_OnlyTheWithdrawnAreLeft_B09(t *testing.T) {
	for name, panicking := range map[string]balancer.Panic{"default": {}, "reject": {Reject: true}, "off": {Threshold: -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := keenCheck
				check.Probe = health.HTTP{DrainOn404: true}
				w := newWard(t, []string{"a", "b"}, evenkeel.WithHealthCheck(check),
					evenkeel.WithRules(balancer.Rules{Panic: panicking, SlowStart: balancer.SlowStart{Window: -1}}))
				w.of["a"].probe.Store(404)
				w.of["b"].probe.Store(404)
				w.until(2*time.Second, 0, func() bool { return w.reasons("a") == "withdrawn" && w.reasons("b") == "withdrawn" })
				assert.Equal(t, map[string]int{"a": 5, "b": 5}, w.calls(10))
			})
		})
	}
}

// Given a hook that panics because an answer, or a body that breaks, ejects an endpoint, then whoever
// made the call gets the panic, and nothing of the call stays behind: it is not in flight, and the
// endpoint's breaker has heard of it.
func TestHealth_HookPanics_B01_O04(t *testing.T) {
	for name, step := range map[string]http.Handler{
		"answer": evenkeeltest.Status(500), "reset": evenkeeltest.ResetAfter(0), "body": evenkeeltest.OK("all of it").CloseMidBody(3),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScripted(t, [][]http.Handler{script(step), script(evenkeeltest.OK("b"))},
					evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}), evenkeel.WithBreaker(breaker.Config{}),
					evenkeel.WithOutlierDetection(health.Outlier{ConsecutiveFailures: 1, LocalFailures: 1}),
					evenkeel.WithHooks(evenkeel.Hooks{Health: func(health.Change) { panic("ordered") }}))
				assert.PanicsWithValue(t, "ordered", func() {
					resp, err := f.RoundTrip(getRequest(t, "http://users/"))
					if err == nil {
						defer resp.Body.Close()
						_, _ = io.ReadAll(resp.Body)
					}
				})
				f.idle()
				assert.Equal(t, "ejected", f.why(0))
				assert.Equal(t, 1, f.state("a").Counts.Failures)
				assert.Equal(t, map[string]int{"b": 3}, f.calls(3))
			})
		})
	}
}

package evenkeel_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
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
	"github.com/evenkeel-go/evenkeel/retry"
)

// set applies a change of the policy.
func (w *ward) set(change func(*evenkeel.Config)) {
	w.Helper()
	c := w.Config()
	if c.HealthCheck != nil {
		check := *c.HealthCheck
		c.HealthCheck = &check
	}
	change(&c)
	require.NoError(w, w.Update(c))
}

// Given an ejection, an endpoint that probes have condemned, one that is on its way there, rows of
// failures and a response under way, then another policy of any kind leaves all of them as they are.
func TestHealth_UpdateKeepsState_P01(t *testing.T) {
	for name, change := range map[string]func(*evenkeel.Config){
		"nothing":      func(*evenkeel.Config) {},
		"something":    func(c *evenkeel.Config) { c.Timeout = time.Minute },
		"the balancer": func(c *evenkeel.Config) { c.Balancer = balancer.Random{} },
		"the rules":    func(c *evenkeel.Config) { c.Rules.MaxInFlight = 100 },
		"the breaker":  func(c *evenkeel.Config) { c.Breaker.ConsecutiveFailures = 70 },
		"the check": func(c *evenkeel.Config) {
			c.HealthCheck.Rise, c.HealthCheck.Timeout, c.HealthCheck.MaxConcurrent = 3, 100*time.Millisecond, 1
		},
		"the probe":   func(c *evenkeel.Config) { c.HealthCheck.Probe = health.HTTP{Path: "/health/other"} },
		"the outlier": func(c *evenkeel.Config) { c.Outlier.EjectFor, c.Outlier.MaxEjectFor = time.Minute, time.Hour },
		"the sweep":   func(c *evenkeel.Config) { c.Outlier.Interval, c.Outlier.SlowerBy = time.Second, 3 },
		"to shadow":   func(c *evenkeel.Config) { c.Outlier.Shadow = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, []string{"a", "b", "c", "d", "e"}, evenkeel.WithHealthCheck(keenCheck), evenkeel.WithOutlierDetection(brisk))
				w.until(2*time.Second, 0, func() bool {
					return !slices.ContainsFunc(w.Stats().Health, func(s health.Status) bool { return s.State != health.Healthy })
				})
				time.Sleep(10 * time.Millisecond)
				w.of["b"].probe.Store(500)
				w.until(4*time.Second, 0, w.isAway("b"))
				w.of["d"].probe.Store(500) // its first failure comes within the second
				time.Sleep(time.Second)
				w.of["c"].traffic.Store(500)
				w.calls(16) // four rounds of four
				w.of["a"].traffic.Store(500)
				for w.health("a").Ejected == "" {
					w.of["c"].traffic.Store(0) // its row must not end
					before := w.of["c"].calls.Load()
					w.of["c"].traffic.Store(404)
					w.calls(1)
					require.Less(t, before, int32(1000))
				}
				w.events()
				before, pool := w.Stats().Health, w.Stats().Pool
				w.set(change)
				synctest.Wait()
				assert.Equal(t, before, w.Stats().Health)
				for i, e := range w.Stats().Pool.Endpoints {
					assert.Equal(t, pool.Endpoints[i].Unavailable, e.Unavailable)
					assert.Equal(t, pool.Endpoints[i].Attempts, e.Attempts)
				}
				assert.Empty(t, w.events())
				assert.Equal(t, "ejected", w.reasons("a"))
				assert.Equal(t, "unhealthy", w.reasons("b"))
				assert.Zero(t, w.calls(20)["500"])
				if name != "to shadow" {
					w.of["c"].traffic.Store(500)
					if name == "the balancer" {
						w.until(time.Second, 5, w.isAway("c"))
					} else {
						w.calls(3)
					}
					assert.Equal(t, "ejected", w.reasons("c"), "its row of four goes on")
				}
				w.until(3*time.Second, 0, w.isAway("d")) // three in all, one of which was before
				left := time.Until(w.health("a").Until)
				time.Sleep(left)
				synctest.Wait()
				assert.Empty(t, w.health("a").Ejected, "at the instant that it had")
			})
		})
	}
}

// Given responses under way, when the check and the detection come and go, then the counts are right
// throughout, and the bodies arrive.
func TestHealth_UpdateKeepsWhatIsInFlight_P01_B01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		a := f.network.Serve("a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				evenkeeltest.Status(500).ServeHTTP(w, r)
				return
			}
			evenkeeltest.OK("0123456789").Drip(1, time.Second).ServeHTTP(w, r)
		}))
		b := f.network.Serve("b:80", evenkeeltest.OK("b"))
		f.use(evenkeel.WithResolver(discovery.List{a.Endpoint(), b.Endpoint()}), evenkeel.WithBalancer(first("a:80")), noBreaker)
		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		for i := range 9 {
			c := f.Config()
			c.HealthCheck = nil
			if i%2 == 0 {
				check := keenCheck
				check.Interval, check.Timeout, check.Fall = 100*time.Millisecond, 100*time.Millisecond, 1
				check.FastInterval, check.DownInterval, check.MaxDownInterval = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
				c.HealthCheck = &check
			}
			c.Outlier.Disabled = i%3 == 0
			require.NoError(t, f.Update(c))
			time.Sleep(500 * time.Millisecond)
			assert.Equal(t, i%2 == 0, f.why(0) == "unhealthy", "update %d", i)
			assert.EqualValues(t, 1, f.Stats().Pool.Endpoints[0].InFlight)
		}
		assert.Equal(t, "0123456789", readBody(t, resp))
		f.idle()
	})
}

// Given policies that are wrong, then New and Update name each field, and nothing has changed: not
// what Config returns, not what is known, and not what is done.
func TestHealth_InvalidConfig_P02(t *testing.T) {
	for _, row := range []struct {
		config evenkeel.Config
		fields []string
	}{
		{evenkeel.Config{HealthCheck: &health.Check{Interval: -1}}, []string{"HealthCheck.Interval"}},
		{evenkeel.Config{HealthCheck: &health.Check{Interval: time.Millisecond}}, []string{"HealthCheck.Interval"}},
		{evenkeel.Config{HealthCheck: &health.Check{Interval: time.Second, Timeout: 2 * time.Second}}, []string{"HealthCheck.Timeout"}},
		{evenkeel.Config{HealthCheck: &health.Check{Probe: health.HTTP{Path: "health"}}}, []string{"HealthCheck.Probe.Path"}},
		{evenkeel.Config{HealthCheck: &health.Check{Jitter: 1}}, []string{"HealthCheck.Jitter"}},
		{evenkeel.Config{Outlier: health.Outlier{MaxEjected: 1.5}}, []string{"Outlier.MaxEjected"}},
		{evenkeel.Config{Outlier: health.Outlier{Disabled: true, EjectFor: -1}}, []string{"Outlier.EjectFor"}},
		{
			evenkeel.Config{
				Balancer: balancer.Random{}, HealthCheck: &health.Check{Rise: -1, Fall: -1}, Outlier: health.Outlier{Enforce: 2, Jitter: 2},
				Timeout: -1,
			},
			[]string{"HealthCheck.Rise", "HealthCheck.Fall", "Outlier.Enforce", "Outlier.Jitter", "Timeout"},
		},
	} {
		t.Run(row.fields[0], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := evenkeel.New("http://users", evenkeel.WithConfig(row.config))
				require.Error(t, err)
				assert.Equal(t, row.fields, fieldsOf(err))

				w := newWard(t, []string{"a", "b", "c", "d"}, evenkeel.WithHealthCheck(keenCheck), evenkeel.WithOutlierDetection(brisk))
				w.of["a"].traffic.Store(500)
				w.of["b"].probe.Store(500)
				w.calls(20)
				w.until(5*time.Second, 0, w.isAway("b"))
				config, stats := w.Config(), w.Stats()
				w.events()
				err = w.Update(row.config)
				require.Error(t, err)
				assert.Equal(t, row.fields, fieldsOf(err))
				assert.Equal(t, config, w.Config())
				assert.Equal(t, stats, w.Stats())
				assert.Empty(t, w.events())
				assert.Equal(t, map[string]int{"c": 5, "d": 5}, w.calls(10))
				probes := w.of["c"].probes.Load()
				time.Sleep(10 * time.Second)
				assert.InDelta(t, 10, w.of["c"].probes.Load()-probes, 1)
			})
		})
	}
}

// What Config returns is the caller's: to change it changes nothing, until it is applied, and
// nothing at all if it is invalid.
func TestHealth_ConfigIsTheCallers_P02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, []string{"a"}, evenkeel.WithHealthCheck(keenCheck))
		c := w.Config()
		c.HealthCheck.Interval = -1
		require.Error(t, w.Update(c))
		assert.Equal(t, time.Second, w.Config().HealthCheck.Interval)
	})
}

// The options' structs are copied, too.
func TestHealth_OptionsAreCopied_P02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := keenCheck
		w := newWard(t, []string{"a"}, evenkeel.WithConfig(evenkeel.Config{HealthCheck: &check}))
		check.Interval = -1
		assert.Equal(t, time.Second, w.Config().HealthCheck.Interval)
		c := w.Config()
		other := keenCheck
		c.HealthCheck = &other
		require.NoError(t, w.Update(c))
		other.Interval = -1
		assert.Equal(t, time.Second, w.Config().HealthCheck.Interval)
	})
}

// Probes and detection can be switched off and on: what is switched off is forgotten, and nobody
// stays away because of it.
func TestHealth_UpdateSwitches_P01_H06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, []string{"a", "b", "c", "d"}, evenkeel.WithOutlierDetection(brisk))
		check := keenCheck
		w.of["a"].probe.Store(500)
		w.of["b"].traffic.Store(500)
		w.calls(20)
		require.Equal(t, "ejected", w.reasons("b"))
		for round := range 3 {
			w.set(func(c *evenkeel.Config) { c.HealthCheck = &check })
			took := w.until(5*time.Second, 0, w.isAway("a"))
			assert.LessOrEqual(t, took, 3*time.Second+step, "the first one within an interval, then two more")
			w.set(func(c *evenkeel.Config) { c.HealthCheck = nil })
			assert.Empty(t, w.reasons("a"), "round %d", round)
			assert.Equal(t, health.Unknown, w.health("a").State)
			had := w.of["a"].probes.Load()
			time.Sleep(time.Hour)
			assert.Equal(t, had, w.of["a"].probes.Load())
		}
		w.calls(20)
		require.Equal(t, "ejected", w.reasons("b"))
		w.events()
		w.set(func(c *evenkeel.Config) { c.Outlier.Disabled = true })
		assert.Empty(t, w.reasons("b"))
		assert.Equal(t, []string{"b return, consecutive failures"}, w.events())
		assert.Equal(t, map[string]int{"a": 5, "500": 5, "c": 5, "d": 5}, w.calls(20))
		w.set(func(c *evenkeel.Config) { c.Outlier.Disabled = false })
		w.calls(20)
		assert.Equal(t, "ejected", w.reasons("b"))
		assert.Equal(t, 1, w.health("b").Level, "its ejections begin anew")
		w.set(func(c *evenkeel.Config) { c.Outlier.Disabled, c.HealthCheck = true, &check })
		w.until(5*time.Second, 0, w.isAway("a"))
		w.set(func(c *evenkeel.Config) { *c = evenkeel.Config{Balancer: balancer.RoundRobin{}} })
		for _, name := range []string{"a", "b", "c", "d"} {
			assert.Empty(t, w.reasons(name))
		}
		w.idle()
	})
}

// Given a probe under way when probes are switched off, or off and on, then what it finds is not
// taken, and the next ones come at their intervals.
func TestHealth_UpdateDuringAProbe_P01_H06(t *testing.T) {
	for _, on := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			check := keenCheck
			check.Interval, check.Timeout, check.Fall = time.Minute, time.Minute, 1
			w := newWard(t, []string{"a", "b"}, evenkeel.WithHealthCheck(check))
			w.of["a"].probe.Store(hangs)
			w.of["b"].probe.Store(hangs) // or it may be healthy first, and would be unknown then
			w.until(time.Minute, 0, func() bool { return w.servers[0].ActiveRequests() == 1 })
			w.events()
			w.set(func(c *evenkeel.Config) { c.HealthCheck = nil })
			if on {
				w.set(func(c *evenkeel.Config) { c.HealthCheck = &check })
			}
			synctest.Wait()
			assert.Zero(t, w.servers[0].ActiveRequests(), "on again %v", on)
			assert.Equal(t, health.Unknown, w.health("a").State)
			assert.Empty(t, w.events())
			w.of["a"].probe.Store(0)
			had := w.of["a"].probes.Load()
			time.Sleep(10*time.Minute + time.Second)
			if on {
				assert.InDelta(t, 10, w.of["a"].probes.Load()-had, 1)
			} else {
				assert.Equal(t, had, w.of["a"].probes.Load())
			}
		})
	}
}

// A thousand policies leave neither goroutines nor timers, and no more connections than there are
// probes.
func TestHealth_AThousandUpdatesLeakNothing_P04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, []string{"a", "b", "c"}, evenkeel.WithHealthCheck(keenCheck), evenkeel.WithOutlierDetection(brisk))
		w.calls(3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		goroutines := runtime.NumGoroutine()
		conns := w.network.OpenConns("a:80")
		for i := range 1000 {
			check := keenCheck
			check.Interval = time.Duration(1+i%3) * time.Second
			check.Probe = []health.Probe{health.HTTP{}, health.TCP{}, health.HTTP{NewConnections: true}}[i%3]
			check.MaxConcurrent = 1 + i%5
			w.set(func(c *evenkeel.Config) {
				if c.HealthCheck = &check; i%7 == 0 {
					c.HealthCheck = nil
				}
				c.Outlier.Disabled, c.Outlier.SlowerBy = i%11 == 0, float64(i%2)*3
			})
			if i%10 == 0 {
				w.of["a"].traffic.Store([]int32{0, 500}[i/10%2])
				w.calls(3)
				time.Sleep(300 * time.Millisecond)
			}
		}
		check := keenCheck
		w.set(func(c *evenkeel.Config) { c.HealthCheck = &check })
		w.of["a"].traffic.Store(0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2)
		assert.InDelta(t, conns, w.network.OpenConns("a:80"), 2)
	})
}

// The same with the timers of a clock of the test's own: one for each probe that is waited for.
func TestHealth_AThousandUpdatesLeaveNoTimers_P04(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	check := health.Check{Probe: health.Func(func(context.Context, discovery.Endpoint) error { return nil })}
	tr, err := evenkeel.New("http://users", evenkeel.WithClock(fake), evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}),
		evenkeel.WithHealthCheck(check), evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return status500{} }))
	require.NoError(t, err)
	require.NoError(t, tr.Ready(context.Background()))
	call := func() {
		resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		resp.Body.Close()
	}
	for range 20 {
		call() // whatever can be ejected is
	}
	before := fake.Pending()
	for i := range 1000 {
		c := tr.Config()
		c.HealthCheck = nil
		if i%2 == 1 {
			other := check
			other.Interval = time.Duration(1+i%9) * time.Second
			c.HealthCheck = &other
		}
		c.Outlier.Interval = time.Duration(1+i%9) * time.Second
		require.NoError(t, tr.Update(c))
		if i%10 == 0 {
			call()
		}
	}
	assert.LessOrEqual(t, fake.Pending(), before+4, "one for the sweep, one for a rebuild, two for breakers that have opened")
	require.NoError(t, tr.Close())
	assert.Zero(t, fake.Pending())
}

// Policies that swap without pause during 10,000 calls at endpoints that fail, leave, are ejected and
// condemned: under -race, each call has an end, and no count is left.
func TestHealth_SwapsUnderLoad_P03_B01(t *testing.T) {
	const workers, calls = 20, 500
	const seed = 7
	t.Logf("seed %d", seed)
	var failing atomic.Int32 // which endpoint does
	probe := health.Func(func(_ context.Context, e discovery.Endpoint) error {
		if int32(e.Address[0]-'a') == failing.Load() {
			return health.ErrDown
		}
		return nil
	})
	check := health.Check{
		Probe: probe, Interval: 10 * time.Millisecond, FastInterval: 10 * time.Millisecond, DownInterval: 10 * time.Millisecond,
		MaxDownInterval: 10 * time.Millisecond,
	}
	out := health.Outlier{ConsecutiveFailures: 3, EjectFor: 10 * time.Millisecond, MaxEjectFor: 50 * time.Millisecond, Interval: 100 * time.Millisecond, SlowerBy: 2}
	policies := []evenkeel.Config{
		{Balancer: balancer.RoundRobin{}, HealthCheck: &check, Outlier: out, Breaker: breaker.Config{Mode: breaker.Disabled}},
		{Balancer: balancer.Random{}, Outlier: health.Outlier{Disabled: true}, Retry: retry.Policy{MaxAttempts: 1}},
		{Balancer: balancer.PeakEWMA{}, HealthCheck: &check},
		{Balancer: balancer.RoundRobin{}, Outlier: out, Retry: retry.Policy{MaxAttempts: 5}},
	}
	var ejected, condemned atomic.Int32
	r := newPushed()
	tr, err := evenkeel.New("http://users", evenkeel.WithConfig(policies[0]), evenkeel.WithResolver(r),
		evenkeel.WithEndpointTransport(func(e discovery.Endpoint) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				status := 200
				if int32(e.Address[0]-'a') == failing.Load() {
					status = 503
				}
				return answerTo(req, status, textBody("x")), nil
			})
		}),
		evenkeel.WithHooks(evenkeel.Hooks{Health: func(c health.Change) {
			switch c.Kind {
			case health.Eject:
				ejected.Add(1)
			case health.TurnedUnhealthy:
				condemned.Add(1)
			default:
			}
		}}))
	require.NoError(t, err)
	all := []discovery.Endpoint{{Address: "a:80"}, {Address: "b:80"}, {Address: "c:80"}, {Address: "d:80"}}
	push := func(endpoints ...discovery.Endpoint) {
		r.answers <- endpoints
		<-r.taken
	}
	push(all...)
	var over atomic.Bool
	var swapping, calling sync.WaitGroup
	swapping.Go(func() {
		random := rand.New(rand.NewPCG(seed, seed))
		for i := 0; !over.Load(); i++ {
			assert.NoError(t, tr.Update(policies[i%len(policies)]))
			failing.Store(int32(random.IntN(5)))
			if i%5 == 0 {
				push(all[random.IntN(3):]...)
			}
			tr.Stats()
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		}
	})
	for range workers {
		calling.Go(func() {
			for range calls {
				resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
				if !assert.NoError(t, err) {
					continue
				}
				resp.Body.Close()
				time.Sleep(time.Millisecond)
			}
		})
	}
	calling.Wait()
	over.Store(true)
	swapping.Wait()
	stats := tr.Stats()
	assert.Zero(t, stats.Active)
	assert.EqualValues(t, workers*calls, stats.Calls)
	for _, e := range stats.Pool.Endpoints {
		assert.Zero(t, e.InFlight)
	}
	assert.Positive(t, ejected.Load())
	assert.Positive(t, condemned.Load())
	t.Logf("%d ejections, %d condemned", ejected.Load(), condemned.Load())
	require.NoError(t, tr.Close())
}

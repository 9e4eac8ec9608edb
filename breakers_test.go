package evenkeel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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

// fragile is the breaker of these tests: two failures in a row open it, for exactly 5 s the
// first time, and one good probe closes it.
var fragile = breaker.Config{ConsecutiveFailures: 2, Jitter: breaker.Off, Probes: 1}

// fleet is servers in a bubble, and a transport that knows them.
type fleet struct {
	*testing.T
	*evenkeel.Transport
	network *evenkeeltest.Network
	servers []*evenkeeltest.Server
	down    map[string]*atomic.Int32 // the status that a server answers with, 0 for 200
	events  []breaker.Change
	mu      sync.Mutex // guards events
}

// newFleet serves the names, and makes a transport for them: without retries, in turn, and
// with fragile breakers, unless the options say otherwise.
func newFleet(t *testing.T, names []string, options ...evenkeel.Option) *fleet {
	t.Helper()
	f, list := serveFleet(t, names)
	f.use(append([]evenkeel.Option{evenkeel.WithResolver(list)}, options...)...)
	require.NoError(t, f.Ready(t.Context()))
	return f
}

// serveFleet makes no transport yet.
func serveFleet(t *testing.T, names []string) (*fleet, discovery.List) {
	t.Helper()
	f := &fleet{T: t, network: evenkeeltest.NewNetwork(t), down: map[string]*atomic.Int32{}}
	list := discovery.List{}
	for _, name := range names {
		status := new(atomic.Int32)
		f.down[name] = status
		server := f.network.Serve(name+":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if code := int(status.Load()); code != 0 {
				evenkeeltest.Status(code).Body("sorry").ServeHTTP(w, r)
				return
			}
			evenkeeltest.OK(name).ServeHTTP(w, r)
		}))
		f.servers = append(f.servers, server)
		list = append(list, server.Endpoint())
	}
	return f, list
}

// bare is a fleet without servers and without a transport.
func bare(t *testing.T) *fleet {
	t.Helper()
	f, _ := serveFleet(t, nil)
	return f
}

// use makes the transport.
func (f *fleet) use(options ...evenkeel.Option) {
	f.Helper()
	tr, err := evenkeel.New("http://users", append([]evenkeel.Option{
		evenkeel.WithTransport(f.network.Transport()), evenkeel.WithBalancer(balancer.RoundRobin{}),
		evenkeel.WithBreaker(fragile), evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
		evenkeel.WithRules(balancer.Rules{SlowStart: balancer.SlowStart{Window: -1}}),
		evenkeel.WithHooks(evenkeel.Hooks{Breaker: f.note}),
	}, options...)...)
	require.NoError(f, err)
	f.Cleanup(func() { assert.NoError(f, tr.Close()) })
	f.Transport = tr
}

func (f *fleet) note(c breaker.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, c)
}

// told returns the events so far, as text without instants.
func (f *fleet) told() (list []string) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.events {
		list = append(list, fmt.Sprintf("%s: %s, %s", c.Name, c.To, c.Reason))
	}
	return list
}

// call makes a call and returns who answered, or the status if that is not 200.
func (f *fleet) call() (string, error) {
	f.Helper()
	return f.send(getRequest(f, "http://users/"))
}

func (f *fleet) send(req *http.Request) (string, error) {
	resp, err := f.RoundTrip(req)
	if err != nil {
		assert.Nil(f, resp, "an error beside a response")
		return "", err
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode), nil
	}
	return string(body), nil
}

// calls makes so many calls and returns how often who answered.
func (f *fleet) calls(n int) map[string]int {
	f.Helper()
	got := map[string]int{}
	for range n {
		who, err := f.call()
		if err != nil {
			who = "error"
		}
		got[who]++
	}
	return got
}

// state returns what the breaker of an endpoint does.
func (f *fleet) state(name string) breaker.Status {
	f.Helper()
	for _, s := range f.Stats().Breakers {
		if strings.HasPrefix(s.Name, name+":80") { // its ID may follow
			return s
		}
	}
	require.Fail(f, "no breaker", name)
	return breaker.Status{}
}

// breakerOf returns the breaker of an endpoint.
func (f *fleet) breakerOf(name string) *breaker.Breaker {
	f.Helper()
	for _, b := range f.Breakers() {
		if b.Name() == name+":80" || strings.HasPrefix(b.Name(), name+":80 (") {
			return b
		}
	}
	require.Fail(f, "no breaker", name)
	return nil
}

// open makes servers fail until their breakers are open, and then well again unless they
// are to stay ill.
func (f *fleet) open(ill bool, names ...string) {
	f.Helper()
	for _, name := range names {
		f.down[name].Store(500)
	}
	for i := 0; !f.areOpen(names); i++ {
		require.Less(f, i, 1000, "they do not open")
		_, err := f.call()
		require.NoError(f, err)
		time.Sleep(10 * time.Millisecond) // some algorithms avoid for a while what has failed
	}
	if !ill {
		f.heal(names...)
	}
}

func (f *fleet) areOpen(names []string) bool {
	for _, name := range names {
		if f.state(name).State != breaker.Open {
			return false
		}
	}
	return true
}

func (f *fleet) heal(names ...string) {
	for _, name := range names {
		f.down[name].Store(0)
	}
}

// idle asserts that nothing is in flight.
func (f *fleet) idle() {
	f.Helper()
	synctest.Wait()
	stats := f.Stats()
	assert.Zero(f, stats.Active)
	for _, e := range stats.Pool.Endpoints {
		assert.Zero(f, e.InFlight, "%s", e.Endpoint)
	}
}

// pickers are algorithms with and without keys.
func pickers() map[string]balancer.Algorithm {
	keys := []balancer.HashKey{{Header: "X-User"}}
	return map[string]balancer.Algorithm{
		"round robin": balancer.RoundRobin{}, "random": balancer.Random{}, "least request": balancer.LeastRequest{},
		"peak EWMA": balancer.PeakEWMA{}, "maglev": balancer.Maglev{Keys: keys, TableSize: 251}, "ring": balancer.RingHash{Keys: keys},
		"rendezvous": balancer.Rendezvous{Keys: keys},
	}
}

// Given A open and B closed, then B is used: there is no attempt at A, no wait, nothing is
// taken from the quota, and there is no event.
func TestBreakers_OpenIsSkipped_K15(t *testing.T) {
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f *fleet
				var attempts, decisions counter
				f = newFleet(t, []string{"a", "b"}, evenkeel.WithBalancer(algorithm), evenkeel.WithRetry(retry.Policy{}),
					evenkeel.WithHooks(evenkeel.Hooks{
						Attempt: func(a evenkeel.Attempt) { attempts.add(a.Endpoint.Address) },
						Decided: func(d retry.Decision) { decisions.add(d.Endpoint) },
					}))
				f.open(true, "a")
				requests, before := f.servers[0].Requests(), f.Stats()
				attemptsAtA, decisionsAtA := attempts.get("a:80"), decisions.get("a:80")
				start := time.Now()
				for i := range 100 {
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(i))
					who, err := f.send(req)
					require.NoError(t, err)
					assert.Equal(t, "b", who)
				}
				assert.Zero(t, time.Since(start), "nobody has waited")
				assert.Equal(t, requests, f.servers[0].Requests())
				assert.Equal(t, attemptsAtA, attempts.get("a:80"))
				assert.Equal(t, decisionsAtA, decisions.get("a:80"))
				after := f.Stats()
				assert.Equal(t, before.Retries, after.Retries)
				assert.GreaterOrEqual(t, after.QuotaTokens, before.QuotaTokens)
				assert.Equal(t, before.Pool.Endpoints[0].Attempts, after.Pool.Endpoints[0].Attempts)
				assert.Equal(t, "open", after.Pool.Endpoints[0].Unavailable)
				assert.Empty(t, after.Pool.Endpoints[1].Unavailable)
				assert.False(t, after.Pool.Panic)
				assert.Zero(t, f.state("a").Counts.Rejected, "nobody had to be refused")
				f.idle()
			})
		})
	}
}

// What a failing endpoint costs until its breaker opens: so many attempts, and not one
// call, for it is repeated elsewhere.
func TestBreakers_OpenWithoutAFailedCall_K15(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b", "c"}, evenkeel.WithRetry(retry.Policy{}))
		f.down["a"].Store(503)
		for range 100 {
			who, err := f.call()
			require.NoError(t, err)
			assert.NotEqual(t, "503", who)
		}
		f.servers[0].AssertRequests(t, 2)
		stats := f.Stats()
		assert.EqualValues(t, 2, stats.Retries)
		assert.Zero(t, stats.Failed)
		assert.Equal(t, []string{"a:80: open, consecutive_failures"}, f.told())
	})
}

// Given all open, then by default the calls go out all the same: it is more likely that
// something else is wrong.
func TestBreakers_AllOpenIsPanic_K15_B09(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b", "c"})
		f.open(true, "a", "b", "c")
		require.True(t, f.Stats().Pool.Panic)
		start := time.Now()
		assert.Equal(t, map[string]int{"500": 9}, f.calls(9))
		for _, server := range f.servers {
			assert.GreaterOrEqual(t, server.Requests(), 2+3)
		}
		assert.Zero(t, time.Since(start))
		for _, name := range []string{"a", "b", "c"} {
			assert.Equal(t, breaker.Open, f.state(name).State)
		}
		f.idle()
	})
}

// Given all open and no panic, then a call fails at once: with an error that says what to
// come back for, and when. As soon as that time is over it is sent again.
func TestBreakers_AllOpenIsRejected_K15(t *testing.T) {
	for name, panicking := range map[string]balancer.Panic{"reject": {Reject: true}, "off": {Threshold: -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, []string{"a", "b"}, evenkeel.WithRetry(retry.Policy{}),
					evenkeel.WithRules(balancer.Rules{Panic: panicking, SlowStart: balancer.SlowStart{Window: -1}}))
				f.open(true, "a")
				time.Sleep(2 * time.Second)
				f.open(true, "b")
				soonest := f.state("a").Until
				time.Sleep(time.Second)
				before, sent := f.Stats(), f.servers[0].Requests()+f.servers[1].Requests()

				start := time.Now()
				body := evenkeeltest.NewBody("order 1")
				req := getRequest(t, "http://users/")
				req.Method = http.MethodPost
				body.Stream(req)
				_, err := f.send(req)
				assert.Zero(t, time.Since(start), "at once")
				body.AssertClosed(t)
				var failed *evenkeel.Error
				require.ErrorAs(t, err, &failed)
				assert.Equal(t, outcome.Open, failed.Reason)
				assert.Empty(t, failed.Attempts)
				require.ErrorIs(t, err, balancer.ErrNoEndpoints)
				var none *balancer.NoEndpointsError
				require.ErrorAs(t, err, &none)
				var refused *breaker.OpenError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, "a:80", refused.Name)
				assert.Equal(t, soonest, refused.Until)
				assert.Equal(t, time.Until(soonest), refused.RetryAfter())
				assert.ErrorContains(t, err, "a:80 is open (consecutive_failures), next try in "+time.Until(soonest).String())

				after := f.Stats()
				assert.Equal(t, before.QuotaTokens, after.QuotaTokens)
				assert.Equal(t, sent, f.servers[0].Requests()+f.servers[1].Requests())
				f.heal("a", "b")
				time.Sleep(time.Until(soonest))
				synctest.Wait()
				who, err := f.call()
				require.NoError(t, err)
				assert.Equal(t, "a", who)
				assert.Equal(t, breaker.Closed, f.state("a").State)
				f.idle()
			})
		})
	}
}

// A gateway that got this error can answer with 503 and Retry-After.
func TestBreakers_RejectionAsAnAnswer_K15(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithRules(balancer.Rules{Panic: balancer.Panic{Threshold: -1}}))
		f.open(true, "a")
		time.Sleep(500 * time.Millisecond)
		_, err := f.call()
		var answer http.Handler
		require.ErrorAs(t, err, &answer)
		w := httptest.NewRecorder()
		answer.ServeHTTP(w, nil)
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "5", w.Header().Get("Retry-After"))
	})
}

// Given 200 callers at the instant at which the open time is up, then the endpoint gets
// exactly as many attempts as there are probes, and when those are good, all.
func TestBreakers_ExactlyNProbes_K03_K08(t *testing.T) {
	const probes, callers = 3, 200
	cfg := fragile
	cfg.Probes = probes
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var slow atomic.Bool
				f := newFleet(t, []string{"a", "b"}, evenkeel.WithBalancer(algorithm), evenkeel.WithBreaker(cfg),
					evenkeel.WithAttempt(func(next http.RoundTripper) http.RoundTripper {
						return roundTripper(func(req *http.Request) (*http.Response, error) {
							if slow.Load() {
								time.Sleep(time.Second)
							}
							return next.RoundTrip(req)
						})
					}))
				f.open(false, "a")
				had := f.servers[0].Requests()
				slow.Store(true)
				until := f.state("a").Until
				start := make(chan struct{})
				var calling sync.WaitGroup
				var atA atomic.Int32
				for i := range callers {
					req := getRequest(t, "http://users/")
					req.Header.Set("X-User", fmt.Sprint(i))
					calling.Go(func() {
						<-start
						who, err := f.send(req)
						assert.NoError(t, err)
						if who == "a" {
							atA.Add(1)
						}
					})
				}
				time.Sleep(time.Until(until))
				synctest.Wait()
				close(start)
				synctest.Wait()
				assert.Equal(t, breaker.HalfOpen, f.state("a").State)
				inFlight := f.Stats().Pool.Endpoints[0].InFlight
				learns := name == "least request" || name == "peak EWMA"
				assert.LessOrEqual(t, inFlight, int64(probes))
				if !learns { // others may prefer b
					assert.EqualValues(t, probes, inFlight)
				}
				calling.Wait()
				assert.EqualValues(t, inFlight, atA.Load())
				assert.Equal(t, had+int(inFlight), f.servers[0].Requests())
				for i := 0; f.state("a").State != breaker.Closed; i++ {
					require.Less(t, i, 1000, "it does not close")
					_, err := f.call()
					require.NoError(t, err)
				}
				assert.Equal(t, []string{
					"a:80: open, consecutive_failures", "a:80: half-open, open_time_over", "a:80: closed, probes_succeeded",
				}, f.told())
				f.idle()
			})
		})
	}
}

// Given probes that hang, then they are given up, the endpoint is tried again later, and
// when it recovers, it serves. Nobody need ask meanwhile.
func TestBreakers_HungProbes_K08(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fragile
		cfg.Probes, cfg.ProbeTimeout = 2, 10*time.Second
		f := newFleet(t, []string{"a", "b"}, evenkeel.WithBreaker(cfg))
		f.open(false, "a")
		f.servers[0].Freeze()
		time.Sleep(time.Until(f.state("a").Until))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var hung sync.WaitGroup
		for range 8 {
			hung.Go(func() { _, _ = f.send(getRequest(t, "http://users/").WithContext(ctx)) })
		}
		synctest.Wait()
		assert.EqualValues(t, 2, f.Stats().Pool.Endpoints[0].InFlight)
		assert.Equal(t, map[string]int{"b": 10}, f.calls(10), "its places are taken")
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{
			"a:80: open, consecutive_failures", "a:80: half-open, open_time_over", "a:80: open, probe_timed_out",
		}, f.told())
		reopened := f.state("a")
		assert.Equal(t, 10*time.Second, reopened.Until.Sub(reopened.Since), "twice as long")
		cancel() // too late to matter
		hung.Wait()
		assert.Equal(t, breaker.Open, f.state("a").State)

		f.servers[0].Thaw()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, f.calls(10))
		assert.Equal(t, breaker.Closed, f.state("a").State)
		f.idle()
	})
}

// In panic the calls that go out all the same find out that an endpoint works again,
// before its time is up.
func TestBreakers_PanicFindsOut_K08_B09(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := fragile
		cfg.ProbeSuccesses, cfg.OpenFor = 3, time.Hour
		f := newFleet(t, []string{"a"}, evenkeel.WithBreaker(cfg))
		f.open(false, "a")
		assert.Equal(t, map[string]int{"a": 2}, f.calls(2))
		assert.Equal(t, breaker.Open, f.state("a").State)
		f.down["a"].Store(500)
		assert.Equal(t, map[string]int{"500": 1}, f.calls(1))
		f.heal("a")
		assert.Equal(t, map[string]int{"a": 2}, f.calls(2))
		assert.Equal(t, breaker.Open, f.state("a").State, "the failure was between them")
		assert.Equal(t, map[string]int{"a": 1}, f.calls(1))
		assert.Equal(t, breaker.Closed, f.state("a").State)
		assert.False(t, f.Stats().Pool.Panic)
		assert.Equal(t, []string{"a:80: open, consecutive_failures", "a:80: closed, probes_succeeded"}, f.told())
	})
}

// Given 3 attempts at 3 endpoints, then each breaker has one sample, and that of the target
// one for the whole call.
func TestBreakers_OneSamplePerAttempt_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b", "c"}, evenkeel.WithRetry(retry.Policy{}), evenkeel.WithTargetBreaker(breaker.Config{}))
		for _, name := range []string{"a", "b", "c"} {
			f.down[name].Store(503)
		}
		assert.Equal(t, map[string]int{"503": 1}, f.calls(1))
		failed := breaker.Counts{Failures: 1, ConsecutiveFailures: 1}
		for _, name := range []string{"a", "b", "c"} {
			assert.Equal(t, failed, f.state(name).Counts, name)
		}
		assert.Equal(t, failed, f.Stats().TargetBreaker.Counts)
		for _, server := range f.servers {
			server.AssertRequests(t, 1)
		}
	})
}

// Whatever the callers do, it says nothing about the endpoints. Time limits of ours do.
func TestBreakers_CallersAreNeutral_K01(t *testing.T) {
	errLeft := errors.New("the user has left")
	for _, row := range []struct {
		name    string
		neutral bool
		option  evenkeel.Option
		ctx     func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"cancel", true, evenkeel.WithTimeout(time.Hour), func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}},
		{"cancel with a cause", true, evenkeel.WithTimeout(time.Hour), func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errLeft) })
			return ctx, func() { cancel(nil) }
		}},
		{"deadline", true, evenkeel.WithTimeout(time.Hour), func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}},
		{"time limit of the attempt", false, evenkeel.WithRetry(retry.Policy{MaxAttempts: 1, PerAttemptTimeout: time.Second}), context.WithCancel},
		{"time limit of the call", false, evenkeel.WithTimeout(time.Second), context.WithCancel},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, []string{"a"}, evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 3}),
					evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 3}), row.option)
				f.calls(1)
				f.servers[0].Freeze()
				const calls = 100
				var calling sync.WaitGroup
				for range calls {
					calling.Go(func() {
						ctx, cancel := row.ctx(t.Context())
						defer cancel()
						_, err := f.send(getRequest(t, "http://users/").WithContext(ctx))
						assert.Error(t, err)
					})
				}
				calling.Wait()
				endpoint, target := f.state("a"), f.Stats().TargetBreaker
				if row.neutral {
					assert.Equal(t, breaker.Closed, endpoint.State)
					assert.Equal(t, breaker.Counts{Successes: 1}, endpoint.Counts)
					assert.Equal(t, breaker.Counts{Successes: 1}, target.Counts)
				} else {
					assert.Equal(t, breaker.Open, endpoint.State)
					assert.Equal(t, breaker.Open, target.State)
				}
				f.servers[0].Thaw()
				f.idle()
			})
		})
	}
}

// A panic in an attempt counts as one failure of the endpoint and of the target, and leaves
// nothing behind.
func TestBreakers_PanicOfAnAttempt_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := true
		f := newFleet(t, []string{"a"}, evenkeel.WithTargetBreaker(fragile),
			evenkeel.WithAttempt(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(req *http.Request) (*http.Response, error) {
					if boom {
						panic("ordered")
					}
					return next.RoundTrip(req)
				})
			}))
		assert.PanicsWithValue(t, "ordered", func() { _, _ = f.call() })
		failed := breaker.Counts{Failures: 1, ConsecutiveFailures: 1}
		assert.Equal(t, failed, f.state("a").Counts)
		assert.Equal(t, failed, f.Stats().TargetBreaker.Counts)
		f.idle()
		assert.PanicsWithValue(t, "ordered", func() { _, _ = f.call() })
		require.Equal(t, breaker.Open, f.Stats().TargetBreaker.State)
		time.Sleep(5 * time.Second)
		boom = false
		assert.Equal(t, map[string]int{"a": 1}, f.calls(1), "the places of the probes are free")
		assert.Equal(t, breaker.Closed, f.Stats().TargetBreaker.State)
		assert.Equal(t, breaker.Closed, f.state("a").State)
	})
}

// A body that breaks is one failure of the endpoint and one of the target, in place of the
// success that its headers were.
func TestBreakers_BrokenBody_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		server := f.network.Serve("a:80", evenkeeltest.Script(
			evenkeeltest.OK("a"), evenkeeltest.OK("all of it").CloseMidBody(3), evenkeeltest.Status(404).Body("not here").CloseMidBody(3)))
		f.use(evenkeel.WithResolver(discovery.List{server.Endpoint()}), evenkeel.WithTargetBreaker(breaker.Config{}),
			evenkeel.WithBreaker(breaker.Config{}))
		for i, want := range []breaker.Counts{
			{Successes: 1},
			{Successes: 1, Failures: 1, ConsecutiveFailures: 1},
			{Successes: 1, Failures: 2, ConsecutiveFailures: 2},
		} {
			f.calls(1)
			assert.Equal(t, want, f.state("a").Counts, "endpoint, call %d", i)
			assert.Equal(t, want, f.Stats().TargetBreaker.Counts, "target, call %d", i)
		}
		f.idle()
	})
}

// What an answer means to the breaker of its endpoint.
func TestBreakers_Answers_K06_K07(t *testing.T) {
	for _, row := range []struct {
		name string
		step http.Handler
		want breaker.Counts
		open time.Duration // after two
	}{
		{"400", evenkeeltest.Status(400), breaker.Counts{}, 0},
		{"404", evenkeeltest.Status(404), breaker.Counts{}, 0},
		{"429", evenkeeltest.Status(429).Header("Retry-After", "60"), breaker.Counts{}, 0},
		{"501", evenkeeltest.Status(501), breaker.Counts{}, 0},
		{"500", evenkeeltest.Status(500), breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, 5 * time.Second},
		{"503", evenkeeltest.Status(503), breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, 5 * time.Second},
		{"503 for long", evenkeeltest.Status(503).Header("Retry-After", "60"), breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, time.Minute},
		{"reset", evenkeeltest.ResetAfter(0), breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := bare(t)
				server := f.network.Serve("a:80", row.step)
				f.use(evenkeel.WithResolver(discovery.List{server.Endpoint()}), evenkeel.WithTargetBreaker(fragile))
				f.calls(1)
				assert.Equal(t, row.want, f.state("a").Counts)
				assert.Equal(t, row.want, f.Stats().TargetBreaker.Counts)
				f.calls(1)
				for _, s := range []breaker.Status{f.state("a"), *f.Stats().TargetBreaker} {
					if row.open == 0 {
						assert.Equal(t, breaker.Closed, s.State, s.Name)
					} else {
						assert.Equal(t, row.open, s.Until.Sub(s.Since), s.Name)
					}
				}
			})
		})
	}
}

// Given a server that lets go of its connections in good order, as one does that restarts,
// then that is no failure: the request was not begun, and goes out again.
func TestBreakers_GoAwayIsNoFailure(t *testing.T) {
	for name, step := range map[string]func(uint32) []byte{"GOAWAY": goAway, "REFUSED_STREAM": resetStream(codeRefusedStream)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw := serveRaw(t, step, answer200, step, answer200)
				f := bare(t)
				template := f.network.TransportH2C()
				template.DialContext = raw.dial(nil)
				f.use(evenkeel.WithResolver(discovery.Static{"a:80"}), evenkeel.WithTransport(template),
					evenkeel.WithRetry(retry.Policy{Backoff: retry.Backoff{Base: soon}}), evenkeel.WithTargetBreaker(fragile))
				for i := range 2 {
					req := getRequest(t, "http://users/")
					req.Method = http.MethodPost
					evenkeeltest.NewBody("order 1").Replayable(req)
					resp, err := f.RoundTrip(req)
					require.NoError(t, err)
					resp.Body.Close()
					assert.Equal(t, breaker.Counts{Successes: i + 1}, f.state("a").Counts)
					assert.Equal(t, breaker.Counts{Successes: i + 1}, f.Stats().TargetBreaker.Counts)
				}
				assert.Equal(t, 4, raw.received())
			})
		})
	}
}

// Given an endpoint that an operator has forced open, then it is never used, not even in
// panic, and is used again when he lets it.
func TestBreakers_ForcedOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b", "c"}, evenkeel.WithRetry(retry.Policy{}))
		f.calls(3)
		had := f.servers[0].Requests()
		require.NoError(t, f.breakerOf("a").SetMode(breaker.ForcedOpen))
		assert.Equal(t, "forced open", f.Stats().Pool.Endpoints[0].Unavailable)
		assert.Equal(t, map[string]int{"b": 10, "c": 10}, f.calls(20))
		f.open(true, "b", "c")
		require.True(t, f.Stats().Pool.Panic)
		for range 10 {
			assert.Equal(t, map[string]int{"500": 5}, f.calls(5))
			time.Sleep(time.Minute)
		}
		assert.Equal(t, had, f.servers[0].Requests())

		for _, name := range []string{"b", "c"} {
			require.NoError(t, f.breakerOf(name).SetMode(breaker.ForcedOpen))
		}
		_, err := f.call()
		require.ErrorIs(t, err, balancer.ErrNoEndpoints)
		var refused *breaker.OpenError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, breaker.ModeSet, refused.Because)
		assert.Zero(t, refused.RetryAfter())

		require.NoError(t, f.breakerOf("a").SetMode(breaker.Auto))
		assert.Equal(t, map[string]int{"a": 5}, f.calls(5))
	})
}

// In the modes that do not interfere, picks are those of a transport without breakers. What
// MetricsOnly would have done, it tells.
func TestBreakers_ModesThatDoNotInterfere(t *testing.T) {
	for _, row := range []struct {
		mode   breaker.Mode
		states []breaker.State // of a, in the order of events
	}{
		{breaker.Disabled, nil},
		{breaker.MetricsOnly, []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Open, breaker.HalfOpen, breaker.Open}},
	} {
		t.Run(row.mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := fragile
				cfg.Mode = row.mode
				f := newFleet(t, []string{"a", "b"}, evenkeel.WithBreaker(cfg),
					evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
				f.down["a"].Store(500)
				for range 20 { // seconds
					assert.Equal(t, map[string]int{"500": 2, "b": 2}, f.calls(4))
					for _, e := range f.Stats().Pool.Endpoints {
						assert.Empty(t, e.Unavailable)
					}
					time.Sleep(time.Second)
				}
				f.told()
				var got []breaker.State
				for _, c := range f.events {
					assert.Equal(t, "a:80", c.Name)
					assert.Equal(t, row.mode, c.Mode)
					got = append(got, c.To)
				}
				assert.Equal(t, row.states, got)
				assert.Equal(t, row.mode, f.state("a").Mode)
				if row.mode == breaker.Disabled {
					assert.Equal(t, breaker.Counts{}, f.state("a").Counts)
				}
			})
		})
	}
}

// A new policy keeps open breakers open, until the instant that they had, and what they
// have counted.
func TestBreakers_UpdateKeepsState_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b"}, evenkeel.WithThrottle(breaker.ThrottleConfig{}),
			evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 50, FailureRate: breaker.Off, Jitter: breaker.Off}))
		f.open(true, "a")
		f.down["b"].Store(500)
		f.calls(1)
		before := f.Stats()
		require.Equal(t, 1, f.state("b").Counts.ConsecutiveFailures)

		time.Sleep(time.Second)
		c := f.Config()
		c.Balancer = balancer.Random{}
		c.Breaker.OpenFor, c.Breaker.Window = time.Minute, 10*time.Second
		target := *c.TargetBreaker
		target.OpenFor = time.Minute
		c.TargetBreaker = &target
		throttle := *c.Throttle
		throttle.K = 3
		c.Throttle = &throttle
		require.NoError(t, f.Update(c))
		after := f.Stats()
		for i := range before.Breakers {
			before.Breakers[i].Counts.Rejected = after.Breakers[i].Counts.Rejected
		}
		assert.Equal(t, before.Breakers, after.Breakers)
		assert.Equal(t, before.TargetBreaker, after.TargetBreaker)
		assert.Equal(t, before.Throttle.Requests, after.Throttle.Requests)
		assert.Equal(t, before.Throttle.Accepts, after.Throttle.Accepts)
		assert.Equal(t, "open", after.Pool.Endpoints[0].Unavailable)
		had := f.servers[0].Requests()
		f.heal("b")
		assert.Equal(t, map[string]int{"b": 20}, f.calls(20))
		assert.Equal(t, had, f.servers[0].Requests())

		time.Sleep(4 * time.Second) // 5 in all
		assert.Equal(t, breaker.HalfOpen, f.state("a").State)
		for f.state("a").State == breaker.HalfOpen {
			f.calls(1)
		}
		s := f.state("a")
		assert.Equal(t, 2*time.Minute, s.Until.Sub(s.Since), "the next time by the new policy")
		require.NoError(t, f.Update(f.Config()))
		assert.Equal(t, s, f.state("a"))

		for f.Stats().TargetBreaker.State == breaker.Closed {
			f.down["b"].Store(500)
			f.calls(1)
		}
		guard := f.Stats().TargetBreaker
		assert.Equal(t, time.Minute, guard.Until.Sub(guard.Since), "that of the target, too")
		c = f.Config()
		for _, k := range []float64{1, 1.5} {
			c.Throttle = &breaker.ThrottleConfig{K: k, MinRate: breaker.Off, MaxReject: 1}
			require.NoError(t, f.Update(c))
			counts := f.Stats().Throttle
			asked, accepted := float64(counts.Requests), float64(counts.Accepts)
			require.Greater(t, asked, k*accepted)
			assert.InDelta(t, (asked-k*accepted)/(asked+1), counts.Refusal, 1e-9)
		}
	})
}

// What guards the calls can be switched off and on.
func TestBreakers_UpdateSwitches_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b"}, evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
		f.open(true, "a")
		set := func(change func(*evenkeel.Config)) {
			t.Helper()
			c := f.Config()
			change(&c)
			require.NoError(t, f.Update(c))
		}
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.Disabled })
		assert.Equal(t, map[string]int{"500": 10, "b": 10}, f.calls(20))
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.Auto })
		assert.Equal(t, breaker.Closed, f.state("a").State, "it begins anew")
		assert.Equal(t, map[string]int{"500": 2, "b": 18}, f.calls(20))
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.MetricsOnly })
		assert.Equal(t, breaker.Open, f.state("a").State, "it stays")
		assert.Equal(t, map[string]int{"500": 10, "b": 10}, f.calls(20))
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.Auto })
		assert.Equal(t, map[string]int{"b": 20}, f.calls(20))
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.ForcedOpen })
		assert.Equal(t, map[string]int{"error": 2}, f.calls(2))
		set(func(c *evenkeel.Config) { c.Breaker.Mode = breaker.Auto })
		f.heal("a")
		assert.Equal(t, map[string]int{"a": 10, "b": 10}, f.calls(20))

		assert.Nil(t, f.Stats().TargetBreaker)
		assert.Nil(t, f.Stats().Throttle)
		set(func(c *evenkeel.Config) {
			c.TargetBreaker, c.Throttle = &breaker.Config{Mode: breaker.ForcedOpen}, &breaker.ThrottleConfig{MinRate: breaker.Off}
		})
		assert.Equal(t, breaker.ForcedOpen, f.Stats().TargetBreaker.Mode)
		assert.Equal(t, map[string]int{"error": 2}, f.calls(2))
		set(func(c *evenkeel.Config) { c.TargetBreaker = nil })
		assert.Equal(t, map[string]int{"a": 1, "b": 1}, f.calls(2))
		assert.Equal(t, breaker.ThrottleStatus{Requests: 2, Accepts: 2}, *f.Stats().Throttle)
		set(func(c *evenkeel.Config) { c.Throttle = nil })
		assert.Nil(t, f.Stats().TargetBreaker)
		assert.Nil(t, f.Stats().Throttle)
		f.idle()
	})
}

// An invalid configuration is refused with the name of each field, by New and by Update,
// and nothing changes.
func TestBreakers_InvalidConfig_P02(t *testing.T) {
	for _, row := range []struct {
		config evenkeel.Config
		fields []string
	}{
		{evenkeel.Config{Breaker: breaker.Config{FailureRate: 1.5}}, []string{"Breaker.FailureRate"}},
		{evenkeel.Config{Breaker: breaker.Config{Mode: 9, OpenFor: -1}}, []string{"Breaker.Mode", "Breaker.OpenFor"}},
		{evenkeel.Config{TargetBreaker: &breaker.Config{Window: time.Millisecond}}, []string{"TargetBreaker.Window"}},
		{evenkeel.Config{Throttle: &breaker.ThrottleConfig{K: 0.5}}, []string{"Throttle.K"}},
		{evenkeel.Config{
			Breaker:       breaker.Config{ProbeSuccesses: -1, Window: time.Second, WindowCalls: 10},
			TargetBreaker: &breaker.Config{Jitter: 2}, Throttle: &breaker.ThrottleConfig{MaxReject: -1, Window: 1}, Timeout: -1,
		}, []string{"Breaker.ProbeSuccesses", "Breaker.WindowCalls", "TargetBreaker.Jitter", "Throttle.MaxReject", "Throttle.Window", "Timeout"}},
	} {
		t.Run(row.fields[0], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fields := func(err error) (list []string) {
					var joined interface{ Unwrap() []error }
					require.ErrorAs(t, err, &joined)
					for _, e := range joined.Unwrap() {
						var wrong *evenkeel.FieldError
						require.ErrorAs(t, e, &wrong)
						list = append(list, wrong.Field)
					}
					slices.Sort(list)
					return list
				}
				_, err := evenkeel.New("http://users", evenkeel.WithConfig(row.config))
				assert.Equal(t, row.fields, fields(err))

				f := newFleet(t, []string{"a", "b"}, evenkeel.WithTargetBreaker(breaker.Config{}), evenkeel.WithThrottle(breaker.ThrottleConfig{}))
				f.open(false, "a")
				config, stats := f.Config(), f.Stats()
				assert.Equal(t, row.fields, fields(f.Update(row.config)))
				assert.Equal(t, config, f.Config())
				assert.Equal(t, stats, f.Stats())
				assert.Equal(t, map[string]int{"b": 4}, f.calls(4))
			})
		})
	}
}

// An endpoint that leaves takes its breaker along, and with it the timer. The same address
// under another identity starts closed.
func TestBreakers_EndpointLeaves_K14_B14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Now())
		f := bare(t)
		a, b := f.network.Serve("a:80", evenkeeltest.Status(500)), f.network.Serve("b:80", evenkeeltest.OK("b"))
		r := newPushed()
		f.use(evenkeel.WithResolver(r), evenkeel.WithClock(fake), evenkeel.WithDrainTimeout(-1))
		r.push(b.Endpoint())
		f.calls(1) // from now on rates are looked at
		one, other := discovery.Endpoint{ID: "pod-1", Address: a.Addr()}, b.Endpoint()
		r.push(other)
		quiet := fake.Pending()
		r.push(one, other)
		for range 8 {
			f.calls(1)
		}
		require.Equal(t, breaker.Open, f.state("a").State)
		r.push(other)
		require.Len(t, f.Stats().Breakers, 1)
		assert.Equal(t, "b:80", f.Stats().Breakers[0].Name)
		assert.Equal(t, quiet, fake.Pending(), "timers")

		one.ID = "pod-2"
		r.push(one, other)
		assert.Equal(t, breaker.Closed, f.state("a").State)
		assert.Equal(t, breaker.Counts{}, f.state("a").Counts)
		assert.Positive(t, f.calls(6)["500"])
		require.Equal(t, breaker.Open, f.state("a").State)
		one.ID = "pod-3" // without being away
		r.push(one, other)
		assert.Equal(t, breaker.Closed, f.state("a").State)
		assert.Len(t, f.Stats().Breakers, 2)
		require.NoError(t, f.Close())
		assert.Zero(t, fake.Pending(), "timers after Close")
	})
}

// The breaker of the target counts calls with all their attempts. Open, it refuses calls
// before anything is tried.
func TestTargetBreaker_CountsCalls_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithRetry(retry.Policy{Backoff: retry.Backoff{Base: soon}}),
			evenkeel.WithTargetBreaker(fragile), evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}))
		target := func() breaker.Status { return *f.Stats().TargetBreaker }
		assert.Equal(t, "http://users:80", target().Name)
		f.down["a"].Store(503)
		f.calls(1)
		f.servers[0].AssertRequests(t, 3)
		assert.Equal(t, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, target().Counts)
		f.calls(1)
		f.servers[0].AssertRequests(t, 6)
		require.Equal(t, breaker.Open, target().State)

		time.Sleep(time.Second)
		start, tokens := time.Now(), f.Stats().QuotaTokens
		body := evenkeeltest.NewBody("order 1")
		req := getRequest(t, "http://users/")
		body.Stream(req)
		_, err := f.send(req)
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Open, failed.Reason)
		assert.Empty(t, failed.Attempts)
		assert.Empty(t, failed.Endpoint)
		require.ErrorIs(t, err, breaker.ErrOpen)
		var refused *breaker.OpenError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, 4*time.Second, refused.RetryAfter())
		assert.EqualError(t, err, "evenkeel: call to http://users:80 failed (open): "+
			"breaker: http://users:80 is open (consecutive_failures), next try in 4s")
		body.AssertClosed(t)
		assert.Zero(t, time.Since(start))
		assert.Equal(t, tokens, f.Stats().QuotaTokens)
		f.servers[0].AssertRequests(t, 6)
		assert.Zero(t, f.Stats().Pool.Endpoints[0].InFlight)

		f.heal("a")
		time.Sleep(4 * time.Second)
		f.calls(1)
		assert.Equal(t, breaker.Closed, target().State)
		assert.Equal(t, []string{
			"http://users:80: open, consecutive_failures", "http://users:80: half-open, open_time_over", "http://users:80: closed, probes_succeeded",
		}, f.told())
		stats := f.Stats()
		assert.EqualValues(t, 4, stats.Calls)
		assert.EqualValues(t, 3, stats.Failed, "the one that was refused is one")
		f.idle()
	})
}

// A call that failed first and succeeded in the end is a good one.
func TestTargetBreaker_TheLastAttemptCounts_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b"}, evenkeel.WithRetry(retry.Policy{}), evenkeel.WithTargetBreaker(fragile),
			evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}))
		f.down["a"].Store(503)
		assert.Equal(t, map[string]int{"b": 20}, f.calls(20))
		assert.Equal(t, breaker.Counts{Successes: 20}, f.Stats().TargetBreaker.Counts)
		assert.Positive(t, f.servers[0].Requests())

		f.down["b"].Store(404)
		assert.Equal(t, map[string]int{"404": 20}, f.calls(20))
		assert.Equal(t, breaker.Counts{Successes: 20}, f.Stats().TargetBreaker.Counts, "an error of the client is neither")
	})
}

// A fallback may answer in place of what was refused.
func TestTargetBreaker_Fallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithTargetBreaker(fragile),
			evenkeel.WithFallback(func(req *http.Request, resp *http.Response, err error) (*http.Response, error) {
				var refused *breaker.OpenError
				if !errors.As(err, &refused) {
					return resp, err
				}
				w := httptest.NewRecorder()
				refused.ServeHTTP(w, req)
				return w.Result(), nil
			}))
		f.down["a"].Store(500)
		assert.Equal(t, map[string]int{"500": 2}, f.calls(2))
		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "5", resp.Header.Get("Retry-After"))
		resp.Body.Close()
		f.servers[0].AssertRequests(t, 2)
	})
}

// Given half-open and many callers, then exactly one is let through, and one whose caller
// gives up leaves its place.
func TestTargetBreaker_Probes_K02_K03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithTargetBreaker(fragile), evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}))
		f.down["a"].Store(500)
		f.calls(2)
		f.heal("a")
		time.Sleep(5 * time.Second)
		f.servers[0].Freeze()
		ctx, cancel := context.WithCancel(t.Context())
		var calling sync.WaitGroup
		var refused atomic.Int32
		for range 100 {
			calling.Go(func() {
				_, err := f.send(getRequest(t, "http://users/").WithContext(ctx))
				if errors.Is(err, breaker.ErrOpen) {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		assert.EqualValues(t, 99, refused.Load())
		assert.EqualValues(t, 1, f.Stats().Active)
		cancel()
		calling.Wait()
		assert.Equal(t, breaker.HalfOpen, f.Stats().TargetBreaker.State)
		f.servers[0].Thaw()
		assert.Equal(t, map[string]int{"a": 10}, f.calls(10))
		assert.Equal(t, breaker.Closed, f.Stats().TargetBreaker.State)
	})
}

// That there is nothing to pick from says nothing about the target.
func TestTargetBreaker_NoEndpointsIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 3}),
			evenkeel.WithRules(balancer.Rules{Panic: balancer.Panic{Threshold: -1}}))
		f.open(true, "a")
		before := f.Stats().TargetBreaker.Counts
		for range 10 {
			_, err := f.call()
			require.ErrorIs(t, err, balancer.ErrNoEndpoints)
		}
		assert.Equal(t, before, f.Stats().TargetBreaker.Counts)
	})
}

// The throttle refuses attempts before an endpoint is picked. What it refuses is not tried
// again, the reason is told, and a response that was there is the caller's.
func TestThrottle_InTheStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}),
			evenkeel.WithRetry(retry.Policy{Backoff: retry.Backoff{Base: soon}, Budget: retry.Quota{Size: -1}}),
			evenkeel.WithThrottle(breaker.ThrottleConfig{MaxReject: 1, MinRate: breaker.Off, ProbeEvery: 10 * time.Second}),
			evenkeel.WithRand(&fixedRand{}))
		f.down["a"].Store(503)
		f.calls(1)
		f.servers[0].AssertRequests(t, 2)
		throttle := f.Stats().Throttle
		assert.Equal(t, 3, throttle.Requests, "the third attempt was refused")
		assert.EqualValues(t, 1, throttle.Rejected)

		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.Error(t, err)
		require.Nil(t, resp)
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Limiter, failed.Reason)
		assert.Empty(t, failed.Attempts)
		require.ErrorIs(t, err, breaker.ErrThrottled)
		var refused *breaker.ThrottledError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, 10*time.Second, refused.RetryAfter())
		f.servers[0].AssertRequests(t, 2)
		assert.Zero(t, f.Stats().Pool.Endpoints[0].InFlight)
		assert.EqualValues(t, 2, f.Stats().Pool.Endpoints[0].Attempts)

		f.heal("a")
		time.Sleep(10 * time.Second)
		assert.Equal(t, map[string]int{"a": 3}, f.calls(3), "a probe, and then it is well")
		f.idle()
	})
}

// fixedRand draws one half, again and again.
type fixedRand struct{}

func (*fixedRand) Uint64() uint64 { return 1 << 52 }

// Given an attempt that the throttle refuses after one that was answered, then the answer is
// the caller's, whole, with the reason.
func TestThrottle_ResponseBeforeTheRefusal_R13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}),
			evenkeel.WithRetry(retry.Policy{Backoff: retry.Backoff{Base: soon}}),
			evenkeel.WithThrottle(breaker.ThrottleConfig{MaxReject: 1, MinRate: breaker.Off, ProbeEvery: time.Hour, K: 1}),
			evenkeel.WithRand(&fixedRand{}))
		f.down["a"].Store(503)
		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "sorry", string(body))
		info, ok := evenkeel.InfoOf(resp)
		require.True(t, ok)
		assert.Equal(t, outcome.Limiter, info.Reason)
		assert.Len(t, info.Attempts, f.servers[0].Requests())
		assert.Less(t, len(info.Attempts), 3)
		f.idle()
	})
}

// What callers gave up, and what no endpoint was found for, is taken back.
func TestThrottle_NeutralInTheStack_K01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a"}, evenkeel.WithThrottle(breaker.ThrottleConfig{}),
			evenkeel.WithRules(balancer.Rules{Panic: balancer.Panic{Threshold: -1}}))
		f.servers[0].Freeze()
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := f.send(getRequest(t, "http://users/").WithContext(ctx))
			require.Error(t, err)
			cancel()
		}
		f.servers[0].Thaw()
		assert.Equal(t, breaker.ThrottleStatus{}, *f.Stats().Throttle)
		require.NoError(t, f.breakerOf("a").SetMode(breaker.ForcedOpen))
		for range 20 {
			_, err := f.call()
			require.ErrorIs(t, err, balancer.ErrNoEndpoints)
		}
		assert.Equal(t, breaker.ThrottleStatus{}, *f.Stats().Throttle)
	})
}

// Events come in order, each breaker's begin where the one before has ended, and a hook may
// look at everything. After Close there are none.
func TestHooks_Breaker_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f *fleet
		var mu sync.Mutex
		last, n := map[string]breaker.State{}, 0
		cfg := fragile
		cfg.OpenFor, cfg.MaxOpenFor = 100*time.Millisecond, 200*time.Millisecond
		f = newFleet(t, []string{"a", "b", "c"}, evenkeel.WithBreaker(cfg), evenkeel.WithTargetBreaker(cfg),
			evenkeel.WithHooks(evenkeel.Hooks{Breaker: func(c breaker.Change) {
				stats := f.Stats()
				assert.Len(t, stats.Breakers, 3)
				for _, b := range f.Breakers() {
					b.State()
				}
				mu.Lock()
				defer mu.Unlock()
				n++
				assert.Equal(t, last[c.Name], c.From, "%s, event %d", c.Name, n)
				assert.NotEqual(t, c.From, c.To)
				last[c.Name] = c.To
			}}))
		const seed = 5
		t.Logf("seed %d", seed)
		var calling sync.WaitGroup
		for w := range 8 {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			calling.Go(func() {
				for range 400 { // some 120 events, in whatever order the callers run
					name := string("abc"[random.IntN(3)])
					f.down[name].Store(int32([]int{0, 0, 500}[random.IntN(3)]))
					_, _ = f.call()
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				}
			})
		}
		calling.Wait()
		synctest.Wait()
		mu.Lock()
		told := n
		for _, s := range f.Stats().Breakers {
			assert.Equal(t, s.State, last[s.Name], s.Name)
		}
		mu.Unlock()
		assert.Greater(t, told, 20)
		assert.Contains(t, last, "http://users:80")

		for _, name := range []string{"a", "b", "c"} {
			f.down[name].Store(500)
		}
		f.calls(20)
		synctest.Wait()
		require.NoError(t, f.Close())
		mu.Lock()
		told = n
		mu.Unlock()
		time.Sleep(time.Hour)
		for _, b := range f.Breakers() {
			b.Reset()
		}
		assert.Equal(t, told, n)
	})
}

// Given a call that is still under way when the transport is closed, then its end tells
// nothing, whatever policy it began under.
func TestHooks_BreakerNeverAfterClose_K13(t *testing.T) {
	for _, updated := range []bool{false, true} {
		t.Run(fmt.Sprintf("updated=%v", updated), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				trip := breaker.Config{ConsecutiveFailures: 1}
				f := bare(t)
				server := f.network.Serve("a:80", evenkeeltest.Status(500).Delay(10*time.Second))
				f.use(evenkeel.WithResolver(discovery.List{server.Endpoint()}), evenkeel.WithBreaker(trip), evenkeel.WithTargetBreaker(trip))
				done := make(chan error)
				go func() {
					who, err := f.call()
					assert.Equal(t, "500", who)
					done <- err
				}()
				time.Sleep(time.Second)
				if updated {
					c := f.Config()
					c.TargetBreaker = nil
					require.NoError(t, f.Update(c))
				}
				require.NoError(t, f.Close())
				require.NoError(t, <-done)
				assert.Empty(t, f.told())
			})
		})
	}
}

// The clock and the randomness of breakers and throttles are the transport's, whatever their
// configuration says.
func TestBreakers_ClockAndRandOfTheTransport_X01_X04(t *testing.T) {
	fake, other := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), clock.NewFake(time.Unix(0, 0))
	cfg := breaker.Config{
		ConsecutiveFailures: 1, Jitter: 1, Clock: other, Rand: longest{}, OnChange: func(breaker.Change) { assert.Fail(t, "told") },
		Classifier: func(outcome.Attempt) outcome.Outcome { return outcome.Outcome{Class: outcome.Success} },
	}
	tr := over(t, roundTripper(unavailable), evenkeel.WithClock(fake), evenkeel.WithRand(&fixedRand{}),
		evenkeel.WithResolver(discovery.Static{"a:80"}), evenkeel.WithBreaker(cfg), evenkeel.WithTargetBreaker(cfg),
		evenkeel.WithThrottle(breaker.ThrottleConfig{Clock: other, Rand: longest{}, Classifier: cfg.Classifier}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}))
	resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
	require.NoError(t, err)
	resp.Body.Close()
	stats := tr.Stats()
	for _, s := range []breaker.Status{stats.Breakers[0], *stats.TargetBreaker} {
		assert.Equal(t, breaker.Open, s.State, s.Name)
		assert.Equal(t, fake.Now(), s.Since, s.Name)
		jitter := float64(uint64(1<<52)>>11) / (1 << 53) * float64(5*time.Second)
		assert.Equal(t, 5*time.Second-time.Duration(jitter), s.Until.Sub(s.Since), s.Name)
	}
	assert.Equal(t, 1, stats.Throttle.Requests)
	assert.Zero(t, stats.Throttle.Accepts)
	fake.Advance(5 * time.Second)
	assert.Equal(t, breaker.HalfOpen, tr.Stats().Breakers[0].State)
	fake.Advance(5 * time.Second)
	assert.Zero(t, tr.Stats().Throttle.Requests)
}

// The dice of the throttle are the transport's: the user's would never refuse.
func TestThrottle_RandOfTheTransport_X04(t *testing.T) {
	tr := over(t, roundTripper(unavailable), evenkeel.WithRand(&fixedRand{}), evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
		evenkeel.WithThrottle(breaker.ThrottleConfig{MinRate: breaker.Off, Rand: longest{}}))
	refused := 0
	for range 5 {
		resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
		if err == nil {
			resp.Body.Close()
			continue
		}
		require.ErrorIs(t, err, breaker.ErrThrottled)
		refused++
	}
	assert.Equal(t, 3, refused, "at probabilities of 2/3, 3/4 and 4/5: the draw is one half")
}

// A policy that is handed in stays the caller's: it is not written to, and what he changes
// later changes nothing.
func TestConfig_GuardsAreCopied_P03(t *testing.T) {
	c := evenkeel.Config{TargetBreaker: &breaker.Config{}, Throttle: &breaker.ThrottleConfig{}}
	tr := over(t, roundTripper(unavailable), evenkeel.WithConfig(c))
	assert.Equal(t, breaker.Config{}, *c.TargetBreaker)
	assert.Equal(t, breaker.ThrottleConfig{}, *c.Throttle)
	c.TargetBreaker.OpenFor, c.Throttle.K = time.Hour, 7
	assert.Equal(t, 5*time.Second, tr.Config().TargetBreaker.OpenFor)
	assert.InDelta(t, 2, tr.Config().Throttle.K, 0)
}

func TestStats_Breakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"c", "a", "b"})
		var names []string
		for _, s := range f.Stats().Breakers {
			names = append(names, s.Name)
			assert.Equal(t, breaker.Closed, s.State)
			assert.Equal(t, breaker.Created, s.Because)
		}
		assert.Equal(t, []string{"a:80", "b:80", "c:80"}, names, "by address")
		stats := f.Stats()
		assert.Nil(t, stats.TargetBreaker)
		assert.Nil(t, stats.Throttle)
		require.NoError(t, f.Close())
		assert.Empty(t, f.Stats().Breakers)
	})
}

// By default there is a breaker for each endpoint, with the default settings, and nothing
// around the target.
func TestNew_BreakerByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		a, b := f.network.Serve("a:80", evenkeeltest.Status(503)), f.network.Serve("b:80", evenkeeltest.OK("b"))
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.List{a.Endpoint(), b.Endpoint()}),
			evenkeel.WithTransport(f.network.Transport()), evenkeel.WithBalancer(balancer.Random{}))
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, tr.Close()) })
		f.Transport = tr
		assert.Equal(t, breaker.Config{}.WithDefaults(), tr.Config().Breaker)
		assert.Nil(t, tr.Config().TargetBreaker)
		assert.Nil(t, tr.Config().Throttle)
		f.calls(100)
		a.AssertRequests(t, 5)
		assert.Equal(t, breaker.Open, f.state("a").State)
	})
}

// Given endpoints that fail and recover, come and go, policies and modes that change, and
// callers who give up, then no call hangs, nothing stays in flight, and when all are well
// again, all serve.
func TestBreakers_Churn_B01_K08_P01(t *testing.T) {
	const callers, operations, seed = 8, 2000, 42
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "c", "d", "e", "f"}
		f, _ := serveFleet(t, names)
		r := newPushed()
		cfg := breaker.Config{
			ConsecutiveFailures: 2, MinCalls: 4, FailureRate: 0.4, Window: 200 * time.Millisecond,
			OpenFor: 20 * time.Millisecond, MaxOpenFor: 200 * time.Millisecond, Probes: 2, ProbeTimeout: 50 * time.Millisecond,
		}
		f.use(evenkeel.WithResolver(discovery.LastGood{Resolver: r, EmptyGrace: -1}), evenkeel.WithBreaker(cfg),
			evenkeel.WithRetry(retry.Policy{Backoff: retry.Backoff{Base: soon}, PerAttemptTimeout: 100 * time.Millisecond}),
			evenkeel.WithRules(balancer.Rules{}), evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
		r.pushServers(f.servers...)
		var over atomic.Bool
		var calling sync.WaitGroup
		var made, failed atomic.Int64
		for w := range callers {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			calling.Go(func() {
				for !over.Load() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(1000))*time.Millisecond)
					start := time.Now()
					if _, err := f.send(getRequest(t, "http://users/").WithContext(ctx)); err != nil {
						failed.Add(1)
					}
					assert.LessOrEqual(t, time.Since(start), 1001*time.Millisecond, "it hangs")
					cancel()
					made.Add(1)
					time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
				}
			})
		}
		random := rand.New(rand.NewPCG(seed, seed))
		algorithms := pickers()
		all := slices.Sorted(func(yield func(string) bool) {
			for name := range algorithms {
				if !yield(name) {
					return
				}
			}
		})
		pod := 0
		for range operations {
			i := random.IntN(len(names))
			server := f.servers[i]
			switch random.IntN(12) {
			case 0, 1, 2:
				f.down[names[i]].Store(int32([]int{500, 503, 429, 404}[random.IntN(4)]))
			case 3, 4, 5:
				f.heal(names[i])
				server.Thaw()
			case 6:
				server.Freeze()
			case 7:
				server.Kill()
				server.Restart()
			case 8: // some leave, and some come back as others
				var endpoints []discovery.Endpoint
				for k, s := range f.servers {
					if random.IntN(4) > 0 || k == i {
						e := s.Endpoint()
						if random.IntN(8) == 0 {
							pod++
							e.ID = fmt.Sprint("pod-", pod)
						}
						endpoints = append(endpoints, e)
					}
				}
				r.push(endpoints...)
			case 9:
				c := f.Config()
				c.Balancer = algorithms[all[random.IntN(len(all))]]
				c.Rules.MaxInFlight = []int{0, 0, 2}[random.IntN(3)]
				c.Rules.Panic = []balancer.Panic{{}, {Reject: true}, {Threshold: -1}}[random.IntN(3)]
				require.NoError(t, f.Update(c))
			case 10:
				c := f.Config()
				c.Breaker.ConsecutiveFailures = 1 + random.IntN(5)
				c.Breaker.Mode = []breaker.Mode{breaker.Auto, breaker.Auto, breaker.Auto, breaker.MetricsOnly, breaker.Disabled}[random.IntN(5)]
				c.TargetBreaker, c.Throttle = nil, nil
				if random.IntN(2) == 0 {
					target := cfg
					target.ConsecutiveFailures = 20
					c.TargetBreaker = &target
				}
				if random.IntN(2) == 0 {
					c.Throttle = &breaker.ThrottleConfig{Window: 100 * time.Millisecond, ProbeEvery: 20 * time.Millisecond}
				}
				require.NoError(t, f.Update(c))
			case 11:
				breakers := f.Breakers()
				if len(breakers) > 0 {
					b := breakers[random.IntN(len(breakers))]
					mode := []breaker.Mode{breaker.Auto, breaker.ForcedOpen, breaker.Disabled, breaker.MetricsOnly}[random.IntN(4)]
					require.NoError(t, b.SetMode(mode))
				}
				for _, e := range f.Stats().Pool.Endpoints {
					assert.GreaterOrEqual(t, e.InFlight, int64(0))
				}
			}
			time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
		}
		over.Store(true)
		calling.Wait()
		t.Logf("%d calls, %d without an answer", made.Load(), failed.Load())
		assert.Greater(t, made.Load(), int64(operations))

		for i, server := range f.servers {
			server.Thaw()
			f.heal(names[i])
		}
		r.pushServers(f.servers...)
		c := f.Config()
		c.Balancer, c.Rules, c.Breaker, c.TargetBreaker, c.Throttle = balancer.RoundRobin{}, balancer.Rules{}, cfg, nil, nil
		require.NoError(t, f.Update(c))
		for range 60 { // seconds, also for slow start
			f.calls(20)
			time.Sleep(time.Second)
		}
		f.idle()
		assert.Zero(t, f.Stats().Pool.Draining)
		assert.Zero(t, f.Stats().Pool.Waiting)
		for _, s := range f.Stats().Breakers {
			assert.Equal(t, breaker.Closed, s.State, s.Name)
		}
		require.Len(t, f.Stats().Breakers, len(names))
		got := f.calls(60)
		for _, name := range names {
			assert.Equal(t, 10, got[name], "%v", got)
		}
		f.mu.Lock()
		assert.Greater(t, len(f.events), 100)
		f.mu.Unlock()
	})
}

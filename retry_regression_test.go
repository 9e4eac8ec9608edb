package evenkeel_test

import (
	"context"
	"net/http"
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
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given callers who leave while one attempt has failed and the other is under way, then each gets
// its own error, and no failure is counted: they would open the target's breaker for all others.
func TestHedge_LeavingIsNotTheTargetsFailure_T09_K01(t *testing.T) {
	for _, slow := range []string{"a", "b"} { // the first attempt is at a
		t.Run(slow+" hangs", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, []string{"a", "b"}, evenkeel.WithBalancer(first("a:80")),
					evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}),
					evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}),
					evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 3}),
					evenkeel.WithRetry(retry.Policy{MaxAttempts: 2, Hedge: hedging.Hedge}))
				fast := map[string]string{"a": "b", "b": "a"}[slow]
				p.take(never, slow)
				p.take(150*time.Millisecond, fast)
				p.down[fast].Store(503)
				for range 50 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Second, cancel)
					_, err := p.send(getRequest(t, "http://users/").WithContext(ctx))
					require.ErrorIs(t, err, context.Canceled)
					var failed *evenkeel.Error
					require.ErrorAs(t, err, &failed)
					assert.Equal(t, outcome.Caller, failed.Reason)
					assert.Len(t, failed.Attempts, 2)
				}
				p.idle()
				stats := p.Stats()
				assert.Equal(t, breaker.Closed, stats.TargetBreaker.State)
				assert.Equal(t, breaker.Counts{}, stats.TargetBreaker.Counts)
			})
		})
	}
}

// counted is a clock that counts the timers that were set.
type counted struct {
	clock.Clock
	timers *atomic.Int64
}

func (c counted) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.timers.Add(1)
	return c.Clock.AfterFunc(d, f)
}

// Given attempts that wait for the first endpoints, then no timer runs for their hedges before they
// are sent: one that is set again and again would keep a processor busy for each call that waits.
func TestHedge_NoTimerBeforeItIsSent_R20(t *testing.T) {
	for _, after := range []time.Duration{1, time.Microsecond, time.Millisecond, 100 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known, timers := newPushed(), new(atomic.Int64)
				p, _ := servePaced(t, "a", "b")
				p.take(500*time.Millisecond, "a", "b")
				p.use(evenkeel.WithResolver(known), evenkeel.WithClock(counted{clock.System, timers}),
					evenkeel.WithRetry(retry.Policy{MaxAttempts: 2, Hedge: &retry.Hedge{After: after, Budget: -1}}))
				before := timers.Load()
				var info evenkeel.Info
				var calling sync.WaitGroup
				calling.Go(func() { info, _ = p.do(getRequest(t, "http://users/")) })
				time.Sleep(5 * time.Second)
				assert.LessOrEqual(t, timers.Load()-before, int64(1), "its wait may have a limit")
				waiting := timers.Load()
				known.pushServers(p.servers...)
				calling.Wait()
				assert.Len(t, info.Attempts, 2, "the delay begins when it is sent")
				assert.LessOrEqual(t, timers.Load()-waiting, int64(5), "the hedge's, and those of the pool")
				p.idle()
			})
		})
	}
}

// Given a hedge that fails, and a third endpoint, then the next hedge goes there after the delay,
// whatever the one that failed has asked for: that was about itself.
func TestHedge_AfterAFailureElsewhere_R18_R20(t *testing.T) {
	for name, failing := range map[string]http.Handler{
		"503": evenkeeltest.Status(503), "429 that asks": busy(429, "5"), "429 that asks for much": busy(429, "3600"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := script(failing)
				f := newScripted(t, [][]http.Handler{script(evenkeeltest.Hang()), b, b}, evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge}))
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := f.send(getRequest(t, "http://users/").WithContext(ctx))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				var failed *evenkeel.Error
				require.ErrorAs(t, err, &failed)
				require.Len(t, failed.Attempts, 3)
				seen := map[string]int{}
				for _, a := range failed.Attempts {
					seen[a.Endpoint.Address]++
				}
				assert.Equal(t, map[string]int{"a:80": 1, "b:80": 1, "c:80": 1}, seen)
				assert.Equal(t, time.Second, time.Since(start))
				for i, seconds := range []float64{0, 0.1, 0.2} {
					for _, server := range f.servers {
						if server.Addr() == failed.Attempts[i].Endpoint.Address {
							assert.InDelta(t, seconds, server.Received()[0].At.Sub(start).Seconds(), 0, "attempt %d", i+1)
						}
					}
				}
				f.idle()
			})
		})
	}
}

// Given another endpoint when an attempt is sent, and none any more when it has failed, then the
// same one is tried again: not at once, but after a wait, and not before it has asked to be.
func TestRetry_TheOtherHasGoneMeanwhile_R18_R12(t *testing.T) {
	for _, row := range []struct {
		name        string
		failing     http.Handler
		least, most time.Duration // from the failure to the next attempt
	}{
		{"503", evenkeeltest.Status(503).Delay(time.Second), 400 * time.Millisecond, 400 * time.Millisecond},
		{"503 that asks", evenkeeltest.Status(503).Header("Retry-After", "5").Delay(time.Second), 5 * time.Second, 7500 * time.Millisecond},
		{"429 that asks", evenkeeltest.Status(429).Header("Retry-After", "5").Delay(time.Second), 5 * time.Second, 7500 * time.Millisecond},
	} {
		for how, goes := range map[string]func(*fleet, *pushed){
			"leaves":    func(f *fleet, known *pushed) { known.pushServers(f.servers[0]) },
			"is parked": func(f *fleet, _ *pushed) { f.park(1) },
			"is open":   func(f *fleet, _ *pushed) { require.NoError(f, f.breakerOf("b").SetMode(breaker.ForcedOpen)) },
		} {
			for _, hedge := range []*retry.Hedge{nil, {After: time.Minute, Budget: -1}} {
				name := row.name + ", the other one " + how
				if hedge != nil {
					name += ", hedged"
				}
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f, known := bare(t), newPushed()
						for i, steps := range [][]http.Handler{script(row.failing, evenkeeltest.OK("a")), script(busy(503, "100"), evenkeeltest.OK("b"))} {
							f.servers = append(f.servers, f.network.Serve(string(rune('a'+i))+":80", evenkeeltest.Script(steps...)))
						}
						f.use(evenkeel.WithResolver(known), evenkeel.WithBalancer(first("a:80")),
							evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 100, FailureRate: breaker.Off}),
							evenkeel.WithRules(balancer.Rules{Panic: balancer.Panic{Threshold: 0.1}, SlowStart: balancer.SlowStart{Window: -1}}),
							evenkeel.WithRetry(retry.Policy{Hedge: hedge, Backoff: retry.Backoff{Kind: retry.Constant, Base: 400 * time.Millisecond}}))
						known.pushServers(f.servers...)
						start, who := time.Now(), ""
						var took time.Duration
						done := make(chan error)
						go func() {
							var err error
							who, err = f.call()
							took = time.Since(start)
							done <- err
						}()
						time.Sleep(500 * time.Millisecond)
						goes(f, known)
						require.NoError(t, <-done)
						assert.GreaterOrEqual(t, took, time.Second+row.least)
						assert.LessOrEqual(t, took, time.Second+row.most)
						if how != "is parked" || row.name == "503" { // else both are, and either may be asked
							assert.Equal(t, "a", who)
							f.servers[0].AssertRequests(t, 2)
						}
						f.idle()
					})
				})
			}
		}
	}
}

// Given two of three endpoints that have asked for a minute, then the third one gets all calls of
// that minute: panic is for opinions that may be wrong, and this is none.
func TestParking_TheThirdServesAll_B09_R12(t *testing.T) {
	for name, algorithm := range pickers() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asks := script(busy(503, "60"), evenkeeltest.OK("too early"))
				f := newScripted(t, [][]http.Handler{asks, asks, script(evenkeeltest.OK("c"))})
				f.park(0)
				f.park(1)
				c := f.Config()
				c.Balancer = algorithm
				require.NoError(t, f.Update(c))
				for range 55 {
					require.Equal(t, map[string]int{"c": 5}, f.calls(5))
					time.Sleep(time.Second)
				}
				assert.True(t, f.Stats().Pool.Panic)
				f.idle()
			})
		})
	}
}

// Given an attempt that was announced and then refused below, then that is told, too, with the
// reason that the call ends with.
func TestRetry_RefusedAttemptIsTold_O04(t *testing.T) {
	for _, hedge := range []*retry.Hedge{nil, {After: time.Minute, Budget: -1}} {
		synctest.Test(t, func(t *testing.T) {
			var told []retry.Decision
			f := newScripted(t, [][]http.Handler{script(evenkeeltest.Status(503))},
				evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 1}),
				evenkeel.WithRules(balancer.Rules{Panic: balancer.Panic{Threshold: -1}}),
				evenkeel.WithRetry(retry.Policy{Hedge: hedge}),
				evenkeel.WithHooks(evenkeel.Hooks{Decided: func(d retry.Decision) { told = append(told, d) }}))
			resp, err := f.RoundTrip(getRequest(t, "http://users/"))
			require.NoError(t, err)
			info, _ := evenkeel.InfoOf(resp)
			assert.Equal(t, 503, resp.StatusCode)
			readBody(t, resp)
			require.Len(t, info.Attempts, 1)
			require.Len(t, told, 2)
			assert.True(t, told[0].Action.Again)
			assert.Equal(t, outcome.Open, info.Reason)
			assert.Equal(t, retry.Action{Reason: info.Reason}, told[1].Action)
			f.idle()
		})
	}
}

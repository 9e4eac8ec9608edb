package retry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Callers may change and reuse a request once its call is over. An attempt that goes on after that
// must see what was sent, and under -race it must not even look.
func TestHedge_LoserOwnsItsRequest_T07_R19(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var saw []string
			look := func(req *http.Request) {
				seen := req.Clone(t.Context())
				mu.Lock()
				defer mu.Unlock()
				saw = append(saw, seen.Header.Get("X-Mine")+seen.URL.Path)
			}
			late := func(s *sent) (*http.Response, error) {
				<-s.ctx.Done()
				time.Sleep(time.Second)
				look(s.req)
				return nil, s.ctx.Err()
			}
			base, p := scripted(late, answer(200)), hedging(2)
			if leaves {
				base = scripted(late)
			}
			p.Classifier = func(a outcome.Attempt) outcome.Outcome {
				look(a.Request)
				return outcome.Classify(a)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(150*ms, cancel)
			req := get(ctx)
			req.Header.Set("X-Mine", "sent")
			resp, err := around(t, base, p).RoundTrip(req)
			assert.Equal(t, leaves, err != nil)
			if err == nil {
				read(t, resp)
			}
			req.Header.Set("X-Mine", "changed")
			req.URL.Path = "/changed"
			time.Sleep(time.Minute)
			mu.Lock()
			defer mu.Unlock()
			require.NotEmpty(t, saw)
			for _, s := range saw {
				assert.Equal(t, "sent/", s)
			}
			base.assertClean(t, true)
		})
	}
}

// The same with net/http, for the race detector: attempts begin in the instant in which the call
// ends, and the request is used for the next one at once.
func TestHedge_RequestIsReusedAtOnce_T07(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			slow := evenkeeltest.OK("x").Delay(100 * ms) // as long as an attempt is alone
			online(t, protocol, slow, func(t *testing.T, _ *evenkeeltest.Server, base http.RoundTripper, address string) {
				tr := around(t, base, hedging(2))
				var calling sync.WaitGroup
				for range 4 {
					calling.Go(func() {
						req := to(get(t.Context()), address)
						for i := range 50 {
							req.Header.Set("X-Try", string(rune('a'+i%26)))
							resp, err := tr.RoundTrip(req)
							if assert.NoError(t, err) {
								resp.Body.Close()
							}
						}
					})
				}
				calling.Wait()
			})
		})
	}
}

// Below may be somebody who makes several requests for one, such as for a token or the pages of a
// list. That is no loop of net/http, and what has reached the server was sent.
func TestHedge_SeveralRequestsInOneAttempt_T08_R01(t *testing.T) {
	for _, row := range []struct {
		name  string
		hedge *retry.Hedge
		last  error
	}{
		{"alone", nil, nil},
		{"hedged", &retry.Hedge{After: time.Minute}, nil},
		{"hedged, and the last one fails", &retry.Hedge{After: time.Minute}, errReset},
	} {
		t.Run(row.name, func(t *testing.T) {
			online(t, evenkeeltest.HTTP1, evenkeeltest.OK("x"), func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				pages := tripper(func(r *http.Request) (*http.Response, error) {
					for range 5 {
						resp, err := base.RoundTrip(to(get(r.Context()), address))
						if err != nil {
							return nil, err
						}
						read(t, resp)
					}
					if row.last != nil {
						return nil, row.last
					}
					return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
				})
				h := new(told)
				tr := around(t, pages, retry.Policy{Hedge: row.hedge, MaxAttempts: 2, Hooks: h.hooks(), Backoff: waits(ms)})
				resp, err := tr.RoundTrip(request(t.Context(), http.MethodPut, nil))
				if row.last == nil {
					require.NoError(t, err)
					read(t, resp)
					assert.Equal(t, []string{"1 success"}, h.attempts)
					server.AssertRequests(t, 5)
					return
				}
				e := failure(t, err)
				require.ErrorIs(t, err, row.last)
				assert.False(t, e.NeverSent(), "five requests were answered")
				assert.Equal(t, []string{"1 failure", "2 failure"}, h.attempts)
			})
		})
	}
}

// Calls inside a call count for the outermost limit before they wait, so that those which decide at
// the same time cannot all have the last attempt.
func TestLimit_HoldsForWhatRunsAtOnce_R05(t *testing.T) {
	busy := deaf(50*ms, answer(503))
	slowly := retry.Policy{Backoff: waits(time.Second)}
	inside := func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) { return next.RoundTrip(get(req.Context())) })
	}
	parallel := func(ctx context.Context, next http.RoundTripper) {
		var calling sync.WaitGroup
		for range 20 {
			calling.Go(func() {
				resp, err := next.RoundTrip(get(ctx))
				if assert.NoError(t, err) {
					resp.Body.Close()
				}
			})
		}
		calling.Wait()
	}
	for _, row := range []struct {
		name string
		most int
		call func(*testing.T, *script)
	}{
		{"parallel calls inside Do", 20 + 2, func(t *testing.T, base *script) {
			inner := around(t, base, slowly)
			_, err := retry.Do(t.Context(), retrier(t, retry.Policy{MaxAttempts: 3}), func(ctx context.Context) (int, error) {
				parallel(ctx, inner)
				return 0, retry.Permanent(io.EOF)
			})
			require.ErrorIs(t, err, io.EOF)
		}},
		{"parallel calls inside an attempt", 20 + 2, func(t *testing.T, base *script) {
			inner := around(t, base, slowly)
			outer := around(t, tripper(func(req *http.Request) (*http.Response, error) {
				parallel(req.Context(), inner)
				return nil, io.EOF
			}), retry.Policy{MaxAttempts: 3})
			_, err := outer.RoundTrip(request(t.Context(), http.MethodPost, nil))
			require.ErrorIs(t, err, io.EOF)
		}},
		{"hedges around retries", 3, func(t *testing.T, base *script) {
			p := hedging(3)
			p.Hedge.After = 10 * ms
			resp, err := around(t, inside(around(t, base, slowly)), p).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			read(t, resp)
		}},
		{"hedges around hedges", 3, func(t *testing.T, base *script) {
			p := hedging(3)
			p.Hedge.After = 10 * ms
			resp, err := around(t, inside(around(t, base, p)), p).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			read(t, resp)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(busy)
				row.call(t, base)
				time.Sleep(time.Hour)
				assert.LessOrEqual(t, len(base.all()), row.most)
				base.assertClean(t, false)
			})
		})
	}
}

// A dial that fails costs time and hits a full listen queue, so layers do not multiply those, either.
func TestLimit_RefusedDialsDoNotMultiply_R05(t *testing.T) {
	for _, err := range []error{syscall.ETIMEDOUT, syscall.ECONNREFUSED} {
		for levels := 1; levels <= 3; levels++ {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(fail(&net.OpError{Op: "dial", Err: err}))
				var next http.RoundTripper = base
				for range levels {
					next = around(t, next, retry.Policy{})
				}
				_, got := next.RoundTrip(get(t.Context()))
				require.ErrorIs(t, got, err)
				assert.Len(t, base.all(), 3, "%d levels", levels)
			})
		}
	}
}

// Of a call with one attempt under way and an answer from the other, the caller leaves: it gets
// its own end and not the old answer, which would count as a failure of the server.
func TestHedge_NoOldAnswerForOneWhoHasGone_T09_R07(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"the second has answered", []step{hang, answer(503)}},
		{"the first has answered", []step{in(150*ms, answer(503)), hang}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 50 { // what the attempt reports and the end of the context come at the same time
				synctest.Test(t, func(t *testing.T) {
					base := scripted(row.steps...)
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Second, cancel)
					resp, err := around(t, base, hedging(2)).RoundTrip(get(ctx))
					require.ErrorIs(t, err, context.Canceled)
					assert.Nil(t, resp)
					assert.Equal(t, outcome.Caller, failure(t, err).Reason)
					base.assertClean(t, true)
				})
			}
		})
	}
}

// One attempt has failed and the other is still under way: the next one beside it waits as a retry
// would, and as long as the server has asked for.
func TestHedge_WaitsAsRetriesDo_R12_R18(t *testing.T) {
	long := in(12*time.Second, answer(200))
	for _, row := range []struct {
		name        string
		failing     step
		least, most time.Duration // before each of the others; 0 is never
	}{
		{"503", answer(503), 2 * time.Second, 2 * time.Second},
		{"429 that asks", answer(429, "Retry-After", "5"), 5 * time.Second, 7500 * ms},
		{"503 that asks", answer(503, "Retry-After", "4"), 4 * time.Second, 6 * time.Second},
		{"429 that asks for too much", answer(429, "Retry-After", "60"), 0, 0},
		{"reset", fail(errReset), 2 * time.Second, 2 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(long, row.failing), hedging(10)
				p.Backoff = waits(2 * time.Second)
				resp, err := around(t, base, p).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				assert.Equal(t, 12*time.Second, time.Since(base.start))
				read(t, resp)
				at := base.times()
				require.GreaterOrEqual(t, len(at), 2)
				assert.Equal(t, 100*ms, at[1])
				if row.least == 0 {
					assert.Len(t, at, 2)
					return
				}
				assert.Greater(t, len(at), 2, "it does hedge again")
				for i := 2; i < len(at); i++ {
					assert.GreaterOrEqual(t, at[i]-at[i-1], row.least)
					assert.LessOrEqual(t, at[i]-at[i-1], row.most)
				}
				base.assertClean(t, true)
			})
		})
	}
}

// What the attempt has asked for that ended first still holds when the other ends in another way.
func TestHedge_FirstWishHolds_R12(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"then a reset", []step{in(120*ms, answer(429, "Retry-After", "5")), in(25*ms, fail(errReset)), answer(200)}},
		{"then one that does not ask", []step{in(120*ms, answer(429, "Retry-After", "5")), in(25*ms, answer(503)), answer(200)}},
		{"then one that asks for less", []step{in(120*ms, answer(429, "Retry-After", "5")), in(25*ms, answer(503, "Retry-After", "1")), answer(200)}},
		{"of the second", []step{in(130*ms, fail(errReset)), in(20*ms, answer(503, "Retry-After", "5")), answer(200)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(row.steps...)
				resp, err := around(t, base, hedging(3)).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				read(t, resp)
				at := base.times()
				require.Len(t, at, 3)
				assert.GreaterOrEqual(t, at[2], 120*ms+5*time.Second)
				assert.LessOrEqual(t, at[2], 130*ms+7500*ms)
				base.assertClean(t, true)
			})
		})
	}
}

// Calls of which nothing needs to be watched teach, too, how long answers take: otherwise a policy
// would behave in another way once it has a hook.
func TestTypical_LearntFromLightCalls_R06(t *testing.T) {
	for name, p := range map[string]retry.Policy{"light": {}, "watched": {Hooks: new(told).hooks()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				steps := make([]step, 100, 101)
				for i := range steps {
					steps[i] = in(time.Second, answer(200))
				}
				base := scripted(append(steps, in(time.Second, answer(503)))...)
				tr := around(t, base, p)
				for range 100 {
					resp, err := tr.RoundTrip(get(t.Context()))
					require.NoError(t, err)
					read(t, resp)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 1500*ms)
				defer cancel()
				resp, err := tr.RoundTrip(get(ctx))
				require.NoError(t, err, "another attempt could not have ended")
				assert.Equal(t, 503, resp.StatusCode)
				info, _ := retry.InfoOf(resp)
				assert.Equal(t, outcome.Deadline, info.Reason)
				read(t, resp)
				assert.Len(t, base.all(), 101)
			})
		})
	}
}

// A caller may leave by the Cancel channel of its request, also while the call waits.
func TestWait_EndsWithRequestCancel_R07(t *testing.T) {
	for name, hedge := range map[string]*retry.Hedge{"alone": nil, "hedged": {After: time.Minute, Budget: -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, gone := scripted(answer(503)), make(chan struct{})
				time.AfterFunc(time.Second, func() { close(gone) })
				req := get(t.Context())
				req.Cancel = gone //nolint:staticcheck // http.Client sets it
				_, err := around(t, base, retry.Policy{Hedge: hedge, Backoff: waits(time.Hour)}).RoundTrip(req)
				assert.Equal(t, time.Second, time.Since(base.start))
				require.ErrorIs(t, err, context.Canceled)
				assert.Equal(t, outcome.Caller, failure(t, err).Reason)
				base.assertClean(t, hedge != nil)
				assert.Len(t, base.all(), 1)
			})
		})
	}
}

// stepped is a clock that somebody sets while it runs. Timers do not care.
type stepped struct {
	clock.Clock
	by atomic.Int64
}

func (s *stepped) Now() time.Time { return s.Clock.Now().Add(time.Duration(s.by.Load())) }

// A date in an answer is compared with what the clock shows when that is read, not with the instant
// that was noted when the attempt ended.
func TestPushback_DatesByTheClock_R11(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stepped{Clock: clock.System}
		in5s := time.Now().Add(time.Hour + 5*time.Second).UTC().Format(http.TimeFormat)
		base := scripted(answer(503, "Retry-After", in5s), answer(200))
		set := retry.Hooks{Attempt: func(retry.Attempt) { c.by.Store(int64(time.Hour)) }} // when the attempt has ended
		resp, err := around(t, base, retry.Policy{Clock: c, Hooks: set}).RoundTrip(get(t.Context()))
		require.NoError(t, err)
		read(t, resp)
		at := base.times()
		require.Len(t, at, 2)
		assert.GreaterOrEqual(t, at[1], 5*time.Second)
		assert.LessOrEqual(t, at[1], 7500*ms)
	})
}

package evenkeel_test

import (
	"context"
	"fmt"
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
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given a limit on the whole call and endpoints that hang, then both attempts end with it, and
// both have failed.
func TestHedge_EndsWithTheCallsTimeLimit_T09(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, []string{"a", "b", "c"}, evenkeel.WithTimeout(time.Second))
		p.take(never, "a", "b", "c")
		start := time.Now()
		_, err := p.call()
		assert.Equal(t, time.Second, time.Since(start))
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Deadline, failed.Reason)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, failed.Attempts, 2)
		for _, a := range failed.Attempts {
			assert.Equal(t, outcome.Failure, a.Outcome.Class)
		}
		p.idle()
		failures := uint64(0)
		for _, e := range p.Stats().Pool.Endpoints {
			failures += e.Failures
		}
		assert.EqualValues(t, 2, failures)
		assert.EqualValues(t, 1, p.Stats().Failed)
	})
}

// Given a caller who gives up while two attempts are under way, then none of them has failed.
func TestHedge_CallerGivesUp_T09(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, []string{"a", "b"})
		p.take(never, "a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.send(getRequest(t, "http://users/").WithContext(ctx))
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Caller, failed.Reason)
		assert.Len(t, failed.Attempts, 2)
		p.idle()
		for _, e := range p.Stats().Pool.Endpoints {
			assert.Zero(t, e.Failures)
			assert.EqualValues(t, 1, e.Attempts)
		}
		assert.Equal(t, breaker.Counts{}, p.state("a").Counts)
	})
}

// stubborn is an endpoint's transport that looks at the end of its context only a second later.
func stubborn(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			time.Sleep(time.Second)
		}
		return resp, err
	})
}

// Given a call that has its answer, and an attempt that lost and takes its time to end, then
// Shutdown waits for that, and Close does not; both leave nothing behind, which the bubble sees to.
func TestHedge_ShutdownWaitsForLosers_T18_X03(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(ctx context.Context, p *paced) error
		want time.Duration
		is   error
	}{
		{"Shutdown", func(ctx context.Context, p *paced) error { return p.Shutdown(ctx) }, time.Second, nil},
		{"Shutdown in a hurry", func(ctx context.Context, p *paced) error {
			ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			return p.Shutdown(ctx)
		}, 300 * time.Millisecond, context.DeadlineExceeded},
		{"Close", func(_ context.Context, p *paced) error { return p.Close() }, 0, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, []string{"a", "b"}, evenkeel.WithAttempt(stubborn))
				p.take(never, "a")
				for p.ids["a"].Requests() == 0 {
					_, err := p.call()
					require.NoError(t, err)
				}
				assert.EqualValues(t, 1, p.Stats().Active, "the one that lost")
				start := time.Now()
				err := row.end(t.Context(), p)
				require.ErrorIs(t, err, row.is)
				assert.Equal(t, row.want, time.Since(start))
				_, err = p.call()
				require.ErrorIs(t, err, evenkeel.ErrClosed)
				time.Sleep(2 * time.Second)
				p.idle()
				synctest.Wait()
				p.network.AssertNoConns(t)
			})
		})
	}
}

// Given a call whose winner is still read, when the transport is closed, then it reads to its end.
func TestHedge_WinnerIsReadToTheEnd_R19_T08_T18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, list := servePaced(t, "a")
		p.take(never, "a")
		const size = 300_000
		b := p.network.Serve("b:80", evenkeeltest.OK(string(make([]byte, size))).Drip(1000, 10*time.Millisecond))
		p.use(evenkeel.WithResolver(append(list, b.Endpoint())), evenkeel.WithBalancer(first("a:80")),
			evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, PerAttemptTimeout: time.Second}))
		resp, err := p.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		synctest.Wait()
		status := p.Stats().Pool.Endpoints
		assert.Equal(t, []int64{0, 1}, []int64{status[0].InFlight, status[1].InFlight}, "what lost is gone already")
		require.NoError(t, p.Close())
		assert.Len(t, readBody(t, resp), size)
		p.idle()
	})
}

// first is an algorithm that picks the endpoint of an address if it may, else any other.
type first string

func (f first) NewBuilder(balancer.Env) (balancer.Builder, error) { return firstBuilder{f}, nil }

type firstBuilder struct{ first }

func (firstBuilder) Observer(discovery.Endpoint, balancer.Observer) balancer.Observer { return nil }

func (b firstBuilder) Build(g balancer.Group) balancer.Picker {
	return firstPicker{b.first, g.Candidates}
}

type firstPicker struct {
	first
	candidates []balancer.Candidate
}

func (p firstPicker) Pick(info balancer.Info) (other int) {
	for i := range p.candidates {
		if c := &p.candidates[i]; c.Usable(info) {
			if other = i; c.Endpoint().Address == string(p.first) {
				return i
			}
		}
	}
	return other
}

// Given a call under way, when hedges are switched off or on, then it keeps to the policy that it
// began with, and the next one does not.
func TestHedge_CallKeepsItsPolicy_P03(t *testing.T) {
	for _, begunWith := range []bool{true, false} {
		t.Run(fmt.Sprint(begunWith), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, []string{"a", "b"})
				with := p.Config()
				without := with
				without.Retry.Hedge = nil
				if begunWith {
					with, without = without, with
				}
				require.NoError(t, p.Update(without)) // now as the row says
				p.take(300*time.Millisecond, "a", "b")
				time.AfterFunc(50*time.Millisecond, func() { assert.NoError(t, p.Update(with)) })
				for _, hedged := range []bool{begunWith, !begunWith} {
					info, _ := p.do(getRequest(t, "http://users/"))
					assert.Equal(t, hedged, len(info.Attempts) == 2, "%v", info.Attempts)
					synctest.Wait()
				}
				p.idle()
			})
		})
	}
}

// Given policies that change all the time while calls are hedged, then each call is answered, and
// there is no race.
func TestHedge_UpdateUnderLoad_P03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, []string{"a", "b", "c"})
		p.take(15*time.Millisecond, "a", "b", "c")
		configs := []evenkeel.Config{p.Config(), p.Config(), p.Config()}
		configs[0].Retry.Hedge = nil
		configs[1].Retry.Hedge = &retry.Hedge{After: 5 * time.Millisecond, Budget: -1}
		configs[2].Retry.Hedge = &retry.Hedge{}
		configs[2].Balancer = balancer.LeastRequest{}
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				assert.NoError(t, p.Update(configs[i%len(configs)]))
				time.Sleep(3 * time.Millisecond)
			}
		}()
		var calling sync.WaitGroup
		for range 16 {
			calling.Go(func() {
				for range 40 {
					resp, err := p.RoundTrip(getRequest(t, "http://users/"))
					if !assert.NoError(t, err) {
						return
					}
					info, _ := evenkeel.InfoOf(resp)
					assert.LessOrEqual(t, len(info.Attempts), 2)
					resp.Body.Close()
				}
			})
		}
		calling.Wait()
		stop()
		time.Sleep(time.Second)
		p.idle()
		assert.EqualValues(t, 16*40, p.Stats().Calls)
		assert.Positive(t, p.Stats().Retries)
	})
}

// Given a client inside an attempt of another one, both of which hedge and retry, then what is
// sent is bounded by the outer one's attempts, whether all fail or all hang.
func TestHedge_NestedClientsDoNotMultiply_R05(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer roundTripper
	}{
		{"all fail", unavailable},
		{"all are slow and fail", func(req *http.Request) (*http.Response, error) {
			time.Sleep(350 * time.Millisecond)
			return unavailable(req)
		}},
		{"all hang", func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent atomic.Int32
				with := evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, PerAttemptTimeout: time.Second})
				inner := over(t, roundTripper(func(req *http.Request) (*http.Response, error) {
					sent.Add(1)
					return row.answer(req)
				}), with)
				outer := over(t, roundTripper(func(req *http.Request) (*http.Response, error) {
					return inner.RoundTrip(getRequest(t, "http://users/").WithContext(req.Context()))
				}), with)
				resp, err := outer.RoundTrip(getRequest(t, "http://users/"))
				if err == nil {
					readBody(t, resp)
				}
				time.Sleep(time.Minute)
				assert.LessOrEqual(t, sent.Load(), int32(3))
				assert.Zero(t, outer.Stats().Active)
				assert.Zero(t, inner.Stats().Active)
			})
		})
	}
}

// Given a hedge that wins, then hooks and InfoOf tell of both attempts, and of the endpoint that
// has answered as the call's.
func TestHedge_HooksNameTheWinner_R20_O04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts []evenkeel.Attempt
		var decided []retry.Decision
		var called []evenkeel.Call
		p := newPaced(t, []string{"a", "b"}, evenkeel.WithBalancer(first("a:80")), evenkeel.WithHooks(evenkeel.Hooks{
			Attempt: func(a evenkeel.Attempt) { attempts = append(attempts, a) },
			Decided: func(d retry.Decision) { decided = append(decided, d) },
			Called:  func(c evenkeel.Call) { called = append(called, c) },
		}))
		p.take(never, "a")
		p.take(30*time.Millisecond, "b")
		info, who := p.do(getRequest(t, "http://users/"))
		assert.Equal(t, "b", who)
		assert.Equal(t, "b:80", info.Endpoint.Address)
		require.Len(t, info.Attempts, 2)
		told := map[string]evenkeel.Attempt{}
		for _, a := range attempts {
			told[a.Endpoint.Address] = a
		}
		require.Len(t, attempts, 2)
		assert.Equal(t, evenkeel.Attempt{
			Number: 1, Endpoint: discovery.Endpoint{Address: "a:80"}, Outcome: outcome.Outcome{Class: outcome.Superseded}, Took: 130 * time.Millisecond,
		}, told["a:80"])
		assert.Equal(t, evenkeel.Attempt{
			Number: 2, Endpoint: discovery.Endpoint{Address: "b:80"}, Hedge: true, Outcome: outcome.Outcome{Class: outcome.Success},
			StatusCode: 200, Took: 30 * time.Millisecond, Connections: 1,
		}, told["b:80"])
		assert.Equal(t, []evenkeel.Attempt{told["a:80"], told["b:80"]}, info.Attempts)
		require.Len(t, decided, 2)
		assert.Equal(t, retry.Decision{Attempt: 1, Endpoint: "a:80", Hedge: true, Action: retry.Action{Again: true, Cost: 5}}, decided[0])
		assert.Equal(t, "b:80", decided[1].Endpoint)
		assert.False(t, decided[1].Action.Again)
		require.Len(t, called, 1)
		assert.Equal(t, 200, called[0].StatusCode)
		assert.Equal(t, "b:80", called[0].Info.Endpoint.Address)
		assert.Len(t, called[0].Info.Attempts, 2)
		p.idle()
	})
}

// Given a first attempt that fails while another is under way, then the call waits for that one,
// and the fallback is asked only if both fail.
func TestHedge_FailedLegDoesNotWin_R19(t *testing.T) {
	for _, row := range []struct {
		b    int
		want string
	}{{0, "b"}, {503, "sorry"}} {
		t.Run(row.want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				p := newPaced(t, []string{"a", "b"}, evenkeel.WithBalancer(first("a:80")), evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}),
					evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, MaxAttempts: 2}),
					evenkeel.WithFallback(func(req *http.Request, resp *http.Response, err error) (*http.Response, error) {
						asked++
						require.NoError(t, err)
						assert.Equal(t, 503, resp.StatusCode)
						return answerTo(req, 200, textBody("sorry")), nil
					}))
				p.down["a"].Store(503)
				p.down["b"].Store(int32(row.b))
				p.take(150*time.Millisecond, "a")
				p.take(200*time.Millisecond, "b")
				start := time.Now()
				who, err := p.call()
				require.NoError(t, err)
				assert.Equal(t, row.want, who)
				assert.Equal(t, 300*time.Millisecond, time.Since(start))
				assert.Equal(t, row.b/503, asked)
				assert.Equal(t, 2, p.requests())
				p.idle()
			})
		})
	}
}

// Given a first tier of which all were tried, or whose only endpoint is under way, then retries
// and hedges go to the next tier.
func TestHedge_GoesToTheNextTier_R17_R20(t *testing.T) {
	for _, row := range []struct {
		name string
		code int32
		took time.Duration
		want time.Duration
	}{{"retry", 503, 0, 0}, {"hedge", 0, never, 100 * time.Millisecond}} {
		for name, algorithm := range pickers() {
			t.Run(row.name+" by "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, list := servePaced(t, "a", "b")
					list[1].Priority = 1
					p.use(evenkeel.WithResolver(list), evenkeel.WithRetry(hedging), evenkeel.WithBalancer(algorithm),
						evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}))
					p.down["a"].Store(row.code)
					p.take(row.took, "a")
					for range 5 {
						start := time.Now()
						info, who := p.do(getRequest(t, "http://users/"))
						assert.Equal(t, "b", who)
						assert.Equal(t, row.want, time.Since(start))
						require.Len(t, info.Attempts, 2)
						assert.Equal(t, "a:80", info.Attempts[0].Endpoint.Address)
						synctest.Wait()
					}
					p.idle()
				})
			})
		}
	}
}

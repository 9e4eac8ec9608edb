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

// hedging is a policy that begins a second attempt after 100 ms, as often as it can.
var hedging = retry.Policy{Hedge: &retry.Hedge{After: 100 * time.Millisecond, Budget: -1}}

// never is how long an endpoint takes that hangs.
const never = -1

// paced is a fleet whose servers take as long as they are told.
type paced struct {
	*fleet
	takes map[string]*atomic.Int64 // nanoseconds
	ids   map[string]*evenkeeltest.Server
}

// servePaced makes no transport yet. Servers answer at once.
func servePaced(t *testing.T, names ...string) (*paced, discovery.List) {
	t.Helper()
	p := &paced{fleet: bare(t), takes: map[string]*atomic.Int64{}, ids: map[string]*evenkeeltest.Server{}}
	list := discovery.List{}
	for _, name := range names {
		takes, status := new(atomic.Int64), new(atomic.Int32)
		p.takes[name], p.down[name] = takes, status
		server := p.network.Serve(name+":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := evenkeeltest.OK(name)
			if code := int(status.Load()); code != 0 {
				answer = evenkeeltest.Status(code)
			}
			if d := takes.Load(); d == never {
				evenkeeltest.Hang().ServeHTTP(w, r)
			} else {
				answer.Delay(time.Duration(d)).ServeHTTP(w, r)
			}
		}))
		p.servers, p.ids[name] = append(p.servers, server), server
		list = append(list, server.Endpoint())
	}
	return p, list
}

// newPaced makes a transport that hedges, unless the options say otherwise.
func newPaced(t *testing.T, names []string, options ...evenkeel.Option) *paced {
	t.Helper()
	p, list := servePaced(t, names...)
	p.use(append([]evenkeel.Option{evenkeel.WithResolver(list), evenkeel.WithRetry(hedging)}, options...)...)
	require.NoError(t, p.Ready(t.Context()))
	return p
}

// take makes servers take so long.
func (p *paced) take(d time.Duration, names ...string) {
	for _, name := range names {
		p.takes[name].Store(int64(d))
	}
}

// requests is how many requests reached the servers.
func (p *paced) requests() (n int) {
	for _, s := range p.servers {
		n += s.Requests()
	}
	return n
}

// do makes a call and returns how it went.
func (p *paced) do(req *http.Request) (evenkeel.Info, string) {
	p.Helper()
	resp, err := p.RoundTrip(req)
	require.NoError(p, err)
	info, ok := evenkeel.InfoOf(resp)
	require.True(p, ok)
	return info, readBody(p.T, resp)
}

// Given three endpoints that take longer than the delay, then the second attempt of every
// call is at another one than the first, whatever the algorithm.
func TestHedge_GoesElsewhere_R20(t *testing.T) {
	algorithms := pickers()
	algorithms["hot and cold"] = balancer.HotCold{}
	algorithms["load weighted"] = balancer.LoadWeighted{}
	for name, algorithm := range algorithms {
		for _, names := range [][]string{{"a", "b"}, {"a", "b", "c", "d"}} {
			t.Run(fmt.Sprintf("%s of %d", name, len(names)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPaced(t, names, evenkeel.WithBalancer(algorithm), evenkeel.WithRand(seeded(t, 20)),
						evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, Budget: retry.Quota{Size: -1}}))
					p.take(150*time.Millisecond, names...)
					for i := range 60 {
						req := getRequest(t, "http://users/")
						req.Header.Set("X-User", fmt.Sprint(i))
						start := time.Now()
						info, who := p.do(req)
						require.Len(t, info.Attempts, 2)
						first, second := info.Attempts[0], info.Attempts[1]
						require.NotEqual(t, first.Endpoint.Address, second.Endpoint.Address)
						assert.Equal(t, []bool{false, true}, []bool{first.Hedge, second.Hedge})
						assert.Equal(t, 150*time.Millisecond, time.Since(start), "the first was the faster one")
						assert.Equal(t, who+":80", first.Endpoint.Address)
						synctest.Wait()
					}
					p.idle()
					assert.Equal(t, 2*60, p.requests())
				})
			})
		}
	}
}

// Given many calls at once, so that all endpoints have much in flight, then it still holds.
func TestHedge_GoesElsewhereUnderLoad_R20(t *testing.T) {
	for name, algorithm := range algorithms() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				names := []string{"a", "b", "c"}
				p := newPaced(t, names, evenkeel.WithBalancer(algorithm), evenkeel.WithRand(seeded(t, 21)),
					evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, Budget: retry.Quota{Size: -1}}))
				p.take(150*time.Millisecond, names...)
				const calls = 200
				var calling sync.WaitGroup
				for range calls {
					calling.Go(func() {
						resp, err := p.RoundTrip(getRequest(t, "http://users/"))
						if !assert.NoError(t, err) {
							return
						}
						defer resp.Body.Close()
						if info, _ := evenkeel.InfoOf(resp); assert.Len(t, info.Attempts, 2) {
							assert.NotEqual(t, info.Attempts[0].Endpoint.Address, info.Attempts[1].Endpoint.Address)
						}
					})
				}
				calling.Wait()
				p.idle()
				assert.EqualValues(t, calls, p.Stats().Retries)
			})
		})
	}
}

// Given nowhere else to go, or a request that must not be sent twice, then there is no second
// attempt, and nothing is taken out of the budget.
func TestHedge_NoSecondLeg_R20(t *testing.T) {
	two, plain := []string{"a", "b"}, func(t *testing.T) *http.Request { return getRequest(t, "http://users/") }
	marked := func(m retry.Mark) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			t.Helper()
			return plain(t).WithContext(retry.WithMark(t.Context(), m))
		}
	}
	post := func(t *testing.T) *http.Request {
		t.Helper()
		req := plain(t)
		req.Method = http.MethodPost
		evenkeeltest.NewBody("order 1").Replayable(req)
		return req
	}
	stream := func(t *testing.T) *http.Request {
		t.Helper()
		req := plain(t)
		req.Method = http.MethodPut
		evenkeeltest.NewBody("order 1").Stream(req)
		return req
	}
	upgrade := func(t *testing.T) *http.Request {
		t.Helper()
		req := plain(t)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		return req
	}
	off := balancer.Rules{Panic: balancer.Panic{Threshold: -1}, SlowStart: balancer.SlowStart{Window: -1}}
	for _, row := range []struct {
		name    string
		names   []string
		options []evenkeel.Option
		before  func(p *paced)
		request func(*testing.T) *http.Request
	}{
		{"a single endpoint", []string{"a"}, nil, nil, plain},
		{"the other one is open", two, []evenkeel.Option{evenkeel.WithRules(off)}, func(p *paced) { p.open(true, "b") }, plain},
		{"all others are open, and two of three are no panic", []string{"a", "b", "c"}, []evenkeel.Option{evenkeel.WithRules(off)}, func(p *paced) { p.open(true, "b", "c") }, plain},
		{"the other one is forced open", two, nil, func(p *paced) { _ = p.breakerOf("b").SetMode(breaker.ForcedOpen) }, plain},
		{"a POST", two, nil, nil, post},
		{"a body without GetBody", two, nil, nil, stream},
		{"an upgrade", two, nil, nil, upgrade},
		{"one attempt by the policy", two, []evenkeel.Option{evenkeel.WithRetry(retry.Policy{MaxAttempts: 1, Hedge: hedging.Hedge})}, nil, plain},
		{"one attempt by a mark", two, nil, nil, marked(retry.Once)},
		{"no hedge by a mark", two, nil, nil, marked(retry.NoHedge)},
		{"not idempotent by a mark", two, nil, nil, marked(retry.NotIdempotent)},
		{"no budget", two, []evenkeel.Option{evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, Budget: retry.Quota{Size: 4}})}, nil, plain},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, row.names, row.options...)
				if row.before != nil {
					row.before(p)
				}
				p.take(time.Second, row.names...)
				before, requests := p.Stats(), p.requests()
				_, err := p.send(row.request(t))
				require.NoError(t, err)
				p.idle()
				after := p.Stats()
				assert.Equal(t, 1, p.requests()-requests)
				assert.Equal(t, before.Retries, after.Retries)
				assert.GreaterOrEqual(t, after.QuotaTokens, before.QuotaTokens)
				assert.Zero(t, p.state("a").Counts.Failures)
			})
		})
	}
}

// Given others that are full, then nobody waits for room there beside an attempt that is under
// way, and whatever was taken for it comes back.
func TestHedge_OthersAreFull_R20(t *testing.T) {
	for _, most := range []int{1, 2} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rules := balancer.Rules{MaxInFlight: most, SlowStart: balancer.SlowStart{Window: -1}, Queue: balancer.Queue{Timeout: time.Minute}}
				p := newPaced(t, []string{"a", "b"}, evenkeel.WithRules(rules))
				var held []*http.Response
				for range 2 * most { // fill both, and make room at a
					resp, err := p.RoundTrip(getRequest(t, "http://users/"))
					require.NoError(t, err)
					held = append(held, resp)
				}
				for _, resp := range held {
					if info, _ := evenkeel.InfoOf(resp); info.Endpoint.Address == "a:80" {
						require.NoError(t, resp.Body.Close())
					}
				}
				p.take(time.Second, "a", "b")
				before, requests := p.Stats(), p.requests()
				require.Equal(t, []int64{0, int64(most)}, []int64{before.Pool.Endpoints[0].InFlight, before.Pool.Endpoints[1].InFlight})
				start := time.Now()
				who, err := p.call()
				require.NoError(t, err)
				assert.Equal(t, "a", who)
				assert.Equal(t, time.Second, time.Since(start))
				synctest.Wait()
				after := p.Stats()
				assert.Equal(t, 1, p.requests()-requests)
				assert.Equal(t, before.Retries, after.Retries)
				assert.Equal(t, before.QuotaTokens, after.QuotaTokens)
				assert.Zero(t, after.Pool.Waiting)
				for _, resp := range held {
					require.NoError(t, resp.Body.Close())
				}
				p.idle()
			})
		})
	}
}

// Given an endpoint that never answers, and one that does, then what loses says nothing: no
// breaker, no throttle and no count of failures has seen it, and nothing is in flight.
func TestHedge_LosersGiveNoSample_R20_B01(t *testing.T) {
	for name, algorithm := range algorithms() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(t, []string{"a", "b"}, evenkeel.WithBalancer(algorithm), evenkeel.WithRand(seeded(t, 22)),
					evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 1}),
					evenkeel.WithTargetBreaker(breaker.Config{}), evenkeel.WithThrottle(breaker.ThrottleConfig{}),
					evenkeel.WithRetry(retry.Policy{Hedge: hedging.Hedge, Budget: retry.Quota{Size: -1}}))
				p.take(never, "a")
				const calls = 40
				for range calls {
					who, err := p.call()
					require.NoError(t, err)
					assert.Equal(t, "b", who)
				}
				p.idle()
				lost := p.ids["a"].Requests()
				require.Positive(t, lost, "nothing has lost, so nothing was tested")
				stats := p.Stats()
				assert.EqualValues(t, calls, stats.Calls)
				assert.Zero(t, stats.Failed)
				assert.EqualValues(t, lost, stats.Retries, "each one that lost had another beside it")
				assert.Equal(t, breaker.Counts{}, p.state("a").Counts)
				assert.Equal(t, breaker.Closed, p.state("a").State)
				assert.Equal(t, calls, p.state("b").Counts.Successes)
				assert.Equal(t, calls, stats.TargetBreaker.Counts.Calls(), "calls, not attempts")
				assert.Equal(t, calls, stats.TargetBreaker.Counts.Successes)
				assert.Equal(t, calls, stats.Throttle.Requests, "it has taken back what lost")
				assert.Equal(t, calls, stats.Throttle.Accepts)
				for _, e := range stats.Pool.Endpoints {
					assert.Zero(t, e.Failures, "%s", e.Endpoint)
					assert.Empty(t, e.Unavailable)
				}
			})
		})
	}
}

// Given a half-open breaker whose probe loses, then the probe decides nothing and gives its
// place back: the next one that is answered closes the breaker.
func TestHedge_ProbeThatLoses_R20_K03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, []string{"a", "b"})
		p.open(false, "a")
		time.Sleep(time.Until(p.state("a").Until))
		p.take(never, "a")
		had := p.ids["a"].Requests()
		for i := range 10 { // with one place for probes, each of these was given back before the next
			for p.ids["a"].Requests() == had+i {
				who, err := p.call()
				require.NoError(t, err)
				assert.Equal(t, "b", who)
				synctest.Wait()
			}
			s := p.state("a")
			assert.Equal(t, breaker.HalfOpen, s.State)
			assert.Zero(t, s.Counts.Calls())
		}
		p.take(0, "a")
		assert.Positive(t, p.calls(4)["a"])
		assert.Equal(t, breaker.Closed, p.state("a").State)
		p.idle()
	})
}

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

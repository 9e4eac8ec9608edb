package evenkeel_test

import (
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

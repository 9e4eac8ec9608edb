package evenkeel_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
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
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// newScripted serves what the steps say, at a:80, b:80 and so on, and makes a transport without
// breakers that prefers the first server, unless the options say otherwise.
func newScripted(t *testing.T, scripts [][]http.Handler, options ...evenkeel.Option) *fleet {
	t.Helper()
	f, list := bare(t), discovery.List{}
	for i, steps := range scripts {
		server := f.network.Serve(fmt.Sprintf("%c:80", 'a'+i), evenkeeltest.Script(steps...))
		f.servers, list = append(f.servers, server), append(list, server.Endpoint())
	}
	f.use(append([]evenkeel.Option{
		evenkeel.WithResolver(list), evenkeel.WithRetry(retry.Policy{}), evenkeel.WithBalancer(first("a:80")),
		evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}),
	}, options...)...)
	require.NoError(t, f.Ready(t.Context()))
	return f
}

// script is the steps of one server.
func script(steps ...http.Handler) []http.Handler { return steps }

// busy is an answer that asks for a pause.
func busy(code int, seconds string) http.Handler {
	return evenkeeltest.Status(code).Header("Retry-After", seconds)
}

func (f *fleet) why(i int) string { return f.Stats().Pool.Endpoints[i].Unavailable }

// Given an endpoint that asks for a pause, then the call that was told so goes to another one at
// once, other calls go there from the beginning, and the endpoint is back after the pause.
func TestParking_OthersServeMeanwhile_R18_R12(t *testing.T) {
	for name, step := range map[string]http.Handler{
		"503 with Retry-After": busy(503, "10"), "429 with Retry-After": busy(429, "10"),
		"429 with RateLimit":         evenkeeltest.Status(429).Header("RateLimit", `"default";r=0;t=10`),
		"429 with X-RateLimit-Reset": evenkeeltest.Status(429).Header("X-RateLimit-Reset", "10"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScripted(t, [][]http.Handler{script(step, evenkeeltest.OK("a")), script(evenkeeltest.OK("b"))})
				start := time.Now()
				who, err := f.call()
				require.NoError(t, err)
				assert.Equal(t, "b", who)
				assert.Zero(t, time.Since(start), "it did not wait")
				assert.EqualValues(t, 1, f.Stats().Retries)
				assert.Equal(t, "parked", f.why(0))
				for f.why(0) != "" {
					require.Less(t, time.Since(start), 15*time.Second+time.Millisecond)
					assert.Equal(t, map[string]int{"b": 1}, f.calls(1))
					time.Sleep(100 * time.Millisecond)
				}
				assert.GreaterOrEqual(t, time.Since(start), 10*time.Second)
				f.servers[0].AssertRequests(t, 1)
				assert.EqualValues(t, 1, f.Stats().Retries, "nobody had to be told twice")
				assert.Equal(t, map[string]int{"a": 1}, f.calls(1))
				f.idle()
			})
		})
	}
}

// Given that there is no other endpoint, or none that is not parked itself, then the call waits
// for as long as it was asked to, and not less.
func TestParking_WaitsWhereThereIsNoOther_R12_R17(t *testing.T) {
	for _, row := range []struct {
		name    string
		scripts [][]http.Handler
	}{
		{"a single one", [][]http.Handler{script(busy(503, "2"), evenkeeltest.OK("a"))}},
		{"all others are parked", [][]http.Handler{
			script(busy(503, "2"), evenkeeltest.OK("a")), script(busy(503, "100"), evenkeeltest.OK("b")), script(busy(503, "100"), evenkeeltest.OK("c")),
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScripted(t, row.scripts)
				for i := len(row.scripts) - 1; i > 0; i-- { // park the others, whose turn comes only so
					f.park(i)
				}
				start := time.Now()
				info, _ := (&paced{fleet: f}).do(getRequest(t, "http://users/"))
				assert.GreaterOrEqual(t, time.Since(start), 2*time.Second)
				assert.LessOrEqual(t, time.Since(start), 3*time.Second)
				require.Len(t, info.Attempts, 2) // in panic, the second one may go anywhere
				assert.Equal(t, "a:80", info.Attempts[0].Endpoint.Address)
				f.idle()
			})
		})
	}
}

// park makes a server say that it is busy: its script must say so next.
func (f *fleet) park(i int) {
	f.Helper()
	c := f.Config()
	c.Balancer, c.Retry.MaxAttempts = first(f.servers[i].Addr()), 1
	before := f.Config()
	require.NoError(f, f.Update(c))
	_, err := f.call()
	require.NoError(f, err)
	require.NoError(f, f.Update(before))
	require.Equal(f, "parked", f.why(i))
}

// Given a pause that is longer than retries wait, then the answer is the caller's at once, and the
// endpoint is parked nevertheless.
func TestParking_TooLongToWaitFor_R10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScripted(t, [][]http.Handler{script(busy(429, "3600"), evenkeeltest.OK("a"))})
		start := time.Now()
		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		info, _ := evenkeel.InfoOf(resp)
		assert.Equal(t, outcome.Pushback, info.Reason)
		assert.Equal(t, 429, resp.StatusCode)
		readBody(t, resp)
		assert.Zero(t, time.Since(start))
		assert.Equal(t, "parked", f.why(0))
		assert.Equal(t, map[string]int{"a": 1}, f.calls(1), "it is the only one, so it is asked all the same")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		assert.Empty(t, f.why(0))
	})
}

// Given rules, then no pause is longer than they allow, and none is kept where they say so.
func TestParking_ByTheRules_R10(t *testing.T) {
	for _, row := range []struct {
		most time.Duration
		want time.Duration
	}{{-1, 0}, {3 * time.Second, 3 * time.Second}, {0, 5 * time.Minute}} {
		t.Run(row.most.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScripted(t, [][]http.Handler{script(busy(503, "3600"), evenkeeltest.OK("a")), script(evenkeeltest.OK("b"))},
					evenkeel.WithRules(balancer.Rules{MaxPark: row.most, SlowStart: balancer.SlowStart{Window: -1}}))
				start := time.Now()
				assert.Equal(t, map[string]int{"b": 1}, f.calls(1))
				for f.why(0) != "" {
					time.Sleep(time.Second)
					synctest.Wait() // a timer of the same instant may come later
				}
				assert.GreaterOrEqual(t, time.Since(start), row.want*2/3)
				assert.LessOrEqual(t, time.Since(start), row.want)
				assert.Equal(t, map[string]int{"a": 1}, f.calls(1))
			})
		})
	}
}

// Given a parked endpoint, when the policy is replaced, then it stays so.
func TestParking_SurvivesUpdate_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScripted(t, [][]http.Handler{script(busy(503, "20"), evenkeeltest.OK("a")), script(evenkeeltest.OK("b"))})
		assert.Equal(t, map[string]int{"b": 1}, f.calls(1))
		for _, change := range []func(*evenkeel.Config){
			func(c *evenkeel.Config) { c.Balancer = balancer.PeakEWMA{} },
			func(c *evenkeel.Config) { c.Rules.MaxPark = time.Second },
			func(c *evenkeel.Config) { c.Rules.Panic.Threshold = 0.1 },
			func(c *evenkeel.Config) { c.Retry.MaxAttempts = 1 },
		} {
			c := f.Config()
			change(&c)
			require.NoError(t, f.Update(c))
			assert.Equal(t, "parked", f.why(0))
			assert.Equal(t, map[string]int{"b": 10}, f.calls(10))
		}
		time.Sleep(30 * time.Second)
		assert.Empty(t, f.why(0))
		assert.Positive(t, f.calls(60)["a"])
	})
}

// Given a breaker that opens by the same answers, then both reasons are told, and the events say
// how many endpoints are left.
func TestParking_WithAnOpenBreaker_K15_O04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var available []int
		f := newScripted(t, [][]http.Handler{
			script(busy(503, "2"), evenkeeltest.OK("a")), script(evenkeeltest.OK("b")), script(evenkeeltest.OK("c")),
		}, evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 1, Jitter: breaker.Off, Probes: 1}),
			evenkeel.WithHooks(evenkeel.Hooks{Endpoints: func(c balancer.Change) {
				mu.Lock()
				defer mu.Unlock()
				if n := len(available); n == 0 || available[n-1] != c.Available {
					available = append(available, c.Available)
				}
			}}))
		_, err := f.call()
		require.NoError(t, err)
		assert.Equal(t, "open,parked", f.why(0))
		time.Sleep(3 * time.Second)
		assert.Equal(t, "open", f.why(0))
		assert.Zero(t, f.calls(5)["a"])
		time.Sleep(3 * time.Second)
		assert.Empty(t, f.why(0))
		assert.Equal(t, map[string]int{"a": 1}, f.calls(1))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []int{2, 3}, available[len(available)-2:])
	})
}

// Given a parked endpoint, then no hedge goes there, not even in panic.
func TestParking_NoHedgeThere_R20(t *testing.T) {
	for _, size := range []int{2, 3} { // with three, of which two are parked, there is panic
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ok := script(busy(503, "100"), evenkeeltest.OK("other"))
				f := newScripted(t, [][]http.Handler{script(evenkeeltest.OK("a").Delay(time.Second)), ok, ok}[:size], evenkeel.WithRetry(hedging))
				for i := 1; i < size; i++ {
					f.park(i)
				}
				require.Equal(t, size == 3, f.Stats().Pool.Panic)
				before := f.Stats()
				assert.Equal(t, map[string]int{"a": 3}, f.calls(3))
				assert.Equal(t, before.Retries, f.Stats().Retries)
				f.servers[1].AssertRequests(t, 1)
				f.idle()
			})
		})
	}
}

// Given a clock of the test's own, then parking follows it, and Close leaves no timer.
func TestParking_FollowsTheClock_X01_T18(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	answers := 0
	tr, err := evenkeel.New("http://users", evenkeel.WithClock(fake), evenkeel.WithBalancer(first("a:80")),
		evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}),
		evenkeel.WithEndpointTransport(func(e discovery.Endpoint) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				if answers++; answers == 1 {
					resp := answerTo(req, 503, http.NoBody)
					resp.Header.Set("Retry-After", "300") // the longest that it gets
					return resp, nil
				}
				return answerTo(req, 200, textBody(e.Address)), nil
			})
		}))
	require.NoError(t, err)
	require.NoError(t, tr.Ready(context.Background()))
	call := func() string {
		resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		return strings.TrimSuffix(readBody(t, resp), ":80")
	}
	assert.Equal(t, "b", call())
	fake.Advance(5*time.Minute - 1)
	assert.Equal(t, "b", call())
	assert.Equal(t, "parked", tr.Stats().Pool.Endpoints[0].Unavailable)
	fake.Advance(1)
	assert.Equal(t, "a", call())
	answers = 0
	assert.Equal(t, "b", call())
	assert.Positive(t, fake.Pending())
	require.NoError(t, tr.Close())
	assert.Zero(t, fake.Pending())
}

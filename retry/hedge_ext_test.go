package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

var errReset = errors.New("connection reset")

// Given legs that take so long and end so, then this is the answer, at that time, and the hooks
// are told of each leg once, in this order.
func TestHedge_WhoWins_R19(t *testing.T) {
	for _, row := range []struct {
		name     string
		attempts int
		timeout  time.Duration // of an attempt
		steps    []step
		sends    []time.Duration
		status   int // 0 is an error
		from     time.Duration
		took     time.Duration
		told     string
	}{
		{"a fast one is alone", 2, 0, []step{in(99*ms, answer(200))}, []time.Duration{0}, 200, 0, 99 * ms, "1 success"},
		{"the second", 2, 0, []step{hang, in(30*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 130 * ms, "2 success, 1 superseded"},
		{"the first", 2, 0, []step{in(150*ms, answer(200)), hang}, []time.Duration{0, 100 * ms}, 200, 0, 150 * ms, "1 success, 2 superseded"},
		{"404 is an answer", 2, 0, []step{hang, in(30*ms, answer(404))}, []time.Duration{0, 100 * ms}, 404, 100 * ms, 130 * ms, "2 client error, 1 superseded"},
		{"an error does not win", 2, 0, []step{in(150*ms, fail(errReset)), in(100*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 200 * ms, "1 failure, 2 success"},
		{"503 does not win", 2, 0, []step{in(150*ms, answer(503)), in(100*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 200 * ms, "1 failure, 2 success"},
		{"500 does not win", 2, 0, []step{in(150*ms, answer(500)), in(100*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 200 * ms, "1 failure, 2 success"},
		{"429 does not win", 2, 0, []step{in(150*ms, answer(429)), in(100*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 200 * ms, "1 overload, 2 success"},
		{"nor do they when they are the second", 2, 0, []step{in(250*ms, answer(200)), fail(errReset)}, []time.Duration{0, 100 * ms}, 200, 0, 250 * ms, "2 failure, 1 success"},
		{"nor 500", 2, 0, []step{in(250*ms, answer(200)), answer(500)}, []time.Duration{0, 100 * ms}, 200, 0, 250 * ms, "2 failure, 1 success"},
		{"both fail: an answer before an error", 2, 0, []step{in(150*ms, answer(503)), in(100*ms, fail(errReset))}, []time.Duration{0, 100 * ms}, 503, 0, 200 * ms, "1 failure, 2 failure"},
		{"both fail: an answer after an error", 2, 0, []step{in(150*ms, fail(errReset)), in(100*ms, answer(503))}, []time.Duration{0, 100 * ms}, 503, 100 * ms, 200 * ms, "1 failure, 2 failure"},
		{"both fail: two answers", 2, 0, []step{in(150*ms, answer(503)), in(100*ms, answer(502))}, []time.Duration{0, 100 * ms}, 502, 100 * ms, 200 * ms, "1 failure, 2 failure"},
		{"both fail: two errors", 2, 0, []step{in(150*ms, fail(errReset)), in(100*ms, fail(io.EOF))}, []time.Duration{0, 100 * ms}, 0, 0, 200 * ms, "1 failure, 2 failure"},
		{"a third beside the second", 3, 0, []step{in(150*ms, fail(errReset)), hang, in(20*ms, answer(200))}, []time.Duration{0, 100 * ms, 250 * ms}, 200, 250 * ms, 270 * ms, "1 failure, 3 success, 2 superseded"},
		{"never three at once", 9, 0, []step{in(time.Second, answer(200)), hang}, []time.Duration{0, 100 * ms}, 200, 0, time.Second, "1 success, 2 superseded"},
		{"one limit for all", 3, 0, []step{in(150*ms, answer(503)), in(100*ms, answer(503)), answer(503)}, []time.Duration{0, 100 * ms, 210 * ms}, 503, 210 * ms, 210 * ms, "1 failure, 2 failure, 3 failure"},
		{"a retry after both", 3, 0, []step{in(150*ms, answer(503)), in(100*ms, answer(503)), answer(200)}, []time.Duration{0, 100 * ms, 210 * ms}, 200, 210 * ms, 210 * ms, "1 failure, 2 failure, 3 success"},
		{"a hedge beside a retry", 3, 0, []step{answer(503), hang, answer(200)}, []time.Duration{0, 10 * ms, 110 * ms}, 200, 110 * ms, 110 * ms, "1 failure, 3 success, 2 superseded"},
		{"a leg that was never sent counts, too", 2, 0, []step{in(150*ms, fail(outcome.ErrNeverSent)), in(time.Second, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 1100 * ms, "1 never sent, 2 success"},
		{"an attempt's time limit", 2, 150 * ms, []step{hang, in(100*ms, answer(200))}, []time.Duration{0, 100 * ms}, 200, 100 * ms, 200 * ms, "1 failure, 2 success"},
		{"the limits of both", 2, 150 * ms, []step{hang}, []time.Duration{0, 100 * ms}, 0, 0, 250 * ms, "1 failure, 2 failure"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, h, p := scripted(row.steps...), new(told), hedging(row.attempts)
				p.Hooks, p.PerAttemptTimeout = h.hooks(), row.timeout

				resp, err := around(t, base, p).RoundTrip(get(t.Context()))

				assert.Equal(t, row.took, time.Since(base.start))
				assert.Equal(t, row.sends, base.times())
				assert.Equal(t, row.told, strings.Join(h.attempts, ", "))
				if row.status == 0 {
					e := failure(t, err)
					assert.Len(t, e.Attempts, len(row.sends))
					assert.Nil(t, resp)
				} else {
					require.NoError(t, err)
					status, body := read(t, resp)
					assert.Equal(t, row.status, status)
					assert.Equal(t, fmt.Sprintf("%d at %v", row.status, row.from), body, "it is whole, and that leg's")
					info, ok := retry.InfoOf(resp)
					require.True(t, ok)
					assert.ElementsMatch(t, h.attempts, classes(info.Attempts), "told once of each")
				}
				base.assertClean(t, true)
			})
		})
	}
}

// Given two answers at the same instant, then one is the call's and the other one is closed.
func TestHedge_BothAtOnce_R19(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			base, h, p := scripted(in(200*ms, answer(200)), in(100*ms, answer(200))), new(told), hedging(2)
			p.Hooks = h.hooks()
			resp, err := around(t, base, p).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			assert.Equal(t, 200*ms, time.Since(base.start))
			read(t, resp)
			require.Len(t, h.attempts, 2)
			assert.Contains(t, h.attempts[0], "success")
			assert.Contains(t, h.attempts[1], "superseded")
			base.assertClean(t, true)
		}
	})
}

// Given a request that may not be sent twice, or not now, then there is no second leg.
func TestHedge_NotAtAll_R20(t *testing.T) {
	type change = func(*http.Request, *retry.Policy) *http.Request
	marked := func(m retry.Mark) change {
		return func(req *http.Request, _ *retry.Policy) *http.Request {
			return req.WithContext(retry.WithMark(req.Context(), m))
		}
	}
	with := func(method string, body io.Reader, header string) change {
		return func(req *http.Request, _ *retry.Policy) *http.Request {
			req = request(req.Context(), method, body)
			if header != "" {
				req.Header.Set(header, "x")
			}
			return req
		}
	}
	policy := func(f func(*retry.Policy)) change {
		return func(req *http.Request, p *retry.Policy) *http.Request {
			f(p)
			return req
		}
	}
	for _, row := range []struct {
		name   string
		change change
		sends  int
	}{
		{"GET", with("GET", nil, ""), 2}, // the control
		{"PUT with GetBody", with("PUT", strings.NewReader("x"), ""), 2},
		{"POST", with("POST", nil, ""), 1},
		{"POST with GetBody", with("POST", strings.NewReader("x"), ""), 1},
		{"PATCH", with("PATCH", strings.NewReader("x"), ""), 1},
		{"PUT of a stream", with("PUT", streamed("x"), ""), 1},
		{"POST of a stream with a key", with("POST", streamed("x"), "Idempotency-Key"), 1},
		{"upgrade", with("GET", nil, "Upgrade"), 1},
		{"Once", marked(retry.Once), 1},
		{"NoHedge", marked(retry.NoHedge), 1},
		{"NotIdempotent", marked(retry.NotIdempotent), 1},
		{"one attempt", policy(func(p *retry.Policy) { p.MaxAttempts = 1 }), 1},
		{"hedges are used up", policy(func(p *retry.Policy) { p.Hedge.Budget = 0.05 }), 1},
		{"the budget is used up", policy(func(p *retry.Policy) { p.Budget = retry.Quota{Size: 4} }), 1},
		{"nothing is learnt yet", policy(func(p *retry.Policy) { p.Hedge.After = 0 }), 1},
		{"no hedges", policy(func(p *retry.Policy) { p.Hedge = nil }), 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(in(time.Second, answer(200))), hedging(3)
				req := row.change(get(t.Context()), &p)
				resp, err := around(t, base, p).RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
				assert.Equal(t, time.Second, time.Since(base.start), "a refused hedge leaves the first leg alone")
				assert.Len(t, base.all(), row.sends)
				base.assertClean(t, false)
			})
		})
	}
}

// Given a body that can be had again, then each leg has all of it.
func TestHedge_EachLegHasTheBody_R20(t *testing.T) {
	const content = "the whole of it"
	for _, row := range []struct {
		name, method, key string
		mark              retry.Mark
		policy            retry.Policy
	}{
		{"PUT", "PUT", "", 0, retry.Policy{}},
		{"POST with a key", "POST", "Idempotency-Key", 0, retry.Policy{}},
		{"POST with the other key", "POST", "X-Idempotency-Key", 0, retry.Policy{}},
		{"POST with a mark", "POST", "", retry.Idempotent, retry.Policy{}},
		{"POST by the policy", "POST", "", 0, retry.Policy{Idempotent: []string{"POST"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(hang, answer(200)), hedging(2)
				p.Idempotent = row.policy.Idempotent
				req := request(retry.WithMark(t.Context(), row.mark), row.method, strings.NewReader(content))
				if row.key != "" {
					req.Header.Set(row.key, "17")
				}
				resp, err := around(t, base, p).RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
				require.Len(t, base.all(), 2)
				for _, one := range base.all() {
					assert.Equal(t, content, string(one.body))
					assert.EqualValues(t, len(content), one.req.ContentLength)
					assert.Equal(t, req.Header, one.req.Header, "with the same key")
				}
				base.assertClean(t, true)
			})
		})
	}
}

// Given a GetBody that fails, then there is no second leg, and the first is left alone.
func TestHedge_NoSecondBody_R20(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrier(t, hedging(2))
		base := scripted(in(time.Second, answer(200)))
		req := request(t.Context(), http.MethodPut, strings.NewReader("x"))
		req.GetBody = func() (io.ReadCloser, error) { return nil, errReset }
		resp, err := r.Transport(base).RoundTrip(req)
		require.NoError(t, err)
		info, _ := retry.InfoOf(resp)
		assert.Empty(t, info.Reason)
		read(t, resp)
		assert.Len(t, base.all(), 1)
		assert.Equal(t, 500, r.Tokens(), "what the leg would have cost is given back")
	})
}

// Given 5 % and thousands of slow calls, then there are 5 % hedges, and 10 more after many fast
// calls.
func TestHedge_Budget_R20(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := 150 * ms
		base := scripted(func(s *sent) (*http.Response, error) { return in(took, answer(200))(s) })
		p := hedging(3)
		p.Hedge.Budget, p.Budget = 0, retry.Quota{Size: -1}
		tr := around(t, base, p)
		calls := func(n int) (hedges int) {
			before := len(base.all())
			for range n {
				resp, err := tr.RoundTrip(get(t.Context()))
				require.NoError(t, err)
				read(t, resp)
			}
			return len(base.all()) - before - n
		}
		assert.InDelta(t, 150, calls(3000), 1)
		took = 10 * ms
		assert.Zero(t, calls(1000))
		took = 150 * ms
		assert.InDelta(t, 10+50, calls(1000), 1, "no more than 10 are saved")
	})
}

// Given a budget, then a hedge takes as much as a retry, and gets it back only if it wins.
func TestHedge_UsesThePolicysBudget_R20(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := hedging(3)
		p.Budget = retry.Quota{Size: 12}
		r := retrier(t, p)
		call := func(steps ...step) (sends, tokens int) {
			base := scripted(steps...)
			resp, err := r.Transport(base).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			read(t, resp)
			return len(base.all()), r.Tokens()
		}
		for i, row := range []struct {
			steps         []step
			sends, tokens int
		}{
			{[]step{hang, answer(200)}, 2, 12},                     // it wins
			{[]step{in(150*ms, answer(200)), hang}, 2, 12 - 5 + 1}, // it loses; the first one is a success
			{[]step{in(150*ms, answer(200)), hang}, 2, 8 - 5 + 1},
			{[]step{in(150*ms, answer(200)), hang}, 1, 5}, // too little was left
			{[]step{in(150*ms, answer(200)), hang}, 2, 1},
		} {
			sends, tokens := call(row.steps...)
			assert.Equal(t, row.sends, sends, "call %d", i)
			assert.Equal(t, row.tokens, tokens, "call %d", i)
		}
	})
}

// Given a caller who cancels in the wait before a retry, then that costs nothing, hedged or not.
func TestHedge_ARetryNotMadeCostsNothing_R04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hedge := range []*retry.Hedge{nil, {After: time.Hour, Budget: -1}} {
			r := retrier(t, retry.Policy{Hedge: hedge, Backoff: waits(time.Second)})
			for _, call := range []func(context.Context) error{
				func(ctx context.Context) error {
					_, err := r.Transport(scripted(answer(503))).RoundTrip(get(ctx))
					return err
				},
				func(ctx context.Context) error {
					_, err := retry.Do(ctx, r, returns(0, errReset))
					return err
				},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				time.AfterFunc(500*ms, cancel)
				require.Error(t, call(ctx))
				assert.Equal(t, 500, r.Tokens())
			}
		}
	})
}

// Given less than 100 latencies, then nothing is hedged; then at their quantile; and not any more
// when they are old.
func TestHedge_Learns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := 10 * ms
		base := scripted(func(s *sent) (*http.Response, error) { return in(took, answer(200))(s) })
		p := hedging(3)
		p.Hedge.After = 0
		var decisions []retry.Decision
		p.Hooks.Decided = func(d retry.Decision) {
			if d.Hedge {
				decisions = append(decisions, d)
			}
		}
		tr := around(t, base, p)
		call := func(method string) time.Duration { // returns when the second leg came, 0 if none did
			before := len(base.all())
			resp, err := tr.RoundTrip(request(t.Context(), method, nil))
			require.NoError(t, err)
			read(t, resp)
			if all := base.times()[before:]; len(all) > 1 {
				return all[1] - all[0]
			}
			return 0
		}
		slow := func(method string) time.Duration {
			time.Sleep(3 * time.Second) // the quantile is computed every 3 s
			took = time.Second
			defer func() { took = 10 * ms }()
			return call(method)
		}
		for range 98 {
			require.Zero(t, call(http.MethodGet))
		}
		require.Zero(t, slow(http.MethodGet), "98 are too few")
		require.Zero(t, slow(http.MethodGet), "99 are too few")
		second := slow(http.MethodGet)
		assert.GreaterOrEqual(t, second, 10*ms)
		assert.LessOrEqual(t, second, 10*ms+10*ms/32, "the error is bounded by a bucket")
		require.Zero(t, slow(http.MethodDelete), "each method has its own latencies")
		time.Sleep(time.Minute)
		require.Zero(t, slow(http.MethodGet), "all is forgotten")
		require.Len(t, decisions, 1)
		assert.Equal(t, retry.Action{Again: true, Cost: 5}, decisions[0].Action)
	})
}

// Given a hedge that is refused, then the decision says why, and it is asked once.
func TestHedge_ReasonOfARefusal_O04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			reason outcome.Reason
			change func(context.Context, *retry.Policy) (context.Context, context.CancelFunc)
		}{
			{outcome.Quota, func(ctx context.Context, p *retry.Policy) (context.Context, context.CancelFunc) {
				p.Hedge.Budget = 0.01
				return ctx, func() {}
			}},
			{outcome.Quota, func(ctx context.Context, p *retry.Policy) (context.Context, context.CancelFunc) {
				p.Budget = retry.Quota{Size: 1}
				return ctx, func() {}
			}},
			{outcome.Deadline, func(ctx context.Context, _ *retry.Policy) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 350*ms) // no time for one more, which takes 300 ms
			}},
		} {
			base, h, p := scripted(in(300*ms, answer(200))), new(told), hedging(3)
			ctx, cancel := row.change(t.Context(), &p)
			p.Hooks = h.hooks()
			tr := around(t, base, p)
			first := get(retry.WithMark(t.Context(), retry.NoHedge)) // from which the latency is known
			resp, err := tr.RoundTrip(first)
			require.NoError(t, err)
			read(t, resp)
			if row.reason == outcome.Deadline { // it was made before that call
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 350*ms)
			}
			h.decisions = nil
			resp, err = tr.RoundTrip(get(ctx))
			require.NoError(t, err)
			read(t, resp)
			cancel()
			require.Len(t, h.decisions, 2)
			assert.Equal(t, retry.Decision{Attempt: 1, Hedge: true, Action: retry.Action{Reason: row.reason}}, h.decisions[0])
			assert.False(t, h.decisions[1].Hedge)
			assert.Len(t, base.all(), 2)
		}
	})
}

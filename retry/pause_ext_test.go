package retry_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given an attempt that fails while another one runs, then looking how long a retry would wait
// does not use up a wait: a backoff that allows one retry allows it.
func TestHedge_PauseUsesUpNoWait_R18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := scripted(in(150*ms, fail(errors.New("x"))), in(100*ms, fail(errors.New("y"))), answer(200))
		p := hedging(5)
		p.NewBackOff = func() backoff.BackOff { return backoff.WithMaxRetries(backoff.NewConstantBackOff(10*ms), 1) }
		resp, err := around(t, base, p).RoundTrip(request(t.Context(), http.MethodGet, nil))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Len(t, base.all(), 3)
	})
}

// Given an answer that the user's rule would repeat while another attempt hangs, then the next
// one begins beside that, as after any failure.
func TestHedge_PauseHeedsTheUsersRule_R22(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := hedging(5)
		p.RetryIf = func(c retry.Case) bool { return c.StatusCode != http.StatusOK }
		base := scripted(hang, answer(404), answer(200))
		resp, err := around(t, base, p).RoundTrip(request(t.Context(), http.MethodGet, nil))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		resp.Body.Close()
	})
}

// Given a classifier that takes an answer for a caller who has gone, then the caller, who is there,
// gets that answer, hedged or not.
func TestHedge_AnswerTakenForACancel_R13(t *testing.T) {
	for _, hedge := range []*retry.Hedge{nil, {After: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			p := retry.Policy{Hedge: hedge, Classifier: func(a outcome.Attempt) outcome.Outcome {
				if a.Response != nil && a.Response.StatusCode == 499 {
					return outcome.Outcome{Class: outcome.Canceled}
				}
				return outcome.Classify(a)
			}}
			resp, err := around(t, scripted(answer(499)), p).RoundTrip(request(t.Context(), http.MethodGet, nil))
			require.NoError(t, err)
			assert.Equal(t, 499, resp.StatusCode)
			resp.Body.Close()
		})
	}
}

// Given a call of the function that says when to come back, while another call of it runs and then
// fails, then the wish holds.
func TestDo_FirstWishHolds_R12(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := retry.NewRetrier(hedging(3))
		require.NoError(t, err)
		start, wished := time.Now(), time.Duration(0)
		var n atomic.Int32
		_, err = retry.Do(t.Context(), r, func(context.Context) (int, error) {
			switch n.Add(1) {
			case 1:
				time.Sleep(200 * ms)
				return 0, errors.New("plain")
			case 2:
				time.Sleep(50 * ms)
				wished = time.Since(start) + 5*time.Second
				return 0, later(5 * time.Second)
			}
			return 1, nil
		})
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(start), wished)
	})
}

// Given a hook that panics when it is told that there will be another attempt, then what that
// would have taken is given back.
func TestHooks_PanicGivesBack_R04(t *testing.T) {
	for _, policy := range []retry.Policy{{}, hedging(3)} {
		synctest.Test(t, func(t *testing.T) {
			policy.Hooks.Decided = func(d retry.Decision) {
				if d.Action.Again {
					panic("ordered")
				}
			}
			r, err := retry.NewRetrier(policy)
			require.NoError(t, err)
			assert.PanicsWithValue(t, "ordered", func() {
				resp, err := r.Transport(scripted(answer(503), answer(200))).RoundTrip(request(t.Context(), http.MethodGet, nil))
				if err == nil {
					resp.Body.Close()
				}
			})
			synctest.Wait()
			assert.Equal(t, 500, r.Tokens())
			assert.PanicsWithValue(t, "ordered", func() {
				_, _ = retry.Do(t.Context(), r, func(context.Context) (int, error) { return 0, errors.New("no") })
			})
			assert.Equal(t, 500, r.Tokens())
		})
	}
}

// Given a failure that nothing would cure, while another attempt runs which then is repeated, then
// that was the matter of those two: if the retry hangs, it gets company.
func TestHedge_PauseEndsWithTheRetry_R20(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		base := scripted(in(150*ms, answer(500)), in(200*ms, answer(503)), hang, answer(200))
		resp, err := around(t, base, hedging(5)).RoundTrip(request(ctx, http.MethodGet, nil))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		resp.Body.Close()
		assert.Len(t, base.all(), 4)
	})
}

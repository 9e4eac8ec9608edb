package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// fn is a function for Do with its result and error.
type fn = func(context.Context) (int, error)

// doing calls a function for each step, and the last one for the rest. It notes when.
type doing struct {
	steps []fn
	start time.Time
	mu    sync.Mutex
	at    []time.Duration
}

func steps(s ...fn) *doing { return &doing{steps: s, start: time.Now()} }

func (d *doing) call(ctx context.Context) (int, error) {
	d.mu.Lock()
	do := d.steps[min(len(d.at), len(d.steps)-1)]
	d.at = append(d.at, time.Since(d.start))
	d.mu.Unlock()
	return do(ctx)
}

// times returns when the function was called.
func (d *doing) times() []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Duration(nil), d.at...)
}

func returns(n int, err error) fn { return func(context.Context) (int, error) { return n, err } }

func waitsFor(ctx context.Context) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func takes(d time.Duration, then fn) fn {
	return func(ctx context.Context) (int, error) {
		select {
		case <-time.After(d):
			return then(ctx)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// later is an error that says when to come back.
type later time.Duration

func (l later) Error() string             { return "later" }
func (l later) RetryAfter() time.Duration { return time.Duration(l) }

// Given a function with such results, then it is called at these times, and this is what comes of
// it.
func TestDo(t *testing.T) {
	type policy = retry.Policy
	busy := fmt.Errorf("wrapped: %w", later(3*time.Second))
	for _, row := range []struct {
		name   string
		policy policy
		steps  []fn
		at     []time.Duration // in ms
		value  int
		reason outcome.Reason
		is     []error // what is found in the error; none means that there is none
		told   string
	}{
		{"success", policy{}, []fn{returns(7, nil)}, []time.Duration{0}, 7, "", nil, "1 success"},
		{"retry", policy{}, []fn{returns(0, errReset), returns(7, nil)}, []time.Duration{0, 10}, 7, "", nil, "1 failure, 2 success"},
		{"all attempts", policy{}, []fn{returns(1, errReset), returns(2, context.Canceled), returns(3, backoff.Permanent(nil))}, []time.Duration{0, 10, 20}, 3, "", nil, "1 failure, 2 failure, 3 success"},
		{"all fail", policy{}, []fn{returns(1, errReset), returns(2, errReset), returns(3, io.EOF)}, []time.Duration{0, 10, 20}, 3, outcome.Attempts, []error{errReset, io.EOF}, "1 failure, 2 failure, 3 failure"},
		{"one attempt", policy{MaxAttempts: 1}, []fn{returns(0, errReset)}, []time.Duration{0}, 0, outcome.Attempts, []error{errReset}, "1 failure"},
		{"permanent", policy{}, []fn{returns(0, retry.Permanent(errReset))}, []time.Duration{0}, 0, "", []error{errReset}, "1 failure"},
		{"permanent, cenkalti", policy{}, []fn{returns(0, backoff.Permanent(errReset))}, []time.Duration{0}, 0, "", []error{errReset}, "1 failure"},
		{"permanent, wrapped", policy{}, []fn{returns(0, fmt.Errorf("w: %w", retry.Permanent(errReset)))}, []time.Duration{0}, 0, "", []error{errReset}, "1 failure"},
		{"permanent, cenkalti, wrapped", policy{}, []fn{returns(0, fmt.Errorf("w: %w", backoff.Permanent(errReset)))}, []time.Duration{0}, 0, "", []error{errReset}, "1 failure"},
		{"permanent at last", policy{}, []fn{returns(0, errReset), returns(0, retry.Permanent(io.EOF))}, []time.Duration{0, 10}, 0, "", []error{errReset, io.EOF}, "1 failure, 2 failure"},
		{"RetryAfter", policy{}, []fn{returns(0, busy), returns(7, nil)}, []time.Duration{0, 3000}, 7, "", nil, "1 failure, 2 success"},
		{"RetryAfter, too long", policy{}, []fn{returns(0, later(time.Hour))}, []time.Duration{0}, 0, outcome.Pushback, []error{later(time.Hour)}, "1 failure"},
		{"RetryAfter, shortened", policy{Pushback: retry.Pushback{Shorten: true, Max: 3 * time.Second}}, []fn{returns(0, later(time.Hour)), returns(7, nil)}, []time.Duration{0, 2000}, 7, "", nil, "1 failure, 2 success"},
		{"RetryAfter, not heard", policy{Pushback: retry.Pushback{Max: -1}}, []fn{returns(0, busy), returns(7, nil)}, []time.Duration{0, 10}, 7, "", nil, "1 failure, 2 success"},
		{"RetryAfter below zero", policy{}, []fn{returns(0, later(-time.Hour)), returns(7, nil)}, []time.Duration{0, 10}, 7, "", nil, "1 failure, 2 success"},
		{"an attempt's time limit", policy{PerAttemptTimeout: 50 * ms}, []fn{waitsFor, returns(7, nil)}, []time.Duration{0, 60}, 7, "", nil, "1 failure, 2 success"},
		{"the call's time limit", policy{Timeout: 50 * ms}, []fn{waitsFor}, []time.Duration{0}, 0, outcome.Deadline, []error{context.Canceled}, "1 failure"},
		{"no time for the wait", policy{Timeout: 50 * ms, Backoff: waits(time.Minute)}, []fn{returns(0, errReset)}, []time.Duration{0}, 0, outcome.Deadline, []error{errReset, context.DeadlineExceeded}, "1 failure"},
		{"RetryIf says no", policy{RetryIf: func(c retry.Case) bool { return false }}, []fn{returns(0, errReset)}, []time.Duration{0}, 0, outcome.Declined, []error{errReset}, "1 failure"},
		{"the classifier says no", policy{Classifier: func(a outcome.Attempt) outcome.Outcome {
			return outcome.Outcome{Class: outcome.Failure}
		}}, []fn{returns(0, errReset)}, []time.Duration{0}, 0, "", []error{errReset}, "1 failure"},
		{"the budget is empty", policy{Budget: retry.Quota{Size: 1}}, []fn{returns(0, errReset)}, []time.Duration{0}, 0, outcome.Quota, []error{errReset}, "1 failure"},
		{"hedged, the second wins", policy{Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}}, []fn{waitsFor, takes(30*ms, returns(7, nil))}, []time.Duration{0, 100}, 7, "", nil, "2 success, 1 superseded"},
		{"hedged, an error does not win", policy{MaxAttempts: 2, Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}}, []fn{takes(250*ms, returns(7, nil)), returns(0, errReset)}, []time.Duration{0, 100}, 7, "", nil, "2 failure, 1 success"},
		{"hedged, both fail", policy{MaxAttempts: 2, Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}}, []fn{takes(150*ms, returns(0, errReset)), returns(0, io.EOF)}, []time.Duration{0, 100}, 0, outcome.Attempts, []error{errReset, io.EOF}, "2 failure, 1 failure"},
		{"hedged, then again", policy{Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}}, []fn{takes(150*ms, returns(0, errReset)), returns(0, errReset), returns(7, nil)}, []time.Duration{0, 100, 160}, 7, "", nil, "2 failure, 1 failure, 3 success"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, h, d := row.policy, new(told), steps(row.steps...)
				if p.Hooks = h.hooks(); p.Backoff.Base == 0 {
					p.Backoff = waits(10 * ms)
				}
				p.Rand = zeros{}
				value, err := retry.Do(t.Context(), retrier(t, p), d.call)
				assert.Equal(t, row.value, value)
				for i := range row.at {
					row.at[i] *= ms
				}
				assert.Equal(t, row.at, d.times())
				assert.Equal(t, row.told, strings.Join(h.attempts, ", "))
				if len(row.is) == 0 {
					require.NoError(t, err)
					return
				}
				e := failure(t, err)
				assert.Equal(t, row.reason, e.Reason)
				assert.Len(t, e.Attempts, len(row.at))
				for _, is := range row.is {
					assert.ErrorIs(t, err, is)
				}
				assert.NotContains(t, err.Error(), "\n")
				if len(row.at) == 1 && e.Reason != outcome.Deadline && !strings.Contains(row.name, "wrapped") {
					assert.Equal(t, row.is[0], e.Err, "the function's own error, without any mark")
				}
			})
		})
	}
}

// zeros is a source of randomness that makes all additions zero.
type zeros struct{}

func (zeros) Uint64() uint64 { return 0 }

// Given a caller who cancels, then no call of the function follows, and the error tells of both.
func TestDo_CallerCancels_R07(t *testing.T) {
	mine := errors.New("closed the window")
	for _, row := range []struct {
		name   string
		hedged bool
		fn     fn
		calls  int
		is     []error
	}{
		{"during the wait", false, returns(0, errReset), 1, []error{errReset, context.Canceled, mine}},
		{"during the function", false, waitsFor, 1, []error{context.Canceled}},
		{"during the wait, hedged", true, returns(0, errReset), 1, []error{errReset, context.Canceled, mine}},
		{"during two functions", true, waitsFor, 2, []error{context.Canceled}},
		{"during two that are deaf", true, func(context.Context) (int, error) {
			time.Sleep(time.Minute)
			return 7, nil
		}, 2, []error{context.Canceled, mine}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, h, d := retry.Policy{Backoff: waits(time.Hour)}, new(told), steps(row.fn)
				p.Hooks = h.hooks()
				if row.hedged {
					p.Hedge = &retry.Hedge{After: 100 * ms, Budget: -1}
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(150*ms, func() { cancel(mine) })
				_, err := retry.Do(ctx, retrier(t, p), d.call)
				assert.Equal(t, 150*ms, time.Since(d.start))
				e := failure(t, err)
				assert.Equal(t, outcome.Caller, e.Reason)
				for _, is := range row.is {
					assert.ErrorIs(t, err, is)
				}
				time.Sleep(2 * time.Hour)
				assert.Len(t, d.times(), row.calls)
				assert.Len(t, h.attempts, row.calls)
				if row.calls == 2 {
					assert.ElementsMatch(t, []string{"1 canceled", "2 canceled"}, h.attempts)
				}
			})
		})
	}
}

// Given a context that is dead before, then the function is not called.
func TestDo_DeadContext(t *testing.T) {
	mine := errors.New("closed the window")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	for _, p := range []retry.Policy{{}, {Timeout: time.Second}, hedging(2)} {
		r := retrier(t, p)
		_, err := retry.Do(ctx, r, func(context.Context) (int, error) {
			t.Error("it was called")
			return 0, nil
		})
		e := failure(t, err)
		assert.Equal(t, outcome.Caller, e.Reason)
		assert.Empty(t, e.Attempts)
		require.ErrorIs(t, err, mine)
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 500, r.Tokens())
	}
}

// Given time limits, then the context of the function says why it ended, and the error is a
// timeout.
func TestDo_TimeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []retry.Policy{
			{MaxAttempts: 1, PerAttemptTimeout: 50 * ms}, {Timeout: 50 * ms}, {Timeout: 50 * ms, Hedge: &retry.Hedge{After: 20 * ms, Budget: -1}},
		} {
			start := time.Now()
			_, err := retry.Do(t.Context(), retrier(t, p), func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			})
			assert.Equal(t, 50*ms, time.Since(start))
			e := failure(t, err)
			assert.True(t, e.Timeout())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.NotErrorIs(t, err, context.Canceled)
		}
	})
}

// Given a panic or an exit of the function, then it is the caller's, and other calls end.
func TestDo_Panics(t *testing.T) {
	goexit := func(context.Context) (int, error) {
		runtime.Goexit()
		return 0, nil
	}
	bursts := func(context.Context) (int, error) { panic("fn") }
	late := func(context.Context) (int, error) {
		time.Sleep(time.Hour)
		panic("late")
	}
	for _, row := range []struct {
		name     string
		steps    []fn
		want     any
		returned bool
	}{
		{"at once", []fn{bursts}, "fn", false},
		{"in a retry", []fn{returns(0, errReset), bursts}, "fn", false},
		{"exit", []fn{goexit}, nil, false},
		{"beside another one", []fn{waitsFor, bursts}, "fn", false},
		{"while another one runs", []fn{takes(150*ms, bursts), waitsFor}, "fn", false},
		{"exit beside another one", []fn{waitsFor, goexit}, nil, false},
		{"when nobody waits for it", []fn{late, returns(7, nil)}, nil, true},
	} {
		for _, hedge := range []*retry.Hedge{nil, {After: 100 * ms, Budget: -1}} {
			if hedge == nil && len(row.steps) > 1 && row.name != "in a retry" {
				continue
			}
			t.Run(fmt.Sprintf("%s, hedged %v", row.name, hedge != nil), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var panicked any
					returned, done := false, make(chan struct{})
					r := retrier(t, retry.Policy{Hedge: hedge, PerAttemptTimeout: 2 * time.Hour, Timeout: 3 * time.Hour})
					go func() {
						defer close(done)
						defer func() { panicked = recover() }()
						_, _ = retry.Do(t.Context(), r, steps(row.steps...).call)
						returned = true
					}()
					<-done
					assert.Equal(t, row.want, panicked)
					assert.Equal(t, row.returned, returned)
					time.Sleep(2 * time.Hour) // for those who are late
				})
			})
		}
	}
}

// Given a function that makes requests, or calls of its own, through this library, then all
// together are no more than the outermost limit, wherever the path is light.
func TestDo_Nested_R05(t *testing.T) {
	observed := retry.Policy{MaxAttempts: 5, Backoff: waits(ms), Hooks: retry.Hooks{Attempt: func(retry.Attempt) {}}}
	light := retry.Policy{MaxAttempts: 5, Backoff: waits(ms)}
	hedged := retry.Policy{MaxAttempts: 5, Backoff: waits(ms), Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}}
	for name, inner := range map[string]retry.Policy{"light": light, "observed": observed, "hedged": hedged} {
		for outerName, outer := range map[string]retry.Policy{"light": light, "observed": observed, "hedged": hedged} {
			outer.MaxAttempts = 3
			t.Run(outerName+" around "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					base := scripted(in(10*ms, fail(errReset)))
					send := around(t, base, inner)
					_, err := retry.Do(t.Context(), retrier(t, outer), func(ctx context.Context) (int, error) {
						_, err := send.RoundTrip(get(ctx))
						return 0, err
					})
					require.ErrorIs(t, err, errReset)
					assert.Len(t, base.all(), 3, "Do around a transport")

					base = scripted(in(10*ms, fail(errReset)))
					_, err = around(t, around(t, base, inner), outer).RoundTrip(get(t.Context()))
					require.ErrorIs(t, err, errReset)
					assert.Len(t, base.all(), 3, "a transport around a transport")

					calls := steps(takes(10*ms, returns(0, errReset)))
					_, err = retry.Do(t.Context(), retrier(t, outer), func(ctx context.Context) (int, error) {
						return retry.Do(ctx, retrier(t, inner), calls.call)
					})
					require.ErrorIs(t, err, errReset)
					assert.Len(t, calls.times(), 3, "Do around Do")
				})
			})
		}
	}
}

// Given one Retrier, then Do and its transport share what is left of the budget.
func TestDo_SharesTheBudget_R04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrier(t, retry.Policy{Budget: retry.Quota{Size: 12}, Backoff: waits(ms)})
		_, err := retry.Do(t.Context(), r, returns(0, errReset))
		assert.Equal(t, outcome.Attempts, failure(t, err).Reason)
		assert.Equal(t, 2, r.Tokens())
		_, err = r.Transport(scripted(fail(errReset))).RoundTrip(get(t.Context()))
		assert.Equal(t, outcome.Quota, failure(t, err).Reason)
		_, err = retry.Do(t.Context(), r, returns(0, nil))
		require.NoError(t, err)
		assert.Equal(t, 3, r.Tokens())
	})
}

// Given a mark, then Do keeps to it.
func TestDo_Marks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := hedging(3)
		once := steps(takes(time.Second, returns(0, errReset)))
		_, err := retry.Do(retry.WithMark(t.Context(), retry.Once), retrier(t, p), once.call)
		assert.Equal(t, outcome.Attempts, failure(t, err).Reason)
		assert.Len(t, once.times(), 1)
		alone := steps(takes(time.Second, returns(7, nil)))
		_, err = retry.Do(retry.WithMark(t.Context(), retry.NoHedge), retrier(t, p), alone.call)
		require.NoError(t, err)
		assert.Len(t, alone.times(), 1)
	})
}

// Given an error that an inner Do held for permanent, however it was marked, then an outer one does
// not: it gets the function's own error.
func TestPermanent_StopsOneDoOnly_Defect28(t *testing.T) {
	permanent := backoff.Permanent
	for name, mark := range map[string]func(error) error{
		"ours":                   retry.Permanent,
		"cenkalti's":             permanent,
		"ours, wrapped":          func(err error) error { return fmt.Errorf("w: %w", retry.Permanent(err)) },
		"cenkalti's, wrapped":    func(err error) error { return fmt.Errorf("w: %w", permanent(err)) },
		"twice":                  func(err error) error { return retry.Permanent(retry.Permanent(err)) },
		"ours around cenkalti's": func(err error) error { return retry.Permanent(permanent(err)) },
		"cenkalti's around ours": func(err error) error { return permanent(retry.Permanent(err)) },
		"joined":                 func(err error) error { return errors.Join(io.EOF, retry.Permanent(err)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := retrier(t, retry.Policy{})
				inner, outer := 0, 0
				_, err := retry.Do(t.Context(), r, func(context.Context) (int, error) {
					outer++
					return retry.Do(t.Context(), r, func(context.Context) (int, error) { // a call of its own
						inner++
						return 0, mark(errReset)
					})
				})
				require.ErrorIs(t, err, errReset)
				assert.Equal(t, 3, outer)
				assert.Equal(t, 3, inner)
			})
		})
	}
}

// Given no error to mark, then there is none.
func TestPermanent_OfNothing(t *testing.T) {
	assert.NoError(t, retry.Permanent(nil))
}

package breaker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// guarding returns a breaker on a clock that stands still. It opens at the second
// failure in a row, for exactly 5 s, and wants one probe.
func guarding(t *testing.T, change func(*breaker.Config)) (*breaker.Breaker, *clock.Fake) {
	t.Helper()
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	cfg := breaker.Config{ConsecutiveFailures: 2, Jitter: breaker.Off, Probes: 1, Clock: fake}
	if change != nil {
		change(&cfg)
	}
	b, err := breaker.New("orders", cfg)
	require.NoError(t, err)
	return b, fake
}

// open makes the breaker open.
func open(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	for range 2 {
		require.ErrorIs(t, b.Do(t.Context(), func(context.Context) error { return io.EOF }), io.EOF)
	}
	require.Equal(t, breaker.Open, b.State())
}

// halfOpen makes the breaker half-open.
func halfOpen(t *testing.T, b *breaker.Breaker, fake *clock.Fake) {
	t.Helper()
	open(t, b)
	fake.Advance(5 * time.Second)
	require.Equal(t, breaker.HalfOpen, b.State())
}

type ctxKey struct{}

func TestDo_ReturnsWhatTheFunctionReturns(t *testing.T) {
	b, _ := guarding(t, func(c *breaker.Config) { c.ConsecutiveFailures = breaker.Off })
	ctx := context.WithValue(t.Context(), ctxKey{}, "the caller's")
	for _, want := range []error{nil, io.EOF} {
		calls := 0
		err := b.Do(ctx, func(ctx context.Context) error {
			calls++
			assert.Equal(t, "the caller's", ctx.Value(ctxKey{}))
			return want
		})
		assert.Equal(t, want, err)
		assert.Equal(t, 1, calls)
		got, err := breaker.Do(ctx, b, func(ctx context.Context) (string, error) {
			assert.Equal(t, "the caller's", ctx.Value(ctxKey{}))
			return "half", want
		})
		assert.Equal(t, want, err)
		assert.Equal(t, "half", got, "also beside an error")
		got, err = breaker.DoOr(ctx, b, func(context.Context) (string, error) { return "mine", nil },
			func(context.Context, error) (string, error) { return "other", nil })
		require.NoError(t, err)
		assert.Equal(t, "mine", got, "no fallback after a success")
	}
	assert.Equal(t, breaker.Counts{Successes: 4, Failures: 2}, b.Counts(), "each call once")
}

func TestDo_RefusesWhenOpen(t *testing.T) {
	b, _ := guarding(t, nil)
	open(t, b)
	must := func(context.Context) (int, error) {
		assert.Fail(t, "it was called")
		return 1, nil
	}
	check := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, breaker.ErrOpen)
		var refused *breaker.OpenError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, "orders", refused.Name)
		assert.Equal(t, 5*time.Second, refused.RetryAfter())
		assert.Equal(t, outcome.Open, outcome.ReasonOf(err))
		assert.EqualError(t, err, "breaker: orders is open (consecutive_failures), next try in 5s")
	}
	check(b.Do(t.Context(), func(context.Context) error { assert.Fail(t, "it was called"); return nil }))
	got, err := breaker.Do(t.Context(), b, must)
	assert.Zero(t, got)
	check(err)
	got, err = breaker.DoOr(t.Context(), b, must, func(_ context.Context, err error) (int, error) {
		check(err)
		return 7, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 7, got)
	assert.EqualValues(t, 3, b.Counts().Rejected)
}

// Given a probe that succeeds, then the breaker closes; given one that fails, it opens.
func TestDo_Probes_K04(t *testing.T) {
	for _, row := range []struct {
		err  error
		want breaker.State
	}{{nil, breaker.Closed}, {io.EOF, breaker.Open}} {
		b, fake := guarding(t, nil)
		halfOpen(t, b, fake)
		assert.Equal(t, row.err, b.Do(t.Context(), func(ctx context.Context) error {
			assert.ErrorIs(t, b.Do(ctx, func(context.Context) error { return nil }), breaker.ErrOpen, "there is one probe")
			return row.err
		}))
		assert.Equal(t, row.want, b.State())
	}
}

// Given a classifier that knows which errors blame the caller, then a thousand of those
// leave the breaker closed and uncounted, and failures among them open it by their share
// of the rest.
func TestDo_ClassifierDecides_K06(t *testing.T) {
	var shown []outcome.Attempt
	b, _ := guarding(t, func(c *breaker.Config) {
		c.ConsecutiveFailures = breaker.Off
		c.Classifier = func(a outcome.Attempt) outcome.Outcome {
			shown = append(shown, a)
			if errors.Is(a.Err, sql.ErrNoRows) {
				return outcome.Outcome{Class: outcome.ClientError}
			}
			return outcome.Classify(a)
		}
	})
	query := func(err error) {
		t.Helper()
		_, got := breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, err })
		if !errors.Is(got, breaker.ErrOpen) {
			require.Equal(t, err, got)
		}
	}
	noRows := fmt.Errorf("user 7: %w", sql.ErrNoRows)
	for range 1000 {
		query(noRows)
	}
	assert.Equal(t, breaker.Counts{}, b.Counts())
	require.Len(t, shown, 1000)
	assert.Equal(t, outcome.Attempt{Err: noRows}, shown[0], "nothing else is known")

	shown = nil
	for range 10 {
		query(nil)
	}
	assert.Empty(t, shown, "not asked if there is no error")
	for i := range 10 {
		require.Equal(t, breaker.Closed, b.State(), "after %d failures", i)
		query(noRows)
		query(io.EOF)
		query(noRows)
	}
	assert.Equal(t, breaker.Open, b.State(), "10 of 20")
}

func TestDo_EachErrorIsAFailureByDefault(t *testing.T) {
	for _, err := range []error{io.EOF, context.Canceled, context.DeadlineExceeded, errors.New("x"), sql.ErrNoRows} {
		b, _ := guarding(t, nil)
		require.Equal(t, err, b.Do(t.Context(), func(context.Context) error { return err }))
		assert.Equal(t, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, b.Counts(), "%v of a caller who is there", err)
	}
}

// Given callers that give up, in whatever way, then whatever the function returns counts
// neither way, and a probe gives its place back.
func TestDo_CallerGaveUp_K01_K02(t *testing.T) {
	over := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		return ctx
	}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for name, ctx := range map[string]context.Context{
		"canceled":     over(nil),
		"with a cause": over(errors.New("the user has left")),
		"too late":     late,
	} {
		t.Run(name, func(t *testing.T) {
			b, fake := guarding(t, nil)
			fails := func(err error) func(context.Context) error {
				return func(context.Context) error { return err }
			}
			for range 1000 {
				for _, err := range []error{ctx.Err(), context.Cause(ctx), io.EOF} {
					require.Equal(t, err, b.Do(ctx, fails(err)))
				}
			}
			assert.Equal(t, breaker.Counts{}, b.Counts())

			halfOpen(t, b, fake)
			for range 10 {
				require.Equal(t, io.EOF, b.Do(ctx, fails(io.EOF)), "the place is free again")
				assert.Equal(t, breaker.HalfOpen, b.State())
				assert.Equal(t, breaker.Counts{}, b.Counts())
			}
			require.NoError(t, b.Do(ctx, fails(nil)))
			assert.Equal(t, breaker.Closed, b.State(), "a success is one, although nobody waits for it")
		})
	}
}

// Given a function that panics, or ends its goroutine, then that counts as a failure, a
// probe gives its place back, and what it did goes on.
func TestDo_PanicCountsAndGoesOn_K16(t *testing.T) {
	for _, row := range []struct {
		name string
		run  func(t *testing.T, call func(fail func()))
	}{
		{"panic", func(t *testing.T, call func(func())) {
			assert.PanicsWithValue(t, "ordered", func() { call(func() { panic("ordered") }) })
		}},
		{"nil panic", func(t *testing.T, call func(func())) {
			assert.Panics(t, func() { call(func() { panic(nil) }) }) //nolint:govet // somebody does
		}},
		{"end of the goroutine", func(t *testing.T, call func(func())) {
			done, returned := make(chan struct{}), false
			go func() {
				defer close(done)
				call(runtime.Goexit)
				returned = true
			}()
			<-done
			assert.False(t, returned)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, do := range []func(*breaker.Breaker, func()){
				func(b *breaker.Breaker, fail func()) {
					_ = b.Do(t.Context(), func(context.Context) error { fail(); return nil })
				},
				func(b *breaker.Breaker, fail func()) {
					_, _ = breaker.Do(t.Context(), b, func(context.Context) (int, error) { fail(); return 1, nil })
				},
				func(b *breaker.Breaker, fail func()) {
					_, _ = breaker.DoOr(t.Context(), b, func(context.Context) (int, error) { fail(); return 1, nil },
						func(context.Context, error) (int, error) { assert.Fail(t, "nobody waits for an answer"); return 1, nil })
				},
			} {
				b, fake := guarding(t, func(c *breaker.Config) { c.ProbeFailures = 2 })
				row.run(t, func(fail func()) { do(b, fail) })
				assert.Equal(t, breaker.Counts{Failures: 1, ConsecutiveFailures: 1}, b.Counts())
				b.Reset()
				halfOpen(t, b, fake)
				row.run(t, func(fail func()) { do(b, fail) })
				require.Equal(t, breaker.HalfOpen, b.State())
				row.run(t, func(fail func()) { do(b, fail) })
				assert.Equal(t, breaker.Open, b.State(), "the second probe had a place, and failed")
			}
		})
	}
}

// The fallback answers for what was refused or has failed, and for nothing else.
func TestDoOr_Fallback(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name  string
		ctx   context.Context
		class outcome.Class // of the error
		err   error
		want  bool
	}{
		{"success", t.Context(), outcome.Failure, nil, false},
		{"failure", t.Context(), outcome.Failure, io.EOF, true},
		{"never sent", t.Context(), outcome.NeverSent, io.EOF, true},
		{"overload", t.Context(), outcome.Overload, io.EOF, true},
		{"error of the client", t.Context(), outcome.ClientError, sql.ErrNoRows, false},
		{"success in spite of an error", t.Context(), outcome.Success, io.EOF, false},
		{"canceled", t.Context(), outcome.Canceled, io.EOF, false},
		{"superseded", t.Context(), outcome.Superseded, io.EOF, false},
		{"not known", t.Context(), outcome.Unknown, io.EOF, false},
		{"failure, but the caller has gone", gone, outcome.Failure, io.EOF, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, _ := guarding(t, func(c *breaker.Config) {
				c.Classifier = func(outcome.Attempt) outcome.Outcome { return outcome.Outcome{Class: row.class} }
			})
			asked := 0
			got, err := breaker.DoOr(row.ctx, b,
				func(context.Context) (string, error) { return "mine", row.err },
				func(ctx context.Context, err error) (string, error) {
					asked++
					assert.Equal(t, row.ctx, ctx)
					assert.Equal(t, row.err, err)
					return "fallback", nil
				})
			if row.want {
				require.NoError(t, err)
				assert.Equal(t, "fallback", got)
				assert.Equal(t, 1, asked)
			} else {
				assert.Equal(t, row.err, err)
				assert.Equal(t, "mine", got)
				assert.Zero(t, asked)
			}
		})
	}

	b, _ := guarding(t, nil)
	open(t, b)
	_, err := breaker.DoOr(gone, b, func(context.Context) (int, error) { return 0, nil },
		func(context.Context, error) (int, error) { assert.Fail(t, "the caller has gone"); return 0, nil })
	require.ErrorIs(t, err, breaker.ErrOpen)
	got, err := breaker.DoOr(t.Context(), b, func(context.Context) (int, error) { return 0, nil },
		func(context.Context, error) (int, error) { return 3, io.ErrNoProgress })
	assert.Equal(t, io.ErrNoProgress, err, "the error of the fallback is the caller's")
	assert.Equal(t, 3, got)
}

// What the fallback does is not the guarded call's: it holds no place and counts nothing.
func TestDoOr_FallbackIsNotGuarded(t *testing.T) {
	b, fake := guarding(t, func(c *breaker.Config) { c.ProbeFailures = 2 })
	halfOpen(t, b, fake)
	_, err := breaker.DoOr(t.Context(), b, func(context.Context) (int, error) { return 0, io.EOF },
		func(ctx context.Context, _ error) (int, error) {
			assert.Equal(t, breaker.Counts{Failures: 1}, b.Counts())
			return 0, b.Do(ctx, func(context.Context) error { return nil }) // the next probe
		})
	require.NoError(t, err)
	assert.Equal(t, breaker.Closed, b.State())
}

func TestDo_NilFunctions(t *testing.T) {
	b, fake := guarding(t, nil)
	halfOpen(t, b, fake)
	fn := func(context.Context) (int, error) { assert.Fail(t, "it was called"); return 0, nil }
	fallback := func(context.Context, error) (int, error) { assert.Fail(t, "it was called"); return 0, nil }
	_, generic := breaker.Do[int](t.Context(), b, nil)
	_, noFunction := breaker.DoOr(t.Context(), b, nil, fallback)
	_, noFallback := breaker.DoOr(t.Context(), b, fn, nil)
	for name, err := range map[string]error{
		"method": b.Do(t.Context(), nil), "generic": generic, "no function": noFunction, "no fallback": noFallback,
	} {
		var wrong *field.Error
		require.ErrorAs(t, err, &wrong, name)
		assert.Equal(t, &field.Error{Field: "fn", Problem: "must be set"}, wrong, name)
	}
	require.NoError(t, b.Do(t.Context(), func(context.Context) error { return nil }), "the place of the probe is free")
	assert.Equal(t, breaker.Closed, b.State())
}

// A call takes as long as its function, by the breaker's clock.
func TestDo_Slow(t *testing.T) {
	b, fake := guarding(t, func(c *breaker.Config) { c.SlowAfter = time.Second })
	for _, took := range []time.Duration{time.Second, time.Second + 1} {
		require.NoError(t, b.Do(t.Context(), func(context.Context) error {
			fake.Advance(took)
			return nil
		}))
	}
	assert.Equal(t, breaker.Counts{Successes: 2, Slow: 1}, b.Counts())
}

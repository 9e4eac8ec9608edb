package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given a loser, then its context ends with a cause, its answer is closed and its goroutine goes,
// also if it looks at no context.
func TestHedge_LoserIsCleanedUp_R19(t *testing.T) {
	for _, row := range []struct {
		name  string
		loser step
	}{
		{"waits for its context", hang},
		{"answers at last", deaf(time.Minute, answer(200))},
		{"fails at last", deaf(time.Minute, fail(errReset))},
		{"panics at last", deaf(time.Minute, burst("late"))}, // its caller has the answer already
		{"exits at last", deaf(time.Minute, exit)},
		{"answers with an error", deaf(time.Minute, func(s *sent) (*http.Response, error) {
			resp, _ := answer(200)(s)
			return resp, errReset
		})},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(row.loser, in(30*ms, answer(200)))
				resp, err := around(t, base, hedging(2)).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				assert.Equal(t, 130*ms, time.Since(base.start), "the winner is not held up")
				legs := base.all()
				assert.NotErrorIs(t, context.Cause(legs[0].ctx), context.Canceled, "there is a cause")
				require.NoError(t, legs[1].ctx.Err(), "the winner's context lives with its body")
				read(t, resp)
				require.Error(t, legs[1].ctx.Err())
				time.Sleep(time.Hour)
				base.assertClean(t, true)
			})
		})
	}
}

// Given a winner with 10 MiB that are read slowly, then all of it can be read, whatever the limits.
func TestHedge_WinnersBodyReadsToTheEnd_T08(t *testing.T) {
	const size = 10 << 20
	content := strings.Repeat("0123456789abcdef", size/16)
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			handler := evenkeeltest.Script(evenkeeltest.Hang(), evenkeeltest.OK(content))
			online(t, protocol, handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				p := hedging(2)
				p.PerAttemptTimeout, p.Timeout = 500*ms, time.Second
				req := to(get(t.Context()), address)
				start := time.Now()
				resp, err := around(t, base, p).RoundTrip(req)
				require.NoError(t, err)
				assert.Equal(t, 100*ms, time.Since(start))
				var got bytes.Buffer
				for err == nil {
					time.Sleep(100 * ms)
					_, err = io.CopyN(&got, resp.Body, 1<<20)
				}
				require.ErrorIs(t, err, io.EOF)
				assert.Greater(t, time.Since(start), time.Second)
				same := got.String() == content // the text is too long to be shown
				assert.True(t, same, "%d bytes", got.Len())
				require.NoError(t, resp.Body.Close())
				server.AssertRequests(t, 2)
			})
		})
	}
}

// Given two legs under way, when the call's time is over, then it returns at once, nothing is left,
// and it is said whose wish that was.
func TestHedge_EndsWithItsContext_T09(t *testing.T) {
	mine := errors.New("closed the window")
	for _, row := range []struct {
		name   string
		leg    step
		begin  func(context.Context, *retry.Policy) (context.Context, context.CancelFunc)
		reason outcome.Reason
		is     []error
		class  string
	}{
		{"caller", hang, func(ctx context.Context, _ *retry.Policy) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(150*ms, func() { cancel(mine) })
			return ctx, func() {}
		}, outcome.Caller, []error{context.Canceled, mine}, "canceled"},
		{"caller, nobody looks at it", deaf(time.Minute, answer(200)), func(ctx context.Context, _ *retry.Policy) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(150*ms, cancel)
			return ctx, func() {}
		}, outcome.Caller, []error{context.Canceled}, "canceled"},
		{"caller's deadline", hang, func(ctx context.Context, _ *retry.Policy) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 150*ms)
		}, outcome.Caller, []error{context.DeadlineExceeded}, "canceled"},
		{"Timeout", hang, func(ctx context.Context, p *retry.Policy) (context.Context, context.CancelFunc) {
			p.Timeout = 150 * ms
			return ctx, func() {}
		}, outcome.Deadline, []error{context.DeadlineExceeded}, "failure"},
		{"Timeout, nobody looks at it", deaf(time.Minute, answer(200)), func(ctx context.Context, p *retry.Policy) (context.Context, context.CancelFunc) {
			p.Timeout = 150 * ms
			return ctx, func() {}
		}, outcome.Deadline, []error{context.DeadlineExceeded}, "failure"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, h, p := scripted(row.leg), new(told), hedging(3)
				p.Hooks = h.hooks()
				ctx, cancel := row.begin(t.Context(), &p)
				defer cancel()
				body := evenkeeltest.NewBody("x")
				req := request(ctx, http.MethodPut, nil)
				body.Replayable(req)
				resp, err := around(t, base, p).RoundTrip(req)
				assert.Nil(t, resp)
				assert.Equal(t, 150*ms, time.Since(base.start))
				e := failure(t, err)
				assert.Equal(t, row.reason, e.Reason)
				for _, is := range row.is {
					assert.ErrorIs(t, err, is)
				}
				// Legs that end in that instant may be told as such, or as given up.
				require.Len(t, h.attempts, 2)
				assert.ElementsMatch(t, []string{"1 " + row.class, "2 " + row.class}, h.attempts)
				time.Sleep(time.Hour)
				assert.Len(t, base.all(), 2, "nothing starts afterwards")
				base.assertClean(t, true)
				body.AssertClosed(t)
			})
		})
	}
}

// http.Client.Timeout ends both legs, and the client knows that it was that.
func TestHedge_ClientTimeout_T09(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := scripted(hang)
		client := &http.Client{Transport: around(t, base, hedging(3)), Timeout: 150 * ms}
		_, err := client.Do(get(t.Context()))
		var timeout interface{ Timeout() bool }
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
		assert.ErrorContains(t, err, "after 2 attempt(s) (caller)") // net/http hides what its error holds
		assert.Equal(t, 150*ms, time.Since(base.start))
		assert.Len(t, base.all(), 2)
		base.assertClean(t, true)
	})
}

// Given a leg, or a hook, that panics or exits before the call is decided, then the caller's
// goroutine does, and nothing is left.
func TestHedge_Panics_R19(t *testing.T) {
	hook := func(on func(retry.Attempt) bool) retry.Hooks {
		return retry.Hooks{Attempt: func(a retry.Attempt) {
			if on(a) {
				panic("hook")
			}
		}}
	}
	for _, row := range []struct {
		name  string
		steps []step
		hooks retry.Hooks
		want  any // nil means Goexit
		took  time.Duration
		sends int
	}{
		{"the first, alone", []step{burst("base")}, retry.Hooks{}, "base", 0, 1},
		{"the first of two", []step{in(150*ms, burst("base")), hang}, retry.Hooks{}, "base", 150 * ms, 2},
		{"the second", []step{hang, burst("base")}, retry.Hooks{}, "base", 100 * ms, 2},
		{"the second after the first has failed", []step{in(150*ms, answer(503)), in(100*ms, burst("base"))}, retry.Hooks{}, "base", 200 * ms, 2},
		{"a retry", []step{answer(503), burst("base")}, retry.Hooks{}, "base", 10 * ms, 2},
		{"the first exits", []step{in(150*ms, exit), hang}, retry.Hooks{}, nil, 150 * ms, 2},
		{"the second exits", []step{hang, exit}, retry.Hooks{}, nil, 100 * ms, 2},
		{"a hook, told of the first", []step{in(150*ms, answer(200)), hang}, hook(func(a retry.Attempt) bool { return a.Number == 1 }), "hook", 150 * ms, 2},
		{"a hook, told of the second", []step{hang, answer(503)}, hook(func(a retry.Attempt) bool { return a.Number == 2 }), "hook", 100 * ms, 2},
		{"a hook, told of the loser", []step{hang, answer(200)}, hook(func(a retry.Attempt) bool { return a.Outcome.Class == outcome.Superseded }), "hook", 100 * ms, 2},
		{"a hook, told of a loser that is deaf", []step{deaf(time.Minute, answer(200)), answer(200)}, hook(func(a retry.Attempt) bool { return a.Outcome.Class == outcome.Superseded }), "hook", 100 * ms, 2},
		{"a hook, told of what Timeout ended", []step{deaf(time.Minute, answer(200))}, hook(func(a retry.Attempt) bool { return a.Outcome.Class == outcome.Failure }), "hook", time.Second, 2},
		{"a hook, told that one begins", []step{hang}, retry.Hooks{Decided: func(d retry.Decision) {
			if d.Hedge {
				panic("hook")
			}
		}}, "hook", 100 * ms, 1},
		{"a hook, told what follows", []step{answer(503)}, retry.Hooks{Decided: func(retry.Decision) { panic("hook") }}, "hook", 0, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(row.steps...), hedging(3)
				p.Hooks, p.Timeout = row.hooks, time.Second
				body := evenkeeltest.NewBody("x")
				req := request(t.Context(), http.MethodPut, nil)
				body.Replayable(req)
				tr, done := around(t, base, p), make(chan struct{})
				var panicked any
				returned := false
				go func() {
					defer close(done)
					defer func() { panicked = recover() }()
					_, _ = tr.RoundTrip(req)
					returned = true
				}()
				<-done
				assert.False(t, returned)
				assert.Equal(t, row.want, panicked)
				assert.Equal(t, row.took, time.Since(base.start))
				assert.Len(t, base.all(), row.sends)
				time.Sleep(time.Hour) // for those who are deaf
				base.assertClean(t, true)
				body.AssertClosed(t)
			})
		})
	}
}

// Given a caller's trace, then its hooks run for both legs, and under -race nothing is shared.
func TestHedge_CallersTrace_T17(t *testing.T) {
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			handler := evenkeeltest.Script(evenkeeltest.Hang(), evenkeeltest.OK("x"))
			online(t, protocol, handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				var wants, wrote atomic.Int32
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					GetConn:      func(string) { wants.Add(1) },
					WroteRequest: func(httptrace.WroteRequestInfo) { wrote.Add(1) },
				})
				resp, err := around(t, base, hedging(2)).RoundTrip(to(get(ctx), address))
				require.NoError(t, err)
				read(t, resp)
				synctest.Wait()
				server.AssertRequests(t, 2)
				assert.GreaterOrEqual(t, int(wants.Load()), server.Requests()) // HTTP/2 may ask again
				assert.EqualValues(t, server.Requests(), wrote.Load())
			})
		})
	}
}

// Given a failed leg whose body dribbles for ever, then it holds up neither the winner nor, for
// more than 50 ms, a retry.
func TestHedge_DiscardsInTime_R15(t *testing.T) {
	dribble := func(s *sent) (*http.Response, error) {
		resp, err := answer(503)(s)
		forever, _ := io.Pipe()
		context.AfterFunc(s.ctx, func() { forever.Close() })
		s.answer.Reader, resp.ContentLength = forever, -1
		return resp, err
	}
	for _, row := range []struct {
		name  string
		steps []step
		took  time.Duration
	}{
		{"beside the winner", []step{in(150*ms, dribble), in(100*ms, answer(200))}, 200 * ms},
		{"before a retry", []step{dribble, answer(200)}, 60 * ms},
		{"after both", []step{in(150*ms, dribble), in(100*ms, dribble), answer(200)}, 260 * ms},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(row.steps...)
				resp, err := around(t, base, hedging(3)).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				assert.Equal(t, row.took, time.Since(base.start))
				read(t, resp)
				time.Sleep(50 * ms)
				base.assertClean(t, true)
			})
		})
	}
}

// Given one request for many hedged calls, then it is what it was.
func TestHedge_CallersRequestStays_T07(t *testing.T) {
	for _, header := range []http.Header{nil, {}, {"X-Mine": {"1"}}} {
		synctest.Test(t, func(t *testing.T) {
			base := scripted(func(s *sent) (*http.Response, error) {
				require.NotNil(t, s.req.Header, "transports may rely on it")
				return in(150*ms, answer(503))(s)
			})
			tr := around(t, base, hedging(3))
			req := get(t.Context())
			req.Header = header
			before, url := *req, *req.URL
			for range 100 {
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
			}
			assert.Equal(t, url, *req.URL)
			assert.Equal(t, header, req.Header)
			assert.Equal(t, before.Host, req.Host)
			assert.Same(t, before.URL, req.URL)
			assert.Equal(t, t.Context(), req.Context())
			assert.Nil(t, req.Body)
			base.assertClean(t, true)
		})
	}
}

// Given calls with random legs, limits and callers, then each ends in time, with no more attempts
// than allowed, every body closed once and nothing left.
func TestHedge_RandomCalls_R19(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		leg := func() step {
			end := []step{answer(200), answer(200), answer(404), answer(500), answer(503), fail(errReset), hang}[random.IntN(7)]
			wait := time.Duration(random.IntN(30)) * 10 * ms // in steps, so that things fall together
			if random.IntN(4) == 0 {
				return deaf(wait, answer(200))
			}
			return in(wait, end)
		}
		for i := range 2000 {
			p := hedging(2 + random.IntN(3)) // one alone waits for a transport that is deaf
			p.Timeout = []time.Duration{0, 0, 250 * ms}[random.IntN(3)]
			p.PerAttemptTimeout = []time.Duration{0, 120 * ms, 200 * ms}[random.IntN(3)]
			h := new(told)
			p.Hooks = h.hooks()
			base := scripted(leg(), leg(), leg(), leg())
			limit := time.Duration(1+random.IntN(60)) * 10 * ms
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if random.IntN(2) == 0 {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), limit)
			}
			timer := time.AfterFunc(time.Duration(1+random.IntN(200))*10*ms, cancel)
			end, _ := ctx.Deadline()
			body := evenkeeltest.NewBody("x")
			req := request(ctx, http.MethodPut, nil)
			body.Replayable(req)

			resp, err := around(t, base, p).RoundTrip(req)

			ended := time.Since(base.start)
			assert.False(t, time.Now().After(end), "call %d", i)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			} else {
				assert.Nil(t, resp)
				_ = failure(t, err)
			}
			timer.Stop()
			cancel()
			time.Sleep(time.Second) // for those who are deaf
			base.assertClean(t, false)
			body.AssertClosed(t)
			sends := base.all()
			assert.LessOrEqual(t, len(sends), p.MaxAttempts, "call %d", i)
			assert.Len(t, h.attempts, len(sends), "call %d", i)
			for _, one := range sends {
				assert.Equal(t, "x", string(one.body))
				assert.LessOrEqual(t, one.at, ended, "call %d: no attempt begins when the call has ended", i)
			}
			if t.Failed() {
				t.Fatalf("call %d, attempts %v", i, h.attempts)
			}
		}
	})
}

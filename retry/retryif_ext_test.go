package retry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
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

// Given a predicate, then it gets the request, the number, and what came of the attempt.
func TestRetryIf_SeesTheRequest_R22(t *testing.T) {
	for _, row := range []struct {
		name    string
		method  string
		server  http.Handler // nil refuses connections
		status  int
		is      error
		wrote   bool
		class   outcome.Class
		idemp   bool
		byRules bool // would be repeated without the predicate
	}{
		{"a failed dial", "POST", nil, 0, syscall.ECONNREFUSED, false, outcome.NeverSent, false, true},
		{"a reset", "POST", evenkeeltest.ResetAfter(0), 0, syscall.ECONNRESET, true, outcome.Failure, false, false},
		{"a reset, GET", "GET", evenkeeltest.ResetAfter(0), 0, syscall.ECONNRESET, true, outcome.Failure, true, true},
		{"503", "POST", evenkeeltest.Status(503), 503, nil, true, outcome.Failure, false, false},
		{"404", "PUT", evenkeeltest.Status(404), 404, nil, true, outcome.ClientError, true, false},
		{"200", "GET", evenkeeltest.OK("x"), 200, nil, true, outcome.Success, true, false},
	} {
		for name, protocol := range protocols {
			t.Run(row.name+", "+name, func(t *testing.T) {
				online(t, protocol, row.server, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
					if row.server == nil {
						server.Kill()
					}
					var cases []retry.Case
					p := retry.Policy{Backoff: waits(ms), RetryIf: func(c retry.Case) bool {
						cases = append(cases, c)
						return len(cases) < 3
					}}
					req := to(request(t.Context(), row.method, nil), address)
					resp, err := around(t, base, p).RoundTrip(req)
					if resp != nil {
						read(t, resp)
					}
					require.Len(t, cases, 3)
					for i, c := range cases {
						assert.Equal(t, i+1, c.Number)
						assert.Same(t, req, c.Request)
						assert.Empty(t, c.Endpoint.Address, "nobody picks one")
						assert.Equal(t, row.status, c.StatusCode)
						assert.Equal(t, row.wrote, c.WroteHeaders)
						assert.Equal(t, row.class, c.Outcome.Class)
						assert.Equal(t, row.idemp, c.Idempotent)
						assert.Equal(t, row.byRules, c.Outcome.Again != outcome.No && (c.Idempotent || c.Outcome.Class == outcome.NeverSent))
						if row.status != 0 {
							assert.NotNil(t, c.Response)
							assert.NoError(t, c.Err)
							continue
						}
						assert.Nil(t, c.Response)
						if protocol == evenkeeltest.HTTP1 || row.server == nil { // HTTP/2 hides what broke
							assert.ErrorIs(t, c.Err, row.is)
							assert.ErrorIs(t, err, row.is)
						}
						assert.Error(t, c.Err)
					}
					if row.server != nil {
						server.AssertRequests(t, 3)
					}
				})
			})
		}
	}
}

// Given its answer, then it is kept to, within the limits.
func TestRetryIf_Decides_R22(t *testing.T) {
	yes, no := func(retry.Case) bool { return true }, func(retry.Case) bool { return false }
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	stream := func(ctx context.Context, _ *retry.Policy) *http.Request {
		return request(ctx, http.MethodPut, streamed("x"))
	}
	for _, row := range []struct {
		name   string
		does   func(retry.Case) bool
		step   step
		change func(context.Context, *retry.Policy) *http.Request // nil is a POST with GetBody
		sends  int
		reason outcome.Reason
	}{
		{"yes to a POST", yes, answer(503), nil, 3, outcome.Attempts},
		{"yes to what broke", yes, fail(errReset), nil, 3, outcome.Attempts},
		{"yes to a good answer", yes, answer(200), nil, 3, outcome.Attempts},
		{"yes to a client error", yes, answer(404), nil, 3, outcome.Attempts},
		{"yes, but the body is gone", yes, answer(503), stream, 1, outcome.NotReplayable},
		{"yes, but the budget is empty", yes, answer(503), func(ctx context.Context, p *retry.Policy) *http.Request {
			p.Budget = retry.Quota{Size: 5}
			return get(ctx)
		}, 2, outcome.Quota},
		{"yes, but once", yes, answer(503), func(ctx context.Context, _ *retry.Policy) *http.Request {
			return get(retry.WithMark(ctx, retry.Once))
		}, 1, outcome.Attempts},
		{"yes, but the server asks for more", yes, answer(200, "Retry-After", "3600"), nil, 1, outcome.Pushback},
		{"yes, but there is no time", yes, answer(503), func(ctx context.Context, p *retry.Policy) *http.Request {
			p.Timeout, p.Backoff = time.Second, waits(time.Minute)
			return get(ctx)
		}, 1, outcome.Deadline},
		{"no", no, answer(503), nil, 1, outcome.Declined},
		{"no to what is safe", no, fail(dial), nil, 1, outcome.Declined},
		{"no to a GET", no, answer(503), func(ctx context.Context, _ *retry.Policy) *http.Request { return get(ctx) }, 1, outcome.Declined},
		{"no to a good answer", no, answer(200), nil, 1, ""},
		{"no to a client error", no, answer(404), nil, 1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(row.step)
				p := retry.Policy{RetryIf: row.does, Backoff: waits(ms)}
				req := request(t.Context(), http.MethodPost, strings.NewReader("whole"))
				if row.change != nil {
					req = row.change(t.Context(), &p)
				}
				resp, err := around(t, base, p).RoundTrip(req)
				if err != nil {
					assert.Equal(t, row.reason, failure(t, err).Reason)
				} else {
					info, _ := retry.InfoOf(resp)
					assert.Equal(t, row.reason, info.Reason)
					read(t, resp)
				}
				assert.Len(t, base.all(), row.sends)
				for _, one := range base.all() {
					if row.change == nil {
						assert.Equal(t, "whole", string(one.body))
					}
				}
				base.assertClean(t, false)
			})
		})
	}
}

// Given a caller who has gone, then it is not asked.
func TestRetryIf_NotAskedForACallerWhoHasGone_R22(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hedge := range []*retry.Hedge{nil, {After: 100 * ms, Budget: -1}} {
			ctx, cancel := context.WithTimeout(t.Context(), 150*ms)
			base := scripted(hang)
			_, err := around(t, base, retry.Policy{Hedge: hedge, RetryIf: func(retry.Case) bool {
				t.Error("it was asked")
				return true
			}}).RoundTrip(get(ctx))
			assert.Equal(t, outcome.Caller, failure(t, err).Reason)
			cancel()
			base.assertClean(t, false)
		}
	})
}

// Given an answer that the predicate wants repeated, then it does not win a race.
func TestRetryIf_InARace_R19(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, p := scripted(in(150*ms, answer(200, "X-Stale", "1")), in(100*ms, answer(200))), hedging(2)
		p.RetryIf = func(c retry.Case) bool { return c.Response != nil && c.Response.Header.Get("X-Stale") != "" }
		resp, err := around(t, base, p).RoundTrip(get(t.Context()))
		require.NoError(t, err)
		_, body := read(t, resp)
		assert.Equal(t, "200 at 100ms", body)
		base.assertClean(t, true)
	})
}

// Given another clock, then hedges follow that one.
func TestHedge_OtherClock_X01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		base, p := scripted(hang, answer(200)), hedging(2)
		p.Clock = fake
		tr, done := around(t, base, p), make(chan *http.Response, 1)
		go func() {
			resp, _ := tr.RoundTrip(get(t.Context()))
			done <- resp
		}()
		time.Sleep(time.Hour) // of no importance
		fake.Advance(100*ms - 1)
		synctest.Wait()
		assert.Len(t, base.all(), 1)
		fake.Advance(1)
		synctest.Wait()
		assert.Len(t, base.all(), 2)
		assert.Zero(t, fake.Pending(), "no timer is left")
		read(t, <-done)
		base.assertClean(t, true)
	})
}

// Given a GetBody that panics, in a leg or in a retry, then it is the caller's, and nothing is left.
func TestHedge_GetBodyPanics_T06(t *testing.T) {
	for _, p := range []retry.Policy{hedging(2), {}} {
		synctest.Test(t, func(t *testing.T) {
			base := scripted(in(150*ms, answer(503)))
			body := evenkeeltest.NewBody("x")
			req := request(t.Context(), http.MethodPut, nil)
			body.Stream(req)
			req.GetBody = func() (io.ReadCloser, error) { panic("no body") }
			assert.PanicsWithValue(t, "no body", func() { _, _ = around(t, base, p).RoundTrip(req) })
			base.assertClean(t, false)
			body.AssertClosed(t)
		})
	}
}

package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given a response, then its call can be told, whether its path was light or observed.
func TestInfoOf(t *testing.T) {
	for _, row := range []struct {
		name   string
		policy retry.Policy
		mark   retry.Mark
		steps  []step
		told   string
		reason outcome.Reason
	}{
		{"good at once", retry.Policy{}, 0, []step{answer(200)}, "1 success", ""},
		{"good after a retry", retry.Policy{}, 0, []step{answer(503), answer(200)}, "1 failure, 2 success", ""},
		{"good after an error", retry.Policy{}, 0, []step{fail(errReset), answer(200)}, "1 failure, 2 success", ""},
		{"all attempts", retry.Policy{}, 0, []step{answer(503)}, "1 failure, 2 failure, 3 failure", outcome.Attempts},
		{"one attempt", retry.Policy{MaxAttempts: 1}, 0, []step{answer(503)}, "1 failure", outcome.Attempts},
		{"once", retry.Policy{}, retry.Once, []step{answer(503)}, "1 failure", outcome.Attempts},
		{"not idempotent", retry.Policy{}, retry.NotIdempotent, []step{answer(503)}, "1 failure", outcome.NotIdempotent},
		{"the budget is empty", retry.Policy{Budget: retry.Quota{Size: 5}}, 0, []step{answer(503)}, "1 failure, 2 failure", outcome.Quota},
		{"the server asks for more", retry.Policy{}, 0, []step{answer(429, "Retry-After", "60")}, "1 overload", outcome.Pushback},
		{"not wanted", retry.Policy{}, 0, []step{answer(500)}, "1 failure", ""},
		{"a client error", retry.Policy{}, 0, []step{answer(404)}, "1 client error", ""},
		{"a status to repeat", retry.Policy{Statuses: []int{404}}, 0, []step{answer(404), answer(200)}, "1 client error, 2 success", ""},
		{"a good status to repeat", retry.Policy{Statuses: []int{302}}, 0, []step{answer(302)}, "1 success, 2 success, 3 success", outcome.Attempts},
	} {
		for _, observed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, observed %v", row.name, observed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					base, h, p := scripted(row.steps...), new(told), row.policy
					if p.Backoff = waits(10 * ms); observed {
						p.Hooks = h.hooks()
					}
					resp, err := around(t, base, p).RoundTrip(get(retry.WithMark(t.Context(), row.mark)))
					require.NoError(t, err)
					info, ok := retry.InfoOf(resp)
					require.True(t, ok)
					assert.Equal(t, row.told, strings.Join(classes(info.Attempts), ", "))
					assert.Equal(t, row.reason, info.Reason)
					assert.Equal(t, resp.StatusCode, info.Attempts[len(info.Attempts)-1].StatusCode)
					read(t, resp)
					if observed {
						assert.Equal(t, row.told, strings.Join(h.attempts, ", "))
					}
					base.assertClean(t, false)
				})
			})
		}
	}
}

// Given what did not come through a Transport, then nothing is told.
func TestInfoOf_Nothing(t *testing.T) {
	for _, resp := range []*http.Response{nil, {}, {Request: get(t.Context())}} {
		info, ok := retry.InfoOf(resp)
		assert.False(t, ok)
		assert.Zero(t, info)
	}
}

// Given a transport that leaves the response's fields empty, then they are filled in.
func TestInfoOf_SparseResponse(t *testing.T) {
	base := tripper(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: http.StatusOK}, nil })
	for _, hooks := range []retry.Hooks{{}, new(told).hooks()} {
		resp, err := around(t, base, retry.Policy{Hooks: hooks}).RoundTrip(get(t.Context()))
		require.NoError(t, err)
		read(t, resp)
		info, ok := retry.InfoOf(resp)
		assert.True(t, ok)
		assert.Equal(t, []string{"1 success"}, classes(info.Attempts))
	}
}

// Given a policy that observes, then the connections and times of each attempt are told.
func TestInfoOf_Attempts(t *testing.T) {
	handler := evenkeeltest.Script(evenkeeltest.Status(503).Delay(20*ms), evenkeeltest.OK("x").Delay(30*ms))
	online(t, evenkeeltest.HTTP1, handler, func(t *testing.T, _ *evenkeeltest.Server, base http.RoundTripper, address string) {
		h := new(told)
		resp, err := around(t, base, retry.Policy{Hooks: h.hooks()}).RoundTrip(to(get(t.Context()), address))
		require.NoError(t, err)
		read(t, resp)
		info, _ := retry.InfoOf(resp)
		failed := outcome.Outcome{Class: outcome.Failure, Again: outcome.Anywhere}
		assert.Equal(t, []retry.Attempt{
			{Number: 1, Outcome: failed, StatusCode: 503, Took: 20 * ms, Connections: 1},
			{Number: 2, Outcome: outcome.Outcome{Class: outcome.Success}, StatusCode: 200, Took: 30 * ms, Connections: 1},
		}, info.Attempts)
	})
}

// Given an error, then its text is one line that tells of each attempt.
func TestError_Text(t *testing.T) {
	at := func(n int, endpoint string, class outcome.Class, status int, err error) retry.Attempt {
		return retry.Attempt{
			Number: n, Endpoint: discovery.Endpoint{Address: endpoint}, Outcome: outcome.Outcome{Class: class},
			StatusCode: status, Err: err, Took: 12*ms + 345*time.Nanosecond,
		}
	}
	lines := errors.Join(errReset, io.EOF)
	for _, row := range []struct {
		name string
		err  retry.Error
		text string
	}{
		{"before any attempt", retry.Error{Reason: outcome.Invalid, Err: errReset}, "retry: failed (invalid): connection reset"},
		{"one attempt", retry.Error{
			Attempts: []retry.Attempt{at(1, "10.0.0.1:80", outcome.Failure, 0, errReset)}, Reason: outcome.Attempts, Err: errReset,
		}, "retry: failed after 1 attempt(s) (attempts): 10.0.0.1:80: connection reset (failure, 12ms)"},
		{"no endpoint, no reason", retry.Error{
			Attempts: []retry.Attempt{at(1, "", outcome.Failure, 0, errReset)}, Err: errReset,
		}, "retry: failed after 1 attempt(s): connection reset (failure, 12ms)"},
		{"an answer, one given up, and what ended it", retry.Error{
			Attempts: []retry.Attempt{at(1, "a:1", outcome.Failure, 503, nil), at(2, "b:1", outcome.Canceled, 0, nil)},
			Reason:   outcome.Caller, Err: context.Canceled,
		}, "retry: failed after 2 attempt(s) (caller): a:1: status 503 (failure, 12ms); b:1: given up (canceled, 12ms): context canceled"},
		{"errors of several lines", retry.Error{
			Attempts: []retry.Attempt{at(1, "", outcome.Failure, 0, lines)}, Err: lines,
		}, "retry: failed after 1 attempt(s): connection reset; EOF (failure, 12ms): connection reset; EOF"},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := row.err.Error()
			assert.NotContains(t, text, "\n")
			if row.name == "errors of several lines" { // that it is told twice does no harm
				assert.Contains(t, text, "connection reset; EOF (failure, 12ms)")
				return
			}
			assert.Equal(t, row.text, text)
		})
	}
}

// Given errors of several attempts, then each of them is found.
func TestError_EachIsFound_R14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		for _, observed := range []bool{false, true} {
			p := retry.Policy{Backoff: waits(ms)}
			if observed {
				p.Hooks = new(told).hooks()
			}
			_, err := around(t, scripted(fail(errReset), fail(dial), fail(io.ErrUnexpectedEOF)), p).RoundTrip(get(t.Context()))
			e := failure(t, err)
			for _, is := range []error{errReset, syscall.ECONNREFUSED, io.ErrUnexpectedEOF} {
				require.ErrorIs(t, err, is)
			}
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			assert.Same(t, dial, op)
			assert.Equal(t, []string{"1 failure", "2 never sent", "3 failure"}, classes(e.Attempts))
			assert.Equal(t, outcome.Attempts, e.Reason)
			assert.False(t, e.Timeout())
			assert.Equal(t, 1, strings.Count(err.Error(), "connection reset"), "nothing is told twice: %v", err)
		}
	})
}

// Given two resets and a deadline in the wait, then both are found, and it is a timeout.
func TestError_ResetsAndADeadline_R14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{400 * ms, time.Minute} { // one that ends in the wait, and one that is too long
			base := scripted(fail(errReset), in(700*ms, fail(errReset)))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := around(t, base, retry.Policy{Backoff: waits(wait)}).RoundTrip(get(ctx))
			e := failure(t, err)
			require.ErrorIs(t, err, errReset)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Len(t, e.Attempts, len(base.all()))
			assert.True(t, e.Timeout())
			var timeout net.Error
			assert.ErrorAs(t, &url.Error{Err: err}, &timeout)
			cancel()
		}
	})
}

// Given an attempt that took too long, then the error is a timeout.
func TestError_Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []retry.Policy{{MaxAttempts: 1, PerAttemptTimeout: 50 * ms}, {Timeout: 50 * ms}} {
			_, err := around(t, scripted(hang), p).RoundTrip(get(t.Context()))
			assert.True(t, failure(t, err).Timeout())
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}

// Given a URL with a user and a query, then no error tells of them.
func TestError_NoSecrets_O03(t *testing.T) {
	const user, password, token, field = "u5er", "p4ss", "t0ken", "h1dden"
	address := func(scheme, rest string) string { return scheme + "://" + user + ":" + password + "@users:80" + rest }
	for _, row := range []struct {
		name    string
		handler http.Handler
		change  func(*http.Request)
	}{
		{"refused", nil, func(*http.Request) {}},
		{"reset", evenkeeltest.ResetAfter(0), func(*http.Request) {}},
		{"closed", evenkeeltest.CloseAfter(0), func(*http.Request) {}},
		{"hangs", evenkeeltest.Hang(), func(*http.Request) {}},
		{"scheme", nil, func(r *http.Request) { r.URL.Scheme = "ftp" }},
		{"host", nil, func(r *http.Request) { r.URL.Host = "" }},
		{"query", nil, func(r *http.Request) { r.URL.RawQuery += "\x01" }},
		{"opaque", nil, func(r *http.Request) { r.URL.Opaque = "//" + password + " " + token }},
		{"method", nil, func(r *http.Request) { r.Method = "G\nT" }},
		{"header", nil, func(r *http.Request) { r.Header.Set("Authorization", field+"\n") }},
		{"trailer", nil, func(r *http.Request) { r.Trailer = http.Header{"X-A": {field + "\x00"}} }},
		{"Host", nil, func(r *http.Request) { r.Host = password + "@" + token }},
	} {
		for name, protocol := range protocols {
			t.Run(row.name+", "+name, func(t *testing.T) {
				online(t, protocol, row.handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, where string) {
					if row.handler == nil {
						server.Kill()
					}
					scheme, _, _ := strings.Cut(where, ":")
					for _, p := range []retry.Policy{{Timeout: time.Second}, {PerAttemptTimeout: time.Second, Hedge: &retry.Hedge{After: ms, Budget: -1}}, {}} {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						req := to(get(ctx), address(scheme, "/x?token="+token))
						req.Header = http.Header{"Authorization": {field}}
						row.change(req)
						_, err := around(t, base, p).RoundTrip(req)
						text := failure(t, err).Error()
						for _, secret := range []string{user, password, token, field, "\n"} {
							assert.NotContains(t, text, secret)
						}
						cancel()
					}
				})
			})
		}
	}
}

// Given a request that nobody could send, then nobody gets it, its body is closed, and no budget
// is touched.
func TestError_InvalidRequest_T06(t *testing.T) {
	r := retrier(t, retry.Policy{})
	base := scripted(answer(200))
	for range 3 {
		body := evenkeeltest.NewBody("x")
		req := request(t.Context(), http.MethodPut, nil)
		body.Stream(req)
		req.Header.Set("X-A", "\x00")
		_, err := r.Transport(base).RoundTrip(req)
		e := failure(t, err)
		assert.Equal(t, outcome.Invalid, e.Reason)
		assert.Empty(t, e.Attempts)
		require.ErrorIs(t, err, outcome.ErrInvalidRequest)
		body.AssertClosed(t)
	}
	assert.Empty(t, base.all())
	assert.Equal(t, 500, r.Tokens())
}

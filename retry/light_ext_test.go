package retry_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// A call of which nothing needs to be watched is light: its answer's body is the transport's own.
// All others are watched to the end of that.
func TestLight_WhoIs(t *testing.T) {
	with := func(method string, body io.Reader) func(*http.Request, *retry.Policy) *http.Request {
		return func(req *http.Request, _ *retry.Policy) *http.Request {
			return request(req.Context(), method, body)
		}
	}
	policy := func(f func(*retry.Policy)) func(*http.Request, *retry.Policy) *http.Request {
		return func(req *http.Request, p *retry.Policy) *http.Request {
			f(p)
			return req
		}
	}
	for _, row := range []struct {
		name   string
		change func(*http.Request, *retry.Policy) *http.Request
		light  bool
	}{
		{"GET", with("GET", nil), true},
		{"no method", with("", nil), true},
		{"HEAD", with("HEAD", nil), true},
		{"DELETE without a body", with("DELETE", nil), true},
		{"PUT with http.NoBody", with("PUT", http.NoBody), true},
		{"another backoff", policy(func(p *retry.Policy) { p.Backoff.Base = time.Second }), true},
		{"PUT", with("PUT", strings.NewReader("x")), false},
		{"POST", with("POST", nil), false},
		{"CONNECT", with("CONNECT", nil), false},
		{"upgrade", func(req *http.Request, _ *retry.Policy) *http.Request {
			req.Header.Set("Upgrade", "websocket")
			return req
		}, false},
		{"Timeout", policy(func(p *retry.Policy) { p.Timeout = time.Hour }), false},
		{"PerAttemptTimeout", policy(func(p *retry.Policy) { p.PerAttemptTimeout = time.Hour }), false},
		{"Hedge", policy(func(p *retry.Policy) { p.Hedge = &retry.Hedge{After: time.Hour} }), false},
		{"RetryIf", policy(func(p *retry.Policy) { p.RetryIf = func(retry.Case) bool { return false } }), false},
		{"Attempt", policy(func(p *retry.Policy) { p.Hooks.Attempt = func(retry.Attempt) {} }), false},
		{"Decided", policy(func(p *retry.Policy) { p.Hooks.Decided = func(retry.Decision) {} }), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(answer(200)), retry.Policy{}
				req := row.change(get(t.Context()), &p)
				resp, err := around(t, base, p).RoundTrip(req)
				require.NoError(t, err)
				assert.Equal(t, row.light, resp.Body == io.ReadCloser(base.all()[0].answer))
				info, ok := retry.InfoOf(resp)
				assert.True(t, ok)
				assert.Equal(t, []string{"1 success"}, classes(info.Attempts))
				assert.Empty(t, info.Reason)
				_, text := read(t, resp)
				assert.Equal(t, "200 at 0s", text)
				base.assertClean(t, false)
			})
		})
	}
}

// Given any answers, then a light call goes as one does that somebody watches: same attempts at
// the same times, same answer or error, same budget.
func TestLight_GoesAsAnyOther(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ends := []step{
		answer(200), answer(204), answer(302), answer(404), answer(429, "Retry-After", "1"), answer(500), answer(503), answer(503, "Retry-After", "60"),
		fail(errReset), fail(io.EOF), fail(outcome.ErrNeverSent), fail(outcome.ErrInvalidRequest), hang,
		func(*sent) (*http.Response, error) { return nil, nil },
		func(s *sent) (*http.Response, error) { // against the contract of RoundTripper
			resp, _ := answer(200)(s)
			return resp, errReset
		},
	}
	for range 500 {
		steps := make([]step, 4)
		for i := range steps {
			steps[i] = in(time.Duration(random.IntN(5))*20*ms, ends[random.IntN(len(ends))])
		}
		attempts, statuses := 1+random.IntN(4), []int{302, 500}[:random.IntN(3)]
		limit := time.Duration(5+10*random.IntN(200)) * ms
		mark := []retry.Mark{0, 0, retry.Once, retry.NotIdempotent}[random.IntN(4)]
		budget := retry.Quota{Size: 1 + random.IntN(20)}
		var outcomes []string
		for _, hooks := range []retry.Hooks{{}, {Attempt: func(retry.Attempt) {}}} {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(steps...)
				r := retrier(t, retry.Policy{
					MaxAttempts: attempts, Statuses: statuses, Backoff: waits(10 * ms), Budget: budget, Hooks: hooks, Rand: zeros{},
				})
				ctx, cancel := context.WithTimeout(retry.WithMark(t.Context(), mark), limit)
				resp, err := r.Transport(base).RoundTrip(get(ctx))
				var b strings.Builder
				if err == nil {
					info, ok := retry.InfoOf(resp)
					_, text := read(t, resp)
					fmt.Fprint(&b, text, ok, classes(info.Attempts), info.Reason)
				} else {
					e := failure(t, err)
					fmt.Fprint(&b, err, classes(e.Attempts), e.Timeout())
				}
				fmt.Fprint(&b, base.times(), r.Tokens(), time.Since(base.start))
				outcomes = append(outcomes, b.String())
				cancel()
				base.assertClean(t, false)
			})
		}
		require.Equal(t, outcomes[1], outcomes[0])
	}
}

// Given a classifier, then it is asked once for each attempt.
func TestLight_ClassifierIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hooks := range []retry.Hooks{{}, {Attempt: func(retry.Attempt) {}}} {
			asked := 0
			p := retry.Policy{Backoff: waits(ms), Hooks: hooks, Classifier: func(a outcome.Attempt) outcome.Outcome {
				asked++
				return outcome.Classify(a)
			}}
			base := scripted(answer(503), fail(errReset), answer(404))
			resp, err := around(t, base, p).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			read(t, resp)
			assert.Len(t, base.all(), 3)
			assert.Equal(t, 3, asked)
		}
	})
}

// Given a request without headers, and one for many calls, then it stays as it was.
func TestLight_CallersRequestStays_T07(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, header := range []http.Header{nil, {}, {"X-Mine": {"1"}}} {
			base := scripted(func(s *sent) (*http.Response, error) {
				require.NotNil(t, s.req.Header, "transports may rely on it")
				return answer([]int{200, 503}[s.at/ms%2])(s)
			})
			tr := around(t, base, retry.Policy{Backoff: waits(ms)})
			req := get(t.Context())
			req.Header = header
			for range 1000 {
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
				assert.Equal(t, header, req.Header)
				assert.Equal(t, t.Context(), req.Context())
			}
			base.assertClean(t, false)
		}
	})
}

// Given a panic of the transport, in the first attempt or a later one, then it is the caller's and
// no answer stays open.
func TestLight_Panics(t *testing.T) {
	for _, steps := range [][]step{{burst("base")}, {answer(503), burst("base")}, {fail(errReset), burst("base")}} {
		synctest.Test(t, func(t *testing.T) {
			base := scripted(steps...)
			assert.PanicsWithValue(t, "base", func() {
				_, _ = around(t, base, retry.Policy{Backoff: waits(ms)}).RoundTrip(get(t.Context()))
			})
			assert.Len(t, base.all(), len(steps))
			base.assertClean(t, false)
		})
	}
}

// Given a caller who cancels in the wait after a light attempt, then the call ends at once.
func TestLight_WaitIsInterrupted_R07(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retrier(t, retry.Policy{Backoff: waits(time.Minute)})
		base := scripted(answer(503))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := r.Transport(base).RoundTrip(get(ctx))
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, outcome.Caller, failure(t, err).Reason)
		assert.Equal(t, time.Second, time.Since(base.start))
		assert.Equal(t, 500, r.Tokens(), "the attempt that was not made costs nothing")
		time.Sleep(time.Hour)
		assert.Len(t, base.all(), 1)
		base.assertClean(t, false)
	})
}

// Given many callers of one transport over real connections, then each gets an answer, and under
// -race nothing is shared. The same holds with hedges.
func TestLight_ManyAtOnce(t *testing.T) {
	for _, hedge := range []*retry.Hedge{nil, {After: 2 * ms, Budget: -1}} {
		for name, protocol := range protocols {
			t.Run(fmt.Sprintf("%s, hedged %v", name, hedge != nil), func(t *testing.T) {
				ok, breaks := evenkeeltest.OK("x"), http.Handler(evenkeeltest.Status(503))
				if protocol == evenkeeltest.HTTP1 { // with HTTP/2 it would break all the answers under way
					breaks = evenkeeltest.CloseAfter(0)
				}
				handler := evenkeeltest.Script(
					evenkeeltest.Status(503), ok, breaks, evenkeeltest.Repeat(100, ok.Delay(3*ms)),
					evenkeeltest.Repeat(100, ok.Delay(ms)), ok,
				)
				online(t, protocol, handler, func(t *testing.T, _ *evenkeeltest.Server, base http.RoundTripper, address string) {
					tr := around(t, base, retry.Policy{Hedge: hedge, MaxAttempts: 5})
					var all sync.WaitGroup
					for range 20 {
						all.Go(func() {
							for range 10 {
								resp, err := tr.RoundTrip(to(get(t.Context()), address))
								if !assert.NoError(t, err) {
									return
								}
								info, ok := retry.InfoOf(resp)
								assert.True(t, ok)
								assert.NotEmpty(t, info.Attempts)
								b, err := io.ReadAll(resp.Body)
								assert.NoError(t, err)
								assert.NoError(t, resp.Body.Close())
								assert.Equal(t, "200 x", fmt.Sprint(resp.StatusCode, " ", string(b)))
							}
						})
					}
					all.Wait()
				})
			})
		}
	}
}

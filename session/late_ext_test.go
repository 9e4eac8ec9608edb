package session_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// health says whether an endpoint is healthy.
func (h *house) health(address string, healthy bool) {
	h.pool.SetHealthy(discovery.Endpoint{Address: address}.Key(), healthy)
	synctest.Wait()
}

func after(d time.Duration) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		time.Sleep(d)
		return answers(http.StatusOK)(req)
	}
}

// Given an answer that comes when its session has moved on, then it takes the session back neither by a new
// cookie nor for the calls with the old one: whether the endpoint was the first or one it had moved to, and
// although the cookie is due to be renewed.
func TestCookie_LateAnswerMovesNobody_S01_S06(t *testing.T) {
	for _, row := range []struct {
		about  string
		maxAge time.Duration
		moves  int // before the call that is late
	}{{"moved before", 0, 1}, {"due to be renewed", time.Hour, 0}} {
		t.Run(row.about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret, MaxAge: row.maxAge}})
				require.NoError(t, h.pool.Use(balancer.RoundRobin{}, balancer.Rules{Panic: balancer.Panic{Threshold: -1}}))
				at, resp := h.ask(t, get(t))
				cookie := cookieOf(t, resp)
				time.Sleep(row.maxAge / 2)
				for range row.moves {
					h.health(at, false)
					at, resp = h.ask(t, with(t, cookie))
					cookieOf(t, resp)
				}
				h.let(after(5*time.Second), at)
				var late *http.Response
				var call sync.WaitGroup
				call.Go(func() { _, late = h.ask(t, with(t, cookie)) })
				synctest.Wait()
				h.health(at, false)
				next, resp := h.ask(t, with(t, cookie))
				require.NotEqual(t, at, next)
				renewed := cookieOf(t, resp)
				for _, address := range all {
					h.health(address, true)
				}
				call.Wait()
				assert.Empty(t, late.Header["Set-Cookie"])
				for _, c := range []*http.Cookie{cookie, renewed} {
					got, _ := h.ask(t, with(t, c))
					assert.Equal(t, next, got)
				}
				assert.EqualValues(t, row.moves+1, h.keeper.Status().Moved)
			})
		})
	}
}

// Given a session that moves and moves back, by a pick or by a retry, then that is two moves, of which the
// calls with either cookie know.
func TestCookie_ThereAndBackIsTwoMoves_S02(t *testing.T) {
	for _, retried := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}}, discovery.Endpoint{Address: "a:80"},
				discovery.Endpoint{Address: "b:80"}).retrying(t)
			first, resp := h.ask(t, get(t))
			old := cookieOf(t, resp)
			h.health(first, false)
			second, _ := h.ask(t, with(t, old))
			require.NotEqual(t, first, second)
			h.health(first, true)
			if retried {
				h.let(breaks, second)
			} else {
				h.health(second, false)
			}
			back, resp := h.ask(t, with(t, old))
			require.Equal(t, first, back)
			assert.EqualValues(t, 2, h.keeper.Status().Moved)
			assert.Equal(t, []session.EventKind{session.Moved, session.Moved}, h.kinds())
			h.let(nil, second)
			h.health(second, true)
			for _, c := range []*http.Cookie{old, cookieOf(t, resp)} {
				got, _ := h.ask(t, with(t, c))
				assert.Equal(t, first, got)
			}
		})
	}
}

// Given calls each of which begins within ten seconds of the one before, then they agree where the session has
// moved, although none is answered yet and its endpoint has recovered.
func TestCookie_MoveIsKnownWhileItIsUsed_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		h.let(after(30*time.Second), all...)
		h.health(first, false)
		got := make([]string, 6)
		var calls sync.WaitGroup
		for i := range got {
			calls.Go(func() { got[i], _ = h.ask(t, with(t, old)) })
			synctest.Wait()
			h.health(first, true)
			time.Sleep(5 * time.Second)
		}
		calls.Wait()
		assert.NotEqual(t, first, got[0])
		assert.Len(t, slices.Compact(got), 1)
	})
}

// Given endpoints that answer 429, then no session begins there, in strict mode either: it has lost nothing
// yet elsewhere.
func TestSession_NoneBeginsAtAFullEndpoint_S05(t *testing.T) {
	for _, policy := range []session.Policy{{By: session.Key{}}, {By: session.Key{}, Strict: true}, {By: session.Cookie{Secret: secret}}} {
		t.Run(fmt.Sprintf("%T, strict %v", policy.By, policy.Strict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, policy).retrying(t)
				h.let(answers(http.StatusTooManyRequests), "a:80", "b:80")
				for range 2 {
					for i := range 6 {
						at, resp := h.ask(t, keyed(t, fmt.Sprint(i)))
						assert.Equal(t, http.StatusOK, resp.StatusCode)
						assert.Equal(t, "c:80", at)
					}
				}
			})
		})
	}
}

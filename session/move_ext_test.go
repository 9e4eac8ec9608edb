package session_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/session"
)

// answered is what came of a call.
type answered struct {
	address string
	cookie  *http.Cookie
}

// together makes many calls with one cookie at once, each of whose answers must set one.
func (h *house) together(t *testing.T, n int, c *http.Cookie) []answered {
	t.Helper()
	got := make([]answered, n)
	var group sync.WaitGroup
	for i := range got {
		group.Go(func() {
			address, resp := h.ask(t, with(t, c))
			got[i] = answered{address, cookieOf(t, resp)}
		})
	}
	group.Wait()
	return got
}

// slowly answers after a while, so that calls are under way together.
func slowly(req *http.Request) (*http.Response, error) {
	time.Sleep(time.Second)
	return answers(http.StatusOK)(req)
}

// Calls of one session that come at once, when its endpoint is gone, go to one other, are told so each, and count once.
func TestCookie_MovesTogether_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, act := range []func(*http.Request) (*http.Response, error){nil, slowly} {
			h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
			first, resp := h.ask(t, get(t))
			old := cookieOf(t, resp)
			h.let(act, all...)
			h.push(without(first)...)
			start := time.Now()
			got := h.together(t, 50, old)
			second := got[0].address
			assert.NotEqual(t, first, second)
			for _, a := range got {
				require.Equal(t, second, a.address)
				address, resp := h.ask(t, with(t, a.cookie))
				assert.Equal(t, second, address)
				assert.Empty(t, resp.Header["Set-Cookie"])
			}
			assert.Equal(t, session.Status{New: 1, Kept: 50, Moved: 1}, h.keeper.Status())
			require.Len(t, h.events, 1)
			e := h.events[0]
			assert.Equal(t, session.Event{Time: e.Time, Kind: session.Moved, To: second, Cause: "removed"}, e)
			assert.LessOrEqual(t, e.Time.Sub(start), time.Second)
			h.assertClean(t)
		}
	})
}

// Also calls that come one after the other agree, for as long as there is one within 10 s of the one before.
func TestCookie_MovesForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		h.push(without(first)...)
		second := h.together(t, 1, old)[0].address
		for range 5 {
			h.ask(t, get(t)) // which moves the balancer on
			time.Sleep(10*time.Second - 1)
			assert.Equal(t, second, h.together(t, 1, old)[0].address)
		}
		assert.Equal(t, uint64(1), h.keeper.Status().Moved)
		assert.Len(t, h.events, 1)

		seen := map[string]bool{}
		for range 4 { // it is forgotten then, and decided anew
			time.Sleep(10 * time.Second)
			h.ask(t, get(t))
			h.ask(t, get(t))
			seen[h.together(t, 1, old)[0].address] = true
		}
		assert.Len(t, seen, 2)
		assert.Equal(t, uint64(5), h.keeper.Status().Moved)
		assert.Len(t, h.events, 5)
	})
}

// If that endpoint goes, too, the calls agree on a third one.
func TestCookie_MovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		h.push(without(first)...)
		second := h.together(t, 10, old)[0].address
		h.push("d:80", "e:80", "f:80")
		got := h.together(t, 50, old)
		assert.NotContains(t, all, got[0].address)
		for _, a := range got {
			assert.Equal(t, got[0].address, a.address)
		}
		h.push("d:80", "e:80", "f:80", second)
		assert.Equal(t, got[0].address, h.together(t, 1, old)[0].address, "and it does not go back")
		h.assertClean(t)
	})
}

// Sessions of one endpoint that is gone are divided among the others: each goes its own way.
func TestCookie_OthersMoveByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		var cookies []*http.Cookie
		for len(cookies) < 40 {
			if address, resp := h.ask(t, get(t)); address == "a:80" {
				cookies = append(cookies, cookieOf(t, resp))
			}
		}
		begun := h.keeper.Status().New
		h.push("b:80", "c:80")
		homes := map[string]int{}
		for i, c := range cookies {
			got := h.together(t, 5, c)
			for _, a := range got {
				assert.Equal(t, got[0].address, a.address)
			}
			homes[got[0].address]++
			assert.Equal(t, uint64(i+1), h.keeper.Status().Moved)
			if i%2 == 0 {
				h.ask(t, get(t)) // so that the balancer is not in step with the calls
				begun++
			}
		}
		assert.Len(t, homes, 2)
		for address, n := range homes {
			assert.Greater(t, n, 5, address)
		}
		assert.Equal(t, session.Status{New: begun, Moved: 40}, h.keeper.Status())
		assert.Len(t, h.events, 40)
	})
}

// Strict sessions do not move, and nothing is remembered of them.
func TestCookie_StrictDoesNotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}, Strict: true})
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		h.push(without(first)...)
		for range 3 {
			_, err := h.RoundTrip(with(t, old))
			require.ErrorIs(t, err, session.ErrUnavailable)
		}
		assert.Len(t, h.seen, 1)
		h.push(all...)
		address, resp := h.ask(t, with(t, old))
		assert.Equal(t, first, address)
		assert.Empty(t, resp.Header["Set-Cookie"])
		assert.Equal(t, session.Status{New: 1, Kept: 1, Refused: 3}, h.keeper.Status())
		h.assertClean(t)
	})
}

// Answers that set the cookie are for one caller, if that is asked for, and only those; what else they say of caches
// stays.
func TestCookie_Private(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, private := range []bool{false, true} {
			for _, before := range [][]string{nil, {"max-age=60"}, {"no-cache", "max-age=60"}} {
				h := newHouse(t, session.Policy{By: session.Cookie{Name: "seat", Secret: secret, Private: private}})
				var lines []string
				for _, value := range before {
					lines = append(lines, "Cache-Control: "+value)
				}
				h.let(answers(http.StatusOK, lines...), all...)
				want := before
				if private {
					want = append(slices.Clip(want), "private")
				}
				_, resp := h.ask(t, get(t))
				assert.Equal(t, want, resp.Header["Cache-Control"])
				_, resp = h.ask(t, with(t, cookieOf(t, resp)))
				assert.Equal(t, before, resp.Header["Cache-Control"], "it sets no cookie")

				h.let(answers(http.StatusOK, append(lines, "Set-Cookie: seat=own")...), all...)
				_, resp = h.ask(t, get(t))
				assert.Equal(t, before, resp.Header["Cache-Control"], "the cookie is the server's own")
				h.let(answers(http.StatusInternalServerError, lines...), all...)
				_, resp = h.ask(t, get(t))
				assert.Equal(t, before, resp.Header["Cache-Control"], "a failure sets none")
			}
		}
	})
}

// A transport that gives one map of headers to all its answers finds it as it was, with calls at once.
func TestCookie_SharedHeadersOfATransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := append(make([]string, 0, 8), "a=b")
		shared := http.Header{"Set-Cookie": room, "Cache-Control": append(make([]string, 0, 8), "max-age=60")}
		before := shared.Clone()
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret, Private: true}})
		h.let(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: shared, Request: req, ProtoMajor: 1, ProtoMinor: 1}, nil
		}, all...)
		values := make([]string, 20)
		var group sync.WaitGroup
		for i := range values {
			group.Go(func() {
				_, resp := h.ask(t, get(t))
				if lines := resp.Header["Set-Cookie"]; assert.Len(t, lines, 2) {
					assert.Equal(t, "a=b", lines[0])
					values[i] = lines[1]
				}
				assert.Equal(t, []string{"max-age=60", "private"}, resp.Header["Cache-Control"])
			})
		}
		group.Wait()
		seen := map[string]bool{}
		for _, value := range values {
			seen[value] = true
		}
		assert.Len(t, seen, len(values), "each has its own")
		assert.Equal(t, before, shared)
		assert.Equal(t, make([]string, 7), room[1:8])
	})
}

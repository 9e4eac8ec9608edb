package session_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/session"
)

// What a server sets belongs to it: cookies as callers keep them.
func TestLearn_Cookie(t *testing.T) {
	past := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)
	future := time.Date(2999, 12, 31, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about  string
			lines  []string
			learnt string // the value, empty if there is none
		}{
			{"set", []string{"sid=x1"}, "x1"},
			{"with attributes", []string{"sid=x1; Path=/; HttpOnly; Secure; SameSite=Lax"}, "x1"},
			{"in quotes", []string{`sid="x1"; Path=/`}, "x1"},
			{"Max-Age", []string{"sid=x1; Max-Age=60"}, "x1"},
			{"Expires ahead", []string{"sid=x1; Expires=" + future}, "x1"},
			{"Expires that nobody can read", []string{"sid=x1; Expires=tomorrow"}, "x1"},
			{"deleted by Max-Age=0", []string{"sid=x1; Max-Age=0"}, ""},
			{"deleted by Max-Age=-1", []string{"sid=x1; Max-Age=-1"}, ""},
			{"deleted by Expires", []string{"sid=x1; Expires=" + past}, ""},
			{"empty", []string{"sid=; Path=/"}, ""},
			{"none", nil, ""},
			{"among others", []string{"a=b", "lang=en; Path=/sid=x2", "sid=x1", "z=sid"}, "x1"},
			{"deleted elsewhere, then set", []string{"sid=x2; Path=/old; Max-Age=0", "sid=x1; Path=/"}, "x1"},
			{"another's value", []string{"a=sid=x1"}, ""},
			{"a longer name", []string{"sid2=x1", "xsid=x1", "sid.x=x1"}, ""},
			{"in capitals", []string{"SID=x1"}, ""},
			{"no cookie", []string{"sid", "", ";", "=sid"}, ""},
			{"broken", []string{"sid=x1\x00"}, ""},
		} {
			h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}})
			var headers []string
			for _, line := range row.lines {
				headers = append(headers, "Set-Cookie: "+line)
			}
			h.let(answers(http.StatusOK, headers...), "a:80", "b:80", "c:80")
			first, _ := h.ask(t, get(t))
			h.let(nil, all...)
			if row.learnt == "" {
				assert.Zero(t, h.keeper.Status(), row.about)
				continue
			}
			assert.Equal(t, session.Status{New: 1, Sessions: 1}, h.keeper.Status(), row.about)
			for range 4 {
				address, _ := h.ask(t, get(t, "Cookie: sid="+row.learnt))
				assert.Equal(t, first, address, row.about)
			}
			assert.Equal(t, session.Status{New: 1, Kept: 4, Sessions: 1}, h.keeper.Status(), row.about)
		}
	})
}

func TestLearn_Header(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Header: "x-session"}})
		h.let(answers(http.StatusOK, "X-Session: x1", "Set-Cookie: x-session=x2"), all...)
		first, _ := h.ask(t, get(t))
		h.let(answers(http.StatusOK, "X-Session: "), all...)
		for range 4 {
			address, _ := h.ask(t, get(t, "X-Session: x1"))
			assert.Equal(t, first, address)
		}
		assert.Equal(t, session.Status{New: 1, Kept: 4, Sessions: 1}, h.keeper.Status())
	})
}

// Given a server that changes the value, as after a login, then the new one is its, and so is the old one;
// and a value that another server sets is that one's from then on.
func TestLearn_Changed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}})
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		first, _ := h.ask(t, get(t))
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x2"), all...)
		address, _ := h.ask(t, get(t, "Cookie: sid=x1"))
		assert.Equal(t, first, address)
		h.let(nil, all...)
		for _, value := range []string{"x1", "x2", "x1"} {
			address, _ := h.ask(t, get(t, "Cookie: sid="+value))
			assert.Equal(t, first, address)
		}
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		second, _ := h.ask(t, get(t))
		assert.NotEqual(t, first, second)
		h.let(nil, all...)
		address, _ = h.ask(t, get(t, "Cookie: sid=x1"))
		assert.Equal(t, second, address, "who set it last has it")
		address, _ = h.ask(t, get(t, "Cookie: sid=x2"))
		assert.Equal(t, first, address)
	})
}

// Who sets a value has it, whatever the status; and a failure that sets none moves nothing.
func TestLearn_Failures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}}).retrying(t)
		h.let(answers(http.StatusInternalServerError, "Set-Cookie: sid=x9"), all...)
		first, _ := h.ask(t, get(t))
		h.let(answers(http.StatusInternalServerError), all...)
		for range 4 {
			address, _ := h.ask(t, get(t, "Cookie: sid=x9"))
			assert.Equal(t, first, address)
		}
		h.let(breaks, first)
		second, _ := h.ask(t, get(t, "Cookie: sid=x9"))
		assert.NotEqual(t, first, second)
		h.let(nil, all...)
		for range 4 {
			address, _ := h.ask(t, get(t, "Cookie: sid=x9"))
			assert.Equal(t, first, address)
		}
		assert.Equal(t, session.Status{New: 1, Kept: 8, Sessions: 1}, h.keeper.Status())
		h.assertClean(t)
	})
}

// A value that no server has set belongs nowhere, whatever comes of its requests.
func TestLearn_Unknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about  string
			act    func(*http.Request) (*http.Response, error)
			strict bool
		}{
			{"good answers", nil, false},
			{"good answers, strict", nil, true},
			{"failures", answers(http.StatusInternalServerError), false},
			{"refusals", answers(http.StatusForbidden, "X-Session: x"), false},
			{"a value of another name", answers(http.StatusOK, "Set-Cookie: other=x1"), false},
			{"taken back", answers(http.StatusOK, "Set-Cookie: sid=x1; Max-Age=0"), false},
			{"taken back, strict", answers(http.StatusOK, "Set-Cookie: sid=; Max-Age=0"), true},
		} {
			h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}, Strict: row.strict})
			h.let(row.act, all...)
			got := map[string]int{}
			for range 30 {
				address, _ := h.ask(t, get(t, "Cookie: sid=x1"))
				got[address]++
			}
			assert.Equal(t, map[string]int{"a:80": 10, "b:80": 10, "c:80": 10}, got, row.about)
			assert.Equal(t, session.Status{}, h.keeper.Status(), row.about)
			assert.Empty(t, h.events, row.about)
			h.assertClean(t)
		}

		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}}).retrying(t)
		h.let(breaks, "a:80")
		for range 30 {
			address, _ := h.ask(t, get(t, "Cookie: sid=x1"))
			assert.NotEqual(t, "a:80", address)
		}
		assert.Equal(t, session.Status{}, h.keeper.Status(), "nor is it pinned to who answers in another's place")
		h.assertClean(t)
	})
}

// The store is not asked to pin what no server has set.
func TestLearn_UnknownIsNotOfferedToTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid", Store: store}})
		for range 3 {
			h.ask(t, get(t, "Cookie: sid=x1"))
			assert.Equal(t, []string{"lookup"}, store.ops())
		}
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		first, _ := h.ask(t, get(t))
		assert.Equal(t, []string{"pin"}, store.ops())
		assert.Equal(t, map[string]string{session.StoreKey("http://users:80", "x1"): first}, store.at)
		assert.Equal(t, session.Status{New: 1}, h.keeper.Status())
	})
}

// What callers make up takes no room: what servers have set stays.
func TestLearn_Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid", MaxSessions: 10}})
		homes := map[string]string{}
		for i := range 10 {
			value := fmt.Sprint("x", i)
			h.let(answers(http.StatusOK, "Set-Cookie: sid="+value), all...)
			homes[value], _ = h.ask(t, get(t))
		}
		h.let(nil, all...)
		for i := range 1000 {
			h.ask(t, get(t, fmt.Sprint("Cookie: sid=made-up-", i)))
		}
		assert.Equal(t, session.Status{New: 10, Sessions: 10}, h.keeper.Status())
		for range 3 {
			for value, want := range homes {
				address, _ := h.ask(t, get(t, "Cookie: sid="+value))
				assert.Equal(t, want, address)
			}
		}
		assert.Equal(t, session.Status{New: 10, Kept: 30, Sessions: 10}, h.keeper.Status())
		assert.Empty(t, h.events)
	})
}

// A value whose endpoint is gone moves, and stays where it has moved to.
func TestLearn_Moves_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}})
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		first, _ := h.ask(t, get(t))
		h.let(nil, all...)
		h.push(without(first)...)
		second, _ := h.ask(t, get(t, "Cookie: sid=x1"))
		assert.NotEqual(t, first, second)
		h.push(all...)
		for range 6 {
			address, _ := h.ask(t, get(t, "Cookie: sid=x1"))
			assert.Equal(t, second, address)
		}
		assert.Equal(t, session.Status{New: 1, Kept: 6, Moved: 1, Sessions: 1}, h.keeper.Status())
		require.Len(t, h.events, 1)
		assert.Equal(t, session.Event{Time: time.Now(), Kind: session.Moved, From: first, To: second, Cause: "removed"}, h.events[0])
		h.assertClean(t)
	})
}

// A server that sets the same value with every answer begins one session, and so do others that answer in its place:
// they have it then.
func TestLearn_SetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}}).retrying(t)
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		first, _ := h.ask(t, get(t))
		for range 3 {
			h.ask(t, get(t, "Cookie: sid=x1"))
		}
		assert.Equal(t, session.Status{New: 1, Kept: 3, Sessions: 1}, h.keeper.Status())

		h.let(answers(http.StatusInternalServerError, "Set-Cookie: sid=x1"), all...)
		h.let(breaks, first)
		second, _ := h.ask(t, get(t, "Cookie: sid=x1"))
		assert.NotEqual(t, first, second)
		h.let(nil, all...)
		address, _ := h.ask(t, get(t, "Cookie: sid=x1"))
		assert.Equal(t, second, address)
		assert.Equal(t, session.Status{New: 1, Kept: 4, Moved: 1, Sessions: 1}, h.keeper.Status())
	})
}

package session_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/session"
)

// Of several lines that set the cookie, browsers keep the last one (as PHP's session_regenerate_id sends).
func TestLearn_LastLineWins(t *testing.T) {
	past := "Expires=Fri, 31 Dec 1999 00:00:00 GMT"
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about  string
			lines  []string
			learnt string
		}{
			{"set twice", []string{"sid=x2; Path=/", "sid=x1; Path=/"}, "x1"},
			{"set, then deleted", []string{"sid=x2; Path=/", "sid=; Path=/; Max-Age=0"}, ""},
			{"emptied, then set", []string{"sid=; Path=/", "sid=x1; Path=/"}, "x1"},
			{"Max-Age before Expires (RFC 6265, section 5.3)", []string{"sid=x1; Max-Age=60; " + past}, "x1"},
		} {
			h := newHouse(t, session.Policy{By: session.Learn{Cookie: "sid"}})
			for _, line := range row.lines {
				_ = line
			}
			var headers []string
			for _, line := range row.lines {
				headers = append(headers, "Set-Cookie: "+line)
			}
			h.let(answers(http.StatusOK, headers...), all...)
			first, _ := h.ask(t, get(t))
			h.let(nil, all...)
			if row.learnt == "" {
				assert.Zero(t, h.keeper.Status().Sessions, row.about)
				continue
			}
			for range 4 {
				address, _ := h.ask(t, get(t, "Cookie: sid="+row.learnt))
				assert.Equal(t, first, address, row.about)
			}
		}
	})
}

// New counts sessions that were pinned: one for a key, none if the store has failed.
func TestStatus_NewCountsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{}})
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { h.ask(t, keyed(t, "k")) })
		}
		group.Wait()
		assert.Equal(t, uint64(1), h.keeper.Status().New, "50 calls with one key")

		store := newShelf()
		store.does(fails)
		h = newHouse(t, session.Policy{By: session.Learn{Cookie: "sid", Store: store}})
		h.let(answers(http.StatusOK, "Set-Cookie: sid=x1"), all...)
		h.ask(t, get(t))
		assert.Zero(t, h.keeper.Status().New, "the store has failed")
	})
}

// Strict, and the caller gives up while the store is asked: no other endpoint gets the request.
func TestStore_StrictAndTheCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		store.does(takes(time.Hour))
		h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		resp, err := h.RoundTrip(keyed(t, "k").WithContext(session.WithKey(ctx, "k")))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		if resp != nil {
			_ = resp.Body.Close()
		}
		assert.Empty(t, h.seen)
	})
}

package session_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// Given a session that has moved, and moved back, all within seconds, then its calls still agree where to go next.
func TestCookie_MovesBackAndOn_S01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var endpoints []discovery.Endpoint
		for _, n := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			endpoints = append(endpoints, discovery.Endpoint{Address: n + ":80"})
		}
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}}, endpoints...)
		require.NoError(t, h.pool.Use(balancer.RoundRobin{}, balancer.Rules{Panic: balancer.Panic{Threshold: -1}}))
		healthy := func(is func(address string) bool) {
			for _, e := range endpoints {
				h.health(e.Address, is(e.Address))
			}
		}
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		healthy(func(a string) bool { return a != first })
		second, _ := h.ask(t, with(t, old))
		require.NotEqual(t, first, second)
		healthy(func(a string) bool { return a == first })
		back, _ := h.ask(t, with(t, old))
		require.Equal(t, first, back)
		healthy(func(a string) bool { return a != first && a != second })
		for _, e := range endpoints {
			h.let(slowly, e.Address)
		}
		seen := map[string]bool{}
		for _, got := range h.together(t, 40, old) {
			seen[got.address] = true
		}
		assert.Len(t, seen, 1)
		h.assertClean(t)
	})
}

// Given others in the queue who wait for room anywhere, then a call whose own endpoint has room, but takes nobody else's,
// does not wait for them.
func TestCookie_DoesNotWaitBehindOthers_S05(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}}, discovery.Endpoint{Address: "a:80"})
		require.NoError(t, h.pool.Use(balancer.RoundRobin{}, balancer.Rules{
			MaxInFlight: 1, Queue: balancer.Queue{Size: 10, Timeout: time.Minute},
		}))
		_, resp := h.ask(t, get(t))
		ours := cookieOf(t, resp)
		h.pushed.sets <- []discovery.Endpoint{{Address: "a:80", Draining: true}, {Address: "b:80"}}
		synctest.Wait()
		h.let(func(req *http.Request) (*http.Response, error) {
			<-hang
			return answers(http.StatusOK)(req)
		}, "b:80")
		h.let(slowly, "a:80")
		done := make(chan time.Duration, 4)
		start := time.Now()
		call := func(req *http.Request) {
			go func() {
				resp, err := h.RoundTrip(req)
				if assert.NoError(t, err) {
					assert.NoError(t, resp.Body.Close())
				}
				done <- time.Since(start)
			}()
			synctest.Wait()
		}
		call(get(t))        // fills b
		call(with(t, ours)) // fills a, for a second
		call(get(t))        // waits for b
		call(with(t, ours)) // waits for a
		assert.Equal(t, time.Second, <-done)
		assert.Equal(t, 2*time.Second, <-done)
		close(hang)
		<-done
		<-done
		h.assertClean(t)
	})
}

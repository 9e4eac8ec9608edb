package session_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/session"
)

// early are policies, and requests of sessions that belong to b:80 since before there was the pool.
func early(t *testing.T) map[string]func(strict bool) (session.Policy, *http.Request) {
	t.Helper()
	return map[string]func(strict bool) (session.Policy, *http.Request){
		"Cookie": func(strict bool) (session.Policy, *http.Request) {
			p := session.Policy{By: session.Cookie{Secret: secret}, Strict: strict}
			for before := newHouse(t, p); ; {
				if address, resp := before.ask(t, get(t)); address == "b:80" {
					return p, with(t, cookieOf(t, resp))
				}
			}
		},
		"Key": func(strict bool) (session.Policy, *http.Request) {
			store := newShelf()
			store.at[session.StoreKey("http://users:80", "k")] = "b:80"
			return session.Policy{By: session.Key{Store: store}, Strict: strict}, keyed(t, "k")
		},
		"Learn": func(strict bool) (session.Policy, *http.Request) {
			store := newShelf()
			store.at[session.StoreKey("http://users:80", "x1")] = "b:80"
			return session.Policy{By: session.Learn{Cookie: "sid", Store: store}, Strict: strict}, get(t, "Cookie: sid=x1")
		},
		"Route": func(strict bool) (session.Policy, *http.Request) {
			return session.Policy{By: session.Route{From: []session.Property{{Header: "X-Route"}}}, Strict: strict}, get(t, "X-Route: b:80")
		},
	}
}

// A session that is older than the pool goes where it belongs, once it is known who is there.
func TestKeeper_WaitsForTheFirstEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for about, sessionOf := range early(t) {
			for _, strict := range []bool{false, true} {
				for _, retried := range []bool{false, true} {
					p, req := sessionOf(strict)
					h := newUnresolved(t, p)
					if retried {
						h.retrying(t)
					}
					start := time.Now()
					sent, ended := h.waiting(t, req)
					time.Sleep(5 * time.Second)
					synctest.Wait()
					assert.Empty(t, ended, about)
					assert.Empty(t, h.seen, about)
					h.push(all...)
					end := <-ended
					require.NoError(t, end.err, about)
					assert.Equal(t, 5*time.Second, time.Since(start))
					assert.Equal(t, []string{"b:80"}, h.seen, about)
					assert.Empty(t, end.cookies, about)
					assert.Equal(t, int32(1), sent.closes.Load(), about)
					assert.Equal(t, session.Status{Kept: 1}, h.keeper.Status(), about)
					assert.Empty(t, h.events, about)
					h.assertClean(t)
				}
			}
		}
	})
}

// ending is what came of a call.
type ending struct {
	cookies []string
	err     error
}

// waiting begins a call that sends a body.
func (h *house) waiting(t *testing.T, req *http.Request) (sent *body, ended <-chan ending) {
	t.Helper()
	sent, result := newBody("x"), make(chan ending, 1)
	req.Body, req.ContentLength = sent, 1
	go func() {
		resp, err := h.RoundTrip(req)
		if err != nil {
			result <- ending{err: err}
			return
		}
		_ = resp.Body.Close()
		result <- ending{cookies: resp.Header["Set-Cookie"]}
	}()
	return sent, result
}

// That the pool is closed, or that the caller gives up, ends the wait at once; neither is a refusal.
func TestKeeper_TheWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for about, sessionOf := range early(t) {
			for _, strict := range []bool{false, true} {
				for _, retried := range []bool{false, true} {
					p, req := sessionOf(strict)
					h := newUnresolved(t, p)
					if retried {
						h.retrying(t)
					}
					start := time.Now()
					sent, ended := h.waiting(t, req)
					time.Sleep(3 * time.Second)
					synctest.Wait()
					assert.Empty(t, ended, about)
					h.pool.Close()
					err := (<-ended).err
					require.ErrorIs(t, err, balancer.ErrClosed, about)
					assert.Equal(t, outcome.Closed, outcome.ReasonOf(err), about)
					assert.NotErrorIs(t, err, session.ErrUnavailable, about)
					assert.Equal(t, 3*time.Second, time.Since(start), about)
					assert.Equal(t, int32(1), sent.closes.Load(), about)
					assert.Equal(t, session.Status{}, h.keeper.Status(), about)
					assert.Empty(t, h.events, about)
					assert.Empty(t, h.seen, about)

					p, req = sessionOf(strict)
					h = newUnresolved(t, p)
					if retried {
						h.retrying(t)
					}
					ctx, cancel := context.WithTimeout(req.Context(), time.Minute)
					defer cancel()
					start = time.Now()
					sent, ended = h.waiting(t, req.WithContext(ctx))
					require.ErrorIs(t, (<-ended).err, context.DeadlineExceeded, about)
					assert.Equal(t, time.Minute, time.Since(start), about)
					assert.Equal(t, int32(1), sent.closes.Load(), about)
					assert.Equal(t, session.Status{}, h.keeper.Status(), about)
					assert.Empty(t, h.events, about)
				}
			}
		}
	})
}

// A keeper is that of one pool.
func TestKeeper_OfOnePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		pool, err := balancer.NewPool(balancer.Config{Resolver: discovery.Static{"d:80"}, Sessions: h.keeper})
		assert.Nil(t, pool)
		require.EqualError(t, err, "session: the keeper is that of another pool already")
		first, resp := h.ask(t, get(t))
		address, _ := h.ask(t, with(t, cookieOf(t, resp)))
		assert.Equal(t, first, address, "the first pool has it still")
		require.NoError(t, h.keeper.Use(nil))
		require.Error(t, h.keeper.Attach(func(context.Context) error { return nil }))
	})
}

// Without a deadline the wait is as long as without sessions.
func TestKeeper_TheWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for about, sessionOf := range early(t) {
			for _, strict := range []bool{false, true} {
				p, req := sessionOf(strict)
				h := newUnresolved(t, p)
				start := time.Now()
				sent, ended := h.waiting(t, req)
				err := (<-ended).err
				require.ErrorIs(t, err, balancer.ErrNoEndpoints, about)
				assert.Equal(t, 10*time.Second, time.Since(start), about)
				assert.Equal(t, int32(1), sent.closes.Load(), about)
				assert.Empty(t, h.seen)
			}
		}
	})
}

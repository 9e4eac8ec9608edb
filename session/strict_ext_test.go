package session_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/session"
)

// onlyPin does something with each pin, and nothing with lookups.
func onlyPin(does func(context.Context, string) (string, bool, error)) func(context.Context, string) (string, bool, error) {
	return func(ctx context.Context, op string) (string, bool, error) {
		if op != "pin" {
			return "", false, nil
		}
		return does(ctx, op)
	}
}

// Strict and a store that cannot take a new session in: nothing is sent. Else the call goes on.
func TestStore_StrictAndCannotPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about string
			does  func(context.Context, string) (string, bool, error)
			fails bool // as far as the keeper knows
		}{
			{"fails", fails, true},
			{"hangs", takes(time.Hour), true},
			{"has nothing pinned after it", func(context.Context, string) (string, bool, error) { return "", true, nil }, false},
		} {
			for _, retried := range []bool{false, true} {
				store := newShelf()
				store.does(onlyPin(row.does))
				h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true})
				if retried {
					h.retrying(t)
				}
				sent := newBody("x")
				req := keyed(t, "k")
				req.Body, req.ContentLength = sent, 1
				_, err := h.RoundTrip(req)
				require.ErrorIs(t, err, session.ErrUnavailable, row.about)
				assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err), row.about)
				assert.Equal(t, outcome.Reason("no_endpoints"), outcome.ReasonOf(err), row.about)
				assert.Equal(t, int32(1), sent.closes.Load(), row.about)
				assert.Empty(t, h.seen, row.about)
				want := session.Status{Refused: 1}
				if row.fails {
					want.StoreErrors = 1
				}
				assert.Equal(t, want, h.keeper.Status(), row.about)
				last := h.events[len(h.events)-1]
				assert.Equal(t, session.Refused, last.Kind, row.about)
				assert.ErrorIs(t, last.Err, session.ErrUnavailable)
				if row.fails {
					assert.Equal(t, []session.EventKind{session.StoreFailed, session.Refused}, h.kinds(), row.about)
					assert.Equal(t, "store failed", last.Cause, row.about)
				} else {
					assert.Equal(t, []session.EventKind{session.Refused}, h.kinds(), row.about)
				}
				assert.Empty(t, store.at)

				store.does(nil)
				first, _ := h.ask(t, keyed(t, "k"))
				address, _ := h.ask(t, keyed(t, "k"))
				assert.Equal(t, first, address, "it begins when the store can")
				h.assertClean(t)

				store = newShelf()
				store.does(onlyPin(row.does))
				h = newHouse(t, session.Policy{By: session.Key{Store: store}})
				_, resp := h.ask(t, keyed(t, "k"))
				assert.Equal(t, http.StatusOK, resp.StatusCode, row.about)
				assert.Zero(t, h.keeper.Status().Refused)
				h.assertClean(t)
			}
		}
	})
}

// cannotSend is a request that provably reached nobody.
func cannotSend(*http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%w: %w", outcome.ErrNeverSent, errBroken)
}

// A strict key is bound from when it is pinned, before its first request is sent: what that may have begun at its
// endpoint is nowhere else.
func TestKey_StrictFromTheFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, store := range []session.Store{nil, newShelf()} {
			h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true}).retrying(t)
			h.let(breaks, all...)
			_, err := h.RoundTrip(keyed(t, "k"))
			require.ErrorIs(t, err, errBroken)
			require.NotEmpty(t, h.seen)
			first := h.seen[0]
			for _, address := range h.seen {
				assert.Equal(t, first, address, "retries stay")
			}
			assert.Equal(t, uint64(1), h.keeper.Status().New)
			assert.Zero(t, h.keeper.Status().Moved)

			h.let(nil, all...)
			for range 4 {
				address, _ := h.ask(t, keyed(t, "k"))
				assert.Equal(t, first, address)
			}
			assert.Empty(t, h.events)
			h.assertClean(t)
		}
	})
}

// A session that begins with a request that could not be sent has begun nowhere: it begins elsewhere, and the pin
// follows. One that has begun stays.
func TestKey_StrictAndNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, store := range []session.Store{nil, newShelf()} {
			h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true}).retrying(t)
			var attempts atomic.Int32
			h.let(func(req *http.Request) (*http.Response, error) {
				if attempts.Add(1) == 1 {
					return cannotSend(req)
				}
				return answers(http.StatusOK)(req)
			}, all...)
			second, _ := h.ask(t, keyed(t, "k"))
			require.Len(t, h.seen, 2)
			first := h.seen[0]
			assert.NotEqual(t, first, second)
			for range 4 {
				address, _ := h.ask(t, keyed(t, "k"))
				assert.Equal(t, second, address, "the pin has followed")
			}
			want := session.Status{New: 1, Kept: 4, Moved: 1}
			if store == nil {
				want.Sessions = 1
			}
			assert.Equal(t, want, h.keeper.Status())
			require.Len(t, h.events, 1)
			assert.Equal(t, []string{first, second}, []string{h.events[0].From, h.events[0].To})

			h.seen = nil
			h.let(cannotSend, second)
			_, err := h.RoundTrip(keyed(t, "k"))
			require.ErrorIs(t, err, errBroken)
			require.NotEmpty(t, h.seen)
			for _, address := range h.seen {
				assert.Equal(t, second, address, "it has begun there")
			}
			h.let(nil, all...)
			address, _ := h.ask(t, keyed(t, "k"))
			assert.Equal(t, second, address)
			assert.Len(t, h.events, 1)
			h.assertClean(t)
		}
	})
}

// A session that begins with a failure elsewhere than where it could not be sent belongs to the first endpoint still,
// and is strict there with its next call.
func TestKey_StrictNeverSentThenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{}, Strict: true}).retrying(t)
		var attempts atomic.Int32
		h.let(func(req *http.Request) (*http.Response, error) {
			if attempts.Add(1) == 1 {
				return cannotSend(req)
			}
			return answers(http.StatusInternalServerError)(req)
		}, all...)
		second, _ := h.ask(t, keyed(t, "k"))
		first := h.seen[0]
		assert.NotEqual(t, first, second)
		h.let(nil, all...)
		for range 3 {
			address, _ := h.ask(t, keyed(t, "k"))
			assert.Equal(t, first, address)
		}
		assert.Equal(t, session.Status{New: 1, Kept: 3, Sessions: 1}, h.keeper.Status())
		h.assertClean(t)
	})
}

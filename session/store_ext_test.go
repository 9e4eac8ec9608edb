package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/session"
)

const ms = time.Millisecond

// shelf is a store of a user's own, which does what the test says before it answers.
type shelf struct {
	before func(ctx context.Context, op string) (endpoint string, over bool, err error)

	mu    sync.Mutex // guards what follows
	at    map[string]string
	asked []string
}

func newShelf() *shelf { return &shelf{at: map[string]string{}} }

func (s *shelf) begin(ctx context.Context, op string) (endpoint string, over bool, err error) {
	s.mu.Lock()
	s.asked = append(s.asked, op)
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return "", false, nil
	}
	return before(ctx, op)
}

func (s *shelf) Lookup(ctx context.Context, key string) (string, error) {
	if endpoint, over, err := s.begin(ctx, "lookup"); over {
		return endpoint, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[key], nil
}

func (s *shelf) Pin(ctx context.Context, key, from, to string) (string, error) {
	if endpoint, over, err := s.begin(ctx, "pin"); over {
		return endpoint, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.at[key]; now != "" && now != from {
		return now, nil
	}
	if s.at[key] = to; to == "" {
		delete(s.at, key)
	}
	return to, nil
}

// ops returns what it was asked since the last time.
func (s *shelf) ops() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ops := s.asked
	s.asked = nil
	return ops
}

// does says what the store does from now on.
func (s *shelf) does(before func(ctx context.Context, op string) (string, bool, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// takes is a store that takes its time for each operation, unless its context ends.
func takes(d time.Duration) func(context.Context, string) (string, bool, error) {
	return func(ctx context.Context, _ string) (string, bool, error) {
		select {
		case <-time.After(d):
			return "", false, nil
		case <-ctx.Done():
			return "", true, ctx.Err()
		}
	}
}

var errStore = errors.New("the store is on fire")

func fails(context.Context, string) (string, bool, error) { return "", true, errStore }

// took returns how long a call took that has gone well.
func (h *house) took(t testing.TB, req *http.Request) time.Duration {
	t.Helper()
	start := time.Now()
	h.ask(t, req)
	return time.Since(start)
}

// StoreTimeout bounds the sum of all that one call waits, exactly.
func TestStore_Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about  string
			each   time.Duration
			limit  time.Duration
			want   time.Duration
			ops    []string
			failed uint64
		}{
			{"at once", 0, 0, 0, []string{"lookup", "pin"}, 0},
			{"in time", 40 * ms, 0, 80 * ms, []string{"lookup", "pin"}, 0},
			{"the sum is too long", 60 * ms, 0, 100 * ms, []string{"lookup", "pin"}, 1},
			{"the first is too long", 101 * ms, 0, 100 * ms, []string{"lookup"}, 1},
			{"hangs", 1000 * time.Hour, 0, 100 * ms, []string{"lookup"}, 1},
			{"hangs, and nobody minds", time.Hour, 3 * time.Hour, 2 * time.Hour, []string{"lookup", "pin"}, 0},
			{"hangs, and somebody does", time.Hour, ms, ms, []string{"lookup"}, 1},
		} {
			store := newShelf()
			store.does(takes(row.each))
			h := newHouse(t, session.Policy{By: session.Key{Store: store}, StoreTimeout: row.limit})
			assert.Equal(t, row.want, h.took(t, keyed(t, "k")), row.about)
			assert.Equal(t, row.ops, store.ops(), row.about)
			assert.Equal(t, row.failed, h.keeper.Status().StoreErrors, row.about)
			assert.Zero(t, h.took(t, get(t)), "without a key it is not asked")
			assert.Empty(t, store.ops())
			h.assertClean(t)
		}
	})
}

// The time of attempts does not count, that of a pin after them does.
func TestStore_TimeoutOverAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		store.does(takes(40 * ms))
		h := newHouse(t, session.Policy{By: session.Key{Store: store}}).retrying(t)
		h.let(func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return nil, errBroken
		}, "a:80")
		took := map[time.Duration][]string{}
		for i := range 9 {
			d := h.took(t, keyed(t, string(rune('k'+i))))
			took[d] = store.ops()
		}
		assert.Equal(t, map[time.Duration][]string{80 * ms: {"lookup", "pin"}, time.Second + 100*ms: {"lookup", "pin", "pin"}}, took)
		h.assertClean(t)
	})
}

// That a store fails is told once until it has answered again, and calls go on. It may remember by itself, so it
// is asked to pin, but not twice.
func TestStore_Fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		h := newHouse(t, session.Policy{By: session.Key{Store: store}}).retrying(t)
		h.let(breaks, "a:80")
		told := func() (list []session.Event) {
			for _, e := range h.events {
				if e.Kind == session.StoreFailed || e.Kind == session.StoreRecovered {
					list = append(list, e)
				}
			}
			return list
		}
		for round := range 2 {
			store.does(fails)
			for range 5 {
				h.ask(t, keyed(t, "k"))
				assert.Equal(t, []string{"lookup", "pin"}, store.ops())
			}
			require.Len(t, told(), 2*round+1)
			assert.Equal(t, session.StoreFailed, told()[2*round].Kind)
			assert.ErrorIs(t, told()[2*round].Err, errStore)
			store.does(nil)
			h.ask(t, keyed(t, "k"))
			h.ask(t, keyed(t, "k"))
			store.ops()
			require.Len(t, told(), 2*round+2)
			assert.Equal(t, session.StoreRecovered, told()[2*round+1].Kind)
			delete(store.at, session.StoreKey("http://users:80", "k"))
		}
		assert.Equal(t, uint64(20), h.keeper.Status().StoreErrors)
		store.does(func(_ context.Context, op string) (string, bool, error) { return "", op == "pin", errStore })
		h.ask(t, keyed(t, "k"))
		assert.Equal(t, []string{"lookup", "pin"}, store.ops())
		assert.Equal(t, uint64(21), h.keeper.Status().StoreErrors)
		h.assertClean(t)
	})
}

// An endpoint beside an error is used.
func TestStore_EndpointBesideAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []string{"lookup", "pin"} {
			store := newShelf()
			store.does(func(_ context.Context, asked string) (string, bool, error) { return "b:80", asked == op, errStore })
			h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: op == "lookup"})
			for range 6 {
				address, _ := h.ask(t, keyed(t, "k"))
				assert.Equal(t, "b:80", address, op)
			}
			assert.Equal(t, uint64(6), h.keeper.Status().StoreErrors)
			assert.Equal(t, []session.EventKind{session.StoreFailed}, h.kinds()[:1])
		}
	})
}

// Who pins a key that somebody else has pinned meanwhile goes there, too.
func TestStore_SomebodyElseWasFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, elsewhere := range []string{"b:80", "nowhere:80"} {
			store := newShelf()
			store.does(func(_ context.Context, op string) (string, bool, error) { return elsewhere, op == "pin", nil })
			h := newHouse(t, session.Policy{By: session.Key{Store: store}})
			for range 6 {
				address, _ := h.ask(t, keyed(t, "k"))
				if elsewhere == "b:80" {
					assert.Equal(t, "b:80", address)
				}
			}
			h.assertClean(t)
		}
	})
}

// Of many calls with a new key at once, all go to one endpoint.
func TestStore_ConcurrentFirstCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := newShelf()
		slow.does(takes(ms))
		for _, store := range []session.Store{nil, slow} {
			h := newHouse(t, session.Policy{By: session.Key{Store: store}})
			var group sync.WaitGroup
			for range 50 {
				group.Go(func() { h.ask(t, keyed(t, "k")) })
			}
			group.Wait()
			for _, address := range h.seen {
				assert.Equal(t, h.seen[0], address)
			}
			if store == nil {
				assert.Equal(t, uint64(1), h.keeper.Status().New)
			} else {
				assert.Positive(t, h.keeper.Status().New)
			}
			h.assertClean(t)
		}
	})
}

// That the caller gives up says nothing about the store.
func TestStore_CallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, strict := range []bool{false, true} {
			store := newShelf()
			store.does(takes(time.Hour))
			h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: strict})
			h.let(func(req *http.Request) (*http.Response, error) { return nil, req.Context().Err() }, all...) // as real ones do
			ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
			defer cancel()
			start := time.Now()
			sent := newBody("x")
			req := keyed(t, "k")
			req = req.WithContext(session.WithKey(ctx, "k"))
			req.Body = sent
			_, err := h.RoundTrip(req)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 50*ms, time.Since(start))
			assert.Equal(t, int32(1), sent.closes.Load())
			assert.Zero(t, h.keeper.Status().StoreErrors)
			assert.NotContains(t, h.kinds(), session.StoreFailed)
			h.assertClean(t)
		}
	})
}

// Strict and a store that cannot say: nothing is sent.
func TestStore_StrictAndFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for about, does := range map[string]func(context.Context, string) (string, bool, error){"fails": fails, "hangs": takes(time.Hour)} {
			for _, retried := range []bool{false, true} {
				store := newShelf()
				h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true})
				if retried {
					h.retrying(t)
				}
				first, _ := h.ask(t, keyed(t, "k"))
				store.does(does)
				sent := newBody("x")
				req := keyed(t, "k")
				req.Body, req.ContentLength = sent, 1
				_, err := h.RoundTrip(req)
				require.ErrorIs(t, err, session.ErrUnavailable, about)
				assert.Equal(t, int32(1), sent.closes.Load(), about)
				assert.Len(t, h.seen, 1)
				assert.Equal(t, []session.EventKind{session.StoreFailed, session.Refused}, h.kinds(), about)
				assert.Equal(t, session.Status{New: 1, Refused: 1, StoreErrors: 1}, h.keeper.Status())
				store.does(nil)
				address, _ := h.ask(t, keyed(t, "k"))
				assert.Equal(t, first, address)
				h.assertClean(t)
			}
		}
	})
}

// A store that panics leaves no body open and nothing in flight.
func TestStore_Panics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about   string
			at      int // the operation that panics
			retried bool
		}{
			{"lookup", 1, false},
			{"lookup, with retries", 1, true},
			{"first pin", 2, false},
			{"first pin, with retries", 2, true},
			{"pin after the answer", 3, false},
			{"pin after the answer, with retries", 3, true},
		} {
			store, n := newShelf(), 0
			store.does(func(context.Context, string) (string, bool, error) {
				if n++; n == row.at {
					panic("the store panics")
				}
				return "", true, nil // and pins nothing, so that it is asked again
			})
			h := newHouse(t, session.Policy{By: session.Key{Store: store}})
			if row.retried {
				h.retrying(t)
			}
			sent := newBody("x")
			req := keyed(t, "k")
			req.Body, req.ContentLength = sent, 1
			assert.PanicsWithValue(t, "the store panics", func() {
				_, _ = h.RoundTrip(req)
			}, row.about)
			assert.Equal(t, int32(1), sent.closes.Load(), row.about)
			assert.Len(t, h.seen, max(row.at-2, 0), row.about)
			h.assertClean(t)
			resp, err := h.RoundTrip(keyed(t, "k"))
			require.NoError(t, err, row.about)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			h.assertClean(t)
		}
	})
}

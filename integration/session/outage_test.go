//go:build unix

package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
)

// slack is by how much an operation may be late on a machine that is busy with other tests.
const slack = 5 * time.Second

// timed calls f and checks that it does not take longer than it may.
func timed(t *testing.T, most time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	assert.Less(t, time.Since(begin), most+slack)
}

// keysOf returns n keys.
func keysOf(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	return keys
}

func TestOutage_Frozen(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const timeout = 50 * time.Millisecond
	times := clock.NewFake(time.Unix(0, 0)) // of the breaker: it stays open until the test wants it
	store := newStore(t, server, redis.Config{Timeout: timeout, Clock: times})
	keys := keysOf(20)
	for _, key := range keys {
		eventually(t, func() bool { got, err := store.Pin(t.Context(), key, "", "a"); return err == nil && got == "a" }, "no pin")
	}
	store.Breaker().Reset() // of what was too slow so far

	thaw := server.Freeze(t)
	var asked, refused atomic.Int64
	var load sync.WaitGroup
	for _, key := range keys {
		load.Go(func() {
			for range 50 {
				timed(t, timeout, func() {
					got, err := store.Lookup(t.Context(), key)
					assert.Equal(t, "a", got, "%v", err)
					switch {
					case errors.Is(err, breaker.ErrOpen):
						refused.Add(1)
					case assert.Error(t, err):
						asked.Add(1)
					}
				})
			}
		})
	}
	load.Wait()
	// Only those waited that had asked before the third of them had failed.
	assert.Equal(t, breaker.Open, store.Breaker().State())
	assert.GreaterOrEqual(t, asked.Load(), int64(3))
	assert.LessOrEqual(t, asked.Load(), int64(len(keys)+3))
	assert.EqualValues(t, 50*len(keys), asked.Load()+refused.Load())

	timed(t, timeout, func() {
		got, err := store.Pin(t.Context(), "new", "", "b")
		assert.ErrorIs(t, err, breaker.ErrOpen)
		assert.Equal(t, "b", got)
	})
	timed(t, timeout, func() { assert.Error(t, store.Ping(t.Context())) })
	times.Advance(10 * time.Second)
	timed(t, timeout, func() { // the probe
		got, err := store.Lookup(t.Context(), keys[0])
		assert.Error(t, err)
		assert.NotErrorIs(t, err, breaker.ErrOpen)
		assert.Equal(t, "a", got)
	})
	_, err := store.Lookup(t.Context(), keys[0])
	assert.ErrorIs(t, err, breaker.ErrOpen)

	thaw()
	eventually(t, func() bool {
		times.Advance(10 * time.Second)
		got, err := store.Lookup(t.Context(), "new")
		return err == nil && got == "b"
	}, "it does not recover")
	eventually(t, func() bool { return store.Breaker().State() == breaker.Closed }, "the breaker stays open")
}

func TestOutage_RestartedWithoutData(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	config := redis.Config{Breaker: breaker.Config{OpenFor: 10 * time.Millisecond, MaxOpenFor: 10 * time.Millisecond}}
	stores := []*redis.Store{newStore(t, server, config), newStore(t, server, config)}
	// Each store knows a part of the keys, and some have moved without the second one having heard of it.
	keys := keysOf(90)
	for i, key := range keys {
		knows := i % 3 // both, the first, and the first knows better
		pin(t, stores[0], key, "", "a", "a")
		if knows != 1 {
			lookup(t, stores[1], key, "a")
		}
		if knows == 2 {
			pin(t, stores[0], key, "a", "b", "b")
		}
	}
	server.Stop(t, syscall.SIGTERM)
	for _, store := range stores {
		got, err := store.Lookup(t.Context(), keys[0])
		assert.Error(t, err)
		assert.Equal(t, "a", got)
	}
	server.Start(t)
	size, err := server.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Zero(t, size)

	// Both restore, at the same time.
	var both sync.WaitGroup
	for i, store := range stores {
		both.Go(func() {
			eventually(t, func() bool { return store.Ping(t.Context()) == nil }, "it stays away")
			for j := range keys {
				key := keys[(j*7+i*13)%len(keys)]
				eventually(t, func() bool { _, err := store.Lookup(t.Context(), key); return err == nil }, "it stays away")
			}
		})
	}
	both.Wait()
	for i, key := range keys {
		first, err := stores[0].Lookup(t.Context(), key)
		require.NoError(t, err)
		second, err := stores[1].Lookup(t.Context(), key)
		require.NoError(t, err)
		assert.Equal(t, first, second, "they agree")
		if i%3 != 2 {
			assert.Equal(t, "a", first, "nothing has moved")
		} else {
			assert.Contains(t, []string{"a", "b"}, first)
		}
	}
	size, err = server.admin.DBSize(t.Context()).Result()
	require.NoError(t, err)
	assert.EqualValues(t, len(keys), size)
}

func TestOutage_KilledUnderLoad(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const timeout = 500 * time.Millisecond
	config := redis.Config{Timeout: timeout, Breaker: breaker.Config{OpenFor: 20 * time.Millisecond, MaxOpenFor: 20 * time.Millisecond}}
	stores := []*redis.Store{newStore(t, server, config), newStore(t, server, config)}
	keys := keysOf(8)
	for _, key := range keys {
		eventually(t, func() bool { _, err := stores[0].Pin(t.Context(), key, "", "a"); return err == nil }, "no pin")
		eventually(t, func() bool { _, err := stores[1].Lookup(t.Context(), key); return err == nil }, "no lookup")
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var failed, answered atomic.Int64
	var load sync.WaitGroup
	for i, key := range keys {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				timed(t, timeout, func() {
					store := stores[(i+n)%2]
					got, err := store.Lookup(t.Context(), key)
					if n%10 == 0 {
						got, err = store.Pin(t.Context(), key, "", "other")
					}
					assert.Equal(t, "a", got, "%v", err)
					if err != nil {
						failed.Add(1)
					} else {
						answered.Add(1)
					}
				})
				time.Sleep(time.Millisecond) // others have work to do, too
			}
		})
	}
	more := func(n *atomic.Int64) func() bool {
		want := n.Load() + 100
		return func() bool { return n.Load() >= want || t.Failed() }
	}
	for range 3 {
		eventually(t, more(&answered), "no answers")
		server.Stop(t, syscall.SIGKILL)
		eventually(t, more(&failed), "no failures")
		server.Start(t)
		eventually(t, more(&answered), "no answers after the restart")
	}
	stop()
	load.Wait()
	for _, key := range keys {
		for _, store := range stores {
			eventually(t, func() bool { got, err := store.Lookup(t.Context(), key); return err == nil && got == "a" }, "lost")
		}
	}
}

package redis_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
)

func lookup(t *testing.T, s *redis.Store, key, want string) {
	t.Helper()
	got, err := s.Lookup(t.Context(), key)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func pin(t *testing.T, s *redis.Store, key, from, to, want string) {
	t.Helper()
	got, err := s.Pin(t.Context(), key, from, to)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestStore_PinAndLookup(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{})
	lookup(t, s, "k", "")
	pin(t, s, "k", "", "a", "a")
	pin(t, s, "k", "", "b", "a")
	pin(t, s, "k", "a", "b", "b")
	lookup(t, s, "k", "b")
	assert.Equal(t, 1, f.sent("EVAL"), "the script is sent once")
	assert.Equal(t, 3, f.sent("EVALSHA"))
	assert.Equal(t, "evenkeel:session:gp7QfTphUbdAV5l_o3yp9UHSTlzoTJgM58zUP2dSKUg"[:17], f.onlyKey(t)[:17])
	assert.Len(t, f.onlyKey(t), len("evenkeel:session:")+43)
	require.NoError(t, s.Ping(t.Context()))
}

// A key's life is extended when less than three quarters are left, or if it is not the store's.
func TestStore_Extends(t *testing.T) {
	for _, row := range []struct {
		left int64
		want int // runs of the script
	}{
		{1000, 0},
		{750, 0},
		{749, 1},
		{1, 1},
		{1001, 1},
		{-1, 1}, // it has no end
		{-2, 0}, // it has just gone
	} {
		f := newFake()
		s := newStore(t, f, redis.Config{TTL: time.Second})
		pin(t, s, "k", "", "a", "a")
		key := f.onlyKey(t)
		f.set(func() { f.lives[key] = row.left })
		lookup(t, s, "k", "a")
		assert.Equal(t, row.want, f.sent("extend"), "%d ms left", row.left)
		if row.want > 0 {
			f.set(func() { assert.EqualValues(t, 1000, f.lives[key]) })
		}
	}
}

func TestStore_ExtendingMayFail(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{TTL: time.Second})
	pin(t, s, "k", "", "a", "a")
	key := f.onlyKey(t)
	f.set(func() { f.lives[key], f.replies["EVALSHA"] = 1, "-ERR no" })
	lookup(t, s, "k", "a")
}

func TestStore_RedisAway(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{Breaker: breaker.Config{Mode: breaker.Disabled}})
	pin(t, s, "known", "", "a", "a")
	lookup(t, s, "known", "a")

	f.set(func() { f.down = true })
	got, err := s.Lookup(t.Context(), "known")
	assert.Error(t, err)
	assert.Equal(t, "a", got)
	got, err = s.Lookup(t.Context(), "unknown")
	assert.Error(t, err)
	assert.Empty(t, got)
	for _, row := range []struct{ from, to, want string }{
		{"", "b", "b"},
		{"", "c", "b"},
		{"b", "c", "c"},
	} {
		got, err = s.Pin(t.Context(), "unknown", row.from, row.to)
		assert.Error(t, err)
		assert.Equal(t, row.want, got)
	}
	assert.Error(t, s.Ping(t.Context()))

	// What was pinned meanwhile is restored, and what Redis knows counts.
	f.set(func() { f.down = false })
	lookup(t, s, "unknown", "c")
	lookup(t, s, "known", "a")
	other := newStore(t, f, redis.Config{})
	lookup(t, other, "unknown", "c")
}

// What Redis answers counts, whatever this replica remembers.
func TestStore_RedisCounts(t *testing.T) {
	f := newFake()
	s, other := newStore(t, f, redis.Config{}), newStore(t, f, redis.Config{})
	pin(t, s, "k", "", "a", "a")
	pin(t, other, "k", "a", "b", "b")
	lookup(t, s, "k", "b")
	f.set(func() { f.down = true })
	got, err := s.Lookup(t.Context(), "k")
	assert.Error(t, err)
	assert.Equal(t, "b", got, "it was remembered")
	f.set(func() { f.down = false })
	_, _ = other.Lookup(t.Context(), "k") // of a pipe, go-redis does not see that it is closed
	pin(t, other, "k", "b", "c", "c")
	pin(t, s, "k", "a", "d", "c")
	lookup(t, s, "k", "c")
}

func TestStore_RestoresWhatRedisHasLost(t *testing.T) {
	f := newFake()
	s, other := newStore(t, f, redis.Config{}), newStore(t, f, redis.Config{})
	pin(t, s, "k", "", "a", "a")
	lookup(t, other, "k", "a")
	pin(t, s, "k", "a", "b", "b") // the other one still remembers a
	f.set(func() { f.values, f.lives, f.scripts = map[string]string{}, map[string]int64{}, map[string]bool{} })
	lookup(t, s, "k", "b")
	lookup(t, other, "k", "b")

	// Who pins it does not look it up first.
	for _, row := range []struct{ from, to, want string }{
		{"", "c", "b"},
		{"b", "c", "c"},
		{"b", "d", "c"},
	} {
		f.set(func() { f.values = map[string]string{} })
		pin(t, s, "k", row.from, row.to, row.want)
	}

	f.set(func() { f.values, f.replies["EVALSHA"] = nil, "-OOM command not allowed" })
	got, err := s.Lookup(t.Context(), "k")
	assert.EqualError(t, err, "redis: session store: answered OOM command not allowed")
	assert.Equal(t, "c", got)
}

func TestStore_BreakerOpens(t *testing.T) {
	f, c := newFake(), clock.NewFake(time.Unix(0, 0))
	var mu sync.Mutex
	var states []breaker.State
	s := newStore(t, f, redis.Config{Clock: c, Breaker: breaker.Config{OnChange: func(change breaker.Change) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, change.To)
	}}})
	pin(t, s, "k", "", "a", "a")
	f.set(func() { f.replies["GET"] = "-LOADING Redis is loading the dataset in memory" })
	for i := range 10 {
		got, err := s.Lookup(t.Context(), "k")
		assert.Equal(t, "a", got)
		assert.Equal(t, i >= 3, errors.Is(err, breaker.ErrOpen), "%v", err)
	}
	assert.Equal(t, 3, f.sent("GET"))
	require.NoError(t, s.Ping(t.Context()), "which is not the breaker's")

	f.set(func() { delete(f.replies, "GET") })
	c.Advance(time.Second)
	lookup(t, s, "k", "a")
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Closed}, states)
	assert.Equal(t, breaker.Closed, s.Breaker().State())
}

// Timeout bounds all that an operation waits for, whatever the time limits of go-redis are.
func TestStore_Timeout(t *testing.T) {
	long := goredis.UniversalOptions{DialTimeout: time.Hour, ReadTimeout: time.Hour, WriteTimeout: time.Hour, PoolTimeout: time.Hour}
	one := long
	one.PoolSize = 1
	for _, row := range []struct {
		name    string
		options goredis.UniversalOptions
		hangs   bool // already in the dial
	}{
		{"no answer", goredis.UniversalOptions{}, false},
		{"no connection", goredis.UniversalOptions{}, true},
		{"no answer, long limits", long, false},
		{"no connection, long limits", long, true},
		{"one connection for all, long limits", one, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFake()
			f.silent = true
			if row.hangs {
				f.hang = make(chan struct{})
				defer close(f.hang)
			}
			s := newStore(t, f, redis.Config{Options: row.options, Timeout: 10 * time.Millisecond})
			for i := range 5 {
				begin := time.Now()
				_, err := s.Lookup(t.Context(), "k")
				assert.Less(t, time.Since(begin), 10*time.Second)
				assert.Equal(t, i >= 3, errors.Is(err, breaker.ErrOpen), "%v", err)
				var timeout interface{ Timeout() bool }
				assert.True(t, i >= 3 || errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, goredis.ErrPoolTimeout), "%v", err)
			}
			assert.Error(t, s.Ping(t.Context()))
		})
	}
}

// A socket with the deadline of the caller may be faster than the caller's context.
func TestStore_CallerGivesUp(t *testing.T) {
	f := newFake()
	f.silent = true
	s := newStore(t, f, redis.Config{})
	for range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := s.Lookup(ctx, "k")
		assert.Error(t, err)
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Pin(ctx, "k", "", "a")
	assert.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, s.Breaker().Counts().Failures)
	assert.Equal(t, breaker.Closed, s.Breaker().State())
}

func TestStore_ErrorsHaveNoSecrets(t *testing.T) {
	f := newFake()
	f.replies["AUTH"] = unknown([]string{"AUTH", "someone", "hunter2"})
	f.replies["GET"] = unknown([]string{"GET", "hunter2"})
	f.replies["EVALSHA"] = "-ERR `hunter2`"
	with := newStore(t, f, redis.Config{
		Options: goredis.UniversalOptions{Username: "someone", Password: "hunter2"},
		Breaker: breaker.Config{Mode: breaker.Disabled},
	})
	without := newStore(t, f, redis.Config{Breaker: breaker.Config{Mode: breaker.Disabled}})
	for _, s := range []*redis.Store{with, without} {
		_, first := s.Lookup(t.Context(), "hunter2")
		_, second := s.Pin(t.Context(), "hunter2", "", "a")
		for _, err := range []error{first, second} {
			for ; err != nil; err = errors.Unwrap(err) {
				assert.NotContains(t, err.Error(), "hunter2")
			}
		}
	}
	assert.Equal(t, 2, f.sent("AUTH"), "the fake was asked")
}

func TestStore_Close(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{})
	pin(t, s, "k", "", "a", "a")
	f.set(func() { f.silent = true })
	var ends sync.WaitGroup
	ends.Go(func() {
		got, err := s.Lookup(t.Context(), "k")
		assert.ErrorIs(t, err, redis.ErrClosed)
		assert.Empty(t, got)
	})
	for f.sent("GET") == 0 {
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	ends.Wait()
	got, err := s.Lookup(t.Context(), "k")
	assert.ErrorIs(t, err, redis.ErrClosed)
	assert.Empty(t, got)
	_, err = s.Pin(t.Context(), "k", "", "a")
	assert.ErrorIs(t, err, redis.ErrClosed)
	assert.ErrorIs(t, s.Ping(t.Context()), redis.ErrClosed)
}

func TestStore_LongKeys(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{Prefix: "p:"})
	pin(t, s, strings.Repeat("\x00\xff", 1<<19), "", "a", "a")
	lookup(t, s, strings.Repeat("\x00\xff", 1<<19), "a")
	assert.Len(t, f.onlyKey(t), 2+43)
	for _, key := range []string{"", "\r\n", "\xff"} {
		lookup(t, s, key, "")
		pin(t, s, key, "", "b", "b")
		lookup(t, s, key, "b")
	}
}

package redis_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
	"github.com/evenkeel-go/evenkeel/session"
)

// away checks what a store remembers by itself.
func away(t *testing.T, f *fakeRedis, s *redis.Store, want string) {
	t.Helper()
	f.set(func() { f.replies["GET"] = "-LOADING Redis is loading the dataset in memory" })
	defer f.set(func() { delete(f.replies, "GET") })
	got, err := s.Lookup(t.Context(), "k")
	assert.Error(t, err)
	assert.Equal(t, want, got)
}

// unguarded is for stores that ask Redis however often it fails.
var unguarded = redis.Config{Breaker: breaker.Config{Mode: breaker.Disabled}}

func TestForget_OtherReplicas(t *testing.T) {
	f := newFake()
	s, other := newStore(t, f, unguarded), newStore(t, f, unguarded)
	pin(t, s, "k", "", "a", "a")
	lookup(t, other, "k", "a")
	pin(t, s, "k", "b", "", "a")
	lookup(t, other, "k", "a")

	pin(t, s, "k", "a", "", "")
	key := f.onlyKey(t)
	scripts := f.sent("EVALSHA")
	lookup(t, other, "k", "")
	lookup(t, s, "k", "")
	assert.Equal(t, scripts, f.sent("EVALSHA"), "to find the mark is enough")
	f.set(func() { assert.Equal(t, map[string]string{key: ""}, f.values, "the mark stays") })

	// Whoever has found it does not remember the key either.
	f.set(func() { f.values = map[string]string{} })
	lookup(t, other, "k", "")
	lookup(t, s, "k", "")
	f.set(func() { assert.Empty(t, f.values) })

	pin(t, other, "k", "", "b", "b")
	lookup(t, s, "k", "b")
}

// A mark counts more than what a replica remembers, whatever that does first.
func TestForget_MarkCounts(t *testing.T) {
	pins := func(from, to, want string) func(*testing.T, *fakeRedis, *redis.Store) {
		return func(t *testing.T, _ *fakeRedis, s *redis.Store) { pin(t, s, "k", from, to, want) }
	}
	for _, row := range []struct {
		name  string
		first func(*testing.T, *fakeRedis, *redis.Store)
		want  string
	}{
		{"looks up", func(t *testing.T, _ *fakeRedis, s *redis.Store) { lookup(t, s, "k", "") }, ""},
		{"looks up just before", func(t *testing.T, f *fakeRedis, s *redis.Store) {
			f.set(func() { f.replies["GET"] = "$-1" }) // what it restores comes after the mark
			lookup(t, s, "k", "")
			f.set(func() { delete(f.replies, "GET") })
		}, ""},
		{"pins", pins("", "b", "b"), "b"},
		{"pins where it was", pins("", "a", "a"), "a"},
		{"moves", pins("a", "b", "b"), "b"},
		{"forgets", pins("a", "", ""), ""},
		{"forgets from elsewhere", pins("b", "", ""), ""},
		{"forgets from nowhere", pins("", "", ""), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFake()
			s, other := newStore(t, f, unguarded), newStore(t, f, unguarded)
			pin(t, s, "k", "", "a", "a")
			key := f.onlyKey(t)
			pin(t, other, "k", "a", "", "")
			away(t, f, s, "a")
			row.first(t, f, s)
			f.set(func() { assert.Equal(t, map[string]string{key: row.want}, f.values) })
			away(t, f, s, row.want)
			lookup(t, other, "k", row.want)
			lookup(t, s, "k", row.want)
		})
	}
}

// What Redis has lost and a replica remembers is forgotten as if Redis had it.
func TestForget_WhatRedisHasLost(t *testing.T) {
	const absent = "absent"
	for _, row := range []struct {
		here, there string // what two replicas remember
		from        string
		want        string
		left        string // what Redis holds then
	}{
		{"a", "a", "a", "", ""},
		{"", "a", "a", "", ""},
		{"a", "", "a", "", ""},
		{"", "", "a", "", ""},
		{"b", "a", "a", "b", "b"},
		{"b", "", "", "b", "b"},
		{"", "", "", "", absent},
	} {
		f := newFake()
		s, other := newStore(t, f, redis.Config{}), newStore(t, f, redis.Config{})
		for store, endpoint := range map[*redis.Store]string{s: row.here, other: row.there} {
			if endpoint != "" {
				pin(t, store, "k", "", endpoint, endpoint)
				f.set(func() { f.values = map[string]string{} })
			}
		}
		pin(t, s, "k", row.from, "", row.want)
		if row.left == absent {
			f.set(func() { assert.Empty(t, f.values, "%+v", row) })
		} else {
			key := f.onlyKey(t)
			f.set(func() { assert.Equal(t, row.left, f.values[key], "%+v", row) })
		}
		lookup(t, other, "k", row.want)
		lookup(t, s, "k", row.want)
	}
}

// Other than what is deleted by hand, which comes back.
func TestForget_IsNotDeleting(t *testing.T) {
	f := newFake()
	s := newStore(t, f, redis.Config{})
	pin(t, s, "k", "", "a", "a")
	f.set(func() { f.values = map[string]string{} })
	lookup(t, s, "k", "a")
	pin(t, s, "k", "a", "", "")
	f.set(func() { f.values = map[string]string{} })
	lookup(t, s, "k", "")
}

// A mark lives longer than what any replica remembers, and those who find it do not extend it.
func TestForget_LifeOfAMark(t *testing.T) {
	const timeout = 20 * time.Second
	for _, row := range []struct {
		ttl, local time.Duration
		want       int64
	}{
		{time.Hour, 0, 3_620_001},
		{time.Hour, time.Minute, 3_620_001},
		{time.Minute, time.Hour, 3_620_001},
		{math.MaxInt64, 0, math.MaxInt64/1_000_000 + 20_001},
	} {
		f := newFake()
		s := newStore(t, f, redis.Config{TTL: row.ttl, Timeout: timeout, Local: session.TableConfig{TTL: row.local}})
		pin(t, s, "k", "", "a", "a")
		key := f.onlyKey(t)
		f.set(func() { assert.Equal(t, row.ttl.Milliseconds(), f.lives[key]) })
		pin(t, s, "k", "a", "", "")
		f.set(func() { assert.Equal(t, row.want, f.lives[key]) })
		for _, left := range []int64{row.want, 1, -1} {
			f.set(func() { f.lives[key] = left })
			lookup(t, s, "k", "")
			pin(t, s, "k", "", "", "")
			f.set(func() { assert.Equal(t, left, f.lives[key]) })
		}
		assert.Zero(t, f.sent("extend"))
		pin(t, s, "k", "a", "", "")
		f.set(func() { assert.Equal(t, row.want, f.lives[key], "it is forgotten again") })
		pin(t, s, "k", "", "b", "b")
		f.set(func() { assert.Equal(t, row.ttl.Milliseconds(), f.lives[key]) })
	}
}

// While Redis is away, a key is forgotten here, and what Redis knows counts when it is back.
func TestForget_RedisAway(t *testing.T) {
	f := newFake()
	s := newStore(t, f, unguarded)
	pin(t, s, "k", "", "a", "a")
	f.set(func() { f.down = true })
	for _, row := range []struct{ from, to, want string }{
		{"b", "", "a"},
		{"", "", "a"},
		{"a", "", ""},
		{"a", "", ""},
		{"", "", ""},
		{"", "b", "b"},
		{"b", "", ""},
	} {
		got, err := s.Pin(t.Context(), "k", row.from, row.to)
		assert.Error(t, err)
		assert.Equal(t, row.want, got)
		got, err = s.Lookup(t.Context(), "k")
		assert.Error(t, err)
		assert.Equal(t, row.want, got)
	}
	f.set(func() { f.down = false })
	lookup(t, s, "k", "a")

	// If Redis does not know it any more either, it is gone.
	f.set(func() { f.down = true })
	got, err := s.Pin(t.Context(), "k", "a", "")
	assert.Error(t, err)
	assert.Empty(t, got)
	f.set(func() { f.down, f.values = false, map[string]string{} })
	lookup(t, s, "k", "")
}

//go:build unix

package session_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
	"github.com/evenkeel-go/evenkeel/session"
)

// step is what is done to a key, and where it must be pinned then.
type step struct {
	from, to string
	want     string
}

// contract is what all stores must do.
var contract = []struct {
	name  string
	steps []step
}{
	{"pinned", []step{{"", "a", "a"}, {"", "b", "a"}, {"b", "c", "a"}, {"b", "a", "a"}, {"a", "a", "a"}}},
	{"pinned from somewhere", []step{{"a", "b", "b"}}},
	{"moved", []step{{"", "a", "a"}, {"a", "b", "b"}, {"a", "c", "b"}}},
	{"forgotten", []step{{"", "a", "a"}, {"a", "", ""}}},
	{"forgotten twice", []step{{"", "a", "a"}, {"a", "", ""}, {"a", "", ""}, {"b", "", ""}}},
	{"forgotten from elsewhere", []step{{"", "a", "a"}, {"b", "", "a"}, {"a", "", ""}}},
	{"forgotten from nowhere", []step{{"", "a", "a"}, {"", "", "a"}, {"a", "", ""}}},
	{"forgotten after a move", []step{{"", "a", "a"}, {"a", "b", "b"}, {"a", "", "b"}, {"b", "", ""}}},
	{"never pinned", []step{{"", "", ""}, {"a", "", ""}, {"", "", ""}}},
	{"never pinned, then pinned", []step{{"a", "", ""}, {"", "a", "a"}, {"", "b", "a"}}},
	{"pinned anew", []step{{"", "a", "a"}, {"a", "", ""}, {"", "b", "b"}, {"", "c", "b"}, {"a", "c", "b"}}},
	{"pinned anew where it was", []step{{"", "a", "a"}, {"a", "", ""}, {"", "a", "a"}, {"", "b", "a"}}},
	{"pinned anew from where it was", []step{{"", "a", "a"}, {"a", "", ""}, {"a", "b", "b"}}},
	{"pinned anew from elsewhere", []step{{"", "a", "a"}, {"a", "", ""}, {"c", "b", "b"}}},
	{"again and again", []step{{"", "a", "a"}, {"a", "", ""}, {"", "b", "b"}, {"a", "", "b"}, {"b", "", ""}, {"", "", ""}, {"", "a", "a"}}},
}

// A table, one replica, and replicas of which each remembers something older do the same.
func TestContract(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	table, err := session.NewTable(session.TableConfig{})
	require.NoError(t, err)
	one, three := redis.Config{Prefix: "one:"}, redis.Config{Prefix: "three:"}
	for name, stores := range map[string][]session.Store{
		"table": {table},
		"one":   {newStore(t, server, one)},
		"three": {newStore(t, server, three), newStore(t, server, three), newStore(t, server, three)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, row := range contract {
				for _, looks := range []bool{false, true} { // or else only those who pin learn anything
					key := row.name
					if looks {
						key += ", and looked up"
					}
					for i, step := range row.steps {
						got, err := stores[i%len(stores)].Pin(t.Context(), key, step.from, step.to)
						require.NoError(t, err)
						assert.Equal(t, step.want, got, "%s: step %d", key, i)
						for _, store := range stores {
							if looks || i == len(row.steps)-1 {
								got, err := store.Lookup(t.Context(), key)
								require.NoError(t, err)
								assert.Equal(t, step.want, got, "%s: after step %d", key, i)
							}
						}
					}
				}
			}
		})
	}
}

// Replicas that remember all sorts of things do what one table does, whatever is done in whichever order.
func TestContract_AnyOrder(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	stores := []session.Store{newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{})}
	table, err := session.NewTable(session.TableConfig{})
	require.NoError(t, err)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	endpoints := []string{"", "a", "b"}
	for range 3000 {
		key := fmt.Sprint("key ", random.IntN(5))
		from, to := endpoints[random.IntN(3)], endpoints[random.IntN(3)]
		i, looks := random.IntN(len(stores)), random.IntN(3) == 0
		do := func(s session.Store) string {
			var got string
			var err error
			if looks {
				got, err = s.Lookup(t.Context(), key)
			} else {
				got, err = s.Pin(t.Context(), key, from, to)
			}
			require.NoError(t, err)
			return got
		}
		require.Equal(t, do(table), do(stores[i]), "seed %d: replica %d, %s from %q to %q, looks it up: %v", seed, i, key, from, to, looks)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store, other := newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{})
	pin(t, store, "key", "", "a", "a")
	lookup(t, other, "key", "a")
	name := server.onlyKey(t, prefix)

	// Only from where it is.
	for _, from := range []string{"b", ""} {
		pin(t, store, "key", from, "", "a")
		pin(t, other, "key", from, "", "a")
	}
	lookup(t, other, "key", "a")

	// The other one remembers it, and does not restore it.
	pin(t, store, "key", "a", "", "")
	lookup(t, other, "key", "")
	lookup(t, store, "key", "")
	value, err := server.admin.Get(t.Context(), name).Result()
	require.NoError(t, err)
	assert.Empty(t, value)

	// Nor after the mark has gone, as it has seen it.
	require.NoError(t, server.admin.Del(t.Context(), name).Err())
	lookup(t, other, "key", "")
	assert.Zero(t, server.admin.Exists(t.Context(), name).Val())

	pin(t, other, "key", "", "b", "b")
	pin(t, store, "key", "", "c", "b")
	lookup(t, store, "key", "b")
	lookup(t, other, "key", "b")

	// Who has not looked since pins it anew, and not where it was.
	pin(t, store, "key", "b", "", "")
	pin(t, other, "key", "", "c", "c")
	lookup(t, store, "key", "c")
	lookup(t, other, "key", "c")

	// Nor does one restore it that does nothing with it.
	pin(t, store, "key", "c", "", "")
	pin(t, other, "key", "", "", "")
	lookup(t, other, "key", "")

	// What somebody deletes comes back.
	pin(t, store, "key", "", "d", "d")
	require.NoError(t, server.admin.Del(t.Context(), name).Err())
	lookup(t, store, "key", "d")
	lookup(t, other, "key", "d")
}

// The key is gone in Redis, and a replica remembers it.
func TestForget_WhatRedisHasLost(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	for i, row := range []struct{ here, there, from, want string }{
		{"a", "a", "a", ""},
		{"", "a", "a", ""},
		{"b", "a", "a", "b"},
		{"b", "", "", "b"},
		{"", "", "", ""},
	} {
		config := redis.Config{Prefix: fmt.Sprint("row ", i, ":")}
		store, other := newStore(t, server, config), newStore(t, server, config)
		for s, endpoint := range map[*redis.Store]string{store: row.here, other: row.there} {
			if endpoint != "" {
				pin(t, s, "key", "", endpoint, endpoint)
				require.NoError(t, server.admin.Del(t.Context(), server.onlyKey(t, config.Prefix)).Err())
			}
		}
		pin(t, store, "key", row.from, "", row.want)
		lookup(t, other, "key", row.want)
		lookup(t, store, "key", row.want)
	}
}

// Redis has lost a key, and some restore it while others forget it: then it is forgotten.
func TestForget_AllAgree(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	stores := []*redis.Store{newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{})}
	for i := range 50 {
		key := fmt.Sprint("key ", i)
		pin(t, stores[0], key, "", "a", "a")
		lookup(t, stores[1], key, "a")
		require.NoError(t, server.admin.FlushDB(t.Context()).Err())
		var all sync.WaitGroup
		for n := range 20 {
			store := stores[n%2]
			all.Go(func() {
				got, err := store.Lookup(t.Context(), key)
				assert.NoError(t, err)
				assert.Contains(t, []string{"a", ""}, got)
			})
			all.Go(func() {
				got, err := store.Pin(t.Context(), key, "a", "")
				assert.NoError(t, err)
				assert.Empty(t, got)
			})
		}
		all.Wait()
		for _, store := range stores {
			lookup(t, store, key, "")
		}
	}
}

// writes is a connection that calls before for all that is sent.
type writes struct {
	net.Conn
	before func(sent []byte)
}

func (w writes) Write(b []byte) (int, error) {
	w.before(b)
	return w.Conn.Write(b)
}

// A lookup extends what it has read, and not the mark that is there by then.
func TestForget_BeforeItIsExtended(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const ttl, local = 10 * time.Minute, 2 * time.Hour
	config := redis.Config{TTL: ttl, Local: session.TableConfig{TTL: local}}
	other := newStore(t, server, config)
	pin(t, other, "key", "", "a", "a")
	name := server.onlyKey(t, prefix)
	require.NoError(t, server.admin.PExpire(t.Context(), name, ttl/2).Err())

	var read, forgotten atomic.Bool
	config.Options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return writes{conn, func(sent []byte) {
			switch {
			case bytes.Contains(bytes.ToLower(sent), []byte("pttl")):
				read.Store(true)
			case read.Load() && !forgotten.Swap(true): // what is sent next is to extend it
				got, err := other.Pin(t.Context(), "key", "a", "")
				assert.NoError(t, err)
				assert.Empty(t, got)
			}
		}}, err
	}
	store := newStore(t, server, config)
	lookup(t, store, "key", "a") // which it was when it was read
	require.True(t, forgotten.Load(), "nothing extends it")
	assert.Greater(t, server.admin.PTTL(t.Context(), name).Val(), local/2, "the mark was cut short")
	lookup(t, store, "key", "")
}

// A mark ends by itself, when nobody can restore the key any more.
func TestForget_MarksEnd(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const ttl = 2 * time.Second
	config := redis.Config{TTL: ttl}
	store, other := newStore(t, server, config), newStore(t, server, config)
	pin(t, store, "key", "", "a", "a")
	_, err := other.Lookup(t.Context(), "key")
	require.NoError(t, err)
	pin(t, store, "key", "a", "", "")
	name := server.onlyKey(t, prefix)
	left := server.admin.PTTL(t.Context(), name).Val()
	assert.Greater(t, left, ttl)
	assert.LessOrEqual(t, left, ttl+patience+time.Millisecond)
	require.NoError(t, server.admin.PExpire(t.Context(), name, ttl).Err()) // as if Timeout had passed
	require.NoError(t, server.admin.ConfigResetStat(t.Context()).Err())
	eventually(t, func() bool {
		lookup(t, store, "key", "")
		return server.admin.DBSize(t.Context()).Val() == 0
	}, "the mark stays")
	calls := server.calls(t)
	assert.Zero(t, calls["pexpire"]+calls["set"], "looking it up is no write")
	lookup(t, other, "key", "")
}

// While Redis is away, a key is forgotten here only, and everywhere when Redis can be told so.
func TestForget_Outage(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	config := redis.Config{Breaker: breaker.Config{OpenFor: 10 * time.Millisecond, MaxOpenFor: 10 * time.Millisecond}}
	store, other := newStore(t, server, config), newStore(t, server, config)
	pin(t, store, "key", "", "a", "a")
	lookup(t, other, "key", "a")

	server.Stop(t, syscall.SIGTERM)
	for _, step := range []step{{"b", "", "a"}, {"a", "", ""}, {"a", "", ""}} {
		got, err := store.Pin(t.Context(), "key", step.from, step.to)
		assert.Error(t, err)
		assert.Equal(t, step.want, got)
	}
	got, err := other.Lookup(t.Context(), "key")
	assert.Error(t, err)
	assert.Equal(t, "a", got)

	server.Start(t)
	eventually(t, func() bool {
		got, err := store.Pin(t.Context(), "key", "a", "")
		return err == nil && got == ""
	}, "it stays away")
	eventually(t, func() bool { got, err := other.Lookup(t.Context(), "key"); return err == nil && got == "" }, "it is restored")
}

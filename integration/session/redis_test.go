//go:build unix

package session_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
)

const prefix = "evenkeel:session:"

// newStore returns a store that ends with the test. Where the test does not say otherwise, it
// waits for as long as it takes.
func newStore(tb testing.TB, s *redisServer, c redis.Config) *redis.Store {
	tb.Helper()
	if c.Options.Addrs == nil {
		c.Options.Addrs = []string{s.Address}
	}
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	store, err := redis.New(c)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, store.Close()) })
	return store
}

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

// onlyKey returns the one key that the server has with a prefix.
func (s *redisServer) onlyKey(t *testing.T, prefix string) string {
	t.Helper()
	keys, err := s.admin.Keys(t.Context(), prefix+"*").Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	return keys[0]
}

func TestPin_AllAgree(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	stores := []*redis.Store{newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{})}
	for _, from := range []string{"", "first"} { // pinned for the first time, and moved
		key := "key" + from
		if from != "" {
			pin(t, stores[0], key, "", from, from)
		}
		const pins = 200
		got := make([]string, pins)
		var all sync.WaitGroup
		for i := range pins {
			all.Go(func() {
				var err error
				got[i], err = stores[i%2].Pin(t.Context(), key, from, fmt.Sprint("endpoint ", i))
				assert.NoError(t, err)
			})
		}
		all.Wait()
		assert.Contains(t, got[0], "endpoint ")
		for _, endpoint := range got {
			assert.Equal(t, got[0], endpoint)
		}
		for _, store := range stores {
			lookup(t, store, key, got[0])
		}
	}
}

func TestPin_FromTo(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const absent = "absent"
	for i, row := range []struct{ pinned, from, to, want string }{
		{absent, "", "a", "a"},
		{absent, "b", "a", "a"}, // it has been forgotten meanwhile
		{absent, "a", "a", "a"},
		{absent, "", "", absent},
		{absent, "a", "", ""},
		{"", "", "a", "a"}, // it was forgotten
		{"", "b", "a", "a"},
		{"", "", "", ""},
		{"", "a", "", ""},
		{"a", "", "", "a"},
		{"a", "b", "", "a"},
		{"a", "a", "", ""},
		{"a", "", "a", "a"},
		{"a", "", "b", "a"},
		{"a", "a", "b", "b"},
		{"a", "a", "a", "a"},
		{"a", "b", "c", "a"},
		{"a", "c", "a", "a"},
		{"\x00\r\n ü", "\x00\r\n ü", "\xff\n", "\xff\n"},
	} {
		t.Run(fmt.Sprintf("%q from %q to %q", row.pinned, row.from, row.to), func(t *testing.T) {
			t.Parallel()
			config := redis.Config{Prefix: fmt.Sprint("row ", i, ":")}
			pin(t, newStore(t, server, config), "key", "", "x", "x")
			name := server.onlyKey(t, config.Prefix)
			store := newStore(t, server, config) // which remembers nothing
			if row.pinned == absent {
				require.NoError(t, server.admin.Del(t.Context(), name).Err())
			} else {
				require.NoError(t, server.admin.Set(t.Context(), name, row.pinned, time.Minute).Err())
			}
			if row.want == absent {
				pin(t, store, "key", row.from, row.to, "")
				lookup(t, store, "key", "")
				assert.Zero(t, server.admin.Exists(t.Context(), name).Val())
				return
			}
			pin(t, store, "key", row.from, row.to, row.want)
			lookup(t, store, "key", row.want)
			assert.Equal(t, row.want, server.admin.Get(t.Context(), name).Val())
			left, least, most := server.admin.PTTL(t.Context(), name).Val(), 9*time.Minute, 10*time.Minute
			switch {
			case row.want == "" && row.from == "": // as it was
				least, most = 0, time.Minute
			case row.want == "": // a mark
				most += patience + time.Millisecond
			}
			assert.Greater(t, left, least)
			assert.LessOrEqual(t, left, most)
		})
	}
}

// What Redis has compiled may be gone at any time.
func TestPin_ScriptIsSentAgain(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := newStore(t, server, redis.Config{})
	for i := range 3 {
		pin(t, store, fmt.Sprint(i), "", "a", "a")
		pin(t, store, fmt.Sprint(i), "", "b", "a")
		require.NoError(t, server.admin.ScriptFlush(t.Context()).Err())
	}
	assert.Equal(t, 3, server.calls(t)["eval"])
}

func TestLookup_IsNoWrite(t *testing.T) {
	server := startRedis(t)
	store := newStore(t, server, redis.Config{TTL: time.Hour})
	pin(t, store, "key", "", "a", "a")
	name := server.onlyKey(t, prefix)
	for _, row := range []struct {
		left    time.Duration
		extends int
	}{
		{59 * time.Minute, 0},
		{46 * time.Minute, 0},
		{44 * time.Minute, 1},
		{time.Minute, 1},
		{2 * time.Hour, 1}, // somebody has made TTL shorter
		{-1, 1},            // or has set the key by hand
	} {
		t.Run(fmt.Sprint(row.left), func(t *testing.T) {
			if row.left > 0 {
				require.NoError(t, server.admin.PExpire(t.Context(), name, row.left).Err())
			} else {
				require.NoError(t, server.admin.Persist(t.Context(), name).Err())
			}
			require.NoError(t, server.admin.ScriptFlush(t.Context()).Err())
			require.NoError(t, server.admin.ConfigResetStat(t.Context()).Err())
			const lookups = 100
			for range lookups {
				lookup(t, store, "key", "a")
			}
			calls := server.calls(t)
			assert.Equal(t, lookups+row.extends, calls["get"]) // the script has one, too
			assert.Equal(t, lookups, calls["pttl"])
			assert.Equal(t, row.extends, calls["pexpire"])
			assert.Equal(t, row.extends, calls["evalsha"])
			assert.Equal(t, row.extends, calls["eval"]) // the script was flushed
			assert.Zero(t, calls["set"]+calls["expire"])
			left := server.admin.PTTL(t.Context(), name).Val()
			assert.Greater(t, left, 45*time.Minute)
			assert.LessOrEqual(t, left, time.Hour)
		})
	}
}

// A session lives on as long as it is used, and no longer.
func TestLookup_SlidesInRealTime(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	const ttl = 2 * time.Second
	used, unused := newStore(t, server, redis.Config{TTL: ttl}), newStore(t, server, redis.Config{TTL: ttl})
	pin(t, used, "used", "", "a", "a")
	pin(t, unused, "unused", "", "b", "b")
	pinned := time.Now()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	last := time.Now()
	for range ticks.C {
		got, err := used.Lookup(t.Context(), "used")
		require.NoError(t, err)
		if now := time.Now(); now.Sub(last) < ttl/2 { // otherwise the machine was elsewhere
			require.Equal(t, "a", got)
			last = now
		} else {
			t.Skipf("nothing happened for %v", now.Sub(last))
		}
		if time.Since(pinned) > 3*ttl/2 {
			break
		}
	}
	calls := server.calls(t)
	assert.Greater(t, calls["get"], 10*calls["pexpire"])
	assert.LessOrEqual(t, calls["pexpire"], 6) // once in a quarter of ttl
	assert.Equal(t, 2, calls["set"], "it was never lost and restored")
	lookup(t, unused, "unused", "")
	eventually(t, func() bool { return server.admin.DBSize(t.Context()).Val() == 0 }, "it lives on")
}

func TestKeys_LongBinaryAndSecret(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store, other := newStore(t, server, redis.Config{}), newStore(t, server, redis.Config{Prefix: "other:"})
	long := strings.Repeat("secret\x00\xff\r\n", 1<<20/10)
	keys := []string{long, long + "2", "secret", "secret 2", "sécret*", "\r\nsecret", "{secret}"}
	for i, key := range keys {
		endpoint := fmt.Sprint(i)
		pin(t, store, key, "", endpoint, endpoint)
		lookup(t, other, key, "")
	}
	for i, key := range keys {
		lookup(t, store, key, fmt.Sprint(i))
	}
	names, err := server.admin.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	assert.Len(t, names, len(keys))
	for _, name := range names {
		assert.Regexp(t, "^"+prefix+"[A-Za-z0-9_-]{43}$", name)
		assert.NotContains(t, name, "secret")
	}
}

func TestErrors_ShowNoSecrets(t *testing.T) {
	t.Parallel()
	server := startRedis(t, "--requirepass", "opensesame", "--rename-command", "EVALSHA", "")
	const user, wrong = "somebody", "hunter2"
	for _, row := range []struct{ name, user, password, pings, pins string }{
		{"wrong", "", wrong, "WRONGPASS", "WRONGPASS"},
		{"wrong user", user, wrong, "WRONGPASS", "WRONGPASS"},
		// Of a command that it does not know, it repeats what came with it.
		{"none", "", "", "NOAUTH", "ERR unknown command ..."},
		{"right", "", "opensesame", "", "ERR unknown command ..."},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, server, redis.Config{
				Options: goredis.UniversalOptions{Username: row.user, Password: row.password},
				Breaker: breaker.Config{Mode: breaker.Disabled},
			})
			check := func(err error, want string) {
				if want == "" {
					assert.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, want)
				for _, secret := range []string{"opensesame", user, wrong, "the key", "the endpoint", prefix} {
					assert.NotContains(t, err.Error(), secret)
				}
			}
			check(store.Ping(t.Context()), row.pings)
			_, err := store.Lookup(t.Context(), "the key")
			check(err, row.pings)
			_, err = store.Pin(t.Context(), "the key", "", "the endpoint")
			check(err, row.pins)
		})
	}
}

func TestOtherWaysToConnect(t *testing.T) {
	t.Parallel()
	server := startRedis(t, "--cluster-enabled", "yes")
	require.NoError(t, server.admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	eventually(t, func() bool {
		return strings.Contains(server.admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	}, "the cluster of one does not get ready")
	for name, options := range map[string]goredis.UniversalOptions{
		"socket":  {Addrs: []string{server.socket}},
		"cluster": {Addrs: []string{server.Address}, IsClusterMode: true},
		"RESP2":   {Protocol: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, server, redis.Config{Options: options, Prefix: name})
			require.NoError(t, store.Ping(t.Context()))
			lookup(t, store, "key", "")
			pin(t, store, "key", "", "a", "a")
			pin(t, store, "key", "a", "b", "b")
			lookup(t, store, "key", "b")

			// To extend it takes a script as well.
			key := server.onlyKey(t, name)
			require.NoError(t, server.admin.PExpire(t.Context(), key, time.Minute).Err())
			lookup(t, store, "key", "b")
			assert.Greater(t, server.admin.PTTL(t.Context(), key).Val(), 9*time.Minute)
		})
	}
}

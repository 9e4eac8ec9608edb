//go:build unix

package session_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// replica is one of a service that calls another one.
type replica struct {
	client            *http.Client
	failed, recovered atomic.Int64 // events about the store
}

func newReplica(t *testing.T, server *redisServer, endpoints discovery.Static) *replica {
	t.Helper()
	store := newStore(t, server, redis.Config{
		// Enough on a busy machine, and less than the transport waits.
		Timeout: 5 * time.Second,
		Breaker: breaker.Config{OpenFor: 10 * time.Millisecond, MaxOpenFor: 10 * time.Millisecond},
	})
	r := &replica{}
	transport, err := evenkeel.New("http://carts.internal",
		evenkeel.WithResolver(endpoints),
		evenkeel.WithSession(session.Policy{By: session.Key{Store: store}, StoreTimeout: 10 * time.Second}),
		evenkeel.WithHooks(evenkeel.Hooks{Session: func(e session.Event) {
			switch e.Kind {
			case session.StoreFailed:
				r.failed.Add(1)
			case session.StoreRecovered:
				r.recovered.Add(1)
			default:
				t.Errorf("%v: %+v", e.Kind, e)
			}
		}}),
	)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, transport.Close()) })
	r.client = &http.Client{Transport: transport}
	return r
}

// get returns which server has answered a request of a session.
func (r *replica) get(t *testing.T, key string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(session.WithKey(t.Context(), key), http.MethodGet, "http://carts.internal/", nil)
	require.NoError(t, err)
	resp, err := r.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// Replicas send each session to the same server, also while Redis is away and after it has lost all.
func TestReplicas(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	var endpoints discovery.Static
	for range 3 {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Context().Value(http.LocalAddrContextKey).(interface{ String() string }).String())
		}))
		t.Cleanup(backend.Close)
		endpoints = append(endpoints, strings.TrimPrefix(backend.URL, "http://"))
	}
	replicas := []*replica{newReplica(t, server, endpoints), newReplica(t, server, endpoints)}
	keys := keysOf(30)
	homes := map[string]string{}
	used := map[string]bool{}
	for i, key := range keys {
		homes[key] = replicas[i%2].get(t, key)
		used[homes[key]] = true
	}
	assert.Len(t, used, 3, "it is not for want of choice")
	stay := func() {
		t.Helper()
		for _, r := range replicas {
			for _, key := range keys {
				assert.Equal(t, homes[key], r.get(t, key))
			}
		}
	}
	stay()
	for _, r := range replicas {
		assert.Zero(t, r.failed.Load())
	}

	server.Stop(t, syscall.SIGKILL)
	stay()
	for _, r := range replicas {
		assert.EqualValues(t, 1, r.failed.Load(), "it is told once")
		assert.Zero(t, r.recovered.Load())
	}

	server.Start(t)
	for _, r := range replicas {
		eventually(t, func() bool { r.get(t, keys[0]); return r.recovered.Load() > 0 }, "it does not recover")
	}
	eventually(t, func() bool {
		stay()
		return server.admin.DBSize(t.Context()).Val() == int64(len(keys))
	}, "not all is restored")
	third := newReplica(t, server, endpoints)
	for _, key := range keys {
		assert.Equal(t, homes[key], third.get(t, key))
	}
}

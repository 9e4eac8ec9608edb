//go:build unix

package health_test

import (
	"context"
	"net/http"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
)

// startRedis starts a server that keeps nothing on disk.
func startRedis(t *testing.T) (*server, *site) {
	t.Helper()
	program := requireProgram(t, "redis-server", "redis-server")
	s := newServer(t, nil)
	s.command = []string{program, "--bind", "127.0.0.1", "--port", s.port(), "--save", "", "--appendonly", "no"}
	s.start(t)

	// By itself, the client dials again and again until the check is out of time.
	client := redis.NewClient(&redis.Options{Addr: s.address, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	site := startSite(t, "redis", func(ctx context.Context) error { return client.Ping(ctx).Err() })
	site.await(t, http.StatusOK)
	return s, site
}

func TestRedisStopsAndStarts(t *testing.T) {
	t.Parallel()
	s, site := startRedis(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.stop(t, signal)
		site.assertDown(t)
		s.start(t)
		site.await(t, http.StatusOK)
	}
}

// By default, go-redis does not end a call when its context does: the check hangs, and the
// handler answers all the same.
func TestRedisFreezes(t *testing.T) {
	t.Parallel()
	s, site := startRedis(t)
	thaw := s.freeze(t, s.pid(t))
	site.assertTimesOut(t)
	for range 20 { // nobody waits for a second timeout
		status, c, took := site.get(t, "/health/ready")
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.Equal(t, "timeout", c.Error)
		assert.Less(t, took, checkTimeout)
	}
	thaw()
	site.await(t, http.StatusOK)
}

//go:build unix

package health_test

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

// startRedis starts a server that keeps nothing on disk.
func startRedis(t *testing.T) (*server.Server, *site) {
	t.Helper()
	program := server.Program(t, "redis-server", "redis-server")
	s := server.New(t, "redis-server", 20000)
	s.Command = []string{program, "--bind", "127.0.0.1", "--port", s.Port(), "--save", "", "--appendonly", "no"}
	s.Start(t)

	// By itself, the client dials again and again until the check is out of time.
	client := redis.NewClient(&redis.Options{Addr: s.Address, ReadTimeout: time.Minute, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	site := startSite(t, "redis", func(ctx context.Context) error { return client.Ping(ctx).Err() })
	site.await(t, http.StatusOK)
	return s, site
}

func TestRedisStopsAndStarts(t *testing.T) {
	t.Parallel()
	s, site := startRedis(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		s.Stop(t, signal)
		site.assertDown(t)
		s.Start(t)
		site.await(t, http.StatusOK)
	}
}

// By default, go-redis does not end a call when its context does: the check hangs, and the
// handler answers all the same.
func TestRedisFreezes(t *testing.T) {
	t.Parallel()
	s, site := startRedis(t)
	thaw := s.Freeze(t)
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

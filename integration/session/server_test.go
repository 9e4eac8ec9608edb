//go:build unix

package session_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

const patience = server.Patience

// redisServer is a Redis that keeps nothing on disk.
type redisServer struct {
	*server.Server
	socket string
	admin  *redis.Client // waits for as long as it takes
}

// startRedis starts a server that ends with the test.
func startRedis(tb testing.TB, args ...string) *redisServer {
	tb.Helper()
	program := server.Program(tb, "redis-server", "redis-server")
	s := &redisServer{Server: server.New(tb, "redis-server", 10000)} // one of a cluster also takes that 10000 above
	s.socket = filepath.Join(s.Dir, "redis.sock")
	s.Command = append([]string{
		program, "--bind", "127.0.0.1", "--port", s.Port(), "--unixsocket", s.socket, "--save", "", "--appendonly", "no",
	}, args...)
	s.Start(tb)

	s.admin = redis.NewClient(&redis.Options{Addr: s.Address, ReadTimeout: patience, MaxRetries: 10})
	tb.Cleanup(func() { assert.NoError(tb, s.admin.Close()) })
	return s
}

// calls returns how often the server has carried out each command, by its name in lower case.
func (s *redisServer) calls(tb testing.TB) map[string]int {
	tb.Helper()
	text, err := s.admin.Info(tb.Context(), "commandstats").Result()
	require.NoError(tb, err)
	calls := map[string]int{}
	for line := range strings.Lines(text) {
		name, stats, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(stats, ",")
		calls[name], err = strconv.Atoi(number)
		require.NoError(tb, err)
	}
	return calls
}

func eventually(tb testing.TB, condition func() bool, format string, args ...any) {
	tb.Helper()
	server.Eventually(tb, patience, condition, format, args...)
}

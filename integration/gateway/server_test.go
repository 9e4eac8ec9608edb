//go:build unix

package gateway_test

import (
	"testing"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

const patience = server.Patience

// startServer starts a server of the example that runs until the test ends.
func startServer(t *testing.T, name, program string, env []string, args ...string) *server.Server {
	t.Helper()
	s := server.New(t, name, 20000)
	s.Command = append([]string{program, "-listen", s.Address}, args...)
	s.Env = env
	s.Start(t)
	return s
}

func eventually(t *testing.T, condition func() bool, format string, args ...any) {
	t.Helper()
	server.Eventually(t, patience, condition, format, args...)
}

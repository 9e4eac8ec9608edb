//go:build unix

package health_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

const patience = server.Patience

// requirePostgres returns the path of a program of PostgreSQL. Debian has a directory for each
// version of it.
func requirePostgres(t *testing.T, name string) string {
	t.Helper()
	paths, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	require.NoError(t, err)
	return server.Program(t, "postgresql", append([]string{name}, paths...)...)
}

// makeUnprivileged gives a server that root must not be to another user. It does nothing if the
// test is not root either.
func makeUnprivileged(t *testing.T, s *server.Server) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	require.NoError(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(t, err)
	s.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	require.NoError(t, os.Chown(s.Dir, int(uid), int(gid)))
}

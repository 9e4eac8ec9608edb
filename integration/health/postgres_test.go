//go:build unix

package health_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

// startPostgres starts a server with a new, empty database. It trusts everybody, and has no
// socket but the one on loopback.
func startPostgres(t *testing.T) (*server.Server, *site, *sql.DB) {
	t.Helper()
	initdb := requirePostgres(t, "initdb")
	program := requirePostgres(t, "postgres")
	s := server.New(t, "postgres", 20000)
	makeUnprivileged(t, s)
	data := filepath.Join(s.Dir, "data")
	out, err := s.Process(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	require.NoError(t, err, string(out))
	s.Command = []string{
		program, "-D", data, "-p", s.Port(), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off",
	}
	s.Start(t)

	db, err := sql.Open("pgx", fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", s.Address))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	site := startSite(t, "postgres", health.Ping(db))
	site.await(t, http.StatusOK)
	return s, site, db
}

func TestPostgresStopsAndStarts(t *testing.T) {
	t.Parallel()
	s, site, _ := startPostgres(t)
	for range 2 {
		s.Stop(t, syscall.SIGINT) // it waits for no session
		site.assertDown(t)
		s.Start(t)
		site.await(t, http.StatusOK)
	}
}

// A frozen server accepts connections and says nothing: only time tells.
func TestPostgresFreezes(t *testing.T) {
	t.Parallel()
	s, site, db := startPostgres(t)
	for range 2 {
		thaw := s.Freeze(t, processes(t, db)...)
		site.assertTimesOut(t)
		site.assertTimesOut(t) // also on a new connection
		thaw()
		site.await(t, http.StatusOK)
	}
}

// processes returns those that serve connections: the server has one for each.
func processes(t *testing.T, db *sql.DB) (pids []int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var pid int
		require.NoError(t, rows.Scan(&pid))
		pids = append(pids, pid)
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, pids)
	return pids
}

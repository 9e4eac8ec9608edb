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
)

// startPostgres starts a server with a new, empty database. It trusts everybody, and has no
// socket but the one on loopback.
func startPostgres(t *testing.T) (*server, *site, *sql.DB) {
	t.Helper()
	initdb := requireProgram(t, "initdb", "postgresql")
	program := requireProgram(t, "postgres", "postgresql")
	s := newServer(t, unprivileged(t))
	data := filepath.Join(s.dir, "data")
	out, err := s.process(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	require.NoError(t, err, string(out))
	s.command = []string{
		program, "-D", data, "-p", s.port(), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off",
	}
	s.start(t)

	db, err := sql.Open("pgx", fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", s.address))
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
		s.stop(t, syscall.SIGINT) // it waits for no session
		site.assertDown(t)
		s.start(t)
		site.await(t, http.StatusOK)
	}
}

// A frozen server accepts connections and says nothing: only time tells.
func TestPostgresFreezes(t *testing.T) {
	t.Parallel()
	s, site, db := startPostgres(t)
	for range 2 {
		thaw := s.freeze(t, append(processes(t, db), s.pid(t))...)
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

//go:build unix

package session_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const patience = 30 * time.Second

// server is a Redis that keeps nothing on disk, with a port on loopback and a directory of its own.
type server struct {
	address string
	socket  string
	command []string
	dir     string
	admin   *redis.Client // waits for as long as it takes

	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
}

// startRedis starts a server that ends with the test. Without the program, the test is skipped, or
// fails where nothing may be skipped.
func startRedis(tb testing.TB, args ...string) *server {
	tb.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		const missing = "redis-server is not installed: apt-get install redis-server"
		if os.Getenv("EVENKEEL_REQUIRE_SERVERS") == "1" {
			tb.Fatal(missing)
		}
		tb.Skip(missing)
	}
	dir, err := os.MkdirTemp("", "evenkeel-session-") //nolint:usetesting // the path of a socket must be short
	require.NoError(tb, err)
	s := &server{dir: dir, address: freeAddress(tb), socket: filepath.Join(dir, "redis.sock")}
	_, port, err := net.SplitHostPort(s.address)
	require.NoError(tb, err)
	s.command = append([]string{
		program, "--bind", "127.0.0.1", "--port", port, "--unixsocket", s.socket, "--save", "", "--appendonly", "no",
	}, args...)
	tb.Cleanup(func() {
		s.end()
		if tb.Failed() {
			tb.Logf("redis-server at %s: %s", s.address, s.stderr.String())
		}
		require.NoError(tb, os.RemoveAll(dir))
	})
	s.start(tb)

	s.admin = redis.NewClient(&redis.Options{Addr: s.address, ReadTimeout: patience, MaxRetries: 10})
	tb.Cleanup(func() { assert.NoError(tb, s.admin.Close()) })
	return s
}

// freeAddress returns an address that nobody listens at, with a port below those that the
// system gives to outgoing connections: one of these could otherwise take the port of a server
// while it is stopped.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(10000)) // those of integration/health are higher
		listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", address)
		if err == nil {
			require.NoError(tb, listener.Close())
			return address
		}
	}
	require.Fail(tb, "no free port")
	return ""
}

// start starts the server, the first time or after stop, and waits until it listens. It is in a
// process group with a shell that ends it when the standard input of the shell ends: nothing stays
// behind even if the test itself is killed, also not what it has frozen.
func (s *server) start(tb testing.TB) {
	tb.Helper()
	const shell = `"$@" & echo $! >server.pid; read -r _; kill -KILL $(cat server.pid) 2>/dev/null; kill -KILL 0`
	s.cmd = exec.CommandContext(context.Background(), "sh", append([]string{"-c", shell, "sh"}, s.command...)...)
	s.cmd.Dir = s.dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stdout, s.cmd.Stderr = &s.stderr, &s.stderr
	s.cmd.WaitDelay = time.Second // the server may hold these
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	require.NoError(tb, err)
	require.NoError(tb, s.cmd.Start())
	eventually(tb, s.listens, "nobody listens at %s", s.address)
}

// stop ends the server, and waits until it does not listen any more.
func (s *server) stop(tb testing.TB, signal syscall.Signal) {
	tb.Helper()
	s.signal(tb, signal)
	eventually(tb, func() bool { return !s.listens() }, "the server at %s does not end", s.address)
	s.end()
}

// end leaves no process behind.
func (s *server) end() {
	if s.cmd == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.stdin.Close()
	_ = s.cmd.Wait() // it says that the shell was killed
}

func (s *server) signal(tb testing.TB, signal syscall.Signal) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "server.pid"))
	require.NoError(tb, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(tb, err)
	require.NoError(tb, syscall.Kill(pid, signal))
}

func (s *server) listens() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// calls returns how often the server has carried out each command, by its name in lower case.
func (s *server) calls(tb testing.TB) map[string]int {
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
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			require.Failf(tb, "waited in vain", format, args...)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

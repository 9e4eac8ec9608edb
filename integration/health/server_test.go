//go:build unix

package health_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const patience = 30 * time.Second

// server is a process, and those that it starts, with a port on loopback and a directory of
// its own.
type server struct {
	address    string
	dir        string
	command    []string
	credential *syscall.Credential // nil for the test's own

	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
}

// newServer returns a server that ends with the test, and is not started yet.
func newServer(t *testing.T, credential *syscall.Credential) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "evenkeel-health-") //nolint:usetesting // only the user of the test gets into t.TempDir
	require.NoError(t, err)
	if credential != nil {
		require.NoError(t, os.Chown(dir, int(credential.Uid), int(credential.Gid)))
	}
	s := &server{address: freeAddress(t), dir: dir, credential: credential}
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Logf("%s at %s: %s", filepath.Base(s.command[0]), s.address, s.stderr.String())
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return s
}

// requireProgram returns the path of a program. Without it, the test is skipped, or fails
// where nothing may be skipped.
func requireProgram(t *testing.T, name, debian string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	// Debian has a directory for each version of PostgreSQL.
	if paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(paths) > 0 {
		return paths[0]
	}
	missing := fmt.Sprintf("%s is not installed: apt-get install %s", name, debian)
	if os.Getenv("EVENKEEL_REQUIRE_SERVERS") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// unprivileged returns who a server is that root must not be: nil if the test is not root
// either.
func unprivileged(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
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
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// freeAddress returns an address that nobody listens at, with a port below those that the
// system gives to outgoing connections: one of these could otherwise take the port of a server
// while it is stopped.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err == nil {
			require.NoError(t, listener.Close())
			return address
		}
	}
	require.Fail(t, "no free port")
	return ""
}

func (s *server) port() string { return s.address[strings.LastIndex(s.address, ":")+1:] }

// process prepares to run a program as who the server is, in its directory.
func (s *server) process(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.credential}
	return cmd
}

// start starts the server, the first time or after stop, and waits until it listens. It is in
// a process group with a shell that ends it when the standard input of the shell ends: nothing
// stays behind even if the test itself is killed, also not what it has frozen.
func (s *server) start(t *testing.T) {
	t.Helper()
	const shell = `"$@" & echo $! >server.pid; read -r _; kill -CONT $(cat frozen 2>/dev/null) 2>/dev/null; kill -KILL 0`
	s.cmd = s.process("sh", append([]string{"-c", shell, "sh"}, s.command...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.stderr, &s.stderr
	s.cmd.WaitDelay = time.Second // what it has started may hold these
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	eventually(t, s.listens, "nobody listens at %s", s.address)
}

// stop ends the server by a signal that means so to it, and waits until it does not listen any
// more, which is the last thing that it does.
func (s *server) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(s.pid(t), signal))
	eventually(t, func() bool { return !s.listens() }, "the server at %s does not end", s.address)
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

// freeze stops processes where they are, as a machine that swaps or a debugger does: the
// kernel goes on accepting connections for them. The func that it returns lets them go on.
func (s *server) freeze(t *testing.T, pids ...int) (thaw func()) {
	t.Helper()
	list := strings.Trim(fmt.Sprint(pids), "[]")
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "frozen"), []byte(list), 0o644))
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			require.NoError(t, syscall.Kill(pid, sig))
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// pid returns the process that was started.
func (s *server) pid(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "server.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	return pid
}

func (s *server) listens() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func eventually(t *testing.T, condition func() bool, format string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			require.Failf(t, "waited in vain", format, args...)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

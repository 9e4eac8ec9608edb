//go:build unix

package server

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

	"github.com/stretchr/testify/require"
)

// Patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const Patience = 30 * time.Second

// Server is a process, and those that it starts, with a port on loopback and a directory of its
// own. It belongs to the goroutine of its test.
type Server struct {
	Address    string
	Dir        string              // where it runs; its path is short enough for one of a socket
	Command    []string            // the program and its arguments, to be set before Start
	Env        []string            // beside the test's own
	Credential *syscall.Credential // who it is, nil for who the test is

	cmd    *exec.Cmd
	stdin  io.Closer
	output bytes.Buffer
}

// Program returns the path of a program, by the first of its names that there is. Without it, the
// test is skipped, or fails where nothing may be skipped.
func Program(tb testing.TB, debian string, names ...string) string {
	tb.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing := fmt.Sprintf("%s is not installed: apt-get install %s", names[0], debian)
	if os.Getenv("EVENKEEL_REQUIRE_SERVERS") == "1" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}

// New returns a server that ends with the test, and is not started yet. If the test fails, it says
// under this name what the server has said. The port is one of the 10000 from the first on, which is
// 10000 or 20000: packages are tested at the same time.
func New(tb testing.TB, name string, first int) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "evenkeel-") //nolint:usetesting // that of the test has a long path, and is for its own user
	require.NoError(tb, err)
	s := &Server{Address: freeAddress(tb, first), Dir: dir}
	tb.Cleanup(func() {
		s.End()
		if tb.Failed() {
			tb.Logf("%s at %s: %s", name, s.Address, s.output.String())
		}
		require.NoError(tb, os.RemoveAll(dir))
	})
	return s
}

// freeAddress returns an address that nobody listens at, with a port below those that the
// system gives to outgoing connections: one of these could otherwise take the port of a server
// while it is stopped.
func freeAddress(tb testing.TB, first int) string {
	tb.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(10000))
		listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", address)
		if err == nil {
			require.NoError(tb, listener.Close())
			return address
		}
	}
	require.Fail(tb, "no free port")
	return ""
}

// Port returns that of the address.
func (s *Server) Port() string { return s.Address[strings.LastIndex(s.Address, ":")+1:] }

// Process prepares to run a program as who the server is, in its directory.
func (s *Server) Process(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir = s.Dir
	cmd.Env = append(cmd.Environ(), s.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.Credential}
	return cmd
}

// Start starts the server, the first time or after it has ended, and waits until it listens. It is
// in a process group with a shell that ends it when the standard input of the shell ends: nothing
// stays behind even if the test itself is killed, also not what it has frozen: the system then sends
// SIGHUP to the group, which the shell must survive.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	const shell = `trap '' HUP; "$@" & echo $! >server.pid; read -r _; kill -CONT $(cat frozen 2>/dev/null) 2>/dev/null; kill -KILL 0`
	s.cmd = s.Process("sh", append([]string{"-c", shell, "sh"}, s.Command...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.WaitDelay = time.Second // what it has started may hold these
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	require.NoError(tb, err)
	require.NoError(tb, s.cmd.Start())
	Eventually(tb, Patience, s.listens, "nobody listens at %s", s.Address)
}

// Stop ends the server by a signal that means so to it, and waits until it does not listen any
// more, which is the last thing that it does.
func (s *Server) Stop(tb testing.TB, signal syscall.Signal) {
	tb.Helper()
	require.NoError(tb, syscall.Kill(s.pid(tb), signal))
	s.awaitGone(tb)
	s.End()
}

// Kill ends the server and all of its group at once, as a crash of the machine does, but that their
// connections are closed.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.End()
	s.awaitGone(tb)
}

// End leaves no process behind. It may be called again, and for a server that was never started.
func (s *Server) End() {
	if s.cmd == nil || s.cmd.Process == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-s.Group(), syscall.SIGCONT) // the shell may be frozen, too
	_ = s.stdin.Close()
	_ = s.cmd.Wait() // it says that the shell was killed
}

// Freeze stops the server where it is, and others that it has started, as a machine that swaps or a
// debugger does: the kernel goes on accepting connections for them. The func that it returns lets
// them go on.
func (s *Server) Freeze(tb testing.TB, others ...int) (thaw func()) {
	tb.Helper()
	pids := append(others, s.pid(tb))
	list := strings.Trim(fmt.Sprint(pids), "[]")
	require.NoError(tb, os.WriteFile(filepath.Join(s.Dir, "frozen"), []byte(list), 0o644))
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			require.NoError(tb, syscall.Kill(pid, sig))
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// Group returns the process group of a server that runs, which the shell is in as well.
func (s *Server) Group() int { return s.cmd.Process.Pid }

// pid returns the process that was started.
func (s *Server) pid(tb testing.TB) int {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "server.pid"))
	require.NoError(tb, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(tb, err)
	return pid
}

func (s *Server) listens() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.Address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func (s *Server) awaitGone(tb testing.TB) {
	tb.Helper()
	Eventually(tb, Patience, func() bool { return !s.listens() }, "the server at %s does not end", s.Address)
}

// Eventually waits until a condition holds, and fails the test if it does not for so long.
func Eventually(tb testing.TB, patience time.Duration, condition func() bool, format string, args ...any) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			require.Failf(tb, "waited in vain", format, args...)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

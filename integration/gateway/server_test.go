//go:build unix

package gateway_test

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

// patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const patience = 30 * time.Second

// server is a process with a port on loopback and a directory of its own.
type server struct {
	name    string
	address string
	dir     string
	command []string
	env     []string

	cmd   *exec.Cmd
	stdin io.Closer
	out   bytes.Buffer
}

// newServer returns a server that runs until the test ends.
func newServer(t *testing.T, name, program string, env []string, args ...string) *server {
	t.Helper()
	s := &server{name: name, address: freeAddress(t), dir: t.TempDir(), env: env}
	s.command = append([]string{program, "-listen", s.address}, args...)
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Logf("%s at %s: %s", name, s.address, s.out.String())
		}
	})
	s.start(t)
	return s
}

// freeAddress returns an address that nobody listens at, with a port below those that the
// system gives to outgoing connections: one of these could otherwise take the port of a server
// while it is gone.
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

// start starts the server, the first time or after kill, and waits until it listens. It is in a
// process group with a shell that ends it when the standard input of the shell ends: nothing stays
// behind even if the test itself is killed.
func (s *server) start(t *testing.T) {
	t.Helper()
	const shell = `"$@" & echo $! >server.pid; read -r _; kill -KILL 0`
	s.cmd = exec.CommandContext(context.Background(), "sh", append([]string{"-c", shell, "sh"}, s.command...)...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.WaitDelay = time.Second // what it has started may hold these
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	eventually(t, s.listens, "nobody listens at %s", s.address)
}

// kill ends the server as a crash does, and waits until it is gone.
func (s *server) kill(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "server.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return !s.listens() }, "the server at %s does not end", s.address)
	s.end()
}

// end leaves no process behind.
func (s *server) end() {
	if s.cmd == nil || s.cmd.Process == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.stdin.Close()
	_ = s.cmd.Wait() // it says that the shell was killed
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

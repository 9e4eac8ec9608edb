//go:build unix

package nginx_test

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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that takes milliseconds on a machine
// with nothing else to do.
const patience = 10 * time.Second

// server is an nginx with one virtual server on a loopback port: a master process
// and a worker, in a directory of their own.
type server struct {
	address string
	dir     string
	cmd     *exec.Cmd
	stdin   io.Closer
	stderr  bytes.Buffer
}

// settings are what differs between the servers of these tests.
type settings struct {
	Location    string       // what is in "location / {}"
	Certificate *certificate // nil for plain HTTP/1.1, else TLS with HTTP/2
}

// config is written so that nothing outside of the server's directory is touched.
// Without a buffer, a line of the access log is written when its call ends.
const config = `
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {}
http {
	log_format calls '$request_method $http_x_request_id $status $server_protocol $ssl_server_name $host $pid';
	access_log access.log calls;
	client_body_temp_path tmp;
	proxy_temp_path tmp;
	fastcgi_temp_path tmp;
	scgi_temp_path tmp;
	uwsgi_temp_path tmp;
	add_header X-Server $server_addr:$server_port always;
	server {
		listen %s;
		%s
		location / { %s }
	}
}
`

// startServer starts a server that ends with the test. Without nginx, the test is
// skipped.
func startServer(t *testing.T, s settings) *server {
	t.Helper()
	requireNginx(t)
	n := &server{address: freeAddress(t), dir: t.TempDir()}
	listen, tls := n.address, ""
	if c := s.Certificate; c != nil {
		listen += " ssl http2"
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", c.certFile, c.keyFile)
	}
	text := fmt.Sprintf(config, listen, tls, s.Location)
	require.NoError(t, os.WriteFile(n.path("nginx.conf"), []byte(text), 0o600))
	t.Cleanup(func() {
		n.killGroup()
		if t.Failed() {
			text, _ := os.ReadFile(n.path("error.log"))
			t.Logf("nginx at %s: %s%s", n.address, n.stderr.String(), text)
		}
	})
	n.start(t)
	return n
}

// requireNginx skips the test if there is no nginx, or fails it where nothing may
// be skipped.
func requireNginx(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err == nil {
		return
	}
	const missing = "nginx is not installed: apt-get install nginx"
	if os.Getenv("EVENKEEL_REQUIRE_SERVERS") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// freeAddress returns an address that nobody listens at, with a port below those
// that the system gives to outgoing connections: one of these could otherwise take
// the port of a server between its death and its restart.
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

func (n *server) path(name string) string { return filepath.Join(n.dir, name) }

// start starts the processes, the first time or after kill or quit, and waits
// until they accept connections. They are a process group together with a shell
// that ends them all when its standard input ends: nothing stays behind even if
// the test itself is killed.
func (n *server) start(t *testing.T) {
	t.Helper()
	n.cmd = exec.CommandContext(context.Background(), "sh", "-c",
		`nginx -p "$0" -c nginx.conf & read -r _; kill -KILL 0`, n.dir)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	n.cmd.Stderr = &n.stderr
	var err error
	n.stdin, err = n.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, n.cmd.Start())
	eventually(t, n.listens, "nginx does not listen at %s", n.address)
}

// kill ends master and worker as a crash of the machine does, but that their
// connections are closed.
func (n *server) kill(t *testing.T) {
	t.Helper()
	n.killGroup()
	eventually(t, func() bool { return !n.listens() }, "nginx still listens at %s", n.address)
}

func (n *server) killGroup() {
	if n.cmd == nil || n.cmd.Process == nil || n.cmd.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
	_ = n.cmd.Wait() // it says that the shell was killed
}

// quit ends the server gracefully and waits for it: calls under way are finished,
// connections of HTTP/2 get a GOAWAY.
func (n *server) quit(t *testing.T) {
	t.Helper()
	n.signal(t, "quit")
	eventually(t, func() bool {
		_, err := os.Stat(n.path("nginx.pid")) // the master removes it when all workers have ended
		return os.IsNotExist(err)
	}, "nginx at %s does not end", n.address)
	n.killGroup() // the shell
}

// reload starts a new worker; the old one ends gracefully.
func (n *server) reload(t *testing.T) {
	t.Helper()
	n.signal(t, "reload")
}

func (n *server) signal(t *testing.T, name string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nginx", "-p", n.dir, "-c", "nginx.conf", "-s", name).CombinedOutput()
	require.NoError(t, err, string(out))
}

func (n *server) listens() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", n.address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// entry is a line of an access log.
type entry struct {
	method, id, status, protocol, serverName, host, worker string
}

// log returns the access log. The line of a call is written after its answer, so
// only that of a server which has quit is complete.
func (n *server) log(t *testing.T) []entry {
	t.Helper()
	text, err := os.ReadFile(n.path("access.log"))
	require.NoError(t, err)
	var entries []entry
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		require.Len(t, f, 7, "a line of the access log: %q", line)
		entries = append(entries, entry{f[0], f[1], f[2], f[3], f[4], f[5], f[6]})
	}
	return entries
}

// workers returns how many different processes have served calls.
func (n *server) workers(t *testing.T) int {
	t.Helper()
	workers := map[string]bool{}
	for _, e := range n.log(t) {
		workers[e.worker] = true
	}
	return len(workers)
}

func eventually(t *testing.T, condition func() bool, format string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			require.Failf(t, "waited in vain", format, args...)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

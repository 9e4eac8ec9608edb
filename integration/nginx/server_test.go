//go:build unix

package nginx_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

// patience bounds every wait for something that takes milliseconds on a machine
// with nothing else to do.
const patience = 10 * time.Second

// nginx is a master process and a worker, with one virtual server on a loopback port.
type nginx struct{ *server.Server }

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
error_log stderr;
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
func startServer(t *testing.T, s settings) *nginx {
	t.Helper()
	program := server.Program(t, "nginx", "nginx")
	n := &nginx{server.New(t, "nginx", 20000)}
	n.Command = []string{program, "-p", n.Dir, "-c", "nginx.conf"}
	listen, tls := n.Address, ""
	if c := s.Certificate; c != nil {
		listen += " ssl http2"
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", c.certFile, c.keyFile)
	}
	text := fmt.Sprintf(config, listen, tls, s.Location)
	require.NoError(t, os.WriteFile(n.path("nginx.conf"), []byte(text), 0o600))
	n.Start(t)
	return n
}

func (n *nginx) path(name string) string { return filepath.Join(n.Dir, name) }

// quit ends the server gracefully and waits for it: calls under way are finished,
// connections of HTTP/2 get a GOAWAY.
func (n *nginx) quit(t *testing.T) {
	t.Helper()
	n.signal(t, "quit")
	eventually(t, func() bool {
		_, err := os.Stat(n.path("nginx.pid")) // the master removes it when all workers have ended
		return os.IsNotExist(err)
	}, "nginx at %s does not end", n.Address)
	n.End() // the shell
}

// reload starts a new worker; the old one ends gracefully.
func (n *nginx) reload(t *testing.T) {
	t.Helper()
	n.signal(t, "reload")
}

func (n *nginx) signal(t *testing.T, name string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nginx", "-p", n.Dir, "-c", "nginx.conf", "-s", name).CombinedOutput()
	require.NoError(t, err, string(out))
}

// entry is a line of an access log.
type entry struct {
	method, id, status, protocol, serverName, host, worker string
}

// log returns the access log. The line of a call is written after its answer, so
// only that of a server which has quit is complete.
func (n *nginx) log(t *testing.T) []entry {
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
func (n *nginx) workers(t *testing.T) int {
	t.Helper()
	workers := map[string]bool{}
	for _, e := range n.log(t) {
		workers[e.worker] = true
	}
	return len(workers)
}

func eventually(t *testing.T, condition func() bool, format string, args ...any) {
	t.Helper()
	server.Eventually(t, patience, condition, format, args...)
}

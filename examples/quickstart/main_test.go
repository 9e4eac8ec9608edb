package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is the example as its readers run it.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quickstart-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "quickstart.exe") // the ending means nothing elsewhere
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", program, ".").CombinedOutput()
	if err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// tableRow is a line of the table: name, address, attempts, failed, retries, p50, p99.
var tableRow = regexp.MustCompile(`(?m)^([a-d])  (127\.0\.0\.1:\d+) +(\d+) +(\d+) +(\d+) +[\d.]+ms +[\d.]+ms$`)

func TestNoCallFails(t *testing.T) {
	t.Parallel()
	p := start(t, "-seconds", "3")
	out := p.rest()
	require.NoError(t, p.cmd.Wait(), out)

	assert.Regexp(t, `\n\ncalls [1-9]\d* · failed 0 · retries \d+\n$`, out)
	for _, event := range []string{"killed b", "b is back", "added d", "draining a", "a had no more calls"} {
		assert.Contains(t, out, event)
	}
	rows := tableRow.FindAllStringSubmatch(out, -1)
	require.Len(t, rows, 4, out)
	for i, name := range []string{"a", "b", "c", "d"} {
		assert.Equal(t, name, rows[i][1])
		assert.NotEqual(t, "0", rows[i][3], "%s had no traffic", name)
	}
}

func TestFailedCallsAreTold(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dead := listener.Addr().String()
	require.NoError(t, listener.Close())

	p := start(t, "-seconds", "1", "-targets", dead)
	out := p.rest()
	var exit *exec.ExitError
	require.ErrorAs(t, p.cmd.Wait(), &exit, out)
	assert.Equal(t, 1, exit.ExitCode())
	assert.Regexp(t, `\ncalls (\d+) · failed [1-9]\d* · retries \d+\n$`, out)
	assert.Contains(t, out, "a call failed: ")
}

func TestInterruptEndsWithTheTable(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot send an interrupt on Windows")
	}
	p := start(t, "-seconds", "60")
	servers := p.servers(t, 3)
	p.await(t, "calls [1-9]")
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	out := p.rest()
	require.NoError(t, p.cmd.Wait(), out)
	assert.Regexp(t, `\ncalls [1-9]\d* · failed 0 · retries \d+\n$`, out)
	assertGone(t, servers)
}

// However the program ends, its servers do not outlive it.
func TestServersEndWithTheProgram(t *testing.T) {
	t.Parallel()
	p := start(t, "-seconds", "60")
	servers := p.servers(t, 3)
	require.NoError(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // it says that the process was killed
	assertGone(t, servers)
}

// process is the program while it runs.
type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	// A program that hangs is killed, and with it its servers.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // a program that is killed cannot tidy up
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test has failed
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("stderr: %s", stderr.String())
		}
	})
	return &process{cmd: cmd, out: bufio.NewReader(out)}
}

// rest returns all that the program has not yet been heard to print.
func (p *process) rest() string {
	text, _ := io.ReadAll(p.out) // an error is the end as well
	return string(text)
}

// await reads until a line matches, and returns what the groups of the pattern
// stand for.
func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	expr := regexp.MustCompile(pattern)
	for {
		line, err := p.out.ReadString('\n')
		require.NoError(t, err, "no line matches %q", pattern)
		if groups := expr.FindStringSubmatch(line); groups != nil {
			return groups
		}
	}
}

// servers returns the addresses of the first n servers.
func (p *process) servers(t *testing.T, n int) []string {
	t.Helper()
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = p.await(t, `is at (\S+)`)[1]
	}
	return addresses
}

// assertGone waits until nobody listens at the addresses.
func assertGone(t *testing.T, addresses []string) {
	t.Helper()
	for _, address := range addresses {
		assert.Eventually(t, func() bool {
			conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		}, 5*time.Second, 20*time.Millisecond, "%s is still there", address)
	}
}

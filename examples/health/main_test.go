package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/health"
)

// program is the example as its readers run it.
type program struct {
	cmd  *exec.Cmd
	out  *bufio.Reader
	urls map[string]string
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "health.exe") // the ending means nothing elsewhere
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(out))

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, append([]string{"-http", "127.0.0.1:0", "-chi", "127.0.0.1:0"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test has failed
		_ = cmd.Wait()
	})
	p := &program{cmd: cmd, out: bufio.NewReader(stdout), urls: map[string]string{}}
	for range 2 {
		found := p.await(t, `(\S+) is at (\S+)`)
		p.urls[found[1]] = found[2]
	}
	return p
}

// await reads until a line matches.
func (p *program) await(t *testing.T, pattern string) []string {
	t.Helper()
	for {
		line, err := p.out.ReadString('\n')
		require.NoError(t, err, "no line matches %q", pattern)
		if found := regexp.MustCompile(pattern).FindStringSubmatch(line); found != nil {
			return found
		}
	}
}

func report(t *testing.T, url string) (int, health.Report) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var r health.Report
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&r))
	return resp.StatusCode, r
}

func TestServersTellAndEndInOrder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot send an interrupt on Windows")
	}
	p := start(t, "-drain", "5s")
	live := []string{p.urls["net/http"] + "/health/live", p.urls["chi"] + "/livez"}
	ready := []string{p.urls["net/http"] + "/health/ready", p.urls["chi"] + "/readyz", p.urls["net/http"] + "/health"}
	for _, url := range ready {
		require.Eventually(t, func() bool { // three probes of the service behind must have failed
			_, r := report(t, url)
			return r.Status == health.Degraded
		}, 10*time.Second, 50*time.Millisecond)
		code, r := report(t, url)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, health.Degraded, r.Status, r)
		assert.Equal(t, health.Up, r.Details["db"].Status)
		assert.Equal(t, health.Down, r.Details["users"].Status)
	}

	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	p.await(t, "drains for 5s")
	p.await(t, "drains for 5s")
	require.Eventually(t, func() bool {
		code, _ := report(t, ready[0])
		return code == http.StatusServiceUnavailable
	}, 4*time.Second, 10*time.Millisecond)
	code, r := report(t, live[1])
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, health.Up, r.Status)
	rest, err := io.ReadAll(p.out)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(rest), "has ended"), string(rest))
	assert.NoError(t, p.cmd.Wait())
}

func TestProgramEndsByItself(t *testing.T) {
	t.Parallel()
	p := start(t, "-seconds", "1", "-drain", "10ms")
	p.await(t, "has ended")
	p.await(t, "has ended")
	assert.NoError(t, p.cmd.Wait())
}

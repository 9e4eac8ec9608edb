//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const patience = 30 * time.Second

// The servers are the program that starts them, once more: here the binary of the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

const table = `3 servers, one user: 10 visits, then the server of the last visit is killed, then 10 more.

                           sessions in Redis      sessions in memory,
                           without WithSession    WithSession
servers that answered      3, then 2              1, then 1
counter before the kill    1 to 10                1 to 10
counter after the kill     11 to 20               1 to 10
errors                     0                      0
moves                      0                      1
`

func requireRedis(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	const missing = "redis-server is not installed: apt-get install redis-server"
	if os.Getenv("EVENKEEL_REQUIRE_SERVERS") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// leaveNothing makes the test fail if a goroutine, a process or a file is left at its end.
func leaveNothing(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		_, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		assert.Equal(t, syscall.ECHILD, err, "a process is left")
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Empty(t, files)
		// The goroutines of a closed connection take a moment to see that.
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				require.Fail(t, "a goroutine is left", "%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

func TestBothWays(t *testing.T) {
	requireRedis(t)
	leaveNothing(t)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, ""))
	assert.Equal(t, table+explanation, out.String())
}

func TestRedisFromElsewhere(t *testing.T) {
	requireRedis(t)
	leaveNothing(t)
	redis, err := startRedis(t.Context())
	require.NoError(t, err)
	defer redis.kill()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, redis.address))
	assert.Equal(t, table+explanation, out.String())
	select {
	case <-redis.done:
		assert.Fail(t, "it is not the program's to end", redis.err)
	default:
	}
}

func TestNoRedis(t *testing.T) {
	leaveNothing(t)
	assert.ErrorContains(t, run(t.Context(), t.Output(), "127.0.0.1:1"), "no Redis answers at 127.0.0.1:1")
	t.Setenv("PATH", t.TempDir())
	assert.ErrorContains(t, run(t.Context(), t.Output(), ""), "redis-server is not installed")
}

// An interrupt may come at any time.
func TestInterrupted(t *testing.T) {
	requireRedis(t)
	leaveNothing(t)
	for _, after := range []time.Duration{0, 10, 20, 50, 100, 200, 400} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		var out bytes.Buffer
		if err := run(ctx, &out, ""); err == nil {
			assert.Equal(t, table+explanation, out.String())
		} else {
			assert.Empty(t, out.String(), err)
		}
		cancel()
	}
}

// Who started a server may be killed, too, and then cannot end it.
func TestServerEndsWithItsParent(t *testing.T) {
	leaveNothing(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-serve", memory)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(line, listening), line)
	require.NoError(t, stdin.Close())
	assert.NoError(t, cmd.Wait())
}

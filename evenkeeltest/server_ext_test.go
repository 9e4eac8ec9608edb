package evenkeeltest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestReceived(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		start := time.Now()
		req := request(t.Context(), t, http.MethodPut, t.url+"path?q=1", strings.Repeat("x", evenkeeltest.BodyBound+1))
		req.Host = "users"
		req.Header.Set("X", "1")
		resp, err := t.tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		synctest.Wait() // net/http may be about to make the connection available
		t.getBody()

		received := t.server.Received()
		require.Len(t, received, 2)
		got := received[0]
		assert.Equal(t, start, got.At)
		assert.Equal(t, http.MethodPut, got.Method)
		assert.Equal(t, "/path?q=1", got.Path)
		assert.Equal(t, "users", got.Host)
		assert.Equal(t, t.proto, got.Proto)
		assert.Equal(t, "1", got.Header.Get("X"))
		assert.EqualValues(t, evenkeeltest.BodyBound+1, got.ContentLength)
		assert.EqualValues(t, evenkeeltest.BodyBound+1, got.BodyRead)
		assert.Len(t, got.Body, evenkeeltest.BodyBound)
		assert.True(t, got.BodyEnd)
		assert.Equal(t, strings.HasPrefix(t.url, "https"), got.ServerName == "a")
		assert.True(t, received[1].BodyEnd)
		assert.Equal(t, []int{1, 1}, []int{got.Conn, received[1].Conn})

		assert.Equal(t, 2, t.server.Requests())
		assert.Equal(t, 1, t.server.Dials())
		assert.Equal(t, 1, t.server.OpenConns())
		assert.Equal(t, "a:80", t.server.Addr())
		assert.Equal(t, discovery.Endpoint{Address: "a:80"}, t.server.Endpoint())
	})
}

func TestAssertRequests(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		t.getBody()
		j := &judge{TB: t}
		t.server.AssertRequests(j, 1)
		assert.Empty(t, j.errors)
		t.server.AssertRequests(j, 2)
		require.Len(t, j.errors, 1)
		assert.Equal(t, "a:80 received 1 requests, want 2:\n\t00:00:00.000 GET a:80/ "+t.proto+
			" on connection 1, 0 bytes of body read", j.errors[0])
	})
}

func TestKillAndRestart(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.Hang(), evenkeeltest.OK("back")), func(t *rig) {
		time.AfterFunc(time.Second, t.server.Kill)
		_, err := t.get()
		require.ErrorIs(t, err, syscall.ECONNRESET)
		synctest.Wait()
		assert.Zero(t, t.server.ActiveRequests())
		assert.Zero(t, t.server.OpenConns())
		_, err = t.get()
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		t.server.Kill() // does nothing

		t.server.Restart()
		assert.Equal(t, "back", t.getBody())
		t.server.Restart()
		synctest.Wait()
		assert.Equal(t, "back", t.getBody())
		t.server.AssertRequests(t, 3)
		assert.Equal(t, 4, t.server.Dials())
	})
}

func TestShutdown(t *testing.T) {
	slow := evenkeeltest.OK("done").Delay(time.Second)
	everyProtocol(t, steps(slow), func(t *rig) {
		ended := make(chan error, 1)
		time.AfterFunc(time.Millisecond, func() { ended <- t.server.Shutdown(context.Background()) })
		assert.Equal(t, "done", t.getBody())
		require.NoError(t, <-ended)
		_, err := t.get()
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.NoError(t, t.server.Shutdown(t.Context()))
		t.server.Restart()
		assert.Equal(t, "done", t.getBody())
	})
}

func TestShutdownRunsOutOfTime(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.Hang()), func(t *rig) {
		ended := make(chan error, 1)
		req := request(t.Context(), t, http.MethodGet, t.url, "")
		go func() {
			_, err := t.tr.RoundTrip(req)
			ended <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, t.server.Shutdown(ctx), context.DeadlineExceeded)
		requireReset(t, <-ended)
	})
}

// requireReset asserts how the death of a server looks that was shutting down:
// with HTTP/2, net/http prefers to tell of the GOAWAY which came before.
func requireReset(t *rig, err error) {
	t.Helper()
	if t.http2() {
		require.ErrorContains(t, err, "GOAWAY")
		return
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestKillDuringShutdown(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.Hang()), func(t *rig) {
		time.AfterFunc(time.Second, func() { assert.NoError(t, t.server.Shutdown(context.Background())) })
		time.AfterFunc(time.Minute, t.server.Kill)
		start := time.Now()
		_, err := t.get()
		requireReset(t, err)
		assert.Equal(t, time.Minute, time.Since(start))
		time.Sleep(time.Minute) // Shutdown polls
	})
}

func TestFreezeAndThaw(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		t.getBody()
		t.server.Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := t.tr.RoundTrip(request(ctx, t, http.MethodGet, t.url, ""))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.AfterFunc(time.Hour, t.server.Thaw)
		start := time.Now()
		assert.Equal(t, "a:80", t.getBody(), "of a connection that was or was not used before")
		assert.Equal(t, time.Hour, time.Since(start))
	})
}

// What the library relies on for T-14: net/http finds out by itself that an
// HTTP/2 connection has gone silent, after the sum of two timeouts.
func TestFrozenHTTP2ConnectionIsDetected(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		if !t.http2() {
			return
		}
		t.tr.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}
		t.getBody()
		start := time.Now()
		t.server.Freeze()
		_, err := t.get()
		require.Error(t, err)
		assert.Equal(t, 20*time.Second, time.Since(start))
		synctest.Wait() // the connection is closed right after
		assert.Zero(t, t.server.OpenConns())
		t.server.Thaw()
		assert.Equal(t, "a:80", t.getBody())
		assert.Equal(t, 2, t.server.Dials())
	})
}

func TestPanicOfAHandlerFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &judge{TB: t}
		network := evenkeeltest.NewNetwork(j)
		network.Serve("a:80", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") }))
		tr := network.Transport()
		_, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, "http://a:80", ""))
		require.Equal(t, io.EOF, err)
		require.Len(t, j.errors, 1)
		assert.Contains(t, j.errors[0], "the handler of a:80 panicked: oops\n")
	})
}

// A server that closes an HTTP/1.1 connection with a part of the body unread
// sleeps for half a second before. The end of a bubble would find it asleep.
func TestCloseWaitsForLingeringConnections(t *testing.T) {
	for _, answer := range []http.Handler{
		evenkeeltest.EarlyStatus(http.StatusRequestEntityTooLarge),
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}),
	} {
		everyProtocol(t, steps(answer), func(t *rig) {
			req := request(t.Context(), t, http.MethodPost, t.url, strings.Repeat("x", 1<<20))
			resp, err := t.tr.RoundTrip(req)
			require.NoError(t, err)
			assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
			readAll(t, resp)
			synctest.Wait()
			if !t.http2() {
				assert.Zero(t, t.server.OpenConns(), "what is left of the body must not be taken for a request")
			}
		})
	}
}

func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		server := network.Start(evenkeeltest.ServerConfig{
			Address:   "unix:/run/a.sock",
			Configure: func(s *http.Server) { s.IdleTimeout = time.Second },
		})
		tr := network.Transport()
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return network.DialContext(ctx, "unix", "/run/a.sock")
		}
		resp, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, "http://a", ""))
		require.NoError(t, err)
		assert.Equal(t, "unix:/run/a.sock", readAll(t, resp))
		assert.Equal(t, 1, server.OpenConns())
		time.Sleep(2 * time.Second)
		assert.Zero(t, server.OpenConns())
	})
}

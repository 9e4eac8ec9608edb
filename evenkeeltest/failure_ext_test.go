package evenkeeltest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestHang(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.Hang()), func(t *rig) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := t.tr.RoundTrip(request(ctx, t, http.MethodPost, t.url, "upload"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(start))
		synctest.Wait()
		assert.Zero(t, t.server.ActiveRequests())
	})
}

func TestBreakAfter(t *testing.T) {
	for _, row := range []struct {
		name string
		step func(int64) http.Handler
		is   error
	}{
		{"reset", evenkeeltest.ResetAfter, syscall.ECONNRESET},
		{"close", evenkeeltest.CloseAfter, io.EOF},
	} {
		for _, n := range []int64{0, 10, 1 << 20} {
			t.Run(row.name, func(t *testing.T) {
				everyProtocol(t, steps(row.step(n), evenkeeltest.OK("again")), func(t *rig) {
					body := evenkeeltest.NewBody("some more than ten bytes")
					req := request(t.Context(), t, http.MethodPost, t.url, "")
					body.Stream(req)
					_, err := t.tr.RoundTrip(req)
					require.Error(t, err)
					// A client that still writes may notice there, and HTTP/2 words
					// an EOF in its own way.
					if n > 24 && (!t.http2() || errors.Is(row.is, syscall.ECONNRESET)) {
						require.ErrorIs(t, err, row.is)
					}
					synctest.Wait() // net/http may be about to put the dead connection away
					received := t.server.Received()
					require.Len(t, received, 1)
					assert.Equal(t, min(n, 24), received[0].BodyRead)
					assert.Equal(t, "again", t.getBody())
					assert.Equal(t, 2, t.server.Dials())
				})
			})
		}
	}
}

func TestUpgrade(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.Upgrade()), func(t *rig) {
		req := request(t.Context(), t, http.MethodGet, t.url, "")
		if t.http2() {
			req.Header.Set("X-Upgrade", "HTTP/2 has none")
			resp, err := t.tr.RoundTrip(req)
			require.NoError(t, err)
			assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
			readAll(t, resp)
			return
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := t.tr.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		assert.Equal(t, "echo", resp.Header.Get("Upgrade"))
		rw, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok)
		for _, text := range []string{"ping", "pong"} {
			_, err = io.WriteString(rw, text)
			require.NoError(t, err)
			p := make([]byte, len(text))
			_, err = io.ReadFull(rw, p)
			require.NoError(t, err)
			assert.Equal(t, text, string(p))
		}
		assert.Equal(t, 1, t.server.ActiveRequests())
		require.NoError(t, rw.Close())
		synctest.Wait()
		assert.Zero(t, t.server.ActiveRequests())
	})
}

// The steps also serve where there is no connection to break.
func TestStepsOutsideTheNetwork(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest(http.MethodPost, "/", nil)
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		evenkeeltest.ResetAfter(0).ServeHTTP(httptest.NewRecorder(), req)
	})
	req.Header.Set("Upgrade", "echo")
	w := httptest.NewRecorder()
	evenkeeltest.Upgrade().ServeHTTP(w, req)
	assert.Equal(t, http.StatusNotImplemented, w.Code)
}

package health_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

// serverFunc is a server that does nothing but end.
type serverFunc func(context.Context) error

func (f serverFunc) Shutdown(ctx context.Context) error { return f(ctx) }

func TestShutdownIsAnnounced(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ drainFor, want time.Duration }{
		"default":  {want: 15 * time.Second},
		"a minute": {drainFor: time.Minute, want: time.Minute},
		"at once":  {drainFor: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, health.HandlerConfig{DrainFor: row.drainFor})
				start, ended := time.Now(), errors.New("ended")
				err := h.Shutdown(t.Context(), serverFunc(func(ctx context.Context) error {
					assert.Equal(t, t.Context(), ctx)
					assert.Equal(t, 503, visit(h, "/health/ready").Code, "readiness comes first")
					assert.Equal(t, row.want, time.Since(start))
					return ended
				}))
				assert.Equal(t, ended, err)
			})
		})
	}
}

func TestShutdownGoesOnWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.HandlerConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		start := time.Now()
		err := h.Shutdown(ctx, serverFunc(func(ctx context.Context) error { return ctx.Err() }))
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, 4*time.Second, time.Since(start))
	})
}

// While it drains, the server takes connections and serves them; afterwards it does not.
func TestServerServesWhileItDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		defer network.Close()
		listener, err := network.Listen("users:80")
		require.NoError(t, err)
		h := newHandler(t, health.HandlerConfig{})
		mux := http.NewServeMux()
		mux.Handle("/health/", h)
		mux.HandleFunc("/users", func(http.ResponseWriter, *http.Request) {})
		server := &http.Server{Handler: mux}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()

		transport := &http.Transport{DialContext: network.DialContext}
		defer transport.CloseIdleConnections()
		fetch := func(path string) (*http.Response, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users"+path, http.NoBody)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			return resp, err
		}
		status := func(path string) int {
			resp, err := fetch(path)
			require.NoError(t, err)
			return resp.StatusCode
		}

		assert.Equal(t, 200, status("/health/ready"))
		ended := make(chan error, 1)
		go func() { ended <- h.Shutdown(t.Context(), server) }()
		for range 14 {
			time.Sleep(time.Second)
			resp, err := fetch("/health/ready")
			require.NoError(t, err)
			assert.Equal(t, 503, resp.StatusCode)
			assert.True(t, resp.Close, "Connection: close")
			assert.Equal(t, 200, status("/health/live"))
			transport.CloseIdleConnections()
			assert.Equal(t, 200, status("/users"), "on a new connection")
		}
		require.Empty(t, served)

		time.Sleep(time.Second)
		require.NoError(t, <-ended)
		assert.Equal(t, http.ErrServerClosed, <-served)
		_, err = fetch("/users")
		assert.Error(t, err)
	})
}

//go:build unix

package health_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

// checkTimeout is far above what a check takes, and far below the clients' own time limits.
const checkTimeout = 2 * time.Second

// site is an HTTP server that depends on one component.
type site struct {
	url  string
	name string
}

func startSite(t *testing.T, name string, check func(context.Context) error) *site {
	t.Helper()
	handler, err := health.NewHandler(health.HandlerConfig{
		Timeout:    checkTimeout,
		CacheFor:   10 * time.Millisecond,
		Components: []health.Component{{Name: name, Check: check}},
	})
	require.NoError(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &site{url: server.URL, name: name}
}

// get returns what the server answers, and how long it took.
func (s *site) get(t *testing.T, path string) (status int, c health.ComponentReport, took time.Duration) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, http.NoBody)
	require.NoError(t, err)
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var r health.Report
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&r))
	return resp.StatusCode, r.Details[s.name], time.Since(start)
}

func (s *site) await(t *testing.T, status int) {
	t.Helper()
	server.Eventually(t, patience, func() bool {
		got, _, _ := s.get(t, "/health/ready")
		return got == status
	}, "%s: no %d", s.name, status)
}

// assertDown wants readiness to be lost for a reason other than time, and the process to live.
func (s *site) assertDown(t *testing.T) {
	t.Helper()
	s.await(t, http.StatusServiceUnavailable)
	_, c, _ := s.get(t, "/health/ready")
	assert.Equal(t, health.Down, c.Status)
	assert.NotEmpty(t, c.Error)
	assert.NotEqual(t, "timeout", c.Error)
	s.assertLives(t)
}

// assertTimesOut wants readiness to be lost at the timeout of the check, no sooner and not
// much later.
func (s *site) assertTimesOut(t *testing.T) {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // what is cached has to go
	status, c, took := s.get(t, "/health/ready")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Equal(t, "timeout", c.Error)
	assert.GreaterOrEqual(t, c.LatencyMs, checkTimeout.Milliseconds())
	assert.GreaterOrEqual(t, took, checkTimeout)
	assert.Less(t, took, 2*checkTimeout)
	s.assertLives(t)
}

func (s *site) assertLives(t *testing.T) {
	t.Helper()
	status, _, took := s.get(t, "/health/live")
	assert.Equal(t, http.StatusOK, status)
	assert.Less(t, took, checkTimeout)
}

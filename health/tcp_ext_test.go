package health_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/health"
)

// A connection that can be opened is enough. It is closed at once, and nothing is sent.
func TestTCP_H05(t *testing.T) {
	for _, row := range []struct {
		endpoint, asked string
		port            int
	}{
		{"a:80", "a:80", 0},
		{"a:80", "a:9000", 9000},
		{"[::1]:80", "[::1]:80", 0},
		{"[::1]:80", "[::1]:9000", 9000},
		{"unix:/run/a.sock", "unix:/run/a.sock", 9000},
	} {
		inScene(t, func(t *testing.T, s *scene) {
			server := s.network.Serve(row.asked, nil)
			s.check(oneByOne(health.TCP{Port: row.port}))
			e := s.add(row.endpoint)
			s.settle(50 * time.Second)
			assert.Equal(t, health.Healthy, e.Status().State, "%v", e.Status().Err)
			assert.Equal(t, 10, server.Dials())
			assert.Zero(t, server.OpenConns())
			assert.Zero(t, server.Requests())
		})
	}
}

func TestTCP_Failures(t *testing.T) {
	for what, row := range map[string]struct {
		fail func(s *scene)
		want error
	}{
		"refused":     {func(s *scene) { s.network.Refuse("a:80") }, syscall.ECONNREFUSED},
		"unreachable": {func(s *scene) { s.network.Unreachable("a:80") }, syscall.ENETUNREACH},
		"silent":      {func(s *scene) { s.network.BlackHole("a:80") }, context.DeadlineExceeded},
		"too far":     {func(s *scene) { s.network.SetLatency("a:80", 1001*time.Millisecond) }, context.DeadlineExceeded},
	} {
		t.Run(what, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				s.network.Serve("a:80", nil)
				row.fail(s)
				s.check(oneByOne(health.TCP{}))
				e := s.add("a:80")
				s.settle(15 * time.Second)
				st := e.Status()
				assert.Equal(t, health.Unhealthy, st.State)
				assert.ErrorIs(t, st.Err, row.want)
				s.network.Heal("a:80")
				s.network.SetLatency("a:80", time.Millisecond)
				s.settle(20 * time.Second)
				assert.Equal(t, health.Healthy, e.Status().State)
				assert.Equal(t, 2*time.Millisecond, e.Status().Took)
			})
		})
	}
}

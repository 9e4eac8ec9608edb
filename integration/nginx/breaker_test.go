//go:build unix

package nginx_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
)

// A server that is killed costs five attempts, and a probe now and then; all other calls
// have one attempt, at the other server. When it is back, probes find that out.
func TestNginx_BreakerLeavesADeadServerAlone_K15(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	a, b := startServer(t, settings{Location: app.location()}), startServer(t, settings{Location: app.location()})
	changes := new(changes)
	client := newClient(t, "http://svc.example", evenkeel.WithResolver(newEndpoints(a, b)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), brief(), evenkeel.WithHooks(evenkeel.Hooks{Breaker: changes.note}))
	assertNoGetFailed(t, client.series(http.MethodGet, 10))

	b.Kill(t)
	dead := client.series(http.MethodGet, 100)
	assertNoGetFailed(t, dead)
	opened := changes.of(b)
	require.NotEmpty(t, opened)
	assert.Equal(t, breaker.ConsecutiveFailures, opened[0].Reason)
	probes := 0
	for _, c := range opened[1:] {
		if c.To == breaker.Open {
			assert.Equal(t, breaker.ProbeFailed, c.Reason)
			probes++
		}
	}
	retries := 0
	for _, c := range dead {
		retries += len(c.info.Attempts) - 1
	}
	assert.Equal(t, 5+probes, retries, "attempts at the dead server")
	assert.Positive(t, probes)

	b.Start(t)
	stop := client.traffic(t)
	eventually(t, func() bool {
		last := changes.of(b)
		return last[len(last)-1].To == breaker.Closed
	}, "the breaker of the server that is back stays open")
	assertNoGetFailed(t, stop())
	client.quit(t, a, b)
	assert.Equal(t, 2, b.workers(t), "the server that came back must have had calls before and after")
	assert.Empty(t, changes.of(a))
}

// changes remembers what breakers did.
type changes struct {
	mu   sync.Mutex
	told []breaker.Change
}

func (c *changes) note(change breaker.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, change)
}

// of returns the changes of a server's breaker.
func (c *changes) of(s *nginx) (its []breaker.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range c.told {
		if change.Name == s.Address {
			its = append(its, change)
		}
	}
	return its
}

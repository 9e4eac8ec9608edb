package evenkeel

import (
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/session"
)

// Stats is what a [Transport] has counted and what it knows at one moment.
type Stats struct {
	// Target is the service, as a URL without anything secret.
	Target string
	// Calls is how many calls have had their answer, Failed how many of
	// these were an error or a response that speaks of a failure or of
	// overload.
	Calls, Failed uint64
	// Retries is how many attempts were sent beyond the first of each call, hedges included.
	Retries uint64
	// Active is how many calls have not ended, response bodies included.
	Active int64
	// QuotaTokens is what the budget of retries and hedges holds.
	QuotaTokens int
	// Pool is what is known of the endpoints.
	Pool balancer.Status
	// Health is what probes and answers say of the endpoints.
	Health []health.Status
	// Session is what was counted of sessions.
	Session session.Status
	// Breakers are the circuit breakers of the endpoints, by address.
	Breakers []breaker.Status
	// TargetBreaker is the breaker of the target, nil if there is none.
	TargetBreaker *breaker.Status
	// Throttle is what holds attempts back, nil if nothing does.
	Throttle *breaker.ThrottleStatus
}

// Stats returns what is known now. It costs a look at each endpoint.
func (t *Transport) Stats() Stats {
	stack := t.stack.Load()
	stats := Stats{
		Target:      t.target.String(),
		Calls:       t.counters.calls.Load(),
		Failed:      t.counters.failed.Load(),
		Retries:     t.counters.retries.Load(),
		Active:      t.active.Load(),
		QuotaTokens: stack.retrier.Tokens(),
		Pool:        t.pool.Status(),
		Health:      t.monitor.Status(),
		Session:     t.sessions.Status(),
		Breakers:    stack.guards.endpoints.Status(),
	}
	if b := stack.guards.target; b != nil {
		status := b.Status()
		stats.TargetBreaker = &status
	}
	if throttle := stack.guards.throttle; throttle != nil {
		status := throttle.Status()
		stats.Throttle = &status
	}
	return stats
}

type counters struct{ calls, failed, retries atomic.Uint64 }

// count counts a call that has its answer.
func (t *Transport) count(attempts int, failed bool) {
	t.counters.calls.Add(1)
	if failed {
		t.counters.failed.Add(1)
	}
	if attempts > 1 {
		t.counters.retries.Add(uint64(attempts - 1))
	}
}

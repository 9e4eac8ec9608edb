package evenkeel

import (
	"net/http"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/retry"
)

// stack is the layers of one policy. A call uses the stack that it began with.
type stack struct {
	config  Config
	retrier *retry.Retrier
	guards  guards
	calls   *call.Config
	top     http.RoundTripper
}

// compose builds the layers, the innermost first. The state that they work on
// (the pool, the breakers, the quota) is older than they are and outlives them.
func (t *Transport) compose(c Config, retrier *retry.Retrier, g guards) *stack {
	s := &stack{config: c, retrier: retrier, guards: g}
	s.calls = call.Config{
		Clock:    t.settings.clock,
		Classify: t.settings.classifier,
		Ended:    t.ended,
	}.Resolve()

	s.top = balancer.NewTransport(t.pool, t.settings.classifier) // attempt: pick with the breaker's permit, endpoint's own connections
	if g.throttle != nil {
		s.top = g.throttle.Transport(s.top)
	}
	s.top = retrier.Transport(s.top)
	if g.target != nil {
		s.top = g.target.Transport(s.top)
	}
	if c.Session != nil {
		s.top = t.sessions.Transport(s.top)
	}
	s.top = &boundary{transport: t, stack: s, next: s.top} // record of the call, whole-call timeout, typed error
	if t.settings.fallback != nil {
		s.top = &fallback{answer: t.settings.fallback, transport: t, next: s.top}
	}
	return s
}

// retryPolicy completes the policy of retries with what the transport decides for
// all policies.
func (t *Transport) retryPolicy(c Config) retry.Policy {
	p := c.Retry
	p.Clock, p.Rand, p.Classifier = t.settings.clock, t.settings.rand, t.settings.classifier
	p.Hooks = retry.Hooks{Attempt: t.settings.hooks.Attempt, Decided: t.settings.hooks.Decided}
	p.Timeout = 0 // it is in that of the whole call
	return p
}

package evenkeel

import (
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Config is the policy of a target as data: what can be printed, compared,
// loaded from a file, and replaced by [Transport.Update] while calls are under
// way. The zero Config is the recommended policy.
type Config struct {
	// Balancer picks the endpoint of each attempt. Nil means
	// [balancer.PeakEWMA] with default settings.
	Balancer balancer.Algorithm

	// Rules say which endpoints the balancer may pick from: priorities, zones,
	// panic, slow start and more.
	Rules balancer.Rules

	// Retry says which attempts are repeated. Its behaviour fields (Clock,
	// Rand, Classifier, Hooks) are set by the transport.
	Retry retry.Policy

	// Timeout bounds the time from the call to its response's headers, over
	// all attempts. Zero means no bound besides the caller's; negative is an
	// error.
	Timeout time.Duration
}

// withDefaults returns the policy as it is applied.
func (c Config) withDefaults() Config {
	if c.Balancer == nil {
		c.Balancer = balancer.PeakEWMA{}
	}
	c.Rules = c.Rules.WithDefaults()
	c.Retry = c.Retry.WithDefaults()
	return c
}

// Validate returns nil, or all that is wrong with the policy: errors of type
// [*FieldError], joined.
func (c Config) Validate() error {
	var errs field.Errors
	errs.Under("Balancer", balancer.Validate(c.Balancer))
	errs.Under("Rules", c.Rules.Validate())
	errs.Under("Retry", c.Retry.Validate())
	errs.Check(c.Timeout >= 0, "Timeout", c.Timeout, "must not be negative")
	return errs.Err()
}

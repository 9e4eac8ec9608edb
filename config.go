package evenkeel

import (
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
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

	// Breaker says when an endpoint is left alone because it is broken. An endpoint
	// whose breaker is open is not picked while there are others; if too many are
	// (Rules.Panic), it is picked all the same. breaker.Config{Mode: breaker.Disabled}
	// switches it off. Its behaviour fields but TripIf are set by the transport.
	Breaker breaker.Config
	// TargetBreaker, if set, is the breaker of the target as a whole: it judges calls
	// with all their attempts, and refuses calls when it is open.
	TargetBreaker *breaker.Config
	// Throttle, if set, holds attempts back when the target accepts less than it is
	// asked.
	Throttle *breaker.ThrottleConfig
	// HealthCheck, if set, says how endpoints are probed.
	HealthCheck *health.Check
	// Outlier says which endpoints are ejected because of what they answer. Where there are
	// circuit breakers which count failures in a row, the zero values of its
	// ConsecutiveFailures and LocalFailures are off, and stay zero here.
	// health.Outlier{Disabled: true} switches all of it off.
	Outlier health.Outlier
	// Session, if set, keeps each caller at one endpoint.
	Session *session.Policy
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
	c.Breaker = c.Breaker.WithDefaults()
	if c.TargetBreaker != nil {
		b := c.TargetBreaker.WithDefaults()
		c.TargetBreaker = &b
	}
	if c.Throttle != nil {
		t := c.Throttle.WithDefaults()
		c.Throttle = &t
	}
	if c.HealthCheck != nil {
		h := c.HealthCheck.WithDefaults()
		c.HealthCheck = &h
	}
	if c.Session != nil {
		s := c.Session.WithDefaults()
		c.Session = &s
	}
	users := c.Outlier
	if c.Outlier = c.Outlier.WithDefaults(); c.breakersCountRows() { // what zero means depends on them: see outlier
		c.Outlier.ConsecutiveFailures, c.Outlier.LocalFailures = users.ConsecutiveFailures, users.LocalFailures
	}
	c.Retry = c.Retry.WithDefaults()
	return c
}

// breakersCountRows reports whether circuit breakers open after failures in a row.
func (c Config) breakersCountRows() bool {
	return c.Breaker.Mode == breaker.Auto && c.Breaker.ConsecutiveFailures != breaker.Off
}

// outlier returns the outlier detection as it is applied: rows of failures are the breakers', which
// do the same and know half-open, unless the user wants it otherwise.
func (c Config) outlier() health.Outlier {
	o := c.Outlier
	if c.breakersCountRows() {
		orOff(&o.ConsecutiveFailures)
		orOff(&o.LocalFailures)
	}
	return o
}

// orOff switches off what is not set.
func orOff(row *int) {
	if *row == 0 {
		*row = health.Off
	}
}

// timeout returns the bound of a whole call, 0 for none.
func (c Config) timeout() time.Duration {
	if c.Timeout == 0 || (c.Retry.Timeout > 0 && c.Retry.Timeout < c.Timeout) {
		return c.Retry.Timeout
	}
	return c.Timeout
}

// Validate returns nil, or all that is wrong with the policy: errors of type
// [*FieldError], joined.
func (c Config) Validate() error {
	var errs field.Errors
	errs.Under("Balancer", balancer.Validate(c.Balancer))
	errs.Under("Rules", c.Rules.Validate())
	errs.Under("Breaker", c.Breaker.Validate())
	if c.TargetBreaker != nil {
		errs.Under("TargetBreaker", c.TargetBreaker.Validate())
	}
	if c.Throttle != nil {
		errs.Under("Throttle", c.Throttle.Validate())
	}
	if c.HealthCheck != nil {
		errs.Under("HealthCheck", c.HealthCheck.Validate())
	}
	errs.Under("Outlier", c.Outlier.Validate())
	if c.Session != nil {
		errs.Under("Session", c.Session.Validate())
	}
	errs.Under("Retry", c.Retry.Validate())
	errs.Check(c.Timeout >= 0, "Timeout", c.Timeout, "must not be negative")
	return errs.Err()
}

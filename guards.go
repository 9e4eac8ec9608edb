package evenkeel

import (
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
)

// guards are what refuses calls to what is broken. They outlive the policies under which
// they work.
type guards struct {
	endpoints *breaker.Group    // a breaker for each endpoint
	target    *breaker.Breaker  // nil if there is none
	throttle  *breaker.Throttle // nil if there is none
}

// guardsFor returns the guards for a policy, which is valid: those of the policy before, as
// far as it had them, with what they know.
func (s *settings) guardsFor(c Config, before guards, target string) (g guards, err error) {
	if g.endpoints = before.endpoints; g.endpoints == nil {
		g.endpoints, err = breaker.NewGroup(s.breakerConfig(c.Breaker))
	} else {
		err = g.endpoints.Use(s.breakerConfig(c.Breaker))
	}
	if c.TargetBreaker != nil && err == nil {
		if g.target = before.target; g.target == nil {
			g.target, err = breaker.New(target, s.breakerConfig(*c.TargetBreaker))
		} else {
			err = g.target.Use(s.breakerConfig(*c.TargetBreaker))
		}
	}
	if c.Throttle != nil && err == nil {
		if g.throttle = before.throttle; g.throttle == nil {
			g.throttle, err = breaker.NewThrottle(s.throttleConfig(*c.Throttle))
		} else {
			err = g.throttle.Use(s.throttleConfig(*c.Throttle))
		}
	}
	return g, err
}

// breakerConfig completes a breaker's configuration with what the transport decides for
// all policies.
func (s *settings) breakerConfig(c breaker.Config) breaker.Config {
	c.Clock, c.Rand, c.Classifier, c.OnChange = s.clock, s.rand, s.classifier, s.relays.breaker.hook()
	return c
}

// throttleConfig does the same for a throttle.
func (s *settings) throttleConfig(c breaker.ThrottleConfig) breaker.ThrottleConfig {
	c.Clock, c.Rand, c.Classifier = s.clock, s.rand, s.classifier
	return c
}

// healthConfig does the same for the watch of the endpoints.
func (s *settings) healthConfig(c Config) health.Config {
	return health.Config{
		Check: c.HealthCheck, Outlier: c.outlier(), Target: s.origin,
		OnChange: s.relays.health.hook(), Clock: s.clock, Rand: s.rand,
	}
}

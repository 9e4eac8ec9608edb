package balancer

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/template"
)

// Config says where a pool has its endpoints from, how it picks one, and how
// connections are made. Only Resolver has no default.
type Config struct {
	// Resolver finds the endpoints. Unless it is a [discovery.LastGood], it
	// is put into one with default settings.
	Resolver discovery.Resolver

	// Algorithm picks. Nil means [PeakEWMA] with default settings.
	Algorithm Algorithm

	// Rules say which endpoints it may pick from.
	Rules Rules

	// DrainTimeout is how long the requests of an endpoint that left may go
	// on before their connections are closed. Zero means 30s; negative
	// means that they may end in their own time.
	DrainTimeout time.Duration

	// Template is the transport that each endpoint gets a clone of. Nil
	// means one with the defaults that the package documentation lists. Its
	// Proxy is not used: an endpoint is connected to directly.
	Template *http.Transport

	// EndpointTransport, if set, makes the transport of an endpoint in place
	// of Template. If it has CloseIdleConnections, that is called when the
	// endpoint is gone.
	EndpointTransport func(discovery.Endpoint) http.RoundTripper

	// Wrap, if set, is put around each endpoint's transport, to sign or trace
	// single attempts. It must keep to the contract of [http.RoundTripper].
	Wrap func(http.RoundTripper) http.RoundTripper

	// Breakers, if set, is the breaker.Group that has a circuit breaker for each
	// endpoint. An endpoint whose breaker is open is not available. Its Clock must be
	// that of the pool. Whoever made the group closes it, after the pool.
	Breakers node.Gatekeeper

	// Health, if set, is the health.Monitor that watches the endpoints. Those that it finds
	// broken are not available. Its Clock must be that of the pool. It serves one pool; whoever
	// made it closes it, before the pool or after.
	Health node.Monitors

	// Sessions, if set, is the session.Keeper that keeps callers at their endpoints. It serves one
	// pool.
	Sessions node.Sessions

	// Clock is the clock to use; nil means the system's.
	Clock clock.Clock

	// Rand is the source of random numbers, for tests that must be
	// repeatable; nil means the runtime's, which is faster. Access to it is
	// serialised.
	Rand rand.Source

	// OnChange, if set, is told when endpoints come and go, become available
	// or unavailable, and when panic begins and ends. Calls do not overlap,
	// and no lock is held.
	OnChange func(Change)

	// OnDiscovery, if set, is told what discovery does. Calls do not overlap,
	// and no lock is held.
	OnDiscovery func(discovery.Event)
}

const defaultDrainTimeout = 30 * time.Second

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	if c.Resolver == nil {
		errs.Add("Resolver", nil, "must be set")
	} else if v, ok := c.Resolver.(discovery.Validator); ok {
		errs.Under("Resolver", v.Validate())
	}
	errs.Under("Algorithm", Validate(c.Algorithm))
	errs.Under("Rules", c.Rules.Validate())
	errs.Under("Template", template.Check(c.Template))
	if c.Template != nil && c.EndpointTransport != nil {
		errs.Add("EndpointTransport", "set", "must not be set together with Template")
	}
	return errs.Err()
}

func (c Config) withDefaults() Config {
	if _, ok := c.Resolver.(discovery.LastGood); !ok {
		c.Resolver = discovery.LastGood{Resolver: c.Resolver}
	}
	if c.Algorithm == nil {
		c.Algorithm = PeakEWMA{}
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrainTimeout
	}
	c.Clock = clock.Or(c.Clock)
	c.Rules = c.Rules.WithDefaults()
	return c
}

package evenkeel

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// Option sets one part of a [Transport]. Given twice, the later one counts,
// unless the option says otherwise.
type Option interface{ apply(*settings) }

type option func(*settings)

func (o option) apply(s *settings) { o(s) }

// settings are all that the options set.
type settings struct {
	config     Config
	origin     string // of the target, as the user has written it
	pool       balancer.Config
	classifier outcome.Classifier
	clock      clock.Clock
	rand       rand.Source
	hooks      Hooks
	relays     *relays // to the hooks
	fallback   Fallback
	others     http.RoundTripper
}

// WithConfig sets the whole policy. Options after it change it.
func WithConfig(c Config) Option { return option(func(s *settings) { s.config = c }) }

// WithResolver says where the endpoints are, in place of a look-up of the
// target's host in DNS.
func WithResolver(r discovery.Resolver) Option {
	return option(func(s *settings) { s.pool.Resolver = r })
}

// WithBalancer says how the endpoint of an attempt is picked.
func WithBalancer(a balancer.Algorithm) Option {
	return option(func(s *settings) { s.config.Balancer = a })
}

// WithRules says which endpoints the balancer may pick from.
func WithRules(r balancer.Rules) Option {
	return option(func(s *settings) { s.config.Rules = r })
}

// WithBreaker says when an endpoint is left alone because it is broken. It is picked all the
// same if health is ignored because too few endpoints are available (balancer.Panic), so a
// single endpoint always is: to refuse calls at once, use [WithTargetBreaker], or set
// Panic.Reject.
func WithBreaker(c breaker.Config) Option {
	return option(func(s *settings) { s.config.Breaker = c })
}

// WithTargetBreaker puts a circuit breaker around whole calls, which opens when the target
// is broken and not only some of its endpoints.
func WithTargetBreaker(c breaker.Config) Option {
	return option(func(s *settings) { s.config.TargetBreaker = &c })
}

// WithThrottle holds attempts back when the target accepts less than it is asked.
func WithThrottle(c breaker.ThrottleConfig) Option {
	return option(func(s *settings) { s.config.Throttle = &c })
}

// WithHealthCheck probes the endpoints; those that fail get no traffic while there are enough
// others.
func WithHealthCheck(c health.Check) Option {
	return option(func(s *settings) { s.config.HealthCheck = &c })
}

// WithOutlierDetection says which endpoints are ejected because of what they answer.
func WithOutlierDetection(o health.Outlier) Option {
	return option(func(s *settings) { s.config.Outlier = o })
}

// WithSession keeps each caller at one endpoint as long as that can take its requests.
func WithSession(p session.Policy) Option {
	return option(func(s *settings) { s.config.Session = &p })
}

// WithRetry says which attempts are repeated, and how.
func WithRetry(p retry.Policy) Option { return option(func(s *settings) { s.config.Retry = p }) }

// WithTimeout bounds the time from the call to its response's headers, over all
// attempts. The body may take longer.
func WithTimeout(d time.Duration) Option { return option(func(s *settings) { s.config.Timeout = d }) }

// Fallback answers a call in place of its failure: with a response of its own,
// with the one it got, or with an error. It gets the caller's request, and either
// the last response (whose status speaks of a failure or of overload) or the
// error, of type [*Error]. It owns that response: unless it returns it, the
// transport closes its body. It must be safe for concurrent use. It is not asked
// when the caller has given up.
type Fallback func(req *http.Request, resp *http.Response, err error) (*http.Response, error)

// WithFallback sets what answers when all else has failed.
func WithFallback(f Fallback) Option { return option(func(s *settings) { s.fallback = f }) }

// WithTransport sets the template of the transports: each endpoint gets a clone
// of its own. The template itself is not used. Its Proxy is ignored, and its
// DialContext is called with the address of an endpoint.
func WithTransport(template *http.Transport) Option {
	return option(func(s *settings) { s.pool.Template = template })
}

// WithEndpointTransport sets what makes the transport of an endpoint, where a
// clone of an http.Transport does not do.
func WithEndpointTransport(f func(discovery.Endpoint) http.RoundTripper) Option {
	return option(func(s *settings) { s.pool.EndpointTransport = f })
}

// WithAttempt puts a wrapper around each attempt, to sign or trace it. Given more
// than once, the first is the innermost. The GetBody of the requests that it gets fails: to send
// them again is for the retry policy.
func WithAttempt(wrap func(http.RoundTripper) http.RoundTripper) Option {
	return option(func(s *settings) {
		inner := s.pool.Wrap
		if inner == nil {
			s.pool.Wrap = wrap
			return
		}
		s.pool.Wrap = func(rt http.RoundTripper) http.RoundTripper { return wrap(inner(rt)) }
	})
}

// WithDrainTimeout bounds how long the requests of an endpoint that has left may go
// on. Zero means 30s, negative that they may end in their own time.
func WithDrainTimeout(d time.Duration) Option {
	return option(func(s *settings) { s.pool.DrainTimeout = d })
}

// WithClassifier replaces [outcome.Classify] for all policies.
func WithClassifier(c outcome.Classifier) Option {
	return option(func(s *settings) { s.classifier = c })
}

// WithHooks sets what observes the transport.
func WithHooks(h Hooks) Option { return option(func(s *settings) { s.hooks = h }) }

// WithClock sets the clock that all policies live by, for tests. Connections and
// the contexts of callers keep to the system's.
func WithClock(c clock.Clock) Option { return option(func(s *settings) { s.clock = c }) }

// WithRand sets the source of all random choices, for tests that must be
// repeatable. Access to it is serialised, which costs speed.
func WithRand(source rand.Source) Option {
	return option(func(s *settings) { s.rand = &lockedSource{source: source} })
}

// lockedSource is one source for all policies.
type lockedSource struct {
	mu     sync.Mutex
	source rand.Source
}

// Uint64 implements [rand.Source].
func (s *lockedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source.Uint64()
}

// WithOtherHosts sets what sends requests for other hosts than the target, which
// are refused with [ErrWrongTarget] otherwise. No policy applies to them.
func WithOtherHosts(rt http.RoundTripper) Option {
	return option(func(s *settings) { s.others = rt })
}

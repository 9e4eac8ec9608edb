package evenkeel

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// Transport is the [http.RoundTripper] of one target: a logical service with any
// number of endpoints. Make one with [New], give it to an [http.Client], and
// close it when it is no longer needed. It is safe for concurrent use.
type Transport struct {
	target   target
	address  *url.URL // where calls go that are written otherwise, set by Services; nil if there are none
	settings settings
	pool     *balancer.Pool
	monitor  *health.Monitor
	sessions *session.Keeper
	stack    atomic.Pointer[stack]
	counters counters

	updating sync.Mutex // held by Update, which takes the pool's lock
	active   atomic.Int64
	closed   atomic.Bool
	idle     chan struct{} // yields when active falls to zero after closing
}

// New returns a transport for the target, such as "http://users.internal:8080",
// with every policy on and set to sound defaults; the package documentation lists
// them. It starts to look for endpoints at once and does not wait for them. The
// error joins a [*FieldError] for each problem.
func New(targetURL string, options ...Option) (*Transport, error) {
	var s settings
	for _, o := range options {
		o.apply(&s)
	}
	target, err := s.check(targetURL)
	if err != nil {
		return nil, err
	}
	s.config, s.origin, s.relays = s.config.withDefaults(), originOf(targetURL), newRelays(s.hooks)
	t := &Transport{target: target, settings: s, idle: make(chan struct{}, 1)}
	retrier, err := retry.NewRetrier(t.retryPolicy(s.config))
	if err != nil {
		return nil, err
	}
	g, err := s.guardsFor(s.config, guards{}, target.String())
	if err != nil {
		return nil, err
	}
	if t.monitor, err = health.NewMonitor(s.healthConfig(s.config)); err != nil {
		return nil, err
	}
	if t.sessions, err = session.NewKeeper(s.sessionConfig(s.config, target.String())); err != nil {
		return nil, err
	}
	pool := s.poolConfig(target)
	pool.Breakers, pool.Health, pool.OnChange = g.endpoints, t.monitor, s.relays.endpoints.hook()
	pool.Sessions = t.sessions
	if t.pool, err = balancer.NewPool(pool); err != nil {
		return nil, err
	}
	t.stack.Store(t.compose(s.config, retrier, g))
	return t, nil
}

// check returns the target, or all that is wrong with it and with the settings.
func (s *settings) check(targetURL string) (target, error) {
	var errs field.Errors
	t, err := parseTarget(targetURL)
	errs.Under("", err)
	errs.Under("", s.config.Validate())
	if err == nil && s.config.HealthCheck != nil { // probes ask more of the target than calls do
		errs.Under("", health.Config{Check: &health.Check{}, Target: originOf(targetURL)}.Validate())
	}
	pool := s.poolConfig(t)
	pool.Algorithm, pool.Rules = nil, balancer.Rules{} // the policy's: checked with it
	if err != nil && s.pool.Resolver == nil {
		pool.Resolver = discovery.Static{"placeholder:1"} // that of a bad target would say the same again
	}
	errs.Under("", pool.Validate())
	return t, errs.Err()
}

// poolConfig completes the pool's configuration.
func (s *settings) poolConfig(t target) balancer.Config {
	c := s.pool
	if c.Resolver == nil {
		c.Resolver = t.resolver()
	}
	c.Algorithm, c.Rules = s.config.algorithm(), s.config.Rules
	c.Clock, c.Rand = s.clock, s.rand
	c.OnDiscovery = s.hooks.Discovery
	return c
}

// RoundTrip implements [http.RoundTripper]. A response that was obtained is
// returned whatever its status; every error is an [*Error]. Requests for other
// hosts, where [WithOtherHosts] allows them, are left to the transport set there.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := call.Check(req); err != nil {
		return t.refuse(req, outcome.Invalid, err)
	}
	if !t.target.serves(req.URL) {
		if t.settings.others != nil {
			return t.settings.others.RoundTrip(req)
		}
		return t.refuse(req, outcome.WrongTarget, ErrWrongTarget)
	}
	return t.call(req)
}

// serve is RoundTrip for a request that [Services] has found to be for this target, in whatever
// form it is written.
func (t *Transport) serve(req *http.Request) (*http.Response, error) {
	if err := call.Check(req, logical); err != nil {
		return t.refuse(req, outcome.Invalid, err)
	}
	return t.call(req)
}

// call makes a call with a request that can be sent.
func (t *Transport) call(req *http.Request) (*http.Response, error) {
	if !t.begin() {
		return t.refuse(req, outcome.Closed, ErrClosed)
	}
	return t.stack.Load().top.RoundTrip(req)
}

// begin counts a call, unless the transport is closed.
func (t *Transport) begin() bool {
	t.active.Add(1)
	if t.closed.Load() {
		t.ended(nil)
		return false
	}
	return true
}

// ended is told when nothing of a call is left.
func (t *Transport) ended(*call.Record) {
	if t.active.Add(-1) == 0 && t.closed.Load() {
		select {
		case t.idle <- struct{}{}:
		default:
		}
	}
}

// refuse ends a call of which nothing was tried.
func (t *Transport) refuse(req *http.Request, reason outcome.Reason, cause error) (*http.Response, error) {
	call.Refuse(req)
	err := &Error{Target: t.target.String(), Reason: reason, Err: cause}
	t.count(0, true)
	if t.settings.hooks.Called != nil {
		t.settings.hooks.Called(Call{Request: req, Info: Info{Reason: reason}, Err: err})
	}
	return nil, err
}

// Update replaces the policy. Calls under way finish under the one that they
// began with; endpoints keep all that is known of them, open breakers stay open, and
// what is left of the retry quota stays. If the new policy is invalid, the error says all
// that is wrong with it, and nothing has changed. A transport that is closed returns
// [ErrClosed].
func (t *Transport) Update(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	c = c.withDefaults()
	if err := t.settings.healthConfig(c).Validate(); err != nil {
		return err // probes ask more of the target than the policy can tell
	}
	defer t.settings.relays.flush()
	t.updating.Lock()
	defer t.updating.Unlock()
	t.settings.relays.held.Store(true)
	defer t.settings.relays.held.Store(false)
	if t.closed.Load() {
		return ErrClosed
	}
	old := t.stack.Load()
	retrier, err := old.retrier.With(t.retryPolicy(c))
	if err != nil {
		return err
	}
	if !c.picksAs(old.config) {
		if err := t.pool.Use(c.algorithm(), c.Rules); err != nil {
			return err
		}
	}
	g, err := t.settings.guardsFor(c, old.guards, t.target.String())
	if err != nil {
		return err
	}
	if err := t.monitor.Use(t.settings.healthConfig(c)); err != nil {
		return err
	}
	if err := t.sessions.Use(c.Session); err != nil {
		return err
	}
	t.stack.Store(t.compose(c, retrier, g))
	return nil
}

// Config returns the policy in force, with every default filled in.
func (t *Transport) Config() Config {
	return t.stack.Load().config.withDefaults() // nothing is shared with the caller
}

// Breakers returns the circuit breakers of the endpoints, sorted by their names, which are the
// addresses: to look at them, or to force one open.
func (t *Transport) Breakers() []*breaker.Breaker { return t.stack.Load().guards.endpoints.All() }

// Ready waits until the first endpoints are known. Calls do that by themselves;
// a service that must not start without its backends asks here.
func (t *Transport) Ready(ctx context.Context) error { return t.pool.Ready(ctx) }

// CloseIdleConnections closes the connections of all endpoints that nobody uses.
// [http.Client.CloseIdleConnections] calls it.
func (t *Transport) CloseIdleConnections() {
	t.pool.CloseIdleConnections()
	if o, ok := t.settings.others.(interface{ CloseIdleConnections() }); ok {
		o.CloseIdleConnections()
	}
}

// Shutdown refuses new calls, waits until those under way have ended, their
// response bodies included, and closes the transport. If ctx ends first, it
// closes the transport all the same and returns the context's error.
func (t *Transport) Shutdown(ctx context.Context) error {
	t.closed.Store(true)
	var err error
	for err == nil && t.active.Load() > 0 {
		select {
		case <-t.idle:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, t.Close())
}

// Close refuses new calls and attempts, ends the watch of the endpoints, and
// waits for it. Connections that nobody uses are closed; response bodies that
// are open stay readable, and the end of the last one closes its connection. It
// always returns nil, may be called more than once, and must not be called from
// a hook.
func (t *Transport) Close() error {
	t.closed.Store(true)
	t.settings.relays.close() // first: what ends now is no event
	t.pool.Close()
	t.updating.Lock() // no other policy comes any more
	endpoints := t.stack.Load().guards.endpoints
	t.updating.Unlock()
	endpoints.Close()
	t.monitor.Close()
	return nil
}

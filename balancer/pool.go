package balancer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Config says where a pool has its endpoints from, how it picks one, and how
// connections are made. Only Resolver has no default.
type Config struct {
	// Resolver finds the endpoints. Unless it is a [discovery.LastGood], it
	// is put into one with default settings.
	Resolver discovery.Resolver

	// Algorithm picks. Nil means [PeakEWMA] with default settings.
	Algorithm Algorithm

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

	// Clock is the clock to use; nil means the system's.
	Clock clock.Clock

	// Rand is the source of random numbers, for tests that must be
	// repeatable; nil means the runtime's, which is faster. Access to it is
	// serialised.
	Rand rand.Source

	// OnChange, if set, is told when endpoints come and go. Calls do not
	// overlap, and no lock is held.
	OnChange func(Change)

	// OnDiscovery, if set, is told what discovery does. Calls do not overlap,
	// and no lock is held.
	OnDiscovery func(discovery.Event)
}

const defaultDrainTimeout = 30 * time.Second

// Change is an event: the endpoints of a pool have changed.
type Change struct {
	// Added and Removed are who came and who left.
	Added, Removed []discovery.Endpoint
	// Size is how many endpoints the pool has now, Available how many of
	// them may be picked.
	Size, Available int
}

// Pool holds the endpoints of one service with all that is known of them, and
// picks one for each attempt. What picks read is published as an immutable
// snapshot, so picking takes no lock. A Pool is safe for concurrent use.
type Pool struct {
	cfg      Config
	rand     func() uint64
	clock    clock.Clock
	template *http.Transport // cloned for each endpoint, and otherwise never touched
	snapshot atomic.Pointer[snapshot]

	refresh chan struct{}
	ready   chan struct{} // closed when the first set is known
	stop    context.CancelFunc
	stopped chan struct{} // closed when the watch has ended

	mu       sync.Mutex // guards what follows; taken before no other lock; no callback runs under it
	builder  Builder
	members  []*member
	byKey    map[discovery.Key]*member
	draining map[*node.Node]clock.Timer // the timer is nil where drains are not bounded
	sweep    clock.Timer
	serial   uint64
	closed   bool
	status   Status
}

// NewPool returns a pool that watches its resolver until it is closed, or all
// that is wrong with the configuration.
func NewPool(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{
		cfg: cfg, rand: randFunc(cfg.Rand), clock: cfg.Clock, template: newTemplate(cfg.Template),
		refresh: make(chan struct{}, 1), ready: make(chan struct{}),
		stop: cancel, stopped: make(chan struct{}),
		byKey: map[discovery.Key]*member{}, draining: map[*node.Node]clock.Timer{},
	}
	var err error
	if p.builder, err = cfg.Algorithm.NewBuilder(Env{Rand: p.rand, Now: p.clock.Now()}); err != nil {
		cancel()
		return nil, err
	}
	p.snapshot.Store(&snapshot{cause: errUnresolved})
	go p.watch(ctx)
	return p, nil
}

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	if c.Resolver == nil {
		errs.Add("Resolver", nil, "must be set")
	} else if v, ok := c.Resolver.(discovery.Validator); ok {
		errs.Under("Resolver", v.Validate())
	}
	errs.Under("Algorithm", Validate(c.Algorithm))
	errs.Under("Template", checkTemplate(c.Template))
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
	return c
}

func randFunc(source rand.Source) func() uint64 {
	if source == nil {
		return rand.Uint64
	}
	var mu sync.Mutex
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}

// watch feeds the pool from its resolver until the pool is closed.
func (p *Pool) watch(ctx context.Context) {
	defer close(p.stopped)
	resolver := p.cfg.Resolver.(discovery.LastGood)
	told := resolver.OnEvent
	resolver.OnEvent = func(e discovery.Event) {
		p.noteDiscovery(e)
		if told != nil {
			told(e)
		}
		if p.cfg.OnDiscovery != nil {
			p.cfg.OnDiscovery(e)
		}
	}
	_ = resolver.Watch(ctx, discovery.Sink{
		Update:  func(endpoints []discovery.Endpoint, _ error) { p.update(endpoints) },
		Fail:    func(error) {}, // told as an event
		Refresh: p.refresh,
		Clock:   p.clock,
		Rand:    func() float64 { return float64(p.rand()>>11) / (1 << 53) },
	})
}

// update makes the pool hold exactly these endpoints. Those that stay keep all
// that is known of them. A new snapshot is published before those that left are
// marked, so that a pick which still finds one knows to look again.
func (p *Pool) update(endpoints []discovery.Endpoint) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	before := p.byKey
	var change Change
	p.byKey = make(map[discovery.Key]*member, len(endpoints))
	p.members = make([]*member, 0, len(endpoints))
	for _, e := range endpoints {
		m := before[e.Key()]
		if m == nil {
			m = p.newMember(e)
			change.Added = append(change.Added, e)
		}
		m.node.Update(e)
		p.byKey[e.Key()] = m
		p.members = append(p.members, m)
	}
	var gone []*node.Node
	for key, m := range before {
		if p.byKey[key] != m {
			gone = append(gone, m.node)
			change.Removed = append(change.Removed, m.node.Endpoint())
		}
	}
	change.Size, change.Available = len(p.members), p.publishLocked()
	for _, n := range gone {
		p.drainLocked(n)
	}
	p.armSweepLocked()
	p.readyLocked()
	p.mu.Unlock()

	for _, n := range gone {
		n.Remove()
	}
	if p.cfg.OnChange != nil {
		p.cfg.OnChange(change)
	}
}

// readyLocked lets go those who wait for the first set, or for the end.
func (p *Pool) readyLocked() {
	if !p.isReady() {
		close(p.ready)
	}
}

func (p *Pool) newMember(e discovery.Endpoint) *member {
	p.serial++
	conns := &conns{endpoint: e, pool: p}
	n := node.New(e, p.serial, conns)
	conns.node = n
	return &member{node: n, observer: p.observer(e, nil)}
}

// observer asks the algorithm what it wants to keep for an endpoint.
func (p *Pool) observer(e discovery.Endpoint, previous node.Observer) node.Observer {
	if o := p.builder.Observer(e, previous); o != nil {
		return o
	}
	return nil
}

// publishLocked makes picks see the members, and returns how many are available.
func (p *Pool) publishLocked() int {
	cause := errNoneFound
	if len(p.members) > 0 {
		cause = errAllUnavailable
	}
	s := newSnapshot(p.members, p.builder, cause)
	p.snapshot.Store(s)
	return s.available()
}

// drainLocked bounds the time that the requests of a removed node have left.
func (p *Pool) drainLocked(n *node.Node) {
	var limit clock.Timer
	if p.cfg.DrainTimeout > 0 {
		limit = p.clock.AfterFunc(p.cfg.DrainTimeout, n.Base().Close)
	}
	p.draining[n] = limit
}

// drained is told when the connections of a removed node are closed.
func (p *Pool) drained(n *node.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit := p.draining[n]; limit != nil {
		limit.Stop()
	}
	delete(p.draining, n)
}

// armSweepLocked keeps the sweep going as long as there are endpoints.
func (p *Pool) armSweepLocked() {
	if p.sweep == nil && len(p.members) > 0 {
		p.sweep = p.clock.AfterFunc(sweepInterval, p.sweepIdle)
	}
}

// sweepIdle drops the transports that nobody has used for a while.
func (p *Pool) sweepIdle() {
	p.mu.Lock()
	members := p.members
	p.sweep = nil
	if !p.closed {
		p.armSweepLocked()
	}
	p.mu.Unlock()
	for _, m := range members {
		m.node.Base().DropIdle()
	}
}

// Use replaces the algorithm. Endpoints keep their in-flight counts, and what
// the new algorithm can use of what the old one has learnt.
func (p *Pool) Use(a Algorithm) error {
	builder, err := a.NewBuilder(Env{Rand: p.rand, Now: p.clock.Now()})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.builder = builder
	for _, m := range p.members {
		m.observer = p.observer(m.node.Endpoint(), m.observer)
	}
	p.publishLocked()
	return nil
}

// Pick picks an endpoint. It never blocks and allocates nothing. The error is a
// [*NoEndpointsError] or [ErrClosed].
func (p *Pool) Pick(info Info) (Pick, error) {
	for {
		s := p.snapshot.Load()
		if len(s.tiers) == 0 {
			return Pick{}, p.refusal(s)
		}
		c, _ := s.pick(info)
		if !c.node.Acquire() {
			continue // removed since: a newer snapshot is there
		}
		pick := Pick{node.Pick{Node: c.node, Observer: c.observer}}
		if c.observer != nil {
			pick.pick.Token = c.observer.Picked(info.Now)
		}
		return pick, nil
	}
}

// Others reports whether there is an available endpoint that is not the one
// picked and not among those tried.
func (p *Pool) Others(pick Pick, tried []uint64) bool {
	return p.snapshot.Load().untried(&Candidate{node: pick.pick.Node}, tried)
}

func (p *Pool) refusal(s *snapshot) error {
	if errors.Is(s.cause, ErrClosed) {
		return ErrClosed
	}
	err := &NoEndpointsError{Cause: s.cause}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Err != nil && !errors.Is(s.cause, errAllUnavailable) {
		err.Cause = p.status.Err
	}
	return err
}

// firstWait bounds the wait for the first set of endpoints where the caller has
// set no deadline.
const firstWait = 10 * time.Second

// PickWait is [Pool.Pick] that waits for the first set of endpoints: until ctx
// is done, and if it has no deadline, at most 10 s.
func (p *Pool) PickWait(ctx context.Context, info Info) (Pick, error) {
	ready := p.isReady() // asked first: it may become so just after a pick that found nothing
	pick, err := p.Pick(info)
	if err == nil || ready {
		return pick, err
	}
	bound := firstWait
	if deadline, ok := ctx.Deadline(); ok {
		bound = deadline.Sub(p.clock.Now()) + time.Second // the context ends first
	}
	if wait.SleepOr(ctx, p.clock, bound, p.ready) == nil && p.isReady() {
		info.Now = p.clock.Now()
		return p.Pick(info)
	}
	_, err = p.Pick(info) // says what the resolver has said meanwhile
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return Pick{}, err
}

func (p *Pool) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// Ready waits until the first set of endpoints is known. It returns nil, the
// context's error together with that of the resolver, or [ErrClosed].
func (p *Pool) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		if errors.Is(p.snapshot.Load().cause, ErrClosed) {
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", p.refusal(p.snapshot.Load()), context.Cause(ctx))
	}
}

// Refresh asks for a fresh look at the endpoints, because some fail. The
// resolver decides when.
func (p *Pool) Refresh() {
	select {
	case p.refresh <- struct{}{}:
	default: // one is asked for already
	}
}

// CloseIdleConnections closes the connections of all endpoints that nobody uses.
func (p *Pool) CloseIdleConnections() {
	p.mu.Lock()
	members := p.members
	p.mu.Unlock()
	for _, m := range members {
		m.node.Base().CloseIdleConnections()
	}
}

// Close ends the watch, waits for it, and closes all connections that are not
// used; those that are, at the end of the last response that uses them. Picks
// are refused from now on. It may be called more than once, but not from a
// callback.
func (p *Pool) Close() {
	p.mu.Lock()
	members := p.members
	if !p.closed {
		p.closed = true
		p.snapshot.Store(&snapshot{cause: ErrClosed})
		for n, limit := range p.draining {
			if limit != nil {
				limit.Stop()
			}
			p.draining[n] = nil
		}
		if p.sweep != nil {
			p.sweep.Stop()
		}
		p.readyLocked()
	}
	p.mu.Unlock()
	p.stop()
	<-p.stopped
	for _, m := range members {
		m.node.Remove()
	}
}

// Pick is an endpoint that was picked for one attempt. It counts as in flight
// until Done, which must be called exactly once, after Answered.
type Pick struct{ pick node.Pick }

// Endpoint returns the endpoint.
func (p Pick) Endpoint() discovery.Endpoint { return p.pick.Node.Endpoint() }

// Serial returns the number that stands for this incarnation of the endpoint in
// [Info.Tried].
func (p Pick) Serial() uint64 { return p.pick.Node.Serial() }

// Transport returns what sends requests to this endpoint, over connections that
// no other endpoint uses.
func (p Pick) Transport() http.RoundTripper { return p.pick.Node.Base() }

// Answered tells how the attempt went, once that is known.
func (p Pick) Answered(a outcome.Answer) { p.pick.Answered(a) }

// Done says that the attempt is over, the body of its response included.
func (p Pick) Done() { p.pick.Done() }

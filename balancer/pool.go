package balancer

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/events"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/internal/template"
)

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

	now         func() time.Time
	born        time.Time
	queue       queue
	changes     events.Queue[Change]
	maxConnAge  atomic.Int64 // nanoseconds
	hideReports atomic.Bool

	marks   sync.Mutex // guards the next two; nothing is called under it
	marked  []*member  // whose reasons have changed
	marking bool       // somebody publishes what is in marked

	mu        sync.Mutex // guards what follows; taken before the locks of breakers; no hook runs under it
	rules     Rules
	builder   Builder
	learns    bool // the algorithm keeps observers
	counts    bool // the algorithm wants to know the attempts in flight
	members   []*member
	endpoints []discovery.Endpoint // what they were made of, in the same order
	byKey     map[discovery.Key]*member
	pickers   map[groupKey]Picker // of the snapshot
	pins      bool                // attempts have pins
	directory directory           // of the members, nil until somebody needs it
	seed      uint64              // of this client's order of endpoints
	sizer     subsetSizer
	panics    bool
	published time.Time                  // when the snapshot was
	lasts     time.Duration              // how long it is good for
	draining  map[*node.Node]clock.Timer // the timer is nil where drains are not bounded
	sweep     clock.Timer
	rebuild   clock.Timer
	serial    uint64
	closed    bool
	status    Status
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
		cfg: cfg, rand: random.Bits(cfg.Rand), clock: cfg.Clock, template: template.New(cfg.Template),
		refresh: make(chan struct{}, 1), ready: make(chan struct{}),
		stop: cancel, stopped: make(chan struct{}),
		byKey: map[discovery.Key]*member{}, draining: map[*node.Node]clock.Timer{},
	}
	p.now, p.changes.Tell = clock.Instants(p.clock), cfg.OnChange
	p.born = p.now()
	if err := p.setLocked(cfg.Algorithm, cfg.Rules); err != nil { // nobody else has it yet
		cancel()
		return nil, err
	}
	if cfg.Health != nil {
		if err := cfg.Health.Attach(node.Ways{Template: p.template, Custom: cfg.EndpointTransport}); err != nil {
			cancel()
			return nil, err
		}
	}
	if cfg.Sessions != nil {
		if err := cfg.Sessions.Attach(p.awaitFirst); err != nil {
			cancel()
			return nil, err
		}
	}
	p.snapshot.Store(&snapshot{main: &cluster{cause: errUnresolved}})
	go p.watch(ctx)
	return p, nil
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

// Use replaces the algorithm and the rules. Endpoints keep their in-flight counts,
// and what the new algorithm can use of what the old one has learnt. An error says
// what is wrong with them; then nothing has changed.
func (p *Pool) Use(a Algorithm, r Rules) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if a == nil {
		a = PeakEWMA{}
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	err := p.setLocked(a, r.WithDefaults())
	if err == nil {
		p.publishLocked(p.now(), nil)
		for _, m := range p.members { // now that picks expect it
			m.node.SetLimit(uint32(r.MaxInFlight))
		}
	}
	p.mu.Unlock()
	p.tell()
	return err
}

// setLocked takes an algorithm and rules, unless the algorithm is invalid.
func (p *Pool) setLocked(a Algorithm, r Rules) error {
	builder, err := a.NewBuilder(Env{Rand: p.rand, Now: p.now()})
	if err != nil {
		return err
	}
	p.builder, p.learns = builder, false
	c, ok := builder.(loadCounter)
	p.counts = ok && c.useInFlight(p.queue.inFlight.Load)
	p.directory = nil // it has the observers
	for _, m := range p.members {
		m.observer = p.observer(m.node.Endpoint(), m.observer)
		if r.MaxInFlight == 0 {
			m.node.SetLimit(0)
		}
	}
	subset := p.rules.Subset
	p.rules = r
	p.maxConnAge.Store(int64(r.MaxConnectionAge))
	p.hideReports.Store(r.HideLoadReports)
	if r.Subset != subset || p.seed == 0 {
		p.newSubsetLocked()
	} else {
		p.orderLocked()
	}
	if !p.sizes() {
		p.sizer = subsetSizer{}
	}
	return nil
}

// newSubsetLocked begins with another order of the endpoints.
func (p *Pool) newSubsetLocked() {
	if p.seed = p.rand(); p.rules.Subset.Seed != "" {
		p.seed = hashkey.String(p.rules.Subset.Seed)
	}
	p.sizer = subsetSizer{}
	for _, m := range p.members {
		m.order = 0
	}
	p.orderLocked()
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
		p.snapshot.Store(&snapshot{main: &cluster{cause: ErrClosed}})
		for n, limit := range p.draining {
			if limit != nil {
				limit.Stop()
			}
			p.draining[n] = nil
			stopTimers(n)
		}
		for _, m := range members {
			m.unparkLocked()
		}
		if p.sweep != nil {
			p.sweep.Stop()
		}
		if p.rebuild != nil {
			p.rebuild.Stop()
		}
		p.readyLocked()
	}
	p.mu.Unlock()
	p.serve() // nobody waits for room any more
	p.stop()
	<-p.stopped
	p.changes.Close()
	for _, m := range members {
		m.node.Set(node.Draining, node.Draining) // all at once: that some leave says nothing of the others
	}
	for _, m := range members {
		stopTimers(m.node)
		m.node.Remove()
	}
}

func stopTimers(n *node.Node) { n.Base().(*conns).stop() }

package balancer

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
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

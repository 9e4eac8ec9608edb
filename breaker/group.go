package breaker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/internal/events"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Group is breakers of one configuration, by key: made when first asked for, bounded
// in number, dropped when they are not used. Beside those it has one for each endpoint
// of a balancer.Pool that it was given to, as long as the endpoint is there; its name is the
// address, with the ID in parentheses if it has one. It is safe for concurrent use.
type Group struct {
	settings atomic.Pointer[settings]
	changes  *events.Queue[Change]
	keyed    keyed[*Breaker]

	using sync.Mutex // held while the configuration is replaced; taken first
	mu    sync.Mutex // guards what follows; taken before the locks of breakers
	gates map[*gate]struct{}
}

// NewGroup returns a group without breakers, or all that is wrong with the
// configuration of those that it will make.
func NewGroup(cfg Config) (*Group, error) {
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	g := &Group{changes: &events.Queue[Change]{Tell: cfg.OnChange}, gates: map[*gate]struct{}{}}
	g.settings.Store(set)
	g.keyed = keyed[*Breaker]{
		build:   func(key string) *Breaker { return newBreaker(key, g.settings.Load(), g.changes, nil) },
		keep:    (*Breaker).matters,
		clock:   set.Clock,
		most:    set.MaxKeys,
		idleFor: set.IdleFor,
	}
	return g, nil
}

// Breaker returns the breaker of a key, which is its name. Use it at once rather than
// keep it: the group may drop it when it is not asked for.
func (g *Group) Breaker(key string) *Breaker { return g.keyed.get(key) }

// matters reports whether a new breaker would not do as well: this one is open, or somebody
// has set its mode.
func (b *Breaker) matters() bool {
	set, p := b.settings.Load(), b.phase.Load()
	return set.mode != set.Mode || (p.state == Open && set.elapsed() < p.until)
}

// Remove drops the breaker of a key.
func (g *Group) Remove(key string) { g.keyed.remove(key) }

// All returns the breakers, those of endpoints included, sorted by name.
func (g *Group) All() []*Breaker {
	all := g.keyed.all()
	g.mu.Lock()
	for gate := range g.gates {
		all = append(all, gate.breaker)
	}
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b *Breaker) int { return strings.Compare(a.name, b.name) })
	return all
}

// Status returns what the breakers do, sorted by name.
func (g *Group) Status() []Status {
	all := g.All()
	list := make([]Status, len(all))
	for i, b := range all {
		list[i] = b.Status()
	}
	return list
}

// Use replaces the configuration of all breakers, as [Breaker.Use] does.
func (g *Group) Use(cfg Config) error {
	g.using.Lock()
	defer g.using.Unlock()
	next, err := g.settings.Load().with(cfg)
	if err != nil {
		return err
	}
	g.settings.Store(next) // first: those that are made from now on have it
	for _, b := range g.All() {
		b.use(next)
	}
	g.keyed.bound(next.MaxKeys, next.IdleFor)
	return nil
}

// Close drops all breakers; those of endpoints let everything through from now on. OnChange is
// not called any more when it has returned. It must not be called from there.
func (g *Group) Close() {
	g.changes.Close()
	g.keyed.close()
	g.mu.Lock()
	gates := g.gates
	g.gates = map[*gate]struct{}{}
	g.mu.Unlock()
	for gate := range gates {
		_ = gate.breaker.SetMode(Disabled) // which is a mode
		gate.Gone()
	}
}

// Tell calls OnChange with what has not been told yet. The balancer calls it.
func (g *Group) Tell() { g.changes.Flush() }

// Gate makes the breaker of a balancer's endpoint. The balancer calls it.
func (g *Group) Gate(n *node.Node) node.Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate := &gate{group: g, node: n}
	gate.breaker = newBreaker(n.Name(), g.settings.Load(), g.changes, gate)
	gate.breaker.mu.Lock()
	gate.pushLocked() // nobody has the node yet who could be told
	gate.breaker.mu.Unlock()
	g.gates[gate] = struct{}{}
	return gate
}

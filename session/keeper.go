package session

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Config is what a [Keeper] needs.
type Config struct {
	// Policy says how callers are kept. Nil means that nobody is.
	Policy *Policy
	// Target is the service, such as "http://users:80": a cookie is good for no other. Keepers of
	// the same service must have the same. Inside evenkeel.New it is set there.
	Target string
	// OnEvent, if set, is told of what is out of the ordinary. It is called by the goroutine of the
	// call that it happened to, so concurrently, with no lock held. Inside evenkeel.New it is set
	// there.
	OnEvent func(Event)
	// Clock is the clock to use; nil means the system's. Inside evenkeel.New it is set there.
	Clock clock.Clock
}

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	if c.Policy != nil {
		errs.Under("Policy", c.Policy.Validate())
	}
	return errs.Err()
}

// ErrUnavailable is the cause of the error of a call in strict mode whose endpoint cannot take it,
// or of which the Store cannot say where it belongs.
var ErrUnavailable = node.ErrPinned

// refusedError says why a call in strict mode is not made.
type refusedError struct{ why string }

// Error implements error.
func (e *refusedError) Error() string { return ErrUnavailable.Error() + ": " + e.why }

// Unwrap makes errors.Is find [ErrUnavailable].
func (e *refusedError) Unwrap() error { return ErrUnavailable }

// Reason returns [outcome.NoEndpoints].
func (e *refusedError) Reason() outcome.Reason { return outcome.NoEndpoints }

var (
	errStoreSilent error = &refusedError{"the store cannot say which one it is"}
	errStoreFull   error = &refusedError{"the store cannot take it in"}
)

// Keeper keeps the callers of one service at their endpoints. It is safe for concurrent use, and needs
// no end.
type Keeper struct {
	target  string
	onEvent func(Event)
	clock   clock.Clock
	work    atomic.Pointer[working] // nil if nobody is kept
	counts  counts
	down    atomic.Bool // the store has failed, and has not answered since
	told    atomic.Bool // which endpoints there are
	moves   *moves      // of sessions that no store knows

	attached atomic.Pointer[func(context.Context) error] // waits for the first endpoints

	mu        sync.Mutex // guards what follows; the lock of a pool may be held, none is taken
	policy    *Policy
	endpoints []discovery.Endpoint
	table     *Table // of policies without a store; it outlives them
}

// working is a policy at work. It is replaced as a whole when endpoints come and go.
type working struct {
	Policy
	way way
}

// way is how a kind knows callers.
type way interface {
	// begin finds out where the call belongs.
	begin(v *visit, req *http.Request)
	// claim is that of call.Affinity.
	claim(v *visit, endpoint, cause string) (elsewhere string, err error)
	// end is told which endpoint has answered, and whether it did what it should.
	end(v *visit, resp *http.Response, endpoint string, good bool)
}

// NewKeeper returns a keeper, or all that is wrong with the configuration.
func NewKeeper(c Config) (*Keeper, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k := &Keeper{target: c.Target, onEvent: c.OnEvent, clock: clock.Or(c.Clock)}
	var err error
	if k.moves, err = newMoves(k.clock); err != nil {
		return nil, err
	}
	if err := k.Use(c.Policy); err != nil {
		return nil, err
	}
	return k, nil
}

// Attach makes the keeper that of a pool, which calls it.
func (k *Keeper) Attach(ready func(context.Context) error) error {
	if !k.attached.CompareAndSwap(nil, &ready) {
		return errAttached
	}
	return nil
}

var errAttached = errors.New("session: the keeper is that of another pool already")

// await waits until it is known which endpoints there are: before, nobody can tell where a session belongs.
func (k *Keeper) await(ctx context.Context) error {
	ready := k.attached.Load()
	if k.told.Load() || ready == nil {
		return nil
	}
	return (*ready)(ctx)
}

// Use replaces the policy; nil means that nobody is kept any more. Sessions go on as far as the new policy
// knows them: those in a table of the keeper's stay. An error says what is wrong with the
// policy; then nothing has changed.
func (k *Keeper) Use(p *Policy) error {
	if p != nil {
		if err := p.Validate(); err != nil {
			return err
		}
		policy := p.WithDefaults()
		p = &policy
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.policy
	k.policy = p
	if err := k.workLocked(); err != nil {
		k.policy = before
		return err
	}
	return nil
}

// Endpoints tells which endpoints the service has. A pool whose Config.Sessions the keeper is does
// that; nobody else need. The slice must not be changed afterwards.
func (k *Keeper) Endpoints(all []discovery.Endpoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endpoints = all
	_ = k.workLocked() // the policy was good before
	k.told.Store(true)
}

// workLocked puts the policy and the endpoints to work.
func (k *Keeper) workLocked() error {
	if k.policy == nil {
		k.work.Store(nil)
		return nil
	}
	w := &working{Policy: *k.policy}
	switch kind := w.By.(type) {
	case Cookie:
		var old *cookieWay
		if before := k.work.Load(); before != nil {
			old, _ = before.way.(*cookieWay)
		}
		w.way = newCookieWay(kind, k.target, k.endpoints, old, k.moves)
	case Route:
		w.way = newRouteWay(kind, k.endpoints)
	case Key:
		store, err := k.storeLocked(kind.Store, kind.TTL, kind.MaxSessions)
		if err != nil {
			return err
		}
		w.way = &keyWay{store: store, prefix: k.prefix(kind.Store), from: sources(kind.From).Compile()}
	case Learn:
		store, err := k.storeLocked(kind.Store, kind.TTL, kind.MaxSessions)
		if err != nil {
			return err
		}
		w.way = &learnWay{kind, keyWay{store: store, prefix: k.prefix(kind.Store), from: hashkey.Sources{kind.source()}.Compile()}}
	case Hash: // is the balancer's doing
		w = nil
	}
	k.work.Store(w)
	return nil
}

// prefix returns what comes before keys in a store of the user's, which may serve many services.
func (k *Keeper) prefix(users Store) string {
	if users == nil {
		return ""
	}
	return StoreKey(k.target, "")
}

// storeLocked returns the store of a policy: the user's, or the table.
func (k *Keeper) storeLocked(users Store, ttl time.Duration, most int) (Store, error) {
	if users != nil {
		return users, nil
	}
	if k.table != nil {
		k.table.resize(ttl, most)
		return k.table, nil
	}
	table, err := NewTable(TableConfig{TTL: ttl, MaxSessions: most, Clock: k.clock})
	if err != nil {
		return nil, err
	}
	k.table = table
	return table, nil
}

// Status is what a keeper has counted, and what it knows at one moment.
type Status struct {
	// New is how many sessions were pinned for the first time. Of one that begins with several
	// calls at once, more than one may count.
	New uint64
	// Kept is how many calls went to the endpoint where they belong.
	Kept uint64
	// Moved is how many sessions moved to another endpoint.
	Moved uint64
	// Rejected is how many calls had a cookie that was not valid.
	Rejected uint64
	// Refused is how many calls failed because of strict mode.
	Refused uint64
	// StoreErrors is how often the store failed.
	StoreErrors uint64
	// Sessions is how many the table in memory holds; 0 without one.
	Sessions int
}

type counts struct{ pinned, kept, moved, rejected, refused, storeErrors atomic.Uint64 }

// Status returns what is known now.
func (k *Keeper) Status() Status {
	s := Status{
		New: k.counts.pinned.Load(), Kept: k.counts.kept.Load(), Moved: k.counts.moved.Load(),
		Rejected: k.counts.rejected.Load(), Refused: k.counts.refused.Load(), StoreErrors: k.counts.storeErrors.Load(),
	}
	k.mu.Lock()
	table := k.table
	k.mu.Unlock()
	if table != nil {
		s.Sessions = table.Len()
	}
	return s
}

// tell tells of an event.
func (k *Keeper) tell(e Event) {
	if k.onEvent != nil {
		e.Time = k.clock.Now()
		k.onEvent(e)
	}
}

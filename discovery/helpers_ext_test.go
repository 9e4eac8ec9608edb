package discovery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// watch is one watch of a resolver and all that it said.
type watch struct {
	t       *testing.T
	clock   clock.Clock
	start   time.Time
	refresh chan struct{}
	cancel  context.CancelFunc
	done    chan error

	inside atomic.Int32 // calls of the sink that run now
	ended  atomic.Bool  // Watch has returned

	mu   sync.Mutex
	said []said
}

// said is one call of the sink.
type said struct {
	at      time.Duration
	set     []discovery.Endpoint
	skipped error
	failed  error
}

func (s said) String() string {
	if s.failed != nil {
		return fmt.Sprintf("%v failed", s.at)
	}
	return fmt.Sprintf("%v %s", s.at, addresses(s.set))
}

func addresses(set []discovery.Endpoint) string {
	var list []string
	for _, e := range set {
		list = append(list, e.Address)
	}
	slices.Sort(list)
	return "[" + strings.Join(list, " ") + "]"
}

// start watches r on the system's clock, without jitter.
func start(t *testing.T, r discovery.Resolver) *watch {
	t.Helper()
	return startOn(t, r, clock.System, func() float64 { return 0.5 })
}

func startOn(t *testing.T, r discovery.Resolver, c clock.Clock, random func() float64) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{
		t: t, clock: c, start: c.Now(), cancel: cancel,
		refresh: make(chan struct{}, 1), done: make(chan error, 1),
	}
	sink := discovery.Sink{
		Update:  func(set []discovery.Endpoint, skipped error) { w.note(said{set: set, skipped: skipped}) },
		Fail:    func(err error) { w.note(said{failed: err}) },
		Refresh: w.refresh, Clock: c, Rand: random,
	}
	go func() {
		err := r.Watch(ctx, sink)
		w.ended.Store(true)
		w.done <- err
	}()
	return w
}

func (w *watch) note(s said) {
	if w.inside.Add(1) > 1 {
		w.t.Error("calls of the sink overlap")
	}
	defer w.inside.Add(-1)
	if w.ended.Load() {
		w.t.Error("a call of the sink after the end of Watch")
	}
	s.at = w.clock.Now().Sub(w.start)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, s)
}

// stop ends the watch and returns all that it said.
func (w *watch) stop() []said {
	w.t.Helper()
	w.cancel()
	require.ErrorIs(w.t, <-w.done, context.Canceled)
	return w.all()
}

func (w *watch) all() []said {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.said)
}

// last returns the set that was told last.
func (w *watch) last() []discovery.Endpoint {
	for _, s := range slices.Backward(w.all()) {
		if s.failed == nil {
			return s.set
		}
	}
	return nil
}

// ask asks for a fresh look, as an owner does: without waiting.
func (w *watch) ask() {
	select {
	case w.refresh <- struct{}{}:
	default:
	}
}

// lines returns what was said, a line for each call.
func lines(all []said) []string {
	var list []string
	for _, s := range all {
		list = append(list, s.String())
	}
	return list
}

// failures returns the errors that were told.
func failures(all []said) []error {
	var list []error
	for _, s := range all {
		if s.failed != nil {
			list = append(list, s.failed)
		}
	}
	return list
}

// events writes down what a LastGood says.
type events struct {
	mu   sync.Mutex
	list []discovery.Event
}

func (e *events) add(event discovery.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) all() []discovery.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

func (e *events) of(kind discovery.EventKind) []discovery.Event {
	var list []discovery.Event
	for _, event := range e.all() {
		if event.Kind == kind {
			list = append(list, event)
		}
	}
	return list
}

// script is a resolver whose test says what its watches do.
type script func(ctx context.Context, sink discovery.Sink) error

func (s script) Watch(ctx context.Context, sink discovery.Sink) error { return s(ctx, sink) }

// stay is the end of a script that does nothing more.
func stay(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func set(list ...string) []discovery.Endpoint {
	var endpoints []discovery.Endpoint
	for _, address := range list {
		endpoints = append(endpoints, discovery.Endpoint{Address: address})
	}
	return endpoints
}

// names is a name service that a test changes while it is asked.
type names struct {
	mu      sync.Mutex
	records map[string]records // by network and host, such as "ip4 users."
	asked   []query
	now     int // look-ups that run
	most    int // the most that ran at the same time
}

type query struct {
	at   time.Time
	what string
}

type records struct {
	addrs []netip.Addr
	err   error
	takes time.Duration
	hangs bool // until the context is done
}

func newNames() *names { return &names{records: map[string]records{}} }

func (n *names) set(what string, list ...string) {
	r := records{}
	for _, s := range list {
		r.addrs = append(r.addrs, netip.MustParseAddr(s))
	}
	n.put(what, r)
}

func (n *names) fail(what string, err error) { n.put(what, records{err: err}) }

func (n *names) put(what string, r records) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records[what] = r
}

// Lookup is a DNS.Lookup. What it has no records for does not exist.
func (n *names) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	what := network + " " + host
	n.mu.Lock()
	r, ok := n.records[what]
	n.asked = append(n.asked, query{time.Now(), what})
	n.now++
	n.most = max(n.most, n.now)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.now--
	}()
	if r.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(r.takes)
	if !ok {
		return nil, notFound(host)
	}
	return r.addrs, r.err
}

// times returns when something was asked for, since the first time.
func (n *names) times(what string) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []time.Duration
	var first time.Time
	for _, q := range n.asked {
		if q.what != what {
			continue
		}
		if first.IsZero() {
			first = q.at
		}
		list = append(list, q.at.Sub(first))
	}
	return list
}

func notFound(host string) error {
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func servfail(host string) error {
	return &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
}

// seeded returns a reproducible source, and prints its seed should the test fail.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
}

func assertGaps(t *testing.T, times []time.Duration, least, most time.Duration) {
	t.Helper()
	for i := 1; i < len(times); i++ {
		gap := times[i] - times[i-1]
		assert.GreaterOrEqual(t, gap, least, "look-up %d", i)
		assert.LessOrEqual(t, gap, most, "look-up %d", i)
	}
}

func assertProblems(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		require.NoError(t, err)
		return
	}
	require.Error(t, err)
	got := strings.Split(err.Error(), "\n")
	require.Len(t, got, len(want), "%v", err)
	for i, prefix := range want {
		assert.True(t, strings.HasPrefix(got[i], prefix), "%q should begin with %q", got[i], prefix)
	}
}

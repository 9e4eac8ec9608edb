package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/events"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/internal/template"
)

// Config says how the endpoints of a service are watched. The zero Config looks at their answers
// only.
type Config struct {
	// Check says how endpoints are probed. Nil means not at all.
	Check *Check

	// Outlier says which endpoints are ejected because of their answers.
	Outlier Outlier

	// Target is the service as a URL, such as "https://users.internal:8443": HTTP and gRPC
	// probes have its scheme and host, and its host as the TLS server name. Empty means
	// that each endpoint is asked under its own address, without TLS. Inside evenkeel.New it is
	// set there.
	Target string

	// Transport is the template of the connections of probes. Nil means one with the defaults that
	// the documentation of package balancer lists. In a balancer.Pool it is not used: there, they
	// are made as those of the traffic.
	Transport *http.Transport

	// OnChange, if set, is told of each change, in order. Calls do not overlap, no lock is held,
	// and it may use the monitor, but not close it. Inside evenkeel.New it is set there.
	OnChange func(Change)

	// Clock is the clock to use; nil means the system's. Inside evenkeel.New it is set there.
	Clock clock.Clock

	// Rand is the source of jitter and chance; nil means the runtime's. Access is serialised.
	// Inside evenkeel.New it is set there.
	Rand rand.Source
}

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	if c.Check != nil {
		errs.Under("Check", c.Check.Validate())
	}
	errs.Under("Outlier", c.Outlier.Validate())
	if c.Target != "" {
		u, err := url.Parse(c.Target)
		valid := err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
		errs.Check(valid, "Target", "(not shown)", "must be a URL with the scheme http or https and a host")
		errs.Check(!valid || c.Check == nil || isASCII(u.Host), "Target", "(not shown)", "must be in ASCII (xn--) if there are probes")
	}
	errs.Under("Transport", template.Check(c.Transport))
	return errs.Err()
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// settings is a valid configuration, with its defaults, as monitors use it.
type settings struct {
	check   *Check // nil if nobody is probed
	prober  prober
	outlier Outlier
}

// looks reports whether it makes a difference if there is traffic.
func (s *settings) looks() bool { return s.check != nil || !s.outlier.Disabled }

func newSettings(c Config) (*settings, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &settings{outlier: c.Outlier.WithDefaults()}
	if c.Check != nil {
		check := c.Check.WithDefaults()
		s.check, s.prober = &check, check.Probe.prober()
	}
	return s, nil
}

// Monitor watches the endpoints of one service. Give it to a balancer.Pool, which then picks
// only those that can serve, or use it alone by [Monitor.Add]. It is safe for concurrent use.
type Monitor struct {
	settings atomic.Pointer[settings]
	clock    clock.Clock
	start    time.Time
	now      func() time.Time
	bits     func() uint64 // random ones
	changes  events.Queue[Change]
	target   *url.URL

	busy atomic.Bool // there was traffic since the last look at the rates

	ctx      context.Context //nolint:containedctx // that of all probes: Close ends it
	stop     context.CancelFunc
	wanted   chan struct{}  // a probe is in the queue
	dispatch sync.WaitGroup // what takes probes from there

	mu          sync.Mutex // guards what follows; the locks of nodes' owners may be held, none is taken
	lines       *lines
	attached    bool
	watches     []*watch
	queue       []*watch // whose probes are due
	dispatching bool
	healthy     int // how many probes have found so
	ejected     int // how many are, those that leave included
	census      census
	sweeping    clock.Timer   // nil if there is no traffic
	sweeps      int           // how many times it was set
	rousing     clock.Timer   // nil if there was always traffic
	trimming    clock.Timer   // nil if nobody has left
	telling     clock.Timer   // nil if all events were told
	traffic     time.Time     // when there was any, as far as is known
	told        bool          // somebody has told of an answer
	swept       time.Duration // when the rates were last looked at
	candidates  []candidate   // of the sweep, kept for the next
	credited    []*watch      // so, who have served well
	serial      uint64        // of endpoints that were added one by one
	closed      bool
	changed     []*node.Node // whose owners are to be told
	dropped     []*node.Node // whose idle connections are to be closed
}

// NewMonitor returns a monitor without endpoints, or all that is wrong with the configuration.
func NewMonitor(cfg Config) (*Monitor, error) {
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	m := &Monitor{
		clock: clock.Or(cfg.Clock), bits: random.Bits(cfg.Rand), wanted: make(chan struct{}, 1),
	}
	if cfg.Target != "" {
		m.target, _ = url.Parse(cfg.Target) // it is valid
	}
	m.changes.Tell = cfg.OnChange
	m.start = m.clock.Now()
	m.now, m.traffic = clock.Instants(m.clock), m.start
	m.lines = newLines(m.target, node.Ways{Template: template.New(cfg.Transport)}, m.clock)
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.settings.Store(set)
	return m, nil
}

// errAttached is the refusal of a second pool.
var errAttached = errors.New("health: the monitor watches the endpoints of another pool")

// Attach tells how connections are made. The balancer calls it.
func (m *Monitor) Attach(ways node.Ways) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attached || len(m.watches) > 0 {
		return errAttached
	}
	m.attached = true
	m.lines = newLines(m.target, ways, m.clock)
	return nil
}

// Monitor begins to watch an endpoint. The balancer calls it.
func (m *Monitor) Monitor(n *node.Node) node.Monitor { return m.watch(n) }

// Settle counts the endpoints anew, and lets those come back that are too many to be ejected. The
// balancer calls it.
func (m *Monitor) Settle() (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.census.stale = true
	if m.closed {
		return false
	}
	if before := m.ejected; before > 0 {
		m.trimLocked()
		if m.ejected < before && m.telling == nil {
			m.telling = m.clock.AfterFunc(0, m.tell) // not under the balancer's lock
		}
	}
	m.releaseLocked()
	changed = len(m.changed) > 0
	m.changed = nil // the balancer looks for itself, at all of them
	return changed
}

// tell tells events that were not told.
func (m *Monitor) tell() {
	m.mu.Lock()
	m.telling = nil
	m.unlock()
}

func (m *Monitor) watch(n *node.Node) *watch {
	w := &watch{monitor: m, node: n}
	w.since.Store(always)
	m.mu.Lock()
	defer m.mu.Unlock()
	w.line = &line{lines: m.lines, endpoint: n.Endpoint(), serial: n.Serial()}
	if m.closed {
		w.gone = true
		return w
	}
	w.place = len(m.watches)
	m.watches = append(m.watches, w)
	m.census.stale = true
	set := m.settings.Load()
	if set.outlier.SlowerBy > 0 {
		w.latencies.Store(newLatencies(m.bits))
	}
	if set.check != nil {
		m.holdLocked(w, set.check)
		m.beginLocked(w, set.check)
	}
	return w
}

// forget ends the watch of an endpoint that has left.
func (m *Monitor) forget(w *watch) {
	if m.leave(w) {
		w.line.close()
	}
}

// leave takes an endpoint out of the list, if it is there.
func (m *Monitor) leave(w *watch) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.gone {
		return false
	}
	w.gone = true
	m.stopProbingLocked(w)
	if w.back != nil {
		w.back.Stop()
	}
	if w.state == Healthy {
		m.healthy--
	}
	if w.cause != "" {
		m.ejected--
	}
	last := m.watches[len(m.watches)-1]
	m.watches[w.place], last.place = last, w.place
	m.watches = m.watches[:len(m.watches)-1]
	m.trimSoonLocked()
	return true
}

// unlock tells what was done under the lock, without it.
func (m *Monitor) unlock() {
	changed, dropped := m.changed, m.dropped
	m.changed, m.dropped = nil, nil
	m.mu.Unlock()
	if len(changed) > 0 {
		changed[0].Changed(changed[1:]...) // at once: each time, the balancer looks at all endpoints
	}
	for _, n := range dropped {
		n.Base().CloseIdleConnections()
	}
	m.changes.Flush()
}

// chance returns a random number of [0,1).
func (m *Monitor) chance() float64 { return float64(m.bits()>>11) / (1 << 53) }

// setLocked makes the reasons of a mask those that are given.
func (m *Monitor) setLocked(w *watch, mask, r node.Reasons) {
	if w.node.Set(mask, r) {
		m.changed = append(m.changed, w.node)
	}
}

// at returns an instant as the monitor counts time; zero means now.
func (m *Monitor) at(t time.Time) time.Duration {
	if t.IsZero() {
		t = m.now()
	}
	return t.Sub(m.start)
}

// wake notes that there is traffic.
func (m *Monitor) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.busy.Load() {
		return
	}
	now := m.now()
	set := m.settings.Load()
	if m.idleLocked(set, now) {
		m.rousing = m.clock.AfterFunc(0, m.rouse) // by whoever has time: this is somebody's request
	}
	m.busy.Store(true)
	m.traffic, m.told = now, true
	if m.sweeping == nil && set.looks() {
		m.sweepAfterLocked(set.outlier.Interval)
	}
}

// Use replaces Check and Outlier. What is known of the endpoints stays: their states, how many
// probes have failed in a row, ejections and how long they last. What is switched off is forgotten.
// An error says what is wrong; then nothing has changed.
func (m *Monitor) Use(cfg Config) error {
	set, err := newSettings(cfg)
	if err != nil {
		return err
	}
	if idle, own := m.use(set); idle != nil {
		idle.close()
		for _, w := range own {
			w.line.closeOwn(false)
		}
	}
	return nil
}

// use brings all endpoints under other settings. If probes are others now, it returns the
// connections that nobody needs any more.
func (m *Monitor) use(set *settings) (*lines, []*watch) {
	m.mu.Lock()
	defer m.unlock()
	if m.closed {
		return nil, nil
	}
	old := m.settings.Swap(set)
	m.busy.Store(false) // the next request starts what it may have to
	now := m.now()
	others := old.check != nil && (set.check == nil || !reflect.DeepEqual(old.check.Probe, set.check.Probe))
	for _, w := range m.watches {
		if others {
			w.notBefore = time.Time{} // that was said to the probes before
			if w.cancel != nil {
				w.cancel() // what it finds is no answer to the new question
			}
		} else if set.check != nil && w.notBefore.After(now.Add(set.check.MaxDownInterval)) {
			w.notBefore = now.Add(set.check.MaxDownInterval)
		}
		m.useCheckLocked(w, set.check, now)
		m.useOutlierLocked(w, &old.outlier, &set.outlier, now)
	}
	m.trimLocked()
	if m.sweeping != nil && old.outlier.Interval != set.outlier.Interval {
		m.sweepAfterLocked(set.outlier.Interval)
	}
	if !others {
		return nil, nil
	}
	return m.lines, slices.Clone(m.watches)
}

// useOutlierLocked brings an endpoint under other settings.
func (m *Monitor) useOutlierLocked(w *watch, old, o *Outlier, now time.Time) {
	switch {
	case o.Disabled:
		m.returnLocked(w, now)
		w.level = 0
	case old.Disabled:
		w.restart(m.at(now))
	}
	switch slow := w.latencies.Load(); {
	case o.SlowerBy == 0 || o.Disabled:
		w.latencies.Store(nil)
	case slow == nil:
		w.latencies.Store(newLatencies(m.bits))
	}
}

// Close ends all probes and waits for them, but for what the user has written: the context of a
// [Func] ends, and that of a request over a transport of the user's own, and nobody waits for their
// return. Endpoints stay as they are, and OnChange is not called any more. It may be called more than
// once, but not by OnChange.
func (m *Monitor) Close() {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		for _, w := range m.watches {
			m.stopProbingLocked(w)
			if w.back != nil {
				w.back.Stop()
			}
		}
		for _, t := range []clock.Timer{m.sweeping, m.rousing, m.trimming, m.telling} {
			if t != nil {
				t.Stop()
			}
		}
	}
	watches := slices.Clone(m.watches)
	m.mu.Unlock()
	m.stop()
	m.dispatch.Wait()
	for _, w := range watches {
		w.line.close()
	}
	m.lines.close()
	m.changes.Close()
}

// Status is what a monitor knows of an endpoint.
type Status struct {
	// Endpoint is what discovery says of it.
	Endpoint discovery.Endpoint
	// State is what probes have found out.
	State State
	// Probed is when the last probe ended, zero if none has.
	Probed time.Time
	// Took is how long that took.
	Took time.Duration
	// Err is what it found, nil if it was good.
	Err error
	// Ejected is why the endpoint is ejected, empty if it is not.
	Ejected Cause
	// Until is when that ends.
	Until time.Time
	// Shadow says that it goes on being used.
	Shadow bool
	// Ejections is how often it was ejected.
	Ejections uint64
	// Level is how many times as long as the first its last ejection was to be, less what good
	// service has taken back.
	Level int
}

// Status returns what is known of all endpoints.
func (m *Monitor) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Status, len(m.watches))
	for i, w := range m.watches {
		list[i] = w.statusLocked()
	}
	return list
}

func (w *watch) statusLocked() Status {
	return Status{
		Endpoint: w.node.Endpoint(), State: w.state,
		Probed: w.latest.when, Took: w.latest.took, Err: w.latest.err,
		Ejected: w.cause, Until: w.until, Shadow: w.shadow,
		Ejections: w.number, Level: w.level,
	}
}

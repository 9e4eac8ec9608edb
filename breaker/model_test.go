package breaker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// reference is what the documentation says of a breaker, done slowly: it keeps every
// sample and every permit, and looks at all of them each time.
type reference struct {
	cfg  Config // with its defaults
	mode Mode   // that of cfg, or what was set
	now  time.Duration
	u16  int64 // what chance says, in sixteenths

	state     State
	because   Reason
	since     time.Duration
	until     time.Duration // open: when probes pass; closed: when all pass
	forced    bool          // open, and not by itself
	life      int           // permits of another one do not count
	level     int           // doublings
	samples   []sample
	row       int
	rejected  uint64
	good, bad int
	probes    []*ticket // under way
	told      []Change
	seen      *visits
}

type sample struct {
	at           time.Duration
	failed, slow bool
}

// ticket is the model's permit.
type ticket struct {
	life    int
	began   time.Duration
	state   State
	none    bool // it passed although Auto would have refused
	untimed bool // slowness was not looked at when it began
	over    bool // given back
}

func newReference(cfg Config, seen *visits) *reference {
	m := &reference{cfg: cfg.WithDefaults(), because: Created, seen: seen}
	m.mode = m.cfg.Mode
	m.forced = m.mode == ForcedOpen
	if m.forced {
		m.state = Open
	}
	return m
}

// window returns what is in the window: of a time, the ten tenths up to now.
func (m *reference) window() (successes, failures, slow int) {
	in := m.samples
	if n := m.cfg.WindowCalls; n > 0 {
		in = in[max(0, len(in)-n):]
	}
	for _, s := range in {
		if tenth := m.cfg.Window / 10; m.cfg.WindowCalls == 0 && m.now/tenth-s.at/tenth >= 10 {
			continue
		}
		if s.failed {
			failures++
		} else {
			successes++
		}
		if s.slow {
			slow++
		}
	}
	return successes, failures, slow
}

// looks reports whether anything looks at a window.
func looks(c *Config) bool { return c.FailureRate != Off || c.SlowAfter > 0 || c.TripIf != nil }

func (m *reference) counts() Counts {
	c := Counts{Successes: m.good, Failures: m.bad, ConsecutiveFailures: m.row, Rejected: m.rejected}
	if m.state == Closed && looks(&m.cfg) {
		c.Successes, c.Failures, c.Slow = m.window()
	}
	return c
}

// enter begins another state, or the same one anew.
func (m *reference) enter(state State, because Reason, at time.Duration, left Counts) {
	if state != m.state {
		m.told = append(m.told, Change{Name: "users", From: m.state, To: state, Reason: because, Mode: m.mode, Counts: left, At: dawn.Add(at)})
	}
	m.seen.reasons[because]++
	m.state, m.because, m.since, m.until, m.forced = state, because, at, at, false
	m.life++
	m.samples, m.row, m.rejected, m.good, m.bad, m.probes = nil, 0, 0, 0, 0, nil
}

// anew begins as the mode says.
func (m *reference) anew(because Reason, left Counts) {
	m.level = 0
	state := Closed
	if m.mode == ForcedOpen {
		state = Open
	}
	m.enter(state, because, m.now, left)
	m.forced = state == Open
}

// openTime is d_k: OpenFor, doubled so often, at most MaxOpenFor.
func (m *reference) openTime(k int) time.Duration {
	d := m.cfg.OpenFor
	for range k - 1 {
		d = min(2*d, m.cfg.MaxOpenFor)
	}
	return min(d, m.cfg.MaxOpenFor)
}

// random is the part of a time that is left to chance.
func (m *reference) random(d time.Duration) time.Duration {
	if m.cfg.Jitter == Off {
		return 0
	}
	return d * time.Duration(int64(m.cfg.Jitter*64)*m.u16) / (64 * 16)
}

func (m *reference) open(because Reason, at, retryAfter time.Duration) {
	if m.state == Closed {
		calm := at - m.since
		for m.level > 0 && calm >= m.openTime(m.level) {
			calm -= m.openTime(m.level)
			m.level--
		}
	}
	if m.level == 0 || m.openTime(m.level) < m.cfg.MaxOpenFor {
		m.level++
	}
	d := m.openTime(m.level)
	wait := d - m.random(d)
	if retryAfter > 0 && !m.cfg.IgnoreRetryAfter {
		wait = max(wait, min(retryAfter+m.random(retryAfter), m.cfg.MaxOpenFor))
	}
	m.enter(Open, because, at, m.counts())
	m.until = at + wait
	m.told[len(m.told)-1].Until = dawn.Add(m.until)
}

func (m *reference) shut() {
	m.enter(Closed, ProbesSucceeded, m.now, m.counts())
	m.until = m.now + m.cfg.RampFor
}

// advance does what time has brought.
func (m *reference) advance() {
	for {
		switch {
		case m.state == Open && !m.forced && m.now >= m.until:
			m.enter(HalfOpen, OpenTimeOver, m.until, m.counts())
		case m.state == HalfOpen && len(m.probes) > 0 && m.now-m.probes[0].began >= m.cfg.ProbeTimeout:
			hung := m.probes[0]
			m.probes = m.probes[1:]
			if m.bad++; m.bad >= m.cfg.ProbeFailures {
				m.open(ProbeTimedOut, hung.began+m.cfg.ProbeTimeout, 0)
			}
		default:
			return
		}
	}
}

// share is which part of the calls passes.
func (m *reference) share() float64 {
	if m.now >= m.until {
		return 1
	}
	return max(float64(m.now-m.since)/float64(m.until-m.since), 0.1)
}

// allow returns nil for a call that is refused.
func (m *reference) allow() *ticket {
	m.advance()
	t := &ticket{life: m.life, began: m.now, state: m.state}
	switch m.state {
	case Closed:
		if float64(m.u16)/16 < m.share() {
			t.untimed = m.cfg.SlowAfter == 0
			return t
		}
	case HalfOpen:
		if len(m.probes) < m.cfg.Probes && len(m.probes)+m.good < max(m.cfg.Probes, m.cfg.ProbeSuccesses) {
			m.probes = append(m.probes, t)
			return t
		}
	case Open:
	}
	m.rejected++
	if m.mode != MetricsOnly {
		return nil
	}
	t.none = true
	return t
}

// done reports whether the result counts.
func (m *reference) done(t *ticket, r Result) bool {
	if t.over || t.none {
		return false
	}
	t.over = true
	failed := r.Class == outcome.Failure || r.Class == outcome.NeverSent || (r.Class == outcome.Overload && m.cfg.OverloadFails)
	succeeded := r.Class == outcome.Success
	alive := r.Class == outcome.ClientError
	took := r.Took
	if took == 0 {
		took = m.now - t.began
	}
	slow := m.cfg.SlowAfter > 0 && took > m.cfg.SlowAfter
	if t.state == Closed {
		if t.life != m.life || m.mode == Disabled || (!failed && !succeeded) {
			return false
		}
		m.samples = append(m.samples, sample{m.now, failed, slow})
		if m.row++; !failed {
			m.row = 0
		}
		if failed || slow {
			m.judge(r.RetryAfter)
		}
		return true
	}
	m.advance()
	i := slices.Index(m.probes, t)
	if t.life != m.life || i < 0 {
		return false
	}
	m.probes = slices.Delete(m.probes, i, i+1)
	switch {
	case !failed && !succeeded && !alive:
		return false
	case failed || slow:
		m.bad++
	default:
		m.good++
	}
	m.judgeProbes(r.RetryAfter)
	return true
}

// judge opens a closed breaker that has seen enough.
func (m *reference) judge(retryAfter time.Duration) {
	c := m.counts()
	calls := float64(c.Successes + c.Failures)
	least := float64(m.cfg.MinCalls)
	enough := calls >= max(min(5, least), least*m.share())
	switch {
	case m.cfg.ConsecutiveFailures != Off && m.row >= m.cfg.ConsecutiveFailures:
		m.open(ConsecutiveFailures, m.now, retryAfter)
	case m.cfg.FailureRate != Off && enough && float64(c.Failures)/calls >= m.cfg.FailureRate:
		m.open(FailureRate, m.now, retryAfter)
	case m.cfg.SlowAfter > 0 && enough && float64(c.Slow)/calls >= m.cfg.SlowRate:
		m.open(SlowRate, m.now, retryAfter)
	case m.cfg.TripIf != nil && m.cfg.TripIf(c):
		m.open(Predicate, m.now, retryAfter)
	}
}

func (m *reference) judgeProbes(retryAfter time.Duration) {
	switch {
	case m.bad >= m.cfg.ProbeFailures:
		m.open(ProbeFailed, m.now, retryAfter)
	case m.good >= m.cfg.ProbeSuccesses:
		m.shut()
	}
}

// use takes another configuration, and its mode if that is not the one of before.
// use takes another configuration. A mode that somebody has set stays, unless the
// configurations have different ones.
func (m *reference) use(cfg Config) {
	next := cfg.Mode
	if m.mode != m.cfg.Mode && cfg.Mode == m.cfg.Mode {
		next = m.mode
	}
	m.change(cfg.WithDefaults(), next)
}

func (m *reference) change(cfg Config, mode Mode) {
	m.advance()
	old, was, left := m.cfg, m.mode, m.counts()
	m.cfg, m.mode = cfg, mode
	switch fixed := func(m Mode) bool { return m == ForcedOpen || m == Disabled }; {
	case was != mode && (fixed(was) || fixed(mode)):
		m.anew(ModeSet, left)
	case m.state == HalfOpen:
		m.judgeProbes(0)
	case m.state == Closed && (old.Window != cfg.Window || old.WindowCalls != cfg.WindowCalls || looks(&old) != looks(&cfg)):
		m.samples = nil
		m.life++
	}
}

func (m *reference) reset() {
	m.advance()
	m.anew(WasReset, m.counts())
}

func (m *reference) status() Status {
	s := Status{Name: "users", Mode: m.mode, State: m.state, Because: m.because, Since: dawn.Add(m.since), Counts: m.counts()}
	if m.state == Open && !m.forced {
		s.Until = dawn.Add(m.until)
	}
	return s
}

// operation is one of a sequence.
type operation struct {
	what   string
	pick   int // which permit, which mode
	result Result
	wait   time.Duration
	u16    int64
	cfg    *Config
	quiet  bool // nobody looks at the breaker after it
}

func (o *operation) String() string {
	s := o.what
	switch o.what {
	case "done", "call":
		s += fmt.Sprintf(" %d %v took %v, retry after %v", o.pick, o.result.Class, o.result.Took, o.result.RetryAfter)
	case "wait":
		s += fmt.Sprint(" ", o.wait, " or, if that is 0, until it is half-open, less ", o.pick%4/3)
	case "mode":
		s += " " + Mode(o.pick).String()
	case "use":
		s += " " + shown(*o.cfg)
	case "chance":
		s += fmt.Sprintf(" %d/16", o.u16)
	}
	if o.quiet {
		s += ", quiet"
	}
	return s
}

// shown shows what is set in a configuration.
func shown(c Config) string {
	predicate := c.TripIf != nil
	c.TripIf = nil
	s := fmt.Sprintf("%+v", c)
	for _, name := range []string{"MaxKeys:0 ", "IdleFor:0s ", "TripIf:<nil> ", " Key:<nil>", " Classifier:<nil>", " OnChange:<nil>", " Clock:<nil>", " Rand:<nil>"} {
		s = strings.Replace(s, name, "", 1)
	}
	return fmt.Sprint(s, " with a predicate: ", predicate)
}

// one returns one of some values.
func one[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

var predicates = []func(Counts) bool{
	nil, nil, nil,
	func(c Counts) bool { return c.Failures >= 3 },
	func(c Counts) bool { return c.ConsecutiveFailures == 2 && c.Successes > 0 },
	func(c Counts) bool { return c.Slow >= 2 || c.Rejected > 2 },
}

// anyConfig returns a valid configuration that is likely to do something.
func anyConfig(r *rand.Rand) Config {
	c := Config{
		Mode:                one(r, Auto, Auto, Auto, Auto, Auto, MetricsOnly, MetricsOnly, Disabled, ForcedOpen),
		ConsecutiveFailures: one(r, 0, 1, 2, 3, Off, Off),
		FailureRate:         one(r, 0, Off, 0.25, 0.5, 1),
		SlowAfter:           one(r, 0, 0, time.Second, 50*time.Millisecond),
		SlowRate:            one(r, 0, 0.5, 1),
		MinCalls:            one(r, 1, 2, 3, 5, 0),
		OpenFor:             one(r, 0, time.Second, 500*time.Millisecond),
		MaxOpenFor:          one(r, 0, 5*time.Second, 7*time.Second, 20*time.Second),
		IgnoreRetryAfter:    r.IntN(4) == 0,
		Jitter:              one(r, 0, Off, 0.25, 1),
		Probes:              one(r, 0, 1, 1, 2, 4),
		ProbeSuccesses:      one(r, 0, 0, 1, 2, 3, 5),
		ProbeFailures:       one(r, 0, 0, 1, 2, 3),
		ProbeTimeout:        one(r, 0, time.Second, 3*time.Second),
		RampFor:             one(r, 0, 0, 2*time.Second, 10*time.Second),
		OverloadFails:       r.IntN(3) == 0,
		TripIf:              one(r, predicates...),
	}
	switch r.IntN(4) {
	case 0:
		c.Window = one(r, time.Second, 100*time.Millisecond)
	case 1:
		c.WindowCalls = one(r, 1, 2, 4, 10)
		c.MinCalls = min(c.MinCalls, c.WindowCalls)
	}
	if r.IntN(8) == 0 {
		c.MaxOpenFor = c.WithDefaults().OpenFor
	}
	return c
}

// anyOperation returns one of a time at which most calls fail, or most do not.
func anyOperation(r *rand.Rand, sick bool) operation {
	o := operation{pick: r.IntN(1000), quiet: r.IntN(4) == 0}
	switch n := r.IntN(100); {
	case n < 15:
		o.what = "allow"
	case n < 70:
		o.what = "call" // begins and ends at once
		if n < 30 {
			o.what = "done"
		}
		o.result.Class = one(r, ok200, ok200, ok200, ok200, ok404)
		if sick == (r.IntN(8) > 0) {
			o.result.Class = one(r, err429, err500, err500, err500, noDial)
			o.result.RetryAfter = one(r, 0, 0, 0, time.Second, 6*time.Second, time.Hour, -time.Second)
		}
		if r.IntN(8) == 0 {
			o.result = Result{Class: one(r, hangsUp, outcome.Class(r.IntN(12)))}
		}
		o.result.Took = one(r, 0, 0, 0, 1, 1, time.Second, time.Second+1, time.Minute)
	case n < 93:
		o.what = "wait"
		o.wait = one(r, 0, 0, 0, 0, 0, 0, 0, 0, 1, time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond, time.Second,
			2*time.Second, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute, time.Hour, time.Duration(r.Int64N(int64(10*time.Second))))
	case n < 94:
		o.what, o.pick = "mode", one(r, 0, 0, 0, 1, 2, 3, 3)
	case n < 95:
		o.what = "reset"
	case n < 97:
		next := anyConfig(r)
		o.what, o.cfg = "use", &next
	default:
		o.what, o.u16 = "chance", r.Int64N(16)
	}
	return o
}

// visits is what sequences have led to, so that none of it is missing.
type visits struct {
	admitted, refused [3]int // by state
	counted, not      int
	reasons           map[Reason]int
}

func newVisits() *visits { return &visits{reasons: map[Reason]int{}} }

func (v *visits) add(o *visits) {
	for s := range v.admitted {
		v.admitted[s] += o.admitted[s]
		v.refused[s] += o.refused[s]
	}
	v.counted += o.counted
	v.not += o.not
	for r, n := range o.reasons {
		v.reasons[r] += n
	}
}

// play does a sequence to a breaker and to the model, and returns where they differ.
func play(cfg Config, all []operation, seen *visits) error {
	fake, random, m := clock.NewFake(dawn), &steady{}, newReference(cfg, seen)
	var told []Change
	cfg.Clock, cfg.Rand, cfg.OnChange = fake, random, func(c Change) { told = append(told, c) }
	b, err := New("users", cfg)
	if err != nil {
		return err
	}
	look := func(i int, what fmt.Stringer) error {
		m.advance()
		got, want := b.Status(), m.status()
		if got != want {
			return fmt.Errorf("after operation %d, %v: the status is\n  %+v, not\n  %+v", i, what, got, want)
		}
		if !slices.Equal(told, m.told) {
			return fmt.Errorf("after operation %d, %v: the events are\n  %+v, not\n  %+v", i, what, told, m.told)
		}
		told, m.told = told[:0], m.told[:0]
		return nil
	}
	var held []Permit
	var tickets []*ticket
	finish := func(i, k int) error {
		r := all[i].result
		if tickets[k].untimed && m.cfg.SlowAfter > 0 && r.Took == 0 {
			r.Took = 1 // how long it takes was not looked at when it began
		}
		got, want := held[k].Report(r), m.done(tickets[k], r)
		if got != want {
			return fmt.Errorf("operation %d, %v: counted %v, not %v", i, &all[i], got, want)
		}
		if got {
			seen.counted++
		} else {
			seen.not++
		}
		return nil
	}
	for i := range all {
		o := &all[i]
		switch o.what {
		case "allow", "call":
			p, err := b.Allow()
			t := m.allow()
			if (err == nil) != (t != nil) {
				return fmt.Errorf("operation %d, %v: %v, expected admission: %v", i, o, err, t != nil)
			}
			var open *OpenError
			if err != nil && !errors.As(err, &open) {
				return fmt.Errorf("operation %d, %v: %v", i, o, err)
			}
			if open != nil && (open.State != m.state || open.Because != m.because) {
				return fmt.Errorf("operation %d, %v: %+v", i, o, open)
			}
			if err == nil {
				held, tickets = append(held, p), append(tickets, t)
				seen.admitted[t.state]++
			} else {
				seen.refused[open.State]++
			}
			if o.what == "call" && err == nil {
				if err := finish(i, len(held)-1); err != nil {
					return err
				}
			}
		case "done":
			if len(held) == 0 {
				continue
			}
			k := len(held) - 1
			for k > 0 && tickets[k].over { // mostly the latest that is not given back
				k--
			}
			if o.pick%4 == 0 {
				k = o.pick / 4 % len(held)
			}
			if err := finish(i, k); err != nil {
				return err
			}
		case "wait":
			d := o.wait
			if d == 0 && m.state == Open && !m.forced && m.until > m.now {
				d = m.until - m.now - time.Duration(o.pick%4/3) // or just not so long
			}
			fake.Advance(d)
			m.now += d
		case "mode":
			if err := b.SetMode(Mode(o.pick)); err != nil {
				return err
			}
			m.change(m.cfg, Mode(o.pick))
		case "use":
			if err := b.Use(*o.cfg); err != nil {
				return err
			}
			m.use(*o.cfg)
		case "reset", "chance": // somebody looks before, so that both see what time has brought
			if err := look(i, o); err != nil {
				return err
			}
			if o.what == "reset" {
				b.Reset()
				m.reset()
			}
			if m.u16 = o.u16; o.what == "chance" {
				random.say(float64(o.u16) / 16)
			} else {
				random.say(0)
			}
		}
		if o.quiet {
			continue
		}
		if err := look(i, o); err != nil {
			return err
		}
	}
	return look(len(all), &operation{what: "the end"})
}

// shrunk returns a shorter sequence that still shows a difference.
func shrunk(cfg Config, all []operation) []operation {
	for size := len(all); size > 0; size /= 2 {
		for from := 0; from+size <= len(all); {
			fewer := slices.Concat(all[:from], all[from+size:])
			if play(cfg, fewer, newVisits()) != nil {
				all = fewer
			} else {
				from++
			}
		}
	}
	return all
}

// A hundred thousand random sequences of operations, each on another configuration, in
// which the breaker does what the model does: state, times, counts, answers and events.
func TestModel_K02_K03_K04_K05_K08_K12_K13_P01(t *testing.T) {
	const seed, sequences, parts = 20260101, 100_000, 4
	t.Logf("seed %d", seed)
	all := make([]*visits, parts)
	t.Run("parts", func(t *testing.T) {
		for part := range parts {
			all[part] = newVisits()
			t.Run(fmt.Sprint(part), func(t *testing.T) {
				t.Parallel()
				for i := range sequences / parts {
					random := rand.New(rand.NewPCG(seed, uint64(part*sequences+i)))
					cfg := anyConfig(random)
					ops, sick := make([]operation, 5+random.IntN(20)), false
					for k := range ops {
						if random.IntN(8) == 0 {
							sick = !sick
						}
						ops[k] = anyOperation(random, sick)
					}
					if play(cfg, ops, all[part]) == nil {
						continue
					}
					ops = shrunk(cfg, ops)
					lines := []string{}
					for k, o := range ops {
						lines = append(lines, fmt.Sprint(k, ": ", &o))
					}
					require.NoError(t, play(cfg, ops, newVisits()), "seed %d, sequence %d\n%s\n%s", seed, part*sequences+i, shown(cfg), strings.Join(lines, "\n"))
				}
			})
		}
	})
	sum := newVisits()
	for _, part := range all {
		sum.add(part)
	}
	t.Logf("%+v", *sum)
	if t.Failed() {
		return // before all was done
	}
	for state := range HalfOpen + 1 {
		assert.Greater(t, sum.admitted[state], 5000, "admitted %v", state)
		assert.Greater(t, sum.refused[state], 500, "refused %v", state)
	}
	assert.Greater(t, sum.counted, 100_000)
	assert.Greater(t, sum.not, 10_000)
	for _, why := range []Reason{
		ConsecutiveFailures, FailureRate, SlowRate, Predicate, OpenTimeOver, ProbesSucceeded, ProbeFailed, ProbeTimedOut, ModeSet, WasReset,
	} {
		assert.Greater(t, sum.reasons[why], 1000, why)
	}
}

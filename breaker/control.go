package breaker

import (
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Status is what a breaker does and has counted, at one moment.
type Status struct {
	// Name is the breaker's.
	Name string
	// Mode is how far it interferes.
	Mode Mode
	// State is what it does with calls. In MetricsOnly it is what it would do.
	State State
	// Because is why it is in that state.
	Because Reason
	// Since is when that began.
	Since time.Time
	// Until is when it lets probes through, if it is open and was not forced to be.
	Until time.Time
	// Counts are what it has counted.
	Counts Counts
}

// State returns what the breaker does with calls now.
func (b *Breaker) State() State { return b.Status().State }

// Counts returns what the breaker has counted.
func (b *Breaker) Counts() Counts { return b.Status().Counts }

// Status returns what the breaker does and has counted.
func (b *Breaker) Status() Status {
	b.mu.Lock()
	defer b.unlock()
	set := b.settings.Load()
	at := set.elapsed()
	p := b.advanceLocked(set, at)
	s := Status{
		Name: b.name, Mode: set.mode, State: p.state, Because: p.because,
		Since: set.start.Add(p.began), Counts: p.counts(at),
	}
	if p.state == Open && p.until != forever {
		s.Until = set.start.Add(p.until)
	}
	return s
}

// SetMode sets how far the breaker interferes, for operators. It lasts until another mode is
// set, here or by a configuration whose Mode is not that of the one before. Between [Auto] and
// [MetricsOnly] the state stays; from the other modes the breaker goes to [Closed], with
// nothing counted.
func (b *Breaker) SetMode(m Mode) error {
	if m > MetricsOnly {
		return &field.Error{Field: "Mode", Value: m, Problem: "is not a mode"}
	}
	b.mu.Lock()
	defer b.unlock()
	b.useLocked(b.settings.Load().inMode(m))
	return nil
}

// Use replaces the configuration, but for Clock, Rand and OnChange, which stay. The
// state stays, and so does what was counted, unless the window has another shape: then the
// window begins anew, and calls under way do not count. An open breaker stays open for as
// long as it was to be. The error says all that is wrong with the configuration; then nothing
// has changed.
func (b *Breaker) Use(cfg Config) error {
	next, err := b.settings.Load().with(cfg)
	if err != nil {
		return err
	}
	b.use(next)
	return nil
}

func (b *Breaker) use(next *settings) {
	b.mu.Lock()
	defer b.unlock()
	if old := b.settings.Load(); old.mode != old.Mode && next.Mode == old.Mode {
		next = next.inMode(old.mode) // that somebody has set
	}
	b.useLocked(next)
}

// useLocked goes on with other settings.
func (b *Breaker) useLocked(next *settings) {
	old, at := b.settings.Load(), next.elapsed()
	last := b.advanceLocked(old, at)
	b.settings.Store(next)
	switch {
	case old.mode != next.mode && (old.mode.fixed() || next.mode.fixed()):
		b.enterLocked(b.firstPhase(ModeSet, at))
	case last.state == Closed && !next.mode.fixed() && !sameWindow(old, next):
		p := b.newPhase(Closed, last.because, last.began, last.until)
		p.ramping.Store(last.ramping.Load())
		p.row.Take(&last.row)
		p.rejected.Store(last.rejected.Load())
		b.enterLocked(p)
	case last.state == HalfOpen:
		b.judgeProbesLocked(next, last, at, 0)
	}
}

// fixed reports whether the state does not change by itself.
func (m Mode) fixed() bool { return m == ForcedOpen || m == Disabled }

func sameWindow(a, b *settings) bool {
	return a.Window == b.Window && a.WindowCalls == b.WindowCalls && a.windows() == b.windows()
}

// Reset makes the breaker as if it were new: closed, with nothing counted, or as its
// mode says. Permits that are out are not counted any more.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.unlock()
	b.enterLocked(b.firstPhase(WasReset, b.settings.Load().elapsed()))
}

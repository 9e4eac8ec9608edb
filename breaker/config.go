package breaker

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Off switches off what has a default: Config{FailureRate: breaker.Off}.
const Off = -1

// Config says when a breaker opens, for how long, and what closes it. The zero Config
// is the recommended one.
type Config struct {
	// Mode is how far the breaker interferes. Zero is [Auto].
	Mode Mode

	// ConsecutiveFailures opens the breaker when so many calls in a row have
	// failed. Zero means 5. [Off] is off. It finds what is dead.
	ConsecutiveFailures int

	// FailureRate opens the breaker when so large a part of the calls in the window
	// has failed, of at least MinCalls. It is above 0 and at most 1; zero means 0.5,
	// [Off] is off. It finds what is sick: at half of all calls, five failures in a
	// row take 62 calls on average, at a fifth of them 3,905.
	FailureRate float64

	// SlowAfter is how long a call may take before it counts as slow. Zero means
	// that none is slow. For HTTP it is the time to the response's headers. A slow
	// probe counts as failed.
	SlowAfter time.Duration

	// SlowRate opens the breaker when so large a part of the calls in the window was
	// slow, of at least MinCalls. It is above 0 and at most 1; zero means 0.8. Without
	// SlowAfter it is not looked at.
	SlowRate float64

	// MinCalls is how many calls must be in the window before a rate is looked at.
	// Zero means 20, or WindowCalls if those are fewer.
	MinCalls int

	// Window is how long calls count for the rates. It slides in tenths of itself.
	// Zero means 10s, at least 10ms. It must not be set together with WindowCalls.
	Window time.Duration

	// WindowCalls makes the last so many calls count for the rates, however old they
	// are, in place of a time. At most 1,000,000.
	WindowCalls int

	// OpenFor is how long an open breaker refuses calls before it lets probes
	// through. Zero means 5s. It doubles each time that a probe fails, or that the
	// breaker opens again soon after it closed, up to MaxOpenFor; each time that
	// the breaker stays closed for as long as it was open takes one doubling back.
	OpenFor time.Duration

	// MaxOpenFor is the longest that a breaker is open before it is tried again. Zero
	// means 5m, or OpenFor if that is longer. Equal to OpenFor, the time is fixed.
	MaxOpenFor time.Duration

	// Jitter is the part of the open time that is random, so that clients which
	// opened together do not come back together: of d, between d·(1-Jitter) and d. It
	// is at most 1; zero means 0.5 (equal jitter), [Off] none.
	Jitter float64

	// IgnoreRetryAfter makes nothing of the Retry-After of a failure. Otherwise the
	// breaker is open for at least as long, up to MaxOpenFor.
	IgnoreRetryAfter bool

	// Probes is how many calls a half-open breaker lets through at once. Zero means
	// 3, at most 10,000.
	Probes int

	// ProbeSuccesses is how many good probes close the breaker. Zero means Probes. The
	// good ones and those under way are together never more than this or Probes,
	// whichever is more.
	ProbeSuccesses int

	// ProbeFailures is how many failed probes open the breaker again. Zero means 1.
	ProbeFailures int

	// ProbeTimeout is after what time a probe that has not ended counts as failed.
	// Zero means 30s.
	ProbeTimeout time.Duration

	// RampFor is how long a breaker that has just closed lets only a part of the calls
	// through: a growing one, from a tenth to all. Zero means that all may come at
	// once. Under a balancer it is not looked at: there, balancer.Rules.SlowStart
	// does the same and refuses nothing.
	RampFor time.Duration

	// OverloadFails makes answers that ask to be left alone ([outcome.Overload], such as
	// 429) count as failures. Otherwise they count nothing, but for 503, which always
	// is one.
	OverloadFails bool

	// MaxKeys is how many breakers a [Group] holds at most. For one more, those make room
	// that were not used for the longest time, a sixteenth of them at once. Zero means
	// 10,000. Those of a balancer's endpoints do not count.
	MaxKeys int

	// IdleFor is after what time without use a [Group] drops a breaker, at the
	// earliest; at the latest it is twice that. Zero means 10m.
	IdleFor time.Duration

	// TripIf, if set, opens the breaker when it returns true. It is asked after each
	// failure and each slow call of a closed breaker. No lock is held; it must be
	// safe for concurrent use.
	TripIf func(Counts) bool

	// Key returns which breaker of a [Transport] a request belongs to. Nil means that
	// each host and port has its own. Inside evenkeel.New it is not used.
	Key func(*http.Request) string

	// Classifier says what a call meant; nil means [outcome.Classify]. For [Do], only
	// Err and CallerErr are set, and it is not asked if there is no error. Inside
	// evenkeel.New it is set there.
	Classifier outcome.Classifier

	// OnChange, if set, is told of each change of state, in order. Calls do not
	// overlap, no lock is held, and it may use the breaker. Inside evenkeel.New it is
	// set there.
	OnChange func(Change)

	// Clock is the clock to use; nil means the system's. Inside evenkeel.New it is set
	// there.
	Clock clock.Clock

	// Rand is the source of the jitter; nil means the runtime's. Access is serialised.
	// Inside evenkeel.New it is set there.
	Rand rand.Source
}

// Mode is how far a breaker interferes.
type Mode uint8

// The modes.
const (
	// Auto opens and closes by itself.
	Auto Mode = iota
	// ForcedOpen refuses all calls.
	ForcedOpen
	// Disabled lets all calls through and counts nothing: forced closed.
	Disabled
	// MetricsOnly lets all calls through, and otherwise does as Auto would, so that
	// its events and counts tell what Auto would have done. Results of calls that Auto
	// would have refused do not count.
	MetricsOnly
)

var modeNames = [...]string{"auto", "forced open", "disabled", "metrics only"}

// String returns the name of the mode.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

const (
	defaultConsecutive  = 5
	defaultFailureRate  = 0.5
	defaultSlowRate     = 0.8
	defaultMinCalls     = 20
	defaultWindow       = 10 * time.Second
	defaultOpenFor      = 5 * time.Second
	defaultMaxOpenFor   = 5 * time.Minute
	defaultJitter       = 0.5
	defaultProbes       = 3
	defaultProbeTimeout = 30 * time.Second
	defaultMaxKeys      = 10_000
	defaultIdleFor      = 10 * time.Minute

	minWindow      = 10 * time.Millisecond
	maxWindowCalls = 1_000_000
	maxProbes      = 10_000
)

// WithDefaults returns the configuration as it is applied, with every default filled
// in. Behaviour fields are left as they are.
func (c Config) WithDefaults() Config {
	field.Default(&c.ConsecutiveFailures, defaultConsecutive)
	field.Default(&c.FailureRate, defaultFailureRate)
	if c.SlowAfter > 0 {
		field.Default(&c.SlowRate, defaultSlowRate)
	}
	field.Default(&c.MinCalls, defaultMinCalls)
	if c.WindowCalls > 0 {
		c.MinCalls = min(c.MinCalls, c.WindowCalls)
	} else {
		field.Default(&c.Window, defaultWindow)
	}
	field.Default(&c.OpenFor, defaultOpenFor)
	field.Default(&c.MaxOpenFor, max(defaultMaxOpenFor, c.OpenFor))
	field.Default(&c.Jitter, defaultJitter)
	field.Default(&c.Probes, defaultProbes)
	field.Default(&c.ProbeSuccesses, c.Probes)
	field.Default(&c.ProbeFailures, 1)
	field.Default(&c.ProbeTimeout, defaultProbeTimeout)
	field.Default(&c.MaxKeys, defaultMaxKeys)
	field.Default(&c.IdleFor, defaultIdleFor)
	return c
}

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	errs.Check(c.Mode <= MetricsOnly, "Mode", c.Mode, "is not a mode")
	errs.Check(c.ConsecutiveFailures >= 0 || c.ConsecutiveFailures == Off, "ConsecutiveFailures", c.ConsecutiveFailures, "must not be negative, but for Off")
	errs.CheckPart("FailureRate", c.FailureRate, 1, true)
	errs.CheckPart("SlowRate", c.SlowRate, 1, false)
	errs.CheckPart("Jitter", c.Jitter, 1, true)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"SlowAfter", c.SlowAfter},
		{"OpenFor", c.OpenFor},
		{"ProbeTimeout", c.ProbeTimeout},
		{"MaxOpenFor", c.MaxOpenFor},
		{"RampFor", c.RampFor},
		{"IdleFor", c.IdleFor},
	} {
		errs.Check(d.value >= 0, d.name, d.value, "must not be negative")
	}
	checkRange(&errs, "WindowCalls", c.WindowCalls, maxWindowCalls)
	checkRange(&errs, "Probes", c.Probes, maxProbes)
	checkRange(&errs, "ProbeSuccesses", c.ProbeSuccesses, maxWindowCalls)
	checkRange(&errs, "ProbeFailures", c.ProbeFailures, maxWindowCalls)
	errs.Check(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "must not be negative")
	errs.Check(c.Window == 0 || c.Window >= minWindow, "Window", c.Window, "must be at least 10ms")
	errs.Check(c.Window == 0 || c.WindowCalls == 0, "WindowCalls", c.WindowCalls, "must not be set together with Window")
	errs.Check(c.MinCalls >= 0, "MinCalls", c.MinCalls, "must not be negative")
	errs.Check(c.WindowCalls <= 0 || c.MinCalls <= c.WindowCalls, "MinCalls", c.MinCalls, "must not be more than WindowCalls")
	errs.Check(c.OpenFor < 0 || c.MaxOpenFor <= 0 || c.MaxOpenFor >= c.WithDefaults().OpenFor, "MaxOpenFor", c.MaxOpenFor, "must not be shorter than OpenFor")
	return errs.Err()
}

func checkRange(errs *field.Errors, name string, n, most int) {
	errs.Check(n >= 0 && n <= most, name, n, fmt.Sprintf("must be from 0 to %d", most))
}

// settings is a valid configuration, with its defaults, as breakers use it.
type settings struct {
	Config
	mode    Mode                 // Config.Mode, unless somebody has set another
	start   time.Time            // of the time below
	elapsed func() time.Duration // the present instant
	bits    func() uint64
}

func newSettings(c Config) (*settings, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	c.Clock = clock.Or(c.Clock)
	if c.Classifier == nil {
		c.Classifier = outcome.Classify
	}
	s := &settings{Config: c, mode: c.Mode, start: c.Clock.Now(), bits: random.Bits(c.Rand)}
	s.elapsed = clock.Elapsed(c.Clock, s.start)
	return s, nil
}

// with returns the settings for another configuration. What cannot change under a
// breaker that exists stays: the clock, the source of randomness, and who is told.
func (s *settings) with(c Config) (*settings, error) {
	c.Clock, c.Rand, c.OnChange = s.Clock, s.Rand, s.OnChange
	next, err := newSettings(c)
	if err != nil {
		return nil, err
	}
	next.start, next.elapsed, next.bits = s.start, s.elapsed, s.bits
	return next, nil
}

// inMode returns the same settings in another mode.
func (s *settings) inMode(m Mode) *settings {
	next := *s
	next.mode = m
	return &next
}

// at returns an instant as breakers count time.
func (s *settings) at(now time.Time) time.Duration {
	if now.IsZero() {
		return unread
	}
	return max(now.Sub(s.start), 0)
}

// unread is an instant for which the clock has not been read yet: that costs more than
// all else that a closed breaker does.
const unread = time.Duration(-1)

// read returns the instant, or reads the clock.
func (s *settings) read(at time.Duration) time.Duration {
	if at == unread {
		return s.elapsed()
	}
	return at
}

// windows reports whether anything looks at a window.
func (s *settings) windows() bool {
	return s.FailureRate != Off || s.SlowAfter > 0 || s.TripIf != nil
}

// openFor returns how long a breaker is open after so many openings in a row, and
// whether one more would make it longer.
func (s *settings) openFor(level int) (d time.Duration, more bool) {
	d = s.OpenFor
	for range level - 1 {
		if d >= s.MaxOpenFor/2 {
			return s.MaxOpenFor, false
		}
		d *= 2
	}
	return d, d < s.MaxOpenFor
}

// random returns a number of [0,1).
func (s *settings) random() float64 { return float64(s.bits()>>11) / (1 << 53) }

package breaker

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// ThrottleConfig says how a [Throttle] follows what the server accepts. The zero
// ThrottleConfig is the recommended one.
type ThrottleConfig struct {
	// K is how many calls are let through for each that the server accepts. Less is
	// quicker to hold back, more is quicker to find out that the server accepts again.
	// Zero means 2, below 1 is an error.
	K float64

	// Window is how long calls count. It slides in tenths of itself, and should be ten
	// times as long as nearly all calls take. Zero means 10s, at least 10ms.
	Window time.Duration

	// MaxReject is the largest part of the calls that is refused. It is at most 1;
	// zero means 0.9.
	MaxReject float64

	// MinRate is how many calls per second there must have been in the window for any
	// to be refused. Zero means 5, [Off] none.
	MinRate float64

	// ProbeEvery is after what time without a call that passed the next one passes.
	// Zero means 1s.
	ProbeEvery time.Duration

	// MaxKeys is how many throttles a transport holds at most, as Config.MaxKeys is for
	// breakers. Zero means 10,000.
	MaxKeys int

	// IdleFor is after what time without use it drops one, as Config.IdleFor is. Zero
	// means 10m.
	IdleFor time.Duration

	// Key returns which throttle of a transport a request belongs to. Nil means that
	// each host and port has its own. Inside evenkeel.New there is one for the target.
	Key func(*http.Request) string

	// Classifier says what a call meant; nil means [outcome.Classify]. Inside evenkeel.New
	// it is set there.
	Classifier outcome.Classifier

	// Clock is the clock to use; nil means the system's. Inside evenkeel.New it is set
	// there.
	Clock clock.Clock

	// Rand is the source of randomness; nil means the runtime's. Access is serialised.
	// Inside evenkeel.New it is set there.
	Rand rand.Source
}

const (
	defaultK          = 2
	defaultMaxReject  = 0.9
	defaultMinRate    = 5
	defaultProbeEvery = time.Second
)

// WithDefaults returns the configuration as it is applied, with every default filled
// in. Behaviour fields are left as they are.
func (c ThrottleConfig) WithDefaults() ThrottleConfig {
	field.Default(&c.K, defaultK)
	field.Default(&c.Window, defaultWindow)
	field.Default(&c.MaxReject, defaultMaxReject)
	field.Default(&c.MinRate, defaultMinRate)
	field.Default(&c.ProbeEvery, defaultProbeEvery)
	field.Default(&c.MaxKeys, defaultMaxKeys)
	field.Default(&c.IdleFor, defaultIdleFor)
	return c
}

// Validate returns nil, or all that is wrong with the configuration.
func (c ThrottleConfig) Validate() error {
	var errs field.Errors
	errs.Check(c.K == 0 || (c.K >= 1 && c.K < 1e9), "K", c.K, "must be at least 1")
	errs.Check(c.Window == 0 || c.Window >= minWindow, "Window", c.Window, "must be at least 10ms")
	errs.CheckPart("MaxReject", c.MaxReject, 1, false)
	errs.Check((c.MinRate >= 0 && c.MinRate < 1e9) || c.MinRate == Off, "MinRate", c.MinRate, "must not be negative, but for Off")
	errs.Check(c.ProbeEvery >= 0, "ProbeEvery", c.ProbeEvery, "must not be negative")
	errs.Check(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "must not be negative")
	errs.Check(c.IdleFor >= 0, "IdleFor", c.IdleFor, "must not be negative")
	return errs.Err()
}

// Throttle lets through about K times as many calls as the server accepts, and refuses
// the others at random: the client-side throttling of Google's "Site Reliability
// Engineering", chapter 21. Where a breaker finds that a server is broken, it finds how
// much of it works.
//
// The probability of refusing a call is (n-K·accepts)/(n+1), where n is the calls in the
// window. A call counts before it is sent, so that a server that hangs is found out, but only
// when it has been under way for a tenth of the window: else a burst of calls to a healthy
// server would be refused for being many, as it is by the book. A call also counts when it is
// refused here; otherwise refusals would end as soon as they begin. What the server did not
// accept is [outcome.Overload] and what speaks against it; of timeouts and of callers who gave
// up it is not known, so those count neither way. It is safe for concurrent use.
type Throttle struct {
	name     string
	settings atomic.Pointer[throttleSettings]
	counts   atomic.Pointer[throttleCounts]
	passed   atomic.Int64 // when a call last passed while others were refused
	rejected atomic.Uint64
}

// throttleCounts are the calls of a window.
type throttleCounts struct {
	ticks    ticks
	requests tally // by their beginning
	underWay tally // of these
	accepts  tally // by their end
}

// throttleSettings is a valid configuration as throttles use it.
type throttleSettings struct {
	ThrottleConfig
	least   float64 // calls in the window
	elapsed func() time.Duration
	floats  func() float64
	refusal *ThrottledError
}

func newThrottleSettings(c ThrottleConfig) (*throttleSettings, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	c.Clock = clock.Or(c.Clock)
	if c.Classifier == nil {
		c.Classifier = outcome.Classify
	}
	return &throttleSettings{
		ThrottleConfig: c,
		least:          max(c.MinRate, 0) * c.Window.Seconds(),
		elapsed:        clock.Elapsed(c.Clock, c.Clock.Now()),
		floats:         random.Floats(c.Rand),
		refusal:        &ThrottledError{retryAfter: c.ProbeEvery},
	}, nil
}

// NewThrottle returns a throttle that lets all through, or all that is wrong with the
// configuration.
func NewThrottle(cfg ThrottleConfig) (*Throttle, error) {
	set, err := newThrottleSettings(cfg)
	if err != nil {
		return nil, err
	}
	return newThrottle("", set), nil
}

func newThrottle(name string, set *throttleSettings) *Throttle {
	t := &Throttle{name: name}
	t.settings.Store(set)
	t.counts.Store(newThrottleCounts(set))
	t.passed.Store(int64(set.elapsed()))
	return t
}

func newThrottleCounts(set *throttleSettings) *throttleCounts {
	return &throttleCounts{ticks: ticks{width: set.Window / buckets}}
}

// Use replaces the configuration, but for Clock and Rand, which stay. What was counted stays
// too, unless Window is another. The error says all that is wrong with the configuration; then
// nothing has changed.
func (t *Throttle) Use(cfg ThrottleConfig) error {
	old := t.settings.Load()
	cfg.Clock, cfg.Rand = old.Clock, old.Rand
	next, err := newThrottleSettings(cfg)
	if err != nil {
		return err
	}
	next.elapsed, next.floats = old.elapsed, old.floats
	t.settings.Store(next)
	if next.Window != old.Window {
		t.counts.Store(newThrottleCounts(next))
	}
	return nil
}

// ThrottlePermit allows one call through a [Throttle]. It must be given back by Done when
// the call has ended; a second time does nothing. It must not be copied, and belongs to
// one goroutine at a time.
type ThrottlePermit struct {
	throttle *Throttle
	counts   *throttleCounts
	tick     int64 // of its beginning
}

// Allow counts a call and asks whether it may go. The error is a [*ThrottledError]. It
// never blocks and allocates nothing.
func (t *Throttle) Allow() (ThrottlePermit, error) {
	set := t.settings.Load()
	c, at := t.counts.Load(), set.elapsed()
	tick := c.ticks.at(at)
	refuse := c.refusal(set, tick)
	c.requests.add(&c.ticks, tick)
	if refuse > 0 {
		if set.floats() < refuse && !t.probe(set, at) {
			t.rejected.Add(1)
			return ThrottlePermit{}, set.refusal
		}
		t.passed.Store(int64(at))
	}
	c.underWay.add(&c.ticks, tick)
	return ThrottlePermit{t, c, tick}, nil
}

// refusal returns the probability of refusing the next call.
func (c *throttleCounts) refusal(set *throttleSettings, tick int64) float64 {
	requests := c.requests.sum(tick)
	if float64(requests) < set.least {
		return 0
	}
	n := float64(requests - c.underWay.count(tick) - c.underWay.count(tick-1))
	p := (n - set.K*float64(c.accepts.sum(tick))) / (n + 1)
	return min(max(p, 0), set.MaxReject)
}

// probe reports whether a call passes because none has for long, which one of those that
// ask together does.
func (t *Throttle) probe(set *throttleSettings, at time.Duration) bool {
	passed := t.passed.Load()
	return at-time.Duration(passed) >= set.ProbeEvery && t.passed.CompareAndSwap(passed, int64(at))
}

// Done gives the permit back and tells what the call meant.
func (p *ThrottlePermit) Done(o outcome.Outcome) {
	t := p.throttle
	if t == nil {
		return
	}
	p.throttle = nil
	c := p.counts
	c.underWay.remove(p.tick)
	switch {
	case o.Class.Good():
		c.accepts.add(&c.ticks, c.ticks.at(t.settings.Load().elapsed()))
	case !o.Class.Avoid(), o.Timeout:
		c.requests.remove(p.tick)
	}
}

// ThrottleStatus is what a throttle has counted, at one moment.
type ThrottleStatus struct {
	// Name is the throttle's key in its transport, empty for others.
	Name string
	// Requests are the calls in the window, refused ones and those under way included.
	Requests int
	// Accepts are those that the server accepted.
	Accepts int
	// Refusal is the probability that the next call is refused.
	Refusal float64
	// Rejected is how many calls were refused since the throttle was made.
	Rejected uint64
}

// Status returns what the throttle has counted.
func (t *Throttle) Status() ThrottleStatus {
	set, c := t.settings.Load(), t.counts.Load()
	tick := c.ticks.at(set.elapsed())
	return ThrottleStatus{
		Name: t.name, Requests: c.requests.sum(tick), Accepts: c.accepts.sum(tick),
		Refusal: c.refusal(set, tick), Rejected: t.rejected.Load(),
	}
}

// Do calls fn if the throttle lets it, and tells it how that went, as [Breaker.Do] does. It
// returns what fn returned, or a [*ThrottledError].
func (t *Throttle) Do(ctx context.Context, fn func(context.Context) error) error {
	if fn == nil {
		return errNoFunction
	}
	permit, err := t.Allow()
	if err != nil {
		return err
	}
	o := outcome.Outcome{Class: outcome.Failure} // should it panic
	defer func() { permit.Done(o) }()
	if err = fn(ctx); err == nil {
		o = outcome.Outcome{Class: outcome.Success}
	} else {
		o = t.settings.Load().Classifier(outcome.Attempt{Err: err, CallerErr: ctx.Err()})
	}
	return err
}

// ErrThrottled is what [ThrottledError] wraps: the call was refused by a throttle.
var ErrThrottled = errors.New("breaker: throttled")

// ThrottledError says that a [Throttle] refused a call, because the server accepts less
// than it is asked.
type ThrottledError struct{ retryAfter time.Duration }

// Error implements error.
func (*ThrottledError) Error() string {
	return ErrThrottled.Error() + ": the server accepts less than it is asked"
}

// Is makes errors.Is find [ErrThrottled].
func (*ThrottledError) Is(target error) bool { return target == ErrThrottled }

// Reason returns [outcome.Limiter].
func (*ThrottledError) Reason() outcome.Reason { return outcome.Limiter }

// RetryAfter returns after what time another try makes sense.
func (e *ThrottledError) RetryAfter() time.Duration { return e.retryAfter }

// ServeHTTP answers a request with 503 and Retry-After, for gateways that got this
// error from behind them.
func (e *ThrottledError) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	unavailable(w, e.retryAfter)
}

package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Backoff is the wait before an endpoint is tried again: a random time between
// zero and a bound that grows with each wait of the call, known as full jitter.
type Backoff struct {
	// Base is the bound of the first wait. Zero means 50ms, negative is an
	// error.
	Base time.Duration
	// Max is the largest bound. Zero means 2s, or Base if that is longer;
	// shorter than Base is an error.
	Max time.Duration
	// Factor is what each wait multiplies the bound by. Zero means 2; below 1
	// is an error.
	Factor float64
}

const (
	defaultBase   = 50 * time.Millisecond
	defaultMax    = 2 * time.Second
	defaultFactor = 2
	// minWait keeps jitter from turning a wait into a hot loop.
	minWait = time.Millisecond
)

func (b Backoff) withDefaults() Backoff {
	if b.Base == 0 {
		b.Base = defaultBase
	}
	if b.Max == 0 {
		b.Max = max(defaultMax, b.Base)
	}
	if b.Factor == 0 {
		b.Factor = defaultFactor
	}
	return b
}

func (b Backoff) validate() error {
	var errs field.Errors
	d := b.withDefaults()
	errs.Check(b.Base >= 0, "Base", b.Base, "must not be negative")
	errs.Check(d.Max >= d.Base, "Max", b.Max, "must not be shorter than Base")
	errs.Check(d.Factor >= 1, "Factor", b.Factor, "must be at least 1") // also refuses NaN
	return errs.Err()
}

// start returns the growing bounds of one call. Jitter is put on by wait,
// because the library's own comes from a global source.
func (b Backoff) start() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(b.Base),
		backoff.WithMaxInterval(b.Max),
		backoff.WithMultiplier(b.Factor),
		backoff.WithRandomizationFactor(0),
		backoff.WithMaxElapsedTime(0),
	)
}

// jitter returns a time between minWait and the bound; random is in [0,1).
func jitter(bound time.Duration, random float64) time.Duration {
	return max(time.Duration(random*float64(bound)), min(minWait, bound))
}

package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Backoff is the wait before an endpoint is tried again: a random time below a bound that
// grows with each wait of the call, from Base by Factor up to Max. The randomness stays when
// Max is reached, so that clients that failed together do not come back together.
type Backoff struct {
	// Kind is how the wait follows from the bound. Zero means [FullJitter].
	Kind Kind
	// Base is the bound of the first wait. Zero means 50ms, negative is an
	// error.
	Base time.Duration
	// Max is the largest bound. Zero means 2s, or Base if that is longer;
	// shorter than Base is an error.
	Max time.Duration
	// Factor is what each wait multiplies the bound by. Zero means 2; below 1
	// is an error. [Decorrelated] and [Constant] do not use it.
	Factor float64
}

// Kind is how a wait follows from its bound.
type Kind uint8

// The kinds. Their names, and the reasons for the first three, are those of "Exponential
// Backoff And Jitter" in the AWS Architecture Blog.
const (
	// FullJitter is anything up to the bound, but not less than 1ms: it spreads the most.
	FullJitter Kind = iota
	// EqualJitter is half of the bound and anything up to as much again.
	EqualJitter
	// Decorrelated is anything from Base to three times the wait before, at most Max.
	Decorrelated
	// Constant is Base, always and exactly.
	Constant
	// Exponential is the bound, exactly.
	Exponential
)

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
	errs.Check(b.Kind <= Exponential, "Kind", b.Kind, "must be one of the kinds")
	errs.Check(b.Base >= 0, "Base", b.Base, "must not be negative")
	errs.Check(d.Max >= d.Base, "Max", b.Max, "must not be shorter than Base")
	errs.Check(d.Factor >= 1, "Factor", b.Factor, "must be at least 1") // also refuses NaN
	return errs.Err()
}

// new returns the waits of one call. Jitter is put on here, because that of the library comes
// from a global source.
func (b Backoff) new(random func() float64) backoff.BackOff {
	switch b.Kind {
	case Constant:
		return backoff.NewConstantBackOff(b.Base)
	case Decorrelated:
		return &decorrelated{Backoff: b, previous: b.Base, random: random}
	case FullJitter, EqualJitter, Exponential:
	}
	j := &jittered{kind: b.Kind, random: random}
	j.ExponentialBackOff = backoff.ExponentialBackOff{
		InitialInterval: b.Base, MaxInterval: b.Max, Multiplier: b.Factor,
		Stop: backoff.Stop, Clock: noClock{}, // no limit on the time, so no look at it
	}
	j.Reset()
	return j
}

type noClock struct{}

func (noClock) Now() time.Time { return time.Time{} }

// jittered puts jitter on growing bounds.
type jittered struct {
	backoff.ExponentialBackOff
	kind   Kind
	random func() float64 // in [0,1)
}

// NextBackOff implements [backoff.BackOff].
func (j *jittered) NextBackOff() time.Duration {
	bound := j.ExponentialBackOff.NextBackOff()
	switch j.kind {
	case Exponential:
		return bound
	case EqualJitter:
		half := bound / 2
		return half + part(bound-half, j.random())
	case FullJitter, Decorrelated, Constant:
	}
	least := min(minWait, bound)
	return least + part(bound-least, j.random())
}

// decorrelated is the kind of that name.
type decorrelated struct {
	Backoff
	previous time.Duration
	random   func() float64
}

// NextBackOff implements [backoff.BackOff].
func (d *decorrelated) NextBackOff() time.Duration {
	bound := d.Max
	if d.previous < d.Max/3 {
		bound = 3 * d.previous
	}
	d.previous = d.Base + part(max(bound-d.Base, 0), d.random())
	return d.previous
}

// Reset implements [backoff.BackOff].
func (d *decorrelated) Reset() { d.previous = d.Base }

// part returns a part of a time.
func part(d time.Duration, share float64) time.Duration {
	return min(time.Duration(share*float64(d)), d) // a float64 may be more than what it was made of
}

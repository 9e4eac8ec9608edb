package health

import (
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Off switches off what has a default: Outlier{ConsecutiveFailures: Off}.
const Off = -1

// Check says how endpoints are probed, and what follows. The zero Check asks for /health every 5s.
//
// A client has Interval/endpoints of time for each probe, and an endpoint gets clients/Interval
// probes a second: with 1,000 clients and the default, 200 a second. Where that is too much,
// raise Interval, or leave Check out: passive detection ([Outlier]) costs no request.
type Check struct {
	// Probe asks an endpoint whether it can serve: an [HTTP], [TCP], [GRPC] or [Func]. Nil means
	// HTTP{}.
	Probe Probe

	// Interval is the time between the probes of an endpoint. Zero means 5s, at least 10ms. The
	// first probe comes after a random part of it, so that clients which start together do not
	// ask together.
	Interval time.Duration

	// Timeout is how long a probe may take; one that takes longer has failed. Zero means 2s, or
	// Interval if that is shorter; it must not be longer than Interval.
	Timeout time.Duration

	// Rise is how many probes in a row must be good for an unhealthy endpoint to be healthy.
	// Zero means 2.
	Rise int

	// Fall is how many probes in a row must fail for an endpoint to be unhealthy. Zero means 3.
	// One that says itself that it cannot serve is unhealthy at once ([ErrDown]), and gets no new
	// traffic while it says that it is about to leave ([ErrDraining]).
	Fall int

	// FastInterval is the time between probes while the state is changing: after a first
	// failure, and after a first good probe of an endpoint that was down. Zero means a fifth of
	// Interval, at most 1s; it must not be longer than Interval.
	FastInterval time.Duration

	// DownInterval is the time from an endpoint's becoming unhealthy to the next probe. It
	// doubles with each that fails, up to MaxDownInterval. Zero means 1s, or Interval if that is
	// shorter.
	DownInterval time.Duration

	// MaxDownInterval is the longest time between probes of an unhealthy endpoint. Zero means
	// four times Interval, or DownInterval if that is longer.
	MaxDownInterval time.Duration

	// IdleInterval is the time between probes of healthy endpoints while there is no traffic at
	// all, for at least as long. (Those that were added by [Monitor.Add] have none before somebody
	// tells of an answer.) Zero means 60s, [Off] that the traffic makes no difference;
	// one that is shorter than Interval has no effect. When the first request comes, the next
	// probes are spread over an Interval.
	IdleInterval time.Duration

	// Jitter is by which part of itself each interval is longer or shorter at most, at random.
	// Zero means 0.1, [Off] none; below 1.
	Jitter float64

	// HoldNew keeps traffic away from an endpoint that joins others, until a probe was good, for
	// at most this time, unless nothing else is available. Zero means that an endpoint serves
	// from the start.
	HoldNew time.Duration

	// MaxConcurrent is how many probes may be under way at once. Those that are due then wait.
	// Zero means 128.
	MaxConcurrent int

	// IgnoreTraffic leaves probes to their intervals. Otherwise a request that fails makes the
	// next probe of a healthy endpoint due at once, at most one a second.
	IgnoreTraffic bool
}

const (
	defaultInterval      = 5 * time.Second
	defaultTimeout       = 2 * time.Second
	defaultRise          = 2
	defaultFall          = 3
	longestFastInterval  = time.Second
	defaultDownInterval  = time.Second
	defaultIdleInterval  = time.Minute
	defaultProbeJitter   = 0.1
	defaultMaxConcurrent = 128
	minInterval          = 10 * time.Millisecond
	maxInterval          = 1000 * time.Hour // far below where sums overflow
	maxCount             = 1 << 20
)

// WithDefaults returns the check as it is done.
func (c Check) WithDefaults() Check {
	switch p := c.Probe.(type) {
	case nil:
		c.Probe = HTTP{}
	case HTTP:
		c.Probe = p.clone()
	case *HTTP:
		if p != nil { // else it is not valid
			c.Probe = p.clone()
		}
	case *TCP:
		if p != nil {
			c.Probe = *p
		}
	case *GRPC:
		if p != nil {
			c.Probe = *p
		}
	}
	field.Default(&c.Interval, defaultInterval)
	field.Default(&c.Timeout, min(defaultTimeout, c.Interval))
	field.Default(&c.Rise, defaultRise)
	field.Default(&c.Fall, defaultFall)
	field.Default(&c.FastInterval, max(min(c.Interval/5, longestFastInterval), minInterval))
	field.Default(&c.DownInterval, min(defaultDownInterval, c.Interval))
	field.Default(&c.MaxDownInterval, max(min(4*c.Interval, maxInterval), c.DownInterval))
	field.Default(&c.IdleInterval, defaultIdleInterval)
	field.Default(&c.Jitter, defaultProbeJitter)
	field.Default(&c.MaxConcurrent, defaultMaxConcurrent)
	return c
}

// Validate returns nil, or all that is wrong with the check.
func (c Check) Validate() error {
	var errs field.Errors
	if v := reflect.ValueOf(c.Probe); v.Kind() == reflect.Pointer && v.IsNil() {
		errs.Add("Probe", nil, "must not be a nil pointer")
		c.Probe = nil
	} else if c.Probe != nil {
		errs.Under("Probe", c.Probe.Validate())
	}
	checkInterval(&errs, "Interval", c.Interval)
	d := c.WithDefaults()
	errs.Check(c.Timeout >= 0, "Timeout", c.Timeout, "must not be negative")
	checkInterval(&errs, "FastInterval", c.FastInterval)
	within := fmt.Sprintf("must not be longer than Interval (%v)", d.Interval)
	errs.Check(c.Timeout <= d.Interval || c.Interval < 0, "Timeout", c.Timeout, within)
	errs.Check(c.FastInterval <= d.Interval || c.Interval < 0, "FastInterval", c.FastInterval, within)
	checkCount(&errs, "Rise", c.Rise)
	checkCount(&errs, "Fall", c.Fall)
	checkCount(&errs, "MaxConcurrent", c.MaxConcurrent)
	checkInterval(&errs, "DownInterval", c.DownInterval)
	checkInterval(&errs, "MaxDownInterval", c.MaxDownInterval)
	errs.Check(c.MaxDownInterval <= 0 || c.MaxDownInterval >= d.DownInterval, "MaxDownInterval", c.MaxDownInterval,
		"must not be shorter than DownInterval")
	if c.IdleInterval != Off {
		checkInterval(&errs, "IdleInterval", c.IdleInterval)
	}
	errs.Check(c.Jitter == Off || (c.Jitter >= 0 && c.Jitter < 1), "Jitter", c.Jitter, "must be from 0 to below 1, or Off")
	errs.Check(c.HoldNew >= 0 && c.HoldNew <= maxInterval, "HoldNew", c.HoldNew, fmt.Sprintf("must be from 0 to %v", maxInterval))
	return errs.Err()
}

func checkInterval(errs *field.Errors, name string, d time.Duration) {
	errs.Check(d == 0 || (d >= minInterval && d <= maxInterval), name, d, fmt.Sprintf("must be from %v to %v", minInterval, maxInterval))
}

func checkCount(errs *field.Errors, name string, n int) {
	errs.Check(n >= 0 && n <= maxCount, name, n, fmt.Sprintf("must be from 0 to %d", maxCount))
}

// jittered returns d, longer or shorter by chance; random draws from [0,1).
func (c *Check) jittered(d time.Duration, random float64) time.Duration {
	if c.Jitter == Off {
		return d
	}
	return d + time.Duration(math.Round((2*random-1)*c.Jitter*float64(d)))
}

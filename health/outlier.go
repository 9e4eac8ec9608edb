package health

import (
	"fmt"
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Outlier says which endpoints are ejected because of what they answer: they get no traffic for a
// while. It costs no request. The zero Outlier is the recommended one.
//
// It holds endpoints to account for failures, whatever their cause. Where requests are divided by a
// key, and those of one key fail wherever they go, it ejects one endpoint after the other, up to
// MaxEjected: there, Deviation had better be Off or larger than the part that a key can have.
//
// What nginx calls max_fails=N and fail_timeout=T is
//
//	Outlier{LocalFailures: N, ConsecutiveFailures: Off, EjectFor: T, MaxEjectFor: T, Jitter: Off, Deviation: Off, MaxEjected: 1}
//
// with ConsecutiveFailures: N where proxy_next_upstream lists http_500 and its like, or
// GatewayFailures: N for http_502, http_503 and http_504. There are two differences: nginx counts
// the failures within T, and here they are in a row; and nginx lets one request try the server
// after T, while here it comes back by way of balancer.SlowStart.
type Outlier struct {
	// Disabled switches all of it off. Endpoints that are ejected come back.
	Disabled bool

	// Shadow finds and reports, and ejects nobody.
	Shadow bool

	// Enforce is the part of the ejections that take place, by chance; the others are only
	// reported. Above 0, at most 1; zero means 1.
	Enforce float64

	// ConsecutiveFailures ejects an endpoint at once when it has answered so many requests in a
	// row with a failure: a 5xx. Answers that are neither success nor failure (4xx, 501 and 505)
	// do not count, here and below. Zero means 5, [Off] off. Inside evenkeel.New zero means Off if
	// there are circuit breakers, which do the same.
	ConsecutiveFailures int

	// GatewayFailures is ConsecutiveFailures for 502, 503 and 504 alone, by which a gateway says
	// that what is behind it is broken. Zero means Off.
	GatewayFailures int

	// LocalFailures ejects an endpoint at once when so many requests in a row had no answer: it
	// could not be reached, did not answer in time, or broke off. Zero means 5, [Off] off. Inside
	// evenkeel.New zero means Off if there are circuit breakers.
	LocalFailures int

	// FailureRate ejects an endpoint of which so large a part of the answers in an Interval were
	// failures, of at least 50, if at least 5 endpoints had as many. Above 0, at most 1; zero
	// means that it is not looked at: Deviation finds the same and does not eject those that are
	// no worse than the others.
	FailureRate float64

	// Deviation ejects an endpoint whose failure rate in an Interval is above that of the others
	// by more than this, and not by chance: see FalseAlarms. Below 1; zero means 0.05, [Off] off.
	// It looks at endpoints with at least 20 requests and 5 failures, if the others of their
	// priority had at least 50 requests together.
	Deviation float64

	// FalseAlarms is how likely Deviation may be to eject anybody in one Interval in which all
	// endpoints are equally good. Above 0, at most 0.5; zero means 0.001.
	FalseAlarms float64

	// SlowerBy ejects an endpoint whose median latency is above that of its priority by this
	// factor, and by SlowerByTime: for round robin, hashing and sessions. (The balancers that look
	// at latencies keep away from it by themselves.) It looks at endpoints with at least 100
	// answers, of which those of an Interval count half as much as those of the next, if there
	// are at least 3. Above 1; zero means off, and 3
	// is a good value.
	SlowerBy float64

	// SlowerByTime is the least difference for SlowerBy. Zero means 50ms.
	SlowerByTime time.Duration

	// Interval is how long requests are counted before the rates are looked at. Zero means 10s,
	// at least 100ms.
	Interval time.Duration

	// EjectFor is how long the first ejection lasts; the next ones last twice as long, three
	// times as long and so on, up to MaxEjectFor. Each Interval of good service, in which most
	// requests succeed, takes one step back. Zero means 30s.
	EjectFor time.Duration

	// MaxEjectFor is the longest time of an ejection. Zero means 5m, or EjectFor if that is
	// longer.
	MaxEjectFor time.Duration

	// Jitter is by which part of itself an ejection is longer at most, at random, so that the
	// clients do not come back together. The longest ones are shorter instead. Zero means 0.25,
	// [Off] none; at most 1.
	Jitter float64

	// MaxEjected is the part of all endpoints that may be ejected at the same time, by number and
	// by weight, the one included that is to be. Above 0, at most 1; zero means 0.5, so that with one
	// priority ejections alone never lead to panic. A single endpoint is never ejected, unless it
	// is 1.
	MaxEjected float64

	// ReturnOnRise ends an ejection early when as many probes in a row were good as it takes for
	// an unhealthy endpoint to be healthy (Check.Rise). Otherwise probes and ejections know
	// nothing of each other. A probe that fails never ends an ejection.
	ReturnOnRise bool
}

const (
	defaultConsecutive   = 5
	defaultDeviation     = 0.05
	defaultFalseAlarms   = 0.001
	defaultSlowerByTime  = 50 * time.Millisecond
	defaultSweep         = 10 * time.Second
	minSweep             = 100 * time.Millisecond
	defaultEjectFor      = 30 * time.Second
	defaultMaxEjectFor   = 5 * time.Minute
	defaultEjectJitter   = 0.25
	defaultMaxEjected    = 0.5
	deviationMinRequests = 20
	deviationMinFailures = 5
	deviationMinOthers   = 50
	rateMinRequests      = 50
	rateMinEndpoints     = 5
	slowMinAnswers       = 100
	slowMinEndpoints     = 3
)

// WithDefaults returns the settings as they are applied.
func (o Outlier) WithDefaults() Outlier {
	field.Default(&o.Enforce, 1)
	field.Default(&o.ConsecutiveFailures, defaultConsecutive)
	field.Default(&o.GatewayFailures, Off)
	field.Default(&o.LocalFailures, defaultConsecutive)
	field.Default(&o.Deviation, defaultDeviation)
	field.Default(&o.FalseAlarms, defaultFalseAlarms)
	field.Default(&o.SlowerByTime, defaultSlowerByTime)
	field.Default(&o.Interval, defaultSweep)
	field.Default(&o.EjectFor, defaultEjectFor)
	field.Default(&o.MaxEjectFor, max(defaultMaxEjectFor, o.EjectFor))
	field.Default(&o.Jitter, defaultEjectJitter)
	field.Default(&o.MaxEjected, defaultMaxEjected)
	return o
}

// Validate returns nil, or all that is wrong with the settings.
func (o Outlier) Validate() error {
	var errs field.Errors
	errs.CheckPart("Enforce", o.Enforce, 1, false)
	checkRow(&errs, "ConsecutiveFailures", o.ConsecutiveFailures)
	checkRow(&errs, "GatewayFailures", o.GatewayFailures)
	checkRow(&errs, "LocalFailures", o.LocalFailures)
	errs.CheckPart("FailureRate", o.FailureRate, 1, false)
	errs.Check(o.Deviation == Off || (o.Deviation >= 0 && o.Deviation < 1), "Deviation", o.Deviation, "must be from 0 to below 1, or Off")
	errs.CheckPart("FalseAlarms", o.FalseAlarms, 0.5, false)
	errs.Check(o.SlowerBy == 0 || (o.SlowerBy > 1 && !math.IsInf(o.SlowerBy, 1)), "SlowerBy", o.SlowerBy, "must be a number above 1, or 0")
	errs.Check(o.SlowerByTime >= 0, "SlowerByTime", o.SlowerByTime, "must not be negative")
	errs.Check(o.Interval == 0 || (o.Interval >= minSweep && o.Interval <= maxInterval), "Interval", o.Interval,
		fmt.Sprintf("must be from %v to %v", minSweep, maxInterval))
	checkInterval(&errs, "EjectFor", o.EjectFor)
	checkInterval(&errs, "MaxEjectFor", o.MaxEjectFor)
	errs.Check(o.MaxEjectFor <= 0 || o.MaxEjectFor >= o.WithDefaults().EjectFor, "MaxEjectFor", o.MaxEjectFor, "must not be shorter than EjectFor")
	errs.CheckPart("Jitter", o.Jitter, 1, true)
	errs.CheckPart("MaxEjected", o.MaxEjected, 1, false)
	return errs.Err()
}

func checkRow(errs *field.Errors, name string, n int) {
	errs.Check(n == Off || (n >= 0 && n <= maxCount), name, n, fmt.Sprintf("must be from 0 to %d, or Off", maxCount))
}

// lasts returns the time of the n-th ejection; random draws from [0,1).
func (o *Outlier) lasts(n int, random float64) time.Duration {
	jitter := max(o.Jitter, 0) // Off is none
	d := min(float64(o.EjectFor)*float64(n), float64(o.MaxEjectFor)/(1+jitter))
	return time.Duration(d * (1 + jitter*random))
}

// longest returns after how many ejections they last no longer.
func (o *Outlier) longest() int { return int(o.MaxEjectFor/o.EjectFor) + 1 }

package discovery

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/wait"
)

// The pace of looking a name up, where nothing else is configured.
const (
	defaultInterval    = 30 * time.Second
	defaultMinInterval = 3 * time.Second
	defaultTimeout     = 5 * time.Second

	// retryWithin is the longest wait after a failure or an empty answer. A
	// service that is all gone and comes back elsewhere must be found soon,
	// however long it was away: a backoff that has grown to minutes is
	// itself the outage by then.
	retryWithin = 5 * time.Second
)

// pace says how often a source is asked.
type pace struct {
	interval time.Duration // between two looks while all is well
	min      time.Duration // the least distance between two looks, whatever happens
	timeout  time.Duration // for one look
}

// withDefaults fills in what is zero, so that min never exceeds interval
// because of a default.
func (p pace) withDefaults() pace {
	if p.interval == 0 {
		p.interval = max(defaultInterval, p.min)
	}
	if p.min == 0 {
		p.min = min(defaultMinInterval, p.interval)
	}
	if p.timeout == 0 {
		p.timeout = defaultTimeout
	}
	return p
}

func (p pace) check(errs *field.Errors) {
	errs.Check(p.interval >= 0, "Interval", p.interval, "must not be negative")
	errs.Check(p.min >= 0, "MinInterval", p.min, "must not be negative")
	errs.Check(p.timeout >= 0, "Timeout", p.timeout, "must not be negative")
	if p.interval > 0 && p.min > p.interval {
		errs.Add("MinInterval", p.min, "must not be greater than Interval")
	}
}

// retries returns the waits after failures in a row.
func (p pace) retries() backoff {
	longest := min(retryWithin, p.interval)
	// Where min is close to the limit or above it, a tenth is left for jitter.
	return backoff{min: p.min, max: max(longest, p.min+p.min/10)}
}

// answer is the outcome of one look at a source.
type answer struct {
	endpoints []Endpoint
	skipped   error // what was left out of the endpoints
	failed    error // why there is no answer at all
}

func (a answer) tell(sink Sink) {
	if a.failed != nil {
		sink.Fail(fmt.Errorf("discovery: %w", a.failed))
		return
	}
	sink.Update(a.endpoints, a.skipped)
}

// poll looks at a source again and again until ctx is done, one look at a time.
// It tells every answer, also one that is like the one before: the owner may
// want to know that the source is alive. Times count from the beginning of a
// look, so that one which took long, or timed out, is not waited for twice.
func poll(ctx context.Context, sink Sink, p pace, look func(context.Context) answer) error {
	retries := p.retries()
	for {
		began := sink.Clock.Now()
		a := bounded(ctx, sink, p.timeout, look)
		if err := ctx.Err(); err != nil {
			return err // the look failed because we were told to stop
		}
		a.tell(sink)
		var next time.Duration
		if a.failed != nil || len(a.endpoints) == 0 {
			next = retries.next(sink.Rand())
		} else {
			retries.reset()
			next = jittered(p.interval, sink.Rand())
		}
		if err := pause(ctx, sink, began, p.min, next); err != nil {
			return err
		}
	}
}

// bounded looks once, for no longer than the timeout.
func bounded(ctx context.Context, sink Sink, timeout time.Duration, look func(context.Context) answer) answer {
	late := fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded)
	ctx, deadline := wait.NewDeadline(ctx, sink.Clock, timeout, late)
	defer deadline.End()
	return look(ctx)
}

// why returns the reason for which a look-up with this context failed: the
// resolver's own error, or our time bound, which the resolver cannot name.
func why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// pause waits until next after began. A refresh ends it sooner, but never
// sooner than least after began.
func pause(ctx context.Context, sink Sink, began time.Time, least, next time.Duration) error {
	remaining := func(d time.Duration) time.Duration {
		return d - max(sink.Clock.Now().Sub(began), 0) // a clock may jump back
	}
	if err := wait.SleepOr(ctx, sink.Clock, remaining(next), sink.Refresh); err != nil {
		return err
	}
	return wait.Sleep(ctx, sink.Clock, remaining(least))
}

// jittered spreads d uniformly over 90 % to 110 %, so that clients which were
// started together do not ask together for ever.
func jittered(d time.Duration, random float64) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*random))
}

// backoff is a growing wait: uniform between min and a limit which doubles with
// every failure in a row, from twice the min up to max. It is full jitter above a
// floor: with the floor inside the draw, half of all clients would wait for
// exactly the floor, together.
type backoff struct {
	min, max time.Duration
	limit    time.Duration
}

func (b *backoff) next(random float64) time.Duration {
	b.limit = min(2*max(b.limit, b.min), b.max)
	return b.min + time.Duration(random*float64(b.limit-b.min))
}

func (b *backoff) reset() { b.limit = 0 }

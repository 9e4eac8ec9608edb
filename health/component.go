package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// Component is something that a server cannot work without, or not well: a database, a queue,
// a disk, another service.
type Component struct {
	// Name is the component's in the report. It must not be empty, nor "server", and each has
	// another.
	Name string

	// Optional makes the whole [Degraded] and not [Down] if the component is Down.
	Optional bool

	// Timeout is how long Check may take. Zero means the handler's, negative is an error.
	Timeout time.Duration

	// CacheFor is how long a result is good for. Zero means the handler's, negative that no
	// result is kept.
	CacheFor time.Duration

	// Check returns nil if the component is Up, and else why it is not. See [Ping], [Disk], and
	// the method Check of evenkeel's Transport for the service behind one.
	//
	// Its context ends after Timeout, and not with a request. A check that goes on all the
	// same is not started again before it returns: until then, the component is Down with
	// the error "timeout", and requests need not wait to hear it. What it returns so late is
	// dropped, for the next run will tell. A check that panics, or ends its goroutine, means
	// Down. Calls do not overlap, and no lock is held.
	Check func(context.Context) error
}

// Ping returns the check of a database: p is a [*database/sql.DB], or whatever else has such a
// method. If a pool has no connection to spare, the check waits for one like everybody else,
// and may time out.
func Ping(p interface{ PingContext(context.Context) error }) func(context.Context) error {
	return func(ctx context.Context) error { return p.PingContext(ctx) }
}

// The texts of errors that everybody may see.
const (
	textFailed  = "failed"
	textTimeout = "timeout"
)

// componentFailure is why a component is down. The zero value is that it is not.
type componentFailure struct {
	text    string
	timeout bool
}

func timedOut() componentFailure { return componentFailure{text: textTimeout, timeout: true} }

func newFailure(err error) componentFailure {
	if err == nil {
		return componentFailure{}
	}
	var timeout interface{ Timeout() bool }
	return componentFailure{
		text:    errorText(err.Error()),
		timeout: errors.As(err, &timeout) && timeout.Timeout(),
	}
}

// public returns what those may see that are no insiders.
func (f componentFailure) public() componentFailure {
	switch {
	case f.text == "":
	case f.timeout:
		f.text = textTimeout
	default:
		f.text = textFailed
	}
	return f
}

// componentResult is what came of a check.
type componentResult struct {
	componentFailure
	at   time.Time
	took time.Duration
}

func (r componentResult) report() ComponentReport {
	c := ComponentReport{Status: Up, LatencyMs: max(r.took, 0).Milliseconds(), Error: r.text}
	if r.text != "" {
		c.Status = Down
	}
	return c
}

// componentRun is one call of a check.
type componentRun struct {
	begun   time.Time
	settled chan struct{} // closed when there is a result: the check has returned, or is out of time
	result  componentResult

	// Guarded by the runner.
	over     bool // settled is closed
	returned bool // the goroutine is about to end
}

// componentRunner has at most one run of its check under way.
type componentRunner struct {
	Component // with its defaults
	clock     clock.Clock

	mu     sync.Mutex // guards latest and parts of it; nothing is called meanwhile
	latest *componentRun
}

// ask returns a run whose result is good or will be, and starts one if there is none.
func (c *componentRunner) ask() *componentRun {
	now := c.clock.Now()
	c.mu.Lock()
	if r := c.latest; r != nil && (!r.returned || c.fresh(r, now)) {
		c.mu.Unlock()
		return r
	}
	r := &componentRun{begun: now, settled: make(chan struct{})}
	c.latest = r
	c.mu.Unlock()
	c.start(r)
	return r
}

// fresh reports whether a result is still good. One from after now is: somebody else was
// faster.
func (c *componentRunner) fresh(r *componentRun, now time.Time) bool {
	return c.CacheFor > 0 && now.Sub(r.result.at) < c.CacheFor
}

// start runs the check on a goroutine of its own. Its context is not that of a request, since
// the result is for others as well.
func (c *componentRunner) start(r *componentRun) {
	ctx, cancel := context.WithCancelCause(context.Background())
	timer := c.clock.AfterFunc(c.Timeout, func() {
		c.settle(r, timedOut(), false)
		cancel(context.DeadlineExceeded)
	})
	go func() {
		failure := componentFailure{text: "the check ended its goroutine"} // by runtime.Goexit
		defer func() {
			if p := recover(); p != nil {
				failure = componentFailure{text: errorText(fmt.Sprintf("panic: %v", p))}
			}
			timer.Stop()
			cancel(nil)
			c.settle(r, failure, true)
		}()
		failure = newFailure(c.Check(ctx)) // the error is foreign code, too
	}()
}

// settle gives a run its result, unless it has one.
func (c *componentRunner) settle(r *componentRun, f componentFailure, returned bool) {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.returned = r.returned || returned // the timer may come second
	if r.over {
		return
	}
	r.over = true
	r.result = componentResult{componentFailure: f, at: now, took: now.Sub(r.begun)}
	close(r.settled)
}

// await returns the result of a run, or that ctx was done before there was one.
func (c *componentRunner) await(ctx context.Context, r *componentRun) componentResult {
	select {
	case <-r.settled:
		return r.result
	case <-ctx.Done():
	}
	select {
	case <-r.settled: // a result that is there counts
		return r.result
	default:
	}
	now := c.clock.Now()
	return componentResult{
		componentFailure: newFailure(fmt.Errorf("not waited for: %w", context.Cause(ctx))),
		at:               now,
		took:             now.Sub(r.begun),
	}
}

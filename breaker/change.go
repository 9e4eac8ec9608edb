package breaker

import (
	"sync"
	"time"
)

// Change is an event: a breaker has gone from one state to another.
type Change struct {
	// Name is the breaker's.
	Name string
	// From and To are the states. The next change of the same breaker begins where
	// this one ends.
	From, To State
	// Reason is why.
	Reason Reason
	// Mode is the breaker's. In MetricsOnly the change is what would have been.
	Mode Mode
	// Counts are what was counted in the state that it left.
	Counts Counts
	// At is when it happened. If nobody asked the breaker then, the event is told
	// later.
	At time.Time
	// Until is when probes are let through, if it has opened and was not forced to.
	Until time.Time
}

// Reason is why a breaker changed its state.
type Reason string

// The reasons.
const (
	// Created: it was made so.
	Created Reason = "created"
	// ConsecutiveFailures: too many calls in a row have failed.
	ConsecutiveFailures Reason = "consecutive_failures"
	// FailureRate: too large a part of the calls has failed.
	FailureRate Reason = "failure_rate"
	// SlowRate: too large a part of the calls was slow.
	SlowRate Reason = "slow_rate"
	// Predicate: Config.TripIf said so.
	Predicate Reason = "predicate"
	// OpenTimeOver: it is time for probes.
	OpenTimeOver Reason = "open_time_over"
	// ProbesSucceeded: enough probes were good.
	ProbesSucceeded Reason = "probes_succeeded"
	// ProbeFailed: too many probes have failed.
	ProbeFailed Reason = "probe_failed"
	// ProbeTimedOut: the last of them because it hung.
	ProbeTimedOut Reason = "probe_timed_out"
	// ModeSet: another mode was set.
	ModeSet Reason = "mode_set"
	// WasReset: Reset was called.
	WasReset Reason = "reset"
)

// changes tells the changes of one breaker or of all those of a group, in order and
// one at a time.
type changes struct {
	tell func(Change) // nil if nobody wants to know

	mu      sync.Mutex // guards what follows; taken last; not held while telling
	queue   []Change
	telling chan struct{} // closed when nobody is at it any more; nil if nobody is
	closed  bool
}

// add takes a change that is to be told.
func (c *changes) add(change Change) {
	if c.tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.queue = append(c.queue, change)
	}
}

// flush tells what was added. If another goroutine is at it, that one tells ours too.
// Should the callback panic, the rest is told the next time.
func (c *changes) flush() {
	if c.tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.telling != nil {
		return
	}
	for len(c.queue) > 0 {
		c.tellNextLocked()
	}
	c.queue = nil
}

// tellNextLocked lets go of the lock while it tells, also if that panics.
func (c *changes) tellNextLocked() {
	next := c.queue[0]
	c.queue = c.queue[1:]
	c.telling = make(chan struct{})
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		close(c.telling)
		c.telling = nil
	}()
	c.tell(next)
}

// close drops what is not told yet, and waits for the call that is under way.
func (c *changes) close() {
	c.mu.Lock()
	c.closed, c.queue = true, nil
	telling := c.telling
	c.mu.Unlock()
	if telling != nil {
		<-telling
	}
}

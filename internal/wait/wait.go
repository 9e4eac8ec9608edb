// Package wait holds the two ways in which evenkeel waits on a clock: a sleep
// that its context can end, and a deadline that can be lifted.
package wait

import (
	"context"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// Sleep returns nil after d, or the context's error as soon as the context is
// done. No timer is left behind.
func Sleep(ctx context.Context, c clock.Clock, d time.Duration) error {
	return SleepOr(ctx, c, d, nil)
}

// SleepOr is [Sleep] that also ends, with nil, when wake can be received from.
func SleepOr(ctx context.Context, c clock.Clock, d time.Duration, wake <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d <= 0 {
		return nil
	}
	over := make(chan struct{})
	t := c.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Deadline is a bound on the first part of something whose context must
// live on after that part: the time until a response's headers, whose body is
// read under the same context. It is cancel-with-cause plus a timer, because a
// context made by context.WithTimeout would cut the body.
type Deadline struct {
	cancel context.CancelCauseFunc
	timer  clock.Timer

	mu    sync.Mutex
	state deadlineState
}

type deadlineState uint8

const (
	running deadlineState = iota
	passed                // time ran out first
	lifted                // Lift came first
)

// NewDeadline returns a context that is cancelled with the given cause d from
// now, unless [Deadline.Lift] comes first.
func NewDeadline(parent context.Context, c clock.Clock, d time.Duration, cause error) (context.Context, *Deadline) {
	ctx, cancel := context.WithCancelCause(parent)
	dl := &Deadline{cancel: cancel}
	dl.timer = c.AfterFunc(d, func() {
		if dl.settle(passed) {
			cancel(cause)
		}
	})
	return ctx, dl
}

// Lift takes the bound away and leaves the context alive. It reports whether
// it was in time; false means that the deadline has passed.
func (d *Deadline) Lift() bool {
	d.timer.Stop()
	d.settle(lifted)
	return !d.Passed()
}

// Passed reports whether the deadline ended the context.
func (d *Deadline) Passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == passed
}

// End cancels the context and frees what it holds. It must be called once
// nobody needs the context any more, and may be called more than once.
func (d *Deadline) End() {
	d.timer.Stop()
	d.cancel(nil)
}

func (d *Deadline) settle(to deadlineState) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != running {
		return false
	}
	d.state = to
	return true
}

package redis

import (
	"context"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// These contexts are in real time, whatever clock the rest of the store has: go-redis makes deadlines
// of sockets of them.

// limited is a context for one operation. go-redis waits for connections until it is done, and
// for servers until its deadline.
type limited struct {
	context.Context

	deadline time.Time
}

// limit returns a context that ends after d, and what must be called when it is not needed any more.
func limit(parent context.Context, d time.Duration) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(parent)
	deadline := clock.System.Now().Add(d)
	if sooner, ok := parent.Deadline(); ok && sooner.Before(deadline) {
		deadline = sooner
	}
	timer := clock.System.AfterFunc(d, cancel)
	return limited{ctx, deadline}, func() {
		timer.Stop()
		cancel()
	}
}

// Deadline implements context.Context.
func (l limited) Deadline() (time.Time, bool) { return l.deadline, true }

// Err implements context.Context.
func (l limited) Err() error {
	err := l.Context.Err()
	if err != nil && passed(l.deadline) {
		return context.DeadlineExceeded
	}
	return err
}

// punctual is the context of a caller that has given up as soon as its deadline has passed: a
// socket with the same deadline may be faster than the context's own timer, and then it would look as
// if Redis had failed.
type punctual struct{ context.Context }

func punctually(ctx context.Context) context.Context { return punctual{ctx} }

// Err implements context.Context.
func (p punctual) Err() error {
	if err := p.Context.Err(); err != nil {
		return err
	}
	if deadline, ok := p.Deadline(); ok && passed(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func passed(deadline time.Time) bool { return !clock.System.Now().Before(deadline) }

package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// Probe asks an endpoint whether it can serve. It is an [HTTP], a [TCP], a [GRPC] or a [Func].
type Probe interface {
	// Validate returns nil, or all that is wrong with the probe.
	Validate() error

	// prober returns what asks. The probe is valid.
	prober() prober
}

// prober asks over the line to an endpoint. It is used concurrently.
type prober interface {
	ask(ctx context.Context, l *line) answer
}

// answer is what a probe brought.
type answer struct {
	err   error         // nil if the endpoint can serve
	found finding       // what that means
	wait  time.Duration // what the endpoint asks to be left alone for, 0 if it does not
}

// judged returns the answer with what its error means. That asks the error, which may be of a type of
// the user's, so it is done where a panic is caught and no lock is held.
func (a answer) judged() answer {
	a.found = findingOf(a.err)
	return a
}

// failing is the answer of a probe that failed for a reason of ours.
func failing(err error) answer { return answer{err: err, found: bad} }

// The errors of a [Func] that say more than that one probe has failed. They may be wrapped.
var (
	// ErrDown says that the endpoint itself declares that it cannot serve: it is unhealthy at
	// once.
	ErrDown = errors.New("health: the endpoint says that it is down")
	// ErrDraining says that the endpoint is about to leave: it finishes what it has, and gets
	// nothing new while there are others.
	ErrDraining = errors.New("health: the endpoint says that it is draining")
)

// errTimeout is the cause of the end of a probe that takes too long. Unwrap makes it a deadline
// for everybody who asks.
var errTimeout error = &timeoutError{}

type timeoutError struct{}

func (*timeoutError) Error() string { return "health: the probe took too long" }

func (*timeoutError) Unwrap() error { return context.DeadlineExceeded }

func (*timeoutError) Timeout() bool { return true }

// errStuck is the result of a probe that is due while the one before has not returned.
var errStuck = errors.New("health: the probe before has not returned, long after its time was over")

// Func is a probe of the user's own. It returns nil if the endpoint can serve, must return when
// its context is done, and is called concurrently for different endpoints. If it panics, the probe
// has failed. One that does not return in time has failed, too, and no other is started for its
// endpoint before it has returned; nobody waits for it, also not when the monitor is closed.
type Func func(ctx context.Context, e discovery.Endpoint) error

// Validate implements [Probe].
func (f Func) Validate() error {
	if f == nil {
		return errors.New("health: a Func must not be nil")
	}
	return nil
}

func (f Func) prober() prober { return f }

func (f Func) ask(ctx context.Context, l *line) answer { return answer{err: f(ctx, l.endpoint)} }

// PanicError is the result of a probe that has panicked.
type PanicError struct {
	// Value is that of the panic.
	Value any
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("health: the probe panicked: %v", e.Value) }

// findingOf says what an answer means.
func findingOf(err error) finding {
	switch {
	case err == nil:
		return good
	case errors.Is(err, ErrDown):
		return down
	case errors.Is(err, ErrDraining):
		return leaving
	default:
		return bad
	}
}

package call

import (
	"context"
	"errors"

	"github.com/evenkeel-go/evenkeel/outcome"
)

var (
	errSuperseded = errors.New("evenkeel: another attempt of the same call was faster")
	errGone       = errors.New("evenkeel: the goroutine of the attempt was ended by runtime.Goexit")
	errNoAnswer   = errors.New("evenkeel: the transport returned neither a response nor an error")
)

// ErrNotReplayable is the answer to an attempt for which there is no body.
var ErrNotReplayable error = &refusal{outcome.NotReplayable, "evenkeel: the request's body was read and cannot be had again"}

// ErrAttemptTimeout ends an attempt whose time is over.
var ErrAttemptTimeout error = &timeoutError{"evenkeel: the attempt took longer than its time limit"}

// ErrNoTime says that a call ended because its next attempt could not be in time.
var ErrNoTime error = &timeoutError{"evenkeel: no time was left for another attempt"}

// timeoutError is a context.DeadlineExceeded with a better text.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string        { return e.text }
func (e *timeoutError) Timeout() bool        { return true }
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// refusal is an error of evenkeel's own that says why nothing was sent.
type refusal struct {
	reason outcome.Reason
	text   string
}

func (e *refusal) Error() string          { return e.text }
func (e *refusal) Reason() outcome.Reason { return e.reason }

// NewTimeout returns an error that is a timeout and context.DeadlineExceeded.
func NewTimeout(text string) error { return &timeoutError{text} }

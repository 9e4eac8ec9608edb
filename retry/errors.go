package retry

import (
	"errors"
	"fmt"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// Error says that a call failed without a response. evenkeel.New puts an error of
// its own in its place, with the same content.
type Error struct {
	// Attempts is how many attempts were sent.
	Attempts int
	// Reason is why there was no further one.
	Reason outcome.Reason
	// Err holds the errors of all attempts.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("retry: stopped after %d attempt(s) (%s): %v", e.Attempts, e.Reason, e.Err)
}

// Unwrap makes errors.Is and errors.As find the errors of all attempts.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the call ended because time ran out.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	return e.Reason == outcome.Deadline || (errors.As(e.Err, &t) && t.Timeout())
}

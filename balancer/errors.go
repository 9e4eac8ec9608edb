package balancer

import (
	"errors"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// ErrNoEndpoints is what [NoEndpointsError] wraps: there is nothing to pick.
var ErrNoEndpoints = errors.New("balancer: no endpoints")

// ErrClosed is returned by a pool that was closed.
var ErrClosed error = &closedError{}

type closedError struct{}

func (*closedError) Error() string          { return "balancer: closed" }
func (*closedError) Reason() outcome.Reason { return outcome.Closed }

var (
	errUnresolved     = errors.New("the resolver has not answered yet")
	errNoneFound      = errors.New("the resolver says that there are none")
	errAllUnavailable = errors.New("all of them are draining or unhealthy")
	errPanic          = errors.New("too few of them are healthy, and Panic.Reject is set")
	errNoRoute        = errors.New("none has what the request asks for in the attribute")
)

// NoEndpointsError says that there is nothing to pick, and why.
type NoEndpointsError struct {
	// Cause is the resolver's last error, or what else explains it.
	Cause error
}

// Error implements error.
func (e *NoEndpointsError) Error() string { return ErrNoEndpoints.Error() + ": " + e.Cause.Error() }

// Unwrap makes errors.Is find [ErrNoEndpoints] and the cause.
func (e *NoEndpointsError) Unwrap() []error { return []error{ErrNoEndpoints, e.Cause} }

// Reason returns [outcome.Open] if circuit breakers are to blame, otherwise
// [outcome.NoEndpoints].
func (e *NoEndpointsError) Reason() outcome.Reason {
	if outcome.ReasonOf(e.Cause) == outcome.Open {
		return outcome.Open
	}
	return outcome.NoEndpoints
}

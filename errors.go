package evenkeel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Error is the one error that a [Transport] or a [Services] returns, whatever went wrong. It
// means that there is no response: one that was obtained is returned with a nil
// error, whatever its status.
type Error struct {
	// Target is the service that was called, without anything secret.
	Target string
	// Reason is why the call was refused, or why there was no further attempt.
	Reason outcome.Reason
	// Attempts are those that were sent, in order: where each went, what it meant, how long
	// it took, and why there was no response.
	Attempts []Attempt
	// Endpoint is the address of the last attempt, empty if there was none.
	Endpoint string
	// Err is the cause: the errors of all attempts, and whatever ended the
	// call. [errors.Is] and [errors.As] find each of them.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	return "evenkeel: call to " + e.Target + strings.TrimPrefix(e.retries().Error(), "retry:")
}

// retries is the error of the retry policy that has the same content.
func (e *Error) retries() *retry.Error {
	return &retry.Error{Attempts: e.Attempts, Reason: e.Reason, Err: e.Err}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// NeverSent reports whether all attempts provably reached no server.
func (e *Error) NeverSent() bool { return e.retries().NeverSent() }

// Timeout reports whether the call ended because time ran out. [net/url.Error]
// asks for it.
func (e *Error) Timeout() bool {
	return e.retries().Timeout()
}

// The causes of calls that are refused before anything is tried.
var (
	// ErrClosed means that the transport was closed or shut down.
	ErrClosed = balancer.ErrClosed
	// ErrWrongTarget means that the request is for another scheme, host or
	// port than the target's. See [WithOtherHosts].
	ErrWrongTarget = errors.New("evenkeel: the request is for another host than the target")
)

// ErrUnknownService means that a [Services] has no service of that name. See [UnknownServiceError].
var ErrUnknownService = errors.New("evenkeel: unknown service")

// UnknownServiceError says that a [Services] has no transport for a name. Within an [*Error] its reason is
// [outcome.WrongTarget].
type UnknownServiceError struct {
	// Name is what was asked for: a name, or a host with a port.
	Name string
	// Err is [ErrUnknownService] if nobody knows the name, else why it could not be found out, or
	// why what was found is no service: the error of [ServicesConfig.Find], or what [New] would return.
	Err error
}

// Error implements error.
func (e *UnknownServiceError) Error() string {
	text := fmt.Sprintf("evenkeel: unknown service %q", e.Name)
	if e.Err != ErrUnknownService { //nolint:errorlint // another error that holds it says more
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns why the service is not known.
func (e *UnknownServiceError) Unwrap() error { return e.Err }

// FieldError is one problem with one field of a configuration or a request. What
// [New] and [Transport.Update] return joins one for each problem.
type FieldError = field.Error

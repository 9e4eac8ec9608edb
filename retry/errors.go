package retry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// Error says that a call failed without an answer. evenkeel.New puts an error of
// its own in its place, with the same content.
type Error struct {
	// Attempts are those that were sent, in order.
	Attempts []Attempt
	// Reason is why there was no further one.
	Reason outcome.Reason
	// Err holds the errors of all attempts, and what ended the call. [errors.Is] and
	// [errors.As] find each of them.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	return "retry: failed" + summary(e.Attempts, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the call ended because time ran out: its own, or that of its last
// attempt. [net/url.Error] asks for it.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	if e.Reason == outcome.Deadline || (errors.As(e.Err, &t) && t.Timeout()) {
		return true
	}
	return len(e.Attempts) > 0 && e.Attempts[len(e.Attempts)-1].Outcome.Timeout
}

// NeverSent reports whether there were attempts, and all of them provably reached no server.
func (e *Error) NeverSent() bool {
	sent := func(a Attempt) bool { return a.Outcome.Class != outcome.NeverSent }
	return len(e.Attempts) > 0 && !slices.ContainsFunc(e.Attempts, sent)
}

// summary tells a failed call in one line, as it follows the word "failed": how many attempts
// there were, how each of them went, and why there was no further one.
func summary(attempts []Attempt, reason outcome.Reason, err error) string {
	var b strings.Builder
	if n := len(attempts); n > 0 {
		fmt.Fprintf(&b, " after %d attempt(s)", n)
	}
	if reason != "" {
		fmt.Fprintf(&b, " (%s)", reason)
	}
	for i, a := range attempts {
		b.WriteString([...]string{": ", "; "}[min(i, 1)])
		b.WriteString(a.String())
	}
	if last := len(attempts) - 1; last < 0 || !tells(attempts, err) {
		fmt.Fprintf(&b, ": %s", oneLine(err))
	}
	return b.String()
}

// tells reports whether the attempts tell all that the error does.
func tells(attempts []Attempt, err error) bool {
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	} else {
		all = []error{err}
	}
	told := 0
	for _, e := range all {
		for _, a := range attempts {
			if a.Err == e { //nolint:errorlint // the very same error
				told++
				break
			}
		}
	}
	return told == len(all)
}

// String tells how the attempt went, such as "10.0.0.1:80: 503 Service Unavailable (failure, 12ms)".
func (a Attempt) String() string {
	var b strings.Builder
	if a.Endpoint.Address != "" {
		b.WriteString(a.Endpoint.Address + ": ")
	}
	switch {
	case a.Err != nil:
		b.WriteString(oneLine(a.Err))
	case a.StatusCode != 0:
		fmt.Fprintf(&b, "status %d", a.StatusCode)
	default:
		b.WriteString("given up")
	}
	fmt.Fprintf(&b, " (%v, %v)", a.Outcome.Class, a.Took.Round(time.Microsecond))
	return b.String()
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

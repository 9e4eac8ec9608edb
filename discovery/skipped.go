package discovery

import (
	"fmt"
	"strings"
)

// SkippedError tells how many entries of an answer had to be left out, and why.
// Resolvers pass it beside the entries that are good (see [Sink]). The zero
// value counts nothing; it must not be used concurrently.
type SkippedError struct {
	// Count is how many entries were left out.
	Count int
	// First is why, for the first few of them: a source that is all wrong
	// must not make an error of megabytes.
	First []error
}

// skippedKept is how many reasons a SkippedError keeps.
const skippedKept = 5

// Add counts one entry that was left out for the given reason.
func (e *SkippedError) Add(reason error) {
	e.Count++
	if len(e.First) < skippedKept {
		e.First = append(e.First, reason)
	}
}

// Err returns e, or nil if nothing was counted: what to pass to Sink.Update.
func (e *SkippedError) Err() error {
	if e.Count == 0 {
		return nil
	}
	return e
}

// Error implements error.
func (e *SkippedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d left out", e.Count)
	separator := ": "
	for _, reason := range e.First {
		b.WriteString(separator)
		b.WriteString(reason.Error())
		separator = "; "
	}
	if more := e.Count - len(e.First); more > 0 && len(e.First) > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

// Unwrap returns the reasons that are known.
func (e *SkippedError) Unwrap() []error { return e.First }

// countSkipped returns how many problems the error beside an update stands for:
// what SkippedErrors count, and one for any other error.
func countSkipped(err error) int {
	switch err := err.(type) { //nolint:errorlint // walks the tree of errors, on purpose
	case nil:
		return 0
	case *SkippedError:
		return err.Count
	case interface{ Unwrap() []error }:
		n := 0
		for _, part := range err.Unwrap() {
			n += countSkipped(part)
		}
		return max(n, 1)
	case interface{ Unwrap() error }:
		return max(countSkipped(err.Unwrap()), 1)
	default:
		return 1
	}
}

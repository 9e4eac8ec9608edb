package breaker

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// ErrOpen is what [OpenError] wraps: the call was refused by a breaker.
var ErrOpen = errors.New("breaker: open")

// OpenError says which breaker refused a call, why, and when to come back. All calls
// that are refused in one phase get the same error, which nobody may change.
type OpenError struct {
	// Name is the breaker's.
	Name string
	// State is Open; HalfOpen if all probes are under way; Closed if the breaker has
	// just closed and lets only a part of the calls through.
	State State
	// Because is why it is in that state.
	Because Reason
	// Until is when it lets calls through again. It is zero where that has no
	// instant: in the other states, and if the breaker was forced open.
	Until time.Time

	until   time.Duration
	elapsed func() time.Duration
}

// Error implements error.
func (e *OpenError) Error() string {
	wait := ""
	if d := e.RetryAfter(); d > 0 {
		wait = fmt.Sprintf(", next try in %v", d.Round(time.Millisecond))
	}
	return fmt.Sprintf("breaker: %s is %s (%s)%s", e.Name, e.State, e.Because, wait)
}

// Is makes errors.Is find [ErrOpen].
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Reason returns [outcome.Open].
func (e *OpenError) Reason() outcome.Reason { return outcome.Open }

// RetryAfter returns how long it is from now until the breaker lets calls through
// again, zero if that is not known.
func (e *OpenError) RetryAfter() time.Duration {
	if e.Until.IsZero() || e.elapsed == nil {
		return 0
	}
	return max(e.until-e.elapsed(), 0)
}

// ServeHTTP answers a request with 503 and Retry-After, for gateways that got this
// error from behind them.
func (e *OpenError) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	unavailable(w, e.RetryAfter())
}

// unavailable answers with 503. Retry-After has whole seconds, and at least one.
func unavailable(w http.ResponseWriter, after time.Duration) {
	seconds := max(1, int64((after+time.Second-1)/time.Second))
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
}

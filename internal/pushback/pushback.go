// Package pushback reads what servers say about when to come back.
package pushback

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// longest is more than anybody will wait, and keeps sums of durations from overflowing.
const longest = 365 * 24 * time.Hour

// RetryAfter returns what a Retry-After header asks for, in either of its forms (RFC
// 9110, section 10.2.3): 0 if there is none, or it cannot be read. A date is compared
// with the server's own clock, if the answer has a Date.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), longest)
}

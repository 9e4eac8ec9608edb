// Package pushback reads what servers say about when to come back.
package pushback

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longest is more than anybody will wait, and keeps sums of durations from overflowing.
const longest = 365 * 24 * time.Hour

// Wait returns for how long an answer asks to be left alone, at least zero, and false if it
// says nothing that can be read. Retry-After counts first. An answer that a limit was reached
// (429) may instead say when the limit is lifted, in one of the headers that are in use for
// that: RateLimit (draft-ietf-httpapi-ratelimit-headers, in its newest form "name";r=0;t=30 and
// the older one remaining=0, reset=30), RateLimit-Reset, X-RateLimit-Reset or
// X-Rate-Limit-Reset. Of these only what belongs to a limit that is used up counts. now is asked
// if there is a date, and the server has not told its own time.
func Wait(status int, h http.Header, now func() time.Time) (time.Duration, bool) {
	if d, ok := retryAfter(h, now); ok || status != http.StatusTooManyRequests {
		return d, ok
	}
	if d, ok := rateLimit(h); ok {
		return d, ok
	}
	for _, prefix := range [...]string{"Ratelimit-", "X-Ratelimit-", "X-Rate-Limit-"} {
		if left, err := strconv.ParseFloat(h.Get(prefix+"Remaining"), 64); err == nil && left > 0 {
			continue
		}
		if d, ok := reset(h.Get(prefix+"Reset"), h, now); ok {
			return d, true
		}
	}
	return 0, false
}

// RetryAfter returns what a Retry-After header asks for, in either of its forms (RFC
// 9110, section 10.2.3): at least zero, and false if there is none that can be read. Of
// several the longest counts. A date is compared with the server's own clock, if the answer
// has a Date.
func RetryAfter(h http.Header, now time.Time) (d time.Duration, ok bool) {
	return retryAfter(h, func() time.Time { return now })
}

func retryAfter(h http.Header, now func() time.Time) (d time.Duration, ok bool) {
	for _, value := range h["Retry-After"] {
		value = strings.TrimSpace(value)
		next, valid := digits(value)
		if !valid {
			next, valid = date(value, h, now)
		}
		if valid {
			d, ok = max(d, next), true
		}
	}
	return d, ok
}

// serverTime returns the time at the server, as far as it is known.
func serverTime(h http.Header, now func() time.Time) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return now()
}

// digits reads a number of seconds as the standard has it, however large.
func digits(s string) (time.Duration, bool) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	return seconds(s)
}

// seconds reads a number of seconds, with what is sent though no standard has it: fractions
// and a sign.
func seconds(s string) (time.Duration, bool) {
	n, ok := number(s)
	if !ok {
		return 0, false
	}
	return time.Duration(min(max(n, 0), longest.Seconds()) * float64(time.Second)), true
}

// number reads a decimal number without an exponent, however large.
func number(s string) (float64, bool) {
	if s == "" || strings.Trim(s, "0123456789.-+") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil || math.IsInf(n, 0)
}

// date reads one of the three forms of an HTTP date.
func date(s string, h http.Header, now func() time.Time) (time.Duration, bool) {
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(serverTime(h, now)), 0), longest), true
}

// Numbers above these are no spans of seconds but instants: seconds since 1970, or
// milliseconds.
const (
	epochSeconds = 1e9
	epochMillis  = 1e12
)

// reset reads the value of a header that ends in Reset: seconds from now, an instant in
// seconds or milliseconds since 1970, or an HTTP date.
func reset(s string, h http.Header, now func() time.Time) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	n, ok := number(s)
	if !ok {
		return date(s, h, now)
	}
	switch {
	case n >= epochMillis:
		n = (n - float64(serverTime(h, now).UnixMilli())) / 1000
	case n >= epochSeconds:
		n -= float64(serverTime(h, now).UnixMilli()) / 1000
	}
	return time.Duration(min(max(n, 0), longest.Seconds()) * float64(time.Second)), true
}

// rateLimit reads the RateLimit header: the longest wait for a limit that is used up.
func rateLimit(h http.Header) (d time.Duration, ok bool) {
	var left, until string // of the older form, which is one list for one limit
	for _, line := range h["Ratelimit"] {
		for _, item := range split(line, ',') {
			key, value, _ := strings.Cut(strings.TrimSpace(item), "=")
			switch strings.ToLower(key) {
			case "remaining":
				left = value
			case "reset":
				until = value
			default:
				if next, valid := usedUp(parameters(item)); valid {
					d, ok = max(d, next), true
				}
			}
		}
	}
	if next, valid := usedUp(left, until); valid {
		d, ok = max(d, next), true
	}
	return d, ok
}

// usedUp returns the wait for a limit unless there is something left of it.
func usedUp(left, until string) (time.Duration, bool) {
	if n, ok := number(left); ok && n > 0 {
		return 0, false
	}
	return seconds(until)
}

// parameters returns r and t of an item such as "name";r=0;t=30.
func parameters(item string) (left, until string) {
	for _, p := range split(item, ';') {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch key {
		case "r":
			left = value
		case "t":
			until = value
		}
	}
	return left, until
}

// split cuts a header's value at a separator, but not inside quotes.
func split(s string, separator byte) []string {
	var parts []string
	quoted, begin := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++ // the next one is meant as it is
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			parts = append(parts, s[begin:i])
			begin = i + 1
		}
	}
	return append(parts, s[begin:])
}

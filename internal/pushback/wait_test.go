package pushback

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const absent = -time.Nanosecond // what a header that says nothing is written as in the tables

func TestWait_RateLimit_R11(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		name   string
		values []string // of RateLimit
		want   time.Duration
	}{
		{"new form", []string{`"default";r=0;t=30`}, 30 * s},
		{"blanks", []string{` "default" ; r=0 ; t=30 `}, 30 * s},
		{"a token for a name", []string{`default;r=0;t=30`}, 30 * s},
		{"other order", []string{`"default";t=30;r=0`}, 30 * s},
		{"more parameters", []string{`"default";q=100;r=0;w=60;t=30;pk=:cHsdsRa894==:`}, 30 * s},
		{"something is left", []string{`"default";r=5;t=30`}, absent},
		{"no time", []string{`"default";r=0`}, absent},
		{"at once", []string{`"default";r=0;t=0`}, 0},
		{"a negative time", []string{`"default";r=0;t=-5`}, 0},
		{"nonsense for a time", []string{`"default";r=0;t=soon`}, absent},
		{"more than a year", []string{`"default";r=0;t=99999999999999999999`}, longest},
		{"two limits, both used up", []string{`"second";r=0;t=1, "day";r=0;t=60`}, 60 * s},
		{"two limits, one used up", []string{`"second";r=0;t=1, "day";r=500;t=60`}, 1 * s},
		{"two limits, none used up", []string{`"second";r=1;t=1, "day";r=500;t=60`}, absent},
		{"two lines", []string{`"second";r=0;t=1`, `"day";r=0;t=60`}, 60 * s},
		{"a comma in the name", []string{`"a, b";r=0;t=30`}, 30 * s},
		{"what looks like a limit in the name", []string{`"a;t=99, b;r=0;t=77";r=0;t=30`}, 30 * s},
		{"a quote in the name", []string{`"a\", b";r=0;t=30, "c";r=9;t=60`}, 30 * s},
		{"a backslash at the end of the name", []string{`"a\\";r=0;t=30, "b";r=0;t=60`}, 60 * s},
		{"a quote that does not end", []string{`"a;r=0;t=30`}, absent},

		{"old form", []string{`limit=100, remaining=0, reset=30`}, 30 * s},
		{"old form, no limit", []string{`remaining=0, reset=30`}, 30 * s},
		{"old form, other order", []string{`reset=30,remaining=0`}, 30 * s},
		{"old form, upper case", []string{`Limit=100, Remaining=0, Reset=30`}, 30 * s},
		{"old form, something is left", []string{`limit=100, remaining=1, reset=30`}, absent},
		{"old form, no time", []string{`limit=100, remaining=0`}, absent},
		{"old form, two lines", []string{`limit=100, remaining=0`, `reset=30`}, 30 * s},

		{"nothing", []string{``}, absent},
		{"separators", []string{`,;,=;"`}, absent},
		{"none", nil, absent},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := http.Header{}
			for _, v := range row.values {
				h.Add("RateLimit", v)
			}
			checkWait(t, row.want, h)
		})
	}
}

// checkWait checks what an answer with that header asks for, and that only 429 does.
func checkWait(t *testing.T, want time.Duration, h http.Header) {
	t.Helper()
	got, ok := Wait(http.StatusTooManyRequests, h, func() time.Time { return now })
	if !ok {
		assert.Zero(t, got)
		got = absent
	}
	assert.Equal(t, want, got)
	for _, status := range []int{200, 403, 502, 503, 504, 0} {
		_, ok := Wait(status, h, func() time.Time { return now })
		assert.False(t, ok, "%d says nothing of a limit", status)
	}
}

func TestWait_Reset_R11(t *testing.T) {
	const s = time.Second
	epoch := now.Unix()
	for _, row := range []struct {
		name, reset, left, date string
		want                    time.Duration
	}{
		{"seconds", "30", "", "", 30 * s},
		{"blanks", " 30 ", "", "", 30 * s},
		{"zero", "0", "", "", 0},
		{"a fraction", "1.5", "", "", 1500 * time.Millisecond},
		{"negative", "-30", "", "", 0},
		{"the longest span of seconds", "999999999", "", "", longest},
		{"since 1970", fmt.Sprint(epoch + 30), "", "", 30 * s},
		{"since 1970, a fraction", fmt.Sprint(epoch+30) + ".5", "", "", 30*s + 500*time.Millisecond},
		{"since 1970, the past", fmt.Sprint(epoch - 30), "", "", 0},
		{"since 1970, far ahead", fmt.Sprint(epoch + 1e9), "", "", longest},
		{"milliseconds since 1970", fmt.Sprint(now.UnixMilli() + 1500), "", "", 1500 * time.Millisecond},
		{"milliseconds since 1970, the past", fmt.Sprint(now.UnixMilli() - 1), "", "", 0},
		{"more than fits", "99999999999999999999", "", "", longest},
		{"much more", "1" + fmt.Sprintf("%0400d", 0), "", "", longest},
		{"much less", "-1" + fmt.Sprintf("%0400d", 0), "", "", 0},
		{"a date", "Sun, 01 Mar 2026 12:00:30 GMT", "", "", 30 * s},
		{"a date of RFC 850", "Sunday, 01-Mar-26 12:00:30 GMT", "", "", 30 * s},
		{"a date of asctime", "Sun Mar  1 12:00:30 2026", "", "", 30 * s},
		{"a date in the past", "Sun, 01 Mar 2026 11:00:00 GMT", "", "", 0},
		{"an exponent", "1e3", "", "", absent},
		{"hexadecimal", "0x10", "", "", absent},
		{"infinite", "Inf", "", "", absent},
		{"no number", "NaN", "", "", absent},
		{"a sign only", "-", "", "", absent},
		{"nonsense", "soon", "", "", absent},
		{"none", "", "", "", absent},

		{"used up", "30", "0", "", 30 * s},
		{"used up, with a fraction", "30", "0.0", "", 30 * s},
		{"something is left", "30", "1", "", absent},
		{"a little is left", "30", "0.5", "", absent},
		{"overdrawn", "30", "-3", "", 30 * s},
		{"nonsense is left", "30", "many", "", 30 * s},

		// The server's clock counts, not ours, as for Retry-After.
		{"since 1970, by the server's clock", fmt.Sprint(epoch + 3630), "", "Sun, 01 Mar 2026 13:00:00 GMT", 30 * s},
		{"milliseconds, by the server's clock", fmt.Sprint(now.UnixMilli() + 3_630_000), "", "Sun, 01 Mar 2026 13:00:00 GMT", 30 * s},
		{"a date, by the server's clock", "Sun, 01 Mar 2026 13:00:30 GMT", "", "Sun, 01 Mar 2026 13:00:00 GMT", 30 * s},
		{"seconds need no clock", "30", "", "Sun, 01 Mar 2026 13:00:00 GMT", 30 * s},
		{"its clock cannot be read", fmt.Sprint(epoch + 30), "", "noon", 30 * s},
	} {
		for _, prefix := range []string{"RateLimit-", "X-RateLimit-", "X-Rate-Limit-"} {
			t.Run(prefix+row.name, func(t *testing.T) {
				h := http.Header{}
				for name, value := range map[string]string{prefix + "Reset": row.reset, prefix + "Remaining": row.left, "Date": row.date} {
					if value != "" {
						h.Set(name, value)
					}
				}
				got, ok := Wait(http.StatusTooManyRequests, h, func() time.Time { return now })
				if !ok {
					got = absent
				}
				assert.InDelta(t, row.want, got, float64(time.Microsecond)) // they are fractions on the way
				_, ok = Wait(http.StatusServiceUnavailable, h, func() time.Time { return now })
				assert.False(t, ok, "only 429 says that a limit was reached")
			})
		}
	}
}

func TestWait_WhichHeaderCounts(t *testing.T) {
	const s = time.Second
	const date = "Sun, 01 Mar 2026 12:00:05 GMT"
	for _, row := range []struct {
		name   string
		header http.Header
		want   time.Duration
	}{
		{"Retry-After first", header("Retry-After", "3", "RateLimit", `"a";r=0;t=30`, "X-RateLimit-Reset", "60"), 3 * s},
		{"also as a date", header("Retry-After", date, "RateLimit", `"a";r=0;t=30`), 5 * s},
		{"also if it is zero", header("Retry-After", "0", "X-RateLimit-Reset", "60"), 0},
		{"not if it cannot be read", header("Retry-After", "soon", "RateLimit", `"a";r=0;t=30`), 30 * s},
		{"not if it is negative", header("Retry-After", "-1", "X-RateLimit-Reset", "60"), 60 * s},
		{"then RateLimit", header("RateLimit", `"a";r=0;t=30`, "RateLimit-Reset", "60"), 30 * s},
		{"not if something is left of it", header("RateLimit", `"a";r=1;t=30`, "RateLimit-Reset", "60"), 60 * s},
		{"then RateLimit-Reset", header("RateLimit-Reset", "60", "X-RateLimit-Reset", "90"), 60 * s},
		{"not if something is left of it", header("RateLimit-Reset", "60", "RateLimit-Remaining", "1", "X-RateLimit-Reset", "90"), 90 * s},
		{"what is left of another says nothing", header("RateLimit-Reset", "60", "X-RateLimit-Remaining", "1"), 60 * s},
		{"a policy is no limit", header("RateLimit-Policy", `"a";q=100;w=60`, "RateLimit-Limit", "100"), absent},
		{"nothing", http.Header{}, absent},
		{"no header at all", nil, absent},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, ok := Wait(http.StatusTooManyRequests, row.header, func() time.Time { return now })
			if !ok {
				got = absent
			}
			assert.Equal(t, row.want, got)
		})
	}
	for _, status := range []int{429, 502, 503, 504} {
		got, ok := Wait(status, header("Retry-After", "3"), func() time.Time { return now })
		assert.True(t, ok, "%d", status)
		assert.Equal(t, 3*s, got)
	}
}

// Whatever a server sends, the result is a time from 0 to a year, the same each time, and none if
// there is none.
func FuzzWait(f *testing.F) {
	for _, v := range []string{
		"", "0", "30", "-1", "1.5", "1772366430", "1772366430000", "1e9", "NaN", "99999999999999999999", "+-.", "soon",
		"Sun, 01 Mar 2026 12:00:30 GMT", "Sunday, 01-Mar-26 12:00:30 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
		`"default";r=0;t=30`, `"a, b";r=0;t=30, c;r=1;t=2`, `limit=1, remaining=0, reset=30`, `"a\";r=0;t=1`, ",;=\"\\",
	} {
		f.Add(v, "", v, v, "0", "")
		f.Add("x", v, v, "x", v, "Sun, 01 Mar 2026 12:00:00 GMT")
		f.Add("", v, "", "-9223372036854775808", v, v)
	}
	f.Fuzz(func(t *testing.T, after, limit, reset, xReset, left, date string) {
		h := http.Header{
			"Retry-After": {after}, "Ratelimit": {limit, reset}, "Ratelimit-Reset": {reset}, "Ratelimit-Remaining": {left},
			"X-Ratelimit-Reset": {xReset}, "X-Rate-Limit-Remaining": {left}, "X-Rate-Limit-Reset": {limit}, "Date": {date},
		}
		for _, status := range []int{429, 503} {
			got, ok := Wait(status, h, func() time.Time { return now })
			if got < 0 || got > longest || (!ok && got != 0) {
				t.Fatalf("%v: %v, %v", h, got, ok)
			}
			if again, same := Wait(status, h, func() time.Time { return now }); again != got || same != ok {
				t.Fatalf("%v: not the same twice", h)
			}
			if asked, heard := RetryAfter(h, now); heard && (asked != got || !ok) {
				t.Fatalf("%v: Retry-After is %v, not %v", h, asked, got)
			} else if !heard && status != 429 && ok {
				t.Fatalf("%v: heard without a limit that was reached", h)
			}
		}
		if n, err := strconv.ParseUint(xReset, 10, 32); err == nil && n < 1e9 {
			want := time.Duration(min(float64(n), longest.Seconds())) * time.Second
			got, ok := Wait(429, http.Header{"X-Ratelimit-Reset": {xReset}}, func() time.Time { return now })
			if !ok || math.Abs(float64(got-want)) > 1000 {
				t.Fatalf("%q: %v", xReset, got)
			}
		}
	})
}

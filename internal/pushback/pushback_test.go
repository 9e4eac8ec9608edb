package pushback

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func header(fields ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
	return h
}

func TestRetryAfter_R11(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, row := range []struct {
		name, value, date string
		want              time.Duration
	}{
		{"none", "", "", 0},
		{"seconds", "120", "", 2 * time.Minute},
		{"at once", "0", "", 0},
		{"leading zeros", "007", "", 7 * time.Second},
		{"a year", "31536000", "", year},
		{"more than a year", "31536001", "", year},
		{"more than fits into a duration", strconv.FormatInt(math.MaxInt64/int64(time.Second)+1, 10), "", year},
		{"more than fits into 64 bits", strings.Repeat("9", 20), "", year},
		{"negative", "-1", "", 0},
		{"a sign", "+1", "", 0},
		{"a fraction", "1.5", "", 0},
		{"a unit", "5s", "", 0},
		{"hexadecimal", "0x10", "", 0},
		{"blanks within", "1 0", "", 0},
		{"nonsense", "soon", "", 0},

		{"a date", "Sun, 01 Mar 2026 12:00:30 GMT", "", 30 * time.Second},
		{"a date of RFC 850", "Sunday, 01-Mar-26 12:00:30 GMT", "", 30 * time.Second},
		{"a date of asctime", "Sun Mar  1 12:00:30 2026", "", 30 * time.Second},
		{"a date in the past", "Sun, 01 Mar 2026 11:59:30 GMT", "", 0},
		{"the present", "Sun, 01 Mar 2026 12:00:00 GMT", "", 0},
		{"a date centuries ahead", "Fri, 01 Jan 9999 00:00:00 GMT", "", year},
		{"half a date", "Sun, 01 Mar 2026", "", 0},

		// The server's clock may be wrong by any amount: what it asks for is not.
		{"the server's clock is ahead", "Sun, 01 Mar 2026 13:00:10 GMT", "Sun, 01 Mar 2026 13:00:00 GMT", 10 * time.Second},
		{"the server's clock is behind", "Sun, 01 Mar 2026 11:00:10 GMT", "Sun, 01 Mar 2026 11:00:00 GMT", 10 * time.Second},
		{"its clock cannot be read", "Sun, 01 Mar 2026 12:00:10 GMT", "noon", 10 * time.Second},
		{"seconds need no clock", "10", "Sun, 01 Mar 2026 13:00:00 GMT", 10 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := header("Retry-After", row.value)
			if row.date != "" {
				h.Set("Date", row.date)
			}
			got, _ := RetryAfter(h, now)
			assert.Equal(t, row.want, got)
		})
	}
	for _, h := range []http.Header{nil, {"Retry-After": {}}, {"Retry-After": {"soon"}}} {
		_, ok := RetryAfter(h, now)
		assert.False(t, ok, "%v", h)
	}
	got, ok := RetryAfter(http.Header{"Retry-After": {"3", "7"}}, now)
	assert.True(t, ok)
	assert.Equal(t, 7*time.Second, got, "of two headers the longer")
}

// Whatever a server sends, the result is a time that can be added to another, a number
// of seconds is what it says, and a time that is written down as a date is read back.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []struct{ value, date string }{
		{"", ""},
		{"0", ""},
		{"5", "Sun, 01 Mar 2026 12:00:00 GMT"},
		{"99999999999999999999", ""},
		{"-9223372036854775808", ""},
		{"Sun, 01 Mar 2026 12:00:30 GMT", "Sun, 01 Mar 2026 12:00:00 GMT"},
		{"Sun, 01 Mar 2026 12:00:30 GMT", "x"},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"},
		{"Sunday, 01-Mar-26 12:00:30 GMT", ""},
		{"\x00", "\xff"},
	} {
		f.Add(seed.value, seed.date, int64(3))
	}
	f.Fuzz(func(t *testing.T, value, date string, seconds int64) {
		h := header("Retry-After", value, "Date", date)
		got, _ := RetryAfter(h, now)
		if got < 0 || got > longest {
			t.Fatalf("%q at %q: %v", value, date, got)
		}
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && n <= uint64(longest/time.Second) && got != time.Duration(n)*time.Second {
			t.Fatalf("%q: %v", value, got)
		}
		if again, _ := RetryAfter(h, now); again != got {
			t.Fatal("not the same twice")
		}

		wait := time.Duration(uint64(seconds)%uint64(longest/time.Second)) * time.Second
		at := now.Add(wait).Format(http.TimeFormat)
		if got, _ := RetryAfter(header("Retry-After", at), now); got != wait {
			t.Fatalf("%v as a date: %v", wait, got)
		}
		shifted := now.Add(time.Duration(seconds%1e9) * time.Second)
		h = header("Retry-After", shifted.Add(wait).Format(http.TimeFormat), "Date", shifted.Format(http.TimeFormat))
		if got, _ := RetryAfter(h, now); got != wait {
			t.Fatalf("%v after %v: %v", wait, shifted, got)
		}
	})
}

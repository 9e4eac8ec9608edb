package retry_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given an answer with such a header, then the second attempt comes after that time, or the
// answer is the caller's at once and whole. Bubbles begin on 2000-01-01.
func TestPushback_Headers_R10_R11(t *testing.T) {
	const never, usual = -1, 10 * ms // the usual backoff
	const remaining, reset = "X-RateLimit-Remaining", "X-RateLimit-Reset"
	for _, row := range []struct {
		name     string
		status   int
		header   []string
		pushback retry.Pushback
		wait     time.Duration
	}{
		{"nothing", 503, nil, retry.Pushback{}, usual},
		{"seconds", 503, []string{"Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"429", 429, []string{"Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"502", 502, []string{"Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"504", 504, []string{"Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"blanks", 503, []string{"Retry-After", " 5 "}, retry.Pushback{}, 5 * time.Second},
		{"a date", 503, []string{"Retry-After", "Sat, 01 Jan 2000 00:00:05 GMT"}, retry.Pushback{}, 5 * time.Second},
		{"a date of RFC 850", 503, []string{"Retry-After", "Saturday, 01-Jan-00 00:00:05 GMT"}, retry.Pushback{}, 5 * time.Second},
		{"a date of asctime", 503, []string{"Retry-After", "Sat Jan  1 00:00:05 2000"}, retry.Pushback{}, 5 * time.Second},
		{"a date by the server's clock", 503, []string{"Retry-After", "Sat, 01 Jan 2000 01:00:05 GMT", "Date", "Sat, 01 Jan 2000 01:00:00 GMT"}, retry.Pushback{}, 5 * time.Second},
		{"a date that is past", 503, []string{"Retry-After", "Fri, 31 Dec 1999 00:00:00 GMT"}, retry.Pushback{}, usual},
		{"zero", 503, []string{"Retry-After", "0"}, retry.Pushback{}, usual},
		{"below zero", 503, []string{"Retry-After", "-1"}, retry.Pushback{}, usual},
		{"a fraction", 503, []string{"Retry-After", "1.5"}, retry.Pushback{}, usual},
		{"empty", 503, []string{"Retry-After", ""}, retry.Pushback{}, usual},
		{"garbage", 503, []string{"Retry-After", "soon"}, retry.Pushback{}, usual},
		{"two, the longer counts", 503, []string{"Retry-After", "2", "Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"two, one is garbage", 503, []string{"Retry-After", "soon", "Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"the longest", 503, []string{"Retry-After", "10"}, retry.Pushback{}, 10 * time.Second},
		{"too long", 503, []string{"Retry-After", "11"}, retry.Pushback{}, never},
		{"an hour", 429, []string{"Retry-After", "3600"}, retry.Pushback{}, never},
		{"without end", 503, []string{"Retry-After", "99999999999999999999"}, retry.Pushback{}, never},
		{"in the year 9999", 503, []string{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}, retry.Pushback{}, never},
		{"another maximum", 503, []string{"Retry-After", "3600"}, retry.Pushback{Max: 2 * time.Hour}, time.Hour},
		{"above another maximum", 503, []string{"Retry-After", "3"}, retry.Pushback{Max: 2 * time.Second}, never},
		{"shortened", 503, []string{"Retry-After", "3600"}, retry.Pushback{Max: 2 * time.Second, Shorten: true}, 2*time.Second - 2*time.Second/3}, // to that with the jitter
		{"shortened to the default", 503, []string{"Retry-After", "99999999999999999999"}, retry.Pushback{Shorten: true}, 10*time.Second - 10*time.Second/3},
		{"not shortened without need", 503, []string{"Retry-After", "5"}, retry.Pushback{Shorten: true}, 5 * time.Second},
		{"not heard", 503, []string{"Retry-After", "3600"}, retry.Pushback{Max: -1}, usual},
		{"RateLimit, newest form", 429, []string{"RateLimit", `"default";r=0;t=5`}, retry.Pushback{}, 5 * time.Second},
		{"RateLimit, something is left", 429, []string{"RateLimit", `"default";r=3;t=5`}, retry.Pushback{}, usual},
		{"RateLimit, older form", 429, []string{"RateLimit", "limit=9, remaining=0, reset=5"}, retry.Pushback{}, 5 * time.Second},
		{"RateLimit-Reset", 429, []string{"RateLimit-Reset", "5"}, retry.Pushback{}, 5 * time.Second},
		{"X-RateLimit-Reset", 429, []string{reset, "5"}, retry.Pushback{}, 5 * time.Second},
		{"X-RateLimit-Reset, used up", 429, []string{reset, "5", remaining, "0"}, retry.Pushback{}, 5 * time.Second},
		{"X-RateLimit-Reset, something is left", 429, []string{reset, "5", remaining, "1"}, retry.Pushback{}, usual},
		{"X-Rate-Limit-Reset", 429, []string{"X-Rate-Limit-Reset", "5"}, retry.Pushback{}, 5 * time.Second},
		{"Retry-After counts first", 429, []string{reset, "7", "Retry-After", "5"}, retry.Pushback{}, 5 * time.Second},
		{"a limit does not count with 503", 503, []string{reset, "5"}, retry.Pushback{}, usual},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(answer(row.status, row.header...), answer(200))
				p := retry.Policy{Pushback: row.pushback, Backoff: waits(usual), Rand: zeros{}}
				resp, err := around(t, base, p).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				if row.wait == never {
					info, _ := retry.InfoOf(resp)
					status, body := read(t, resp)
					assert.Equal(t, row.status, status)
					assert.Contains(t, body, " at 0s", "it is whole")
					assert.Equal(t, outcome.Pushback, info.Reason)
					assert.Equal(t, []time.Duration{0}, base.times())
					assert.Zero(t, time.Since(base.start))
					return
				}
				read(t, resp)
				assert.Equal(t, []time.Duration{0, row.wait}, base.times())
			})
		})
	}
}

// Given Retry-After: 5 and many clients, then none comes sooner, and they spread.
func TestPushback_JitterOnlyAdds_R12(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		source := rand.NewPCG(seed, 0)
		seen := map[time.Duration]bool{}
		earliest, latest := time.Hour, time.Duration(0)
		for range 1000 {
			base := scripted(answer(503, "Retry-After", "5"), answer(200))
			resp, err := around(t, base, retry.Policy{Rand: source}).RoundTrip(get(t.Context()))
			require.NoError(t, err)
			read(t, resp)
			at := base.times()[1]
			seen[at] = true
			earliest, latest = min(earliest, at), max(latest, at)
		}
		assert.GreaterOrEqual(t, earliest, 5*time.Second)
		assert.Less(t, earliest, 5100*ms)
		assert.Greater(t, latest, 7400*ms)
		assert.LessOrEqual(t, latest, 7500*ms, "up to half as long again")
		assert.Greater(t, len(seen), 990, "no value has more than its share")
	})
}

// Given a jitter that would pass the maximum, then the maximum holds, and they spread below it.
func TestPushback_JitterStaysBelowTheMaximum_R10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			asked    string
			shorten  bool
			earliest time.Duration
		}{
			{"9", false, 9 * time.Second},
			{"10", true, 10 * time.Second}, // what can be granted is not shortened
			{"3600", true, 10*time.Second - 10*time.Second/3},
		} {
			seen := map[time.Duration]bool{}
			for range 200 {
				base := scripted(answer(503, "Retry-After", row.asked), answer(200))
				resp, err := around(t, base, retry.Policy{Pushback: retry.Pushback{Shorten: row.shorten}}).RoundTrip(get(t.Context()))
				require.NoError(t, err)
				read(t, resp)
				at := base.times()[1]
				seen[at] = true
				assert.GreaterOrEqual(t, at, row.earliest)
				assert.LessOrEqual(t, at, 10*time.Second)
			}
			assert.True(t, row.asked == "10" || len(seen) > 190, "%d values", len(seen))
		}
	})
}

// Given less time than the server asks for, then its answer is the caller's at once.
func TestPushback_NobodyWaitsInVain_R06(t *testing.T) {
	for _, row := range []struct {
		name  string
		limit func(context.Context, *retry.Policy) (context.Context, context.CancelFunc)
	}{
		{"caller's deadline", func(ctx context.Context, _ *retry.Policy) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 4*time.Second)
		}},
		{"Timeout", func(ctx context.Context, p *retry.Policy) (context.Context, context.CancelFunc) {
			p.Timeout = 4 * time.Second
			return ctx, func() {}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, p := scripted(answer(503, "Retry-After", "5")), retry.Policy{}
				ctx, cancel := row.limit(t.Context(), &p)
				defer cancel()
				resp, err := around(t, base, p).RoundTrip(get(ctx))
				require.NoError(t, err)
				info, _ := retry.InfoOf(resp)
				assert.Equal(t, outcome.Deadline, info.Reason)
				_, body := read(t, resp)
				assert.Equal(t, "503 at 0s", body)
				assert.Zero(t, time.Since(base.start))
				base.assertClean(t, false)
			})
		})
	}
}

// The same on the wire: the last answer is whole, and its connection is used again.
func TestPushback_OnTheWire_R13(t *testing.T) {
	text := strings.Repeat("come back later. ", 10_000)
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			handler := evenkeeltest.Script(
				evenkeeltest.Status(429).Header("Retry-After", "3").Body("soon"),
				evenkeeltest.Status(503).Header("Retry-After", "3600").Body(text),
			)
			online(t, protocol, handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				start := time.Now()
				resp, err := around(t, base, retry.Policy{Rand: zeros{}}).RoundTrip(to(get(t.Context()), address))
				require.NoError(t, err)
				assert.Equal(t, 3*time.Second, time.Since(start))
				info, ok := retry.InfoOf(resp)
				require.True(t, ok)
				assert.Equal(t, outcome.Pushback, info.Reason)
				assert.Equal(t, []string{"1 overload", "2 overload"}, classes(info.Attempts))
				status, body := read(t, resp)
				assert.Equal(t, 503, status)
				same := body == text // it is too long to be shown
				assert.True(t, same, "%d bytes", len(body))
				assert.Equal(t, 1, server.Dials())
			})
		})
	}
}

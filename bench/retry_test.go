package bench

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/rehttp"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/retry"
)

// retrying are the libraries, as near to each other as they can be set: three attempts in
// all, again after an error and after 429, 502, 503 and 504 at least, and no wait between.
//
// They do not do the same. evenkeel decides about a budget that all calls share, sends a
// POST once only unless its caller says otherwise, and leaves its body to GetBody; the others
// repeat a POST, and so read all of its body before it is sent. go-retryablehttp puts an
// http.Client around each attempt. Of an answer that is thrown away, rehttp reads all, evenkeel
// and go-retryablehttp up to 4 KiB, evenkeel for 50 ms at most, and failsafe-go reads nothing
// and does not close it.
//
// Where nobody waits, evenkeel has a clock that calls back at once, and the others a real
// timer of no time at all, because they know no other clock: that may put the goroutine to
// sleep. So evenkeel is there once more, with the system's clock and a wait of 1 ns.
var retrying = []struct {
	name string
	make func(testing.TB) func(http.RoundTripper) http.RoundTripper
}{
	{"bare", func(testing.TB) func(http.RoundTripper) http.RoundTripper {
		return func(next http.RoundTripper) http.RoundTripper { return byHand{next} }
	}},
	{"evenkeel", ofRetry(retry.Policy{Clock: atOnce{}})},
	{"evenkeel-timer", ofRetry(retry.Policy{Backoff: retry.Backoff{Kind: retry.Constant, Base: 1}})},
	{"rehttp", func(testing.TB) func(http.RoundTripper) http.RoundTripper {
		again := rehttp.RetryAll(rehttp.RetryMaxRetries(2), rehttp.RetryAny(
			rehttp.RetryIsErr(func(err error) bool { return err != nil }), rehttp.RetryStatuses(429, 502, 503, 504)))
		return func(next http.RoundTripper) http.RoundTripper {
			return rehttp.NewTransport(next, again, rehttp.ConstDelay(0))
		}
	}},
	{"go-retryablehttp", func(testing.TB) func(http.RoundTripper) http.RoundTripper {
		return func(next http.RoundTripper) http.RoundTripper {
			client := retryablehttp.NewClient()
			client.Logger, client.RetryMax = nil, 2
			client.Backoff = func(time.Duration, time.Duration, int, *http.Response) time.Duration { return 0 }
			client.HTTPClient.Transport = next
			return &retryablehttp.RoundTripper{Client: client}
		}
	}},
	{"failsafe-go", func(testing.TB) func(http.RoundTripper) http.RoundTripper {
		policy := failsafehttp.NewRetryPolicyBuilder().Build() // three attempts, no wait
		return func(next http.RoundTripper) http.RoundTripper { return failsafehttp.NewRoundTripper(next, policy) }
	}},
}

// ofRetry returns transports that share what evenkeel's calls of one target share.
func ofRetry(p retry.Policy) func(testing.TB) func(http.RoundTripper) http.RoundTripper {
	return func(tb testing.TB) func(http.RoundTripper) http.RoundTripper {
		tb.Helper()
		r, err := retry.NewRetrier(p)
		if err != nil {
			tb.Fatal(err)
		}
		return func(next http.RoundTripper) http.RoundTripper { return r.Transport(next) }
	}
}

// byHand is about the least that retries, for requests without a body: the floor.
type byHand struct{ next http.RoundTripper }

func (h byHand) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	for range 3 {
		if resp, err = h.next.RoundTrip(req); err == nil && resp.StatusCode != http.StatusServiceUnavailable {
			return resp, nil
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	return resp, err
}

// atOnce is the system's clock, but whoever waits before the first retry has waited already.
// The limit of what is read of an answer that is thrown away, which is 50 ms, does not come.
type atOnce struct{}

func (atOnce) Now() time.Time { return time.Now() }

func (atOnce) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d < 50*time.Millisecond {
		f()
	}
	return noTimer{}
}

type noTimer struct{}

func (noTimer) Stop() bool { return false }

const overloaded = "overloaded"

// reading is a stub that reads the request's body. If it is failing, it answers every first
// attempt of a call with a 503 that has a body. It is for one goroutine.
type reading struct {
	header  http.Header
	failing bool
	seen    int
}

func (s *reading) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	resp := &http.Response{StatusCode: http.StatusOK, Header: s.header, Body: http.NoBody, Request: req}
	if s.seen++; s.failing && s.seen%2 == 1 {
		resp.StatusCode, resp.Body = http.StatusServiceUnavailable, io.NopCloser(strings.NewReader(overloaded))
		resp.ContentLength = int64(len(overloaded))
	}
	return resp, nil
}

// repeated returns a function that makes a call with the same request again and again. That
// its body is as it was costs no allocation.
func repeated(tb testing.TB, rt http.RoundTripper, method string, size int) func() {
	tb.Helper()
	var source io.ReadSeeker
	var payload io.Reader // nil without a body, as it is in the requests of http.Get
	if size > 0 {
		content := bytes.NewReader(make([]byte, size))
		source, payload = content, content
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://users/api/users/42", payload)
	if err != nil {
		tb.Fatal(err)
	}
	body := req.Body
	return func() {
		if source != nil {
			_, _ = source.Seek(0, io.SeekStart)
			req.Body = body // rehttp and go-retryablehttp change the request of their caller
		}
		resp, err := rt.RoundTrip(req)
		must(err == nil && resp.StatusCode == http.StatusOK)
		_ = resp.Body.Close()
	}
}

// BenchmarkRetry measures what a layer of retries adds to a call on a stub that answers at
// once: one that needs none, without a body and with one of 1 KiB, and one whose first
// attempt fails.
func BenchmarkRetry(b *testing.B) {
	for _, row := range []struct {
		name    string
		method  string
		size    int
		failing bool
	}{
		{"GET", http.MethodGet, 0, false},
		{"POST-1KiB", http.MethodPost, 1 << 10, false},
		{"GET-503-200", http.MethodGet, 0, true},
	} {
		for _, library := range retrying {
			around := library.make(b)
			each(b, row.name+"/"+library.name, func() func() {
				return repeated(b, around(&reading{header: http.Header{}, failing: row.failing}), row.method, row.size)
			})
		}
	}
}

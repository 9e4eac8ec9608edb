package bench

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/sony/gobreaker/v2"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// stub answers at once, so that what is measured is what is around it.
type stub struct{ header http.Header }

func (s stub) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: s.header, Body: http.NoBody, Request: req}, nil
}

// BenchmarkRoundTrip measures one successful call on a stub. What the rows do is
// not the same, and that is the point: the bare stub and the hand-written shell
// are floors, the others are what people put together.
func BenchmarkRoundTrip(b *testing.B) {
	for _, row := range []struct {
		name string
		make func(testing.TB) http.RoundTripper
	}{
		{"bare", func(testing.TB) http.RoundTripper { return stub{http.Header{}} }},
		{"handwritten-balance-break-retry", handwritten},
		{"evenkeel", full},
		{"failsafe-go-retry-breaker", failsafeStack},
		{"go-retryablehttp+gobreaker", retryableStack},
	} {
		rt := row.make(b)
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://users/api/users/42", http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

// full is evenkeel with its defaults, on three endpoints.
func full(tb testing.TB) http.RoundTripper {
	tb.Helper()
	t, err := evenkeel.New("http://users",
		evenkeel.WithResolver(discovery.Static{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return stub{http.Header{}} }),
	)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = t.Close() })
	if err := t.Ready(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return t
}

// shell is about the least that balances, breaks and retries: round robin over
// three endpoints, a breaker that counts failures in a row, three attempts.
type shell struct {
	turn      atomic.Uint32
	endpoints [3]struct {
		next     http.RoundTripper
		inFlight atomic.Int64
		failures atomic.Int32
		_        [96]byte
	}
}

func handwritten(testing.TB) http.RoundTripper {
	s := &shell{}
	for i := range s.endpoints {
		s.endpoints[i].next = stub{http.Header{}}
	}
	return s
}

func (s *shell) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	for range 3 {
		e := &s.endpoints[s.turn.Add(1)%3]
		if e.failures.Load() >= 5 {
			continue
		}
		attempt := *req
		attempt.Host = "users"
		e.inFlight.Add(1)
		resp, err = e.next.RoundTrip(&attempt)
		e.inFlight.Add(-1)
		if err == nil && resp.StatusCode < 500 {
			if e.failures.Load() != 0 {
				e.failures.Store(0)
			}
			return resp, nil
		}
		e.failures.Add(1)
	}
	if resp == nil && err == nil {
		err = fmt.Errorf("all breakers are open")
	}
	return resp, err
}

func failsafeStack(testing.TB) http.RoundTripper {
	retry := failsafehttp.NewRetryPolicyBuilder().Build()
	breaker := circuitbreaker.NewBuilder[*http.Response]().Build()
	return failsafehttp.NewRoundTripperWithExecutor(stub{http.Header{}}, failsafe.With[*http.Response](retry, breaker))
}

// broken puts a breaker around a transport, as the readme of gobreaker does.
type broken struct {
	breaker *gobreaker.CircuitBreaker[*http.Response]
	next    http.RoundTripper
}

func (b broken) RoundTrip(req *http.Request) (*http.Response, error) {
	return b.breaker.Execute(func() (*http.Response, error) { return b.next.RoundTrip(req) })
}

func retryableStack(testing.TB) http.RoundTripper {
	client := retryablehttp.NewClient()
	client.Logger = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))
	client.HTTPClient.Transport = broken{gobreaker.NewCircuitBreaker[*http.Response](gobreaker.Settings{}), stub{http.Header{}}}
	return &retryablehttp.RoundTripper{Client: client}
}

package evenkeel_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// stub answers at once, so that what is measured is what is around it.
type stub struct{ header http.Header }

func (s stub) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: s.header, Body: http.NoBody, Request: req}, nil
}

// stubbed returns a transport for n endpoints that are stubs.
func stubbed(tb testing.TB, n int, options ...evenkeel.Option) *evenkeel.Transport {
	tb.Helper()
	endpoints := make(discovery.Static, n)
	for i := range endpoints {
		endpoints[i] = fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)
	}
	options = append([]evenkeel.Option{
		evenkeel.WithResolver(endpoints),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return stub{http.Header{}} }),
	}, options...)
	t, err := evenkeel.New("http://users", options...)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = t.Close() })
	require.NoError(tb, t.Ready(tb.Context()))
	return t
}

func roundTrip(rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		panic(err) // it is measured, so it takes no testing.TB
	}
	if resp.Body != http.NoBody {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

func getRequest(tb testing.TB, url string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	require.NoError(tb, err)
	return req
}

// BenchmarkStub measures what the full stack adds to a call: the difference to
// the bare stub.
func BenchmarkStub(b *testing.B) {
	for _, row := range []struct {
		name string
		rt   http.RoundTripper
	}{
		{"bare", stub{http.Header{}}},
		{"evenkeel/endpoints=3", stubbed(b, 3)},
		{"evenkeel/endpoints=1000", stubbed(b, 1000)},
		{"evenkeel/timeouts", stubbed(b, 3, evenkeel.WithTimeout(time.Minute))},
	} {
		req := getRequest(b, "http://users/api/users/42")
		b.Run(row.name+"/single", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(row.rt, req)
			}
		})
		b.Run(row.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					roundTrip(row.rt, req)
				}
			})
		})
	}
}

// BenchmarkSession measures what it costs that a caller is kept at its endpoint.
func BenchmarkSession(b *testing.B) {
	known := func(*http.Request) string { return "user-42" }
	for _, row := range []struct {
		name    string
		options []evenkeel.Option
	}{
		{"none", nil},
		{"cookie", []evenkeel.Option{evenkeel.WithSession(session.Policy{By: session.Cookie{Secret: secret}})}},
		{"key", []evenkeel.Option{evenkeel.WithSession(session.Policy{By: session.Key{From: []session.Property{{Func: known}}}})}},
		{"hash", []evenkeel.Option{evenkeel.WithSession(session.Policy{By: session.Hash{From: []session.Property{{Func: known}}}})}},
	} {
		rt := stubbed(b, 3, row.options...)
		req := getRequest(b, "http://users/api/users/42")
		resp, err := rt.RoundTrip(req)
		require.NoError(b, err)
		_ = resp.Body.Close()
		for _, c := range resp.Cookies() {
			req.AddCookie(c)
		}
		b.Run(row.name+"/single", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(rt, req)
			}
		})
		b.Run(row.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					roundTrip(rt, req)
				}
			})
		})
	}
}

// BenchmarkServices measures what it costs that a request finds its service by name, and that it
// is sent to another host than it is written for.
func BenchmarkServices(b *testing.B) {
	options := []evenkeel.Option{
		evenkeel.WithResolver(discovery.Static{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return stub{http.Header{}} }),
	}
	services := map[string]evenkeel.Service{"users": {}, "orders": {Target: "http://orders.internal:8080"}}
	for i := range 100 {
		services[fmt.Sprintf("service-%d", i)] = evenkeel.Service{}
	}
	s, err := evenkeel.NewServices(evenkeel.ServicesConfig{Services: services, Defaults: options})
	require.NoError(b, err)
	defer s.Close()
	for _, row := range []struct {
		name string
		rt   http.RoundTripper
		url  string
	}{
		{"direct", stubbed(b, 3), "http://users/api/users/42"},
		{"services/http", s, "http://users/api/users/42"},
		{"services/lb", s, "lb://users/api/users/42"},
		{"services/another host", s, "lb://orders/api/users/42"},
	} {
		req := getRequest(b, row.url)
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(row.rt, req)
			}
		})
	}
}

// BenchmarkLoopback compares the full stack with the http.Transport that it
// uses, on a real server. The two take turns call by call, so that a noisy
// machine is noisy for both, and the medians are compared.
func BenchmarkLoopback(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	defer server.Close()
	template := &http.Transport{DialContext: (&net.Dialer{}).DialContext}
	defer template.CloseIdleConnections()
	t, err := evenkeel.New(server.URL, evenkeel.WithTransport(template))
	require.NoError(b, err)
	defer t.Close()

	rts := [2]http.RoundTripper{template, t}
	var took [2][]time.Duration
	req := getRequest(b, server.URL)
	for i := 0; b.Loop(); i++ {
		for k := range rts {
			k = (k + i) % 2
			begin := time.Now()
			roundTrip(rts[k], req)
			took[k] = append(took[k], time.Since(begin))
		}
	}
	bare, stack := median(took[0]), median(took[1])
	b.ReportMetric(float64(bare), "bare-median-ns")
	b.ReportMetric(float64(stack), "evenkeel-median-ns")
	b.ReportMetric(float64(stack)/float64(bare), "ratio")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

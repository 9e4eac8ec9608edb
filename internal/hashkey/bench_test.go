package hashkey

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
)

var benchSink uint64

// BenchmarkString measures one hash.
func BenchmarkString(b *testing.B) {
	for _, n := range []int{4, 8, 16, 31, 64, 1000} {
		s := string(vectorInput(n))
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				benchSink += String(s)
			}
		})
	}
}

// BenchmarkMix measures the scores of a key at many endpoints, per endpoint.
func BenchmarkMix(b *testing.B) {
	b.ReportAllocs()
	var best, i uint64
	for b.Loop() {
		best = max(best, Mix(0xd24ec4f1a98c6e5b, i))
		i++
	}
	benchSink += best
}

// BenchmarkHash measures the key of a request, by source.
func BenchmarkHash(b *testing.B) {
	req := &http.Request{
		Header: http.Header{
			"X-User": {"0123456789abcdef"},
			"Cookie": {"theme=dark; consent=yes; id=0123456789abcdef"},
		},
		URL:        &url.URL{Path: "/users/0123456789", RawQuery: "page=1&user=0123456789abcdef"},
		RemoteAddr: "[2001:db8::1234]:4321",
	}
	for _, row := range []struct {
		name    string
		sources Sources
	}{
		{"header", Sources{{Header: "X-User"}}},
		{"cookie", Sources{{Cookie: "id"}}},
		{"query", Sources{{Query: "user"}}},
		{"path", Sources{{Path: true}}},
		{"address", Sources{{ClientAddress: true}}},
		{"all", Sources{{Header: "X-User"}, {Cookie: "id"}, {Query: "user"}, {Path: true}, {ClientAddress: true}}},
	} {
		e := row.sources.Compile()
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h, _ := e.Hash(req)
				benchSink += h
			}
		})
	}
}

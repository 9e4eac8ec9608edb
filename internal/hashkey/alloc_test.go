//go:build !race

package hashkey

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

var sink uint64

func TestAlloc_Sum(t *testing.T) {
	for _, n := range []int{0, 1, 16, 31, 32, 33, 64, 1000} {
		s := strings.Repeat("x", n)
		b := []byte(s)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			sink += String(s) + StringSeed(s, 7) + Sum64(b) + Mix(sink, 1)
		}), "%d bytes", n)
	}
}

func allocs(f func()) int { return int(testing.AllocsPerRun(100, f)) }

// Reading and hashing a key allocates nothing. Reading it as text allocates where
// the text is nowhere in the request.
func TestAlloc_Extractor(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, row := range []struct {
		name        string
		source      Source
		req         http.Request
		hash, value int
	}{
		{"header", Source{Header: "x-user"}, http.Request{Header: http.Header{"X-User": {long}}}, 0, 0},
		{"host", Source{Header: "host"}, http.Request{Host: long}, 0, 0},
		{"cookie", Source{Cookie: "id"}, http.Request{Header: http.Header{"Cookie": {"x=y", `a=b; id="` + long + `"`}}}, 0, 0},
		{"query", Source{Query: "user"}, http.Request{URL: &url.URL{RawQuery: "a%20b=c+d&user=" + long + "&c"}}, 0, 0},
		{"escaped query", Source{Query: "user"}, http.Request{URL: &url.URL{RawQuery: "user=%20" + long}}, 1, 1},
		{"path", Source{Path: true}, http.Request{URL: &url.URL{Path: "/" + long}}, 0, 0},
		{"empty path", Source{Path: true}, http.Request{URL: &url.URL{}}, 0, 0},
		{"IPv4", Source{ClientAddress: true}, http.Request{RemoteAddr: "10.0.0.1:1234"}, 0, 0},
		{"IPv6", Source{ClientAddress: true}, http.Request{RemoteAddr: "[2001:db8::1]:1234"}, 0, 0},
		{"zone", Source{ClientAddress: true}, http.Request{RemoteAddr: "[fe80::1%eth0]:1234"}, 0, 0},
		{"mapped", Source{ClientAddress: true}, http.Request{RemoteAddr: "[::ffff:10.0.0.1]:1234"}, 0, 1},
		{"spelling", Source{ClientAddress: true}, http.Request{RemoteAddr: "[2001:DB8:0::0001]:1234"}, 0, 1},
		{"Unix socket", Source{ClientAddress: true}, http.Request{RemoteAddr: "@"}, 0, 0},
		{"func", Source{Func: noValue}, http.Request{}, 0, 0},
	} {
		e := Sources{row.source}.Compile()
		req := &row.req
		assert.Equal(t, row.hash, allocs(func() {
			h, _ := e.Hash(req)
			sink += h
		}), "Hash of "+row.name)
		assert.Equal(t, row.value, allocs(func() {
			v, _ := e.Value(req)
			sink += uint64(len(v))
		}), "Value of "+row.name)
	}
}

package hashkey

import (
	"math/bits"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func request(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return req
}

func fromHeader(name string) func(*http.Request) string {
	return func(req *http.Request) string { return req.Header.Get(name) }
}

// Several values are combined in order, and a terminal one ends the list only if
// it is there.
func TestExtractor_Combines(t *testing.T) {
	t.Parallel()
	a, b, c := String("1"), String("2"), String("3")
	rotl := func(h uint64) uint64 { return bits.RotateLeft64(h, 1) }
	for _, row := range []struct {
		name     string
		headers  string // those that are present
		terminal string // those that are terminal
		want     uint64
		first    string
	}{
		{"none", "", "", 0, ""},
		{"one", "A", "", a, "1"},
		{"the last", "C", "", c, "3"},
		{"two", "AB", "", rotl(a) ^ b, "1"},
		{"gap", "AC", "", rotl(a) ^ c, "1"},
		{"three", "ABC", "", rotl(rotl(a)^b) ^ c, "1"},
		{"terminal first", "ABC", "A", a, "1"},
		{"terminal second", "ABC", "B", rotl(a) ^ b, "1"},
		{"terminal absent", "BC", "A", rotl(b) ^ c, "2"},
		{"two terminal", "BC", "AB", b, "2"},
		{"terminal last", "ABC", "C", rotl(rotl(a)^b) ^ c, "1"},
	} {
		var sources Sources
		for _, name := range []string{"A", "B", "C"} {
			sources = append(sources, Source{Func: fromHeader(name), Terminal: strings.Contains(row.terminal, name)})
		}
		e := sources.Compile()
		req := request(t, "http://users/")
		for i, name := range []string{"A", "B", "C"} {
			if strings.Contains(row.headers, name) {
				req.Header.Set(name, string(rune('1'+i)))
			}
		}
		h, ok := e.Hash(req)
		assert.Equal(t, row.want, h, row.name)
		assert.Equal(t, row.first != "", ok, row.name)
		v, ok := e.Value(req)
		assert.Equal(t, row.first, v, row.name)
		assert.Equal(t, row.first != "", ok, row.name)
	}
}

// The hash of requests does not change from one version to the next: clients of
// both run side by side.
func TestExtractor_Pinned(t *testing.T) {
	t.Parallel()
	req := request(t, "http://users.example/a%20b/c?user=4%32&x=y")
	req.Header.Set("X-User", "abc")
	req.Header.Set("Cookie", `theme=dark; id="a"`)
	req.RemoteAddr = "[::ffff:10.0.0.1]:8080"
	for _, row := range []struct {
		name    string
		sources Sources
		want    uint64
	}{
		{"header", Sources{{Header: "x-user"}}, 0x44bc2cf5ad770999}, // "abc"
		{"cookie", Sources{{Cookie: "id"}}, 0xd24ec4f1a98c6e5b},     // "a"
		{"query", Sources{{Query: "user"}}, String("42")},
		{"path", Sources{{Path: true}}, String("/a b/c")},
		{"address", Sources{{ClientAddress: true}}, String("10.0.0.1")},
		{"func", Sources{{Func: func(*http.Request) string { return "10.0.0.1:8080" }}}, 0xcb972177068eb685},
		{"header and cookie", Sources{{Header: "x-user"}, {Cookie: "id"}}, 0x5b369d1af3627d69},
	} {
		e := row.sources.Compile()
		h, ok := e.Hash(req)
		assert.True(t, ok, row.name)
		assert.Equal(t, row.want, h, "%s: %#x", row.name, h)
	}
}

func TestExtractor_NoRequest(t *testing.T) {
	t.Parallel()
	all := Sources{
		{Header: "A"}, {Header: "Host"}, {Cookie: "a"}, {Query: "a"}, {Path: true}, {ClientAddress: true}, {Func: noValue},
	}
	e := all.Compile()
	for name, req := range map[string]*http.Request{"nil": nil, "zero": {}} {
		_, ok := e.Hash(req)
		assert.False(t, ok, name)
		_, ok = e.Value(req)
		assert.False(t, ok, name)
	}
}

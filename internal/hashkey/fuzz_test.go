package hashkey

import (
	"math/bits"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// FuzzHash checks the whole against the same made of net/http, net/url and
// net/netip.
func FuzzHash(f *testing.F) {
	f.Add("a", "id=b", "user=c", "/d", "10.0.0.1:80", byte(0))
	f.Add("a", "id=b", "user=c", "/d", "[::ffff:10.0.0.1]:80", byte(0b00100))
	f.Add("", `id="b"`, "user=%63", "", "[fe80::1%eth0]:80", byte(0b10001))
	f.Add("", "id=", "user=1;2", "*", "@", byte(0xff))
	for _, row := range addressCases {
		f.Add("", "", "", "", row.remote, byte(0))
	}
	f.Fuzz(func(t *testing.T, header, cookies, rawQuery, path, remote string, terminal byte) {
		if tooMany(cookies, ";") || tooMany(rawQuery, "&") {
			return
		}
		req := &http.Request{
			Header:     http.Header{"X-User": {header}, "Cookie": {cookies}},
			URL:        &url.URL{Path: path, RawQuery: rawQuery},
			RemoteAddr: remote,
		}
		query, _ := url.ParseQuery(rawQuery)
		if path == "" {
			path = "/"
		}
		sources := Sources{{Header: "x-user"}, {Cookie: "id"}, {Query: "user"}, {Path: true}, {ClientAddress: true}}
		values := []string{header, cookieOf(req, "id"), query.Get("user"), path, addressOf(t, remote)}

		var wantHash uint64
		wantFirst := ""
		ended := false
		for i, v := range values {
			sources[i].Terminal = terminal>>i&1 == 1
			if v == "" {
				continue
			}
			if wantFirst == "" {
				wantFirst = v
			}
			if !ended {
				wantHash = bits.RotateLeft64(wantHash, 1) ^ String(v)
			}
			ended = ended || sources[i].Terminal
		}
		e := sources.Compile()
		if h, ok := e.Hash(req); h != wantHash || !ok {
			t.Errorf("Hash is %#x, %v, not %#x", h, ok, wantHash)
		}
		if v, ok := e.Value(req); v != wantFirst || !ok {
			t.Errorf("Value is %q, %v, not %q", v, ok, wantFirst)
		}
	})
}

// addressOf is what net and net/netip make of a RemoteAddr. Where they refuse it,
// ours may know better, but then what it found is an address.
func addressOf(t *testing.T, remote string) string {
	t.Helper()
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	found := address(remote)
	if found == "" {
		return ""
	}
	addr, err := netip.ParseAddr(found)
	if err != nil || addr.String() != found || addr.Is4In6() || addr.Zone() != "" {
		t.Errorf("found %q in %q", found, remote)
	}
	return found
}

// FuzzCookie checks that the value is the one that net/http finds.
func FuzzCookie(f *testing.F) {
	for _, row := range cookieCases {
		f.Add(row.first, row.second, "id")
	}
	f.Fuzz(func(t *testing.T, first, second, name string) {
		if !isToken(name) || tooMany(first, ";") || tooMany(second, ";") {
			return
		}
		req := &http.Request{Header: http.Header{"Cookie": {first, second}}}
		if got, want := cookie(req.Header["Cookie"], name), cookieOf(req, name); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	})
}

// FuzzQuery checks that the value is the one that net/url finds.
func FuzzQuery(f *testing.F) {
	for _, row := range queryCases {
		f.Add(row.raw, row.name)
	}
	f.Fuzz(func(t *testing.T, raw, name string) {
		if name == "" || tooMany(raw, "&") {
			return
		}
		values, _ := url.ParseQuery(raw)
		if got, want := query(&url.URL{RawQuery: raw}, name), values.Get(name); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	})
}

// tooMany reports whether net/http or net/url may refuse to look. Their least
// limit is 3000 cookies.
func tooMany(s, separator string) bool { return strings.Count(s, separator) > 1000 }

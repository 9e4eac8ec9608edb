package hashkey

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
)

// check compares what an extractor with one source finds, both as text and as
// hash. An empty want is no value.
func check(t *testing.T, source Source, req *http.Request, want, what string) {
	t.Helper()
	assert.NoError(t, source.Validate(), what)
	e := Sources{source}.Compile()
	v, ok := e.Value(req)
	assert.Equal(t, want, v, what)
	assert.Equal(t, want != "", ok, what)
	h, ok := e.Hash(req)
	assert.Equal(t, want != "", ok, what)
	if want != "" {
		assert.Equal(t, String(want), h, what)
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		header http.Header
		want   string
	}{
		{"x-user", http.Header{"X-User": {"a"}}, "a"},
		{"X-USER", http.Header{"X-User": {"a", "b"}}, "a"},
		{"X-User", http.Header{"X-User": {"", "b"}}, ""},
		{"X-User", http.Header{"X-User": {}}, ""},
		{"X-User", http.Header{"X-Users": {"a"}}, ""},
		{"X-User", nil, ""},
		{"cookie", http.Header{"Cookie": {"a=b"}}, "a=b"},
	} {
		check(t, Source{Header: row.name}, &http.Request{Header: row.header}, row.want, row.name)
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	u := &url.URL{Scheme: "http", Host: "users:80"}
	for _, name := range []string{"Host", "host", "HOST"} {
		check(t, Source{Header: name}, &http.Request{Host: "a", URL: u}, "a", name)
		check(t, Source{Header: name}, &http.Request{URL: u}, "users:80", name)
		check(t, Source{Header: name}, &http.Request{Header: http.Header{"Host": {"b"}}}, "", name)
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://users/a/b?c=d#e": "/a/b",
		"http://users/a%2Fb%20c": "/a/b c",
		"http://users/":          "/",
		"http://users":           "/",
		"http://users?a=b":       "/",
		"http:users/a":           "", // opaque
		"*":                      "*",
	} {
		u, err := url.Parse(raw)
		assert.NoError(t, err, raw)
		check(t, Source{Path: true}, &http.Request{URL: u}, want, raw)
	}
	check(t, Source{Path: true}, &http.Request{}, "", "no URL")
}

// cookieCases also seed the fuzzer. The name is "id".
var cookieCases = []struct {
	first, second string // lines
	want          string
}{
	{"id=a", "", "a"},
	{"id=a; id=b", "id=c", "a"},
	{"x=y; id=a", "", "a"},
	{"x=y;id=a;", "", "a"},
	{"x=y", "z=w; id=a", "a"},
	{" \t id = a \t", "", " a"},
	{"  id=a \t ; x=y", "", "a"},
	{`id="a"`, "", "a"},
	{`id="a b, c"`, "", "a b, c"},
	{`id=""`, "id=b", ""},
	{`id="`, "id=b", "b"},
	{`id="a`, "id=b", "b"},
	{`id=a"`, "id=b", "b"},
	{`id= "a"`, "id=b", "b"},
	{`id=a\b`, "id=b", "b"},
	{"id=\x01", "id=b", "b"},
	{"id=\x7f; id=ä; id=~", "", "~"},
	{"id=", "id=b", ""},
	{"id", "id=b", ""},
	{"; ;=;=id;id=a=b=", "", "a=b="},
	{"ID=a; idx=b; xid=c", "", ""},
	{"", "", ""},
}

func TestCookie(t *testing.T) {
	t.Parallel()
	for _, row := range cookieCases {
		req := &http.Request{Header: http.Header{"Cookie": {row.first, row.second}}}
		check(t, Source{Cookie: "id"}, req, row.want, row.first+" | "+row.second)
		assert.Equal(t, row.want, cookieOf(req, "id"), "net/http disagrees: "+row.first+" | "+row.second)
	}
}

// cookieOf is what net/http finds.
func cookieOf(req *http.Request, name string) string {
	if c, err := req.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

// queryCases also seed the fuzzer.
var queryCases = []struct{ raw, name, want string }{
	{"user=1", "user", "1"},
	{"user=1&user=2", "user", "1"},
	{"a=b&user=1&c=d", "user", "1"},
	{"user=%31", "user", "1"},
	{"%75ser=1", "user", "1"},
	{"us%65%72=%31", "user", "1"},
	{"user=a+b", "user", "a b"},
	{"user=a%20b", "user", "a b"},
	{"user=a%2Bb%3d", "user", "a+b="},
	{"user=a=b", "user", "a=b"},
	{"a+b=1", "a b", "1"},
	{"a+b=1", "a+b", ""},
	{"a%2bb=1", "a+b", "1"},
	{"%C3%A4=1", "ä", "1"},
	{"ä=ä", "ä", "ä"},
	{"user=&user=2", "user", ""},
	{"user&user=2", "user", ""},
	{"=1&&=&user=2", "user", "2"},
	{"user=1;x=2&user=3", "user", "3"},
	{"user;x=2&user=3", "user", "3"},
	{"a;b=1", "a;b", ""},
	{"a%3Bb=1", "a;b", "1"},
	{"user=%3B", "user", ";"},
	{"user=%&user=2", "user", "2"},
	{"user=%3&user=2", "user", "2"},
	{"user=%zz&user=2", "user", "2"},
	{"user%=1&user=2", "user", "2"},
	{"user%7=1&user=2", "user", "2"},
	{"use%7g=1&use%g2=1&user=2", "user", "2"},
	{"use%7g=1", "use\xff", ""}, // what a digit that is none would come to
	{"use%g7=1", "use\xf7", ""},
	{"users=1&use=2&User=3", "user", ""},
	{"us%00er=1", "us\x00er", "1"},
	{"", "user", ""},
}

func TestQuery(t *testing.T) {
	t.Parallel()
	for _, row := range queryCases {
		req := &http.Request{URL: &url.URL{RawQuery: row.raw}}
		check(t, Source{Query: row.name}, req, row.want, row.raw)
		values, _ := url.ParseQuery(row.raw)
		assert.Equal(t, row.want, values.Get(row.name), "net/url disagrees: "+row.raw)
	}
	check(t, Source{Query: "user"}, &http.Request{}, "", "no URL")
}

// addressCases also seed the fuzzer.
var addressCases = []struct{ remote, want string }{
	{"10.0.0.1:1234", "10.0.0.1"},
	{"10.0.0.1:1", "10.0.0.1"},
	{"10.0.0.1", "10.0.0.1"},
	{"[::ffff:10.0.0.1]:1234", "10.0.0.1"},
	{"[::FFFF:0a00:1]:1234", "10.0.0.1"},
	{"[0:0:0:0:0:ffff:a00:0001%eth0]:1234", "10.0.0.1"},
	{"::ffff:10.0.0.1", "10.0.0.1"},
	{"[2001:db8::1]:80", "2001:db8::1"},
	{"[2001:DB8:0:0::0001]:80", "2001:db8::1"},
	{"[2001:db8::1]", "2001:db8::1"},
	{"2001:db8:0000::1", "2001:db8::1"},
	{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2:3:4:5:6"},
	{"[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	{"[2001:db8:0:1:0:0:0:1]:1", "2001:db8:0:1::1"},
	{"[fe80::1%eth0]:80", "fe80::1"},
	{"fe80::1%25", "fe80::1"},
	{"[::1]:80", "::1"},
	{"[::]:80", "::"},
	{"", ""},
	{"@", ""},
	{"pipe", ""},
	{":80", ""},
	{"[]:80", ""},
	{"[", ""},
	{"users:80", ""},
	{"10.0.0.256:80", ""},
	{"010.0.0.1:80", ""},
	{"10.0.1:80", ""},
	{"/run/users.sock", ""},
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	for _, row := range addressCases {
		check(t, Source{ClientAddress: true}, &http.Request{RemoteAddr: row.remote}, row.want, row.remote)
	}
}

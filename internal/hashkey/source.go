package hashkey

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Source names one property of a request. Exactly one of Header, Cookie, Query,
// Path, ClientAddress and Func is set; there is no default. A property that is
// absent or empty is no value, and so is one that cannot be read. A value's
// bytes count as they are, upper and lower case included.
type Source struct {
	Header        string // "Host" is the request's Host
	Cookie        string
	Query         string
	Path          bool // "/" if it is empty
	ClientAddress bool // of RemoteAddr, in one spelling
	Func          func(*http.Request) string
	Terminal      bool // those after this one are not asked if it has a value
}

// Validate returns all problems joined, or nil.
func (s Source) Validate() error {
	var errs field.Errors
	const token = "must be a token (RFC 9110, section 5.6.2)"
	errs.Check(s.Header == "" || isToken(s.Header), "Header", s.Header, token)
	errs.Check(s.Cookie == "" || isToken(s.Cookie), "Cookie", s.Cookie, token)
	first := ""
	for _, f := range [...]struct {
		name  string
		value any
		set   bool
	}{
		{"Header", s.Header, s.Header != ""},
		{"Cookie", s.Cookie, s.Cookie != ""},
		{"Query", s.Query, s.Query != ""},
		{"Path", true, s.Path},
		{"ClientAddress", true, s.ClientAddress},
		{"Func", "set", s.Func != nil},
	} {
		switch {
		case !f.set:
		case first == "":
			first = f.name
		default:
			errs.Add(f.name, f.value, "must not be set together with "+first)
		}
	}
	errs.Check(first != "", "Header", "", "must be set, or else Cookie, Query, Path, ClientAddress or Func")
	return errs.Err()
}

// Sources is an ordered list of places that together make the key of a request.
// Every source that has a value counts, in its order, unless one before it is
// Terminal. With a single source, or all of them Terminal, the key is one value.
type Sources []Source

// Validate returns all problems of all sources joined, or nil. An empty list is
// valid: it has no value for any request.
func (s Sources) Validate() error {
	var errs field.Errors
	for i, source := range s {
		errs.Under("["+strconv.Itoa(i)+"]", source.Validate())
	}
	return errs.Err()
}

// Compile prepares the sources, which must be valid, for being read many times.
func (s Sources) Compile() Extractor {
	e := Extractor{parts: make([]part, len(s))}
	for i, source := range s {
		e.parts[i] = part{
			value:    source.reader(),
			address:  source.ClientAddress,
			terminal: source.Terminal,
		}
	}
	return e
}

// reader returns what reads the source's value, or "".
func (s Source) reader() func(*http.Request) string {
	switch {
	case strings.EqualFold(s.Header, "Host"):
		return host
	case s.Header != "":
		name := http.CanonicalHeaderKey(s.Header)
		return func(req *http.Request) string { return header(req.Header, name) }
	case s.Cookie != "":
		return func(req *http.Request) string { return cookie(req.Header["Cookie"], s.Cookie) }
	case s.Query != "":
		return func(req *http.Request) string { return query(req.URL, s.Query) }
	case s.Path:
		return func(req *http.Request) string { return path(req.URL) }
	case s.ClientAddress:
		return func(req *http.Request) string { return address(req.RemoteAddr) }
	case s.Func != nil:
		return s.Func
	}
	return func(*http.Request) string { return "" }
}

// isToken reports whether s is what RFC 9110 calls a token: the name of a header
// field, and by RFC 6265 that of a cookie.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

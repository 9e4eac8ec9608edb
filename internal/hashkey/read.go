package hashkey

import (
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
)

// The functions below return "" for no value. None of them limits how many
// cookies or parameters it passes over, as net/http and net/url do, because
// they keep nothing.

// header returns the first value of the field with the canonical name.
func header(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func host(req *http.Request) string {
	if req.Host == "" && req.URL != nil {
		return req.URL.Host
	}
	return req.Host
}

// path returns the path that is asked for. Like [url.URL.RequestURI], it takes an
// empty one as "/" (RFC 9110, section 4.2.3), but knows none in an opaque URL.
func path(u *url.URL) string {
	switch {
	case u == nil:
		return ""
	case u.Path == "" && u.Opaque == "":
		return "/"
	}
	return u.Path
}

// cookie returns the value of the first cookie with the name that net/http would
// not drop. The lines are those of the Cookie field.
func cookie(lines []string, name string) string {
	c := Cookies{Lines: lines, Name: name}
	value, _ := c.Next()
	return value
}

// Cookies passes over the cookies of a request that have a name, without an allocation.
type Cookies struct {
	Lines []string // those of the Cookie field
	Name  string

	line string // what is left of the one before
}

// Next returns the next value that net/http would not drop, and false after the last one.
func (c *Cookies) Next() (value string, ok bool) {
	for {
		for c.line != "" {
			var pair string
			pair, c.line, _ = strings.Cut(c.line, ";")
			key, value, _ := strings.Cut(textproto.TrimString(pair), "=")
			if textproto.TrimString(key) != c.Name {
				continue
			}
			if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			if isCookieValue(value) {
				return value, true
			}
		}
		if len(c.Lines) == 0 {
			return "", false
		}
		c.line, c.Lines = c.Lines[0], c.Lines[1:]
	}
}

// isCookieValue reports whether net/http takes s for the value of a cookie, which
// may have spaces and commas in it, unlike in RFC 6265, section 4.1.1.
func isCookieValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == ';' {
			return false
		}
	}
	return true
}

// query returns the first value of the parameter that [url.ParseQuery] finds: a
// pair with a semicolon or a broken escape in it is no pair.
func query(u *url.URL, name string) string {
	if u == nil {
		return ""
	}
	for rest := u.RawQuery; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if !unescapesTo(key, name) || strings.Contains(value, ";") {
			continue
		}
		if value, err := url.QueryUnescape(value); err == nil {
			return value
		}
	}
	return ""
}

// unescapesTo reports whether [url.QueryUnescape] makes want of s. It saves the
// copies that keys with escapes would cost. A semicolon is never equal.
func unescapesTo(s, want string) bool {
	for ; s != ""; s, want = s[1:], want[1:] {
		c := s[0]
		switch c {
		case ';':
			return false
		case '+':
			c = ' '
		case '%':
			if len(s) < 3 {
				return false
			}
			high, low := unhex(s[1]), unhex(s[2])
			if high > 15 || low > 15 {
				return false
			}
			c, s = high<<4|low, s[2:]
		}
		if want == "" || want[0] != c {
			return false
		}
	}
	return want == ""
}

// unhex returns the value of a hexadecimal digit, or more than 15.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// addressBuf has room for the text of any IP address.
type addressBuf [len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")]byte

// address returns the canonical text of the IP address in a RemoteAddr, which is
// the part of it that is there, if that is canonical.
func address(remote string) string {
	var buf addressBuf
	found := addressPart(remote)
	text := appendAddress(buf[:0], found)
	if string(text) == found {
		return found
	}
	return string(text)
}

// appendAddress appends the canonical text (RFC 5952) of an IP address without a
// zone, or nothing if it is none.
func appendAddress(b []byte, s string) []byte {
	if !strings.ContainsAny(s, ".:") {
		return b // such as the "@" of a Unix socket: not worth an error
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return b
	}
	return addr.Unmap().AppendTo(b)
}

// addressPart cuts port, brackets and zone off.
func addressPart(remote string) string {
	if inner, ok := strings.CutPrefix(remote, "["); ok {
		remote, _, _ = strings.Cut(inner, "]")
	} else if before, after, ok := strings.Cut(remote, ":"); ok && !strings.Contains(after, ":") {
		remote = before // one colon only, so it is no IPv6 address
	}
	remote, _, _ = strings.Cut(remote, "%")
	return remote
}

package call

import (
	"net/http"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Check returns what makes the request impossible to send, nil if nothing does.
// These are the cases that net/http finds only when an endpoint was picked, or
// never: over HTTP/2 it dials for ever for a URL with a control character in it.
// Every outermost layer asks, so that no endpoint is blamed. Schemes besides http and https are fine
// where they are given: whoever asks puts another in their place.
func Check(req *http.Request, schemes ...string) error {
	if err := Problems(req, schemes...); err != nil {
		return &invalidError{err}
	}
	return nil
}

// Problems returns the same as field errors.
func Problems(req *http.Request, schemes ...string) error {
	var errs field.Errors
	checkURL(req, schemes, &errs)
	if !isMethod(req.Method) {
		errs.Add("Request.Method", req.Method, "must be a token")
	}
	if len(req.Header) > 0 { // to range over nothing takes longer than to see that
		checkHeader("Request.Header", req.Header, &errs)
	}
	if len(req.Trailer) > 0 {
		checkHeader("Request.Trailer", req.Trailer, &errs)
		checkTrailer(req.Trailer, &errs)
	}
	if req.ContentLength != 0 && req.Body == nil {
		errs.Add("Request.ContentLength", req.ContentLength, "must be 0 without a body")
	}
	return errs.Err()
}

func checkURL(req *http.Request, schemes []string, errs *field.Errors) {
	u := req.URL
	if u == nil {
		errs.Add("Request.URL", nil, "must not be nil")
		return
	}
	if u.Scheme != "http" && u.Scheme != "https" && !slices.Contains(schemes, u.Scheme) {
		errs.Add("Request.URL", u.Scheme, "must have the scheme http or https")
	}
	if u.Host == "" {
		errs.Add("Request.URL", "", "must have a host")
	}
	if !isHostField(u.Host) || (req.Host != u.Host && !isHostField(req.Host)) {
		errs.Add("Request.Host", "(not shown)", "must be a host with or without a port")
	}
	rooted := u.Opaque
	if rooted == "" {
		rooted = u.Path
	}
	if rooted != "" && rooted[0] != '/' && rooted != "*" {
		errs.Add("Request.URL", "(not shown)", "must have a path that begins with a slash")
	}
	// Paths are escaped on the way; these two are sent as they are.
	if !isPrintable(u.RawQuery) || !isPrintable(u.Opaque) {
		errs.Add("Request.URL", "(not shown)", "must not have control characters")
	}
}

func checkHeader(where string, h http.Header, errs *field.Errors) {
	for name, values := range h {
		if !isToken(name) {
			errs.Add(where, name, "must have names that are tokens")
		}
		for _, v := range values {
			if !isFieldValue(v) { // the value may be a secret
				errs.Add(where, name, "must have a value without control characters")
			}
		}
	}
}

// checkTrailer finds what net/http refuses to send as a trailer.
func checkTrailer(h http.Header, errs *field.Errors) {
	for name := range h {
		switch http.CanonicalHeaderKey(name) {
		case "Transfer-Encoding", "Trailer", "Content-Length":
			errs.Add("Request.Trailer", name, "must not be a trailer")
		}
	}
}

// isMethod reports whether s may be a method; empty is GET.
func isMethod(s string) bool {
	switch s {
	case "", http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead, http.MethodDelete, http.MethodPatch:
		return true // as nearly always
	}
	return isToken(s)
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s may be the value of a header.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}

// isPrintable reports whether s has neither control characters nor blanks.
func isPrintable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// isHostField reports whether s may stand in a Host header.
func isHostField(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c == 0x7f:
			return false
		case c == '/' || c == '\\' || c == '@' || c == '?' || c == '#' || c == '"' || c == '<' || c == '>':
			return false
		}
	}
	return true
}

// invalidError says that a request cannot be sent.
type invalidError struct{ problems error }

func (e *invalidError) Error() string { return e.problems.Error() }

func (e *invalidError) Unwrap() []error { return []error{outcome.ErrInvalidRequest, e.problems} }

func (e *invalidError) Reason() outcome.Reason { return outcome.Invalid }

// Close closes the body of a response, if there is one.
func Close(resp *http.Response) {
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
}

// Refuse closes the body of a request that is not sent.
func Refuse(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

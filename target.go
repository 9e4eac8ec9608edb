package evenkeel

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// target is the logical service that a Transport calls.
type target struct {
	scheme string
	host   string // lower case, without port, brackets and trailing dot
	port   uint16
}

func parseTarget(text string) (target, error) {
	var errs field.Errors
	u, err := url.Parse(text)
	if err != nil {
		errs.Add("Target", redacted, "must be a URL such as http://users.internal:8080")
		return target{}, errs.Err()
	}
	shown := text
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || strings.Contains(text, "@") {
		shown = redacted
	}
	t, ok := targetOf(u.Scheme, u.Host)
	errs.Check(u.Scheme == "http" || u.Scheme == "https", "Target", shown, "must have the scheme http or https")
	errs.Check(ok, "Target", shown, "must have a host, and a port between 1 and 65535 if any")
	errs.Check(u.User == nil, "Target", shown, "must not have a user: set the Authorization header of requests")
	errs.Check(u.Path == "" || u.Path == "/", "Target", shown, "must not have a path: requests have theirs")
	errs.Check(u.RawQuery == "" && u.Fragment == "", "Target", shown, "must not have a query or a fragment")
	return t, errs.Err()
}

// originOf returns the scheme and the host of a URL, which is a valid target, as callers write them.
func originOf(text string) string {
	u, _ := url.Parse(text) // it is valid
	return u.Scheme + "://" + u.Host
}

// redacted stands for a URL that may hold secrets.
const redacted = "(not shown)"

// targetOf returns the target that a scheme and a host with or without port
// stand for.
func targetOf(scheme, hostport string) (t target, ok bool) {
	host, port := hostport, ""
	if h, p, err := net.SplitHostPort(hostport); err == nil {
		host, port = h, p
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	t = target{scheme: strings.ToLower(scheme), host: strings.ToLower(host), port: 80}
	if t.scheme == "https" {
		t.port = 443
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return t, false
		}
		t.port = uint16(n)
	}
	return t, isHost(t.host)
}

// isHost reports whether s is a name or an IP address.
func isHost(s string) bool {
	if strings.Contains(s, ":") {
		ip, err := netip.ParseAddr(s)
		return err == nil && ip.Zone() == ""
	}
	for _, c := range s {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-._~", c) {
			return false
		}
	}
	return s != "" && !slices.Contains(strings.Split(s, "."), "")
}

// String returns the target as a URL without anything secret.
func (t target) String() string {
	return fmt.Sprintf("%s://%s", t.scheme, t.hostport())
}

func (t target) hostport() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

// resolver returns where the endpoints are unless the user says: at the address
// that the target is, or where DNS says.
func (t target) resolver() discovery.Resolver {
	if _, err := netip.ParseAddr(t.host); err == nil {
		return discovery.Static{t.hostport()}
	}
	return discovery.DNS{Host: t.host, Port: t.port}
}

// serves reports whether the request is for this target.
func (t target) serves(u *url.URL) bool {
	if u.Scheme == t.scheme && u.Host == t.host {
		return t.port == defaultPort(t.scheme)
	}
	o, ok := targetOf(u.Scheme, u.Host)
	return ok && o == t
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

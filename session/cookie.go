package session

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// Cookie pins a caller by a cookie of its own, which it adds to answers: the way for browsers
// behind a gateway, and for an [http.Client] with a Jar. Nothing is remembered here, so replicas with
// the same Secret agree, and restarts forget nothing.
//
// The value tells no address. It is signed, for one target and one name: a forged value, a cookie of
// another service, or one that has expired is ignored, and a new one is issued. It does tell callers
// whether they share a server. It is HttpOnly always, since no script needs it.
type Cookie struct {
	// Name is the name of the cookie. Empty means "evenkeel-" and eight digits that stand for the
	// target, so that services behind one site do not take each other's away.
	Name string
	// Secret signs the cookies. It must be set.
	Secret Secret
	// Previous is the Secret of before, whose cookies are good still, and are replaced when
	// they come. To change secrets without moving a session: first make the new one Previous
	// everywhere, then change the two over, and drop the old one when its cookies have
	// expired.
	Previous Secret

	// Path is where browsers send the cookie. Empty means "/".
	Path string
	// Domain is the domain whose hosts browsers send it to. Empty means the host that set it
	// alone.
	Domain string
	// MaxAge is how long a session lasts after its last request, to be exact: after the last
	// renewal of the cookie, which happens with the first request in the last three quarters
	// of that time. Zero means until the browser is closed.
	MaxAge time.Duration
	// Secure says whether browsers send the cookie over TLS only.
	Secure Secure
	// SameSite says whether they send it with requests from other sites. Zero means
	// [http.SameSiteLaxMode]; [http.SameSiteNoneMode] needs SecureAlways.
	SameSite http.SameSite
	// Partitioned makes browsers keep a cookie for each site in which this one is embedded (CHIPS). It
	// needs SecureAlways.
	Partitioned bool

	// Private adds "Cache-Control: private" to the answers that set the cookie, so that no shared
	// cache hands it to others. Set it if there is one in front that keeps answers with cookies.
	Private bool
}

// Secure says whether browsers send a cookie over TLS only.
type Secure uint8

const (
	// SecureAuto is the default: for the cookies of callers that came over TLS, as the TLS
	// field or the X-Forwarded-Proto header of a request says that a server passes on, or the URL
	// of any other. What [net/http/httputil.ReverseProxy] passes on has no X-Forwarded-Proto unless
	// its Rewrite puts it there: where something else in front ends TLS, use SecureAlways.
	SecureAuto Secure = iota
	// SecureAlways is for all cookies.
	SecureAlways
	// SecureNever is for none.
	SecureNever
)

func (c Cookie) withDefaults() Kind {
	field.Default(&c.Path, "/")
	field.Default(&c.SameSite, http.SameSiteLaxMode)
	return c
}

func (c Cookie) validate() error {
	c, _ = c.withDefaults().(Cookie)
	var errs field.Errors
	if c.Name != "" && (hashkey.Source{Cookie: c.Name}).Validate() != nil {
		errs.Add("Name", c.Name, "must be a token (RFC 9110, section 5.6.2)")
	}
	c.Secret.validate("Secret", &errs)
	if c.Previous != (Secret{}) {
		c.Previous.validate("Previous", &errs)
		errs.Check(!c.Secret.Equal(c.Previous), "Previous", c.Previous, "must not be the Secret again")
	}
	// What net/http does not take, it leaves out of each cookie, and logs.
	errs.Check(c.Path[0] == '/' && (&http.Cookie{Name: "a", Path: c.Path}).Valid() == nil, "Path", c.Path,
		"must begin with a slash and have no semicolon or control character")
	errs.Check((&http.Cookie{Name: "a", Domain: c.Domain}).Valid() == nil && !strings.HasSuffix(c.Domain, "."), "Domain", c.Domain, "must be a domain name")
	errs.Check(c.MaxAge == 0 || c.MaxAge >= minMaxAge, "MaxAge", c.MaxAge, "must be at least 1s, or 0 for until the browser is closed")
	errs.Check(c.MaxAge <= maxMaxAge, "MaxAge", c.MaxAge, "must be at most 400 days, which is what browsers keep")
	errs.Check(c.Secure <= SecureNever, "Secure", c.Secure, "must be one of the constants")
	switch c.SameSite {
	case http.SameSiteLaxMode, http.SameSiteStrictMode:
	case http.SameSiteNoneMode:
		errs.Check(c.Secure == SecureAlways, "SameSite", c.SameSite, "must not be None without SecureAlways: browsers refuse that")
	default:
		errs.Add("SameSite", c.SameSite, "must be Lax, Strict or None")
	}
	errs.Check(!c.Partitioned || c.Secure == SecureAlways, "Partitioned", c.Partitioned, "must not be set without SecureAlways: browsers refuse that")
	name := strings.ToLower(c.Name) // as browsers compare them
	host, secure := strings.HasPrefix(name, "__host-"), strings.HasPrefix(name, "__secure-")
	errs.Check(!host && !secure || c.Secure == SecureAlways, "Secure", c.Secure, "must be SecureAlways for a name that begins with __Host- or __Secure-")
	errs.Check(!host || c.Path == "/" && c.Domain == "", "Name", c.Name, "must not begin with __Host- where there is a Path or a Domain")
	return errs.Err()
}

// The bounds of MaxAge: dates in cookies are in seconds, and browsers keep none for longer than 400
// days (draft-ietf-httpbis-rfc6265bis, section 5.5).
const (
	minMaxAge = time.Second
	maxMaxAge = 400 * 24 * time.Hour
)

// secure reports whether the cookie for the answer to this request is to be sent over TLS only.
func (c *Cookie) secure(req *http.Request) bool {
	switch c.Secure {
	case SecureAlways:
		return true
	case SecureNever:
		return false
	case SecureAuto:
	}
	if req.RemoteAddr == "" { // it is not a server that passes it on
		return req.URL.Scheme == "https"
	}
	proto, _, _ := strings.Cut(req.Header.Get("X-Forwarded-Proto"), ",") // of several, the first is the caller's
	return req.TLS != nil || strings.EqualFold(strings.TrimSpace(proto), "https")
}

// issue adds the cookie to the headers of an answer. It makes a map of its own for that, since a transport
// of the user's may give the same one to several.
func (c *Cookie) issue(resp *http.Response, value string, now time.Time, secure bool) {
	cookie := http.Cookie{
		Name: c.Name, Value: value, Path: c.Path, Domain: c.Domain,
		Secure: secure, HttpOnly: true, SameSite: c.SameSite, Partitioned: c.Partitioned,
	}
	if c.MaxAge > 0 {
		cookie.MaxAge = int(c.MaxAge / time.Second)
		cookie.Expires = now.Add(c.MaxAge)
	}
	h := make(http.Header, len(resp.Header)+1)
	maps.Copy(h, resp.Header)
	h["Set-Cookie"] = append(slices.Clip(h["Set-Cookie"]), cookie.String())
	if c.Private {
		h["Cache-Control"] = append(slices.Clip(h["Cache-Control"]), "private")
	}
	resp.Header = h
}

// sets reports whether the headers of an answer set the cookie already: the server's wins.
func sets(h http.Header, name string) bool {
	for _, line := range h["Set-Cookie"] {
		if before, _, ok := strings.Cut(line, "="); ok && strings.TrimSpace(before) == name {
			return true
		}
	}
	return false
}

package session

import (
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// Kind is how a caller is known again: a [Cookie], [Learn], [Route], [Key] or [Hash].
type Kind interface {
	validate() error
	withDefaults() Kind
}

// Property is one property of a request: exactly one of its fields is set. A property that is
// absent or empty is no value. In a list, the first one that has a value counts.
type Property struct {
	// Header is the name of a header field, in any case. "Host" means the request's Host.
	Header string
	// Cookie is the name of a cookie; case matters.
	Cookie string
	// Query is the name of a query parameter; case matters.
	Query string
	// Path means the URL's path, without the query.
	Path bool
	// ClientAddress means the IP address in the request's RemoteAddr, which a
	// [net/http/httputil.ReverseProxy] keeps from the request that it got. Of several proxies in
	// a row, the address of the one before; then use Header or Func, and only if you trust it.
	ClientAddress bool
	// Func returns the value, or "" for none. It is called concurrently, must be fast, and must
	// not change the request.
	Func func(*http.Request) string
}

// sources returns the properties as those see them who read requests.
func sources(properties []Property) hashkey.Sources {
	all := make(hashkey.Sources, len(properties))
	for i, p := range properties {
		all[i] = hashkey.Source{
			Header: p.Header, Cookie: p.Cookie, Query: p.Query, Path: p.Path,
			ClientAddress: p.ClientAddress, Func: p.Func, Terminal: true,
		}
	}
	return all
}

// Key pins a caller by a key: the one that [WithKey] put into the request's context, or else what
// From finds in the request. The first request with a key goes wherever the balancer sends it, and
// the others follow. A request without a key belongs nowhere.
type Key struct {
	// From says where requests carry the key, if not in their context. Empty means nowhere else. Callers
	// who can make up keys can fill the Store with them, and push others out of a Table: name
	// something that they cannot.
	From []Property
	// TTL is how long a key is remembered after its last request. Zero means 10m. It is of no
	// effect with a Store, which has its own.
	TTL time.Duration
	// MaxSessions is how many keys are remembered at most; the one that was used longest ago
	// makes room. Zero means 65536. It is of no effect with a Store.
	MaxSessions int

	// Store remembers the keys. Nil means a [Table], in memory.
	Store Store
}

func (k Key) validate() error {
	var errs field.Errors
	errs.Under("From", sources(k.From).Validate())
	errs.Under("", TableConfig{TTL: k.TTL, MaxSessions: k.MaxSessions}.Validate())
	return errs.Err()
}

func (k Key) withDefaults() Kind {
	t := TableConfig{TTL: k.TTL, MaxSessions: k.MaxSessions}.withDefaults()
	k.TTL, k.MaxSessions, k.From = t.TTL, t.MaxSessions, slices.Clone(k.From)
	return k
}

// Learn pins a caller by the session cookie, or by a header, that the servers set themselves. It
// remembers which endpoint set a value, and sends the requests that carry it there, as nginx's
// "sticky learn" does. A value that no endpoint has set, as far as it is remembered, belongs nowhere: so
// callers cannot fill the table with what they make up.
type Learn struct {
	// Cookie is the name of the servers' cookie; case matters.
	Cookie string
	// Header is the name of the header field in which servers send a value and callers bring it
	// back, in place of a cookie. Exactly one of the two must be set.
	Header string
	// TTL is as in [Key].
	TTL time.Duration
	// MaxSessions is as in [Key].
	MaxSessions int

	// Store is as in [Key].
	Store Store
}

func (l Learn) validate() error {
	var errs field.Errors
	errs.Check(l.Cookie != "" || l.Header != "", "Cookie", l.Cookie, "must be set, or else Header")
	errs.Check(l.Cookie == "" || l.Header == "", "Header", l.Header, "must not be set together with Cookie")
	if (l.Cookie == "") != (l.Header == "") {
		errs.Under("", l.source().Validate())
	}
	errs.Under("", TableConfig{TTL: l.TTL, MaxSessions: l.MaxSessions}.Validate())
	return errs.Err()
}

func (l Learn) source() hashkey.Source { return hashkey.Source{Cookie: l.Cookie, Header: l.Header} }

func (l Learn) withDefaults() Kind {
	t := TableConfig{TTL: l.TTL, MaxSessions: l.MaxSessions}.withDefaults()
	l.TTL, l.MaxSessions = t.TTL, t.MaxSessions
	return l
}

// Route sends a request to the endpoint that it names, as Java's application servers have it in
// their session cookies: JSESSIONID=52A8.node2. It remembers nothing: while that endpoint cannot take
// requests, each goes wherever the balancer sends it, until the server that answers puts its own name
// there. That is not counted as a move. Callers can choose their server with it.
type Route struct {
	// From says where requests name the endpoint. It must not be empty.
	From []Property
	// Separator is what comes before the name: it begins after the last one. Empty means that
	// the whole value is the name; a value without the separator names nothing.
	Separator string
	// Attribute is the attribute of the endpoint that is its name. Empty means its identity.
	Attribute string
}

func (r Route) validate() error {
	var errs field.Errors
	errs.Check(len(r.From) > 0, "From", len(r.From), "must not be empty")
	errs.Under("From", sources(r.From).Validate())
	return errs.Err()
}

func (r Route) withDefaults() Kind {
	r.From = slices.Clone(r.From)
	return r
}

// Hash sends requests with the same key to the same endpoint, by a consistent hash, as nginx's
// ip_hash does. The key is the one that [WithKey] put into the request's context, or else what From
// finds in the request; requests without one go wherever the balancer sends them. Nothing is
// remembered and nothing is shared between clients, which is its strength; so a key moves when
// endpoints come and go (one in n does), and is back at its endpoint when that is back.
//
// It is the balancer's doing: inside evenkeel.New, the algorithm is balancer.Maglev with these keys, and
// the balancer of the policy is its fallback. To use another hash, or one alone, give
// balancer.RingHash, Maglev or Rendezvous to the balancer.
type Hash struct {
	// From says where requests carry the key, if not in their context.
	From []Property
}

func (h Hash) validate() error {
	var errs field.Errors
	errs.Under("From", sources(h.From).Validate())
	return errs.Err()
}

func (h Hash) withDefaults() Kind {
	h.From = slices.Clone(h.From)
	return h
}

package balancer

import (
	"net/http"

	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// HashKey names one property of a request that [RingHash], [Maglev] and
// [Rendezvous] make their key of, and in which a [Route] looks for a value: exactly one of Header, Cookie, Query, Path,
// ClientAddress and Func is set. A property that is absent or empty is no value.
// In a list, every value counts, in its order, up to the first one that is
// Terminal. Values are hashed and combined as Envoy's hash policies are.
//
// What is hashed of an endpoint is its identity: the attribute "hash_key" if it has
// one, else its ID, else its address. So a key goes to the same endpoint from every
// client, on whatever machine, in whatever order the endpoints are listed; and a
// pod of a StatefulSet, with its name as the attribute, keeps its keys when it
// returns under another address. Endpoints with the same identity share the keys
// that one of them would have.
//
// Endpoints that are not available are not forgotten: their keys go elsewhere, each
// always to the same second choice, and when they are back they have exactly their
// own again. The keys of others stay. An endpoint that the call has tried is passed
// over in the same way.
type HashKey struct {
	// Header is the name of a header field, in any case. Of several values the
	// first counts. "Host" means the request's Host, or the host of its URL
	// where that is empty.
	Header string

	// Cookie is the name of a cookie; case matters. Of several the first with
	// a valid value counts. Quotes around the value do not.
	Cookie string

	// Query is the name of a query parameter, not escaped; case matters. Of
	// several the first counts, and pairs that [net/url.ParseQuery] refuses
	// do not. Escapes in the value are undone.
	Query string

	// Path means the URL's path with escapes undone, and without the query.
	// An empty path is "/", for that is what is sent.
	Path bool

	// ClientAddress means the IP address in the request's RemoteAddr. A
	// [net/http/httputil.ReverseProxy] keeps that from the request it got; in
	// a request that the program itself makes it is empty, which is no value.
	// The port and an IPv6 zone do not count, and an IPv4 address mapped to
	// IPv6 is the IPv4 address: spellings do not matter.
	ClientAddress bool

	// Func returns the value, or "" for none. It is called once for each
	// look, concurrently, must be fast and must not change the request.
	Func func(*http.Request) string

	// Terminal means that those after this one are not asked if this
	// one has a value.
	Terminal bool
}

// sources returns the keys as those see them who read requests.
func sources(keys []HashKey) hashkey.Sources {
	s := make(hashkey.Sources, len(keys))
	for i, k := range keys {
		s[i] = hashkey.Source(k)
	}
	return s
}

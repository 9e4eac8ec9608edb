package balancer

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

func (r Route) validate() error {
	var errs field.Errors
	errs.Check(r.Attribute != "", "Attribute", r.Attribute, "must be set")
	errs.Check(len(r.From) > 0, "From", nil, "must be set")
	errs.Under("From", sources(r.From).Validate())
	errs.Check(r.Fallback >= FallbackAny && r.Fallback <= FallbackFail, "Fallback", r.Fallback,
		"must be one of the constants")
	errs.Check(r.Fallback != FallbackDefault || r.Default != "", "Default", r.Default,
		"must be set where it is the fallback")
	return errs.Err()
}

// String names the fallback.
func (f RouteFallback) String() string {
	names := [...]string{"any", "default", "fail"}
	if f < 0 || int(f) >= len(names) {
		return "RouteFallback(" + strconv.Itoa(int(f)) + ")"
	}
	return names[f]
}

// routing is a route with the endpoints that it leads to.
type routing struct {
	Route
	from   hashkey.Extractor
	values map[string]*cluster
}

func newRoutings(routes []Route) []routing {
	all := make([]routing, len(routes))
	for i, r := range routes {
		all[i] = routing{Route: r, from: sources(r.From).Compile()}
	}
	return all
}

// lead returns the endpoints for a request. applies is false where the route has
// nothing to say; nil means that the request fails.
func (r *routing) lead(req *http.Request, anyEndpoint *cluster) (c *cluster, applies bool) {
	value, applies := r.wish(req)
	if !applies {
		return nil, false
	}
	c = r.values[value]
	if c != nil && (c.healthy || r.Fallback == FallbackFail) {
		return c, true
	}
	other := anyEndpoint
	switch r.Fallback {
	case FallbackDefault:
		other = r.values[r.Default]
	case FallbackFail:
		return nil, true
	case FallbackAny:
	}
	if c != nil && c.served && c.cause == nil && (other == nil || other.cause != nil || !other.served) {
		return c, true // they would rather leave, or are new: better than nobody
	}
	return other, true
}

// wish returns the value that a request asks for, false if the route has nothing to say.
func (r *routing) wish(req *http.Request) (value string, applies bool) {
	if value, applies = r.from.Value(req); !applies {
		value = r.Default
	}
	return value, value != ""
}

// refused says that no endpoint has the value that the request asks for.
func (r *routing) refused() error {
	return &NoEndpointsError{Cause: fmt.Errorf("%w %q", errNoRoute, r.Attribute)}
}

package session

import (
	"net/http"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// routeWay is [Route] at work.
type routeWay struct {
	Route
	from  hashkey.Extractor
	named map[string]string // the identities by name
}

func newRouteWay(r Route, endpoints []discovery.Endpoint) *routeWay {
	w := &routeWay{Route: r, from: sources(r.From).Compile(), named: make(map[string]string, len(endpoints))}
	for i := range endpoints {
		id := endpoints[i].Key().ID
		name := id
		if r.Attribute != "" {
			name = endpoints[i].Attributes[r.Attribute]
		}
		if name == "" {
			continue
		}
		if other, twice := w.named[name]; !twice || better(&endpoints[i], endpoints, other) {
			w.named[name] = id
		}
	}
	return w
}

// better reports whether an endpoint comes before another one of the same name: one that stays before one that
// drains, and else in the order of their identities, whatever the order in which they are listed.
func better(e *discovery.Endpoint, among []discovery.Endpoint, other string) bool {
	at := slices.IndexFunc(among, func(o discovery.Endpoint) bool { return o.Key().ID == other })
	if o := &among[at]; e.Draining != o.Draining {
		return o.Draining
	}
	return e.Key().ID < other
}

func (w *routeWay) begin(v *visit, req *http.Request) {
	name, ok := w.from.Value(req)
	if w.Separator != "" {
		at := strings.LastIndex(name, w.Separator)
		if at < 0 {
			return
		}
		name = name[at+len(w.Separator):]
	}
	if !ok || name == "" {
		return
	}
	id, ok := w.named[name]
	if !ok {
		id = gone
	}
	v.belongs(id)
}

// claim implements way: whoever has put the name into the request says where it goes.
func (w *routeWay) claim(*visit, string, string) (string, error) { return "", nil }

// end implements way: there is nothing to remember.
func (w *routeWay) end(*visit, *http.Response, string, bool) {}

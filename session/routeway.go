package session

import (
	"net/http"
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
		if name != "" {
			w.named[name] = id
		}
	}
	return w
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
func (w *routeWay) claim(*visit, string, string) string { return "" }

func (w *routeWay) end(v *visit, _ *http.Response, endpoint string, good bool) {
	if home := v.home(); good && home != "" && home != endpoint {
		v.pinned(home, endpoint, v.moving())
	}
}

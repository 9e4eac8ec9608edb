package session

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// Of two endpoints of the same name, the one that is not draining has it, then the one whose identity is smaller,
// whatever the order in which they are listed.
func TestRoute_OneOfTheSameName(t *testing.T) {
	t.Parallel()
	node := func(address string, draining bool) discovery.Endpoint {
		return discovery.Endpoint{Address: address, Draining: draining, Attributes: map[string]string{"name": "node1"}}
	}
	other := discovery.Endpoint{Address: "0:80", Attributes: map[string]string{"name": "node2"}}
	nameless := discovery.Endpoint{Address: "1:80"}
	identified := discovery.Endpoint{ID: "a", Address: "z:80", Attributes: map[string]string{"name": "node1"}}
	for _, row := range []struct {
		about string
		all   []discovery.Endpoint
		want  string
	}{
		{"alone", []discovery.Endpoint{node("b:80", false)}, "b:80"},
		{"alone, and draining", []discovery.Endpoint{node("b:80", true)}, "b:80"},
		{"two", []discovery.Endpoint{node("b:80", false), node("c:80", false)}, "b:80"},
		{"the smaller one drains", []discovery.Endpoint{node("b:80", true), node("c:80", false)}, "c:80"},
		{"the larger one drains", []discovery.Endpoint{node("b:80", false), node("c:80", true)}, "b:80"},
		{"both drain", []discovery.Endpoint{node("b:80", true), node("c:80", true)}, "b:80"},
		{"two of three drain", []discovery.Endpoint{node("b:80", true), node("c:80", true), node("d:80", false)}, "d:80"},
		{"one of three drains", []discovery.Endpoint{node("b:80", true), node("c:80", false), node("d:80", false)}, "c:80"},
		{"the identity counts, not the address", []discovery.Endpoint{node("b:80", false), identified}, "a"},
	} {
		all := append(slices.Clone(row.all), other, nameless)
		places := make([]string, len(all))
		for i := range places {
			places[i] = string(rune('0' + i))
		}
		permuted(places, func(order []string) {
			var list []discovery.Endpoint
			for _, place := range order {
				list = append(list, all[place[0]-'0'])
			}
			w := newRouteWay(Route{From: []Property{{Header: "X-Route"}}, Attribute: "name"}, list)
			assert.Equal(t, map[string]string{"node1": row.want, "node2": "0:80"}, w.named, "%s: %v", row.about, list)
		})
	}
}

package balancer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// hashKeyAttribute is the attribute that is hashed instead of the ID. Envoy's
// metadata of that name exists for what comes back under another address, such as
// a pod of a StatefulSet.
const hashKeyAttribute = "hash_key"

func hashIdentity(e *discovery.Endpoint) string {
	return cmp.Or(e.Attributes[hashKeyAttribute], e.ID, e.Address)
}

// place is where an identity belongs. Usually that is one endpoint. Where several
// have the same, such as a pod and the one of the same name that replaces it, they
// share a place, which weighs as much as the heaviest of them: each gets a part of
// the keys, whoever is left gets all, and nobody else notices.
type place struct {
	identity string
	hash     uint64 // of the identity
	weight   float64
	seat     int32 // index of the candidate, nobody, or sharedBy minus the index in twins
}

const (
	nobody   = -1 // no endpoint of the place is available
	sharedBy = -2
)

// twin is one of several available endpoints in a place.
type twin struct {
	candidate int
	hash      uint64 // of what tells it from the others
}

// placing is the places of a group, in the order of their identities.
type placing struct {
	places []place
	twins  [][]twin
	index  map[string]int32
}

// newPlacing puts endpoints into places. Most were in the group before: they
// begin in the order that was found then, for to sort all of them costs more than
// all the rest.
func newPlacing(g Group, before *hashPicker) placing {
	var old placing
	if before != nil {
		old = before.placing
	}
	all := make([]place, 0, len(g.Candidates)+len(g.Unavailable))
	for i := range g.Candidates {
		all = append(all, newPlace(&g.Candidates[i], int32(i)))
	}
	for i := range g.Unavailable {
		all = append(all, newPlace(&g.Unavailable[i], nobody))
	}
	p := placing{places: make([]place, 0, len(all))}
	known := make([]int32, len(old.places)) // one plus the index in all
	var added []place
	for i := range all {
		at, ok := old.index[all[i].identity]
		if ok && known[at] == 0 {
			known[at] = int32(i + 1)
			all[i].hash = old.places[at].hash
			continue
		}
		all[i].hash = hashkey.String(all[i].identity)
		added = append(added, all[i])
	}
	for _, i := range known {
		if i > 0 {
			p.places = append(p.places, all[i-1])
		}
	}
	same := len(added) == 0 && len(all) == len(old.places)
	p.places = append(p.places, added...)
	if same {
		p.index = old.index
		return p
	}
	slices.SortFunc(p.places, func(a, b place) int { return strings.Compare(a.identity, b.identity) })
	p.merge(g.Candidates)
	p.index = make(map[string]int32, len(p.places))
	for i := range p.places {
		p.index[p.places[i].identity] = int32(i)
	}
	return p
}

// newPlace keeps the weight within bounds in which sums and ratios are finite.
func newPlace(c *Candidate, seat int32) place {
	return place{
		identity: hashIdentity(c.node.Published()),
		weight:   min(max(c.weight, 1e-100), 1e100),
		seat:     seat,
	}
}

// merge makes one place of those with equal identities, which are neighbours.
func (p *placing) merge(candidates []Candidate) {
	merged := p.places[:0]
	for rest := p.places; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].identity == rest[0].identity {
			n++
		}
		one := rest[0]
		if n > 1 {
			one = p.share(rest[:n], candidates)
		}
		merged = append(merged, one)
		rest = rest[n:]
	}
	p.places = merged
}

// share returns the place of several endpoints.
func (p *placing) share(of []place, candidates []Candidate) place {
	shared := of[0]
	shared.seat = nobody
	var here []twin
	for _, o := range of {
		shared.weight = max(shared.weight, o.weight)
		if o.seat != nobody {
			key := candidates[o.seat].node.Published().Key()
			here = append(here, twin{int(o.seat), hashkey.Mix(hashkey.String(key.ID), hashkey.String(key.Address))})
		}
	}
	switch len(here) {
	case 0:
	case 1:
		shared.seat = int32(here[0].candidate)
	default:
		shared.seat = sharedBy - int32(len(p.twins))
		p.twins = append(p.twins, here)
	}
	return shared
}

package balancer

import (
	"cmp"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// snapshot is what picks read: never changed once it is published. It holds
// only endpoints that may be used, so a pick looks at no other.
type snapshot struct {
	tiers []tier
	cause error // why there is no tier
}

// tier is the set of endpoints of one priority. Later tiers are used when the
// earlier ones have nothing for a call; standby endpoints are the last tier.
type tier struct {
	rank       rank
	candidates []Candidate
	picker     Picker
}

type rank struct {
	standby  bool
	priority int
}

func (r rank) compare(o rank) int {
	if r.standby != o.standby {
		if r.standby {
			return 1
		}
		return -1
	}
	return cmp.Compare(r.priority, o.priority)
}

// member is an endpoint in the pool, as those see it who change the pool.
type member struct {
	node     *node.Node
	observer node.Observer
}

func newSnapshot(members []*member, builder Builder, cause error) *snapshot {
	s := &snapshot{cause: cause}
	index := map[rank]int{}
	for _, m := range members {
		if m.node.Reasons() != 0 {
			continue
		}
		e := m.node.Endpoint()
		r := rank{standby: e.Standby, priority: e.Priority}
		if e.Standby {
			r.priority = 0
		}
		i, ok := index[r]
		if !ok {
			i = len(s.tiers)
			index[r] = i
			s.tiers = append(s.tiers, tier{rank: r})
		}
		t := &s.tiers[i]
		t.candidates = append(t.candidates, Candidate{m.node, m.observer, e.EffectiveWeight()})
	}
	slices.SortFunc(s.tiers, func(a, b tier) int { return a.rank.compare(b.rank) })
	for i := range s.tiers {
		s.tiers[i].picker = builder.Build(Group{Candidates: s.tiers[i].candidates})
	}
	return s
}

// pick returns a candidate that the call has not tried, from the first tier that
// has one. If all were tried, it starts over: the answer is never "none" while
// there is an endpoint.
func (s *snapshot) pick(info Info) *Candidate {
	if len(info.Tried) > 0 {
		for i := range s.tiers {
			if c := s.tiers[i].pickUntried(info); c != nil {
				return c
			}
		}
	}
	t := &s.tiers[0]
	return &t.candidates[t.picker.Pick(info)]
}

// repicks is how often the algorithm is asked again when it returns an endpoint
// that was tried, before the tier is searched.
const repicks = 3

func (t *tier) pickUntried(info Info) *Candidate {
	i := 0
	for range repicks {
		i = t.picker.Pick(info)
		if c := &t.candidates[i]; !tried(c, info.Tried) {
			return c
		}
	}
	for k := 1; k < len(t.candidates); k++ {
		if c := &t.candidates[(i+k)%len(t.candidates)]; !tried(c, info.Tried) {
			return c
		}
	}
	return nil
}

func tried(c *Candidate, serials []uint64) bool {
	return slices.Contains(serials, c.node.Serial())
}

// untried reports whether there is an endpoint that is neither c nor tried.
func (s *snapshot) untried(c *Candidate, serials []uint64) bool {
	for i := range s.tiers {
		for k := range s.tiers[i].candidates {
			if o := &s.tiers[i].candidates[k]; o.node != c.node && !tried(o, serials) {
				return true // found within the first few: at most those tried come before it
			}
		}
	}
	return false
}

// available returns how many endpoints may be used.
func (s *snapshot) available() int {
	n := 0
	for i := range s.tiers {
		n += len(s.tiers[i].candidates)
	}
	return n
}

package balancer

import (
	"math"
	"math/bits"
	"net/http"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// snapshot is what picks read: never changed once it is published. It holds
// only endpoints that may be used, so a pick looks at no other.
type snapshot struct {
	plain     group    // all candidates, where there is nothing to decide before the algorithm does
	main      *cluster // all endpoints
	plainTier *tier    // that of plain, nil without one
	routes    []routing
	limited   bool // Rules.MaxInFlight is set
	queue     Queue
	rand      func() uint64
	keyer     Keyer     // nil if the algorithm does not pick by key
	slower    float64   // Zones.Tolerance in seconds; 0 or less: not looked at
	counted   bool      // attempts in flight are counted, see queue
	directory directory // nil if no attempt has a pin
}

// cluster is the endpoints among which a request may go: all, or those of a route.
type cluster struct {
	tiers  []tier
	leaves []leaf      // the groups that have traffic
	cuts   cuts        // their shares of it, nil if there is one
	cause  error       // why nothing may be picked, nil if something may
	gates  []node.Gate // of those that are to blame, if breakers are

	healthy  bool         // some endpoint is available
	served   bool         // so, or is forgiven
	forgiven node.Reasons // that are none, because nobody is available otherwise
}

// tier is the endpoints of one priority.
type tier struct {
	rank       rank
	candidates []Candidate // those of all groups
	groups     []group
	local      bool // the first group is the local zone, and all have estimators
	ill        bool // some may not be available: health is ignored
}

// leaf is a group with its place.
type leaf struct {
	group
	tier  *tier
	local bool // the group of the local zone, beside others
}

// group is what an algorithm picks among: a zone of a tier, or a whole one.
type group struct {
	candidates []Candidate
	picker     Picker
	estimator  estimator // the picker, where it is one
}

// cuts divide the range of a random number into shares: each is where a share
// ends.
type cuts []uint32

// newCuts returns the cuts for shares above zero that add up to 1, or nil where
// there is nothing to divide.
func newCuts(shares []float64) cuts {
	if len(shares) < 2 {
		return nil
	}
	c := make(cuts, len(shares))
	sum := 0.0
	for i, s := range shares {
		sum += s
		c[i] = uint32(min(sum*(1<<32), math.MaxUint32))
	}
	return c
}

// at returns the index of the share that a random number belongs to: the number of
// cuts that are not above it. No branch depends on it, because none could be
// predicted.
func (c cuts) at(r uint64) int {
	i := uint64(0)
	for _, cut := range c[:len(c)-1] {
		i += (uint64(cut) - uint64(uint32(r)) - 1) >> 63
	}
	return int(i)
}

// pick returns a candidate for the call, preferring one that it has not tried, or
// nil if none has room, and its tier. There is always one if there is no limit.
func (s *snapshot) pick(c *cluster, info *Info) (*Candidate, *tier) {
	l := &c.leaves[0]
	if c.cuts != nil {
		l = &c.leaves[c.cuts.at(s.draw(info.Request))]
	}
	g, i := &l.group, l.picker.Pick(*info)
	if l.local && s.slower > 0 {
		g, i = s.nearest(l, i, *info)
	}
	chosen := &g.candidates[i]
	if (len(info.Tried) == 0 && !s.limited) || chosen.Usable(*info) {
		return chosen, l.tier
	}
	return s.search(c, l, *info)
}

// shorten notes if there is nothing to decide: that is nearly always so, and saves
// a third of the time of a pick.
func (s *snapshot) shorten() {
	c := s.main
	if len(s.routes) == 0 && !s.limited && !s.counted && c.cause == nil && c.cuts == nil && !c.leaves[0].local {
		s.plain, s.plainTier = c.leaves[0].group, c.leaves[0].tier
	}
}

// cluster returns the endpoints among which the request may go.
func (s *snapshot) cluster(info *Info) (*cluster, error) {
	for i := range s.routes {
		if c, applies := s.routes[i].lead(info.Request, s.main); applies {
			if c == nil {
				return nil, s.routes[i].refused()
			}
			return c, nil
		}
	}
	return s.main, nil
}

// draw returns the number by which a leaf is chosen: the key's, where there are
// keys, so that a key stays in its tier.
func (s *snapshot) draw(req *http.Request) uint64 {
	if s.keyer == nil {
		return s.rand()
	}
	const mix = 0x9e3779b97f4a7c15 // another view of the same key: the algorithm uses it too
	return s.keyer.Key(req) * mix >> 32
}

// nearest leaves the local zone if an endpoint of another is faster by more than
// the tolerance, and at least twice as fast: the latencies of equal endpoints differ
// too.
func (s *snapshot) nearest(l *leaf, i int, info Info) (*group, int) {
	local := l.estimator.estimate(info, i, true)
	if local <= s.slower {
		return &l.group, i
	}
	others := l.tier.groups[1:] // the local zone is the first
	other := &others[s.below(len(others))]
	k := other.picker.Pick(info)
	if remote := other.estimator.estimate(info, k, false); remote+s.slower < local && 2*remote < local {
		return other, k
	}
	return &l.group, i
}

// search finds a candidate that the call has not tried and that has room: first in
// the tier of the pick that was not usable, then in the others, and in each by what
// the algorithm says, and only then by passing over all. If all were tried, any with
// room will do: a call starts over rather than fail.
func (s *snapshot) search(c *cluster, from *leaf, info Info) (*Candidate, *tier) {
	if found := s.searchTier(from.tier, &from.group, info); found != nil {
		return found, from.tier
	}
	for i := range c.tiers {
		if t := &c.tiers[i]; t != from.tier {
			if found := s.searchTier(t, nil, info); found != nil {
				return found, t
			}
		}
	}
	if len(info.Tried) == 0 {
		return nil, nil
	}
	info.Tried = nil
	if again := &from.candidates[from.picker.Pick(info)]; again.Usable(info) {
		return again, from.tier
	}
	return s.search(c, from, info)
}

// searchTier begins with a group, if there is one. An algorithm that does not ask
// what is usable is asked again, up to three times.
func (s *snapshot) searchTier(t *tier, g *group, info Info) *Candidate {
	if g != nil {
		for range 3 {
			if chosen := &g.candidates[g.picker.Pick(info)]; chosen.Usable(info) {
				return chosen
			}
		}
	}
	begin := s.below(len(t.groups))
	for i := range t.groups {
		other := &t.groups[(begin+i)%len(t.groups)]
		if chosen := &other.candidates[other.picker.Pick(info)]; chosen.Usable(info) {
			return chosen
		}
	}
	return firstUsable(t.candidates, s.below(len(t.candidates)), info)
}

// below returns a random number below n.
func (s *snapshot) below(n int) int {
	i, _ := bits.Mul64(s.rand(), uint64(n))
	return int(i)
}

// firstUsable returns the first usable candidate from a place on.
func firstUsable(candidates []Candidate, from int, info Info) *Candidate {
	for k := range candidates {
		if c := &candidates[(from+k)%len(candidates)]; c.Usable(info) {
			return c
		}
	}
	return nil
}

// untried reports whether there is an endpoint that is neither this one nor tried, and need not
// be left alone.
func (c *cluster) untried(but *node.Node, tried []uint64) bool {
	for i := range c.tiers {
		for k := range c.tiers[i].candidates {
			o := &c.tiers[i].candidates[k]
			if o.node != but && !slices.Contains(tried, o.node.Serial()) && o.node.Reasons()&node.Waiting&^c.forgiven == 0 {
				return true // mostly within the first few: those tried come before it, and in panic those parked
			}
		}
	}
	return false
}

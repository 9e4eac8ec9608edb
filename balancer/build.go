package balancer

import (
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// member is an endpoint in the pool, as those see it who change the pool. Its
// fields are guarded by the pool's lock.
type member struct {
	// What building a snapshot looks at comes first, on one cache line.
	node     *node.Node
	observer node.Observer
	weight   float64
	rank     rank
	reasons  node.Reasons
	warming  bool // in slow start

	since time.Time // when slow start began
	zone  string
	order uint64 // its place among those that this client uses, see Subset
	index int    // its place in the pool's list
	picks uint64 // when the traffic was last looked at
	pool  *Pool

	leaving atomic.Int64 // since when it has been about to leave, see noteLeaving; for anybody
	parking
}

// Changed implements [node.Watcher].
func (m *member) Changed(others ...*node.Node) {
	marked := make([]*member, 0, len(others)+1)
	for _, o := range others {
		marked = append(marked, o.Watcher().(*member))
	}
	m.pool.changed(append(marked, m))
}

// Others implements [node.Watcher].
func (m *member) Others(tried []uint64, req *http.Request) bool {
	return m.pool.Others(Pick{node.Pick{Node: m.node}}, Info{Tried: tried, Request: req})
}

// Ended implements [node.Watcher].
func (m *member) Ended(counted bool) { m.pool.ended(counted) }

// identity is what hashes of the endpoint are made of.
func (m *member) identity() string { return m.node.Published().Key().ID }

// groupKey names a group from one snapshot to the next.
type groupKey struct {
	route string // attribute and value
	rank  rank
	zone  string
}

// builder makes one snapshot.
type builder struct {
	pool    *Pool
	rules   Rules
	now     time.Time
	keyer   Keyer
	pickers map[groupKey]Picker
	warming bool // somebody is in slow start
	panics  bool

	forgiven node.Reasons // in the cluster that is being built
}

// build returns a snapshot of the members. What it costs depends on their number
// only, about 20 ns for each.
func (b *builder) build(s *snapshot, members []*member) {
	s.main = b.cluster(members, "")
	if len(b.rules.Routes) == 0 {
		return
	}
	s.routes = newRoutings(b.rules.Routes)
	for i := range s.routes {
		r := &s.routes[i]
		r.values = map[string]*cluster{}
		for value, of := range byAttribute(members, r.Attribute) {
			r.values[value] = b.cluster(of, r.Attribute+"="+value)
		}
	}
}

func byAttribute(members []*member, attribute string) map[string][]*member {
	values := map[string][]*member{}
	for _, m := range members {
		if value := m.node.Published().Attributes[attribute]; value != "" && m.reasons&(node.Removed|node.Draining) == 0 {
			values[value] = append(values[value], m)
		}
	}
	return values
}

// gatesOf returns what keeps members from being picked, as far as it is their breakers.
func gatesOf(members []*member) (gates []node.Gate) {
	for _, m := range members {
		if gate := m.node.Gate(); gate != nil && m.reasons&(node.Open|node.ForcedOpen) != 0 {
			gates = append(gates, gate)
		}
	}
	return gates
}

// tierPlan is a tier that is being built.
type tierPlan struct {
	tierLoad
	rank    rank
	members []*member // those that are leaving are not among them
	warming float64   // the weight of those in slow start
	staying int       // how many there are
	away    int       // how many of them are not available
}

// cluster divides the members into tiers.
func (b *builder) cluster(members []*member, route string) *cluster {
	b.forgiven = forgivenOf(members)
	plans := plan(members, b.forgiven)
	loads := make([]tierLoad, len(plans))
	for i := range plans {
		loads[i] = plans[i].tierLoad
	}
	calm := divide(loads, b.rules)
	c := &cluster{tiers: make([]tier, 0, len(plans)), forgiven: b.forgiven} // leaves point into it
	var shares []float64
	for i := range plans {
		p := &plans[i]
		p.tierLoad = loads[i]
		b.panics = b.panics || (p.inPanic && route == "")
		c.served = c.served || p.available > 0
		c.healthy = c.served && b.forgiven == 0
		t, parts := b.tier(p, route)
		if len(t.groups) == 0 {
			continue
		}
		c.tiers = append(c.tiers, t)
		for k, part := range parts {
			if share := p.share * part; share > 1e-9 {
				c.leaves = append(c.leaves, leaf{t.groups[k], &c.tiers[len(c.tiers)-1], t.local && k == 0})
				shares = append(shares, share)
			}
		}
	}
	switch {
	case len(members) == 0:
		c.cause = errNoneFound
	case !calm && b.rules.Panic.Reject && len(c.tiers) > 0:
		c.cause, c.gates = errPanic, gatesOf(members)
	case len(c.leaves) == 0:
		c.cause, c.gates = errAllUnavailable, gatesOf(members)
	default:
		c.cuts = newCuts(shares)
	}
	return c
}

// forgivenOf returns the reasons that are none if nobody is available otherwise: that the first
// probe is awaited, and that an endpoint would rather leave.
func forgivenOf(members []*member) node.Reasons {
	if slices.ContainsFunc(members, func(m *member) bool { return m.reasons == 0 }) {
		return 0
	}
	return node.Pending | node.Withdrawn
}

// plan returns the tiers of the members, in order.
func plan(members []*member, forgiven node.Reasons) []tierPlan {
	var plans []tierPlan
	at := 0
	for _, m := range members {
		if m.reasons&node.Leaving != 0 {
			continue
		}
		if at >= len(plans) || plans[at].rank != m.rank {
			if at = slices.IndexFunc(plans, func(p tierPlan) bool { return p.rank == m.rank }); at < 0 {
				at = len(plans)
				plans = append(plans, tierPlan{rank: m.rank, tierLoad: tierLoad{standby: m.rank.standby}})
			}
		}
		p := &plans[at]
		reasons := m.reasons &^ forgiven
		if reasons&(node.Pending|node.Withdrawn) == 0 { // those speak neither for panic nor against it, like those that drain
			p.total += m.weight
		}
		if reasons == 0 {
			p.available += m.weight
			if m.warming {
				p.warming += m.weight
			}
		} else {
			p.away++
		}
		p.staying++
	}
	slices.SortFunc(plans, func(a, b tierPlan) int { return a.rank.compare(b.rank) })
	plans = slices.DeleteFunc(plans, func(p tierPlan) bool { return p.total == 0 })
	for i := range plans {
		if plans[i].staying == len(members) {
			plans[i].members = members
		} else {
			plans[i].members = keep(members, func(m *member) bool {
				return m.rank == plans[i].rank && m.reasons&node.Leaving == 0
			})
		}
	}
	return plans
}

// keep returns the members that match, in a slice of its own.
func keep(members []*member, match func(*member) bool) []*member {
	kept := make([]*member, 0, len(members))
	for _, m := range members {
		if match(m) {
			kept = append(kept, m)
		}
	}
	return kept
}

// tier divides the members of a priority into groups, and returns the share of
// each in the traffic of the tier. There is no group if nobody may be picked. The
// local zone comes first.
func (b *builder) tier(p *tierPlan, route string) (t tier, shares []float64) {
	usable, away := p.members, []*member(nil)
	t.rank, t.ill = p.rank, p.inPanic && !b.rules.Panic.Reject
	if p.away > 0 { // sums of weights may be equal by rounding
		against := ^node.Reasons(0)
		switch {
		case t.ill && p.away < len(p.members):
			against = node.Waiting
		case t.ill:
			against = 0
		}
		against &^= b.forgiven
		usable = keep(p.members, func(m *member) bool { return m.reasons&against == 0 })
		away = keep(p.members, func(m *member) bool { return m.reasons&against != 0 })
	}
	if len(usable) == 0 {
		return t, nil
	}
	key := groupKey{route: route, rank: p.rank}
	if b.keyer != nil {
		t.candidates = b.candidates(make([]Candidate, 0, len(usable)), usable, p)
		t.groups = []group{b.group(key, t.candidates, b.candidates(nil, away, p))}
		return t, []float64{1}
	}
	size := b.pool.subsetSize(b.rules)
	t.candidates = make([]Candidate, 0, len(usable)) // enough for all: groups are parts of it
	zones := b.zones(p)
	for _, z := range zones {
		of := usable
		if len(zones) > 1 {
			of = keep(usable, func(m *member) bool { return m.zone == z.name })
		}
		if size > 0 {
			of = first(of, max(int(math.Ceil(float64(size)*z.share)), min(size, minSubset)))
		}
		t.local = t.local || (z.name != "" && z.name == b.rules.Zones.Local) // it comes first
		begin := len(t.candidates)
		t.candidates = b.candidates(t.candidates, of, p)
		key.zone = z.name
		t.groups = append(t.groups, b.group(key, t.candidates[begin:len(t.candidates):len(t.candidates)], nil))
		shares = append(shares, z.share)
	}
	t.local = t.local && len(t.groups) > 1 && !slices.ContainsFunc(t.groups, func(g group) bool { return g.estimator == nil })
	return t, shares
}

// zones returns the zones of a tier that have something available, with their
// shares of its traffic, the local one first; or one without a name for all.
func (b *builder) zones(p *tierPlan) []zoneLoad {
	if b.rules.Zones.Local == "" || p.inPanic {
		return []zoneLoad{{share: 1}}
	}
	zones := zonesOf(p.members, b.forgiven)
	if !b.rules.Zones.applies(zones, len(p.members)) {
		return []zoneLoad{{share: 1}}
	}
	b.rules.Zones.divideZones(zones)
	zones = slices.DeleteFunc(zones, func(z zoneLoad) bool { return z.available == 0 })
	slices.SortStableFunc(zones, func(x, y zoneLoad) int {
		return compareBool(x.name != b.rules.Zones.Local, y.name != b.rules.Zones.Local)
	})
	return zones
}

// zonesOf returns the zones that the members are in, and what is available there.
func zonesOf(members []*member, forgiven node.Reasons) []zoneLoad {
	var zones []zoneLoad
	at := 0
	for _, m := range members {
		if at >= len(zones) || zones[at].name != m.zone {
			at = slices.IndexFunc(zones, func(z zoneLoad) bool { return z.name == m.zone })
			if at < 0 {
				at = len(zones)
				zones = append(zones, zoneLoad{name: m.zone})
			}
		}
		if m.reasons&^forgiven == 0 {
			zones[at].available += m.weight
		}
	}
	return zones
}

// candidates appends members of a tier as what algorithms see.
func (b *builder) candidates(to []Candidate, members []*member, of *tierPlan) []Candidate {
	ramps := of.warming > 0 && b.keyer == nil
	least := of.leastRamp()
	for _, m := range members {
		weight := m.weight
		if ramps && m.warming {
			weight *= max(b.ramp(m), least)
		}
		to = append(to, Candidate{m.node, m.observer, weight})
	}
	return to
}

// leastRamp returns the part of their weight that members in slow start have at
// least, so that the others do not get more than twice their share: where most are
// new, few would have to carry all.
func (p *tierPlan) leastRamp() float64 {
	if p.warming == 0 {
		return 0
	}
	return (p.warming - p.available/2) / p.warming
}

// ramp returns the part of its weight that a member in slow start has.
func (b *builder) ramp(m *member) float64 {
	age := b.now.Sub(m.since)
	if b.rules.SlowStart.Window <= 0 || age >= b.rules.SlowStart.Window {
		m.warming = false
		return 1
	}
	b.warming = true
	return b.rules.SlowStart.factor(age)
}

func (b *builder) group(key groupKey, candidates, away []Candidate) group {
	g := group{candidates: candidates}
	g.picker = b.pool.builder.Build(Group{
		Candidates: candidates, Unavailable: away, Previous: b.pool.pickers[key], Now: b.now,
		limited: b.rules.MaxInFlight > 0, pins: b.pool.pins, born: b.pool.born,
	})
	g.estimator, _ = g.picker.(estimator)
	b.pickers[key] = g.picker
	return g
}

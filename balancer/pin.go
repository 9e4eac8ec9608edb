package balancer

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Pin is where an attempt belongs, because of a session. Its ID is an endpoint's ID, or the address
// of one without. The endpoint is picked, whatever the algorithm, the priorities, the zones and the
// subset say, as long as it can serve, and also if it is draining, a standby, asked to be left alone
// for a while, or waits for its first probe: then it gets no new sessions, but keeps its own. Where
// it cannot, one is picked as without a pin, or if the pin is Strict, the pick fails with an error that
// wraps [ErrPinned]. Panic.Reject does not keep it from an endpoint that is well.
type Pin = node.Pin

// ErrPinned is what the error of a pick with a strict [Pin] wraps if that endpoint cannot be picked.
var ErrPinned = node.ErrPinned

// strict reports whether the attempt belongs to one endpoint and no other.
func (i *Info) strict() bool { return i.Pin != nil && i.Pin.Strict }

// keeps are the reasons for which an endpoint gets no new sessions and keeps its own.
const keeps = node.Draining | node.Withdrawn | node.Pending | node.Parked

// A directory finds endpoints by their identity.
type directory map[string]*home

// home is an endpoint in a directory.
type home struct {
	Candidate
	member *member
	rank   rank
	next   *home // another one with the same identity
}

// beginPins makes snapshots have a directory from now on. It reports whether there is one that has.
func (p *Pool) beginPins() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.isReady() { // the first set of endpoints comes with one
		p.pins = true
		return false
	}
	if !p.pins { // or another attempt was faster
		p.pins = true
		p.publishLocked(p.now(), nil)
	}
	return true
}

// directoryLocked returns that of the members, nil if nobody wants one.
func (p *Pool) directoryLocked() directory {
	if p.directory == nil && p.pins {
		p.directory = make(directory, len(p.members))
		for _, m := range p.members {
			id := m.identity()
			p.directory[id] = &home{
				Candidate: Candidate{m.node, m.observer, m.weight}, member: m, rank: m.rank, next: p.directory[id],
			}
		}
	}
	return p.directory
}

// pinned returns the endpoint to which the attempt is pinned, and whether it is picked although its health
// is in doubt. It returns nil if it cannot be picked, with an error if no other will do.
func (s *snapshot) pinned(from *cluster, info *Info) (_ *Candidate, must bool, _ error) {
	for at := s.directory[info.Pin.ID]; at != nil; at = at.next {
		if must, why := s.fits(at, from, info); why == fitting {
			return &at.Candidate, must, nil
		}
	}
	if !info.Pin.Strict || s.directory == nil { // without one, the cluster says why
		return nil, false, nil
	}
	return nil, false, s.pinnedElsewhere(from, info)
}

// catchUpPinned makes the next snapshot see the reasons for which the endpoint of a pin cannot be picked: it may
// be one of so many that their health is ignored. It reports whether there is another snapshot.
func (p *Pool) catchUpPinned(s *snapshot, info *Info) bool {
	for at := s.directory[info.Pin.ID]; at != nil; at = at.next {
		if at.node.Reasons()&^keeps != 0 {
			p.catchUp(at.member)
		}
	}
	return p.snapshot.Load() != s
}

// fits reports whether an endpoint can be picked for a pin, or why it cannot, and whether its health has
// to be ignored for that.
func (s *snapshot) fits(at *home, from *cluster, info *Info) (must bool, why misfit) {
	n := at.node
	reasons := n.Reasons()
	among, onRoute := s.among(n, from, info)
	must = reasons&^keeps != 0
	switch {
	case !onRoute:
		return must, offRoute
	case must && (reasons&(node.Removed|node.ForcedOpen) != 0 || !among.ignoresHealth(at.rank)):
		return must, unavailable
	case !info.Pin.Strict && slices.Contains(info.Tried, n.Serial()):
		return must, tried
	case reasons&(node.Draining|node.Withdrawn) != 0 && at.member.drained(info):
		return must, drained
	case n.Full():
		return must, full
	}
	return must, fitting
}

// misfit is why an endpoint cannot be picked for a pin.
type misfit uint8

const (
	fitting misfit = iota
	unavailable
	offRoute
	tried
	drained
	full
)

// misfit returns why the endpoint of a pin cannot be picked, and that home; nil if there is none. Of several,
// one that is well counts.
func (s *snapshot) misfit(from *cluster, info *Info) (misfit, *home) {
	first := s.directory[info.Pin.ID]
	for at := first; at != nil; at = at.next {
		if _, why := s.fits(at, from, info); why != unavailable {
			return why, at
		}
	}
	return unavailable, first
}

// describe says why in a few words.
func (w misfit) describe(at *home) string {
	switch w {
	case offRoute:
		return "not on the request's route"
	case tried:
		return "attempt failed"
	case drained:
		return "drained"
	case full:
		return "saturated"
	case unavailable:
		if at != nil {
			if r := at.node.Reasons() &^ keeps; r&node.Removed == 0 && r != 0 {
				return r.String()
			}
		}
	case fitting: // it is again
		return "unavailable for a moment"
	}
	return "removed"
}

// pinnedElsewhere is the error of a strict pin.
func (s *snapshot) pinnedElsewhere(from *cluster, info *Info) error {
	why, at := s.misfit(from, info)
	if why == full {
		return errNoRoomPinned
	}
	if at != nil && at.node.Gate() != nil {
		if _, refusal := at.node.Gate().Refusal(); refusal != nil {
			return &NoEndpointsError{Cause: fmt.Errorf("%w: %w", ErrPinned, refusal)}
		}
	}
	return &NoEndpointsError{Cause: fmt.Errorf("%w: %s", ErrPinned, why.describe(at))}
}

// missed says in a few words why a pick did not go to its pin, "" if it has none.
func (p *Pool) missed(info *Info) string {
	if info.Pin == nil {
		return ""
	}
	s := p.snapshot.Load()
	from, _ := s.cluster(info)
	why, at := s.misfit(from, info)
	return why.describe(at)
}

// among returns the endpoints to which a route leads that leads to this one: from, where the request
// goes without a pin, or where it asks to go, although nobody is there who takes new sessions.
func (s *snapshot) among(n *node.Node, from *cluster, info *Info) (_ *cluster, onRoute bool) {
	for i := range s.routes {
		r := &s.routes[i]
		value, applies := r.wish(info.Request)
		has := n.Published().Attributes[r.Attribute]
		switch {
		case !applies:
			continue
		case has == value:
			return r.values[value], true
		}
		return from, from != nil && (from == s.main || (from == r.values[r.Default] && has == r.Default))
	}
	return s.main, true
}

// ignoresHealth reports whether the endpoints of a rank are picked whatever is said of their health.
func (c *cluster) ignoresHealth(r rank) bool {
	if c == nil {
		return false
	}
	for i := range c.tiers {
		if c.tiers[i].rank == r {
			return c.tiers[i].ill
		}
	}
	return false
}

// noteLeaving notes since when a member has been about to leave. It is called whenever the reasons
// have changed.
func (m *member) noteLeaving(now time.Time) {
	switch leaving := m.reasons&(node.Draining|node.Withdrawn) != 0; {
	case !leaving:
		m.leaving.Store(0)
	case m.leaving.Load() == 0:
		m.leaving.Store(int64(now.Sub(m.pool.born)) + 1)
	}
}

// drained reports whether a member that is about to leave has had the time that its sessions are given.
func (m *member) drained(info *Info) bool {
	since := m.leaving.Load()
	return info.Pin.DrainFor > 0 && since != 0 && !info.Now.IsZero() &&
		info.Now.Sub(m.pool.born)-time.Duration(since-1) >= info.Pin.DrainFor
}

// considerate makes pinned attempts count where an algorithm does not look at load: an endpoint that got
// many attempts of late gives its turn to another one, drawn at random, if that got clearly fewer in
// relation to its weight. It is the choice of two, which needs no more to even loads out. nginx takes a
// turn from a server for each request of a sticky session instead; as soon as every server has more of these
// than there are new sessions, all have lost all turns, and it makes no difference any more.
type considerate struct {
	Picker
	candidates []Candidate
	rand       func() uint64
	born       time.Time // of the pool
}

const (
	// recentTick is after which time attempts count half.
	recentTick = 8 * time.Second
	// clearly is by which factor the load of another endpoint must be lower.
	clearly = 1.25
)

// tickAt returns the tick of an instant, 0 if that is not known.
func tickAt(now, born time.Time) uint32 {
	if now.Before(born) {
		return 0
	}
	return uint32(now.Sub(born) / recentTick)
}

// Pick implements [Picker].
func (p *considerate) Pick(info Info) int {
	i := p.Picker.Pick(info)
	c, tick := &p.candidates[i], tickAt(info.Now, p.born)
	load, n := c.node.Recent(tick), len(p.candidates)
	if load < 2 || n == 1 {
		return i
	}
	further, _ := bits.Mul64(p.rand(), uint64(n-1))
	k := (i + 1 + int(further)) % n
	if other := &p.candidates[k]; (clearly*other.node.Recent(tick)+1)*c.weight < load*other.weight {
		return k
	}
	return i
}

// consider makes the picker of a group count what pinned attempts its endpoints got, if there are such.
func (g *Group) consider(p Picker, rand func() uint64) Picker {
	if !g.pins {
		return p
	}
	return &considerate{p, g.Candidates, rand, g.born}
}

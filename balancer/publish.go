package balancer

import (
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// SetHealthy says whether an endpoint is healthy, for checks of the user's own, which stand beside
// those of Config.Health. It reports false if there is no such endpoint. One that joins is healthy.
func (p *Pool) SetHealthy(key discovery.Key, healthy bool) bool {
	p.mu.Lock()
	m := p.byKey[key]
	p.mu.Unlock()
	if m == nil {
		return false
	}
	if healthy {
		m.node.Clear(node.Marked)
	} else {
		m.node.Mark(node.Marked)
	}
	return true
}

// changed is told that the reasons of members have changed, by whoever has
// changed them. One goroutine at a time publishes; what comes meanwhile it takes
// along, so that a wave of changes costs few snapshots.
func (p *Pool) changed(members []*member) {
	p.marks.Lock()
	p.marked = append(p.marked, members...)
	if p.marking {
		p.marks.Unlock()
		return
	}
	p.marking = true
	for len(p.marked) > 0 {
		marked := p.marked
		p.marked = nil
		p.marks.Unlock()
		p.apply(marked)
		p.marks.Lock()
	}
	p.marking = false
	p.marks.Unlock()
	p.tell()
}

// apply makes picks see the reasons of these members.
func (p *Pool) apply(marked []*member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now := p.now()
	different := false
	for _, m := range marked {
		different = (!m.left && p.seeLocked(m, now)) || different
	}
	if different {
		p.publishLocked(now, &Change{})
	}
}

// seeLocked takes over the reasons of a member, and reports whether they are others now.
func (p *Pool) seeLocked(m *member, now time.Time) (different bool) {
	reasons := m.node.Reasons()
	if m.reasons != reasons && reasons == 0 && m.wasAway(m.reasons) && (m.reasons == node.Parked || !p.panics || p.rules.Panic.Reject) {
		m.since, m.warming = now, true // it has been away: slowly
	}
	different = m.reasons != reasons
	m.reasons = reasons
	m.noteLeaving(now)
	return different
}

// catchUp makes picks see the reasons of a member now, although whoever changed them has
// not told the pool yet.
func (p *Pool) catchUp(m *member) { p.apply([]*member{m}) }

// publishLocked makes picks see the members. A change, if there is one, is told
// later.
func (p *Pool) publishLocked(now time.Time, change *Change) {
	s := &snapshot{limited: p.rules.MaxInFlight > 0, queue: p.rules.Queue, rand: p.rand}
	s.counted = s.limited || p.counts
	b := &builder{pool: p, rules: p.rules, now: now, pickers: make(map[groupKey]Picker, len(p.pickers))}
	s.keyer, _ = p.builder.(Keyer)
	b.keyer = s.keyer
	if z := p.rules.Zones; z.Local != "" {
		s.slower = z.Tolerance.Seconds()
	}
	b.build(s, p.members)
	p.pickers = b.pickers
	s.directory = p.directoryLocked()
	s.shorten()
	p.snapshot.Store(s)

	panics := p.panics
	p.panics = b.panics
	p.published, p.lasts = now, p.lastsFor(b.warming)
	p.armRebuildLocked(now)
	if p.cfg.OnChange == nil || (change == nil && panics == p.panics) {
		return
	}
	if change == nil {
		change = &Change{}
	}
	change.Size, change.Panic = len(p.members), p.panics
	for _, m := range p.members {
		if m.reasons == 0 {
			change.Available++
		}
	}
	p.changes.Add(*change)
}

// lastsFor returns after which time a snapshot is stale: weights grow, pickers age.
func (p *Pool) lastsFor(warming bool) time.Duration {
	lasts := time.Duration(math.MaxInt64)
	if warming {
		lasts = p.rules.SlowStart.step()
	}
	if r, ok := p.builder.(Refresher); ok && len(p.members) > 0 {
		lasts = min(lasts, max(r.RefreshInterval(), time.Millisecond)) // never a busy loop
	}
	return lasts
}

// armRebuildLocked sees to it that the snapshot does not get stale, and that the
// traffic is looked at.
func (p *Pool) armRebuildLocked(now time.Time) {
	if p.rebuild != nil {
		p.rebuild.Stop()
		p.rebuild = nil
	}
	wait := p.lasts
	if wait < math.MaxInt64 {
		wait = max(p.published.Add(wait).Sub(now), 0)
	}
	if p.sizes() {
		if !p.sizer.looking {
			p.attemptsLocked() // those before count no more
			p.sizer.start(now)
		}
		wait = min(wait, max(p.sizer.next().Sub(now), 0))
	}
	if wait < math.MaxInt64 {
		p.rebuild = p.clock.AfterFunc(wait, p.refreshSnapshot)
	}
}

// refreshSnapshot builds anew what time has made stale.
func (p *Pool) refreshSnapshot() {
	p.mu.Lock()
	if !p.closed {
		now := p.now()
		stale := now.Sub(p.published) >= p.lasts // the others of its causes are due
		if p.sizes() && !now.Before(p.sizer.next()) {
			stale = p.resizeLocked(now) || stale
		}
		if stale {
			p.publishLocked(now, nil)
		} else {
			p.armRebuildLocked(now)
		}
	}
	p.mu.Unlock()
	p.tell()
}

// sizes reports whether the size of the subset follows the traffic.
func (p *Pool) sizes() bool {
	_, keyed := p.builder.(Keyer)
	return p.rules.Subset.Size == 0 && p.learns && !keyed && len(p.members) > minSubset
}

// resizeLocked looks at the traffic, and reports whether the subset changes.
func (p *Pool) resizeLocked(now time.Time) (changed bool) {
	before := p.sizer.size
	p.sizer.look(now, p.attemptsLocked(), len(p.members))
	if p.sizer.size == before {
		return false
	}
	p.orderLocked()
	return true
}

// attemptsLocked returns how many attempts there were since it was last asked.
func (p *Pool) attemptsLocked() uint64 {
	attempts := uint64(0)
	for _, m := range p.members {
		picks := m.node.Picks()
		attempts += (picks - m.picks) % node.PicksWrap
		m.picks = picks
	}
	return attempts
}

// subsetSize returns how many endpoints of each priority are used; 0 is all.
func (p *Pool) subsetSize(r Rules) int {
	switch {
	case r.Subset.Size > 0:
		return r.Subset.Size
	case p.sizes():
		return p.sizer.size
	}
	return 0
}

// tell lets those go who wait for what has just been published, and calls the hook
// with the changes that have not been told.
func (p *Pool) tell() {
	p.serve()
	p.changes.Flush()
}

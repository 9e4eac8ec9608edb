package health

import (
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// census is how many endpoints there are, and how many of them are ejected: by number and by
// weight.
type census struct {
	endpoints int
	weight    float64
	out       int
	outWeight float64
	stale     bool      // who is there has changed
	at        time.Time // when they were counted
}

// censusLasts bounds how often endpoints are counted: what nobody tells of, such as a breaker that
// somebody forces open, makes a difference that much later.
const censusLasts = time.Second

// room reports whether so many more endpoints of so much weight may be ejected.
func (c *census) room(endpoints int, weight, most float64) bool {
	const rounding = 1 + 1e-9
	return float64(c.out+endpoints) <= math.Floor(float64(c.endpoints)*most*rounding) &&
		c.outWeight+weight <= c.weight*most*rounding
}

// back counts an endpoint that is ejected no longer.
func (c *census) back(weight float64) {
	c.out = max(c.out-1, 0) // one that was forced open may not have been counted
	if c.outWeight -= weight; c.out == 0 {
		c.outWeight = 0 // no sum of rounding errors
	}
}

// countLocked counts the endpoints that are not leaving.
func (m *Monitor) countLocked() {
	c := census{at: m.now()}
	for _, w := range m.watches {
		if w.leaving() {
			continue
		}
		c.endpoints++
		c.weight += w.weightNow()
		if w.cause != "" {
			c.out++
			c.outWeight += w.weightNow()
		}
	}
	m.census = c
}

// leaving reports whether the endpoint does not count, because it leaves.
func (w *watch) leaving() bool { return w.node.Reasons()&node.Leaving != 0 }

// weightNow returns the weight of the endpoint. It is bounded, so that sums are finite.
func (w *watch) weightNow() float64 { return min(w.node.Published().EffectiveWeight(), 1e100) }

// trip ejects an endpoint because of a row of failures.
func (m *Monitor) trip(w *watch, cause Cause) {
	m.mu.Lock()
	defer m.unlock()
	if !m.closed {
		m.ejectLocked(w, cause)
	}
}

// ejectLocked keeps traffic away from an endpoint for a while, unless too many are ejected already.
func (m *Monitor) ejectLocked(w *watch, cause Cause) {
	o := &m.settings.Load().outlier
	if w.gone || w.cause != "" || o.Disabled || w.leaving() {
		return
	}
	if m.census.stale || m.now().Sub(m.census.at) > censusLasts {
		m.countLocked()
	}
	weight := w.weightNow()
	if !m.census.room(1, weight, o.MaxEjected) {
		return
	}
	m.ejected++
	m.census.out++
	m.census.outWeight += weight
	w.level = min(w.level+1, o.longest())
	d := o.lasts(w.level, m.chance())
	w.number++
	w.cause, w.was, w.rise = cause, cause, 0
	w.until = m.clock.Now().Add(d)
	w.shadow = o.Shadow || (o.Enforce < 1 && m.chance() >= o.Enforce)
	number := w.number
	w.back = m.clock.AfterFunc(d, func() { m.comeBack(w, number) })
	if !w.shadow {
		w.since.Store(never)
		m.setLocked(w, node.Ejected, node.Ejected)
	}
	m.changes.Add(Change{
		Time: m.clock.Now(), Endpoint: w.node.Endpoint(), Kind: Eject, Cause: cause, Until: w.until, Shadow: w.shadow,
	})
}

// comeBack ends an ejection whose time is over.
func (m *Monitor) comeBack(w *watch, number uint64) {
	m.mu.Lock()
	defer m.unlock()
	if !w.gone && !m.closed && w.number == number {
		m.returnLocked(w, m.now())
	}
}

// returnLocked ends an ejection, if there is one. What was counted before counts no more.
func (m *Monitor) returnLocked(w *watch, now time.Time) {
	if w.cause == "" {
		return
	}
	w.back.Stop()
	m.ejected--
	if !w.leaving() {
		m.census.back(w.weightNow())
	}
	change := Change{Time: m.clock.Now(), Endpoint: w.node.Endpoint(), Kind: Return, Cause: w.cause, Until: w.until, Shadow: w.shadow}
	w.cause, w.until, w.shadow, w.back = "", time.Time{}, false, nil
	w.restart(m.at(now))
	m.setLocked(w, node.Ejected, 0)
	m.changes.Add(change)
}

// trim lets endpoints come back that are too many to be ejected since others have left.
func (m *Monitor) trim() {
	m.mu.Lock()
	defer m.unlock()
	m.trimming = nil
	if !m.closed {
		m.trimLocked()
	}
}

// trimLocked counts the endpoints, and lets those that are too many to be ejected come back: those
// whose time is over first.
func (m *Monitor) trimLocked() {
	m.countLocked()
	most := m.settings.Load().outlier.MaxEjected
	if m.census.room(0, 0, most) {
		return
	}
	var out []*watch
	for _, w := range m.watches {
		if w.cause != "" && !w.leaving() {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b *watch) int { return a.until.Compare(b.until) })
	for _, w := range out {
		if m.census.room(0, 0, most) {
			break
		}
		m.returnLocked(w, m.now())
	}
}

// trimSoonLocked does so in a moment, once for all that has changed meanwhile.
func (m *Monitor) trimSoonLocked() {
	m.census.stale = true
	if m.ejected > 0 && m.trimming == nil && !m.closed {
		m.trimming = m.clock.AfterFunc(0, m.trim)
	}
}

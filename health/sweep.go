package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// candidate is an endpoint that may be worse than the others.
type candidate struct {
	*watch
	counted
	tier *tier
}

// tier is the endpoints of one priority, among which one is compared with the others.
type tier struct {
	rank
	sum    counted    // of all their requests
	tested int        // how many had enough requests to be judged by deviation
	rated  int        // so, by failure rate
	slow   []slowness // by what time it takes the endpoints to answer
}

// rank names a tier.
type rank struct {
	standby  bool
	priority int
}

func rankOf(e *discovery.Endpoint) rank {
	if e.Standby {
		return rank{standby: true}
	}
	return rank{priority: e.Priority}
}

// sweep looks at what was counted since the last time, and ejects those that are worse than they
// should be. It happens every Interval as long as there is traffic.
func (m *Monitor) sweep() {
	m.mu.Lock()
	defer m.unlock()
	m.sweepLocked()
}

func (m *Monitor) sweepLocked() {
	m.sweeping = nil
	if m.closed {
		return
	}
	now := m.now()
	set := m.settings.Load()
	o := &set.outlier
	defer func() { // last: until then, requests need not tell that they are there
		if set.looks() && m.busy.Swap(false) {
			m.traffic = now
			m.sweepAfterLocked(o.Interval - m.now().Sub(now))
		}
	}()
	if o.Disabled {
		return
	}
	m.trimLocked()
	tiers := m.collectLocked(o)
	m.judgeRatesLocked(o, tiers)
	for _, t := range tiers {
		m.judgeSlownessLocked(t, o)
	}
	m.creditLocked()
	m.swept = m.at(now)
}

// sweepAfterLocked sets the timer of the next sweep.
func (m *Monitor) sweepAfterLocked(d time.Duration) {
	if m.sweeping != nil {
		m.sweeping.Stop()
	}
	m.sweeps++
	which := m.sweeps
	m.sweeping = m.clock.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.unlock()
		if which == m.sweeps { // else it was too late to stop it
			m.sweepLocked()
		}
	})
}

// rated reports whether so many failures are too many whatever the others do.
func (c counted) rated(o *Outlier) bool {
	return c.requests >= rateMinRequests && c.rate() >= o.FailureRate
}

// collectLocked takes what was counted, and notes who may be worse than the others.
func (m *Monitor) collectLocked(o *Outlier) (tiers []*tier) {
	m.candidates = m.candidates[:0]
	var t *tier
	for _, w := range m.watches {
		c := w.interval()
		if w.cause != "" {
			continue // it is not in service, or would not be
		}
		if e := w.node.Published(); t == nil || t.rank != rankOf(e) {
			t = tierOf(&tiers, rankOf(e))
		}
		t.sum.requests += c.requests
		t.sum.failures += c.failures
		if c.requests >= deviationMinRequests {
			t.tested++
		}
		if c.requests >= rateMinRequests {
			t.rated++
		}
		if c.failures >= deviationMinFailures || (o.FailureRate > 0 && c.rated(o)) {
			m.candidates = append(m.candidates, candidate{w, c, t})
		}
		judged := true
		if l := w.latencies.Load(); l != nil && o.SlowerBy > 0 {
			var median time.Duration
			if median, judged = l.turn(c.requests); judged {
				t.slow = append(t.slow, slowness{w, median})
			}
		}
		judged = judged || w.was != SlowerBy // else too few answers say nothing
		if w.level > 0 && judged && c.requests > 2*c.failures && w.since.Load() <= int64(m.swept) {
			m.credited = append(m.credited, w)
		}
	}
	return tiers
}

// tierOf returns the tier of a rank.
func tierOf(tiers *[]*tier, r rank) *tier {
	for _, t := range *tiers {
		if t.rank == r {
			return t
		}
	}
	t := &tier{rank: r}
	*tiers = append(*tiers, t)
	return t
}

// judgeRatesLocked ejects those that fail too often. The worst comes first, and whoever is found out
// is not among the others with which the next ones are compared.
func (m *Monitor) judgeRatesLocked(o *Outlier, tiers []*tier) {
	tests := 0 // each may be a false alarm
	for _, t := range tiers {
		tests += t.tested
	}
	slices.SortStableFunc(m.candidates, func(a, b candidate) int { return cmp.Compare(b.rate(), a.rate()) })
	for _, c := range m.candidates {
		others := counted{c.tier.sum.requests - c.requests, c.tier.sum.failures - c.failures}
		switch {
		case o.Deviation != Off && deviates(c.counted, others, o.Deviation, o.FalseAlarms/float64(tests)):
			c.tier.sum = others
			m.ejectLocked(c.watch, Deviation)
		case o.FailureRate > 0 && c.rated(o) && c.tier.rated >= rateMinEndpoints:
			m.ejectLocked(c.watch, FailureRate)
		}
	}
	clear(m.candidates) // nobody is kept who has left
}

// creditLocked takes a step back for those that have served well all the time since the last sweep:
// their next ejection is shorter.
func (m *Monitor) creditLocked() {
	for _, w := range m.credited {
		if w.cause == "" {
			w.level--
		}
	}
	clear(m.credited)
	m.credited = m.credited[:0]
}

// slowness is what time it takes an endpoint to answer.
type slowness struct {
	*watch
	median time.Duration
}

// judgeSlownessLocked ejects those that take much longer than most. The slowest comes first.
func (m *Monitor) judgeSlownessLocked(t *tier, o *Outlier) {
	if len(t.slow) < slowMinEndpoints {
		return
	}
	slices.SortStableFunc(t.slow, func(a, b slowness) int { return cmp.Compare(b.median, a.median) })
	usual := t.slow[len(t.slow)/2].median // of the faster half, if they are even
	for _, s := range t.slow {
		if s.median-usual <= o.SlowerByTime || float64(s.median) <= o.SlowerBy*float64(usual) {
			return
		}
		m.ejectLocked(s.watch, SlowerBy)
	}
}

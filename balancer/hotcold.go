package balancer

import (
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// HotCold picks the endpoint that has just said that it is fast and not too
// busy. Use it where endpoints report how many requests they work on and how
// long those take (package orca), and many clients share them: then each client
// sees too little of an endpoint to judge it, and what the endpoint says is the
// only fresh news. Where one client sends most of an endpoint's requests,
// [PeakEWMA] knows as much and needs no reports.
//
// The rule is the hot-cold lexicographic one of Prequal (Wydrowski et al., NSDI
// 2024), over reports that come with responses, without probes. Each is an entry
// in a small pool and good for one pick. An entry is hot if its endpoint worked
// on more requests than most of the recent reports say, as set by Quantile. The
// cold one with the lowest latency is picked, and if all are hot, the one with
// the fewest requests. Entries leave the pool when they are used, too old, or the
// oldest where another needs the place; Prequal removes some besides, which
// leaves too few where there are no probes. What the paper does not have:
//
//   - with fewer than two entries, Fallback picks, which learns from all answers;
//   - a response that failed removes the entries of its endpoint, so that failing
//     fast attracts nothing;
//   - so does one that says that the endpoint is draining.
//
// A client with few requests at a time works with the few endpoints that it has
// heard of; others come in through Fallback when entries get too old. Weights of
// endpoints count in Fallback only. The endpoints are believed: one that
// understates its load gets more. All picks and answers of a pool look at the
// same few words, which many processors at a time will feel.
type HotCold struct {
	// PoolSize is how many entries are kept. Zero means 16. From 2 to 64. More
	// help clients with very many requests; fewer are fresher.
	PoolSize int

	// MaxAge is how old an entry may be. Zero means 1s. At most a day.
	MaxAge time.Duration

	// Quantile is the share of recent reports whose numbers of requests in
	// flight are not hot. Zero means 0.84, as in Prequal. Above 0 and below 1.
	// Lower goes more by requests in flight, higher more by latency.
	Quantile float64

	// Fallback picks while there are too few entries.
	Fallback PeakEWMA
}

const (
	defaultPoolSize = 16
	maxPoolSize     = 64
	defaultMaxAge   = time.Second
	defaultQuantile = 0.84
	// fewestEntries is how many it takes to have a choice.
	fewestEntries = 2
	// hotColdTries bounds how often a pick or an answer looks again because
	// another one was faster.
	hotColdTries = 4
)

// NewBuilder implements [Algorithm].
func (a HotCold) NewBuilder(env Env) (Builder, error) {
	var errs field.Errors
	errs.Check(a.PoolSize == 0 || a.PoolSize >= 2 && a.PoolSize <= maxPoolSize, "PoolSize", a.PoolSize, "must be between 2 and 64")
	errs.Check(a.MaxAge >= 0 && a.MaxAge <= longestAge, "MaxAge", a.MaxAge, "must not be negative, and at most a day")
	errs.Check(a.Quantile >= 0 && a.Quantile < 1, "Quantile", a.Quantile, "must be between 0 and 1")
	fallback, err := a.Fallback.NewBuilder(env)
	errs.Under("Fallback", err)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	if a.PoolSize == 0 {
		a.PoolSize = defaultPoolSize
	}
	if a.MaxAge == 0 {
		a.MaxAge = defaultMaxAge
	}
	if a.Quantile == 0 {
		a.Quantile = defaultQuantile
	}
	return &hotColdShared{
		ticks: ticks{env.Now}, fallback: fallback,
		maxAge: uint32(a.MaxAge / tick),
		pool:   hotColdPool{slots: make([]hotColdSlot, a.PoolSize)},
		recent: rifWindow{quantile: a.Quantile},
	}, nil
}

// hotColdShared is what the endpoints of one pool have in common, and its
// builder.
type hotColdShared struct {
	ticks
	reports
	fallback Builder
	maxAge   uint32 // ticks
	lastID   uint32 // only Observer uses it
	pool     hotColdPool
	recent   rifWindow
}

func (s *hotColdShared) Observer(e discovery.Endpoint, previous Observer) Observer {
	if old, ok := previous.(*hotColdState); ok {
		previous = old.fallback
	}
	s.lastID++
	return &hotColdState{shared: s, id: s.lastID, fallback: s.fallback.Observer(e, previous)}
}

func (s *hotColdShared) Build(g Group) Picker {
	p := &hotColdPicker{shared: s, candidates: g.Candidates, index: newIDIndex(len(g.Candidates))}
	g.Candidates = slices.Clone(g.Candidates) // as Fallback is to see them
	for i := range g.Candidates {
		state := g.Candidates[i].observer.(*hotColdState)
		g.Candidates[i].observer = state.fallback
		p.index.add(state.id, i)
	}
	p.fallback = s.fallback.Build(g).(estimator)
	return p
}

// hotColdPicker picks within a group.
type hotColdPicker struct {
	shared     *hotColdShared
	candidates []Candidate
	index      idIndex
	fallback   estimator
}

// Pick uses the best entry. Where others take what it finds, again and again, very
// many pick at the same time, and Fallback does as well.
func (p *hotColdPicker) Pick(info Info) int {
	for range hotColdTries {
		best, ok := p.best(info)
		if !ok {
			break
		}
		if p.shared.pool.take(best) {
			return p.index.find(best.id)
		}
	}
	return p.fallback.Pick(info)
}

// estimate implements [estimator].
func (p *hotColdPicker) estimate(info Info, i int, fades bool) float64 {
	return p.fallback.estimate(info, i, fades)
}

// best returns the entry to use, if there are enough. Those of endpoints that are
// not in this group, or not for this call, are left to others.
func (p *hotColdPicker) best(info Info) (best hotColdEntry, ok bool) {
	now, hottest := p.shared.at(info.Now), p.shared.recent.hottest.Load()
	count := 0
	for i := range p.shared.pool.slots {
		e := p.shared.pool.read(i)
		if e.number == 0 || since(e.at, now) >= p.shared.maxAge {
			continue
		}
		if c := p.index.find(e.id); c < 0 || !p.candidates[c].Usable(info) {
			continue
		}
		if count == 0 || e.before(best, hottest) {
			best = e
		}
		count++
	}
	return best, count >= fewestEntries
}

// hotColdState is what is kept of one endpoint, besides its entries.
type hotColdState struct {
	shared   *hotColdShared
	id       uint32
	fallback Observer
}

// Picked implements [Observer].
func (s *hotColdState) Picked(now time.Time) uint32 { return s.fallback.Picked(now) }

// Answered implements [Observer].
func (s *hotColdState) Answered(token uint32, a outcome.Answer) {
	s.fallback.Answered(token, a)
	switch {
	case a.Class.Good():
		if report, ok := s.shared.read(a.Header); ok {
			s.reported(report, s.shared.at(a.Now))
		}
	case a.Class.Bad() || a.Class == outcome.Overload:
		s.shared.pool.forget(s.id)
	}
}

func (s *hotColdState) reported(r orca.Report, now uint32) {
	switch {
	case r.Draining:
		s.shared.pool.forget(s.id)
	case r.Has(orca.InFlight | orca.Latency):
		rif := float32(min(r.InFlight, mostInFlight))
		s.shared.recent.add(rif)
		s.shared.pool.add(hotColdEntry{id: s.id, at: now, rif: rif, latency: float32(r.Latency.Seconds())})
	}
}

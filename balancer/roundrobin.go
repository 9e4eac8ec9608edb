package balancer

import (
	"math"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// RoundRobin picks the endpoints in turn, as often as their weights say. It
// starts at a random one, so that many clients started together do not march in
// step, and goes on where it was when endpoints come and go. It knows nothing of
// load: use it where all requests cost about the same, or where an even count of
// requests is what you want.
//
// The schedule is the static stride of grpc-go. Each turn passes over all
// endpoints; one with half the weight of the heaviest takes part in every other
// turn. All that picks share is one counter. Where one endpoint weighs much more
// than the mean, most turns would consist of passing over the others, so it is
// entered into the schedule several times, evenly spread: a pick then takes less
// than three steps on average, whatever the weights.
type RoundRobin struct{}

// NewBuilder implements [Algorithm].
func (RoundRobin) NewBuilder(env Env) (Builder, error) { return roundRobinBuilder{env.Rand}, nil }

type roundRobinBuilder struct{ rand func() uint64 }

func (roundRobinBuilder) Observer(discovery.Endpoint, Observer) Observer { return nil }

func (b roundRobinBuilder) Build(g Group) Picker {
	turn := turnOf(g.Previous, b.rand)
	if equalWeights(g.Candidates) {
		return g.consider(&roundRobinPicker{turn: turn, n: uint32(len(g.Candidates))}, b.rand)
	}
	return g.consider(newStride(g.Candidates, turn), b.rand)
}

// turn counts the picks of a group, whatever becomes of its endpoints. Every pick
// writes to it, so it shares its cache line with nothing.
type turn struct {
	atomic.Uint32
	_ [124]byte
}

// turnOf returns the turn of the picker before, or one that starts at random.
func turnOf(previous Picker, rand func() uint64) *turn {
	if c, ok := previous.(*considerate); ok {
		previous = c.Picker
	}
	if p, ok := previous.(interface{ turns() *turn }); ok {
		return p.turns()
	}
	t := &turn{}
	t.Store(uint32(rand()))
	return t
}

type roundRobinPicker struct {
	turn *turn
	n    uint32
}

func (p *roundRobinPicker) turns() *turn { return p.turn }

func (p *roundRobinPicker) Pick(Info) int { return int(p.turn.Add(1) % p.n) }

// stride is a schedule for unequal weights.
type stride struct {
	turn    *turn
	entries []strideEntry
}

func (p *stride) turns() *turn { return p.turn }

// strideEntry is one place of a candidate in the schedule.
type strideEntry struct {
	candidate uint32
	weight    uint32 // strideScale is the heaviest
}

const (
	strideScale = math.MaxUint16
	// strideOffset makes neighbours take part in different turns.
	strideOffset = math.MaxUint16 / 2
)

// Pick claims steps until one belongs to an entry that takes part in its turn.
// The heaviest entry takes part in each, so there always is one.
func (p *stride) Pick(Info) int {
	n := uint32(len(p.entries))
	for {
		step := p.turn.Add(1)
		place, turn := step%n, uint64(step/n)
		e := p.entries[place]
		phase := (uint64(e.weight)*turn + strideOffset*uint64(place)) % strideScale
		if phase >= strideScale-uint64(e.weight) {
			return int(e.candidate)
		}
	}
}

// newStride lays out the schedule. Where some candidates weigh more than twice the
// mean, it splits those into equal entries below that, and mixes all so that those
// of one candidate are evenly spread.
func newStride(candidates []Candidate, turn *turn) *stride {
	most := 2 * totalWeight(candidates) / float64(len(candidates))
	heaviest := 0.0
	for i := range candidates {
		heaviest = max(heaviest, candidates[i].weight)
	}
	s := &stride{turn: turn}
	if heaviest > most {
		s.entries = splitEntries(candidates, most)
		return s
	}
	s.entries = make([]strideEntry, len(candidates))
	for i := range candidates {
		s.entries[i] = newStrideEntry(uint32(i), candidates[i].weight/heaviest)
	}
	return s
}

// newStrideEntry returns an entry of a weight in relation to the heaviest.
func newStrideEntry(candidate uint32, weight float64) strideEntry {
	return strideEntry{candidate, uint32(max(weight*strideScale+0.5, 1))}
}

func splitEntries(candidates []Candidate, most float64) []strideEntry {
	parts := make([]stridePart, 0, len(candidates)*3/2+1)
	heaviest := 0.0
	for i := range candidates {
		k := math.Ceil(candidates[i].weight / most)
		first := float64(i) * math.Phi
		first -= math.Floor(first) // spread those with one entry too
		weight := candidates[i].weight / k
		for j := range int(k) {
			parts = append(parts, stridePart{(float64(j) + first) / k, weight, uint32(i)})
		}
		heaviest = max(heaviest, weight)
	}
	entries := make([]strideEntry, len(parts))
	for i, p := range sortParts(parts) {
		entries[i] = newStrideEntry(p.candidate, p.weight/heaviest)
	}
	return entries
}

// stridePart is an entry that has no place yet.
type stridePart struct {
	position  float64 // in 0..1
	weight    float64
	candidate uint32
}

// sortParts sorts by position. Positions are spread evenly, so it puts each part
// where it should about be and then corrects neighbours, in linear time: a pool
// may have very many endpoints, and each change of one sorts all.
func sortParts(parts []stridePart) []stridePart {
	n := len(parts)
	place := make([]uint32, n+1)
	slot := func(p stridePart) int { return min(int(p.position*float64(n)), n-1) }
	for _, p := range parts {
		place[slot(p)+1]++
	}
	for i := range n {
		place[i+1] += place[i]
	}
	sorted := make([]stridePart, n)
	for _, p := range parts {
		at := &place[slot(p)]
		sorted[*at] = p
		*at++
	}
	for i := 1; i < n; i++ {
		for k := i; k > 0 && sorted[k].position < sorted[k-1].position; k-- {
			sorted[k], sorted[k-1] = sorted[k-1], sorted[k]
		}
	}
	return sorted
}

package balancer

import (
	"math"
	"slices"
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
func (RoundRobin) NewBuilder(env Env) (Builder, error) {
	b := &roundRobinBuilder{}
	b.turn.Store(uint32(env.Rand()))
	return b, nil
}

type roundRobinBuilder struct {
	turn atomic.Uint32 // survives every change of the endpoints
	_    [124]byte     // what every pick writes to shares its cache line with nothing
}

func (*roundRobinBuilder) Observer(discovery.Endpoint, Observer) Observer { return nil }

func (b *roundRobinBuilder) Build(candidates []Candidate) Picker {
	if equalWeights(candidates) {
		return &roundRobinPicker{turn: &b.turn, n: uint32(len(candidates))}
	}
	return newStride(candidates, &b.turn)
}

type roundRobinPicker struct {
	turn *atomic.Uint32
	n    uint32
}

func (p *roundRobinPicker) Pick(Info) int { return int(p.turn.Add(1) % p.n) }

// stride is a schedule for unequal weights.
type stride struct {
	turn    *atomic.Uint32
	entries []strideEntry
}

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

// newStride splits each candidate that weighs more than twice the mean into
// equal entries below that, and lays all entries out so that those of one
// candidate are evenly spread.
func newStride(candidates []Candidate, turn *atomic.Uint32) *stride {
	type part struct {
		candidate int
		position  float64 // in 0..1
		weight    float64
	}
	most := 2 * totalWeight(candidates) / float64(len(candidates))
	parts := make([]part, 0, len(candidates)*3/2+1)
	heaviest := 0.0
	for i, c := range candidates {
		k := math.Ceil(c.weight / most)
		first := math.Mod(float64(i)*math.Phi, 1) // spread those with one entry too
		for j := range int(k) {
			parts = append(parts, part{i, (float64(j) + first) / k, c.weight / k})
		}
		heaviest = max(heaviest, c.weight/k)
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		switch {
		case a.position < b.position:
			return -1
		case a.position > b.position:
			return 1
		}
		return 0
	})
	s := &stride{turn: turn, entries: make([]strideEntry, len(parts))}
	for i, p := range parts {
		w := math.Round(p.weight / heaviest * strideScale)
		s.entries[i] = strideEntry{uint32(p.candidate), uint32(max(w, 1))}
	}
	return s
}

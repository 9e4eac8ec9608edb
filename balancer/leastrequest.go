package balancer

import (
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// LeastRequest picks, out of a few endpoints drawn at random, the one with the
// fewest requests in flight in relation to its weight. A request counts from its
// pick to the end of its response's body, so that streams weigh. Use it where
// requests differ much in cost and answers do not come fast enough for
// [PeakEWMA] to learn from.
//
// What fails, or refuses because it is overloaded, does so fast: it has few requests
// in flight and would attract all others. So an endpoint whose last attempt ended
// like that loses to any other, as in Finagle: for a second, and for twice as long
// if that happens again when the time is over, up to 30 s.
type LeastRequest struct {
	// Choices is how many different endpoints are compared. Zero means 4,
	// or all if there are fewer; at least 2, at most 16. Two avoid the worst
	// already; more are more even and cost more per pick.
	Choices int
}

// NewBuilder implements [Algorithm].
func (a LeastRequest) NewBuilder(env Env) (Builder, error) {
	choices, err := checkChoices(a.Choices)
	return &leastRequestBuilder{choices: choices, rand: env.Rand, ticks: ticks{env.Now}}, err
}

const defaultChoices = 4

func checkChoices(n int) (int, error) {
	if n == 0 {
		return defaultChoices, nil
	}
	var errs field.Errors
	errs.Check(n >= 2 && n <= maxChoices, "Choices", n, "must be between 2 and 16")
	return n, errs.Err()
}

type leastRequestBuilder struct {
	ticks
	choices int
	rand    func() uint64
	failing anyFailing
}

func (b *leastRequestBuilder) Observer(_ discovery.Endpoint, previous Observer) Observer {
	s := &leastRequestState{shared: b}
	if old, ok := previous.(*leastRequestState); ok {
		s.takeOver(&old.failing, old.shared.at(b.epoch), b.at(b.epoch), &b.failing) // the new epoch is now
	}
	return s
}

func (b *leastRequestBuilder) Build(g Group) Picker {
	return &leastRequestPicker{
		shared:     b,
		candidates: g.Candidates,
		limited:    g.limited,
		sampler:    newSampler(g.Candidates, b.rand),
	}
}

// leastRequestState is what is known of one endpoint besides its load.
type leastRequestState struct {
	shared *leastRequestBuilder
	failing
}

// Picked implements [Observer].
func (*leastRequestState) Picked(time.Time) uint32 { return 0 }

// Answered implements [Observer].
func (s *leastRequestState) Answered(_ uint32, a outcome.Answer) {
	switch {
	case a.Class.Good():
		s.succeeded()
	case a.Class.Avoid():
		s.failed(s.shared.at(a.Now), &s.shared.failing)
	}
}

type leastRequestPicker struct {
	shared     *leastRequestBuilder
	candidates []Candidate
	limited    bool
	sampler    sampler
}

// Pick compares in-flight over weight. Of equals the first that was drawn wins,
// and draws go by weight, so that traffic to idle endpoints does too. Nothing
// beats an idle endpoint, so the first one ends the search.
func (p *leastRequestPicker) Pick(info Info) int {
	var now uint32
	someFail := p.shared.failing.until.Load() != 0
	if someFail { // mostly not: then the time does not matter
		now = p.shared.at(info.Now)
		someFail = p.shared.failing.now(now)
	}
	choosy := p.limited || len(info.Tried) > 0
	var drawn draw
	best, least := 0, math.Inf(1)
	for range min(p.shared.choices, len(p.candidates)) {
		i := p.sampler.next(&drawn)
		c := &p.candidates[i]
		if choosy && !c.Usable(info) {
			continue
		}
		inflight := float64(c.node.InFlight())
		if someFail && c.observer.(*leastRequestState).avoided(now) {
			inflight += avoidedLoad
		}
		if inflight == 0 {
			return i
		}
		if load := inflight / c.weight; load < least {
			best, least = i, load
		}
	}
	return best
}

// avoidedLoad is more than any real one, whatever the weights.
const avoidedLoad = 1e15

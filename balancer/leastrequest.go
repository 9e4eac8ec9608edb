package balancer

import (
	"math"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// LeastRequest picks, out of a few endpoints drawn at random, the one with the
// fewest requests in flight in relation to its weight. A request counts from its
// pick to the end of its response's body, so that streams weigh. Use it where
// requests differ much in cost and answers do not come fast enough for
// [PeakEWMA] to learn from.
type LeastRequest struct {
	// Choices is how many different endpoints are compared. Zero means 4,
	// or all if there are fewer; at least 2, at most 16. Two avoid the worst
	// already; more are more even and cost more per pick.
	Choices int
}

// NewBuilder implements [Algorithm].
func (a LeastRequest) NewBuilder(env Env) (Builder, error) {
	choices, err := checkChoices(a.Choices)
	return leastRequestBuilder{choices: choices, rand: env.Rand}, err
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
	choices int
	rand    func() uint64
}

func (leastRequestBuilder) Observer(discovery.Endpoint, Observer) Observer { return nil }

func (b leastRequestBuilder) Build(candidates []Candidate) Picker {
	return &leastRequestPicker{
		candidates: candidates,
		choices:    b.choices,
		sampler:    newSampler(candidates, b.rand),
	}
}

type leastRequestPicker struct {
	candidates []Candidate
	choices    int
	sampler    sampler
}

// Pick compares in-flight over weight. Of equals the first that was drawn wins,
// and draws go by weight, so that traffic to idle endpoints does too. Nothing
// beats an idle endpoint, so the first one ends the search.
func (p *leastRequestPicker) Pick(Info) int {
	var drawn draw
	best, least := 0, math.Inf(1)
	for range min(p.choices, len(p.candidates)) {
		i := p.sampler.next(&drawn)
		c := &p.candidates[i]
		inflight := c.node.InFlight()
		if inflight == 0 {
			return i
		}
		if load := float64(inflight) / c.weight; load < least {
			best, least = i, load
		}
	}
	return best
}

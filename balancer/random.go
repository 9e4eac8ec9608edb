package balancer

import "github.com/evenkeel-go/evenkeel/discovery"

// Random picks endpoints at random, in proportion to their weights. It keeps no
// state and is as fast as picking can be. Its load is less even than that of
// [RoundRobin]: use it where very many clients send a few requests each, or as
// the baseline to compare with.
type Random struct{}

// NewBuilder implements [Algorithm].
func (Random) NewBuilder(env Env) (Builder, error) { return randomBuilder{env.Rand}, nil }

type randomBuilder struct{ rand func() uint64 }

func (randomBuilder) Observer(discovery.Endpoint, Observer) Observer { return nil }

func (b randomBuilder) Build(g Group) Picker {
	return g.consider(&randomPicker{newSampler(g.Candidates, b.rand)}, b.rand)
}

type randomPicker struct{ sampler sampler }

func (p *randomPicker) Pick(Info) int { return p.sampler.draw() }

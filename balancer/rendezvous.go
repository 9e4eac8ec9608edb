package balancer

import (
	"math"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// Rendezvous sends equal keys to the same endpoint by the highest random weight
// (Thaler and Ravishankar, 1998): each endpoint has a score for each key, and the
// best one gets it. Use it up to about 100 endpoints. No keys move but those that
// must, shares follow the weights exactly, and a key's second choice is as random
// as its first. A pick looks at every endpoint, at some 5 ns each, and at 20 ns
// where weights differ: for more of them use [Maglev].
type Rendezvous struct {
	// Keys says where a request carries its key, see [HashKey]. There must be
	// at least one.
	Keys []HashKey

	// Fallback picks for requests without a key. Nil means any endpoint, by
	// weight.
	Fallback Algorithm

	// LoadFactor bounds the attempts in flight at an endpoint to its share, by
	// weight, of all that the pool has, times this: above 1, at most 10. Zero
	// means no bound; 1.25 is a good one. What is too much goes to the key's
	// next choice. Only this client's attempts count, so with few of them the
	// bound is loose, and attempts that begin at the same instant may exceed it
	// together.
	LoadFactor float64
}

// NewBuilder implements [Algorithm].
func (a Rendezvous) NewBuilder(env Env) (Builder, error) {
	var errs field.Errors
	b := hashing{a.Keys, a.Fallback, a.LoadFactor}.newBuilder(env, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	b.build = func(p hashPicker, _ Picker) Picker { return newRendezvousPicker(p) }
	return b.builder(), nil
}

// rendezvousPicker holds only what is available: who is not cannot change who is
// best among the others.
type rendezvousPicker struct {
	hashPicker
	contenders []contender
	weighted   bool
}

type contender struct {
	hash   uint64
	weight float64
	seat   int32
}

func newRendezvousPicker(h hashPicker) *rendezvousPicker {
	p := &rendezvousPicker{hashPicker: h, contenders: make([]contender, 0, len(h.candidates))}
	for i := range h.places {
		at := &h.places[i]
		p.weighted = p.weighted || at.weight != h.places[0].weight
		if at.seat != nobody {
			p.contenders = append(p.contenders, contender{at.hash, at.weight, at.seat})
		}
	}
	return p
}

// Pick takes the best one that can be had.
func (p *rendezvousPicker) Pick(info Info) int {
	key, ok := p.key(info.Request)
	if !ok {
		return p.without.Pick(info)
	}
	first, room := p.demands()
	for d := first; d <= available; d++ {
		var i int
		if p.weighted {
			i = p.lowest(key, info, d, room)
		} else {
			i = p.highest(key, info, d, room)
		}
		if i >= 0 {
			return i
		}
	}
	return 0 // there is a candidate, so this is not reached
}

// highest compares the hashes, for equal weights. That is the same order as that
// of the scores.
func (p *rendezvousPicker) highest(key uint64, info Info, d demand, room float64) int {
	best, most := -1, uint64(0)
	for k := range p.contenders {
		c := &p.contenders[k]
		h := hashkey.Mix(key, c.hash)
		if best >= 0 && h <= most {
			continue
		}
		if i := p.choose(c.seat, key, info, d, room); i >= 0 {
			best, most = i, h
		}
	}
	return best
}

// lowest compares costs, for unequal weights.
func (p *rendezvousPicker) lowest(key uint64, info Info, d demand, room float64) int {
	best, least := -1, 0.0
	for k := range p.contenders {
		c := &p.contenders[k]
		cost := cost(hashkey.Mix(key, c.hash), c.weight)
		if best >= 0 && cost >= least {
			continue
		}
		if i := p.choose(c.seat, key, info, d, room); i >= 0 {
			best, least = i, cost
		}
	}
	return best
}

// cost is -ln(u)/w, the inverse of the score -w/ln(u), where u is the hash as a
// number from 0 to 1: so the least is best, and u may be 1. Where two differ by
// less than the logarithm's last bit, in which architectures differ, clients may
// disagree: about one key in 10¹³.
func cost(hash uint64, weight float64) float64 {
	u := (float64(hash>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / weight
}

package balancer

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// boundOf is the bound of load as the paper has it.
func boundOf(factor float64, inFlight int, c Candidate, all []Candidate) int64 {
	return int64(math.Ceil(factor * float64(inFlight+1) * c.weight / totalWeight(all)))
}

// Given a few hot keys, and attempts that end at random, then no pick finds an
// endpoint at its bound, whatever the weights, and whether the pool counts or not.
func TestHash_LoadIsBounded(t *testing.T) {
	for _, factor := range []float64{1.01, 1.25, 2, 10} {
		forAll(t, hashing{loadFactor: factor}, func(t *testing.T, a Algorithm) {
			for seed := range uint64(4) {
				random := rand.New(rand.NewPCG(seed, 8))
				endpoints := manyEndpoints(2 + random.IntN(15))
				for i := range endpoints {
					endpoints[i].Weight = float64(1 + random.IntN(4)*int(seed%2))
				}
				c := newHashCluster(t, a, endpoints...)
				var open []Candidate
				if seed < 2 {
					require.True(t, c.builder.(loadCounter).useInFlight(func() int64 { return int64(len(open)) }))
				}
				c.build()
				keys := users(1 + int(seed))
				for step := range 1000 {
					for len(open) > 0 && random.IntN(100) < 30+len(open)/4 {
						i := random.IntN(len(open))
						open[i].node.Release()
						open = slices.Delete(open, i, i+1)
					}
					one := c.group.Candidates[c.group.Previous.Pick(keyed(keys[random.IntN(len(keys))]))]
					require.Less(t, one.InFlight(), boundOf(factor, len(open), one, c.group.Candidates), "seed %d, step %d", seed, step)
					one.node.Acquire()
					open = append(open, one)
				}
			}
		})
	}
}

// What is too much for one endpoint spreads over all the others by the keys, and
// for each key it is always the same one that helps out.
func TestHash_OverflowSpreads(t *testing.T) {
	keys := users(20_000)
	forAll(t, hashing{loadFactor: 1.25}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(11)...)
		c.build()
		before := c.owners(keys)
		hold(c.all[4], 3) // more than ceil(1.25·4/11)
		after := c.owners(keys)
		hot := c.all[4].Endpoint().Address
		helpers := map[string]int{}
		for i := range keys {
			if before[i] == hot {
				helpers[after[i]]++
				assert.Equal(t, c.address(keyed(keys[i], c.serialOf(hot))), after[i], "the second choice")
			} else {
				assert.Equal(t, before[i], after[i], "others stay where they are")
			}
		}
		assert.NotContains(t, helpers, hot)
		assert.Len(t, helpers, 10)
		for _, n := range helpers {
			assert.InDelta(t, float64(tally(before)[hot])/10, n, 0.5*float64(tally(before)[hot])/10)
		}
	})
}

// With no bound, one hot key stays at one endpoint; with one, it fills the others
// in its own order, and none above its bound.
func TestHash_OneHotKey(t *testing.T) {
	for _, row := range []struct {
		factor float64
		most   int64
	}{{0, 100}, {1.25, 13}, {2, 20}} {
		forAll(t, hashing{loadFactor: row.factor}, func(t *testing.T, a Algorithm) {
			c := newHashCluster(t, a, manyEndpoints(10)...)
			p := c.build()
			home := p.Pick(keyed("hot"))
			for q := range 100 {
				i := p.Pick(keyed("hot"))
				room := row.factor == 0 || c.all[home].InFlight() < boundOf(row.factor, q, c.all[home], c.all)
				require.Equal(t, room, i == home, "with %d in flight: at home as long as there is room", q)
				hold(c.group.Candidates[i], 1)
			}
			most := int64(0)
			for _, one := range c.all {
				most = max(most, one.InFlight())
			}
			assert.Equal(t, row.most, most, "factor %v", row.factor)
		})
	}
}

// A bound is less than a try elsewhere: what is not tried and above its bound is
// better than what was tried. And what is away is no help at all.
func TestHash_BoundYieldsToTried(t *testing.T) {
	forAll(t, hashing{loadFactor: 1.25}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(3)...)
		c.away[c.all[2].Endpoint().Address] = true
		c.build()
		hold(c.all[1], 50)
		for _, key := range users(20) {
			assert.Equal(t, c.all[0].Endpoint().Address, c.address(keyed(key)))
			tried := c.all[0].node.Serial()
			assert.Equal(t, c.all[1].Endpoint().Address, c.address(keyed(key, tried)))
		}
	})
}

// The bound follows what the pool counts, once it does.
func TestHash_BoundFollowsThePool(t *testing.T) {
	forAll(t, hashing{loadFactor: 1.25}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(10)...)
		total := int64(0)
		c.builder.(loadCounter).useInFlight(func() int64 { return total })
		p := c.build()
		total = 31
		home := p.Pick(keyed("hot"))
		hold(c.all[home], 4)
		assert.NotEqual(t, home, p.Pick(keyed("hot")), "ceil(1.25·32/10) is 4")
		total = 32
		assert.Equal(t, home, p.Pick(keyed("hot")))
	})
}

func TestHash_CountsOnlyWhenAsked(t *testing.T) {
	busy, idle := func() int64 { return 1 }, func() int64 { return 0 }
	var groups []Group
	spy := fallbackSpy{groups: &groups} // wants to count if it sees anything in flight
	for _, row := range []struct {
		h     hashing
		total func() int64
		want  bool
	}{
		{hashing{}, busy, false},
		{hashing{loadFactor: 1.5}, idle, true},
		{hashing{fallback: RoundRobin{}}, busy, false},
		{hashing{fallback: spy}, busy, true},
		{hashing{fallback: spy}, idle, false},
		{hashing{fallback: spy, loadFactor: 1.5}, idle, true},
	} {
		forAll(t, row.h, func(t *testing.T, a Algorithm) {
			assert.Equal(t, row.want, newHashCluster(t, a).builder.(loadCounter).useInFlight(row.total))
		})
	}
}

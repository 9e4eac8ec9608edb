package balancer

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// score is the score of an endpoint for a key: the highest wins.
func score(key string, e discovery.Endpoint) float64 {
	h := hashkey.Mix(hashkey.String(key), hashkey.String(e.Key().ID))
	u := (float64(h>>11) + 0.5) / (1 << 53)
	return -e.EffectiveWeight() / math.Log(u)
}

// Who wins is who has the highest score, and who is second has the second highest,
// with equal weights and with others.
func TestRendezvous_HighestScoreWins(t *testing.T) {
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 5))
		endpoints := manyEndpoints(1 + random.IntN(30))
		for i := range endpoints {
			endpoints[i].Weight = 1 + float64(seed%2)*random.Float64()*5
		}
		c := newHashCluster(t, Rendezvous{Keys: byUser()}, endpoints...)
		p := c.build().(*rendezvousPicker)
		require.Equal(t, seed%2 == 1 && len(endpoints) > 1, p.weighted)
		for _, key := range users(200) {
			info := keyed(key)
			last := math.Inf(1)
			for range endpoints {
				i := p.Pick(info)
				got := score(key, endpoints[i])
				require.Less(t, got, last, "seed %d, key %s", seed, key)
				for k := range endpoints {
					s := score(key, endpoints[k])
					require.True(t, s <= got || s >= last, "seed %d, key %s: %d is better than %d", seed, key, k, i)
				}
				last = got
				info.Tried = append(info.Tried, c.all[i].node.Serial())
			}
		}
	}
}

// When an endpoint leaves, no other's key moves, and when it comes, keys move to it
// only.
func TestRendezvous_MovesNothingElse(t *testing.T) {
	keys := users(5000)
	for _, weighted := range []bool{false, true} {
		endpoints := manyEndpoints(30)
		for i := range endpoints {
			if weighted {
				endpoints[i].Weight = float64(1 + i%4)
			}
		}
		c := newHashCluster(t, Rendezvous{Keys: byUser()}, endpoints...)
		c.build()
		all := c.owners(keys)
		c.remove(17)
		c.build()
		less := c.owners(keys)
		for i := range keys {
			if all[i] != endpoints[17].Address {
				require.Equal(t, all[i], less[i])
			}
		}
	}
}

// Keys go by weight exactly: nothing is rounded to points or entries.
func TestRendezvous_WeightsAreExact_B07(t *testing.T) {
	endpoints := manyEndpoints(50)
	total := 0.0
	for i := range endpoints {
		endpoints[i].Weight = 0.1 + float64(i)*float64(i)
		total += endpoints[i].Weight
	}
	c := newHashCluster(t, Rendezvous{Keys: byUser()}, endpoints...)
	c.build()
	keys := users(100_000)
	got := tally(c.owners(keys))
	for _, e := range endpoints {
		share := e.Weight / total
		sigma := math.Sqrt(float64(len(keys)) * share * (1 - share))
		assert.InDelta(t, float64(len(keys))*share, got[e.Address], 5*sigma+1, "weight %v", e.Weight)
	}
}

// The largest hash is 1 as a number, whose logarithm is 0: it wins, and is no
// division by zero.
func TestRendezvous_ExtremeHashes(t *testing.T) {
	for _, h := range []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 2048} {
		got := cost(h, 1)
		assert.GreaterOrEqual(t, got, 0.0)
		assert.False(t, math.IsInf(got, 0) || math.IsNaN(got))
	}
	assert.Less(t, cost(math.MaxUint64, 1), cost(math.MaxUint64-1<<20, 1))
	assert.Less(t, cost(1<<63, 2), cost(1<<63, 1))
}

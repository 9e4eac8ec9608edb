package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// Given endpoints that come, go, change their weights and are away, in any order of
// the list, then the picker that was made of the one before agrees with one that
// was made from nothing, also about second choices.
func TestHash_UpdatesAddUpToTheWhole(t *testing.T) {
	keys := users(60)
	for name, a := range map[string]Algorithm{ // small, for there are many
		"RingHash":   RingHash{Keys: byUser(), MinSize: 300, MaxSize: 5000},
		"Maglev":     Maglev{Keys: byUser(), TableSize: 1009},
		"Rendezvous": Rendezvous{Keys: byUser()},
	} {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 7))
			c := newHashCluster(t, a, manyEndpoints(1+random.IntN(120))...)
			for step := range 25 {
				for range random.IntN(4) {
					c.change(random)
				}
				c.build()
				shuffled := slices.Clone(c.all)
				random.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
				fresh := c.divide(shuffled)
				fresh.Previous = nil
				p := c.builder.Build(fresh)
				for _, key := range keys {
					info := keyed(key)
					for range 3 {
						want := fresh.Candidates[p.Pick(info)].Endpoint().Address
						require.Equal(t, want, c.address(info), "%s, seed %d, step %d, key %s, tried %v", name, seed, step, key, info.Tried)
						info.Tried = append(info.Tried, c.serialOf(want))
					}
				}
			}
		}
	}
}

// change makes one thing of the cluster different.
func (c *hashCluster) change(random *rand.Rand) {
	i := random.IntN(len(c.all))
	address := c.all[i].Endpoint().Address
	switch random.IntN(6) {
	case 0:
		if len(c.all) > 1 && len(c.divide(c.all).Candidates) > 1 {
			c.remove(i)
		}
	case 1, 2:
		e := discovery.Endpoint{Address: fmt.Sprintf("172.16.%d.%d:80", c.serial>>8, c.serial&255)}
		switch random.IntN(4) {
		case 0:
			e.Weight = float64(1+random.IntN(5)) / 2
		case 1: // shares the place of another
			e.Attributes = map[string]string{"hash_key": hashIdentity(c.all[i].node.Published())}
		}
		c.add(e)
	case 3:
		c.all = slices.Clone(c.all)
		c.all[i].weight = float64(1 + random.IntN(3))
	default:
		c.away[address] = !c.away[address]
	}
	if len(c.divide(c.all).Candidates) == 0 {
		c.away = map[string]bool{}
	}
}

// Given n that grows to n+1, then at most 1/(n+1) + 2 % of the keys move, whatever
// the order of the list. The ring has a size at which the number of points per
// endpoint stays the same; when that changes, more keys move, see ringhash_test.go.
func TestHash_MovesFewKeys_B16(t *testing.T) {
	keys := users(20_000)
	for name, algorithm := range map[string]func(n int) Algorithm{
		"RingHash":   func(n int) Algorithm { return RingHash{Keys: byUser(), MinSize: n * min(n, 300)} },
		"Maglev":     func(int) Algorithm { return Maglev{Keys: byUser()} },
		"Rendezvous": func(int) Algorithm { return Rendezvous{Keys: byUser()} },
	} {
		for _, n := range []int{1, 2, 3, 10, 50, 100, 500} {
			if name == "RingHash" && n < 50 {
				continue // no decent size has as many points for n+1 as for n
			}
			random := rand.New(rand.NewPCG(uint64(n), 16))
			endpoints := manyEndpoints(n + 1)
			before := newHashCluster(t, algorithm(n), endpoints[:n]...)
			before.build()
			random.Shuffle(n+1, func(i, k int) { endpoints[i], endpoints[k] = endpoints[k], endpoints[i] })
			after := newHashCluster(t, algorithm(n), endpoints...)
			after.build()
			got := float64(moved(before.owners(keys), after.owners(keys))) / float64(len(keys))
			assert.LessOrEqual(t, got, 1/float64(n+1)+0.02, "%s, n = %d", name, n)
			assert.GreaterOrEqual(t, got, 0.5/float64(n+1), "%s, n = %d: the new one gets its share", name, n)
		}
	}
}

// Given an endpoint that is away for a moment, then the keys of all others stay
// where they are, its own spread over the others, and when it is back it has
// exactly its own, defect 55.
func TestHash_FlapMovesOnlyOwnKeys_Defect55_B16(t *testing.T) {
	keys := users(20_000)
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(20)...)
		c.build()
		before := c.owners(keys)
		for _, one := range []int{0, 7, 19} {
			lost := c.all[one].Endpoint().Address
			c.away[lost] = true
			c.build()
			during := c.owners(keys)
			heirs := map[string]int{}
			for i := range keys {
				if before[i] != lost {
					require.Equal(t, before[i], during[i])
				} else {
					heirs[during[i]]++
				}
			}
			own := tally(before)[lost]
			assert.Len(t, heirs, 19, "all others inherit")
			for heir, n := range heirs {
				assert.Less(t, float64(n), 2.5*float64(own)/19, "%s inherits more than its part", heir)
			}
			delete(c.away, lost)
			c.build()
			assert.Zero(t, moved(before, c.owners(keys)))
		}
	})
}

// What was tried is avoided, and the second choice is the same each time: the one
// that the key has when the first choice is away.
func TestHash_TriedIsPassedOver(t *testing.T) {
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(10)...)
		c.build()
		for _, key := range users(200) {
			var walk []string
			info := keyed(key)
			for range c.all {
				walk = append(walk, c.address(info))
				require.Equal(t, walk[len(walk)-1], c.address(info), "the same again")
				info.Tried = append(info.Tried, c.serialOf(walk[len(walk)-1]))
			}
			slices.Sort(walk[1:])
			require.Len(t, slices.Compact(slices.Clone(walk)), 10, "no one twice while there is another")
			assert.Equal(t, walk[0], c.address(info), "all tried: the first choice again")
		}
		first := c.address(keyed("ann"))
		second := c.address(keyed("ann", c.serialOf(first)))
		c.away[first] = true
		c.build()
		assert.Equal(t, second, c.address(keyed("ann")))
		for _, one := range c.all {
			require.NotEqual(t, first, c.address(keyed("ann", one.node.Serial())), "never one that is away")
		}
	})
}

// However few can be picked, they are found, and no one else is.
func TestHash_FindsTheOnlyOne_Defect55(t *testing.T) {
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(3000)...)
		only := c.all[1234].Endpoint().Address
		for _, one := range c.all {
			c.away[one.Endpoint().Address] = one.Endpoint().Address != only
		}
		c.build()
		for _, key := range users(20) {
			assert.Equal(t, only, c.address(keyed(key)), "the others are away")
		}
		assert.Equal(t, only, c.address(keyed("ann", c.serialOf(only))), "tried, but there is nobody else")

		c.away = map[string]bool{}
		c.build()
		tried := []uint64{}
		for _, one := range c.all {
			if one.Endpoint().Address != only {
				tried = append(tried, one.node.Serial())
			}
		}
		for _, key := range users(20) {
			assert.Equal(t, only, c.address(keyed(key, tried...)), "the others were tried")
		}
	})
}

func TestHash_FullEndpointIsPassedOver(t *testing.T) {
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(5)...)
		for _, one := range c.all {
			one.node.SetLimit(3)
		}
		c.limited = true
		c.build()
		info := keyed("ann")
		first := c.group.Previous.Pick(info)
		hold(c.group.Candidates[first], 2)
		assert.Equal(t, first, c.group.Previous.Pick(info))
		hold(c.group.Candidates[first], 1)
		assert.NotEqual(t, first, c.group.Previous.Pick(info), "Rules.MaxInFlight")
	})
}

// Endpoints with the same attribute, or the same ID, share one place: both are used,
// always for the same keys, and who is left has all of them; nobody else notices.
func TestHash_SharedPlace(t *testing.T) {
	keys := users(4000)
	for name, one := range map[string]discovery.Endpoint{
		"attribute": {Attributes: map[string]string{"hash_key": "web-0"}},
		"ID":        {ID: "web-0"},
	} {
		old, now := one, one
		old.Address, now.Address = "old:80", "new:80"
		forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
			alone := newHashCluster(t, a, append(manyEndpoints(9), old)...)
			alone.build()
			before := alone.owners(keys)

			c := newHashCluster(t, a, append([]discovery.Endpoint{now, old}, manyEndpoints(9)...)...)
			c.build()
			both := c.owners(keys)
			counts := tally(both)
			for i := range keys {
				if before[i] == "old:80" {
					assert.Contains(t, []string{"old:80", "new:80"}, both[i], name)
				} else {
					assert.Equal(t, before[i], both[i], name)
				}
			}
			assert.InDelta(t, counts["old:80"], counts["new:80"], float64(len(keys))*0.02, name)

			c.away["old:80"] = true
			c.build()
			after := c.owners(keys)
			for i := range keys {
				assert.Equal(t, strings.Replace(before[i], "old", "new", 1), after[i], "%s: as if it had only moved", name)
			}
			c.away["new:80"] = true
			c.build()
			assert.Zero(t, tally(c.owners(keys))["new:80"], name)

			c.away = map[string]bool{}
			c.build()
			assert.Zero(t, moved(both, c.owners(keys)), "%s: and as before when they are back", name)
		})
	}
}

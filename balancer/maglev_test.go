package balancer

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func maglevOf(p Picker) maglevTable { return p.(*tablePicker).table.(maglevTable) }

// The tables are those that the tests of Envoy print for the same endpoints.
func TestMaglev_IsEnvoysTable(t *testing.T) {
	c := newHashCluster(t, Maglev{Keys: byUser(), TableSize: 7}, portsAt(90, 1, 1, 1, 1, 1, 1)...)
	assert.Equal(t, maglevTable{2, 4, 0, 1, 5, 0, 3}, maglevOf(c.build()))
	c = newHashCluster(t, Maglev{Keys: byUser(), TableSize: 17}, portsAt(90, 1, 2)...)
	assert.Equal(t, maglevTable{1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1}, maglevOf(c.build()))
}

// naiveMaglev is the algorithm as Envoy has it: in each round all are asked.
func naiveMaglev(places []place, size int) []int {
	heaviest, turns := 0.0, newMaglevTurns(places, size)
	for _, p := range places {
		heaviest = max(heaviest, p.weight)
	}
	table := slices.Repeat([]int{-1}, size)
	for round, free := 1, size; ; round++ {
		for i, p := range places {
			if float64(round)*p.weight < float64(turns[i].count)*heaviest {
				continue
			}
			for table[turns[i].at] >= 0 {
				turns[i].at = (turns[i].at + turns[i].skip) % uint32(size)
			}
			table[turns[i].at] = i
			turns[i].count++
			if free--; free == 0 {
				return table
			}
		}
	}
}

func TestMaglev_TurnsByWeight(t *testing.T) {
	many := make([]float64, 300)
	for i := range many {
		many[i] = float64(1 + i*i%13)
	}
	oneHeavy := append(slices.Repeat([]float64{1}, 300), 5000)
	for _, weights := range [][]float64{
		{1},
		{1, 1, 1},
		{1, 2, 3},
		{3, 2, 1, 1},
		{1, 100},
		{100, 1, 1, 1, 50, 7},
		{0.5, 0.25, 3},
		{1, 1e9},
		{7, 11, 13, 17, 19, 23},
		many, oneHeavy, append(oneHeavy, 2000, 3000, 5000),
	} {
		c := newHashCluster(t, Maglev{Keys: byUser(), TableSize: 5003}, portsAt(80, weights...)...)
		p := c.build().(*tablePicker)
		want := naiveMaglev(p.places, 5003)
		for i, place := range maglevOf(p) {
			require.Equal(t, want[i], int(place), "%v, entry %d", weights, i)
		}
	}
}

// Every endpoint has the same number of entries, or one more: for the 1000
// endpoints of the paper at the usual size, 65 or 66.
func TestMaglev_IsEven(t *testing.T) {
	for _, n := range []int{1, 2, 7, 100, 1000, 10_000} {
		c := newHashCluster(t, Maglev{Keys: byUser()}, manyEndpoints(n)...)
		counts := make([]int, n)
		for _, place := range maglevOf(c.build()) {
			counts[place]++
		}
		assert.Equal(t, defaultTableSize/n, slices.Min(counts), "%d endpoints", n)
		assert.LessOrEqual(t, slices.Max(counts), defaultTableSize/n+1, "%d endpoints", n)
	}
}

// When one of many leaves, its keys move, and few others: less than 2 % with a
// table a hundred times as large as the number of endpoints, as the paper found.
func TestMaglev_Disruption(t *testing.T) {
	for _, n := range []int{10, 100, 650} {
		c := newHashCluster(t, Maglev{Keys: byUser()}, manyEndpoints(n)...)
		keys := users(20_000)
		c.build()
		before := c.owners(keys)
		gone := c.all[n/2].Endpoint().Address
		c.remove(n / 2)
		c.build()
		after := c.owners(keys)
		others := 0
		for i := range keys {
			if before[i] != gone && before[i] != after[i] {
				others++
			}
		}
		assert.Less(t, float64(others)/float64(len(keys)), 0.02, "%d endpoints", n)
	}
}

// The table depends on identities and weights only.
func TestMaglev_KeepsTheTable(t *testing.T) {
	c := newHashCluster(t, Maglev{Keys: byUser()}, manyEndpoints(50)...)
	first := maglevOf(c.build())
	c.away[c.all[3].Endpoint().Address] = true
	assert.Same(t, &first[0], &maglevOf(c.build())[0], "a flap")
	c.all = slices.Clone(c.all)
	slices.Reverse(c.all)
	assert.Same(t, &first[0], &maglevOf(c.build())[0], "another order")
	c.all[0].weight = 2
	assert.NotSame(t, &first[0], &maglevOf(c.build())[0], "another weight")
	c.all[0].weight = 1
	c.remove(0)
	assert.NotEqual(t, first, maglevOf(c.build()), "one less")

	b, err := Maglev{Keys: byUser(), TableSize: 13}.NewBuilder(Env{})
	require.NoError(t, err)
	c.builder = b
	assert.Len(t, maglevOf(c.build()), 13, "another size")
}

// With more endpoints than entries, some get no keys, and are there if others are
// not.
func TestMaglev_MoreEndpointsThanEntries(t *testing.T) {
	c := newHashCluster(t, Maglev{Keys: byUser(), TableSize: 2}, manyEndpoints(6)...)
	c.build()
	owners := tally(c.owners(users(100)))
	assert.Len(t, owners, 2)
	for owner := range owners {
		c.away[owner] = true
	}
	c.build()
	rest := tally(c.owners(users(100)))
	assert.Len(t, rest, 4)
	for owner := range owners {
		assert.NotContains(t, rest, owner)
	}
}

func TestIsPrime(t *testing.T) {
	for n, want := range map[int]bool{
		-7: false, 0: false, 1: false, 2: true, 3: true, 4: false, 9: false, 65536: false, 65537: true, 5000011: true, 5000009: false,
	} {
		assert.Equal(t, want, isPrime(n), n)
	}
}

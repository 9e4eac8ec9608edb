package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// used returns which endpoints of a pool get traffic.
func used(p *Pool) []string {
	var addresses []string
	for address := range weightsOf(p) {
		addresses = append(addresses, address)
	}
	slices.Sort(addresses)
	return addresses
}

// missing returns how many of the one are not in the other.
func missing(of, in []string) (n int) {
	for _, s := range of {
		if !slices.Contains(in, s) {
			n++
		}
	}
	return n
}

// Given a rendezvous subset, when an endpoint leaves or joins, then no client changes
// more than one of its own, and none that it does not have to.
func TestSubset_OneChangeMovesOne_B16(t *testing.T) {
	all := in(0, 40)
	for client := range 50 {
		p, _ := fakePool(t, Config{Rules: Rules{Subset: Subset{Size: 8, Seed: fmt.Sprint(client)}}}, all...)
		before := used(p)
		require.Len(t, before, 8)
		for gone := range all {
			rest := slices.Delete(slices.Clone(all), gone, gone+1)
			p.update(rest)
			after := used(p)
			require.Len(t, after, 8)
			if slices.Contains(before, all[gone].Address) {
				require.Equal(t, 1, missing(before, after))
			} else {
				require.Equal(t, before, after)
			}
			p.update(all)
			require.Equal(t, before, used(p), "and back")
		}
		shuffled := slices.Clone(all)
		rand.New(rand.NewPCG(1, uint64(client))).Shuffle(len(all), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
		p.update(shuffled)
		require.Equal(t, before, used(p), "the order of the list does not matter")
	}
}

// A larger subset holds the smaller ones, so that growing only adds.
func TestSubset_Nested(t *testing.T) {
	p, _ := fakePool(t, Config{}, in(0, 40)...)
	var before []string
	for size := 1; size <= 45; size++ {
		require.NoError(t, p.Use(nil, Rules{Subset: Subset{Size: size, Seed: "me"}}))
		after := used(p)
		require.Len(t, after, min(size, 40))
		require.Zero(t, missing(before, after), "size %d", size)
		before = after
	}
	require.NoError(t, p.Use(nil, Rules{Subset: Subset{Size: -1}}))
	assert.Len(t, used(p), 40)
}

// A seed makes the subset repeatable, in another process too; without, every client
// has another one. Together they use all endpoints, each about as much.
func TestSubset_Seed(t *testing.T) {
	rules := func(seed string) Rules { return Rules{Subset: Subset{Size: 5, Seed: seed}} }
	pool := func(random uint64, seed string) []string {
		return used(testPool(t, Config{Rules: rules(seed), Rand: rand.NewPCG(random, 0)}, in(0, 20)...))
	}
	assert.Equal(t, []string{"p0-19:80", "p0-1:80", "p0-2:80", "p0-3:80", "p0-6:80"}, pool(1, "web-1"), "for ever")
	assert.Equal(t, pool(1, "web-1"), pool(2, "web-1"))
	assert.NotEqual(t, pool(1, "web-1"), pool(1, "web-2"))
	assert.NotEqual(t, pool(1, ""), pool(2, ""), "without a seed it is chance")

	clients := map[string]int{}
	for i := range 400 {
		for _, address := range pool(1, fmt.Sprint("client-", i)) {
			clients[address]++
		}
	}
	assert.Len(t, clients, 20)
	for address, n := range clients {
		assertShare(t, 5./20, n, 400, address)
	}
}

// Traffic goes to the subset, evenly, and a call that has tried all of it starts over
// there.
func TestSubset_TrafficStaysInIt(t *testing.T) {
	for _, a := range allAlgorithms {
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Subset: Subset{Size: 4, Seed: "x"}}}, in(0, 30)...)
		const picks = 4000
		got := attempts(t, p, picks)
		assert.Len(t, got, 4, "%T", a)
		for address, n := range got {
			assertShare(t, 0.25, n, picks, "%T: %s", a, address)
		}
	}
}

// Given that members of the subset become unavailable, then the next in rank take
// their places; when they come back, it is as before.
func TestSubset_NextInRankReplaces(t *testing.T) {
	for _, subset := range []Subset{{Size: 5, Seed: "me"}, {Size: 5, Clients: 20, Ordinal: 13}} {
		all := in(0, 20)
		p, _ := fakePool(t, Config{Rules: Rules{Subset: subset}}, all...)
		before := used(p)
		var ill []discovery.Endpoint
		for range 10 { // half of all
			now := used(p)
			at := slices.IndexFunc(all, func(e discovery.Endpoint) bool { return e.Address == now[0] })
			ill = append(ill, all[at])
			judge(t, p, false, all[at])
			after := used(p)
			require.Len(t, after, 5)
			require.Equal(t, 1, missing(now, after))
			require.NotContains(t, after, now[0])
		}
		judge(t, p, true, ill...)
		assert.Equal(t, before, used(p))
	}
}

// Given a subset of which all are ill, then there is no panic as long as the others
// can carry the load: it is the health of all that counts. In panic, the subset is
// the one that it is without looking at health.
func TestSubset_PanicLooksAtAll_B09(t *testing.T) {
	all := in(0, 20)
	var last Change
	p, _ := fakePool(t, Config{
		Rules:    Rules{Subset: Subset{Size: 4, Seed: "me"}},
		OnChange: func(c Change) { last = c },
	}, all...)
	before := used(p)
	for _, e := range all {
		if slices.Contains(before, e.Address) {
			judge(t, p, false, e)
		}
	}
	after := used(p)
	assert.Len(t, after, 4)
	assert.Equal(t, 4, missing(before, after))
	assert.False(t, last.Panic)
	for _, e := range all {
		if !slices.Contains(before, e.Address) && last.Available > 9 {
			judge(t, p, false, e)
		}
	}
	assert.True(t, last.Panic)
	assert.Equal(t, before, used(p))
}

// The size is that of each priority.
func TestSubset_OfEachPriority(t *testing.T) {
	p, _ := fakePool(t, Config{Rules: Rules{Subset: Subset{Size: 3, Seed: "x"}}}, append(in(0, 10), in(1, 10)...)...)
	tiers := p.snapshot.Load().main.tiers
	require.Len(t, tiers, 2)
	assert.Len(t, tiers[0].candidates, 3)
	assert.Len(t, tiers[1].candidates, 3)
}

// With zones, each has its part of the subset, but not fewer than what protects it
// from failing together, if it has so many.
func TestSubset_OfEachZone(t *testing.T) {
	rules := Rules{Subset: Subset{Size: 40, Seed: "x"}, Zones: Zones{Local: "a"}}
	p, _ := fakePool(t, Config{Rules: rules}, inZones(20, 90, 90)...)
	groups := p.snapshot.Load().main.tiers[0].groups
	require.Len(t, groups, 3)
	sizes := []int{len(groups[0].candidates), len(groups[1].candidates), len(groups[2].candidates)}
	assert.Equal(t, []int{17, 12, 12}, sizes, "42, 29 and 29 percent")
}

// membersOf returns members as the pool has them, without a pool.
func membersOf(endpoints []discovery.Endpoint) []*member {
	members := make([]*member, len(endpoints))
	for i, e := range endpoints {
		members[i] = &member{node: node.New(e, uint64(i+1), nil, nil), weight: 1}
	}
	return members
}

// clientsPerEndpoint returns how many of the clients have each endpoint in their
// subset.
func clientsPerEndpoint(t testing.TB, endpoints []discovery.Endpoint, clients, size int) (least, most int) {
	t.Helper()
	count := make([]int, len(endpoints))
	members := membersOf(endpoints)
	for client := range clients {
		Subset{Clients: clients, Ordinal: client}.orderMembers(members, 0, size, false)
		chosen := first(members, size)
		require.Len(t, chosen, size)
		for _, m := range chosen {
			count[m.node.Serial()-1]++
		}
	}
	return slices.Min(count), slices.Max(count)
}

// Given lots that are full, then all endpoints have the same number of clients, give
// or take one.
func TestSubset_RocksteadierIsEven(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 20, 30, 50, 100} {
		for _, clients := range []int{10, 20, 50, 80} {
			for _, size := range []int{1, 2, 3, 5, 10, 12, 40} {
				if size >= n {
					continue
				}
				least, most := clientsPerEndpoint(t, in(0, n), clients, size)
				require.LessOrEqual(t, most-least, 1, "%d endpoints, %d clients, size %d: %d to %d", n, clients, size, least, most)
			}
		}
	}
}

// Where the last lot of the clients or of the endpoints has gaps, it is not as even,
// but far from what chance does.
func TestSubset_RocksteadierWithGaps(t *testing.T) {
	t.Parallel()
	for _, n := range []int{15, 33, 47, 95, 104} {
		for _, clients := range []int{37, 55, 100} {
			for _, size := range []int{2, 5, 8, 12} {
				least, most := clientsPerEndpoint(t, in(0, n), clients, size)
				mean := float64(clients*size) / float64(n)
				require.LessOrEqual(t, float64(most), 2*mean+1, "%d endpoints, %d clients, size %d: %d to %d", n, clients, size, least, most)
				require.GreaterOrEqual(t, float64(least), mean/2-1, "%d endpoints, %d clients, size %d: %d to %d", n, clients, size, least, most)
			}
		}
	}
}

// It is as even in each priority, whatever the names are, and whether or not the
// endpoints are in zones that do not matter.
func TestSubset_RocksteadierIsEvenInEachPriority(t *testing.T) {
	for _, zones := range []int{1, 2} {
		for _, priorities := range []int{1, 2} {
			endpoints := in(0, 40)
			for i := range endpoints {
				endpoints[i].Priority = i * 7 % priorities
				endpoints[i].Zone = fmt.Sprint(i * 7 / 2 % zones)
			}
			const clients, size = 40, 5
			count := map[string]int{}
			for client := range clients {
				p := testPool(t, Config{Rules: Rules{Subset: Subset{Size: size, Clients: clients, Ordinal: client}}}, endpoints...)
				for _, address := range used(p) {
					count[address]++
				}
			}
			least, most := 1<<30, 0
			for _, e := range endpoints {
				least, most = min(least, count[e.Address]), max(most, count[e.Address])
			}
			assert.LessOrEqual(t, most-least, 1, "%d to %d clients, %d zones, %d priorities", least, most, zones, priorities)
		}
	}
}

func TestVanDerCorput(t *testing.T) {
	assert.Empty(t, vanDerCorput(0))
	assert.Equal(t, []int{0}, vanDerCorput(1))
	assert.Equal(t, []int{0, 1}, vanDerCorput(2))
	assert.Equal(t, []int{0, 4, 2, 1, 5, 3}, vanDerCorput(6))
	assert.Equal(t, []int{0, 4, 2, 6, 1, 5, 3, 7}, vanDerCorput(8))
	for n := range 100 {
		order := vanDerCorput(n)
		slices.Sort(order)
		for i := range n {
			require.Equal(t, i, order[i])
		}
	}
}

// Quickselect finds what sorting finds.
func TestNth(t *testing.T) {
	random := seeded(t, 9)
	for run := range 3000 {
		values := make([]uint64, 1+random()%40)
		for i := range values {
			values[i] = random() % (1 + random()%50) // some are equal
		}
		want := slices.Clone(values)
		slices.Sort(want)
		n := int(random() % uint64(len(values)))
		require.Equal(t, want[n], nth(values, n), "run %d", run)
	}
}

// look makes a pool send so many attempts per second, evenly, and returns what it
// uses then.
func look(t testing.TB, p *Pool, fake *clock.Fake, rate float64, after time.Duration) []string {
	t.Helper()
	for past := time.Duration(0); past < after; past += lookEvery {
		attempts(t, p, int(rate*lookEvery.Seconds()))
		fake.Advance(lookEvery)
	}
	return used(p)
}

// A burst is followed within the next look.
func TestSubset_GrowsAtOnce(t *testing.T) {
	p, fake := fakePool(t, Config{}, in(0, 200)...)
	fake.Advance(10 * time.Minute)
	require.Len(t, used(p), 12)
	attempts(t, p, 4000)
	fake.Advance(lookEvery)
	assert.Len(t, used(p), 200)
	fake.Advance(time.Minute - 1)
	assert.Len(t, used(p), 200, "and forgotten after a minute")
	fake.Advance(1)
	assert.Len(t, used(p), 12)
}

// The traffic decides on the size: as many endpoints as requests per second, at least
// 12, changed by a factor of two or more only, or to all.
func TestSubset_FollowsTheTraffic(t *testing.T) {
	for _, a := range []Algorithm{PeakEWMA{}, LeastRequest{}} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, fake := fakePool(t, Config{Algorithm: a}, in(0, 100)...)
			assert.Len(t, used(p), 100)
			for _, row := range []struct {
				after time.Duration
				rate  float64
				want  int
			}{
				{2 * time.Second, 1, 12},
				{time.Minute, 23, 12},
				{lookEvery, 24, 24},
				{time.Minute, 47, 24},
				{lookEvery, 49.5, 50},
				{2 * time.Minute, 26, 50},
				{2 * time.Minute, 25, 25},
				{2 * time.Minute, 13, 25},
				{2 * time.Minute, 1, 12},
				{2 * time.Minute, 0, 12},
				{lookEvery, 99.5, 100},
				{2 * time.Minute, 51, 100},
				{2 * time.Minute, 50, 50},
			} {
				require.Len(t, look(t, p, fake, row.rate, row.after), row.want, "%v per second", row.rate)
			}
			p.Close()
			assert.Zero(t, fake.Pending())
		})
	}
}

// Endpoints that come and go do not change the size, and who uses all uses all that
// come.
func TestSubset_AutomaticSizeAndChurn(t *testing.T) {
	p, fake := fakePool(t, Config{}, in(0, 100)...)
	fake.Advance(2 * time.Second)
	before := used(p)
	require.Len(t, before, 12)
	p.update(in(0, 101))
	assert.LessOrEqual(t, missing(before, used(p)), 1)
	assert.Len(t, used(p), 12)
	p.update(in(0, 13))
	assert.Len(t, used(p), 12)
	p.update(in(0, 12))
	assert.Len(t, used(p), 12)
	p.update(in(0, 5))
	assert.Len(t, used(p), 5)
	p.update(in(0, 100))
	assert.Len(t, used(p), 12)
	look(t, p, fake, 200, 4*time.Second)
	assert.Len(t, used(p), 100)
	p.update(in(0, 150))
	assert.Len(t, used(p), 150)
}

// Where the traffic has no say, nothing looks at it.
func TestSubset_NotAutomatic(t *testing.T) {
	for _, row := range []struct {
		name   string
		a      Algorithm
		subset Subset
		n      int
		want   int
	}{
		{"round robin learns nothing", RoundRobin{}, Subset{}, 100, 100},
		{"random neither", Random{}, Subset{}, 100, 100},
		{"all", PeakEWMA{}, Subset{Size: -1}, 100, 100},
		{"fixed", PeakEWMA{}, Subset{Size: 20}, 100, 20},
		{"more than there are", PeakEWMA{}, Subset{Size: 200}, 100, 100},
		{"few", PeakEWMA{}, Subset{}, 12, 12},
	} {
		p, fake := fakePool(t, Config{Algorithm: row.a, Rules: Rules{Subset: row.subset}}, in(0, row.n)...)
		assert.Equal(t, 1, fake.Pending(), "%s: only the sweep", row.name)
		fake.Advance(time.Minute)
		assert.Len(t, used(p), row.want, row.name)
	}
}

// What was sent before anybody looked does not count.
func TestSubset_CountsFromTheFirstLook_P01(t *testing.T) {
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}}, in(0, 100)...)
	attempts(t, p, 10000)
	require.NoError(t, p.Use(PeakEWMA{}, Rules{}))
	assert.Len(t, look(t, p, fake, 1, 2*time.Second), 12)
}

// Other rules are no reason to go to other endpoints.
func TestSubset_SurvivesOtherRules_P01(t *testing.T) {
	p, _ := fakePool(t, Config{Rules: Rules{Subset: Subset{Size: 5}}}, in(0, 50)...)
	before := used(p)
	require.NoError(t, p.Use(LeastRequest{}, Rules{Subset: Subset{Size: 5}, MaxInFlight: 10}))
	assert.Equal(t, before, used(p))

	p, fake := fakePool(t, Config{}, in(0, 50)...)
	before = look(t, p, fake, 1, 2*time.Second)
	require.Len(t, before, 12)
	require.NoError(t, p.Use(nil, Rules{MaxInFlight: 10}))
	assert.Equal(t, before, used(p))
}

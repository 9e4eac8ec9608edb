package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// tiersOf returns tiers of weight 100 of which so much is available.
func tiersOf(available ...float64) []tierLoad {
	tiers := make([]tierLoad, len(available))
	for i, a := range available {
		tiers[i] = tierLoad{available: a, total: 100}
	}
	return tiers
}

func sharesOf(tiers []tierLoad) []float64 {
	shares := make([]float64, len(tiers))
	for i, t := range tiers {
		shares[i] = 100 * t.share
	}
	return shares
}

// The tables of Envoy's documentation on priorities, with its factor of 1.4. Envoy
// calculates in whole percents, so a point of difference is no difference.
func TestDivide_EnvoysTables_B09(t *testing.T) {
	for _, row := range []struct{ healthy, want []float64 }{
		{[]float64{100}, []float64{100}},
		{[]float64{60}, []float64{100}},
		{[]float64{0}, []float64{100}}, // panic

		{[]float64{100, 100}, []float64{100, 0}},
		{[]float64{72, 100}, []float64{100, 0}},
		{[]float64{71, 100}, []float64{99, 1}},
		{[]float64{50, 100}, []float64{70, 30}},
		{[]float64{25, 100}, []float64{35, 65}},
		{[]float64{0, 100}, []float64{0, 100}},

		{[]float64{72, 72}, []float64{100, 0}},
		{[]float64{71, 71}, []float64{99, 1}},
		{[]float64{50, 50}, []float64{70, 30}},
		{[]float64{25, 25}, []float64{50, 50}},
		{[]float64{20 / 1.4, 30 / 1.4}, []float64{50, 50}}, // not 40/60 as without panic: both are in panic, and of one size

		{[]float64{100, 100, 100}, []float64{100, 0, 0}},
		{[]float64{72, 72, 100}, []float64{100, 0, 0}},
		{[]float64{71, 71, 100}, []float64{99, 1, 0}},
		{[]float64{50, 50, 100}, []float64{70, 30, 0}},
		{[]float64{25, 100, 100}, []float64{35, 65, 0}},
		{[]float64{25, 25, 100}, []float64{35, 35, 30}},
	} {
		tiers := tiersOf(row.healthy...)
		divide(tiers, Rules{}.WithDefaults())
		assert.InDeltaSlice(t, row.want, sharesOf(tiers), 1, "healthy: %v", row.healthy)
	}
	// Those in which all are in panic, with panic off.
	for _, row := range []struct{ healthy, want []float64 }{
		{[]float64{20 / 1.4, 30 / 1.4}, []float64{40, 60}},
		{[]float64{25, 25, 20}, []float64{36, 36, 28}},
		{[]float64{0, 0, 1}, []float64{0, 0, 100}},
	} {
		tiers := tiersOf(row.healthy...)
		divide(tiers, Rules{Panic: Panic{Threshold: -1}}.WithDefaults())
		assert.InDeltaSlice(t, row.want, sharesOf(tiers), 1, "healthy: %v", row.healthy)
	}
}

// The tables of Envoy's documentation on panic.
func TestDivide_PanicPerPriority_B09(t *testing.T) {
	for _, row := range []struct {
		healthy, want []float64
		panics        []bool
	}{
		{[]float64{49}, []float64{100}, []bool{true}},
		{[]float64{50}, []float64{100}, []bool{false}}, // below the threshold, not at it
		{[]float64{72, 100}, []float64{100, 0}, []bool{false, false}},
		{[]float64{25, 100}, []float64{35, 65}, []bool{false, false}}, // P1 can carry it
		{[]float64{0, 100}, []float64{0, 100}, []bool{false, false}},
		{[]float64{0, 72}, []float64{0, 100}, []bool{false, false}},
		{[]float64{0, 71}, []float64{0, 100}, []bool{true, false}},
		{[]float64{72, 72}, []float64{100, 0}, []bool{false, false}},
		{[]float64{50, 60}, []float64{70, 30}, []bool{false, false}},
		{[]float64{25, 25}, []float64{50, 50}, []bool{true, true}},
		{[]float64{5, 65}, []float64{7, 93}, []bool{true, false}},
		{[]float64{0, 0}, []float64{50, 50}, []bool{true, true}},
	} {
		tiers := tiersOf(row.healthy...)
		divide(tiers, Rules{}.WithDefaults())
		assert.InDeltaSlice(t, row.want, sharesOf(tiers), 1, "healthy: %v", row.healthy)
		for i := range tiers {
			assert.Equal(t, row.panics[i], tiers[i].inPanic, "healthy: %v, priority %d", row.healthy, i)
		}
	}
}

// When all priorities are in panic, their sizes decide, not who still seems to be
// healthy.
func TestDivide_InTotalPanicByWeight_B09(t *testing.T) {
	tiers := []tierLoad{{available: 9, total: 90}, {total: 10}}
	divide(tiers, Rules{}.WithDefaults())
	assert.InDeltaSlice(t, []float64{90, 10}, sharesOf(tiers), 1e-9)
}

func TestDivide_ThresholdAndFactor_B09(t *testing.T) {
	for _, row := range []struct {
		rules   Rules
		healthy float64
		panic   bool
		shares  []float64 // of this tier and of a healthy one after it
	}{
		{Rules{}, 1 / 1.4 * 100, false, []float64{100, 0}},
		{Rules{Priorities: Priorities{Overprovisioning: 1}}, 99, false, []float64{99, 1}},
		{Rules{Priorities: Priorities{Overprovisioning: 1}}, 100, false, []float64{100, 0}},
		{Rules{Priorities: Priorities{Overprovisioning: 2}}, 50, false, []float64{100, 0}},
		{Rules{Priorities: Priorities{Overprovisioning: 2}}, 25, true, []float64{50, 50}},
		{Rules{Panic: Panic{Threshold: 0.01}}, 1, false, []float64{1.4, 98.6}},
		{Rules{Panic: Panic{Threshold: 0.01}}, 0.9, true, []float64{1.26, 98.74}},
		{Rules{Panic: Panic{Threshold: 1}}, 71, true, []float64{99.4, 0.6}},
		{Rules{Panic: Panic{Threshold: 1}}, 72, false, []float64{100, 0}}, // it can carry all
		{Rules{Panic: Panic{Threshold: -1}}, 0, false, []float64{0, 100}},
		{Rules{Panic: Panic{Threshold: math.Inf(-1)}}, 1, false, []float64{1.4, 98.6}},
	} {
		rules := row.rules.WithDefaults()
		alone := tiersOf(row.healthy)
		divide(alone, rules)
		assert.Equal(t, row.panic, alone[0].inPanic, "%+v, %v healthy", row.rules, row.healthy)
		two := tiersOf(row.healthy, 100)
		divide(two, rules)
		assert.InDeltaSlice(t, row.shares, sharesOf(two), 1e-6, "%+v, %v healthy", row.rules, row.healthy)
		assert.False(t, two[0].inPanic, "the other can carry it")
	}
}

// With panic off, nothing that is unhealthy gets anything, and so nobody does when
// nothing is left.
func TestDivide_WithoutPanicNothingIsNothing_B09(t *testing.T) {
	tiers := tiersOf(0, 0)
	divide(tiers, Rules{Panic: Panic{Threshold: -1}}.WithDefaults())
	assert.Equal(t, []float64{0, 0}, sharesOf(tiers))
	assert.False(t, tiers[0].inPanic || tiers[1].inPanic)
}

func TestDivide_Standby_B07(t *testing.T) {
	regular := func(available float64) tierLoad { return tierLoad{available: available, total: 10} }
	standby := func(available float64) tierLoad { return tierLoad{available: available, total: 10, standby: true} }
	for _, row := range []struct {
		name  string
		tiers []tierLoad
		want  []float64
	}{
		{"nothing as long as all are well", []tierLoad{regular(10), standby(10)}, []float64{100, 0}},
		{"what others in panic cannot carry", []tierLoad{regular(0), regular(1), standby(10)}, []float64{0, 14, 86}},
		{"nothing in the panic of one tier", []tierLoad{regular(1), regular(10), standby(10)}, []float64{14, 86, 0}},
		{"nothing in a spill", []tierLoad{regular(5), regular(10), standby(10)}, []float64{70, 30, 0}},
		{"all when none is left", []tierLoad{regular(0), regular(0), standby(10)}, []float64{0, 0, 100}},
		{"all of it, with whatever it has", []tierLoad{regular(0), standby(1)}, []float64{0, 100}},
		{"nothing if it is down too: panic", []tierLoad{regular(0), standby(0)}, []float64{100, 0}},
		{"all if there are no others", []tierLoad{standby(10)}, []float64{100}},
		{"all if there are no others, down", []tierLoad{standby(0)}, []float64{100}},
	} {
		divide(row.tiers, Rules{}.WithDefaults())
		assert.InDeltaSlice(t, row.want, sharesOf(row.tiers), 1e-6, row.name)
	}
}

// A priority of which all are leaving has no weight.
func TestDivide_EmptyTiers(t *testing.T) {
	divide(nil, Rules{}.WithDefaults()) // does not panic
	for _, row := range []struct {
		tiers []tierLoad
		want  []float64
	}{
		{[]tierLoad{{}}, []float64{0}},
		{[]tierLoad{{}, {available: 1, total: 1}}, []float64{0, 100}},
		{[]tierLoad{{available: 1, total: 1}, {}}, []float64{100, 0}},
		{[]tierLoad{{}, {total: 1}}, []float64{0, 100}}, // panic
		{[]tierLoad{{}, {available: 1, total: 1, standby: true}}, []float64{0, 100}},
	} {
		divide(row.tiers, Rules{}.WithDefaults())
		assert.InDeltaSlice(t, row.want, sharesOf(row.tiers), 1e-6)
		assert.False(t, row.tiers[0].inPanic, "there is nobody to be unhealthy")
	}
}

// Whatever the tiers are: the shares add up to one, or there is nothing to give
// them to; none is negative or not a number; a tier without anything available
// gets something in panic only; an endpoint more never takes traffic from its
// own tier.
func TestDivide_Properties_B09(t *testing.T) {
	t.Parallel()
	const seed = 20
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for run := range 8000 {
		tiers := make([]tierLoad, random.IntN(6))
		for i := range tiers {
			tiers[i].total = random.ExpFloat64() * math.Pow(10, float64(random.IntN(7)-3))
			tiers[i].available = tiers[i].total * []float64{0, random.Float64(), 1}[random.IntN(3)]
			tiers[i].standby = i > 0 && (tiers[i-1].standby || random.IntN(5) == 0)
		}
		rules := Rules{
			Panic:      Panic{Threshold: []float64{-1, 0, random.Float64(), 1}[random.IntN(4)]},
			Priorities: Priorities{Overprovisioning: []float64{0, 1, 1 + random.Float64()}[random.IntN(3)]},
		}.WithDefaults()
		divide(tiers, rules)

		sum, usable := 0.0, anyAvailable(tiers)
		for i, tier := range tiers {
			require.GreaterOrEqual(t, tier.share, 0.0, "run %d, tier %d of %+v", run, i, tiers) // not NaN either
			require.LessOrEqual(t, tier.share, 1+1e-12, "run %d, tier %d of %+v", run, i, tiers)
			if tier.available == 0 && !tier.inPanic {
				require.Zero(t, tier.share, "run %d, tier %d of %+v", run, i, tiers)
			}
			sum += tier.share
			usable = usable || tier.inPanic
		}
		want := 0.0
		if usable {
			want = 1
		}
		require.InDelta(t, want, sum, 1e-9, "run %d: %+v under %+v", run, tiers, rules)

		if len(tiers) == 0 || rules.Panic.Threshold > 0 {
			continue // panic pulls traffic back
		}
		i := random.IntN(len(tiers))
		before := tiers[i].share
		better := make([]tierLoad, len(tiers))
		for k := range tiers {
			better[k] = tierLoad{standby: tiers[k].standby, available: tiers[k].available, total: tiers[k].total}
		}
		better[i].available += (better[i].total - better[i].available) * random.Float64()
		divide(better, rules)
		require.GreaterOrEqual(t, better[i].share, before-1e-9, "run %d, tier %d of %+v", run, i, tiers)
	}
}

// in returns endpoints of a priority, named by it and a number.
func in(priority, n int) []discovery.Endpoint {
	endpoints := make([]discovery.Endpoint, n)
	for i := range endpoints {
		endpoints[i] = discovery.Endpoint{Address: fmt.Sprintf("p%d-%d:80", priority, i), Priority: priority}
	}
	return endpoints
}

// Given two priorities whose endpoints fall ill one by one and recover, then each
// algorithm gives each priority what the formula says, all endpoints of one the
// same, and none to those that are ill.
func TestPriorities_TrafficFollowsTheShares_D07(t *testing.T) {
	t.Parallel()
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			t.Parallel()
			endpoints := append(in(0, 8), in(1, 4)...)
			p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, endpoints...)
			check := func(healthy int) {
				t.Helper()
				const picks = 3000
				got := attempts(t, p, picks)
				first := min(1, 1.4*float64(healthy)/8)
				for i, e := range endpoints {
					want := first / float64(max(healthy, 1))
					if e.Priority == 1 {
						want = (1 - first) / 4
					} else if i >= healthy {
						want = 0
					}
					assertShare(t, want, got[e.Address], picks, "%s, with %d healthy", e.Address, healthy)
				}
			}
			check(8)
			for healthy := 7; healthy >= 0; healthy-- {
				require.True(t, p.SetHealthy(endpoints[healthy].Key(), false))
				check(healthy)
			}
			for healthy := 1; healthy <= 8; healthy++ {
				require.True(t, p.SetHealthy(endpoints[healthy-1].Key(), true))
				check(healthy)
			}
		})
	}
}

// Given weights, then they count, not the number of endpoints.
func TestPriorities_HealthIsByWeight_B09(t *testing.T) {
	endpoints := append(in(0, 3), in(1, 1)...)
	endpoints[0].Weight = 8
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}}, endpoints...)
	p.SetHealthy(endpoints[1].Key(), false)
	p.SetHealthy(endpoints[2].Key(), false)
	assert.Equal(t, map[string]int{"p0-0:80": 100}, picked(t, p, 100), "8 of 10")
	p.SetHealthy(endpoints[1].Key(), true)
	p.SetHealthy(endpoints[2].Key(), true)
	p.SetHealthy(endpoints[0].Key(), false)
	const picks = 10000
	got := attempts(t, p, picks)
	assertShare(t, 0.72, got["p1-0:80"], picks, "1 - 1.4*2/10")
	assert.Zero(t, got["p0-0:80"])
}

// Numbers of priorities have gaps and come in any order, and endpoints that are
// leaving count neither as ill nor at all.
func TestPriorities_AnyNumbersAndLeavers_D07(t *testing.T) {
	endpoints := append(in(70, 2), in(3, 10)...)
	for i := range 8 {
		endpoints[2+i].Draining = true
	}
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}}, endpoints...)
	assert.Equal(t, map[string]int{"p3-8:80": 50, "p3-9:80": 50}, picked(t, p, 100), "2 of 2")
	p.SetHealthy(endpoints[11].Key(), false)
	const picks = 10000
	got := attempts(t, p, picks)
	assertShare(t, 0.7, got["p3-8:80"], picks, "1.4 * 1 of 2")
	assertShare(t, 0.15, got["p70-0:80"], picks, "half of the rest")

	endpoints = slices.Clone(endpoints)
	endpoints[10].Draining, endpoints[11].Draining = true, true
	p.update(endpoints)
	assert.Equal(t, map[string]int{"p70-0:80": 50, "p70-1:80": 50}, picked(t, p, 100), "the first priority has nobody left")
}

// A call that goes on tries every endpoint of every priority before one of them
// again, standby ones last.
func TestPriorities_RetriesMoveOn_R17(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			endpoints := append(append(in(0, 3), in(1, 3)...), in(2, 2)...)
			endpoints[6].Standby, endpoints[7].Standby = true, true
			p, _ := fakePool(t, Config{Algorithm: a}, endpoints...)
			p.SetHealthy(endpoints[0].Key(), false) // 2 of 3: some calls begin at priority 1
			began := map[int]int{}
			for range 500 {
				info := Info{Now: p.now()}
				var order []int
				for range 7 {
					pick := mustPick(t, p, info)
					require.NotContains(t, info.Tried, pick.Serial())
					require.NotEqual(t, endpoints[0].Address, pick.Endpoint().Address, "it is ill")
					info.Tried = append(info.Tried, pick.Serial())
					order = append(order, pick.Endpoint().Priority)
					finish(p, pick)
				}
				began[order[0]]++
				require.Equal(t, []int{2, 2}, order[5:], "standby")
				require.ElementsMatch(t, []int{0, 0, 1, 1, 1}, order[:5])
				finish(p, mustPick(t, p, info)) // and then anything
			}
			assertShare(t, 1.4*2/3, began[0], 500, "calls that begin at the first priority")
		})
	}
}

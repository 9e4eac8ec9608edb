package balancer

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

func TestSlowStart_Curve_B04(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		rules SlowStart
		age   time.Duration
		want  float64
	}{
		// By default: a straight line over 30 s, from a tenth.
		{SlowStart{}, 0, 0.1},
		{SlowStart{}, 3 * s, 0.1},
		{SlowStart{}, 6 * s, 0.2},
		{SlowStart{}, 15 * s, 0.5},
		{SlowStart{}, 29 * s, 29. / 30},
		{SlowStart{}, 30 * s, 1},
		{SlowStart{}, time.Hour, 1},
		{SlowStart{}, -time.Hour, 0.1}, // the clock went back
		// Within the first second nothing changes.
		{SlowStart{Window: 10 * s, Floor: 0.01}, 0, 0.1},
		{SlowStart{Window: 10 * s, Floor: 0.01}, s, 0.1},
		{SlowStart{Window: 10 * s, Floor: 0.01}, 2 * s, 0.2},
		{SlowStart{Window: s / 2}, 0, 1}, // no shorter than that second
		// Envoy's examples of aggression.
		{SlowStart{Window: 100 * s, Aggression: 2}, 25 * s, 0.5},
		{SlowStart{Window: 100 * s, Aggression: 0.5}, 50 * s, 0.25},
		{SlowStart{Window: 100 * s, Aggression: 2}, s, 0.1},
		{SlowStart{Window: 100 * s, Floor: 0.4}, 30 * s, 0.4},
		{SlowStart{Window: 100 * s, Floor: 0.4}, 50 * s, 0.5},
		{SlowStart{Window: 100 * s, Floor: 1}, 0, 1},
		{SlowStart{Window: 100 * s, Aggression: 1e-300}, 99 * s, 0.1},
		{SlowStart{Window: 100 * s, Aggression: 1e300}, s, 1},
		{SlowStart{Window: -1}, 0, 1},
	} {
		rules := Rules{SlowStart: row.rules}.WithDefaults().SlowStart
		assert.InDelta(t, row.want, rules.factor(row.age), 1e-9, "%+v after %v", row.rules, row.age)
	}
}

// Whatever the settings are: never below the floor, never above 1, never less than
// before.
func TestSlowStart_CurveProperties_B04(t *testing.T) {
	t.Parallel()
	random := seeded(t, 5)
	number := func(most float64) float64 { return float64(random()>>11) / (1 << 53) * most }
	for range 500 {
		rules := Rules{SlowStart: SlowStart{
			Window:     time.Duration(1 + number(1e12)),
			Floor:      number(1),
			Aggression: math.Exp(number(10) - 5),
		}}
		require.NoError(t, rules.Validate())
		s, before := rules.WithDefaults().SlowStart, 0.0
		for k := range int64(21) {
			f := s.factor(s.Window * time.Duration(k) / 20)
			require.GreaterOrEqual(t, f, s.Floor, "%+v, %d/20", s, k)
			require.LessOrEqual(t, f, 1.0, "%+v, %d/20", s, k)
			require.GreaterOrEqual(t, f, before, "%+v, %d/20", s, k)
			before = f
		}
		require.InDelta(t, 1, before, 0)
	}
}

// weightsOf returns what algorithms see of the endpoints.
func weightsOf(p *Pool) map[string]float64 {
	weights := map[string]float64{}
	for _, tier := range p.snapshot.Load().main.tiers {
		for _, c := range tier.candidates {
			weights[c.Endpoint().Address] = c.Weight()
		}
	}
	return weights
}

// Given a pool, when an endpoint joins, then its share of the traffic grows from a
// tenth to the whole over 30 s, in steps that are small, with each algorithm.
func TestSlowStart_ShareGrows_B04(t *testing.T) {
	t.Parallel()
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			t.Parallel()
			p, fake := fakePool(t, Config{Algorithm: a}, in(0, 9)...)
			attempts(t, p, 100)
			p.update(in(0, 10))
			before := 0.0
			for age := range 33 {
				weight := weightsOf(p)["p0-9:80"]
				assert.InDelta(t, min(1, max(0.1, float64(age)/30)), weight, 0.001, "after %d s", age)
				assert.GreaterOrEqual(t, weight, before)
				before = weight
				if age%4 == 0 {
					const picks = 6000
					share := weight / (9 + weight)
					assertShare(t, share, attempts(t, p, picks)["p0-9:80"], picks, "after %d s", age)
				}
				fake.Advance(time.Second)
			}
			assert.Len(t, weightsOf(p), 10)
			for address, w := range weightsOf(p) {
				assert.InDelta(t, 1, w, 0, address)
			}
		})
	}
}

// A heavy endpoint is still in slow start, by its own weight; a change of what
// discovery says of it begins nothing anew.
func TestSlowStart_WithWeightsAndUpdates_B04(t *testing.T) {
	with := func(weight float64, zone string) []discovery.Endpoint {
		e := in(0, 3)
		e[2].Weight, e[2].Zone = weight, zone
		return e
	}
	p, fake := fakePool(t, Config{}, in(0, 2)...)
	p.update(with(10, ""))
	fake.Advance(15 * time.Second)
	assert.InDelta(t, 5, weightsOf(p)["p0-2:80"], 1e-9)
	p.update(with(4, "z"))
	assert.InDelta(t, 2, weightsOf(p)["p0-2:80"], 1e-9)
	fake.Advance(15 * time.Second)
	assert.InDelta(t, 4, weightsOf(p)["p0-2:80"], 0)
}

// Endpoints that are found first all start at once; and if all are new, they have
// equal shares.
func TestSlowStart_AllNewAreEqual_B04(t *testing.T) {
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}}, addresses("a", "b")...)
	assert.Equal(t, map[string]float64{"a:80": 1, "b:80": 1}, weightsOf(p))
	fake.Advance(time.Hour)
	p.update(addresses("c", "d")) // a deployment
	assert.InDeltaMapValues(t, map[string]float64{"c:80": 0.5, "d:80": 0.5}, weightsOf(p), 1e-9)
	assert.Equal(t, map[string]int{"c:80": 50, "d:80": 50}, picked(t, p, 100))
	fake.Advance(10 * time.Second)
	assert.Equal(t, map[string]int{"c:80": 50, "d:80": 50}, picked(t, p, 100))

	p.update(nil)
	fake.Advance(time.Hour)
	p.update(addresses("e"))
	assert.Equal(t, map[string]float64{"e:80": 1}, weightsOf(p), "nobody else is there to relieve it")
}

// An endpoint that was unhealthy starts slowly again, also in the middle of a slow
// start. One that left and returns is new.
func TestSlowStart_AfterRecovery_B04(t *testing.T) {
	endpoints := addresses("a", "b", "c", "d")
	p, fake := fakePool(t, Config{}, endpoints...)
	judge(t, p, false, endpoints[0])
	fake.Advance(time.Minute)
	judge(t, p, true, endpoints[0])
	assert.InDelta(t, 0.1, weightsOf(p)["a:80"], 1e-9)
	fake.Advance(20 * time.Second)
	assert.InDelta(t, 2./3, weightsOf(p)["a:80"], 1e-9)
	judge(t, p, true, endpoints[0])
	assert.InDelta(t, 2./3, weightsOf(p)["a:80"], 1e-9, "it was healthy already")
	judge(t, p, false, endpoints[0])
	judge(t, p, true, endpoints[0])
	assert.InDelta(t, 0.1, weightsOf(p)["a:80"], 1e-9)
	fake.Advance(20 * time.Second)
	p.update(endpoints[1:])
	p.update(endpoints)
	assert.InDelta(t, 0.1, weightsOf(p)["a:80"], 1e-9)
	fake.Advance(30 * time.Second)
	for address, w := range weightsOf(p) {
		assert.InDelta(t, 1, w, 0, address)
	}
}

// Slow start changes how the endpoints of a priority share its traffic, not what the
// priority gets.
func TestSlowStart_DoesNotMovePriorities_B04(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}}, append(in(0, 1), in(1, 1)...)...)
	p.update(append(in(0, 4), in(1, 1)...))
	assert.Zero(t, picked(t, p, 1000)["p1-0:80"])
}

func TestSlowStart_Off_B04(t *testing.T) {
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, addresses("a", "b")...)
	pending := fake.Pending()
	p.update(addresses("a", "b", "c"))
	judge(t, p, false, addresses("a")...)
	judge(t, p, true, addresses("a")...)
	assert.Equal(t, map[string]float64{"a:80": 1, "b:80": 1, "c:80": 1}, weightsOf(p))
	assert.Equal(t, pending, fake.Pending(), "nothing has to be looked at again")

	require.NoError(t, p.Use(RoundRobin{}, Rules{})) // for those who come from now on
	assert.Equal(t, map[string]float64{"a:80": 1, "b:80": 1, "c:80": 1}, weightsOf(p))
	p.update(addresses("a", "b", "c", "d"))
	assert.InDelta(t, 0.1, weightsOf(p)["d:80"], 1e-9)
	require.NoError(t, p.Use(RoundRobin{}, Rules{SlowStart: SlowStart{Window: -1}}))
	assert.InDelta(t, 1, weightsOf(p)["d:80"], 0)
}

// A change of the algorithm, or of other rules, does not end it.
func TestSlowStart_GoesOnUnderOtherRules_P01(t *testing.T) {
	p, fake := fakePool(t, Config{}, addresses("a", "b")...)
	p.update(addresses("a", "b", "c"))
	fake.Advance(15 * time.Second)
	require.NoError(t, p.Use(LeastRequest{}, Rules{MaxInFlight: 9}))
	assert.InDelta(t, 0.5, weightsOf(p)["c:80"], 1e-9)
	fake.Advance(3 * time.Second)
	assert.InDelta(t, 0.6, weightsOf(p)["c:80"], 1e-9)
	require.NoError(t, p.Use(LeastRequest{}, Rules{SlowStart: SlowStart{Window: time.Minute}}))
	assert.InDelta(t, 0.3, weightsOf(p)["c:80"], 1e-9)
}

// While an endpoint is slow to start, one timer runs; then, and after Close, none.
func TestSlowStart_LeavesNoTimer_T18(t *testing.T) {
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}}, addresses("a", "b")...)
	idle := fake.Pending()
	p.update(addresses("a", "b", "c"))
	assert.Equal(t, idle+1, fake.Pending())
	judge(t, p, false, addresses("a", "b")...)
	judge(t, p, true, addresses("a", "b")...)
	assert.Equal(t, idle+1, fake.Pending(), "however many there are")
	fake.Advance(29 * time.Second)
	assert.Equal(t, idle+1, fake.Pending())
	fake.Advance(2 * time.Second)
	assert.Equal(t, idle, fake.Pending())

	p.update(addresses("a", "b", "c", "d"))
	p.update(addresses("a"))
	fake.Advance(time.Minute)
	assert.Equal(t, idle, fake.Pending(), "it has left")
	p.update(addresses("a", "b"))
	p.Close()
	assert.Zero(t, fake.Pending())
	fake.Advance(time.Hour)
	assert.Zero(t, fake.Pending())
}

// Given least request right after an update, when a new endpoint is idle and slow
// start off, then it is picked before those that are not. (httplb put it at the
// bottom of its heap.)
func TestLeastRequest_NewEndpointIsPicked_B04(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: LeastRequest{}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, addresses("a", "b", "c")...)
	var held []Pick
	for range 15 {
		held = append(held, mustPick(t, p, Info{}))
	}
	p.update(addresses("a", "b", "c", "d"))
	for range 5 {
		pick := mustPick(t, p, Info{})
		assert.Equal(t, "d:80", pick.Endpoint().Address)
		held = append(held, pick)
	}
	for _, pick := range held {
		pick.Done()
	}
}

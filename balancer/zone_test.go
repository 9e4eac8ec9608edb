package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// inZones returns endpoints, so many in each zone, named by it: "a-0:80".
func inZones(counts ...int) (endpoints []discovery.Endpoint) {
	for z, n := range counts {
		zone := string(rune('a' + z))
		for i := range n {
			endpoints = append(endpoints, discovery.Endpoint{Address: fmt.Sprintf("%s-%d:80", zone, i), Zone: zone})
		}
	}
	return endpoints
}

func TestDivideZones_B15(t *testing.T) {
	for _, row := range []struct {
		name    string
		zones   Zones
		weights []float64 // available in the zones a, b, c
		want    []float64 // percent
	}{
		{"even", Zones{}, []float64{3, 3, 3}, []float64{100, 0, 0}},
		{"local is large", Zones{}, []float64{7, 1, 1}, []float64{100, 0, 0}},
		{"at the factor", Zones{Overload: 1.5}, []float64{2, 4, 3}, []float64{100, 0, 0}},
		// u = 1.4/9, o = 1/3: u/o stays, the others have the same room.
		{"local is small", Zones{}, []float64{1, 4, 4}, []float64{46.667, 26.667, 26.667}},
		// Room: 1.4*6/9 - 1/3 = 0.6 and 1.4*2/9 - 1/3 < 0.
		{"one has no room", Zones{}, []float64{1, 6, 2}, []float64{46.667, 53.333, 0}},
		{"perfectly even", Zones{Overload: 1}, []float64{1, 4, 4}, []float64{33.333, 33.333, 33.333}},
		{"dead", Zones{}, []float64{0, 4, 2}, []float64{0, 100 * (5.6/6 - 1./3) / (5.6/6 - 1./3 + 2.8/6 - 1./3), 100 * (2.8/6 - 1./3) / (5.6/6 - 1./3 + 2.8/6 - 1./3)}},
		{"alone", Zones{}, []float64{3, 0, 0}, []float64{100, 0, 0}},
		{"one zone", Zones{}, []float64{3}, []float64{100}},
		{"all clients are here", Zones{Clients: map[string]float64{"a": 5}}, []float64{3, 3, 3}, []float64{46.667, 26.667, 26.667}},
		{"few clients are here", Zones{Clients: map[string]float64{"a": 1, "b": 9, "c": 5}}, []float64{1, 4, 4}, []float64{100, 0, 0}},
		// u = 1.4/9, o = 0.5; room: 5.6/9 - 0.4 and 5.6/9 - 0.1
		{"clients decide on the room", Zones{Clients: map[string]float64{"a": 5, "b": 4, "c": 1}}, []float64{1, 4, 4}, []float64{31.111, 20.566, 48.323}},
		// o = 3/12 instead of 3/9, because a quarter of the clients is where no endpoints are.
		{"clients where no endpoints are", Zones{Clients: map[string]float64{"a": 3, "b": 3, "c": 3, "d": 3}}, []float64{1, 4, 4}, []float64{62.222, 18.889, 18.889}},
		{"no clients here, they say", Zones{Clients: map[string]float64{"b": 1}}, []float64{1, 4, 4}, []float64{100, 0, 0}},
	} {
		row.zones.Local = "a"
		zones := make([]zoneLoad, len(row.weights))
		for i, w := range row.weights {
			zones[i] = zoneLoad{name: string(rune('a' + i)), available: w}
		}
		row.zones.withDefaults().divideZones(zones)
		got := make([]float64, len(zones))
		for i := range zones {
			got[i] = 100 * zones[i].share
		}
		assert.InDeltaSlice(t, row.want, got, 0.01, row.name)
	}
}

// Whatever the zones are: shares add up to one; zones without anything available get
// nothing; and if all clients do the same, and those of a zone are as many as they
// say, then no zone gets more than Overload times what its endpoints are due, unless
// it is the only one.
func TestDivideZones_Properties_B15(t *testing.T) {
	t.Parallel()
	const seed = 3
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for run := range 2000 {
		n := 1 + random.IntN(6)
		rules := Zones{Overload: []float64{0, 1, 1 + random.Float64()}[random.IntN(3)]}
		zones := make([]zoneLoad, n)
		total, alive := 0.0, 0
		for i := range zones {
			zones[i].name = string(rune('a' + i))
			if random.IntN(4) > 0 {
				zones[i].available = random.ExpFloat64() * 100
				total += zones[i].available
				alive++
			}
		}
		if total == 0 {
			continue // such a tier has no zones
		}
		if random.IntN(2) == 0 {
			rules.Clients = map[string]float64{"z": random.Float64(), "a": random.Float64()}
			for i := range random.IntN(n + 1) {
				rules.Clients[zones[i].name] = random.Float64() * 10
			}
		}
		rules = rules.withDefaults()
		loads := make([]float64, n)
		for i := range zones { // the clients of each zone
			rules.Local = zones[i].name
			view := slices.Clone(zones)
			rules.divideZones(view)
			sum := 0.0
			for k, l := range view {
				require.GreaterOrEqual(t, l.share, 0.0, "run %d: %+v", run, view)
				if l.available == 0 {
					require.Zero(t, l.share, "run %d: %+v", run, view)
				}
				sum += l.share
				loads[k] += l.share * rules.clientsOf(rules.Local) / rules.allClients(zones)
			}
			require.InDelta(t, 1, sum, 1e-9, "run %d: %+v", run, view)
		}
		for i, load := range loads {
			if alive > 1 {
				require.LessOrEqual(t, load, rules.Overload*zones[i].available/total+1e-9, "run %d, zone %d of %+v under %+v", run, i, zones, rules)
			}
		}
	}
}

// clientsIn returns pools of so many clients in each zone, all of the same
// endpoints.
func clientsIn(t testing.TB, a Algorithm, rules Rules, endpoints []discovery.Endpoint, counts ...int) (clients []*Pool) {
	t.Helper()
	for z, n := range counts {
		for i := range n {
			rules.Zones.Local = string(rune('a' + z))
			cfg := Config{Algorithm: a, Rules: rules, Rand: rand.NewPCG(uint64(z), uint64(i))}
			clients = append(clients, testPool(t, cfg, endpoints...))
		}
	}
	return clients
}

// The example of the behaviour: a zone with one of nine endpoints and a third of the
// clients. All clients together load no endpoint with more than Overload times the
// mean, and nothing fails. The same with other distributions.
func TestZones_WholeSystem_B15(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		endpoints []int
		clients   []int
		map_      map[string]float64 // nil is as documented
		overload  float64
		local     float64 // least part of the traffic that stays in its zone
	}{
		{[]int{3, 3, 3}, []int{3, 3, 3}, nil, 1.4, 1},
		{[]int{1, 4, 4}, []int{3, 3, 3}, nil, 1.4, 0.8},
		{[]int{4, 1, 4}, []int{3, 3, 3}, nil, 1, 0.75},
		{[]int{1, 1, 7}, []int{3, 3, 3}, nil, 1.4, 0.6},
		{[]int{2, 3, 4}, []int{6, 2, 1}, map[string]float64{"a": 6, "b": 2, "c": 1}, 1.4, 0.6},
		{[]int{3, 3, 3}, []int{9, 0, 0}, map[string]float64{"a": 9}, 1.4, 0.46},
		{[]int{0, 5, 4}, []int{3, 3, 3}, nil, 1.4, 0.6}, // those of the zone without endpoints go anywhere
	} {
		for _, a := range allAlgorithms {
			t.Run(fmt.Sprintf("%v_%v_%T", row.endpoints, row.clients, a), func(t *testing.T) {
				t.Parallel()
				rules := Rules{Zones: Zones{Clients: row.map_, Overload: row.overload}}
				endpoints := inZones(row.endpoints...)
				loads, stayed := map[string]int{}, 0
				const picks = 1000
				clients := clientsIn(t, a, rules, endpoints, row.clients...)
				for _, p := range clients {
					for address, n := range attempts(t, p, picks) {
						loads[address] += n
						if address[:1] == p.rules.Zones.Local {
							stayed += n
						}
					}
				}
				all := picks * len(clients)
				mean := float64(all) / float64(len(endpoints))
				tolerance := 5 * math.Sqrt(mean)
				assert.Len(t, loads, len(endpoints), "nobody starves")
				for address, n := range loads {
					assert.LessOrEqual(t, float64(n), row.overload*mean+tolerance, "%s", address)
				}
				assert.GreaterOrEqual(t, float64(stayed), row.local*float64(all)-tolerance, "no more than necessary leaves its zone")
			})
		}
	}
}

// Given a local zone whose endpoints fall ill one by one, then no pick fails, none
// goes to those, each takes away only the traffic that it could carry, and the last
// one takes the rest to the other zones at once. Recovery is the way back.
func TestZones_DeadZone_B15(t *testing.T) {
	t.Parallel()
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			t.Parallel()
			endpoints := inZones(5, 5, 5)
			rules := Rules{Zones: Zones{Local: "a"}, SlowStart: SlowStart{Window: -1}}
			p, _ := fakePool(t, Config{Algorithm: a, Rules: rules}, endpoints...)
			const picks = 2000
			local := func(healthy int) float64 {
				t.Helper()
				got, n := attempts(t, p, picks), 0
				for i, e := range endpoints[:5] {
					n += got[e.Address]
					assert.Equal(t, i < healthy, got[e.Address] > 0, "%s, with %d healthy", e.Address, healthy)
				}
				u := 1.4 * float64(healthy) / float64(healthy+10)
				assertShare(t, min(1, u*3), n, picks, "%d healthy", healthy)
				return float64(n) / picks
			}
			before := local(5)
			for healthy := 4; healthy >= 0; healthy-- {
				judge(t, p, false, endpoints[healthy])
				after := local(healthy)
				assert.Less(t, before-after, 0.45, "the loss of one flips nothing")
				before = after
			}
			for healthy := 1; healthy <= 5; healthy++ {
				judge(t, p, true, endpoints[healthy-1])
				local(healthy)
			}
			p.update(endpoints[5:])
			assert.Len(t, attempts(t, p, 1000), 10, "the zone is empty")
			p.update(endpoints)
			assert.Positive(t, attempts(t, p, 1000)[endpoints[0].Address], "and back")
		})
	}
}

// Given that the endpoints of all other zones fall ill, then the local zone carries
// on alone, also when it is slow.
func TestZones_OthersAreDead_B15(t *testing.T) {
	for _, a := range allAlgorithms {
		endpoints := inZones(6, 2, 2)
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Zones: Zones{Local: "a"}}}, endpoints...)
		judge(t, p, false, endpoints[6:]...)
		took := map[string]time.Duration{"a": time.Second}
		assert.Equal(t, map[string]int{"a": 200}, latencies(t, p, 200, took), "%T", a)
	}
}

// In panic there are no zones: health is ignored, and with it where it is.
func TestZones_NotInPanic_B15(t *testing.T) {
	endpoints := inZones(3, 3, 3)
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Zones: Zones{Local: "a"}}}, endpoints...)
	assert.Len(t, picked(t, p, 90), 3)
	judge(t, p, false, endpoints[3:7]...)
	assert.Len(t, picked(t, p, 90), 3)
	judge(t, p, false, endpoints[7])
	got := picked(t, p, 90)
	for _, e := range endpoints {
		assert.Equal(t, 10, got[e.Address], "%s", e.Address)
	}
	judge(t, p, true, endpoints[7])
	assert.Len(t, picked(t, p, 90), 3)
}

// Where zones have no say, all endpoints get the same.
func TestZones_DoNotApply_B15(t *testing.T) {
	unknown := inZones(3, 3, 3)
	for i := range unknown {
		unknown[i].Address, unknown[i].Zone = "unknown-"+unknown[i].Address, ""
	}
	for _, row := range []struct {
		name      string
		zones     Zones
		endpoints []discovery.Endpoint
		used      int
	}{
		{"off", Zones{}, inZones(3, 3, 3), 9},
		{"in a zone without endpoints", Zones{Local: "x"}, inZones(3, 3, 3), 9},
		{"everything is local", Zones{Local: "a"}, inZones(9), 9},
		{"nothing says where it is", Zones{Local: "a"}, unknown, 9},
		{"too few endpoints", Zones{Local: "a"}, inZones(2, 2, 1), 5},
		{"just enough", Zones{Local: "a"}, inZones(2, 2, 2), 2},
		{"too few, they say", Zones{Local: "a", MinEndpoints: 10}, inZones(3, 3, 3), 9},
		{"enough, they say", Zones{Local: "a", MinEndpoints: 2}, inZones(1, 1), 1},
		{"some unknown", Zones{Local: "a"}, append(inZones(9), unknown...), 9},
	} {
		p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Zones: row.zones}}, row.endpoints...)
		assert.Len(t, picked(t, p, 900), row.used, row.name)
	}
}

// Endpoints of which the zone is not known are a zone of their own. Those that are
// leaving are in none.
func TestZones_UnknownAndLeaving_B15(t *testing.T) {
	endpoints := inZones(1, 2, 6)
	for i := range endpoints[3:] {
		endpoints[3+i].Zone = ""
	}
	endpoints[1].Draining, endpoints[2].Draining = true, true
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Zones: Zones{Local: "a"}}}, endpoints...)
	const picks = 10000
	got := attempts(t, p, picks)
	assertShare(t, 1.4/7*2, got["a-0:80"], picks, "1 of 7, in one of two zones")
	assert.Len(t, got, 7)
}

// Given that the zone of unknown endpoints is the only one with room, then it gets
// what the local zone cannot carry, and the others get nothing.
func TestZones_UnknownZoneHasAllTheRoom_B15(t *testing.T) {
	endpoints := inZones(3, 1, 6)
	for i := range endpoints[4:] {
		endpoints[4+i].Zone = ""
	}
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{
		Zones: Zones{Local: "a", Clients: map[string]float64{"a": 1, "b": 1}}, Panic: Panic{Threshold: -1},
	}}, endpoints...)
	judge(t, p, false, endpoints[:3]...)
	got := picked(t, p, 600)
	assert.Len(t, got, 6)
	assert.Zero(t, got["b-0:80"])
}

// Zones divide what their priority gets, not more.
func TestZones_WithinAPriority_B15(t *testing.T) {
	endpoints := append(inZones(4, 4), in(1, 8)...)
	for i := range 8 {
		endpoints[8+i].Zone = string(rune('a' + i/4))
	}
	rules := Rules{Zones: Zones{Local: "a"}}
	p, _ := fakePool(t, Config{Algorithm: Random{}, Rules: rules}, endpoints...)
	assert.Len(t, picked(t, p, 1000), 4, "the first priority, local")
	judge(t, p, false, endpoints[4:8]...)
	const picks = 20000
	got := attempts(t, p, picks)
	for i, e := range endpoints {
		want := 0.0
		switch {
		case i < 4:
			want = 0.7 / 4 // though its zone is the only one: 4 of 8 are healthy
		case i >= 8 && i < 12:
			want = 0.3 / 4
		}
		assertShare(t, want, got[e.Address], picks, "%s", e.Address)
	}
}

// latencies sends attempts one after the other, each of which takes as long as its
// zone says, and returns how many each zone gets.
func latencies(t testing.TB, p *Pool, n int, took map[string]time.Duration) map[string]int {
	t.Helper()
	fake := p.clock.(interface{ Advance(time.Duration) })
	got := map[string]int{}
	for range n {
		pick := mustPick(t, p, Info{Now: p.now()})
		zone := pick.Endpoint().Zone
		got[zone]++
		fake.Advance(took[zone])
		pick.Answered(outcome.Answer{Now: p.now(), Took: took[zone], Class: outcome.Success})
		pick.Done()
	}
	return got
}

// Given a local zone that is slower than the others by more than the tolerance, then
// traffic goes there; by less, then it stays. Algorithms that cannot tell stay.
func TestZones_SlowLocalZone_B15(t *testing.T) {
	const picks = 2000
	for _, row := range []struct {
		name          string
		a             Algorithm
		tolerance     time.Duration
		local, remote time.Duration
		stays         bool
	}{
		{"equal", PeakEWMA{}, 0, 10 * time.Millisecond, 10 * time.Millisecond, true},
		{"slower, but within 5ms", PeakEWMA{}, 0, 14 * time.Millisecond, 10 * time.Millisecond, true},
		{"slower than that", PeakEWMA{}, 0, 30 * time.Millisecond, 10 * time.Millisecond, false},
		{"half as fast, but within 5ms", PeakEWMA{}, 0, 8 * time.Millisecond, 3500 * time.Microsecond, true},
		{"within a larger tolerance", PeakEWMA{}, 50 * time.Millisecond, 30 * time.Millisecond, 10 * time.Millisecond, true},
		{"not looked at", PeakEWMA{}, -1, time.Second, 10 * time.Millisecond, true},
		{"not known", LeastRequest{}, 0, time.Second, 10 * time.Millisecond, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			rules := Rules{Zones: Zones{Local: "a", Tolerance: row.tolerance}}
			p, _ := fakePool(t, Config{Algorithm: row.a, Rules: rules}, inZones(3, 3, 3)...)
			took := map[string]time.Duration{"a": row.local, "b": row.remote, "c": row.remote}
			latencies(t, p, 100, took) // they get to know each other
			got := latencies(t, p, picks, took)
			if row.stays {
				assert.Equal(t, picks, got["a"])
				return
			}
			assert.Greater(t, got["b"], picks/4, "both of the others")
			assert.Greater(t, got["c"], picks/4, "both of the others")

			latencies(t, p, 2000, map[string]time.Duration{"a": row.remote, "b": row.remote, "c": row.remote})
			got = latencies(t, p, picks, map[string]time.Duration{"a": row.remote, "b": row.remote, "c": row.remote})
			assert.Greater(t, got["a"], picks*95/100, "it is as fast again")
		})
	}
}

// Given zones that are equally fast, whatever that means, then traffic stays in its
// own, however many requests are under way at once.
func TestZones_EqualZonesKeepTheirTraffic_B15(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond} {
		for _, concurrency := range []int{1, 3, 10, 30} {
			p, fake := fakePool(t, Config{Rules: Rules{Zones: Zones{Local: "a"}}}, inZones(3, 3, 3)...)
			const picks, warmUp = 3000, 500
			random := rand.New(rand.NewPCG(1, 1))
			local := 0
			inParallel(t, p, fake, concurrency, picks, func(i int, pick Pick) time.Duration {
				if i >= warmUp && pick.Endpoint().Zone == "a" {
					local++
				}
				return latency/2 + time.Duration(random.Int64N(int64(latency)))
			})
			assert.Greater(t, float64(local)/(picks-warmUp), 0.9, "latency %v, %d at once", latency, concurrency)
		}
	}
}

// One slow endpoint of the local zone is the algorithm's matter: the zone is left
// only where its pick is slow.
func TestZones_OneSlowEndpoint_B15(t *testing.T) {
	p, fake := fakePool(t, Config{Rules: Rules{Zones: Zones{Local: "a"}}}, inZones(3, 3, 3)...)
	got := map[string]int{}
	for range 1000 {
		pick := mustPick(t, p, Info{Now: p.now()})
		e := pick.Endpoint()
		got[e.Address]++
		took := 10 * time.Millisecond
		if e.Address == "a-0:80" {
			took = time.Second
		}
		fake.Advance(took)
		pick.Answered(outcome.Answer{Now: p.now(), Took: took, Class: outcome.Success})
		pick.Done()
	}
	assert.Less(t, got["a-0:80"], 20)
	assert.Greater(t, got["a-1:80"]+got["a-2:80"], 970)
}

// halfEstimator is a user's algorithm whose pickers can tell the cost only where
// they have two endpoints or more.
type halfEstimator struct{}

func (halfEstimator) NewBuilder(Env) (Builder, error)                { return halfEstimator{}, nil }
func (halfEstimator) Observer(discovery.Endpoint, Observer) Observer { return nil }
func (halfEstimator) Build(g Group) Picker {
	if len(g.Candidates) > 1 {
		return costly{}
	}
	return cheap{}
}

type cheap struct{}

func (cheap) Pick(Info) int { return 0 }

type costly struct{ cheap }

func (costly) estimate(Info, int, bool) float64 { return 10 }

var _ estimator = costly{}

// An algorithm may make pickers of different types. Those that cannot tell are not
// asked.
func TestZones_PickersOfDifferentTypes(t *testing.T) {
	p := testPool(t, Config{Algorithm: halfEstimator{}, Rules: Rules{Zones: Zones{Local: "a", MinEndpoints: 1}}}, inZones(3, 1)...)
	assert.NotPanics(t, func() { mustPick(t, p, Info{}).Done() })
}

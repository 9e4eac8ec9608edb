package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// fakePool returns a pool with a clock that stands still and random numbers that
// are the same in each run.
func fakePool(t testing.TB, cfg Config, endpoints ...discovery.Endpoint) (*Pool, *clock.Fake) {
	t.Helper()
	const seed = 7
	t.Logf("seed %d", seed)
	fake := clock.NewFake(epoch)
	cfg.Clock, cfg.Rand = fake, rand.NewPCG(seed, 0)
	return testPool(t, cfg, endpoints...), fake
}

// finish ends an attempt that was answered well, after a millisecond.
func finish(p *Pool, pick Pick) {
	pick.Answered(outcome.Answer{Now: p.now(), Took: time.Millisecond, Class: outcome.Success})
	pick.Done()
}

// attempts returns how often each address gets one of so many attempts, one after
// the other.
func attempts(t testing.TB, p *Pool, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		pick := mustPick(t, p, Info{Now: p.now()})
		got[pick.Endpoint().Address]++
		finish(p, pick)
	}
	return got
}

// inParallel sends attempts, so many at a time, each of which is answered well after
// the time that took says. The clock moves from one answer to the next.
func inParallel(t testing.TB, p *Pool, fake *clock.Fake, concurrency, n int, took func(i int, pick Pick) time.Duration) {
	t.Helper()
	type attempt struct {
		Pick
		took time.Duration
		over time.Time
	}
	var open []attempt // by the time at which they are over
	for i := 0; i < n || len(open) > 0; {
		if i < n && len(open) < concurrency {
			a := attempt{Pick: mustPick(t, p, Info{Now: p.now()})}
			a.took = took(i, a.Pick)
			a.over = fake.Now().Add(a.took)
			at, _ := slices.BinarySearchFunc(open, a, func(x, y attempt) int { return x.over.Compare(y.over) })
			open = slices.Insert(open, at, a)
			i++
			continue
		}
		a := open[0]
		open = open[1:]
		fake.Advance(a.over.Sub(fake.Now()))
		a.Answered(outcome.Answer{Now: p.now(), Took: a.took, Class: outcome.Success})
		a.Done()
	}
}

// assertShare asserts that got is a share of n, give or take five standard
// deviations.
func assertShare(t testing.TB, share float64, got, n int, msgAndArgs ...any) {
	t.Helper()
	want := share * float64(n)
	assert.InDelta(t, want, got, 5*math.Sqrt(want*max(1-share, 0))+2, msgAndArgs...)
}

// All that is wrong is told, all at once, each with the name of its field from the
// outside in.
func TestRules_EveryNonsenseIsRefused(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, row := range []struct {
		name  string
		rules Rules
		want  []string // fields
	}{
		{"overprovisioning below 1", Rules{Priorities: Priorities{Overprovisioning: 0.99}}, []string{"Priorities.Overprovisioning"}},
		{"overprovisioning negative", Rules{Priorities: Priorities{Overprovisioning: -1}}, []string{"Priorities.Overprovisioning"}},
		{"overprovisioning NaN", Rules{Priorities: Priorities{Overprovisioning: nan}}, []string{"Priorities.Overprovisioning"}},
		{"overprovisioning infinite", Rules{Priorities: Priorities{Overprovisioning: inf}}, []string{"Priorities.Overprovisioning"}},
		{"threshold above 1", Rules{Panic: Panic{Threshold: 1.01}}, []string{"Panic.Threshold"}},
		{"threshold NaN", Rules{Panic: Panic{Threshold: nan}}, []string{"Panic.Threshold"}},
		{"floor negative", Rules{SlowStart: SlowStart{Floor: -0.1}}, []string{"SlowStart.Floor"}},
		{"floor above 1", Rules{SlowStart: SlowStart{Floor: 2}}, []string{"SlowStart.Floor"}},
		{"floor NaN", Rules{SlowStart: SlowStart{Floor: nan}}, []string{"SlowStart.Floor"}},
		{"aggression negative", Rules{SlowStart: SlowStart{Aggression: -1}}, []string{"SlowStart.Aggression"}},
		{"aggression NaN", Rules{SlowStart: SlowStart{Aggression: nan}}, []string{"SlowStart.Aggression"}},
		{"aggression infinite", Rules{SlowStart: SlowStart{Aggression: inf}}, []string{"SlowStart.Aggression"}},
		{"overload below 1", Rules{Zones: Zones{Overload: 0.5}}, []string{"Zones.Overload"}},
		{"overload NaN", Rules{Zones: Zones{Overload: nan}}, []string{"Zones.Overload"}},
		{"overload infinite", Rules{Zones: Zones{Overload: inf}}, []string{"Zones.Overload"}},
		{"zones of few", Rules{Zones: Zones{MinEndpoints: -1}}, []string{"Zones.MinEndpoints"}},
		{"clients negative", Rules{Zones: Zones{Clients: map[string]float64{"a": -1, "b": 2}}}, []string{"Zones.Clients[a]"}},
		{"clients NaN", Rules{Zones: Zones{Clients: map[string]float64{"a": nan, "b": 2}}}, []string{"Zones.Clients[a]"}},
		{"clients infinite", Rules{Zones: Zones{Clients: map[string]float64{"a": inf, "b": 2}}}, []string{"Zones.Clients[a]"}},
		{"nobody anywhere", Rules{Zones: Zones{Clients: map[string]float64{"a": 0}}}, []string{"Zones.Clients"}},
		{"an empty map", Rules{Zones: Zones{Clients: map[string]float64{}}}, []string{"Zones.Clients"}},
		{"clients of the subset", Rules{Subset: Subset{Clients: -1}}, []string{"Subset.Clients"}},
		{"ordinal negative", Rules{Subset: Subset{Clients: 3, Ordinal: -1}}, []string{"Subset.Ordinal"}},
		{"ordinal too large", Rules{Subset: Subset{Clients: 3, Ordinal: 3}}, []string{"Subset.Ordinal"}},
		{"ordinal without clients", Rules{Subset: Subset{Ordinal: 3}}, []string{"Subset.Ordinal"}},
		{"an empty route", Rules{Routes: []Route{{}}}, []string{"Routes[0].Attribute", "Routes[0].From"}},
		{"a route from nowhere", Rules{Routes: []Route{byVersion, {Attribute: "a", From: []HashKey{{}}}}}, []string{"Routes[1].From[0].Header"}},
		{"a route from two places", Rules{Routes: []Route{{Attribute: "a", From: []HashKey{{Path: true}, {Header: "a", Path: true}}}}}, []string{"Routes[0].From[1].Path"}},
		{"a fallback that does not exist", Rules{Routes: []Route{with(byVersion, func(r *Route) { r.Fallback = 7 })}}, []string{"Routes[0].Fallback"}},
		{"a negative fallback", Rules{Routes: []Route{with(byVersion, func(r *Route) { r.Fallback = -1 })}}, []string{"Routes[0].Fallback"}},
		{"fallback to no default", Rules{Routes: []Route{with(byVersion, func(r *Route) { r.Fallback = FallbackDefault })}}, []string{"Routes[0].Default"}},
		{"cap negative", Rules{MaxInFlight: -1}, []string{"MaxInFlight"}},
		{"cap too large", Rules{MaxInFlight: 1<<20 + 1}, []string{"MaxInFlight"}},
		{"timeout negative", Rules{Queue: Queue{Timeout: -1}}, []string{"Queue.Timeout"}},
		{"age negative", Rules{MaxConnectionAge: -1}, []string{"MaxConnectionAge"}},
		{"much at once", Rules{
			Priorities: Priorities{Overprovisioning: nan}, Panic: Panic{Threshold: 7}, SlowStart: SlowStart{Floor: 7, Aggression: -7},
			Zones: Zones{Overload: -7, MinEndpoints: -7}, Subset: Subset{Clients: -7, Ordinal: -7}, Routes: []Route{{}, {}},
			MaxInFlight: -7, Queue: Queue{Timeout: -7}, MaxConnectionAge: -7,
		}, []string{
			"Priorities.Overprovisioning", "Panic.Threshold", "SlowStart.Floor", "SlowStart.Aggression", "Zones.Overload",
			"Zones.MinEndpoints", "Subset.Clients", "Subset.Ordinal", "Routes[0].Attribute", "Routes[0].From",
			"Routes[1].Attribute", "Routes[1].From", "MaxInFlight", "Queue.Timeout", "MaxConnectionAge",
		}},
	} {
		assert.Equal(t, row.want, fieldsOf(row.rules.Validate()), row.name)
		_, err := NewPool(Config{Resolver: silent{}, Rules: row.rules})
		for i := range row.want {
			row.want[i] = "Rules." + row.want[i]
		}
		assert.Equal(t, row.want, fieldsOf(err), row.name)
	}
}

// fieldsOf returns the fields that an error names.
func fieldsOf(err error) (names []string) {
	switch err := err.(type) {
	case *field.Error:
		return []string{err.Field}
	case interface{ Unwrap() []error }:
		for _, part := range err.Unwrap() {
			names = append(names, fieldsOf(part)...)
		}
	}
	return names
}

// What means "off" or "the default" is no mistake.
func TestRules_Valid(t *testing.T) {
	for _, rules := range []Rules{
		{},
		Rules{}.WithDefaults(),
		{Panic: Panic{Threshold: -1}},
		{Panic: Panic{Threshold: math.Inf(-1)}},
		{Panic: Panic{Threshold: 1, Reject: true}, Priorities: Priorities{Overprovisioning: 1}},
		{SlowStart: SlowStart{Window: -1, Floor: 1, Aggression: 100}},
		{Zones: Zones{Local: "a", Clients: map[string]float64{"a": 0, "b": 1}, Tolerance: -1, Overload: 1}},
		{Subset: Subset{Size: -1}},
		{Subset: Subset{Size: math.MaxInt32, Clients: 10, Ordinal: 9, Seed: "x"}},
		{Routes: []Route{byVersion}},
		{MaxInFlight: 1 << 20, Queue: Queue{Size: -1}},
		{MaxConnectionAge: 1},
	} {
		assert.NoError(t, rules.Validate(), "%+v", rules)
		testPool(t, Config{Rules: rules}, inZones(3, 3, 3)...)
	}
}

// Invalid rules change nothing.
func TestRules_UseOfInvalidOnes_P01(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Reject: true}}}, addresses("a", "b", "c", "d")...)
	assert.Equal(t, []string{"MaxInFlight"}, fieldsOf(p.Use(Random{}, Rules{MaxInFlight: -1})))
	assert.Error(t, p.Use(PeakEWMA{Choices: 99}, Rules{MaxInFlight: 1}))
	held := mustPick(t, p, Info{})
	assert.Equal(t, evenly(100, "a", "b", "c", "d"), picked(t, p, 100), "as before")
	held.Done()
	judge(t, p, false, addresses("a", "b", "c")...)
	_, err := p.Pick(Info{})
	assert.ErrorIs(t, err, ErrNoEndpoints, "as before")
}

// The defaults are those that the documentation names.
func TestRules_Defaults(t *testing.T) {
	assert.Equal(t, Rules{
		Priorities: Priorities{Overprovisioning: 1.4},
		Panic:      Panic{Threshold: 0.5},
		SlowStart:  SlowStart{Window: 30 * time.Second, Floor: 0.1, Aggression: 1},
		MaxPark:    5 * time.Minute,
	}, withoutQueue(Rules{}.WithDefaults()))
	assert.Equal(t, Zones{Local: "a", Overload: 1.4, Tolerance: 5 * time.Millisecond, MinEndpoints: 6},
		Rules{Zones: Zones{Local: "a"}}.WithDefaults().Zones)
	assert.Equal(t, Queue{Size: 128, Timeout: time.Second}, Rules{MaxInFlight: 1}.WithDefaults().Queue)

	own := Rules{
		Priorities: Priorities{Overprovisioning: 2}, Panic: Panic{Threshold: -1, Reject: true},
		SlowStart:   SlowStart{Window: -1, Floor: 0.2, Aggression: 3},
		Zones:       Zones{Local: "a", Clients: map[string]float64{"a": 1}, Overload: 2, Tolerance: -1, MinEndpoints: 1},
		Subset:      Subset{Size: 3, Seed: "s", Clients: 4, Ordinal: 3},
		Routes:      []Route{byVersion},
		MaxInFlight: 5, Queue: Queue{Size: -1, Timeout: time.Hour}, MaxConnectionAge: time.Hour, HideLoadReports: true,
		MaxPark: time.Minute,
	}
	assert.Equal(t, own, own.WithDefaults(), "what is set stays")
	assert.Equal(t, own.WithDefaults(), own.WithDefaults().WithDefaults())
}

// withoutQueue leaves out what has no effect without MaxInFlight.
func withoutQueue(r Rules) Rules {
	r.Queue = Queue{}
	return r
}

// Weights that are absurd, but valid, starve nobody.
func TestRules_ExtremeWeights_B07(t *testing.T) {
	for _, weight := range []float64{math.MaxFloat64, 1e300, 1e-300, math.SmallestNonzeroFloat64} {
		for _, a := range allAlgorithms {
			for _, zone := range []string{"", "a"} {
				endpoints := inZones(4, 4)
				for i := range endpoints {
					endpoints[i].Weight = weight
				}
				p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Zones: Zones{Local: zone}}}, endpoints...)
				judge(t, p, false, endpoints[7])
				want := 7
				if zone != "" {
					want = 4
				}
				const picks = 2000
				got := attempts(t, p, picks)
				assert.Len(t, got, want, "%T, weight %v, zone %q", a, weight, zone)
				for address, n := range got {
					assertShare(t, 1/float64(want), n, picks, "%T, weight %v, zone %q: %s", a, weight, zone, address)
				}
			}
		}
	}
}

// Rules by which a key would go here today and there tomorrow do not apply to
// algorithms that pick by key. The others do, and a key keeps to its priority.
func TestRules_WithKeys_B16(t *testing.T) {
	for _, a := range []Algorithm{
		Rendezvous{Keys: userKey}, RingHash{Keys: userKey, MinSize: 64}, Maglev{Keys: userKey, TableSize: 1009},
	} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			rules := Rules{Zones: Zones{Local: "a"}, Subset: Subset{Size: 2}}
			before := append(inZones(4, 4), in(1, 4)...)
			p, fake := fakePool(t, Config{Algorithm: a, Rules: rules}, before...)
			p.update(append(slices.Clone(before), inZones(0, 0, 1)...))
			weights := weightsOf(p)
			assert.Len(t, weights, 13, "neither zones nor a subset")
			assert.InDelta(t, 1, weights["c-0:80"], 0, "no slow start")
			fake.Advance(time.Minute)
			p.update(before)

			const users = 2000
			pickAll := func() []string {
				got := make([]string, users)
				for user := range users {
					req := &http.Request{Header: http.Header{"X-User": {fmt.Sprint(user)}}}
					pick := mustPick(t, p, Info{Now: p.now(), Request: req})
					got[user] = pick.Endpoint().Address
					finish(p, pick)
				}
				return got
			}
			usual := pickAll()
			judge(t, p, false, before[:4]...) // half of the first priority
			spilt, first := pickAll(), 0
			for user := range users {
				if spilt[user][:1] == "b" {
					first++
					if usual[user][:1] == "b" {
						require.Equal(t, usual[user], spilt[user], "user %d", user)
					}
				}
			}
			assertShare(t, 0.7, first, users, "as with every algorithm")
			require.Equal(t, spilt, pickAll(), "a key keeps to its priority")
			judge(t, p, true, before[:4]...)
			require.Equal(t, usual, pickAll())
		})
	}
}

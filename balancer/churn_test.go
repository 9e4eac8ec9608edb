package balancer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

var userKey = []HashKey{{Header: "X-User"}}

// churned is all algorithms, with what makes them do the most, and small
// tables, because they are built so often.
var churned = []Algorithm{
	RoundRobin{},
	Random{},
	LeastRequest{},
	PeakEWMA{},
	RingHash{Keys: userKey, MinSize: 64, LoadFactor: 1.25, Fallback: PeakEWMA{}},
	Maglev{Keys: userKey, TableSize: 101, Fallback: LoadWeighted{}},
	Rendezvous{Keys: userKey, LoadFactor: 2},
	LoadWeighted{},
	HotCold{},
}

// richRules are rules that do much at once.
func richRules() []Rules {
	fail := with(byVersion, func(r *Route) { r.Fallback = FallbackFail })
	fallback := with(byVersion, func(r *Route) { r.Fallback, r.Default = FallbackDefault, "1" })
	zones := Zones{Local: "a", MinEndpoints: 2}
	return []Rules{
		{},
		{Zones: zones, MaxInFlight: 3, Subset: Subset{Size: 4}},
		{Panic: Panic{Threshold: -1}, Routes: []Route{byVersion}, SlowStart: SlowStart{Window: -1}},
		{Panic: Panic{Reject: true}, Priorities: Priorities{Overprovisioning: 1}, SlowStart: SlowStart{Window: 5 * time.Second}},
		{
			MaxInFlight: 2, Routes: []Route{fail, fallback}, Subset: Subset{Size: 3, Clients: 7, Ordinal: 3},
			Zones: Zones{Local: "b", MinEndpoints: 1, Clients: map[string]float64{"a": 1, "b": 2}, Tolerance: -1},
		},
		{Zones: zones, Panic: Panic{Threshold: 1}, MaxConnectionAge: time.Second, HideLoadReports: true},
	}
}

// model is what a test knows of a pool that it changes.
type model struct {
	testing.TB
	*rand.Rand
	p     *Pool
	fake  *clock.Fake
	rules Rules
	set   []discovery.Endpoint
	ill   map[discovery.Key]bool
	held  []Pick
	loads map[uint64]int64 // by serial
	done  map[string]int   // what happened how often
}

func (m *model) chance(percent int) bool { return m.IntN(100) < percent }

// change gives the pool another set out of twenty endpoints.
func (m *model) change() {
	var set []discovery.Endpoint
	for i := range 20 {
		if m.chance(35) {
			continue
		}
		e := discovery.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i), Zone: []string{"a", "b", "c", ""}[i%4]}
		at := slices.IndexFunc(m.set, func(o discovery.Endpoint) bool { return o.Address == e.Address })
		if at >= 0 {
			e = m.set[at]
		}
		if at < 0 || m.chance(20) {
			e.Weight = []float64{0, 1, 0.5, 3, 100}[m.IntN(5)]
			e.Priority, e.Standby, e.Draining = m.IntN(5)/3, m.chance(10), m.chance(10)
			e.Attributes = map[string]string{"version": fmt.Sprint(m.IntN(3))}
			if m.chance(30) {
				e.Zone = []string{"a", "b", "c", ""}[m.IntN(4)]
			}
		}
		set = append(set, e)
	}
	if m.chance(5) {
		set = nil
	}
	if m.chance(30) {
		m.Shuffle(len(set), func(i, k int) { set[i], set[k] = set[k], set[i] })
	}
	for key := range m.ill { // who leaves and returns is new
		if !slices.ContainsFunc(set, func(e discovery.Endpoint) bool { return e.Key() == key }) {
			delete(m.ill, key)
		}
	}
	m.set = set
	m.p.update(slices.Clone(set))
}

func (m *model) pick() {
	info := Info{Now: m.fake.Now()}
	for range min(len(m.held), m.IntN(4)) {
		info.Tried = append(info.Tried, m.held[m.IntN(len(m.held))].Serial())
	}
	if m.chance(80) {
		info.Request = &http.Request{Header: http.Header{"X-User": {fmt.Sprint(m.IntN(50))}, "X-Version": {fmt.Sprint(m.IntN(4))}}}
	}
	pick, err := m.p.Pick(info)
	if err != nil {
		m.refused(err)
		return
	}
	m.done["picks"]++
	e := pick.Endpoint()
	at := slices.IndexFunc(m.set, func(o discovery.Endpoint) bool { return o.Key() == e.Key() })
	require.GreaterOrEqual(m, at, 0, "%v is not there", e)
	require.True(m, m.set[at].Equal(e), "%v is what discovery says, not %v", m.set[at], e)
	require.False(m, e.Draining, "%v is draining", e)
	require.Equal(m, m.p.byKey[e.Key()].node.Serial(), pick.Serial(), "an earlier incarnation")
	if m.rules.Panic.Reject || m.rules.Panic.Threshold < 0 {
		require.False(m, m.ill[e.Key()], "%v is ill, and that counts", e)
	}
	m.loads[pick.Serial()]++
	if m.rules.MaxInFlight > 0 {
		require.LessOrEqual(m, m.loads[pick.Serial()], int64(m.rules.MaxInFlight), "%v has more than the cap", e)
	}
	m.held = append(m.held, pick)
}

// refused asserts that there is a reason.
func (m *model) refused(err error) {
	if errors.Is(err, ErrSaturated) {
		m.done["saturated"]++
		require.Positive(m, m.rules.MaxInFlight, "there is no cap")
		return
	}
	m.done["none"]++
	require.ErrorIs(m, err, ErrNoEndpoints)
	if m.rules.Panic.Reject || len(m.rules.Routes) > 0 {
		return
	}
	for _, e := range m.set {
		require.True(m, e.Draining || (m.rules.Panic.Threshold < 0 && m.ill[e.Key()]), "%v was there to be picked: %v", e, err)
	}
}

func (m *model) end() {
	if len(m.held) == 0 {
		return
	}
	last, at := len(m.held)-1, m.IntN(len(m.held))
	pick := m.held[at]
	m.held[at] = m.held[last]
	m.held = m.held[:last]
	answer := outcome.Answer{
		Now: m.fake.Now(), Took: time.Duration(m.ExpFloat64() * float64(50*time.Millisecond)), Class: outcome.Class(1 + m.IntN(8)),
	}
	if m.chance(50) {
		answer.Header = http.Header{"Endpoint-Load-Metrics": {fmt.Sprintf(
			"TEXT application_utilization=%.2f,rps_fractional=%d,named_metrics.rif=%d,named_metrics.latency_ms=%d",
			m.Float64(), m.IntN(100), m.IntN(20), 1+m.IntN(100))}}
	}
	pick.Answered(answer)
	pick.Done()
	if m.loads[pick.Serial()]--; m.loads[pick.Serial()] == 0 {
		delete(m.loads, pick.Serial())
	}
}

// check compares the pool with what it should be.
func (m *model) check() {
	for _, mem := range m.p.members {
		require.Equal(m, m.loads[mem.node.Serial()], mem.node.InFlight(), "%v", mem.node.Endpoint())
	}
	for n := range m.p.draining {
		require.Equal(m, m.loads[n.Serial()], n.InFlight(), "%v, which has left", n.Endpoint())
		require.Positive(m, n.InFlight(), "it has ended")
	}
	tiers := m.p.snapshot.Load().main.tiers
	for i := range tiers {
		m.checkTier(&tiers[i])
	}
	for _, e := range m.set { // nobody who is available is forgotten
		if m.p.snapshot.Load().main.cause == nil && !e.Draining && !m.ill[e.Key()] {
			require.True(m, slices.ContainsFunc(tiers, func(t tier) bool { return m.rankOf(&t) == m.p.byKey[e.Key()].rank }))
		}
	}
}

func (m *model) rankOf(t *tier) rank { return m.p.byKey[t.candidates[0].Endpoint().Key()].rank }

// checkTier asserts that a tier's candidates are those that are available, or in
// panic, all; or that part of them that the client uses.
func (m *model) checkTier(t *tier) {
	var healthy, all, got []string
	for _, e := range m.set {
		if m.p.byKey[e.Key()].rank != m.rankOf(t) || e.Draining {
			continue
		}
		all = append(all, e.Address)
		if !m.ill[e.Key()] {
			healthy = append(healthy, e.Address)
		}
	}
	for _, c := range t.candidates {
		got = append(got, c.Endpoint().Address)
		require.Positive(m, c.Weight())
	}
	slices.Sort(healthy)
	slices.Sort(all)
	slices.Sort(got)
	require.Equal(m, slices.Compact(slices.Clone(got)), got, "nobody twice")
	if size := m.p.subsetSize(m.rules); size > 0 {
		require.GreaterOrEqual(m, len(got), min(size, len(healthy)))
		for _, address := range got {
			require.Contains(m, all, address)
		}
		return
	}
	if !slices.Equal(got, all) || m.rules.Panic.Threshold < 0 {
		require.Equal(m, healthy, got)
	}
}

// Ten thousand random operations: whatever happens, picks go to who is there, is not
// leaving and has room; counts are right at every moment; the algorithm is given
// exactly those that are available; and in the end nothing is left.
func TestChurn_B01(t *testing.T) {
	t.Parallel()
	for i := range len(churned) + 1 {
		name := "AllInTurn"
		if i < len(churned) {
			name = fmt.Sprintf("%T", churned[i])
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(100 + i)
			t.Logf("seed %d", seed)
			algorithm := func(random int) Algorithm {
				if i < len(churned) {
					return churned[i]
				}
				return churned[random%len(churned)]
			}
			all := richRules()
			m := &model{
				TB: t, Rand: rand.New(rand.NewPCG(seed, 0)), fake: clock.NewFake(epoch),
				ill: map[discovery.Key]bool{}, loads: map[uint64]int64{}, done: map[string]int{},
			}
			m.p = testPool(t, Config{Clock: m.fake, Rand: rand.NewPCG(seed, 1), Algorithm: algorithm(0), DrainTimeout: -1})
			m.change()
			for k := range 10000 {
				switch op := m.IntN(100); {
				case op < 45:
					m.pick()
				case op < 82 || len(m.held) > 60:
					m.end()
				case op < 87:
					m.change()
				case op < 94 && len(m.set) > 0:
					key := m.set[m.IntN(len(m.set))].Key()
					healthy := m.chance(40)
					require.True(t, m.p.SetHealthy(key, healthy))
					delete(m.ill, key)
					if !healthy {
						m.ill[key] = true
					}
				case op < 95:
					next := m.IntN(len(all))
					require.NoError(t, m.p.Use(algorithm(m.IntN(100)), all[next]))
					m.rules = all[next]
				default:
					m.fake.Advance(time.Duration(m.ExpFloat64() * float64([]time.Duration{time.Millisecond, time.Second, time.Minute}[m.IntN(3)])))
				}
				if k%10 == 0 {
					m.check()
				}
			}
			t.Logf("%v, %d held in the end", m.done, len(m.held))
			assert.Greater(t, m.done["picks"], 3000)
			assert.Positive(t, m.done["none"])
			assert.Positive(t, m.done["saturated"])
			for len(m.held) > 0 {
				m.end()
			}
			m.check()
			for _, mem := range m.p.members {
				assert.Zero(t, mem.node.InFlight())
			}
			assert.Zero(t, m.p.queue.inFlight.Load())
			assert.Empty(t, m.p.draining)
			m.p.Close()
			assert.Zero(t, m.fake.Pending())
		})
	}
}

// The same things, all at once, from many goroutines.
func TestChurn_Concurrently_B01(t *testing.T) {
	t.Parallel()
	for i, a := range churned {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				seed := uint64(i)
				t.Logf("seed %d", seed)
				p := testPool(t, Config{Algorithm: a, Rand: rand.NewPCG(seed, 9), DrainTimeout: -1, OnChange: func(Change) {}}, inZones(3, 3, 3)...)
				stop := time.Now().Add(100 * time.Millisecond)
				var wg sync.WaitGroup
				each := func(n int, pause time.Duration, f func(random *rand.Rand)) {
					for k := range n {
						wg.Go(func() {
							random := rand.New(rand.NewPCG(seed, uint64(k)))
							for time.Now().Before(stop) {
								f(random)
								time.Sleep(time.Duration(random.Int64N(int64(pause))))
							}
						})
					}
				}
				rules := richRules()
				each(8, 200*time.Microsecond, func(random *rand.Rand) {
					req := &http.Request{Header: http.Header{"X-User": {fmt.Sprint(random.IntN(50))}}}
					pick, err := p.PickWait(t.Context(), Info{Now: time.Now(), Request: req})
					if err != nil {
						if !errors.Is(err, ErrSaturated) && !errors.Is(err, ErrNoEndpoints) {
							assert.NoError(t, err)
						}
						return
					}
					_ = p.Others(pick, Info{Tried: []uint64{pick.Serial()}, Request: req})
					time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
					pick.Answered(outcome.Answer{Now: time.Now(), Took: time.Millisecond, Class: outcome.Class(1 + random.IntN(8))})
					pick.Done()
				})
				each(1, time.Millisecond, func(random *rand.Rand) {
					p.update(inZones(random.IntN(4), 1+random.IntN(4), random.IntN(4)))
				})
				each(2, 500*time.Microsecond, func(random *rand.Rand) {
					p.SetHealthy(inZones(4, 4, 4)[random.IntN(12)].Key(), random.IntN(2) == 0)
					_ = p.Status()
				})
				each(1, 2*time.Millisecond, func(random *rand.Rand) {
					assert.NoError(t, p.Use(a, rules[random.IntN(len(rules))]))
				})
				wg.Wait()

				require.NoError(t, p.Use(a, Rules{Panic: Panic{Threshold: -1}, Subset: Subset{Size: -1}}))
				p.update(inZones(3, 3, 3))
				judge(t, p, true, inZones(3, 3, 3)...)
				judge(t, p, false, inZones(2)...)
				assert.Len(t, weightsOf(p), 7, "the last snapshot is that of the last change")
				assert.Zero(t, inFlight(p))
				assert.Zero(t, p.queue.inFlight.Load())
				assert.Zero(t, p.queue.waiting.Load())
				assert.Empty(t, p.draining)
				assert.Empty(t, p.marked)
			})
		})
	}
}

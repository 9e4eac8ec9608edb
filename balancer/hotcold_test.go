package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// hotCold returns n endpoints. Fallback always picks the first, whatever happens.
func hotCold(t testing.TB, a HotCold, n int) (*hotColdPicker, []Candidate) {
	t.Helper()
	weights := make([]float64, n)
	for i := range weights {
		weights[i] = 1
	}
	a.Fallback.Choices = maxChoices
	p, c := picker(t, a, seeded(t, 1), weights...)
	h := p.(*hotColdPicker)
	for i := range c {
		took := time.Hour
		if i == 0 {
			took = time.Millisecond
		}
		answered(Candidate{observer: c[i].observer.(*hotColdState).fallback}, epoch, took, outcome.Success)
	}
	return h, c
}

// news answers with a report of an endpoint's load.
func news(c Candidate, at time.Duration, rif, ms float64) {
	answeredWith(c, at, outcome.Success, fmt.Sprintf("TEXT named_metrics.rif=%g,named_metrics.latency_ms=%g", rif, ms))
}

// entries returns the endpoints of the entries, the oldest first.
func (p *hotColdPicker) entries() []int {
	var all []hotColdEntry
	for i := range p.shared.pool.slots {
		if e := p.shared.pool.read(i); e.number != 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b hotColdEntry) int { return int(a.number) - int(b.number) })
	of := []int{}
	for _, e := range all {
		of = append(of, p.index.find(e.id))
	}
	return of
}

func TestHotCold_Rule(t *testing.T) {
	type entry struct{ rif, ms float64 }
	for _, row := range []struct {
		name    string
		hottest float32
		entries []entry // of endpoints 1, 2, ...
		order   []int   // in which they are picked
	}{
		{"all cold: the fastest", 10, []entry{{1, 30}, {9, 10}, {5, 20}, {10, 5}}, []int{4, 2, 3}},
		{"all hot: the least busy", 10, []entry{{30, 1}, {11, 99}, {20, 5}}, []int{2, 3}},
		{"cold before hot, however slow", 10, []entry{{11, 1}, {10, 500}, {12, 2}, {3, 400}}, []int{4, 2, 1}},
		{"of equally busy hot ones the newer", 10, []entry{{20, 1}, {20, 1}, {20, 9}}, []int{3, 2}},
		{"of equally fast cold ones the newer", 10, []entry{{1, 5}, {2, 5}, {3, 5}}, []int{3, 2}},
		{"a number at the bound is cold", 63, []entry{{64, 1}, {63, 5}, {63, 9}}, []int{2, 3}},
		{"zeros", 0, []entry{{0, 1}, {0, 0}, {1, 0}}, []int{2, 1}},
		{"very many", 10, []entry{{1e9, 1}, {1e300, 1}, {64, 9}}, []int{3, 2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, c := hotCold(t, HotCold{}, len(row.entries)+1)
			for i, e := range row.entries {
				news(c[i+1], 0, e.rif, e.ms)
			}
			p.shared.recent.hottest.Store(rifBucket(row.hottest))
			var got []int
			for range row.order {
				got = append(got, p.Pick(Info{Now: epoch}))
			}
			assert.Equal(t, row.order, got)
			if len(row.entries) == len(row.order)+1 {
				assert.Zero(t, p.Pick(Info{Now: epoch}), "one is left, and Fallback picks")
			}
		})
	}
}

// With one entry there is no choice.
func TestHotCold_FallsBackBelowTwo(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 4)
	assert.Zero(t, p.Pick(Info{Now: epoch}))
	news(c[1], 0, 1, 10)
	assert.Zero(t, p.Pick(Info{Now: epoch}))
	news(c[2], 0, 1, 5)
	assert.Equal(t, 2, p.Pick(Info{Now: epoch}))
	assert.Zero(t, p.Pick(Info{Now: epoch}), "an entry is used once")
	assert.Equal(t, []int{1}, p.entries())
}

func TestHotCold_Age(t *testing.T) {
	for _, a := range []HotCold{{}, {MaxAge: 50 * time.Millisecond}} {
		age := a.MaxAge
		if age == 0 {
			age = time.Second
		}
		p, c := hotCold(t, a, 4)
		const start, later = time.Second, time.Second + tick
		news(c[1], start, 1, 1)
		news(c[2], later, 1, 2)
		news(c[3], later, 1, 3)
		assert.Equal(t, 2, p.Pick(Info{Now: epoch.Add(start + age)}), "the first is too old")
		news(c[2], later, 1, 2)
		assert.Zero(t, p.Pick(Info{Now: epoch.Add(later + age)}), "all are")
	}
}

func TestHotCold_AtCapacityTheOldestGoes(t *testing.T) {
	p, c := hotCold(t, HotCold{PoolSize: 4}, 9)
	for i := 1; i <= 4; i++ {
		news(c[i], 0, 1, float64(i))
	}
	news(c[5], 0, 1, 5)
	assert.Equal(t, []int{2, 3, 4, 5}, p.entries())
	require.Equal(t, 2, p.Pick(Info{Now: epoch}))
	require.Equal(t, 3, p.Pick(Info{Now: epoch}))
	news(c[6], 0, 1, 6)
	assert.Equal(t, []int{4, 5, 6}, p.entries(), "a free place first")
	news(c[7], 0, 1, 7)
	news(c[8], 0, 1, 8)
	assert.Equal(t, []int{5, 6, 7, 8}, p.entries())

	p, c = hotCold(t, HotCold{}, 40)
	for i := range c {
		news(c[i], 0, 1, 1)
	}
	assert.Len(t, p.entries(), 16)
	assert.Equal(t, 24, p.entries()[0])
}

// The bound is the quantile of the last 256 numbers: exactly up to 64, else within
// 3 %, and as of the last number that 8 divides.
func TestHotCold_Quantile(t *testing.T) {
	for _, quantile := range []float64{0, 0.01, 0.5, 0.84, 0.99} {
		for _, most := range []int{1, 3, 20, 64, 500, 50000} {
			p, c := hotCold(t, HotCold{Quantile: quantile}, 1)
			q := quantile
			if q == 0 {
				q = 0.84
			}
			random := rand.New(rand.NewPCG(1, uint64(most)))
			var all []int
			for n := 1; n <= 600; n++ {
				rif := random.IntN(most + 1)
				all = append(all, rif)
				news(c[0], 0, float64(rif), 1)
				if n%8 != 0 && n > 8 {
					continue
				}
				last := slices.Sorted(slices.Values(all[max(0, n-256):]))
				want := last[int(math.Ceil(q*float64(len(last))))-1]
				above := max(float64(want)*1.032, float64(want)+0.5)
				hottest := p.shared.recent.hottest.Load()
				require.LessOrEqual(t, rifBucket(float32(want)), hottest, "q=%v n=%d: %d is hot", q, n, want)
				require.Greater(t, rifBucket(float32(math.Ceil(above))), hottest, "q=%v n=%d: %v is not, above %d", q, n, above, want)
			}
		}
	}
}

// A response that failed feeds nothing and removes what its endpoint had said, or
// else failing fast would attract all requests.
func TestHotCold_FailedResponses(t *testing.T) {
	const report = "TEXT named_metrics.rif=0,named_metrics.latency_ms=0"
	for class, want := range map[outcome.Class][]int{
		outcome.Success:     {1, 2, 1, 1},
		outcome.ClientError: {1, 2, 1, 1},
		outcome.Overload:    {2},
		outcome.Failure:     {2},
		outcome.NeverSent:   {2},
		outcome.Refused:     {1, 2, 1}, // these say nothing of the endpoint
		outcome.Canceled:    {1, 2, 1},
		outcome.Superseded:  {1, 2, 1},
		outcome.Unknown:     {1, 2, 1},
	} {
		p, c := hotCold(t, HotCold{}, 3)
		for _, i := range []int{1, 2, 1} {
			news(c[i], 0, 1, 1)
		}
		answeredWith(c[1], 0, class, report)
		assert.Equal(t, want, p.entries(), class)
	}
}

func TestHotCold_DrainingEndpoint(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 3)
	for _, i := range []int{1, 2, 1} {
		news(c[i], 0, 1, 1)
	}
	answeredWith(c[1], 0, outcome.Success, "TEXT named_metrics.rif=0,named_metrics.latency_ms=0,named_metrics.draining=1")
	assert.Equal(t, []int{2}, p.entries())
}

func TestHotCold_ReportsThatSayNothing(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 2)
	news(c[1], 0, 1, 1)
	for _, report := range []string{"TEXT ", "TEXT named_metrics.rif=1", "TEXT named_metrics.latency_ms=1", "TEXT cpu_utilization=0.5"} {
		answeredWith(c[1], 0, outcome.Success, report)
	}
	answeredWith(c[1], 0, outcome.Success)
	assert.Equal(t, []int{1}, p.entries())
	assert.Zero(t, p.shared.RejectedReports())
}

func TestHotCold_HostileReportsChangeNothing(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 2)
	news(c[1], 0, 1, 1)
	rejected := uint64(0)
	for name, values := range hostile {
		answeredWith(c[1], 0, outcome.Success, values...)
		rejected++
		assert.Equal(t, []int{1}, p.entries(), name)
		assert.Equal(t, uint64(1), p.shared.recent.added.Load(), name)
		assert.Equal(t, rejected, p.shared.RejectedReports(), "%s: it is counted", name)
	}
}

// Groups share the entries, and each uses those of its own endpoints.
func TestHotCold_GroupsShareThePool(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 6)
	left := p.shared.Build(Group{Candidates: c[:3]}).(*hotColdPicker)
	right := p.shared.Build(Group{Candidates: c[3:]}).(*hotColdPicker)
	for i := 1; i <= 5; i++ {
		news(c[i], 0, 1, float64(6-i))
	}
	assert.Equal(t, 2, left.Pick(Info{Now: epoch}))
	assert.Zero(t, left.Pick(Info{Now: epoch}), "one is left in this group")
	assert.Equal(t, 5-3, right.Pick(Info{Now: epoch}))
	assert.Equal(t, 4-3, right.Pick(Info{Now: epoch}))
	assert.Equal(t, []int{1, 3}, p.entries())
}

func TestHotCold_TriedEndpointsKeepTheirEntries(t *testing.T) {
	p, c := hotCold(t, HotCold{}, 4)
	for i := 1; i <= 3; i++ {
		news(c[i], 0, 1, float64(i))
	}
	assert.Equal(t, 2, p.Pick(Info{Now: epoch, Tried: []uint64{c[1].node.Serial()}}))
	assert.Equal(t, []int{1, 3}, p.entries())
	assert.Zero(t, p.Pick(Info{Now: epoch, Tried: []uint64{c[1].node.Serial()}}), "one is left for this call")
	assert.Equal(t, 1, p.Pick(Info{Now: epoch}))
}

func TestHotCold_FallbackLearnsAllTheTime(t *testing.T) {
	h, c := picker(t, HotCold{}, seeded(t, 1), 1, 1)
	plain, d := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
	token := c[1].observer.Picked(epoch)
	assert.Equal(t, d[1].observer.Picked(epoch), token)
	for _, e := range [][]Candidate{c, d} {
		answered(e[0], epoch, 20*time.Millisecond, outcome.Success)
		hold(e[1], 3)
		e[1].observer.Answered(token, outcome.Answer{Now: epoch, Took: time.Millisecond, Class: outcome.Failure})
	}
	info := Info{Now: epoch.Add(time.Second)}
	for i := range c {
		assert.InDelta(t, plain.(estimator).estimate(info, i, true), h.(estimator).estimate(info, i, true), 1e-9)
	}
	assert.Greater(t, h.(estimator).estimate(info, 1, true), h.(estimator).estimate(info, 0, true))
}

// Given settings that change, then Fallback keeps what it has learnt.
func TestHotCold_NewSettingsKeepWhatIsKnown(t *testing.T) {
	for _, a := range []Algorithm{HotCold{}, PeakEWMA{}} {
		old, c := picker(t, a, seeded(t, 1), 1)
		answered(c[0], epoch, 20*time.Millisecond, outcome.Success)
		b, err := HotCold{MaxAge: time.Minute}.NewBuilder(Env{Rand: seeded(t, 1), Now: epoch})
		require.NoError(t, err)
		want := old.(estimator).estimate(Info{Now: epoch}, 0, true)
		c[0].observer = b.Observer(c[0].Endpoint(), c[0].observer)
		got := b.Build(Group{Candidates: c, Previous: old}).(estimator).estimate(Info{Now: epoch}, 0, true)
		assert.InDelta(t, want, got, 1e-9, "%T", a)
		assert.InDelta(t, 0.02, got, 1e-6)
	}
}

// Whatever happens at the same time, an entry is used at most once, and is never a
// mixture of two. There are two slots, and all do everything in turn, so that those
// who run at the same time meet all the time.
func TestHotColdPool_Concurrently(t *testing.T) {
	const workers, each = 4, 50000
	p := &hotColdPool{slots: make([]hotColdSlot, 2)}
	var used [workers * each]atomic.Bool
	var mixed, twice atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for k := range each {
				id := uint32(k*workers + w)
				p.add(hotColdEntry{id: id, at: id, rif: float32(id), latency: float32(id)})
				if k%16 == 0 {
					p.forget(id)
				}
				e := p.read(k % len(p.slots))
				if e.number == 0 || !p.take(e) {
					continue
				}
				if e.at != e.id || e.rif != float32(e.id) || e.latency != float32(e.id) {
					mixed.Add(1)
				}
				if used[e.id].Swap(true) {
					twice.Add(1)
				}
			}
		})
	}
	wg.Wait()
	assert.Zero(t, mixed.Load(), "mixtures")
	assert.Zero(t, twice.Load(), "used twice")
	for i := range p.slots {
		assert.NotEqual(t, uint64(slotBusy), p.slots[i].number.Load())
	}
}

func TestHotCold_Concurrently(t *testing.T) {
	built, c := picker(t, HotCold{}, rand.Uint64, 1, 1, 1, 1, 1, 1, 1, 1)
	p := built.(*hotColdPicker)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for k := range 3000 {
				at := time.Duration(k) * time.Millisecond
				i := p.Pick(Info{Now: epoch.Add(at)})
				if k%50 == w {
					answeredWith(c[i], at, outcome.Failure)
				} else {
					news(c[i], at, float64(k%30), float64(w))
				}
			}
		})
	}
	wg.Wait()
	var sum int32
	for i := range p.shared.recent.buckets {
		n := p.shared.recent.buckets[i].Load()
		assert.GreaterOrEqual(t, n, int32(0))
		sum += n
	}
	assert.Equal(t, int32(256), sum, "the histogram is exact when all is quiet")
}

func TestIDIndex(t *testing.T) {
	for _, step := range []uint32{1, 2, 3, 64, 1000, 1 << 15} {
		const n = 10000
		x := newIDIndex(n)
		for i := range n {
			x.add(1+uint32(i)*step, i)
		}
		for i := range n {
			require.Equal(t, i, x.find(1+uint32(i)*step), "step %d", step)
		}
		assert.Equal(t, -1, x.find(1+n*step), "step %d", step)
	}
}

func TestHotCold_Settings(t *testing.T) {
	assert.NoError(t, Validate(HotCold{}))
	assert.NoError(t, Validate(HotCold{PoolSize: 64, MaxAge: time.Millisecond, Quantile: 0.999, Fallback: PeakEWMA{Choices: 2}}))
	err := Validate(HotCold{PoolSize: 1, MaxAge: -1, Quantile: 1, Fallback: PeakEWMA{Choices: 99, Decay: -1}})
	for _, name := range []string{"PoolSize:", "MaxAge:", "Quantile:", "Fallback.Choices:", "Fallback.Decay:"} {
		assert.ErrorContains(t, err, name)
	}
	for _, a := range []HotCold{{PoolSize: 65}, {PoolSize: -1}, {Quantile: -0.1}, {Quantile: math.NaN()}, {MaxAge: 25 * time.Hour}} {
		assert.Error(t, Validate(a), "%+v", a)
	}
}

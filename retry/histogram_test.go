package retry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	counts "github.com/evenkeel-go/evenkeel/internal/histogram"
)

func TestHistogram_QuantileOfKnownDistributions(t *testing.T) {
	const seed = 5
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const ms = float64(time.Millisecond)
	for name, draw := range map[string]func() float64{
		"even":        func() float64 { return (2 + 98*random.Float64()) * ms },
		"exponential": func() float64 { return 2*ms + random.ExpFloat64()*50*ms },
		"long tail":   func() float64 { return 3 * ms * math.Exp(2*math.Abs(random.NormFloat64())) },
		"two modes":   func() float64 { return ms * (5 + 995*float64(random.IntN(2))) },
		"one value":   func() float64 { return 42 * ms },
	} {
		for _, n := range []int{100, 101, 1000, 20000} {
			for _, q := range []float64{0.01, 0.5, 0.9, 0.95, 0.99, 0.999} {
				t.Run(fmt.Sprint(name, n, q), func(t *testing.T) {
					h := newHistogram(epoch)
					var all []time.Duration
					for range n {
						d := time.Duration(draw())
						all = append(all, d)
						h.record(d)
					}
					slices.Sort(all)
					exact := all[int(math.Ceil(q*float64(n)))-1]
					got := h.delay(epoch, q)
					assert.GreaterOrEqual(t, got, exact)
					assert.LessOrEqual(t, float64(got), float64(exact)*(1+1.0/32)+1000)
				})
			}
		}
	}
}

func TestHistogram_TooFewAreUnknown(t *testing.T) {
	h := newHistogram(epoch)
	assert.Zero(t, h.delay(epoch, 0.95))
	for range minSamples - 1 {
		h.record(time.Second)
	}
	assert.Zero(t, h.delay(epoch.Add(3*time.Second), 0.95))
	h.record(time.Second)
	assert.InEpsilon(t, time.Second, h.delay(epoch.Add(6*time.Second), 0.95), 1.0/32)
}

func TestHistogram_AtLeastAMillisecond(t *testing.T) {
	h := newHistogram(epoch)
	for range minSamples {
		h.record(10 * time.Microsecond)
	}
	assert.Equal(t, time.Millisecond, h.delay(epoch, 0.95))
}

// It is computed anew every 3 s, by the first who comes then.
func TestHistogram_RefreshedEvery3s(t *testing.T) {
	h := newHistogram(epoch)
	fill := func(d time.Duration) {
		for range minSamples * 100 {
			h.record(d)
		}
	}
	at := func(d time.Duration) time.Duration { return h.delay(epoch.Add(d), 0.5).Round(100 * time.Millisecond) }
	fill(time.Second)
	assert.Equal(t, time.Second, at(0))
	for range 9 {
		fill(5 * time.Second)
	}
	assert.Equal(t, time.Second, at(3*time.Second-1))
	assert.Equal(t, 5*time.Second, at(3*time.Second).Round(time.Second))
	assert.Equal(t, 5*time.Second, at(3*time.Second+1).Round(time.Second))
}

// Traffic comes all the time here, so both halves change in time.
func TestHistogram_ForgetsWhatIsOld(t *testing.T) {
	h := newHistogram(epoch)
	for range 1000 {
		h.record(time.Second)
	}
	slow := func(at time.Duration) bool { return h.delay(epoch.Add(at), 0.95) >= time.Second }
	for at := time.Duration(0); at <= time.Minute; at += 100 * time.Millisecond {
		known := slow(at)
		h.record(10 * time.Millisecond)
		switch {
		case at < 15*time.Second:
			require.True(t, known, "after %v", at)
		case at >= 30*time.Second:
			require.False(t, known, "after %v", at)
		}
	}
}

// After a long silence, nothing of before counts, at the first look.
func TestHistogram_ForgetsInSilence(t *testing.T) {
	for _, silence := range []time.Duration{30 * time.Second, 31 * time.Second, time.Hour, 24 * time.Hour} {
		h := newHistogram(epoch)
		for range 1000 {
			h.record(time.Second)
		}
		require.NotZero(t, h.delay(epoch, 0.95))
		assert.Zero(t, h.delay(epoch.Add(silence), 0.95), "%v", silence)
	}
}

// However seldom somebody looks, what is older than 30 s does not count.
func TestHistogram_ForgetsWithFewCalls(t *testing.T) {
	for _, every := range []time.Duration{1, 2, 2900, 3000, 4000, 7000, 14000, 14999, 15001, 20000, 29000} {
		every = max(every*time.Millisecond, 10*time.Millisecond)
		h := newHistogram(epoch)
		for range 1000 {
			h.record(time.Second)
		}
		for at := time.Duration(0); at < 2*time.Minute; at += every {
			known := h.delay(epoch.Add(at), 0.95) > 0
			if at < 15*time.Second {
				require.True(t, known, "looked at every %v, after %v", every, at)
			}
			if at >= 30*time.Second {
				require.False(t, known, "looked at every %v, after %v", every, at)
			}
		}
	}
}

// A clock that goes back does no harm.
func TestHistogram_ClockGoesBack(t *testing.T) {
	h := newHistogram(epoch)
	for range minSamples {
		h.record(time.Second)
	}
	require.NotZero(t, h.delay(epoch.Add(10*time.Second), 0.95))
	assert.NotZero(t, h.delay(epoch.Add(-time.Hour), 0.95))
}

func TestHistogram_ByMethod(t *testing.T) {
	l := new(latencies)
	for _, row := range []struct{ a, b string }{{"GET", ""}, {"PURGE", "QUERY"}} {
		assert.Same(t, l.of(row.a, epoch), l.of(row.b, epoch))
	}
	seen := map[*histogram]string{}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "TRACE", "PURGE"} {
		h := l.of(method, epoch)
		assert.Empty(t, seen[h], "%s has one of its own", method)
		seen[h] = method
	}
	r := retrier(t, Policy{Hedge: &Hedge{}})
	for range minSamples {
		r.hedges.learnt.of("PUT", epoch).record(time.Second)
	}
	assert.NotZero(t, r.hedges.begin("PUT", epoch))
	assert.Zero(t, r.hedges.begin("GET", epoch), "nothing is known of it")
}

// It is atomic additions only, so this holds under the race detector, too.
func TestHistogram_RecordAllocatesNothing(t *testing.T) {
	l := new(latencies)
	l.of("GET", epoch)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { l.of("GET", epoch).record(time.Second) }))
	h := l.of("GET", epoch)
	now := epoch
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		now = now.Add(quantileLasts)
		h.delay(now, 0.95)
	}))
}

func TestHistogram_ConcurrentUse(t *testing.T) {
	const workers, each = 8, 5000
	l := new(latencies)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				h := l.of("GET", epoch)
				h.record(time.Duration(w+1) * time.Second)
				d := h.delay(epoch.Add(time.Duration(i)*time.Millisecond), 0.95) // 5 s in all
				if d > 0 && (d < time.Second || d > 9*time.Second) {
					t.Errorf("%v", d)
				}
			}
		})
	}
	wg.Wait()
	h := l.of("GET", epoch)
	_, total := counts.Quantile(0.5, h.halves[0], h.halves[1])
	assert.Equal(t, uint64(workers*each), total)
	wg.Go(func() { // while halves change places
		for range each {
			h.record(time.Second)
		}
	})
	for s := range 200 {
		h.delay(epoch.Add(time.Duration(s)*time.Second), 0.95)
	}
	wg.Wait()
}

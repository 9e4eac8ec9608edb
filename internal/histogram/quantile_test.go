package histogram

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A quantile is the end of the bucket that has it, over all histograms together.
func TestQuantile_OfSorted(t *testing.T) {
	const seed = 5
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{1, 2, 3, 10, 999} {
		halves := []*Histogram{New(time.Millisecond, 3), New(time.Millisecond, 3)}
		var all []time.Duration
		for range n {
			d := time.Duration(random.Int64N(int64(10 * time.Second)))
			halves[random.IntN(2)].Add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, row := range []struct {
			q    float64
			rank int
		}{{1, n}, {0.5, (n + 1) / 2}, {1.0 / 1024, 1}} {
			got, total := Quantile(row.q, halves...)
			require.EqualValues(t, n, total)
			d := all[row.rank-1]
			require.Equal(t, halves[0].upperOf(halves[0].bucketOf(d)), got, "%v of %d: %v", row.q, n, d)
		}
	}
}

func TestQuantile_OfNothing(t *testing.T) {
	h := New(time.Millisecond, 3)
	for _, q := range []float64{0, 0.5, 1} {
		d, total := Quantile(q, h, New(time.Millisecond, 3))
		assert.Zero(t, total)
		assert.LessOrEqual(t, d, time.Millisecond, "the least there is")
	}
}

// What was counted counts half, and one alone no more.
func TestHalve(t *testing.T) {
	h := New(time.Millisecond, 3)
	for range 101 {
		h.Add(time.Second)
	}
	h.Add(time.Minute)
	for _, want := range []int{50, 25, 12, 6, 3, 1, 0, 0} {
		h.Halve()
		_, total := Quantile(1, h)
		require.EqualValues(t, want, total)
	}
}

// Given latencies that are forgotten while a quantile of them is looked for, then it is none that was
// never counted: least of all the longest there is, which would put off every hedge by five minutes.
func TestQuantile_WhileTheyAreForgotten(t *testing.T) {
	for name, forget := range map[string]func(*Histogram){"Clear": (*Histogram).Clear, "Halve": (*Histogram).Halve} {
		for _, histograms := range []int{1, 2} {
			t.Run(fmt.Sprint(name, " of ", histograms), func(t *testing.T) {
				var of []*Histogram
				for range histograms {
					of = append(of, New(10*time.Second, 0)) // with few buckets, so that the two are likely to meet
				}
				most := of[0].upperOf(of[0].bucketOf(15 * time.Second))
				require.Less(t, most, time.Minute)
				done := make(chan struct{})
				var forgetting sync.WaitGroup
				forgetting.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-done:
							return
						default:
						}
						h := of[i%histograms]
						h.Add(5 * time.Second)
						h.Add(15 * time.Second)
						runtime.Gosched() // there may be one processor only
						forget(h)
					}
				})
				wrong, seen := 0, 0
				for range 50_000 {
					runtime.Gosched()
					d, total := Quantile(0.95, of...)
					if total > 0 {
						seen++
					}
					if d > most {
						wrong++
					}
				}
				close(done)
				forgetting.Wait()
				assert.Positive(t, seen, "enough to judge")
				assert.Zero(t, wrong)
			})
		}
	}
}

package health

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logFactorials returns the logarithms of all factorials up to n, as sums.
func logFactorials(n int) []float64 {
	list := make([]float64, n+1)
	sum, lost := 0.0, 0.0 // Kahan's correction
	for i := 1; i <= n; i++ {
		y := math.Log(float64(i)) - lost
		t := sum + y
		lost = (t - sum) - y
		sum = t
		list[i] = sum
	}
	return list
}

// logTail returns the logarithm of what exactTail returns: each term for itself, and the smallest
// first.
func logTail(c, others counted, factorials []float64) float64 {
	choose := func(n, k uint64) float64 { return factorials[n] - factorials[k] - factorials[n-k] }
	all, bad, n := c.requests+others.requests, c.failures+others.failures, c.requests
	logs := []float64{}
	for k := c.failures; k <= min(n, bad); k++ {
		l := choose(bad, k) + choose(all-bad, n-k) - choose(all, n)
		if len(logs) > 0 && l < logs[0]-50 {
			break
		}
		logs = append(logs, l)
	}
	sum := 0.0
	for _, l := range slices.Backward(logs) {
		sum += math.Exp(l - logs[0])
	}
	return logs[0] + math.Log(sum)
}

// sameTail checks a tail against its logarithm.
func sameTail(t *testing.T, log float64, c, others counted) {
	t.Helper()
	got := tail(c, others)
	require.GreaterOrEqual(t, got, 0.0)
	require.LessOrEqual(t, got, 1.0)
	if log < -690 {
		require.Less(t, got, 1e-290, "%+v of %+v", c, others)
		return
	}
	require.InEpsilon(t, math.Exp(log), got, 1e-6, "%+v of %+v", c, others)
}

// portions returns numbers of 0 to n: none, few, many, all.
func portions(n uint64) []uint64 {
	list := []uint64{0, 1, 2, 5, n / 100, n / 20, n / 10, n / 4, n / 2, n * 3 / 4, n * 9 / 10, n - 1, n}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(k uint64) bool { return k > n })
}

// The tail is what exact arithmetic says.
func TestDeviation_TailIsExact(t *testing.T) {
	t.Parallel()
	factorials := logFactorials(2_000_000)
	compared := 0
	check := func(c, others counted, exactly bool) {
		if c.requests == 0 || others.requests == 0 || c.rate() <= others.rate() {
			return
		}
		log := logTail(c, others, factorials)
		if exactly {
			exact := logOf(exactTail(c, others))
			require.InDelta(t, exact, log, 1e-7, "the second opinion on %+v of %+v", c, others)
			log = exact
		}
		sameTail(t, log, c, others)
		compared++
	}
	for _, n := range []uint64{1, 2, 5, 20, 21, 50, 137, 400} {
		for _, m := range []uint64{1, 20, 50, 51, 300} {
			for _, f := range portions(n) {
				for _, g := range portions(m) {
					check(counted{n, f}, counted{m, g}, true)
				}
			}
		}
	}
	assert.Greater(t, compared, 1000)
	for _, n := range []uint64{20, 1000, 30_000, 1_000_000} {
		for _, m := range []uint64{50, 1000, 100_000, 1_000_000} {
			for _, g := range portions(m) {
				p := float64(g) / float64(m)
				sd := math.Sqrt(float64(n) * p * (1 - p) * (1 + float64(n)/float64(m)))
				for _, far := range []float64{0.1, 1, 3, 6, 30} {
					if f := math.Ceil(float64(n)*p + far*sd); f >= 1 && f <= float64(n) {
						check(counted{n, uint64(f)}, counted{m, g}, false)
					}
				}
				check(counted{n, n}, counted{m, g}, false)
			}
		}
	}
	assert.InEpsilon(t, 1.0/1001, tail(counted{1, 1}, counted{1000, 0}), 1e-9, "one failure, and chance picks who has it")
	assert.InEpsilon(t, 0.25, tail(counted{20, 1}, counted{60, 0}), 1e-9)
	assert.InEpsilon(t, 1.0/6, tail(counted{2, 2}, counted{2, 0}), 1e-9, "one of the ways to choose two of four")
}

// More failures are less likely; the more so, the better the others are, and the better they are
// known.
func TestDeviation_TailIsMonotone(t *testing.T) {
	t.Parallel()
	const little = 1 + 1e-7
	for _, n := range []uint64{20, 100, 1000, 30_000} {
		for _, others := range []counted{{50, 0}, {1000, 1}, {1000, 300}, {100_000, 99_000}} {
			last := 1.0
			for f := uint64(float64(n)*others.rate()) + 1; f <= n; f += max(1, n/300) {
				now := tail(counted{n, f}, others)
				require.LessOrEqual(t, now, last*little, "%d of %d beside %+v", f, n, others)
				last = now
			}
		}
		for _, f := range []uint64{5, n / 10, n / 2, n} {
			last := 0.0
			for g := uint64(0); float64(g)/1000 < float64(f)/float64(n); g++ {
				now := tail(counted{n, f}, counted{1000, g})
				require.GreaterOrEqual(t, now*little, last, "%d of %d beside %d", f, n, g)
				last = now
			}
		}
		last := 1.0
		for known := uint64(50); known < 1_000_000; known *= 2 {
			now := tail(counted{n, n / 2}, counted{known * 5, known})
			require.LessOrEqual(t, now, last*little)
			last = now
		}
	}
}

// The edges of what is looked at.
func TestDeviation_Thresholds(t *testing.T) {
	t.Parallel()
	const likely = 1e-9
	for _, row := range []struct {
		name      string
		c, others counted
		gap       float64
		want      bool
	}{
		{"19 requests", counted{19, 19}, counted{1000, 0}, 0.05, false},
		{"20 requests", counted{20, 20}, counted{1000, 0}, 0.05, true},
		{"4 failures", counted{20, 4}, counted{10_000_000, 0}, 0.05, false},
		{"5 failures", counted{20, 5}, counted{10_000_000, 0}, 0.05, true},
		{"49 requests of others", counted{1000, 1000}, counted{49, 0}, 0.05, false},
		{"50 requests of others", counted{1000, 1000}, counted{50, 0}, 0.05, true},
		{"no others", counted{1000, 1000}, counted{}, 0.05, false},
		{"nothing", counted{}, counted{}, 0.05, false},
		{"as much worse as may be", counted{1_600_000, 300_000}, counted{8_000_000 - 2, 1_000_000 - 1}, 0.0625, false},
		{"a bit worse than that", counted{1_600_000, 300_001}, counted{8_000_000 - 2, 1_000_000 - 1}, 0.0625, true},
		{"all fail here and there", counted{1000, 1000}, counted{1000, 1000}, 0.0001, false},
		{"all fail here and nearly all there", counted{100_000, 100_000}, counted{100_000, 99_000}, 0.001, true},
		{"better than others", counted{1000, 100}, counted{1000, 900}, 0.05, false},
		{"as others", counted{1000, 100}, counted{1000, 100}, 0.0000001, false},
		{"a lot, at once", counted{1 << 40, 1 << 39}, counted{1 << 40, 1 << 30}, 0.05, true},
		{"the largest gap", counted{1000, 1000}, counted{1_000_000, 0}, 0.9999, true},
	} {
		assert.Equal(t, row.want, deviates(row.c, row.others, row.gap, likely), row.name)
	}
	c, others := counted{200, 30}, counted{1000, 20}
	chance := tail(c, others)
	assert.True(t, deviates(c, others, 0.05, chance*(1+1e-12)))
	assert.False(t, deviates(c, others, 0.05, chance*(1-1e-3)), "as likely as it may be")
}

// binomial draws how many of n fail at the rate p, by inversion.
func binomial(random *rand.Rand, n int, p float64) uint64 {
	if p > 0.5 {
		return uint64(n) - binomial(random, n, 1-p)
	}
	if p == 0 {
		return 0
	}
	if float64(n)*p > 100 { // the first term must not vanish
		return binomial(random, n/2, p) + binomial(random, n-n/2, p)
	}
	u, term := random.Float64(), math.Exp(float64(n)*math.Log1p(-p))
	for k := range n {
		if u < term {
			return uint64(k)
		}
		u -= term
		term *= float64(n-k) / float64(k+1) * p / (1 - p)
	}
	return uint64(n)
}

func TestBinomial_IsOne(t *testing.T) {
	t.Parallel()
	const seed = 2
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{1, 50, 1000} {
		for _, p := range []float64{0, 0.01, 0.2, 0.5, 0.9, 1} {
			const draws = 4000
			sum, squares := 0.0, 0.0
			for range draws {
				x := float64(binomial(random, n, p))
				sum += x
				squares += x * x
			}
			mean, want, variance := sum/draws, float64(n)*p, float64(n)*p*(1-p)
			assert.InDelta(t, want, mean, 5*math.Sqrt(variance/draws)+1e-9, fmt.Sprint(n, p))
			assert.InDelta(t, variance, squares/draws-mean*mean, 0.15*variance+1e-9, fmt.Sprint(n, p))
		}
	}
}

package histogram

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHistogram_BucketsHoldTheirLatencies(t *testing.T) {
	for _, resolution := range []int{3, 5} {
		t.Run(fmt.Sprint(resolution), func(t *testing.T) { testBuckets(t, New(time.Microsecond, resolution), time.Duration(1)<<resolution) })
	}
}

func testBuckets(t *testing.T, h *Histogram, part time.Duration) {
	t.Helper()
	buckets := len(h.counts)
	check := func(d time.Duration) {
		b := h.bucketOf(d)
		require.Greater(t, h.upperOf(b), d, "%v is below the end of its bucket", d)
		width := h.upperOf(b)
		if b > 0 {
			width -= h.upperOf(b - 1)
			require.LessOrEqual(t, h.upperOf(b-1), d, "%v is not below its bucket", d)
		}
		require.LessOrEqual(t, width, max(d/part, time.Microsecond), "%v", d)
		require.Less(t, b, buckets)
	}
	const seed = 3
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for us := range 5000 {
		check(time.Duration(us) * time.Microsecond)
	}
	for d := time.Microsecond; d < Longest; d *= 2 {
		check(d - 1)
		check(d)
		check(d + 1)
	}
	for range 100000 {
		check(time.Duration(math.Exp(random.Float64() * math.Log(float64(Longest)))))
	}
	for b := 1; b < buckets; b++ {
		require.Greater(t, h.upperOf(b), h.upperOf(b-1), "bucket %d", b)
	}
	for _, row := range []struct {
		d    time.Duration
		same time.Duration
	}{{-1, 0}, {math.MinInt64, 0}, {999, 0}, {time.Hour, Longest}, {math.MaxInt64, Longest}} {
		assert.Equal(t, h.bucketOf(row.same), h.bucketOf(row.d), "%v", row.d)
	}
}

package discovery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPace_Defaults(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, row := range []struct{ in, want pace }{
		{pace{}, pace{30 * s, 3 * s, 5 * s}},
		{pace{interval: s}, pace{s, s, 5 * s}},
		{pace{min: s}, pace{30 * s, s, 5 * s}},
		{pace{min: 60 * s}, pace{60 * s, 60 * s, 5 * s}},
		{pace{interval: 10 * s, min: 2 * s, timeout: s}, pace{10 * s, 2 * s, s}},
	} {
		assert.Equal(t, row.want, row.in.withDefaults())
	}
}

// TestPace_RetriesWithin5s_D03 holds for every configuration that allows it.
func TestPace_RetriesWithin5s_D03(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, row := range []struct {
		pace        pace
		least, most time.Duration
	}{
		{pace{}, 3 * s, 5 * s},
		{pace{min: s}, s, 5 * s},
		{pace{interval: 2 * s, min: s}, s, 2 * s},
		{pace{interval: 300 * s}, 3 * s, 5 * s},
		{pace{min: 5 * s}, 5 * s, 5*s + s/2},     // a tenth for jitter
		{pace{min: 60 * s}, 60 * s, 66 * s},      // asked for
		{pace{interval: s, min: s}, s, s + s/10}, // as jittered as the interval itself
	} {
		b := row.pace.withDefaults().retries()
		for range 100 {
			assert.Equal(t, row.least, b.next(0))
			last := b.next(1)
			assert.LessOrEqual(t, last, row.most)
		}
		assert.Equal(t, row.most, b.next(1))
	}
}

func TestBackoff_GrowsAndResets(t *testing.T) {
	t.Parallel()
	b := backoff{min: time.Second, max: time.Minute}
	limits := func() (list []time.Duration) {
		for range 8 {
			list = append(list, b.next(1)/time.Second)
		}
		return list
	}
	assert.Equal(t, []time.Duration{2, 4, 8, 16, 32, 60, 60, 60}, limits())
	b.reset()
	assert.Equal(t, []time.Duration{2, 4, 8, 16, 32, 60, 60, 60}, limits())
}

func TestJittered(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 27*time.Second, jittered(30*time.Second, 0))
	assert.Equal(t, 30*time.Second, jittered(30*time.Second, 0.5))
	assert.InDelta(t, float64(33*time.Second), float64(jittered(30*time.Second, 1)), 1000)
}

package health

import (
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A tally counts exactly, whoever counts, and may go below zero and wrap around.
func TestTally_Counts(t *testing.T) {
	t.Parallel()
	var ta tally
	assert.Zero(t, ta.sum())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				ta.add()
				if i%4 == 0 {
					ta.takeBack()
				}
				ta.sum()
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 3000, ta.sum())
	for range 3000 {
		ta.takeBack()
	}
	assert.Zero(t, ta.sum())
	ta.takeBack()
	assert.Equal(t, ^uint64(0), ta.sum())
	ta.add()
	ta.add()
	assert.EqualValues(t, 1, ta.sum())
	for i := range ta {
		assert.Positive(t, ta[i].n.Load(), "each counter is used")
	}
	assert.GreaterOrEqual(t, unsafe.Sizeof(ta[0]), uintptr(64), "a cache line for each")
}

// interval is what was counted since the last one, whatever has broken meanwhile.
func TestWatch_Interval(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{Deviation: Off})}, "a")
	a := w.members["a"].watch
	require.Equal(t, counted{}, a.interval())
	w.answers("a", 7, ok200)
	w.answers("a", 2, err500)
	w.answers("a", 1, lostIt)
	w.answers("a", 1, busy503)
	w.answers("a", 9, not404)
	w.answers("a", 9, busy429)
	w.answers("a", 9, gaveUp)
	require.Equal(t, counted{11, 4}, a.interval())
	require.Equal(t, counted{}, a.interval())
	a.Answered(ok200)
	a.Broke(ok200)
	require.Equal(t, counted{1, 1}, a.interval(), "a success that is none")
	a.Answered(not404)
	a.Broke(not404)
	require.Equal(t, counted{1, 1}, a.interval())
	a.Answered(ok200)
	require.Equal(t, counted{1, 0}, a.interval())
	a.Broke(ok200)
	require.Equal(t, counted{1, 1}, a.interval(), "it was counted before")
	w.answers("a", 3, ok200)
	require.Equal(t, counted{3, 0}, a.interval())
}

// Whatever happens at random, over all intervals nothing is lost but the successes taken back late.
func TestWatch_IntervalsAddUp(t *testing.T) {
	t.Parallel()
	const seed = 41
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWard(t, Config{Outlier: judged(Outlier{Deviation: Off})}, "a")
	a := w.members["a"].watch
	var good, bad, seen counted
	for range 5000 {
		switch random.IntN(5) {
		case 0, 1:
			a.Answered(ok200)
			good.requests++
		case 2:
			a.Answered(err500)
			bad.requests++
		case 3:
			a.Broke(ok200)
			bad.requests++
		default:
			c := a.interval()
			require.LessOrEqual(t, c.failures, c.requests)
			seen.requests += c.requests
			seen.failures += c.failures
		}
	}
	c := a.interval()
	seen.requests += c.requests
	seen.failures += c.failures
	assert.Equal(t, bad.requests, seen.failures)
	assert.LessOrEqual(t, seen.requests, good.requests+bad.requests)
}

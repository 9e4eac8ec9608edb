package health

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
)

var runnerEpoch = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func newRunner() *componentRunner {
	return &componentRunner{
		Component: Component{Name: "db", Timeout: 2 * time.Second, CacheFor: time.Second},
		clock:     clock.NewFake(runnerEpoch),
	}
}

// The timer and the check may end a run at the same time, in any order.
func TestRunEndsTwice(t *testing.T) {
	t.Parallel()
	gone := newFailure(errors.New("gone"))
	for name, row := range map[string]struct {
		first, second componentFailure
		returnedFirst bool
		want          string
	}{
		"the timer first": {timedOut(), gone, false, "timeout"},
		"the check first": {gone, timedOut(), true, "gone"},
	} {
		c := newRunner()
		r := &componentRun{begun: runnerEpoch, settled: make(chan struct{})}
		c.latest = r
		c.settle(r, row.first, row.returnedFirst)
		require.Equal(t, row.returnedFirst, r.returned, name)
		c.settle(r, row.second, !row.returnedFirst)
		assert.True(t, r.returned, name)
		assert.Equal(t, row.want, c.await(t.Context(), r).text, name)
	}
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	r := &componentRun{result: componentResult{at: runnerEpoch}}
	for _, row := range []struct {
		cacheFor, age time.Duration
		want          bool
	}{
		{time.Second, 0, true},
		{time.Second, time.Second - 1, true},
		{time.Second, time.Second, false},
		{time.Second, -time.Millisecond, true}, // whoever asks was overtaken
		{-1, 0, false},
		{-1, -time.Millisecond, false},
	} {
		c := newRunner()
		c.CacheFor = row.cacheFor
		assert.Equal(t, row.want, c.fresh(r, runnerEpoch.Add(row.age)), "%v at %v", row.cacheFor, row.age)
	}
}

func TestLatencyIsNotNegative(t *testing.T) {
	t.Parallel()
	assert.Equal(t, ComponentReport{Status: Up}, componentResult{took: -time.Hour}.report())
	assert.Equal(t, int64(1), componentResult{took: 1999 * time.Microsecond}.report().LatencyMs)
}

func TestPublicFailures(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"":        nil,
		"failed":  context.Canceled,
		"timeout": context.DeadlineExceeded,
	} {
		assert.Equal(t, want, newFailure(err).public().text)
	}
}

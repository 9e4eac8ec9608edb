package health

import (
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/histogram"
)

// latencies is what time an endpoint took to answer in this interval and the one before.
type latencies struct {
	current atomic.Uint32 // the half that counts
	halves  [2]*histogram.Histogram
}

// The unit and the resolution of latencies: enough to see a factor of two, and 50 ms.
const (
	latencyUnit       = time.Millisecond
	latencyResolution = 3
)

func newLatencies() *latencies {
	half := func() *histogram.Histogram { return histogram.New(latencyUnit, latencyResolution) }
	return &latencies{halves: [2]*histogram.Histogram{half(), half()}}
}

func (l *latencies) record(d time.Duration) { l.halves[l.current.Load()].Add(d) }

// turn returns the median, unless it would be one of too few, and begins another interval.
func (l *latencies) turn() (median time.Duration, ok bool) {
	median, n := histogram.Quantile(0.5, l.halves[0], l.halves[1])
	next := 1 - l.current.Load()
	l.halves[next].Clear()
	l.current.Store(next)
	return median, n >= slowMinAnswers
}

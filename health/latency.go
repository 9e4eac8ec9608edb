package health

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/histogram"
)

// latencies is what time an endpoint takes to answer. Those of each interval count half as much as
// those of the next one. Where there are many, only some are looked at, by chance: enough for a
// median, and few enough for processors not to want the same counter all the time.
type latencies struct {
	histogram *histogram.Histogram
	mask      atomic.Uint64 // one of mask+1 is looked at
	bits      func() uint64
}

// The unit and the resolution of latencies: enough to see a factor of two, and 50 ms.
const (
	latencyUnit       = time.Millisecond
	latencyResolution = 3
)

func newLatencies(bits func() uint64) *latencies {
	return &latencies{histogram: histogram.New(latencyUnit, latencyResolution), bits: bits}
}

func (l *latencies) record(d time.Duration) {
	if mask := l.mask.Load(); mask == 0 || l.bits()&mask == 0 {
		l.histogram.Add(d)
	}
}

// enoughLatencies is how many answers of an interval are looked at, if there are more.
const enoughLatencies = 500

// turn returns the median, unless it would be one of too few, and begins another interval. There
// were so many answers in the one that ends.
func (l *latencies) turn(answers uint64) (median time.Duration, ok bool) {
	median, n := histogram.Quantile(0.5, l.histogram)
	l.histogram.Halve()
	l.mask.Store(1<<(max(bits.Len64(answers/enoughLatencies), 1)-1) - 1)
	return median, n >= slowMinAnswers
}

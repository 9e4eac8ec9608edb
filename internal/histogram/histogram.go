// Package histogram counts latencies in buckets of geometric widths, so that its memory and its
// error are bounded, and counting takes one atomic addition.
package histogram

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts latencies up to [Longest]. It is safe for concurrent use.
type Histogram struct {
	unit       time.Duration
	resolution int
	counts     []atomic.Uint32
}

// Longest is what longer latencies are counted as.
const Longest = 5 * time.Minute

// New returns an empty histogram whose buckets are at most 1/2^resolution of their latency wide, or
// one unit.
func New(unit time.Duration, resolution int) *Histogram {
	octaves := bits.Len64(uint64(Longest/unit)) - resolution
	return &Histogram{unit, resolution, make([]atomic.Uint32, (octaves+1)<<resolution)}
}

// Add counts a latency.
func (h *Histogram) Add(d time.Duration) { h.counts[h.bucketOf(d)].Add(1) }

// Clear forgets everything.
func (h *Histogram) Clear() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// Halve makes what was counted so far count half.
func (h *Histogram) Halve() {
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			h.counts[i].Add(-(n - n/2))
		}
	}
}

// bucketOf returns the bucket of a latency: one for each unit at first, then 2^resolution for
// each doubling.
func (h *Histogram) bucketOf(d time.Duration) int {
	units := uint64(min(max(d, 0), Longest) / h.unit)
	shift := max(bits.Len64(units)-h.resolution-1, 0)
	return shift<<h.resolution + int(units>>shift)
}

// upperOf returns the end of a bucket.
func (h *Histogram) upperOf(bucket int) time.Duration {
	shift := max(bucket>>h.resolution-1, 0)
	return time.Duration(bucket-shift<<h.resolution+1) << shift * h.unit
}

// Quantile returns a quantile of what histograms of the same kind have counted, and how much that
// was.
func Quantile(q float64, of ...*Histogram) (d time.Duration, total uint64) {
	buckets := len(of[0].counts)
	count := func(bucket int) (n uint64) {
		for _, h := range of {
			n += uint64(h.counts[bucket].Load())
		}
		return n
	}
	for i := range buckets {
		total += count(i)
	}
	rank, last := uint64(math.Ceil(q*float64(total))), 0
	for i := range buckets {
		n := count(i)
		if rank <= n {
			return of[0].upperOf(i), total
		}
		if rank -= n; n > 0 {
			last = i
		}
	}
	return of[0].upperOf(last), total // somebody has cleared them meanwhile
}

package retry

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// histogram counts latencies of the last 15 to 30 s, to know a quantile of them. Its buckets
// are at most 1/32 of their latency wide, from 1 µs to 5 min, so its memory and its error are
// bounded. Counting takes one atomic addition.
type histogram struct {
	epoch   time.Time
	current atomic.Uint32 // the half that counts
	learnt  atomic.Int64  // the quantile in nanoseconds, 0 if unknown
	next    atomic.Int64  // when it is computed again, in nanoseconds since epoch
	halves  [2]half

	mu   sync.Mutex    // guards turn
	turn time.Duration // when the halves change places, since epoch
}

func newHistogram(now time.Time) *histogram { return &histogram{epoch: now, turn: halfLasts} }

type half [buckets]atomic.Uint32

const (
	halfLasts     = 15 * time.Second
	quantileLasts = 3 * time.Second
	minSamples    = 100
	perOctave     = 32
	longestSample = 5 * time.Minute
	longestMicros = uint64(longestSample / time.Microsecond)
	octaves       = 29 - 6 // from 64 µs to longestMicros, which has 29 bits
	buckets       = (octaves + 2) * perOctave
)

// bucketOf returns the bucket of a latency: one for each microsecond up to 64, then 32 for
// each doubling.
func bucketOf(d time.Duration) int {
	us := min(uint64(max(d, 0)/time.Microsecond), longestMicros)
	shift := max(bits.Len64(us)-6, 0)
	return shift*perOctave + int(us>>shift)
}

// upperOf returns the end of a bucket.
func upperOf(bucket int) time.Duration {
	shift := max(bucket/perOctave-1, 0)
	return time.Duration(bucket-shift*perOctave+1) << shift * time.Microsecond
}

// record counts a latency.
func (h *histogram) record(d time.Duration) {
	h.halves[h.current.Load()][bucketOf(d)].Add(1)
}

// delay returns the quantile, at least minHedgeDelay, or 0 while too little is known. It is
// computed anew every few seconds, by whoever comes then.
func (h *histogram) delay(now time.Time, quantile float64) time.Duration {
	at := now.Sub(h.epoch)
	if next := h.next.Load(); int64(at) >= next && h.next.CompareAndSwap(next, int64(at+quantileLasts)) {
		turn := h.turnOver(at)
		h.next.CompareAndSwap(int64(at+quantileLasts), int64(min(at+quantileLasts, turn)))
		h.learnt.Store(int64(h.quantile(quantile)))
	}
	return time.Duration(h.learnt.Load())
}

// turnOver forgets what is old, and returns when it is to be called again.
func (h *histogram) turnOver(at time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at < h.turn {
		return h.turn
	}
	current := h.current.Load()
	if at >= h.turn+halfLasts { // nobody has looked for long
		h.halves[current].clear()
	}
	h.halves[1-current].clear()
	h.current.Store(1 - current)
	h.turn = at - (at-h.turn)%halfLasts + halfLasts
	return h.turn
}

func (h *half) clear() {
	for i := range h {
		h[i].Store(0)
	}
}

// quantile returns the quantile of both halves.
func (h *histogram) quantile(q float64) time.Duration {
	var counts [buckets]uint64
	total := uint64(0)
	for i := range counts {
		counts[i] = uint64(h.halves[0][i].Load()) + uint64(h.halves[1][i].Load())
		total += counts[i]
	}
	if total < minSamples {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(total)))
	for i, n := range counts {
		if rank <= n {
			return max(upperOf(i), minHedgeDelay)
		}
		rank -= n
	}
	return longestSample
}

package retry

import (
	"sync"
	"sync/atomic"
	"time"

	counts "github.com/evenkeel-go/evenkeel/internal/histogram"
)

// histogram counts latencies of the last 15 to 30 s, to know a quantile of them to 1/32.
type histogram struct {
	epoch   time.Time
	current atomic.Uint32 // the half that counts
	learnt  atomic.Int64  // the quantile in nanoseconds, 0 if unknown
	next    atomic.Int64  // when it is computed again, in nanoseconds since epoch
	halves  [2]*counts.Histogram

	mu   sync.Mutex    // guards turn
	turn time.Duration // when the halves change places, since epoch
}

func newHistogram(now time.Time) *histogram {
	return &histogram{epoch: now, turn: halfLasts, halves: [2]*counts.Histogram{newHalf(), newHalf()}}
}

func newHalf() *counts.Histogram { return counts.New(time.Microsecond, resolution) }

const (
	halfLasts     = 15 * time.Second
	quantileLasts = 3 * time.Second
	minSamples    = 100
	resolution    = 5
)

// record counts a latency.
func (h *histogram) record(d time.Duration) {
	h.halves[h.current.Load()].Add(d)
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
		h.halves[current].Clear()
	}
	h.halves[1-current].Clear()
	h.current.Store(1 - current)
	h.turn = at - (at-h.turn)%halfLasts + halfLasts
	return h.turn
}

// quantile returns the quantile of both halves, 0 while they hold too little.
func (h *histogram) quantile(q float64) time.Duration {
	d, n := counts.Quantile(q, h.halves[0], h.halves[1])
	if n < minSamples {
		return 0
	}
	return max(d, minHedgeDelay)
}

package orca

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"
)

const (
	// rateDecay is the time in which the weight of a request in the rates falls
	// to 1/e.
	rateDecay = 10 * time.Second
	// freshFor is how long a latency counts.
	freshFor = 10 * time.Second
	// ringSize is how many latencies are kept per bucket.
	ringSize = 16
	// exactBuckets is up to how many requests in flight each number has a bucket
	// of its own. Above, each doubling has four; the last one is open and begins
	// near a million.
	exactBuckets = 64
	numBuckets   = exactBuckets + 4*14
)

// history is what finished requests tell of a server: how many there are, and
// how long they took when it was as busy as it is now. The second is the latency
// of a probe of Prequal (NSDI 2024). It is safe for concurrent use.
type history struct {
	epoch time.Time // instants are counted from it

	mu      sync.Mutex // guards what follows
	rps     rate
	eps     rate
	buckets [numBuckets]bucket // by the requests in flight
}

// ended is a request that has ended.
type ended struct {
	took    time.Duration
	arrived int64 // how many were in flight then, itself included
	failed  bool
	untimed bool // took says nothing
}

func (h *history) add(now time.Time, e ended) {
	at := now.Sub(h.epoch)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rps.add(at)
	if e.failed {
		h.eps.add(at)
	}
	if !e.untimed {
		h.buckets[bucketOf(e.arrived)].add(latency{at, e.took})
	}
}

// rates returns the requests and the errors per second.
func (h *history) rates(now time.Time) (rps, eps float64) {
	at := now.Sub(h.epoch)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rps.now(at), h.eps.now(at)
}

// latency returns the median of what requests took that arrived at about so many
// in flight, and whether there were any lately.
func (h *history) latency(now time.Time, inflight int64) (time.Duration, bool) {
	at := now.Sub(h.epoch)
	var took [ringSize]time.Duration
	n := h.collect(&took, at, bucketOf(inflight))
	if n == 0 {
		return 0, false
	}
	slices.Sort(took[:n])
	return (took[(n-1)/2] + took[n/2]) / 2, true
}

// collect copies the latencies of the bucket nearest to the i-th that has any,
// of two the lower one, and returns how many there are.
func (h *history) collect(took *[ringSize]time.Duration, at time.Duration, i int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d := range numBuckets {
		for _, k := range [...]int{i - d, i + d} {
			if 0 <= k && k < numBuckets && h.buckets[k].fresh(at) {
				return h.buckets[k].copyTo(took, at)
			}
		}
	}
	return 0
}

// bucketOf returns the bucket of a number of requests in flight.
func bucketOf(inflight int64) int {
	n := uint64(max(inflight-1, 0))
	if n < exactBuckets {
		return int(n)
	}
	// The highest bit tells the doubling, the next two the quarter of it.
	length := bits.Len64(n)
	quarter := int(n>>(length-3)) & 3
	return min(exactBuckets+4*(length-7)+quarter, numBuckets-1)
}

// bucket holds the newest latencies, in a ring.
type bucket struct {
	ring  [ringSize]latency
	next  int // where the next one goes
	count int
}

type latency struct{ at, took time.Duration }

func (l latency) fresh(at time.Duration) bool { return at-l.at <= freshFor }

func (b *bucket) add(l latency) {
	b.ring[b.next] = l
	b.next = (b.next + 1) % ringSize
	b.count = min(b.count+1, ringSize)
}

// fresh reports whether the newest latency still counts.
func (b *bucket) fresh(at time.Duration) bool {
	return b.count > 0 && b.ring[(b.next+ringSize-1)%ringSize].fresh(at)
}

func (b *bucket) copyTo(took *[ringSize]time.Duration, at time.Duration) int {
	n := 0
	for _, l := range b.ring[:b.count] {
		if l.fresh(at) {
			took[n] = l.took
			n++
		}
	}
	return n
}

// rate is a decaying average of events per second: each one adds 1/rateDecay,
// which then fades. It begins at 0, so in the first half minute of its life a
// server reports less than it does.
type rate struct {
	value float64
	at    time.Duration
}

// now returns the rate at an instant. A clock that went back is taken for one
// that stood still.
func (r *rate) now(at time.Duration) float64 {
	if at <= r.at {
		return r.value
	}
	return r.value * math.Exp(-float64(at-r.at)/float64(rateDecay))
}

func (r *rate) add(at time.Duration) {
	r.value = r.now(at) + 1/rateDecay.Seconds()
	r.at = max(r.at, at)
}

package retry

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Hedge starts another attempt beside one that takes long, at another endpoint: the first
// good answer wins, and the other attempt is cancelled. That cuts the tail of the latency
// for a few more requests. Only requests that may be sent twice are hedged: idempotent ones
// whose body, if there is one, can be had again from GetBody, while the one before is still being
// read. Requests with trailers are not. Never are there more than two attempts at once, and all count for MaxAttempts. Where
// nothing below picks endpoints, as around a plain http.Transport, the other attempt goes the same
// way as the first.
//
// The source is "The Tail at Scale" (Dean and Barroso, 2013), with the budget of Finagle's
// backup requests and the rules of gRFC A6.
type Hedge struct {
	// After is how long an attempt is under way alone. Zero means that it is learnt: the
	// Quantile of the latencies of the last 15 to 30 s, at least 1 ms, of the target's calls with
	// the same method. Until there were 100 of them, nothing is hedged. Less than 1 ms counts as
	// 1 ms, negative is an error. If one of two attempts fails, the other one is alone for as long
	// again, and for as long as a retry would wait.
	After time.Duration
	// Quantile is which part of the attempts are faster than the delay that is learnt. Zero
	// means 0.95; it must be between 0 and 1.
	Quantile float64
	// Budget is how many hedges there may be for each call that could be hedged, at most; up to
	// 10 that were not used are saved. It comes on top of Policy.Budget, of which a hedge takes
	// as much as a retry and, if it succeeds, gets it back. Zero means 0.05, at most 1; negative
	// means that there is no bound of its own.
	Budget float64
}

const (
	defaultQuantile    = 0.95
	defaultHedgeBudget = 0.05
	maxSavedHedges     = 10
	minHedgeDelay      = time.Millisecond
)

func (h Hedge) withDefaults() Hedge {
	if h.Quantile == 0 {
		h.Quantile = defaultQuantile
	}
	if h.Budget == 0 {
		h.Budget = defaultHedgeBudget
	}
	return h
}

func (h Hedge) validate() error {
	var errs field.Errors
	errs.Check(h.After >= 0, "After", h.After, "must not be negative")
	errs.Check(h.Quantile == 0 || (h.Quantile > 0 && h.Quantile < 1), "Quantile", h.Quantile, "must be between 0 and 1")
	errs.Check(h.Budget <= 0 || (h.Budget >= leastShare && h.Budget <= 1), "Budget", h.Budget, "must be between 0.000001 and 1, or negative for none")
	return errs.Err()
}

// hedger is what the hedges of all calls share.
type hedger struct {
	Hedge
	perCall int64
	saved   *bucket // nil if there is no bound
	learnt  *latencies
}

// newHedger returns the hedger for a policy, with what the one before has learnt.
func newHedger(h *Hedge, before *hedger) *hedger {
	if h == nil {
		return nil
	}
	next := &hedger{Hedge: h.withDefaults()}
	if next.Budget > 0 {
		next.perCall, next.saved = int64(math.Round(next.Budget*perToken)), new(bucket)
	}
	if before != nil && before.saved != nil && next.saved != nil {
		next.saved = before.saved
	}
	if next.After == 0 {
		if next.learnt = new(latencies); before != nil && before.learnt != nil {
			next.learnt = before.learnt
		}
	}
	return next
}

// begin counts a call that could be hedged and returns after which delay it is, 0 for not.
func (h *hedger) begin(method string, now time.Time) time.Duration {
	if h.saved != nil {
		h.saved.put(h.perCall, maxSavedHedges*perToken)
	}
	if h.After > 0 {
		return max(h.After, minHedgeDelay)
	}
	return h.learnt.of(method, now).delay(now, h.Quantile)
}

// learns reports whether latencies are of use.
func (h *hedger) learns() bool { return h != nil && h.learnt != nil }

// take asks for a hedge, and untake gives back what it took.
func (h *hedger) take() bool { return h.saved == nil || h.saved.take(perToken) }

func (h *hedger) untake() {
	if h.saved != nil {
		h.saved.put(perToken, maxSavedHedges*perToken)
	}
}

// latencies are histograms by method.
type latencies struct {
	methods [len(knownMethods) + 1]atomic.Pointer[histogram] // the last is for all others
}

var knownMethods = [...]string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "TRACE"}

// of returns the histogram of a method.
func (l *latencies) of(method string, now time.Time) *histogram {
	if method == "" {
		method = "GET"
	}
	i := 0
	for i < len(knownMethods) && knownMethods[i] != method {
		i++
	}
	for {
		if h := l.methods[i].Load(); h != nil {
			return h
		}
		l.methods[i].CompareAndSwap(nil, newHistogram(now))
	}
}

package retry

import (
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Quota is an allowance of retries that successes refill: the retry quota of the
// AWS SDKs. It starts full. A retry takes tokens out, and gets them back if it
// succeeds; a first attempt that succeeds puts one in. While everything fails
// nothing comes in, so retries add no load to an outage beyond what was in it.
type Quota struct {
	// Size is how many tokens it holds. Zero means 500; negative switches the
	// quota off, which lets retries multiply an outage.
	Size int
	// Cost is what a retry takes. Zero means 5, negative is an error.
	Cost int
	// TimeoutCost is what a retry after a timeout takes: that attempt has
	// cost its server work. Zero means 10, negative is an error.
	TimeoutCost int
}

const (
	defaultQuotaSize   = 500
	defaultCost        = 5
	defaultTimeoutCost = 10
	firstTryRefill     = 1
)

func (q Quota) withDefaults() Quota {
	if q.Size == 0 {
		q.Size = defaultQuotaSize
	}
	if q.Cost == 0 {
		q.Cost = defaultCost
	}
	if q.TimeoutCost == 0 {
		q.TimeoutCost = defaultTimeoutCost
	}
	return q
}

func (q Quota) validate() error {
	var errs field.Errors
	errs.Check(q.Cost >= 0, "Cost", q.Cost, "must not be negative")
	errs.Check(q.TimeoutCost >= 0, "TimeoutCost", q.TimeoutCost, "must not be negative")
	return errs.Err()
}

// bucket holds the tokens of a target.
type bucket struct {
	tokens atomic.Int64
}

// take takes out n tokens if there are as many.
func (b *bucket) take(n int64) bool {
	for {
		have := b.tokens.Load()
		if have < n {
			return false
		}
		if b.tokens.CompareAndSwap(have, have-n) {
			return true
		}
	}
}

// put puts in n tokens, up to the size. A full bucket is not written to: that
// is the normal state, and the hot one.
func (b *bucket) put(n, size int64) {
	for {
		have := b.tokens.Load()
		next := min(have+n, size)
		if next <= have || b.tokens.CompareAndSwap(have, next) {
			return
		}
	}
}

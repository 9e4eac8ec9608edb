package retry

import (
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Quota is a [Budget] that successes refill: the retry quota of the AWS SDKs. It starts full.
// A retry or hedge takes tokens out, and gets them back if it succeeds; a first attempt that
// succeeds puts one in. While everything fails nothing comes in, so retries add no load to
// an outage beyond what was in it.
type Quota struct {
	// Size is how many tokens it holds. Zero means 500; negative switches the
	// quota off, which lets retries multiply an outage.
	Size int
	// Cost is what a retry or hedge takes. Zero means 5, negative is an error.
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

// NewAccount implements [Budget].
func (q Quota) NewAccount(previous Account) (Account, error) {
	var errs field.Errors
	errs.Check(q.Cost >= 0, "Cost", q.Cost, "must not be negative")
	errs.Check(q.TimeoutCost >= 0, "TimeoutCost", q.TimeoutCost, "must not be negative")
	if err := errs.Err(); err != nil {
		return nil, err
	}
	q = q.withDefaults()
	account := &quotaAccount{quota: q}
	if before, ok := previous.(*quotaAccount); ok && q.Size > 0 && before.quota.Size > 0 {
		account.bucket = before.bucket // a smaller size takes effect as tokens are spent
	} else {
		account.bucket = newBucket(int64(max(q.Size, 0)))
	}
	return account, nil
}

type quotaAccount struct {
	quota Quota
	*bucket
}

// Begin implements [Account].
func (a *quotaAccount) Begin() {}

// End implements [Account].
func (a *quotaAccount) End() {}

// Withdraw implements [Account].
func (a *quotaAccount) Withdraw(o outcome.Outcome) (cost int, ok bool) {
	if a.quota.Size < 0 {
		return 0, true
	}
	if cost = a.quota.Cost; o.Timeout {
		cost = a.quota.TimeoutCost
	}
	return cost, a.take(int64(cost))
}

// Report implements [Account].
func (a *quotaAccount) Report(cost int, o outcome.Outcome) {
	switch {
	case o.Class == outcome.Success && cost == 0:
		a.put(firstTryRefill, int64(a.quota.Size))
	case o.Class == outcome.Success, o.Class == outcome.Refused:
		a.put(int64(cost), int64(a.quota.Size))
	}
}

// Tokens implements [Account].
func (a *quotaAccount) Tokens() int { return int(a.tokens.Load()) }

// bucket holds the tokens of a target.
type bucket struct {
	tokens atomic.Int64
}

func newBucket(tokens int64) *bucket {
	b := new(bucket)
	b.tokens.Store(tokens)
	return b
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

package retry

import (
	"math"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Throttle is a [Budget] that stops all retries and hedges when attempts fail too often: the
// retry throttling of gRPC (gRFC A6). A failed attempt takes a token out, a good one puts
// Ratio in, and there are retries only while more than half of the tokens are left. So they
// end for good when more than about Ratio of the attempts fail.
type Throttle struct {
	// MaxTokens is how many tokens it holds, and has at the beginning. Zero means 10, at most
	// 1000 as in gRPC; negative is an error.
	MaxTokens int
	// Ratio is what a good attempt puts in. Zero means 0.1; it must be between 0.000001 and
	// 1000.
	Ratio float64
}

const (
	defaultMaxTokens  = 10
	defaultTokenRatio = 0.1
)

func (t Throttle) withDefaults() Throttle {
	if t.MaxTokens == 0 {
		t.MaxTokens = defaultMaxTokens
	}
	if t.Ratio == 0 {
		t.Ratio = defaultTokenRatio
	}
	return t
}

// NewAccount implements [Budget].
func (t Throttle) NewAccount(previous Account) (Account, error) {
	var errs field.Errors
	d := t.withDefaults()
	errs.Check(d.MaxTokens > 0 && d.MaxTokens <= 1000, "MaxTokens", t.MaxTokens, "must be between 1 and 1000")
	errs.Check(d.Ratio >= leastShare && d.Ratio <= 1000, "Ratio", t.Ratio, "must be a number from 0.000001 to 1000")
	if err := errs.Err(); err != nil {
		return nil, err
	}
	account := &throttleAccount{ratio: int64(math.Round(d.Ratio * perToken)), size: int64(d.MaxTokens) * perToken}
	switch before, ok := previous.(*throttleAccount); {
	case !ok:
		account.bucket = newBucket(account.size)
	case before.size == account.size:
		account.bucket = before.bucket
	default: // what counts is which part of them is left
		account.bucket = newBucket(int64(float64(before.tokens.Load()) / float64(before.size) * float64(account.size)))
	}
	return account, nil
}

type throttleAccount struct {
	ratio, size int64
	*bucket
}

// Begin implements [Account].
func (a *throttleAccount) Begin() {}

// End implements [Account].
func (a *throttleAccount) End() {}

// Withdraw implements [Account].
func (a *throttleAccount) Withdraw(outcome.Outcome) (cost int, ok bool) {
	return 0, a.tokens.Load() > a.size/2
}

// Report implements [Account].
func (a *throttleAccount) Report(_ int, o outcome.Outcome) {
	switch {
	case o.Class.Good():
		a.put(a.ratio, a.size)
	case o.Class == outcome.Failure, o.Class == outcome.Overload:
		a.drop(perToken)
	}
}

// Tokens implements [Account].
func (a *throttleAccount) Tokens() int { return int(a.tokens.Load() / perToken) }

// drop takes out n tokens, or what is left.
func (b *bucket) drop(n int64) {
	for {
		have := b.tokens.Load()
		if have <= 0 || b.tokens.CompareAndSwap(have, max(have-n, 0)) {
			return
		}
	}
}

package retry

import (
	"math"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Ratio is a [Budget] that calls refill, whether they succeed or not: retries and hedges are at
// most a share of them. It is the retry budget of Finagle and Linkerd, without the allowance
// per second. While all fails it still adds its share to the load, which may keep an
// overloaded target down; [Quota] does not.
type Ratio struct {
	// PerCall is what each call puts in; a retry or hedge takes 1. Zero means 0.2; it must be
	// between 0.000001 and 10.
	PerCall float64
	// Reserve is what it holds at the beginning. Zero means 10, negative means nothing.
	Reserve int
	// Max is how much it can hold. Zero means 100, or Reserve if that is more; less than
	// Reserve is an error.
	Max int
}

const (
	defaultPerCall  = 0.2
	defaultReserve  = 10
	defaultRatioMax = 100
	perToken        = 1_000_000 // the bucket holds fractions
	leastShare      = 1e-6      // is one of them
)

func (r Ratio) withDefaults() Ratio {
	if r.PerCall == 0 {
		r.PerCall = defaultPerCall
	}
	if r.Reserve == 0 {
		r.Reserve = defaultReserve
	}
	if r.Max == 0 {
		r.Max = max(defaultRatioMax, r.Reserve)
	}
	return r
}

// NewAccount implements [Budget].
func (r Ratio) NewAccount(previous Account) (Account, error) {
	var errs field.Errors
	d := r.withDefaults()
	errs.Check(d.PerCall >= leastShare && d.PerCall <= 10, "PerCall", r.PerCall, "must be a number from 0.000001 to 10")
	errs.Check(d.Max >= d.Reserve && d.Max > 0 && d.Max <= math.MaxInt32, "Max", r.Max, "must not be less than Reserve, nor more than 2147483647")
	if err := errs.Err(); err != nil {
		return nil, err
	}
	account := &ratioAccount{perCall: int64(math.Round(d.PerCall * perToken)), size: int64(d.Max) * perToken}
	if before, ok := previous.(*ratioAccount); ok {
		account.bucket = before.bucket
	} else {
		account.bucket = newBucket(int64(max(d.Reserve, 0)) * perToken)
	}
	return account, nil
}

type ratioAccount struct {
	perCall, size int64
	*bucket
}

// Begin implements [Account].
func (a *ratioAccount) Begin() { a.put(a.perCall, a.size) }

// End implements [Account].
func (a *ratioAccount) End() {}

// Withdraw implements [Account].
func (a *ratioAccount) Withdraw(outcome.Outcome) (cost int, ok bool) { return 1, a.take(perToken) }

// Report implements [Account].
func (a *ratioAccount) Report(cost int, o outcome.Outcome) {
	if o.Class == outcome.Refused {
		a.put(int64(cost)*perToken, a.size)
	}
}

// Tokens implements [Account].
func (a *ratioAccount) Tokens() int { return int(a.tokens.Load() / perToken) }

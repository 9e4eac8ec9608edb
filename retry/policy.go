package retry

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Policy says which attempts are repeated, how often, how fast and at whose cost. The
// zero Policy is the recommended one. It can be shared by goroutines.
type Policy struct {
	// MaxAttempts is how many attempts a call makes in all: the first, its
	// retries and its hedges. Zero means 3, 1 means no retry, negative is an
	// error. Moves to another endpoint after a refused connection come on
	// top, at most two per call.
	MaxAttempts int

	// PerAttemptTimeout bounds the time from sending an attempt to its
	// response's headers; the body may take longer. Zero means no bound
	// besides the caller's; negative is an error. Upgrades such as WebSocket
	// are not bounded. Set it if endpoints may hang: without it, the first
	// attempt may take all the time that the caller has.
	PerAttemptTimeout time.Duration

	// Timeout bounds the time from the call to its response's headers, over
	// all attempts and waits. Zero means no bound besides the caller's;
	// negative is an error. Inside evenkeel.New, the shorter of this and
	// Config.Timeout counts.
	Timeout time.Duration

	// Backoff is the wait before an endpoint is tried again. Moving on to an
	// endpoint that the call has not tried takes no wait.
	Backoff Backoff

	// Pushback is what servers may ask for instead, by Retry-After.
	Pushback Pushback

	// Budget bounds the retries and hedges of all calls together: a [Quota],
	// a [Throttle], a [Ratio], or one of your own. Nil means Quota{};
	// Quota{Size: -1} is no bound, which lets retries multiply an outage.
	Budget Budget

	// Hedge, if set, starts another attempt beside one that takes long.
	Hedge *Hedge

	// Idempotent are methods, beside those of RFC 9110, whose requests may
	// reach a server more than once, such as "POST" for an API that sees to
	// that itself. For single calls see [WithMark].
	Idempotent []string

	// Statuses are repeated, too, beside those that the classifier says can
	// be: 429, 502, 503 and 504. At least 300, at most 599.
	Statuses []int

	// Spool is how much of a request's body that has no GetBody is kept in
	// memory, in bytes, while it is sent, so that it can be sent again. A
	// longer body is sent all the same, but only once. Zero means none, which
	// costs no memory; negative is an error.
	Spool int

	// NewBackOff, if set, takes the place of Backoff: it returns the waits of
	// one call, by any policy of cenkalti/backoff or of your own. Their
	// randomness and their clock are theirs. backoff.Stop ends the call, a wait of
	// less than 1 ms becomes one of 1 ms, and if NewBackOff returns nil, Backoff
	// counts.
	NewBackOff func() backoff.BackOff

	// RetryIf, if set, decides whether an attempt had better be repeated, in
	// place of the classifier's opinion and of the rules of what is
	// idempotent: saying yes to a request that may have been processed means
	// that it may be processed twice. A body that cannot be sent again, the limits and
	// the budget still count. It must be safe for concurrent use and must not block.
	RetryIf func(Case) bool

	// Classifier says what an attempt meant; nil means [outcome.Classify].
	// Inside evenkeel.New it is set there, for all policies.
	Classifier outcome.Classifier

	// Clock is the clock to use; nil means the system's. Inside evenkeel.New
	// it is set there.
	Clock clock.Clock

	// Rand is the source of the jitter; nil means the runtime's. Access is
	// serialised. Inside evenkeel.New it is set there.
	Rand rand.Source

	// Hooks are told what happens. Inside evenkeel.New they are set there.
	Hooks Hooks
}

// Pushback says how servers are heard that ask to be left alone for a while, by Retry-After
// with 429, 502, 503 or 504, or after 429 by a RateLimit header or one that ends in RateLimit-Reset. A
// call that has another endpoint goes there at once. One that has not waits as long as it
// was asked to and up to half as long again, but not beyond Max, so that not all come back at
// once.
type Pushback struct {
	// Max is the longest wait. If a server asks for more, its answer is the
	// caller's at once, because an attempt before that time would be against
	// its wish. Zero means 10s; negative means that servers are not heard, and
	// Backoff counts.
	Max time.Duration
	// Shorten makes calls wait all the same in that case, for Max or up to a third less, and
	// try again.
	Shorten bool
}

const (
	defaultMaxAttempts = 3
	defaultMaxPushback = 10 * time.Second
	// maxFreeMoves bounds the moves to another endpoint that cost nothing.
	maxFreeMoves = 2
	// maxAttempts is more than anybody needs, and fits the counters.
	maxAttempts = 1 << 20
)

// WithDefaults returns the policy as it is applied, with every default filled
// in. Behaviour fields are left as they are.
func (p Policy) WithDefaults() Policy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = defaultMaxAttempts
	}
	p.Backoff = p.Backoff.withDefaults()
	p.Idempotent, p.Statuses = slices.Clone(p.Idempotent), slices.Clone(p.Statuses) // the caller may change its own
	if p.Pushback.Max == 0 {
		p.Pushback.Max = defaultMaxPushback
	}
	switch b := p.Budget.(type) {
	case nil:
		p.Budget = Quota{}.withDefaults()
	case Quota:
		p.Budget = b.withDefaults()
	case Throttle:
		p.Budget = b.withDefaults()
	case Ratio:
		p.Budget = b.withDefaults()
	}
	if p.Hedge != nil {
		h := p.Hedge.withDefaults()
		p.Hedge = &h
	}
	return p
}

// Validate returns nil, or all that is wrong with the policy.
func (p Policy) Validate() error {
	var errs field.Errors
	errs.Check(p.MaxAttempts >= 0 && p.MaxAttempts <= maxAttempts, "MaxAttempts", p.MaxAttempts,
		fmt.Sprintf("must be between 0 and %d", maxAttempts))
	errs.Check(p.PerAttemptTimeout >= 0, "PerAttemptTimeout", p.PerAttemptTimeout, "must not be negative")
	errs.Check(p.Timeout >= 0, "Timeout", p.Timeout, "must not be negative")
	errs.Under("Backoff", p.Backoff.validate())
	if b := reflect.ValueOf(p.Budget); b.Kind() == reflect.Pointer && b.IsNil() {
		errs.Add("Budget", nil, "must not be a nil pointer")
	} else if p.Budget != nil {
		account, err := p.Budget.NewAccount(nil)
		errs.Under("Budget", err)
		errs.Check(account != nil || err != nil, "Budget", p.Budget, "must make an account")
	}
	if p.Hedge != nil {
		errs.Under("Hedge", p.Hedge.validate())
	}
	for i, m := range p.Idempotent {
		errs.Check(m != "", fmt.Sprintf("Idempotent[%d]", i), m, "must be a method")
	}
	for i, s := range p.Statuses {
		errs.Check(s >= 300 && s <= 599, fmt.Sprintf("Statuses[%d]", i), s, "must be between 300 and 599")
	}
	errs.Check(p.Spool >= 0, "Spool", p.Spool, "must not be negative")
	return errs.Err()
}

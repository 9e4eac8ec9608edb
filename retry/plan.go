package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Retrier applies a policy to the calls of one target: it holds the quota that
// they share. It is safe for concurrent use.
type Retrier struct {
	policy Policy
	rand   func() float64
	bucket *bucket
}

// NewRetrier returns what applies the policy, or all that is wrong with it.
func NewRetrier(p Policy) (*Retrier, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	r := &Retrier{policy: p.WithDefaults(), rand: random.Floats(p.Rand), bucket: new(bucket)}
	r.bucket.tokens.Store(int64(r.policy.Quota.Size))
	return r, nil
}

// With returns a Retrier for another policy and the same calls: what is left of
// the quota stays.
func (r *Retrier) With(p Policy) (*Retrier, error) {
	next, err := NewRetrier(p)
	if err != nil {
		return nil, err
	}
	if r.policy.Quota.Size > 0 {
		next.bucket = r.bucket // a smaller size takes effect as tokens are spent
	}
	return next, nil
}

// Policy returns the policy with its defaults.
func (r *Retrier) Policy() Policy { return r.policy }

// QuotaTokens returns how many tokens the quota holds.
func (r *Retrier) QuotaTokens() int { return int(r.bucket.tokens.Load()) }

// Event is what a [Plan] must know of an attempt that has ended.
type Event struct {
	// Now is the present instant.
	Now time.Time
	// Outcome is what the attempt meant.
	Outcome outcome.Outcome
	// Idempotent says that the request may reach a server more than once.
	Idempotent bool
	// Replayable says that the request's body can be sent again.
	Replayable bool
	// Others says that there is an endpoint which the call has not tried.
	Others bool
	// Exhausted says that a call around this one allows no more attempts.
	Exhausted bool
	// Deadline is when the caller or the call gives up; zero is never.
	Deadline time.Time
}

// Action is what a [Plan] answers.
type Action struct {
	// Again says that another attempt is to be made.
	Again bool
	// Wait is how long to wait before it.
	Wait time.Duration
	// Reason is why there is no other, empty where none was wanted.
	Reason outcome.Reason
}

// Plan decides what follows after each attempt of one call. It belongs to one
// goroutine.
type Plan struct {
	retrier  *Retrier
	attempts int  // that count
	moves    int  // that were free
	moved    bool // away from an endpoint that cannot do better
	paid     int  // tokens for the attempt under way
	waits    backoff.BackOff
}

// Begin returns the plan for a call.
func (r *Retrier) Begin() Plan { return Plan{retrier: r} }

// Next takes how an attempt went and says what follows.
func (p *Plan) Next(e Event) Action {
	p.attempts++
	p.settle(e.Outcome)
	if reason, stop := p.mustStop(e); stop {
		return Action{Reason: reason}
	}
	p.moved = p.moved || e.Outcome.Again == outcome.Elsewhere
	if p.freeMove(e) {
		p.attempts--
		p.moves++
		return Action{Again: true}
	}
	if p.attempts >= p.retrier.policy.MaxAttempts || e.Exhausted {
		return Action{Reason: outcome.Attempts}
	}
	wait := p.wait(e)
	if !e.Deadline.IsZero() && !e.Now.Add(wait).Before(e.Deadline) {
		return Action{Reason: outcome.Deadline}
	}
	if !p.pay(e.Outcome) {
		return Action{Reason: outcome.Quota}
	}
	return Action{Again: true, Wait: wait}
}

// settle refills the quota after a success: by one for a first attempt, by what
// it had cost for a later one.
func (p *Plan) settle(o outcome.Outcome) {
	paid := p.paid
	p.paid = 0
	if o.Class != outcome.Success {
		return
	}
	if p.attempts == 1 {
		paid = firstTryRefill
	}
	p.retrier.bucket.put(int64(paid), int64(p.retrier.policy.Quota.Size))
}

// mustStop says whether the request may not be sent again, or should not be.
func (p *Plan) mustStop(e Event) (outcome.Reason, bool) {
	switch {
	case e.Outcome.Class == outcome.Canceled:
		return outcome.Caller, true
	case e.Outcome.Class == outcome.Refused:
		return outcome.Invalid, true
	case e.Outcome.Again == outcome.No:
		return "", true
	case !e.Outcome.Class.Good() && e.Outcome.Class != outcome.NeverSent && !e.Idempotent:
		return outcome.NotIdempotent, true
	case !e.Replayable:
		return outcome.NotReplayable, true
	case e.Outcome.Again == outcome.Elsewhere && (p.moved || !e.Others):
		return outcome.Permanent, true
	default:
		return "", false
	}
}

// freeMove says whether the call moves on to another endpoint at no cost: the
// connection was refused at once, so no server has done any work.
func (p *Plan) freeMove(e Event) bool {
	return e.Outcome.Class == outcome.NeverSent && !e.Outcome.Timeout && e.Others &&
		!e.Exhausted && p.moves < maxFreeMoves && p.retrier.policy.MaxAttempts > 1
}

// wait returns how long to wait: not at all for an endpoint that was not tried.
func (p *Plan) wait(e Event) time.Duration {
	if e.Others {
		return 0
	}
	if p.waits == nil {
		p.waits = p.retrier.policy.Backoff.start()
	}
	return jitter(p.waits.NextBackOff(), p.retrier.rand())
}

// pay takes the cost of another attempt out of the quota.
func (p *Plan) pay(o outcome.Outcome) bool {
	q := p.retrier.policy.Quota
	if q.Size < 0 {
		return true
	}
	cost := q.Cost
	if o.Timeout {
		cost = q.TimeoutCost
	}
	if !p.retrier.bucket.take(int64(cost)) {
		return false
	}
	p.paid = cost
	return true
}

package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/random"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Retrier applies a policy to the calls of one target: it holds what they share, the budget
// and what is known of their latencies. It is safe for concurrent use.
type Retrier struct {
	policy  Policy
	rand    func() float64
	account Account
	hedges  *hedger // nil if there are none
	typical *typical
}

// NewRetrier returns what applies the policy, or all that is wrong with it.
func NewRetrier(p Policy) (*Retrier, error) { return newRetrier(p, &Retrier{typical: new(typical)}) }

// With returns a Retrier for another policy and the same calls: what is left of
// the budget stays, if the budget is of the same kind, and so does the source of the jitter.
func (r *Retrier) With(p Policy) (*Retrier, error) { return newRetrier(p, r) }

func newRetrier(p Policy, before *Retrier) (*Retrier, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.WithDefaults()
	p.Clock = clock.Or(p.Clock)
	if p.Classifier == nil {
		p.Classifier = outcome.Classify
	}
	account, err := p.Budget.NewAccount(before.account)
	if err != nil {
		return nil, err
	}
	r := &Retrier{
		policy: p, rand: before.rand, account: account,
		hedges: newHedger(p.Hedge, before.hedges), typical: before.typical,
	}
	if r.rand == nil { // one lock for one source
		r.rand = random.Floats(p.Rand)
	}
	return r, nil
}

// Policy returns the policy with its defaults.
func (r *Retrier) Policy() Policy { return r.policy }

// Tokens returns how much the budget holds.
func (r *Retrier) Tokens() int { return r.account.Tokens() }

// Event is what a [Plan] must know of an attempt.
type Event struct {
	// Now is the present instant.
	Now time.Time
	// Outcome is what the attempt meant.
	Outcome outcome.Outcome
	// Took is how long it took to know.
	Took time.Duration
	// Cost is that of the [Action] with which the attempt began; 0 for the first.
	Cost int
	// Running says that another attempt of the call is still under way.
	Running bool
	// Idempotent says that the request may reach a server more than once.
	Idempotent bool
	// Replayable says that the request's body can be sent again.
	Replayable bool
	// Others says that there is an endpoint which the call has not tried.
	Others bool
	// Exhausted says that the call itself, or one around it, allows no more attempts.
	Exhausted bool
	// Deadline is when the caller or the call gives up; zero is never.
	Deadline time.Time
	// Asked says that the server has asked to be left alone for the time of Pushback.
	Asked bool
	// Pushback is that time, at least 0.
	Pushback time.Duration
	// Verdict is what the user's rule says, if there is one.
	Verdict Verdict
}

// Verdict is the opinion of [Policy.RetryIf].
type Verdict uint8

// The verdicts.
const (
	// ByRules is no opinion.
	ByRules Verdict = iota
	// Repeat and Decline say whether to repeat the attempt.
	Repeat
	Decline
)

// Action is what a [Plan] answers.
type Action struct {
	// Again says that another attempt is to be made.
	Again bool
	// Wait is how long to wait before it.
	Wait time.Duration
	// Cost is what it took out of the budget.
	Cost int
	// Await says that nothing is decided before the attempt that is still under way ends.
	Await bool
	// Reason is why there is no other attempt, empty where none was wanted.
	Reason outcome.Reason

	reserved bool // it counts for the limit of the call
}

// Plan decides what follows after each attempt of one call. It belongs to one goroutine,
// never blocks, and reads no clock.
type Plan struct {
	retrier  *Retrier
	limit    *call.Limit // of the call with those around it, nil if there is none
	attempts int         // that have ended and count
	moves    int         // that were free
	moved    bool        // away from an endpoint that cannot do better
	waits    backoff.BackOff
	drawn    time.Duration // the latest of them
	kept     bool          // it has not been used
}

// Begin returns the plan for a call. The budget is not told of the end of the call.
func (r *Retrier) Begin() Plan {
	return r.begin(nil)
}

// begin returns the plan for a call that has a limit.
func (r *Retrier) begin(limit *call.Limit) Plan {
	r.account.Begin()
	return Plan{retrier: r, limit: limit}
}

// Next takes how an attempt has ended and says what follows.
func (p *Plan) Next(e Event) Action {
	p.note(e.Cost, e.Outcome, e.Took, e.Now)
	return p.decide(&e)
}

// Reconsider is Next for an attempt that it has been told of when another one was under way,
// which was not made after all.
func (p *Plan) Reconsider(e Event) Action {
	e.Running = false
	return p.decide(&e)
}

func (p *Plan) decide(e *Event) Action {
	e.heed()
	reason, stop := p.mustStop(e)
	if e.Running && !p.decides(e) {
		return Action{Await: true}
	}
	if stop {
		return Action{Reason: reason}
	}
	p.moved = p.moved || e.Outcome.Again == outcome.Elsewhere
	if p.freeMove(e) {
		if p.tooLate(e, 0) {
			return Action{Reason: outcome.Deadline}
		}
		p.attempts--
		p.moves++
		return Action{Again: true}
	}
	if p.attempts >= p.retrier.policy.MaxAttempts || e.Exhausted {
		return Action{Reason: outcome.Attempts}
	}
	wait, reason := p.wait(e, false)
	if reason != "" {
		return Action{Reason: reason}
	}
	if p.tooLate(e, wait) {
		return Action{Reason: outcome.Deadline}
	}
	action := p.take(e.Outcome)
	if action.Again {
		action.Wait = wait
	}
	return action
}

// carry takes over what the server has asked for after an attempt before: the wish still holds.
func (e *Event) carry(before Event) {
	if before.Asked {
		e.Asked, e.Pushback = true, max(e.Pushback, before.Pushback-e.Now.Sub(before.Now), 0)
	}
}

// heed makes the event say what the user's rule wants.
func (e *Event) heed() {
	if e.Verdict == Repeat {
		e.Outcome.Again, e.Idempotent = max(e.Outcome.Again, outcome.Anywhere), true
	}
}

// take takes another attempt out of the limit and the budget, or says which of them has none.
func (p *Plan) take(o outcome.Outcome) Action {
	if p.limit != nil && !p.limit.Reserve() {
		return Action{Reason: outcome.Attempts}
	}
	cost, ok := p.retrier.account.Withdraw(o)
	if !ok {
		if p.limit != nil {
			p.limit.Release()
		}
		return Action{Reason: outcome.Quota}
	}
	return Action{Again: true, Cost: cost, reserved: p.limit != nil}
}

// Hedge says whether another attempt begins beside the one under way, which has been for as
// long as the policy says. Of the event, Outcome, Took, Cost, Running and Verdict do not
// matter.
func (p *Plan) Hedge(e Event) Action {
	r := p.retrier
	switch {
	case !e.Idempotent:
		return Action{Reason: outcome.NotIdempotent}
	case !e.Replayable:
		return Action{Reason: outcome.NotReplayable}
	case !e.Others:
		return Action{Reason: outcome.NoEndpoints}
	case p.attempts+1 >= r.policy.MaxAttempts || e.Exhausted:
		return Action{Reason: outcome.Attempts}
	case p.tooLate(&e, 0):
		return Action{Reason: outcome.Deadline}
	case !r.hedges.take():
		return Action{Reason: outcome.Quota}
	}
	action := p.take(outcome.Outcome{})
	if !action.Again {
		r.hedges.untake()
	}
	return action
}

// Pause returns for how long no other attempt begins beside the one under way, at least, after one
// that has ended and does not decide; false means never.
func (p *Plan) Pause(e Event) (time.Duration, bool) {
	e.heed()
	if _, stop := p.mustStop(&e); stop {
		return 0, false
	}
	wait, reason := p.wait(&e, true)
	return wait, reason == ""
}

// Withdrawn takes back an attempt that was not made after all: a layer below has refused it, or
// the call has ended before.
func (p *Plan) Withdrawn(a Action, hedge bool) {
	p.retrier.account.Report(a.Cost, outcome.Outcome{Class: outcome.Refused})
	if a.reserved {
		p.limit.Release()
	}
	if hedge {
		p.retrier.hedges.untake()
	}
}

// tell tells a decision. If that panics, what the attempt took that was to follow is given back.
func (p *Plan) tell(hook func(Decision), d Decision) {
	told := false
	defer func() {
		if !told && d.Action.Again {
			p.Withdrawn(d.Action, d.Hedge)
		}
	}()
	shown := d
	shown.Action.reserved = false // it is nobody's business, and would show when actions are compared
	hook(shown)
	told = true
}

// lost counts an attempt that the call does not wait for, or that has panicked, for all calls.
func (p *Plan) lost(cost int, class outcome.Class) {
	p.retrier.account.Report(cost, outcome.Outcome{Class: class})
}

// note counts an attempt, here and for all calls.
func (p *Plan) note(cost int, o outcome.Outcome, took time.Duration, now time.Time) {
	p.attempts++
	p.retrier.account.Report(cost, o)
	if o.Class.Good() {
		p.retrier.typical.note(took, now)
	}
}

// decides reports whether the attempt decides the call although another one is under way: one
// that failed, or had better be repeated, does not.
func (p *Plan) decides(e *Event) bool {
	final := e.Outcome.Again == outcome.No || e.Verdict == Decline
	return e.Outcome.Class == outcome.Canceled || (e.Outcome.Class.Good() && final)
}

// mustStop says whether the request may not be sent again, or should not be.
func (p *Plan) mustStop(e *Event) (outcome.Reason, bool) {
	switch {
	case e.Outcome.Class == outcome.Canceled:
		return outcome.Caller, true
	case e.Outcome.Class == outcome.Refused:
		return outcome.Invalid, true
	case e.Verdict == Decline && !e.Outcome.Class.Good():
		return outcome.Declined, true
	case e.Outcome.Again == outcome.No || e.Verdict == Decline:
		return "", true
	case !e.Idempotent && e.Outcome.Class != outcome.NeverSent:
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
func (p *Plan) freeMove(e *Event) bool {
	return e.Outcome.Class == outcome.NeverSent && !e.Outcome.Timeout && e.Others &&
		!e.Exhausted && p.moves < maxFreeMoves && p.retrier.policy.MaxAttempts > 1
}

// wait returns how long to wait, not at all for an endpoint that was not tried, or why there
// is no waiting. keep says that the wait is not used up: the next one is as long.
func (p *Plan) wait(e *Event, keep bool) (time.Duration, outcome.Reason) {
	if e.Others {
		return 0, ""
	}
	policy := &p.retrier.policy
	if p.waits == nil {
		p.waits = policy.waits(p.retrier.rand)
	}
	if !p.kept {
		p.drawn = p.waits.NextBackOff()
	}
	wait := p.drawn
	p.kept = keep
	if wait == backoff.Stop {
		return 0, outcome.Backoff
	}
	if policy.NewBackOff != nil {
		wait = max(wait, minWait)
	}
	if !e.Asked || policy.Pushback.Max < 0 {
		return wait, ""
	}
	asked, most := e.Pushback, policy.Pushback.Max
	if asked > most {
		if !policy.Pushback.Shorten {
			return 0, outcome.Pushback
		}
		asked = most - most/3
	}
	later := asked + part(min(asked/2, most-asked), p.retrier.rand()) // never sooner, never after Max
	return max(wait, later), ""
}

// waits returns the waits of one call.
func (p *Policy) waits(random func() float64) backoff.BackOff {
	if p.NewBackOff != nil {
		if b := p.NewBackOff(); b != nil {
			b.Reset() // as the library does before it begins
			return b
		}
	}
	return p.Backoff.new(random)
}

// tooLate reports whether an attempt after a wait could not be expected to end before the
// deadline.
func (p *Plan) tooLate(e *Event, wait time.Duration) bool {
	if e.Deadline.IsZero() {
		return false
	}
	left := e.Deadline.Sub(e.Now)
	return left <= wait || left-wait < p.retrier.typical.latency()
}

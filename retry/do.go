package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Do calls fn until it returns no error, or the policy of r says stop, and returns its last
// result. Calling it says that fn may be called more than once. All calls that share a budget
// share a [Retrier]; it is made once for each target, not for each call.
//
// An error is of type [*Error] and holds those of all calls of fn. Any error is repeated, except
// one from [Permanent] and those on which the policy's Classifier or RetryIf (with a nil request,
// and only about errors) has another opinion; one with a method RetryAfter() time.Duration says
// when fn may be called again.
//
// The context that fn gets ends when fn has returned, if the policy has a PerAttemptTimeout, a
// Timeout or a Hedge: results must not depend on it. With a Hedge, fn may be called while it
// runs, and the result of a call that lost is dropped.
func Do[T any](ctx context.Context, r *Retrier, fn func(context.Context) (T, error)) (T, error) {
	scope := call.NewScope(ctx, r.policy.MaxAttempts)
	d := &doing[T]{Context: scope, caller: ctx, retrier: r, plan: r.begin(&scope.Limit), fn: fn}
	if limit := r.policy.Timeout; limit > 0 {
		cause := call.NewTimeout(fmt.Sprintf("retry: no result within the call's time limit of %v", limit))
		var deadline *wait.Deadline
		d.Context, deadline = wait.NewDeadline(d.Context, r.policy.Clock, limit, cause)
		defer deadline.End()
		d.givesUp = r.policy.Clock.Now().Add(limit)
	}
	if at, ok := ctx.Deadline(); ok && (d.givesUp.IsZero() || at.Before(d.givesUp)) {
		d.givesUp = at
	}
	defer r.account.End()
	if ctx.Err() != nil {
		var none T
		return none, d.interrupted()
	}
	return d.do()
}

// Permanent marks an error of a function as one that a repetition would not cure. Callers of
// [Do] get err itself. What backoff.Permanent of cenkalti/backoff returns is such an error, too.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// unmark takes away the marks of an error, and reports whether it has one. Those inside other
// errors stay.
func unmark(err error) (permanent bool, _ error) {
	permanent = isPermanent(err)
	for {
		switch e := err.(type) { //nolint:errorlint // the mark itself, not one inside an error
		case *permanentError:
			err = e.error
		case *backoff.PermanentError:
			err = e.Err
		default:
			return permanent, err
		}
	}
}

// isPermanent is what errors.As would tell, but for the errors of calls of [Do] inside this
// one: their marks were for them.
func isPermanent(err error) bool {
	switch e := err.(type) { //nolint:errorlint // each error of the tree
	case *permanentError, *backoff.PermanentError:
		return true
	case *Error:
		return false
	case interface{ Unwrap() error }:
		return isPermanent(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), isPermanent)
	}
	return false
}

// doing is one call of [Do].
type doing[T any] struct {
	context.Context // the caller's, with the limits of the call

	caller  context.Context
	givesUp time.Time
	retrier *Retrier
	plan    Plan
	fn      func(context.Context) (T, error)
	delay   time.Duration // alone, 0 if there are no hedges
	pause   pause
	about   Event // a trial that has ended while another one was under way

	trials []*trial[T]
	reason outcome.Reason
}

// trial is one call of the function.
type trial[T any] struct {
	told    Attempt // what is known of it; of the goroutine that drives the call
	cost    int
	cancel  context.CancelCauseFunc // nil unless it may be superseded
	ctx     context.Context
	started time.Time

	// Of the goroutine that makes it, until it has ended.
	value     T
	err       error
	permanent bool
	timedOut  bool
	ended     time.Time
}

var errSuperseded = errors.New("retry: another call of the function was faster")

func (d *doing[T]) do() (none T, _ error) {
	if d.delay = d.hedgeDelay(); d.delay > 0 {
		c := contest[*trial[T]]{ctx: d, clock: d.retrier.policy.Clock, side: d}
		last, isInterrupted := c.drive()
		if isInterrupted {
			return none, d.interrupted()
		}
		return d.result(last)
	}
	t, _ := d.begin(nil, Action{})
	for {
		d.runHere(t)
		action, _ := d.ended(t, false)
		if !action.Again {
			return d.result(t)
		}
		if !d.sleep(action.Wait) {
			d.plan.Withdrawn(action, false)
			return none, d.interrupted()
		}
		t, _ = d.begin(nil, action)
	}
}

func (d *doing[T]) hedgeDelay() time.Duration {
	h := d.retrier.hedges
	if h == nil || d.retrier.policy.MaxAttempts < 2 || markOf(d.caller)&(Once|NoHedge) != 0 {
		return 0
	}
	return h.begin("", d.retrier.policy.Clock.Now())
}

// result is what the caller gets.
func (d *doing[T]) result(t *trial[T]) (T, error) {
	if t.err == nil {
		return t.value, nil
	}
	return t.value, d.fail(nil)
}

// interrupted ends a call whose context ended while it waited.
func (d *doing[T]) interrupted() error {
	d.reason = outcome.Caller
	if d.caller.Err() == nil {
		d.reason = outcome.Deadline
	}
	if n := len(d.trials); n > 0 {
		d.tell(d.trials[n-1], false, Action{Reason: d.reason})
	}
	return d.fail(context.Cause(d))
}

// fail makes the error that the caller gets.
func (d *doing[T]) fail(cause error) error {
	e := &Error{Reason: d.reason}
	var all []error
	for _, t := range d.trials {
		e.Attempts = append(e.Attempts, t.told)
		if t.told.Err != nil {
			all = append(all, t.told.Err)
		}
	}
	if cause != nil {
		all = append(all, cause)
	}
	switch gone, so := d.caller.Err(), errors.Join(all...); {
	case gone != nil && !errors.Is(so, gone):
		all = append(all, gone)
	case d.reason == outcome.Deadline && !errors.Is(so, context.DeadlineExceeded):
		all = append(all, call.ErrNoTime)
	}
	if e.Err = errors.Join(all...); len(all) == 1 {
		e.Err = all[0]
	}
	return e
}

func (d *doing[T]) begin(beside *trial[T], why Action) (*trial[T], bool) {
	if beside == nil {
		d.pause = pause{} // that was another round
	}
	t := &trial[T]{cost: why.Cost, ctx: d, started: d.retrier.policy.Clock.Now()}
	t.told = Attempt{Number: len(d.trials) + 1, Hedge: beside != nil}
	if d.delay > 0 {
		t.ctx, t.cancel = context.WithCancelCause(t.ctx)
	}
	d.trials = append(d.trials, t)
	return t, true
}

// runHere is run on the goroutine of the caller.
func (d *doing[T]) runHere(t *trial[T]) {
	done := false
	defer func() {
		if !done {
			d.aborted(t)
		}
	}()
	d.run(t)
	done = true
}

func (d *doing[T]) run(t *trial[T]) {
	ctx := t.ctx
	if t.cancel != nil {
		defer t.cancel(nil)
	}
	var deadline *wait.Deadline
	if limit := d.retrier.policy.PerAttemptTimeout; limit > 0 {
		ctx, deadline = wait.NewDeadline(ctx, d.retrier.policy.Clock, limit, call.ErrAttemptTimeout)
		defer deadline.End()
	}
	t.value, t.err = d.fn(ctx)
	t.timedOut = deadline != nil && !deadline.Lift() && t.err != nil
	t.permanent, t.err = unmark(t.err)
	t.ended = d.retrier.policy.Clock.Now()
}

func (d *doing[T]) ended(t *trial[T], running bool) (Action, *trial[T]) {
	p := &d.retrier.policy
	t.told.Err, t.told.Took, t.told.Outcome = t.err, t.ended.Sub(t.started), d.classify(t)
	if h := d.retrier.hedges; h.learns() && (t.told.Outcome.Class.Good() || t.told.Outcome.Timeout) {
		h.learnt.of("", t.ended).record(t.told.Took)
	}
	d.tellAttempt(t)
	e := d.event(t.ended)
	e.Outcome, e.Took, e.Cost, e.Running = t.told.Outcome, t.told.Took, t.cost, running
	var later interface{ RetryAfter() time.Duration }
	if errors.As(t.err, &later) {
		e.Asked, e.Pushback = true, max(later.RetryAfter(), 0)
	}
	if p.RetryIf != nil && t.err != nil && e.Outcome.Class != outcome.Canceled && !t.permanent {
		if e.Verdict = Decline; p.RetryIf(Case{Attempt: t.told, Idempotent: true}) {
			e.Verdict = Repeat
		}
	}
	e.carry(d.about)
	action := d.plan.Next(e)
	if d.about = (Event{}); action.Await {
		d.about = e
		d.pause.after(&d.plan, e, d.delay)
	}
	d.reason = action.Reason
	d.tell(t, false, action)
	return action, t
}

func (d *doing[T]) classify(t *trial[T]) outcome.Outcome {
	switch {
	case t.err == nil:
		return outcome.Outcome{Class: outcome.Success}
	case t.permanent:
		return outcome.Outcome{Class: outcome.Failure}
	}
	return d.retrier.policy.Classifier(outcome.Attempt{
		Err: t.err, CallerErr: d.caller.Err(), NeverSent: outcome.Unsent(t.err),
		TimedOut: t.timedOut || (d.Err() != nil && d.caller.Err() == nil),
	})
}

// event is what the plan must know of the call.
func (d *doing[T]) event(now time.Time) Event {
	return Event{
		Now: now, Idempotent: true, Replayable: true, Deadline: d.givesUp,
		Exhausted: markOf(d.caller)&Once != 0,
	}
}

func (d *doing[T]) tellAttempt(t *trial[T]) {
	if told := d.retrier.policy.Hooks.Attempt; told != nil {
		told(t.told)
	}
}

func (d *doing[T]) tell(t *trial[T], hedge bool, action Action) {
	if hook := d.retrier.policy.Hooks.Decided; hook != nil {
		d.plan.tell(hook, Decision{
			Attempt: t.told.Number, Hedge: hedge, Outcome: t.told.Outcome, Err: t.told.Err, Action: action,
		})
	}
}

func (d *doing[T]) aborted(t *trial[T]) { d.plan.lost(t.cost, outcome.Failure) }

func (d *doing[T]) due(t *trial[T]) (time.Duration, bool) {
	return d.pause.due(d.retrier.policy.Clock.Now(), t.started.Add(d.delay))
}

func (d *doing[T]) hedge(t *trial[T]) Action {
	e := d.event(d.retrier.policy.Clock.Now())
	e.Others = true
	action := d.plan.Hedge(e)
	d.tell(t, true, action)
	return action
}

func (d *doing[T]) keep(*trial[T]) {}

func (d *doing[T]) lose(t *trial[T]) {
	t.told.Took = d.retrier.policy.Clock.Now().Sub(t.started)
	switch {
	case d.caller.Err() != nil:
		t.told.Outcome.Class = outcome.Canceled
	case d.Err() != nil:
		t.told.Outcome.Class = outcome.Failure
	default:
		t.told.Outcome.Class = outcome.Superseded
		if h := d.retrier.hedges; h.learns() {
			h.learnt.of("", t.started).record(t.told.Took)
		}
	}
	t.cancel(errSuperseded)
	d.plan.lost(t.cost, t.told.Outcome.Class)
}

func (d *doing[T]) lost(t *trial[T]) { d.tellAttempt(t) }

func (d *doing[T]) unmade(action Action) { d.plan.Withdrawn(action, false) }

func (d *doing[T]) departures() <-chan struct{} { return nil }

func (d *doing[T]) sleep(t time.Duration) bool {
	return wait.Sleep(d, d.retrier.policy.Clock, t) == nil
}

func (d *doing[T]) waits(*trial[T]) bool { return false }

func (d *doing[T]) underWay(*trial[T]) bool { return true }

func (d *doing[T]) drop(*trial[T]) {}

func (d *doing[T]) left(*trial[T]) {}

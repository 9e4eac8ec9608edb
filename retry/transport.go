package retry

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/pushback"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Transport is an [http.RoundTripper] that repeats attempts as a policy says.
// The last response is returned as it is, whatever its status: an error means
// that there is no response. It is safe for concurrent use.
type Transport struct {
	maker //nolint:unused // makes it join calls

	next    http.RoundTripper
	retrier *Retrier
	cfg     *call.Config
	light   bool // the policy lets first attempts be light
}

type maker = call.AttemptMaker //nolint:unused // embedded, for its unexported method

// NewTransport returns a transport that sends attempts to next, or all that is
// wrong with the policy. Its errors are of type [*Error].
func NewTransport(next http.RoundTripper, p Policy) (*Transport, error) {
	var errs field.Errors
	errs.Check(next != nil, "next", nil, "must be set")
	errs.Under("", p.Validate())
	if err := errs.Err(); err != nil {
		return nil, err
	}
	r, err := NewRetrier(p)
	if err != nil {
		return nil, err
	}
	return r.Transport(next), nil
}

// Transport returns a transport that applies the policy to what next sends.
func (r *Retrier) Transport(next http.RoundTripper) *Transport {
	p := &r.policy
	cfg := call.Config{Clock: p.Clock, Classify: p.Classifier}
	return &Transport{
		next: next, retrier: r, cfg: cfg.Resolve(),
		light: p.PerAttemptTimeout == 0 && p.Timeout == 0 && p.Hedge == nil && p.RetryIf == nil &&
			p.Hooks.Attempt == nil && p.Hooks.Decided == nil && !call.Joins(next),
	}
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	record := call.Join(req)
	if record != nil {
		return t.roundTrip(record) //nolint:contextcheck // the record is the context
	}
	if err := call.Check(req); err != nil {
		call.Refuse(req)
		return nil, &Error{Reason: outcome.Invalid, Err: err}
	}
	if t.light && (req.Body == nil || req.Body == http.NoBody) && isIdempotent(req.Method) && !isUpgrade(req) &&
		markOf(req.Context())&NotIdempotent == 0 && !call.MayLoop(t.next, req) {
		return t.roundTripLight(req) //nolint:contextcheck // the light call is the context
	}
	record = call.New(req, t.cfg)
	if limit := t.retrier.policy.Timeout; limit > 0 {
		record.Bound(limit, call.NewTimeout(fmt.Sprintf("retry: no response within the call's time limit of %v", limit)))
	}
	resp, err := t.roundTrip(record) //nolint:contextcheck // the record is the context
	if err == nil {
		resp, err = record.InTime(resp)
	}
	return resp, t.wrap(record, err)
}

// wrap makes the error that callers of a transport of its own see.
func (t *Transport) wrap(record *call.Record, err error) error {
	if err == nil {
		return nil
	}
	info := infoOf(record)
	return &Error{Attempts: info.Attempts, Reason: record.Ending(), Err: err}
}

// roundTripLight makes a call of which nothing needs to be watched as long as its first attempt
// is good.
func (t *Transport) roundTripLight(req *http.Request) (*http.Response, error) {
	light := call.NewLight(req, t.cfg, t.retrier.policy.MaxAttempts)
	plan := t.retrier.Begin()
	var resp *http.Response
	sent, handedOn := false, false
	defer func() {
		if !sent { // the transport has panicked
			plan.lost(0, outcome.Failure)
		}
		if !handedOn { // or the classifier, or the budget
			call.Close(resp)
		}
		t.retrier.account.End()
	}()
	resp, err := light.Send(t.next)
	sent = true
	var o outcome.Outcome
	if resp != nil && err == nil {
		o = t.retrier.policy.Classifier(outcome.Attempt{Request: req, Response: resp})
		if o.Class == outcome.Success && o.Again == outcome.No && !slices.Contains(t.retrier.policy.Statuses, resp.StatusCode) {
			t.retrier.account.Report(0, o)
			t.retrier.typical.noteLight(light)
			handedOn = true
			return light.Answer(resp), nil
		}
	}
	handedOn = true
	record, a := light.Record(resp, err, o)
	plan.limit = record.Limit()
	defer record.Abort()
	resp, err = t.finish(record, t.repeat(record, &plan, a))
	return resp, t.wrap(record, err)
}

// roundTrip makes the attempts of a call.
func (t *Transport) roundTrip(record *call.Record) (*http.Response, error) {
	defer t.retrier.account.End()
	defer record.Abort()
	p := &t.retrier.policy
	limit := record.LimitAttempts(p.MaxAttempts)
	if p.Spool > 0 {
		record.Spool(p.Spool)
	}
	if p.RetryIf != nil {
		record.WatchHeaders()
	}
	plan := t.retrier.begin(limit)
	if delay := t.hedgeDelay(record); delay > 0 {
		return t.finish(record, t.race(record, plan, delay))
	}
	return t.finish(record, t.repeat(record, &plan, t.send(record, &plan, Action{})))
}

// ending is how the attempts of a call have ended: the one whose answer is the call's, or the
// error.
type ending struct {
	attempt *call.Attempt
	err     error
}

// finish ends the call.
func (t *Transport) finish(record *call.Record, e ending) (*http.Response, error) {
	record.Finish(e.attempt)
	if e.err != nil {
		return nil, record.Joined(e.err)
	}
	return e.attempt.Response, nil
}

// send makes one attempt.
func (t *Transport) send(record *call.Record, plan *Plan, why Action) *call.Attempt {
	a, done := record.NewAttempt(t.attemptTimeout(record), why.paid()), false
	defer func() {
		if !done { // there is a panic
			plan.lost(why.Cost, outcome.Failure)
		}
	}()
	_, _ = a.Through(t.next) //nolint:bodyclose // the attempt holds the response
	done = true
	return a
}

func (t *Transport) attemptTimeout(record *call.Record) time.Duration {
	timeout := t.retrier.policy.PerAttemptTimeout
	if timeout > 0 && isUpgrade(record.CallerRequest()) {
		return 0
	}
	return timeout
}

// repeat goes on after an attempt, one after the other, until the plan says stop.
func (t *Transport) repeat(record *call.Record, plan *Plan, a *call.Attempt) ending {
	for {
		if !a.Sent() {
			plan.Withdrawn(actionOf(a), false)
			return t.refused(record, plan, a)
		}
		t.learn(record, a)
		t.retrier.policy.Hooks.tellAttempt(a)
		var action Action
		if t.settled(a) {
			plan.note(int(a.Paid().Cost), a.Outcome, a.Took, a.Ended())
		} else {
			action = plan.Next(t.event(record, a))
		}
		record.Reason = action.Reason
		t.retrier.policy.Hooks.tellDecided(plan, a, false, action)
		if !action.Again {
			return ending{a, a.Failure}
		}
		record.Hold(a)
		if !sleep(record, action.Wait) {
			plan.Withdrawn(action, false)
			return t.interrupted(record, plan, a)
		}
		a = t.send(record, plan, action)
	}
}

// sleep reports whether the time is over, and the caller is still there.
func sleep(record *call.Record, d time.Duration) bool {
	err := wait.SleepOr(record, record.Clock(), d, record.Canceled())
	return err == nil && record.CallerErr() == nil
}

// paid is what the attempt takes that follows from the action, and actionOf the action from which
// an attempt followed, as far as matters to take it back.
func (a Action) paid() call.Paid { return call.Paid{Cost: int32(a.Cost), Reserved: a.reserved} }

func actionOf(a *call.Attempt) Action {
	return Action{Cost: int(a.Paid().Cost), reserved: a.Paid().Reserved}
}

// settled reports whether an answer is good and nobody could think otherwise, so that there is
// nothing to decide.
func (t *Transport) settled(a *call.Attempt) bool {
	p := &t.retrier.policy
	return a.Outcome.Class.Good() && a.Outcome.Again == outcome.No && p.RetryIf == nil && len(p.Statuses) == 0
}

// event is what the plan must know of an attempt that has ended.
func (t *Transport) event(record *call.Record, a *call.Attempt) Event {
	p := &t.retrier.policy
	e := Event{Now: a.Ended(), Outcome: a.Outcome, Took: a.Took, Cost: int(a.Paid().Cost)}
	if a.Response != nil && e.Outcome.Again == outcome.No && slices.Contains(p.Statuses, a.Response.StatusCode) {
		e.Outcome.Again = outcome.Anywhere
	}
	if p.RetryIf != nil && a.Outcome.Class != outcome.Canceled {
		e.Verdict = t.ask(record, a)
	}
	if e.Outcome.Again == outcome.No && e.Verdict != Repeat { // then the rest does not matter
		return e
	}
	e.Others = a.Others()
	t.complete(record, &e)
	if a.Response != nil && len(a.Response.Header) > 0 { // the instants of calls are not for showing, dates are
		e.Pushback, e.Asked = pushback.Wait(a.Response.StatusCode, a.Response.Header, record.Clock().Now)
	}
	return e
}

// complete fills in what the plan must know of the call.
func (t *Transport) complete(record *call.Record, e *Event) {
	req := record.CallerRequest()
	e.Idempotent = t.retrier.policy.idempotent(req)
	e.Replayable = record.Replayable()
	e.Deadline = record.GivesUp()
	e.Exhausted = markOf(req.Context())&Once != 0
}

// ask asks the user's rule.
func (t *Transport) ask(record *call.Record, a *call.Attempt) Verdict {
	p := &t.retrier.policy
	c := Case{
		Attempt: describe(a), Request: record.CallerRequest(), Response: a.Response,
		WroteHeaders: a.WroteHeaders(), Idempotent: p.idempotent(record.CallerRequest()),
	}
	if p.RetryIf(c) {
		return Repeat
	}
	return Decline
}

// learn takes the latency of an attempt into account where hedges are.
func (t *Transport) learn(record *call.Record, a *call.Attempt) {
	if h := t.retrier.hedges; h.learns() && (a.Outcome.Class.Good() || a.Outcome.Timeout) {
		h.learnt.of(record.CallerRequest().Method, a.Started()).record(a.Took)
	}
}

// refused ends a call whose attempt a layer below did not let go. The response
// of the attempt before is still there, unless the caller has gone.
func (t *Transport) refused(record *call.Record, plan *Plan, a *call.Attempt) ending {
	before := record.Held()
	record.Reason = outcome.ReasonOf(a.Failure)
	if a.Outcome.Class == outcome.Canceled {
		record.Reason = outcome.Caller
	}
	t.retrier.policy.Hooks.tellDecided(plan, a, false, Action{Reason: record.Reason})
	if a.Outcome.Class == outcome.Canceled {
		before.Discard()
		return ending{err: a.Failure}
	}
	if before != nil && before.Failure == nil {
		return ending{attempt: before}
	}
	return ending{err: a.Failure}
}

// interrupted ends a call whose caller went, or whose time ran out, while it waited after an
// attempt, or for one.
func (t *Transport) interrupted(record *call.Record, plan *Plan, a *call.Attempt) ending {
	record.Held().Discard()
	record.Reason = outcome.Caller
	err := context.Cause(record)
	if gone := record.CallerErr(); gone == nil {
		record.Reason = outcome.Deadline
	} else if err == nil { // it went in the old way
		err = gone
	}
	t.retrier.policy.Hooks.tellDecided(plan, a, false, Action{Reason: record.Reason})
	return ending{err: err}
}

// CloseIdleConnections passes the call on.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

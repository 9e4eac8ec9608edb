package retry

import (
	"context"
	"net/http"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Transport is an [http.RoundTripper] that repeats attempts as a policy says.
// The last response is returned as it is, whatever its status: an error means
// that there is no response. It is safe for concurrent use.
type Transport struct {
	next    http.RoundTripper
	retrier *Retrier
	cfg     *call.Config
}

// NewTransport returns a transport that sends attempts to next, or all that is
// wrong with the policy. Its errors are of type [*Error].
func NewTransport(next http.RoundTripper, p Policy) (*Transport, error) {
	r, err := NewRetrier(p)
	if err != nil {
		return nil, err
	}
	return r.Transport(next), nil
}

// Transport returns a transport that applies the policy to what next sends.
func (r *Retrier) Transport(next http.RoundTripper) *Transport {
	cfg := call.Config{Clock: r.policy.Clock, Classify: r.policy.Classifier}
	return &Transport{next: next, retrier: r, cfg: cfg.Resolve()}
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	record := call.Join(req)
	own := record == nil
	if own {
		if err := call.Check(req); err != nil {
			call.Refuse(req)
			return nil, &Error{Reason: outcome.Invalid, Err: err}
		}
		record = call.New(req, t.cfg)
	}
	defer record.Abort()
	record.LimitAttempts(t.retrier.policy.MaxAttempts)
	a, err := t.run(record)
	record.Finish(a)
	if err == nil {
		return a.Response, nil
	}
	err = record.Joined(err)
	if own {
		err = &Error{Attempts: record.Sent(), Reason: record.Reason, Err: err}
	}
	return nil, err
}

// run makes attempts until the plan says stop. It returns the attempt whose
// response is the call's, or the error.
func (t *Transport) run(record *call.Record) (*call.Attempt, error) {
	plan := t.retrier.Begin()
	timeout := t.retrier.policy.PerAttemptTimeout
	if timeout > 0 && isUpgrade(record.CallerRequest()) {
		timeout = 0
	}
	for {
		a := record.NewAttempt(timeout)
		_, _ = a.Through(t.next) //nolint:bodyclose // the attempt holds the response
		if !a.Sent() {
			return refused(record, a)
		}
		action := decide(&plan, record, a)
		record.Reason = action.Reason
		t.tell(record, a, action)
		if !action.Again {
			return a, a.Failure
		}
		record.Hold(a)
		if err := wait.Sleep(record, record.Clock(), action.Wait); err != nil {
			return interrupted(record)
		}
	}
}

// decide asks the plan what follows after the attempt.
func decide(plan *Plan, record *call.Record, a *call.Attempt) Action {
	e := Event{Now: a.Ended(), Outcome: a.Outcome}
	if a.Outcome.Again != outcome.No { // else the rest does not matter
		e.Idempotent = idempotent(record.CallerRequest())
		e.Replayable = record.Replayable()
		e.Others = a.Others
		e.Deadline = record.GivesUp()
	}
	e.Exhausted = !record.MayAttempt()
	return plan.Next(e)
}

// refused ends a call whose attempt a layer below did not let go. The response
// of the attempt before is still there, unless the caller has gone.
func refused(record *call.Record, a *call.Attempt) (*call.Attempt, error) {
	before := record.Held()
	if a.Outcome.Class == outcome.Canceled {
		record.Reason = outcome.Caller
		before.Discard()
		return nil, a.Failure
	}
	record.Reason = outcome.ReasonOf(a.Failure)
	if before != nil && before.Failure == nil {
		return before, nil
	}
	return nil, a.Failure
}

// interrupted ends a call whose context ended while it waited.
func interrupted(record *call.Record) (*call.Attempt, error) {
	record.Held().Discard()
	record.Reason = outcome.Caller
	if record.CallerErr() == nil {
		record.Reason = outcome.Deadline
	}
	return nil, context.Cause(record)
}

func (t *Transport) tell(record *call.Record, a *call.Attempt, action Action) {
	if t.retrier.policy.Hooks.Decided == nil {
		return
	}
	t.retrier.policy.Hooks.Decided(Decision{
		Attempt: record.Sent(), Endpoint: a.Endpoint().Address,
		Outcome: a.Outcome, Err: a.Failure, Action: action,
	})
}

// CloseIdleConnections passes the call on.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// idempotent reports whether the request may reach a server more than once: by
// its method (RFC 9110, section 9.2.2), or because its caller promises so.
func idempotent(req *http.Request) bool {
	if isUpgrade(req) {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return call.HasIdempotencyKey(req.Header)
}

// isUpgrade reports whether the request asks for another protocol on its
// connection.
func isUpgrade(req *http.Request) bool {
	return req.Method == http.MethodConnect || strings.EqualFold(req.Header.Get("Connection"), "upgrade") || req.Header.Get("Upgrade") != ""
}

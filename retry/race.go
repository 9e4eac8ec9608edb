package retry

import (
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// hedgeDelay returns after which time alone an attempt of the call may get company, 0 for never.
func (t *Transport) hedgeDelay(record *call.Record) time.Duration {
	r := t.retrier
	if r.hedges == nil || r.policy.MaxAttempts < 2 || !record.Rewindable() {
		return 0
	}
	req := record.CallerRequest()
	if markOf(req.Context())&(Once|NoHedge) != 0 || !r.policy.idempotent(req) {
		return 0
	}
	return r.hedges.begin(req.Method, record.Clock().Now())
}

// race makes the attempts of a call that may be hedged.
func (t *Transport) race(record *call.Record, plan *Plan, delay time.Duration) ending {
	s := &httpSide{transport: t, record: record, plan: plan, delay: delay}
	c := contest[*call.Attempt]{ctx: record, clock: record.Clock(), side: s}
	a, isInterrupted := c.drive()
	switch held := record.Held(); {
	case isInterrupted:
		record.DiscardAside(held)
		return interrupted(record)
	case a == nil:
		return ending{err: call.ErrNotReplayable}
	case !a.Sent():
		record.Keep(a.Replaced())
		return refused(record, a)
	case a.Failure != nil && held != nil && held.Failure == nil:
		return ending{attempt: held} // an answer is better than none
	default:
		if held != a {
			record.DiscardAside(held)
		}
		return ending{a, a.Failure}
	}
}

// httpSide is a request in a contest.
type httpSide struct {
	transport *Transport
	record    *call.Record
	plan      *Plan
	delay     time.Duration
}

func (s *httpSide) begin(beside *call.Attempt, cost int) (*call.Attempt, bool) {
	a := s.record.NewRacer(s.transport.attemptTimeout(s.record), cost, beside)
	if a == nil {
		s.plan.Withdrawn(cost, beside != nil)
		s.record.Reason = outcome.NotReplayable
		return nil, false
	}
	return a, true
}

func (s *httpSide) run(a *call.Attempt) {
	done := false
	defer func() {
		if !done {
			a.Abandon()
		}
	}()
	_, _ = a.Through(s.transport.next) //nolint:bodyclose // the attempt holds the response
	done = true
}

func (s *httpSide) ended(a *call.Attempt, running bool) (Action, bool) {
	t := s.transport
	if !a.Sent() {
		s.plan.Withdrawn(a.Cost(), a.Beside)
		return Action{Await: running}, false
	}
	t.learn(s.record, a)
	t.retrier.policy.Hooks.tellAttempt(a)
	e := t.event(s.record, a)
	e.Running = running
	action := s.plan.Next(e)
	s.record.Reason = action.Reason
	t.retrier.policy.Hooks.tellDecided(a, false, action)
	return action, true
}

func (s *httpSide) due(a *call.Attempt, since time.Time) time.Duration {
	if !a.Sent() {
		return s.delay
	}
	if a.Started().After(since) {
		since = a.Started()
	}
	return s.delay - s.record.Clock().Now().Sub(since)
}

func (s *httpSide) hedge(a *call.Attempt) Action {
	e := Event{Now: s.record.Clock().Now()}
	s.transport.complete(s.record, a, &e)
	e.Others = e.Others || !a.Picked() // what is below may be anything
	action := s.plan.Hedge(e)
	s.transport.retrier.policy.Hooks.tellDecided(a, true, action)
	return action
}

func (s *httpSide) keep(a *call.Attempt) {
	s.record.DiscardAside(s.record.Held())
	s.record.Hold(a)
}

func (s *httpSide) lose(a *call.Attempt) {
	switch {
	case s.record.CallerErr() != nil:
		a.Forget(outcome.Canceled)
	case s.record.Err() != nil:
		a.Forget(outcome.Failure)
	default:
		a.Supersede()
		if h := s.transport.retrier.hedges; h.learns() && a.Sent() { // else the quantile would sink
			h.learnt.of(s.record.CallerRequest().Method, a.Started()).record(a.LostAfter())
		}
	}
	s.transport.retrier.policy.Hooks.tellAttempt(a)
}

func (s *httpSide) drop(a *call.Attempt) { s.record.DiscardAside(a) }

func (s *httpSide) left(a *call.Attempt) { a.Leave() }

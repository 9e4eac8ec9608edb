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
	if markOf(req.Context())&(Once|NoHedge) != 0 || !r.policy.idempotent(req) || len(req.Trailer) > 0 {
		return 0 // a trailer is filled in while its body is read, by one reader
	}
	return r.hedges.begin(req.Method, record.Clock().Now())
}

// race makes the attempts of a call that may be hedged.
func (t *Transport) race(record *call.Record, plan Plan, delay time.Duration) ending {
	record.Own()
	s := &httpSide{transport: t, record: record, plan: &plan, delay: delay, sent: make(chan struct{}, 1)}
	c := contest[*call.Attempt]{ctx: record, clock: record.Clock(), side: s}
	a, isInterrupted := c.drive()
	switch held := record.Held(); {
	case isInterrupted:
		record.DiscardAside(held)
		return t.interrupted(record, &plan, record.Last())
	case a == nil:
		return ending{err: call.ErrNotReplayable}
	case !a.Sent():
		if held == nil {
			held = a.Replaced()
		}
		record.Keep(held)
		return t.refused(record, &plan, a)
	case a.Outcome.Class == outcome.Canceled && a.Failure != nil:
		record.DiscardAside(held)
		return ending{err: a.Failure}
	case a.Failure != nil && held != nil && held.Failure == nil:
		return ending{attempt: held} // an answer is better than none
	default:
		if held != a {
			record.DiscardAside(held)
		}
		return ending{a, a.Failure}
	}
}

// pause keeps attempts from beginning beside another one when one has failed: it is as if the
// call waited for a retry.
type pause struct {
	until time.Time
	never bool
}

// after begins a pause, of a delay at least, after an attempt that has ended.
func (p *pause) after(plan *Plan, e Event, delay time.Duration) {
	wait, ok := plan.Pause(e)
	p.until, p.never = e.Now.Add(max(wait, delay)), p.never || !ok
}

// due returns how much time there is until an instant, and until the pause is over; false means
// that it never is.
func (p *pause) due(now, at time.Time) (time.Duration, bool) {
	if p.until.After(at) {
		at = p.until
	}
	return at.Sub(now), !p.never
}

// httpSide is a request in a contest.
type httpSide struct {
	transport *Transport
	record    *call.Record
	plan      *Plan
	delay     time.Duration
	sent      chan struct{} // an attempt was sent
	pause     pause

	awaited *call.Attempt // has ended while another one was under way
	about   Event         // awaited
}

func (s *httpSide) begin(beside *call.Attempt, why Action) (*call.Attempt, bool) {
	if beside == nil {
		s.pause = pause{} // that was another round
	}
	a := s.record.NewRacer(s.transport.attemptTimeout(s.record), why.paid(), beside, s.departed)
	if a == nil {
		if s.plan.Withdrawn(why, beside != nil); beside == nil {
			s.record.Reason = outcome.NotReplayable
		}
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

func (s *httpSide) ended(a *call.Attempt, running bool) (Action, *call.Attempt) {
	if !a.Sent() {
		return s.notMade(a, running)
	}
	t := s.transport
	t.learn(s.record, a)
	t.retrier.policy.Hooks.tellAttempt(a)
	e := t.event(s.record, a)
	e.Running = running
	if s.awaited != nil {
		e.carry(s.about)
	}
	return s.decided(a, e, s.plan.Next(e)), a
}

// notMade says what follows after an attempt that a layer below has refused. If another one has
// been waiting for what comes of it, that decides.
func (s *httpSide) notMade(a *call.Attempt, running bool) (Action, *call.Attempt) {
	s.plan.Withdrawn(actionOf(a), a.Beside)
	switch {
	case running:
		return Action{Await: true}, nil
	case s.awaited == nil || a.Outcome.Class == outcome.Canceled:
		return Action{}, a
	}
	e := s.about
	e.Now, e.Running = s.record.Clock().Now(), false
	return s.decided(s.awaited, e, s.plan.Reconsider(e)), s.awaited
}

// decided notes what was decided after an attempt, and tells it.
func (s *httpSide) decided(a *call.Attempt, e Event, action Action) Action {
	s.record.Reason = action.Reason
	if s.awaited = nil; action.Await {
		s.awaited, s.about = a, e
		s.pause.after(s.plan, e, s.delay)
	}
	s.transport.retrier.policy.Hooks.tellDecided(s.plan, a, false, action)
	return action
}

func (s *httpSide) aborted(a *call.Attempt) { s.plan.lost(int(a.Paid().Cost), outcome.Failure) }

func (s *httpSide) due(a *call.Attempt) (time.Duration, bool) {
	return s.pause.due(s.record.Clock().Now(), a.Started().Add(s.delay))
}

func (s *httpSide) hedge(a *call.Attempt) Action {
	e := Event{Now: s.record.Clock().Now()}
	s.transport.complete(s.record, &e)
	e.Others = a.OthersBeside() || !a.Picked() // what is below may be anything
	action := s.plan.Hedge(e)
	s.transport.retrier.policy.Hooks.tellDecided(s.plan, a, true, action)
	return action
}

func (s *httpSide) keep(a *call.Attempt) {
	held := s.record.Held()
	if held == a {
		s.record.Keep(a)
		return
	}
	s.record.DiscardAside(held)
	s.record.Hold(a)
}

func (s *httpSide) lose(a *call.Attempt) {
	var wasSent bool
	switch {
	case s.record.CallerErr() != nil:
		wasSent = a.Forget(outcome.Canceled)
	case s.record.Err() != nil:
		wasSent = a.Forget(outcome.Failure)
	default:
		wasSent = a.Supersede()
		if h := s.transport.retrier.hedges; h.learns() && wasSent { // else the quantile would sink
			h.learnt.of(s.record.CallerRequest().Method, a.Started()).record(a.LostAfter())
		}
	}
	if wasSent {
		s.plan.lost(int(a.Paid().Cost), a.Lost())
	} else {
		s.plan.Withdrawn(actionOf(a), a.Beside)
	}
}

func (s *httpSide) lost(a *call.Attempt) { s.transport.retrier.policy.Hooks.tellAttempt(a) }

func (s *httpSide) unmade(action Action) { s.plan.Withdrawn(action, false) }

// departed is told by the goroutine of an attempt that it is sent.
func (s *httpSide) departed() {
	select {
	case s.sent <- struct{}{}:
	default:
	}
}

func (s *httpSide) departures() <-chan struct{} { return s.sent }

func (s *httpSide) sleep(d time.Duration) bool { return sleep(s.record, d) }

func (s *httpSide) waits(a *call.Attempt) bool { return a.Waits() }

func (s *httpSide) underWay(a *call.Attempt) bool { return a.Sent() }

func (s *httpSide) drop(a *call.Attempt) {
	s.record.DiscardAside(a)
	if !a.Sent() {
		s.record.DiscardAside(a.Replaced())
	}
}

func (s *httpSide) left(a *call.Attempt) { a.Leave() }

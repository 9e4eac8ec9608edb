package call

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Attempt is one sending of a request, and the context under which it is sent.
// That context lives until the response's body has ended. Fields are set by the
// goroutine that drives the call.
type Attempt struct {
	context.Context

	record *Record
	req    http.Request

	// Response, Failure and Outcome are how it went, set by Send.
	Response *http.Response
	Failure  error
	Outcome  outcome.Outcome
	// Beside says that the attempt is of use only at another node than those of Tried, because
	// one is under way at the last of them.
	Beside bool
	// StartedOver says that there was no endpoint for the attempt which the call had not tried.
	// Set by whoever picks.
	StartedOver bool

	tracing bool // net/http finds trace by the attempt itself
	mayLoop bool // net/http may repeat the request without a bound
	// Tried are the serials of the nodes that this attempt had better not go to.
	Tried []uint64
	// Took is the time from sending to the response's headers.
	Took time.Duration
	// Served is Took without the time that it took to open a connection: what
	// the endpoint needed for the request itself.
	Served time.Duration

	number   int32
	paid     Paid
	prev     *Attempt // the one made before
	pick     node.Pick
	watcher  Watcher // may be nil
	endpoint *discovery.Endpoint
	start    time.Time
	timeout  time.Duration
	deadline *wait.Deadline
	cancel   context.CancelCauseFunc // nil where nobody could want it
	race     *racer                  // nil unless it may run beside others
	trace    httptrace.ClientTrace
	sent     atomic.Bool  // what Take and Send set before can be read by others
	stopped  atomic.Bool  // by cancel, because net/http loops
	wrote    atomic.Bool  // the headers, as far as the transport tells
	ended    atomic.Int32 // see the stages below
	wanted   atomic.Int32 // how often the transport asked for a connection
	got      atomic.Int32 // how often it got one
	opened   atomic.Int64 // how long the last of them took to open, in nanoseconds; below 0 it is when that began
	body     requestBody
	answer   responseBody
}

// The stages of the end of an attempt.
const (
	open        int32 = iota
	finalAnswer       // the answer is the caller's: its end ends the call
	over
)

type attemptKey struct{}

// NewAttempt prepares another attempt. Its request has the record's request
// with a body of its own; timeout bounds the time to the response's headers,
// zero means no bound, and paid is what it took.
func (r *Record) NewAttempt(timeout time.Duration, paid Paid) *Attempt {
	a := &r.first
	if a.record != nil {
		a = new(Attempt)
	}
	a.record, a.timeout, a.prev, a.paid = r, timeout, r.last, paid
	a.Tried = r.tried
	if a.number = 1; a.prev != nil {
		a.number = a.prev.number + 1
	}
	a.Context = r
	if !r.untraced {
		a.traced()
	}
	a.req = *r.first.req.WithContext(a)
	r.last = a
	return a
}

// traced makes the attempt know what the transport does.
func (a *Attempt) traced() {
	a.trace.GetConn = func(string) { a.wantsConn() }
	a.trace.GotConn = func(info httptrace.GotConnInfo) { a.gotConn(!info.Reused) }
	if a.record.watches {
		a.trace.WroteHeaders = func() { a.wrote.Store(true) }
	}
	if traceKey == nil || httptrace.ContextClientTrace(a.Context) != nil { // the caller's is to be told, too
		a.Context = httptrace.WithClientTrace(a.Context, &a.trace)
	} else {
		a.tracing = true
	}
}

// traceKey is the key under which net/http looks for the trace of a request. An attempt is a
// context, and answers for it itself: that saves an allocation, and a tenth of the time of a
// call.
var traceKey = findTraceKey()

func findTraceKey() any {
	var seen keys
	httptrace.ContextClientTrace(&seen)
	return seen.last
}

// keys is a context that notes for what it is asked.
type keys struct {
	context.Context
	last any
}

// Value implements [context.Context].
func (k *keys) Value(key any) any {
	k.last = key
	return nil
}

// Joinable returns the attempt that a layer above has made and nobody has sent
// yet, or nil.
func Joinable(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	if a == nil || a.Sent() {
		return nil
	}
	return a
}

// FromAttempt returns the innermost attempt of the context, or nil.
func FromAttempt(ctx context.Context) *Attempt {
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// Value implements [context.Context].
func (a *Attempt) Value(key any) any {
	switch {
	case key == (attemptKey{}):
		return a
	case a.tracing && key == traceKey:
		return &a.trace
	}
	return a.Context.Value(key)
}

// Record returns the call to which the attempt belongs.
func (a *Attempt) Record() *Record { return a.record }

// Request returns what is to be sent. Nobody may change it.
func (a *Attempt) Request() *http.Request { return &a.req }

// Endpoint returns where the attempt went; it is zero if no layer picks.
func (a *Attempt) Endpoint() discovery.Endpoint {
	if a.endpoint == nil {
		return discovery.Endpoint{}
	}
	return *a.endpoint
}

// Ended returns when the attempt's headers arrived or it failed.
func (a *Attempt) Ended() time.Time { return a.start.Add(a.Took) }

// Sent reports whether the request was handed to a transport. If not, a layer
// refused it, or it waits there.
func (a *Attempt) Sent() bool {
	if a.race != nil {
		return a.race.stage.Load() == sent
	}
	return a.sent.Load()
}

// Number counts the attempts of the call, from 1.
func (a *Attempt) Number() int { return int(a.number) }

// Paid is what an attempt took out of the budget of retries, and whether it counts for the
// limit of its call.
type Paid struct {
	Cost     int32
	Reserved bool
}

// Paid returns what the attempt took.
func (a *Attempt) Paid() Paid { return a.paid }

// Started returns when the attempt was sent.
func (a *Attempt) Started() time.Time { return a.start }

// WroteHeaders reports whether the transport said that it has written the request's headers;
// see [Record.WatchHeaders]. An answer says so too: over HTTP/2 it may come before the transport has told.
func (a *Attempt) WroteHeaders() bool { return a.wrote.Load() || a.Response != nil }

// Connections returns how many connections the transport got for the attempt:
// more than one when net/http repeated the request by itself.
func (a *Attempt) Connections() int { return int(a.got.Load()) }

// Take notes the endpoint that was picked, and when; zero means that the clock is to be
// read. The attempt ends the pick.
func (a *Attempt) Take(p node.Pick, now time.Time) {
	a.pick, a.endpoint, a.start = p, p.Node.Published(), now
}

// Others reports whether there is now another endpoint which the call has not tried, for an attempt after
// this one, which has ended. The goroutine that drives the call may ask.
func (a *Attempt) Others() bool { return !a.bound() && a.others() }

// OthersBeside is the same for an attempt beside this one, which is under way.
func (a *Attempt) OthersBeside() bool {
	return (a.record.affinity == nil || !a.record.affinity.Bound(outcome.Unknown)) && a.others()
}

func (a *Attempt) others() bool {
	r := a.record
	return a.pick.Node != nil && !r.again && !a.StartedOver && a.pick.Node.Watcher().Others(r.tried, &a.req)
}

// Layer is embedded by the transports that join an attempt, so that the one above
// leaves the sending to them.
type Layer struct{}

func (Layer) joinsAttempts() {}

// AttemptMaker is embedded by the transports that join a call and make its attempts.
type AttemptMaker struct{}

func (AttemptMaker) makesAttempts() {}

// MakesAttempts reports whether a transport is a layer that joins calls and makes their attempts.
func MakesAttempts(next http.RoundTripper) bool {
	_, ok := next.(interface{ makesAttempts() })
	return ok
}

// Joins reports whether a transport is a layer that joins attempts.
func Joins(next http.RoundTripper) bool {
	_, ok := next.(interface{ joinsAttempts() })
	return ok
}

// Through passes the attempt to the layer below, or sends it if that is a
// transport.
func (a *Attempt) Through(next http.RoundTripper) (*http.Response, error) {
	var resp *http.Response
	var err error
	if Joins(next) {
		resp, err = next.RoundTrip(&a.req)
	} else {
		resp, err = a.Send(next)
	}
	if !a.Sent() {
		a.refused(err)
	}
	return resp, err
}

// maxConns is how many connections net/http may use up in one attempt. It sends
// some requests again by itself, on HTTP/2 without a pause or a bound.
const maxConns = 3

// wantsConn is told by the transport that it looks for a connection.
func (a *Attempt) wantsConn() {
	a.wanted.Add(1)
	if a.record.cfg.Plain { // below may be somebody who makes attempts of his own
		a.opened.Store(-int64(a.record.cfg.now().Sub(a.start)))
	}
	if a.mayLoop && a.got.Load() >= maxConns {
		a.stopped.Store(true)
		a.cancel(errRewind)
	}
}

// MayLoop reports whether net/http may repeat the request without a bound: it
// does so on HTTP/2 only.
func MayLoop(base http.RoundTripper, req *http.Request) bool {
	if t, ok := base.(*http.Transport); ok {
		return req.URL.Scheme == "https" || (t.Protocols != nil && t.Protocols.UnencryptedHTTP2())
	}
	t, ok := base.(interface{ HTTP2(scheme string) bool })
	return ok && t.HTTP2(req.URL.Scheme)
}

// gotConn is told by the transport that it has a connection.
func (a *Attempt) gotConn(fresh bool) {
	a.got.Add(1)
	if fresh {
		a.opened.Store(int64(a.record.cfg.now().Sub(a.start)) + min(a.opened.Load(), 0))
	}
}

// refused notes that a layer below did not let the attempt go.
func (a *Attempt) refused(err error) {
	a.Failure = err
	a.Outcome = outcome.Outcome{Class: outcome.Refused}
	if a.record.CallerErr() != nil {
		a.Outcome.Class = outcome.Canceled
	}
	a.body.abandon()
}

// Send hands the request to a transport and settles the attempt: its outcome is
// told to everybody, and the response's body is wrapped. If the request's body
// cannot be had again, nothing is sent, and the answer of the attempt before stays
// held. A panic of the transport is left to [Record.Abort].
func (a *Attempt) Send(base http.RoundTripper) (*http.Response, error) {
	r := a.record
	switch {
	case a.race == nil && !r.rewind(a):
		return a.unsent(ErrNotReplayable)
	case a.race == nil:
		r.discardHeld()
	case !a.race.stage.CompareAndSwap(waiting, leaving):
		return a.unsent(errSuperseded)
	default: // it has its body
		a.race.replaces.Discard()
		a.race.replaces = nil
	}
	if a.start.IsZero() { // else it was picked just now
		a.start = r.cfg.now()
	}
	if a.race != nil && !a.race.stage.CompareAndSwap(leaving, sent) {
		return a.unsent(errSuperseded) // nobody waits for it any more
	}
	if a.race != nil {
		a.race.onSent()
	}
	r.sent.Add(1)
	if a.mayLoop = MayLoop(base, &a.req); a.mayLoop && a.cancel == nil {
		a.Context, a.cancel = context.WithCancelCause(a.Context)
	}
	if a.timeout > 0 {
		a.Context, a.deadline = wait.NewDeadline(a.Context, r.cfg.Clock, a.timeout, ErrAttemptTimeout)
	}
	a.sent.Store(true)
	a.settle(base.RoundTrip(&a.req))
	return a.Response, a.Failure
}

// unsent ends an attempt that is not sent after all.
func (a *Attempt) unsent(why error) (*http.Response, error) {
	a.Outcome = outcome.Outcome{Class: outcome.Refused}
	a.told(a.record.cfg.now())
	a.end(false)
	return nil, why
}

// abort ends an attempt that a panic has interrupted.
func (a *Attempt) abort() {
	a.body.abandon() // nobody will close it
	Close(a.Response)
	if a.pick.Node != nil && a.Outcome.Class == outcome.Unknown {
		a.pick.Answered(outcome.Answer{Now: a.record.cfg.now(), Class: outcome.Failure})
	}
	a.end(false)
}

// settle takes what the transport returned.
func (a *Attempt) settle(resp *http.Response, err error) {
	r := a.record
	timedOut := a.deadline != nil && !a.deadline.Lift()
	superseded := a.race != nil && a.race.lost.Load()
	switch { // a context that has ended makes a body unreadable, and some transports call it "canceled"
	case superseded:
		err = errSuperseded
	case timedOut:
		err = ErrAttemptTimeout
	case r.TimedOut():
		err = r.bound.cause
	case a.stopped.Load():
		err = errRewind
	case resp == nil && err == nil: // against the contract of RoundTripper, as is both
		err = errNoAnswer
	}
	if resp != nil && err != nil {
		Close(resp)
		resp = nil
	}
	a.Response, a.Failure = resp, err
	switch {
	case superseded && r.CallerErr() == nil:
		a.Outcome = outcome.Outcome{Class: outcome.Superseded}
	case a.Outcome.Class == outcome.Unknown: // or it was light
		a.Outcome = a.classify(timedOut)
	}
	a.told(r.cfg.now())
	if resp != nil {
		a.wrap(resp)
	} else {
		a.end(false)
	}
}

func (a *Attempt) classify(timedOut bool) outcome.Outcome {
	r := a.record
	facts := outcome.Attempt{
		Request:  a.shown(),
		Response: a.Response,
		Err:      a.Failure,
		TimedOut: timedOut || r.TimedOut(),
	}
	if a.Failure != nil {
		if facts.CallerErr = r.CallerErr(); facts.CallerErr == nil && a.body.unreadable() {
			facts.CallerErr = a.Failure
		}
		facts.NeverSent = a.neverSent()
	}
	return r.cfg.Classify(facts)
}

// shown returns the request that users' functions see: the caller's own, but for an attempt beside
// others, which may go on when the call is over.
func (a *Attempt) shown() *http.Request {
	if a.race != nil {
		return &a.req
	}
	return a.record.caller
}

// neverSent reports whether the failed attempt provably reached no server: the
// transport asked for a connection and got none, or the type of the error says
// so. That HTTP/2 has not reported its headers written proves nothing, and a
// transport that never asked for a connection does not report what it does.
func (a *Attempt) neverSent() bool {
	var inner interface{ NeverSent() bool } // below, a whole call was made
	if errors.As(a.Failure, &inner) {
		return inner.NeverSent()
	}
	if errors.Is(a.Failure, errRewind) {
		// net/http wanted to send the request again. It does that with any
		// request that was not processed, and also with those that it holds
		// for safe to repeat. For not processed it also takes one whose HTTP/2
		// stream the server reset with PROTOCOL_ERROR; that cannot be told
		// from a refused stream here.
		return !replayedByNetHTTP(&a.req)
	}
	if a.got.Load() > 0 {
		return outcome.RefusedStream(a.Failure) || errors.Is(a.Failure, outcome.ErrNeverSent)
	}
	return a.wanted.Load() > 0 || outcome.Unsent(a.Failure)
}

// told reports the outcome to the endpoint.
func (a *Attempt) told(now time.Time) {
	a.Took = now.Sub(a.start)
	a.Served = a.Took - time.Duration(max(a.opened.Load(), 0))
	if a.pick.Node != nil {
		a.pick.Answered(a.Answer())
	}
}

// Answer returns how the attempt went, once that is known.
func (a *Attempt) Answer() outcome.Answer {
	answer := outcome.Answer{Now: a.Ended(), Took: a.Served, Class: a.Outcome.Class, Connected: a.got.Load() > 0}
	if a.Response != nil {
		answer.Status, answer.Header = a.Response.StatusCode, a.Response.Header
	}
	return answer
}

// Watcher is told how the body of a good answer ended: whole, or as far as somebody wanted
// to read it; or it broke, so that the answer has failed after all.
type Watcher interface {
	Whole()
	Broke()
}

// both are two watchers.
type both [2]Watcher

func (b both) Whole() {
	defer b[1].Whole() // also if the first one calls back somebody who panics
	b[0].Whole()
}

func (b both) Broke() {
	defer b[1].Broke()
	b[0].Broke()
}

// Watch makes w know how the attempt's body ends. It must be called before the response is
// handed to anybody.
func (a *Attempt) Watch(w Watcher) {
	if a.ended.Load() == over { // there is no body
		w.Whole()
		return
	}
	if a.watcher != nil {
		w = both{a.watcher, w}
	}
	a.watcher = w
}

// final notes that the answer is the caller's, and reports whether it has ended
// already.
func (a *Attempt) final() bool { return !a.ended.CompareAndSwap(open, finalAnswer) }

// end lets go of the endpoint and the context, the first time that it is called. broke
// says that the answer's body ended before its time. The goroutine that reads the body may
// call it.
func (a *Attempt) end(broke bool) {
	before := a.ended.Swap(over)
	if before == over {
		return
	}
	defer a.tellEnd(broke) // users' callbacks may panic: nothing may stay behind
	if before == finalAnswer {
		defer a.record.end()
	}
	if a.deadline != nil {
		a.deadline.End()
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	if a.pick.Node != nil {
		a.pick.Done()
	}
}

// tellEnd tells those who care how a good answer ended. One whose caller has gone says
// nothing.
func (a *Attempt) tellEnd(broke bool) {
	if !a.Outcome.Class.Good() {
		return
	}
	if a.pick.Node != nil {
		if broke {
			a.pick.Broke(a.Answer())
		} else {
			a.pick.Whole()
		}
	}
	switch {
	case a.watcher == nil:
	case broke:
		a.watcher.Broke()
	default:
		a.watcher.Whole()
	}
}

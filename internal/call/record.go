package call

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Config is what all calls of one outermost layer have in common.
type Config struct {
	Clock    clock.Clock
	Classify outcome.Classifier
	// Plain makes a call of one attempt leave to net/http what net/http repeats by itself,
	// for layers that are put in front of any transport and change nothing.
	Plain bool
	// Ended is told of each record once nothing of the call is left: it
	// failed, or the body of its response has ended. May be nil.
	Ended func(*Record)

	now func() time.Time // of Clock
}

// Resolve fills in what a Config was left without.
func (c Config) Resolve() *Config {
	c.Clock = clock.Or(c.Clock)
	c.now = clock.Instants(c.Clock)
	if c.Classify == nil {
		c.Classify = outcome.Classify
	}
	return &c
}

// Record is the state of one call. It is also the context under which the call
// runs. The goroutine that drives the call owns it; only what is said to be
// atomic may be used by others.
type Record struct {
	context.Context // the caller's, with the time limit of the whole call on top if there is one

	cfg    *Config
	caller *http.Request // the caller's own request, which may be reused when the call is over

	source  io.ReadCloser // the body that the next attempt will read, or nil
	getBody func() (io.ReadCloser, error)
	spool   *spool // the source, if that can be read again; else nil

	// Reason is why no further attempt was made.
	Reason outcome.Reason

	tried    []uint64 // the serials of the nodes that were picked and failed
	again    bool     // all endpoints have been tried, and another round has begun
	watches  bool     // see WatchHeaders
	untraced bool     // nobody needs to know what the transport does
	finished bool
	ended    atomic.Bool
	sent     atomic.Int32 // attempts handed to a transport
	parts    atomic.Int32 // the call, and the attempts that run beside each other
	limit    *Limit
	held     *Attempt // has an answer that is thrown away once the next attempt is sent
	last     *Attempt
	final    *Attempt // has decided how the call went
	bound    *bound   // nil if there is none
	affinity Affinity // nil if the call belongs nowhere

	triedSpace [4]uint64
	limitSpace Limit
	first      Attempt
}

// bound is the time limit of the whole call.
type bound struct {
	caller   context.Context // that of the record without the limit
	deadline *wait.Deadline
	at       time.Time
	cause    error
}

type recordKey struct{}

// New makes the record of a call. A record that it finds in the request's
// context belongs to a call around this one, of which only the bound on
// attempts is taken over.
func New(req *http.Request, cfg *Config) *Record {
	r := &Record{Context: req.Context(), caller: req, cfg: cfg}
	r.limit = &r.limitSpace
	if outer := limitOf(req.Context()); outer != nil {
		r.limit.inside(outer)
	}
	r.parts.Store(1)
	r.tried = r.triedSpace[:0]
	r.first.req = *req.WithContext(r) //nolint:contextcheck // a record is the caller's context and more
	if req.Header == nil {
		r.first.req.Header = make(http.Header)
	}
	if req.Body != nil && req.Body != http.NoBody {
		r.source, r.getBody = req.Body, req.GetBody
		if b, ours := req.Body.(*requestBody); ours && b.sealed {
			r.getBody = nil // it is for net/http, and says no
		}
	}
	return r
}

// From returns the innermost record of the context, or nil.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Join returns the record that a layer above made for this call, or nil. A record
// is only joined before its first attempt: what comes later is a call inside the
// call.
func Join(req *http.Request) *Record {
	r := From(req.Context())
	if r == nil {
		return nil
	}
	if a := FromAttempt(req.Context()); (a != nil && a.record == r) || r.last != nil {
		return nil // inside an attempt, which may be one of several, nothing of the record is looked at
	}
	return r
}

// Value implements [context.Context].
func (r *Record) Value(key any) any {
	switch key {
	case recordKey{}, limitKey{}:
		return r
	case lightKey{}:
		return nil
	}
	return r.Context.Value(key)
}

// Request returns the caller's request under the record's context, for the
// layer below. It is good until the first attempt is made, which takes its place
// in memory.
func (r *Record) Request() *http.Request { return &r.first.req }

// Address sends the call to a scheme and a host other than those that its caller has written. A
// Host header that the caller has set to something else than the URL's host stays. It must be
// called before the first attempt.
func (r *Record) Address(scheme, host string) {
	req := &r.first.req
	if req.URL.Scheme == scheme && req.URL.Host == host {
		return
	}
	if req.Host == req.URL.Host {
		req.Host = host
	}
	u := *req.URL
	u.Scheme, u.Host = scheme, host
	req.URL = &u
}

// CallerRequest returns the caller's own request, which nobody may change.
func (r *Record) CallerRequest() *http.Request { return r.caller }

// CallerErr returns the error of the caller's context, or that of one who gave up in the
// old way, which the time limit of http.Client also takes, and may be the first to: who gave
// up is judged by that alone.
func (r *Record) CallerErr() error {
	if err := r.callerContext().Err(); err != nil {
		return err
	}
	select {
	case <-r.Canceled():
		return context.Canceled
	default:
		return nil
	}
}

// callerContext is the caller's own. The caller's request may be reused when the call is over, so
// it is not asked.
func (r *Record) callerContext() context.Context {
	if r.bound != nil {
		return r.bound.caller
	}
	return r.Context
}

// Canceled is closed when the caller gives up in the old way. It may be nil.
func (r *Record) Canceled() <-chan struct{} {
	return r.first.req.Cancel //nolint:staticcheck // http.Client sets it
}

// GivesUp returns when the caller or the call's own limit will end it; zero is
// never. The caller's deadline is compared with the call's clock as it is.
func (r *Record) GivesUp() time.Time {
	var at time.Time
	if r.bound != nil {
		at = r.bound.at
	}
	if d, ok := r.callerContext().Deadline(); ok && (at.IsZero() || d.Before(at)) {
		at = d
	}
	return at
}

// Clock returns the clock of the call.
func (r *Record) Clock() clock.Clock { return r.cfg.Clock }

// Last returns the latest attempt, or nil.
func (r *Record) Last() *Attempt { return r.last }

// LastSent returns the latest attempt that was handed to a transport, or nil.
func (r *Record) LastSent() *Attempt {
	a := r.last
	for a != nil && !a.Sent() {
		a = a.prev
	}
	return a
}

// Final returns the attempt that has decided how the call went, or nil.
func (r *Record) Final() *Attempt {
	if r.final != nil {
		return r.final
	}
	return r.LastSent()
}

// Attempts yields those that were handed to a transport, in order.
func (r *Record) Attempts() []*Attempt {
	var all []*Attempt
	for a := r.last; a != nil; a = a.prev {
		if a.Sent() {
			all = append(all, a)
		}
	}
	slices.Reverse(all)
	return all
}

// Sent returns how many attempts were handed to a transport.
func (r *Record) Sent() int { return int(r.sent.Load()) }

// WatchHeaders makes attempts note whether their headers were written.
func (r *Record) WatchHeaders() { r.watches = true }

// Bound puts a limit on the time until the response's headers. It must be
// called before the first attempt.
func (r *Record) Bound(d time.Duration, cause error) {
	r.bound = &bound{caller: r.Context, at: r.cfg.Clock.Now().Add(d), cause: cause}
	r.Context, r.bound.deadline = wait.NewDeadline(r.Context, r.cfg.Clock, d, cause)
}

// TimedOut reports whether the limit of [Record.Bound] has passed.
func (r *Record) TimedOut() bool { return r.bound != nil && r.bound.deadline.Passed() }

// Limit returns the bound on attempts.
func (r *Record) Limit() *Limit { return r.limit }

// LimitAttempts bounds the attempts of this call together with those of calls
// made inside it, unless a call around it has set a bound already, and returns the bound.
func (r *Record) LimitAttempts(n int) *Limit {
	r.limit.set(n)
	return r.limit
}

// Hold notes that a has been tried, and keeps its answer, which is thrown away when the next attempt is
// sent and not before: should there be none, it is still the caller's.
func (r *Record) Hold(a *Attempt) {
	r.held = a
	if a.StartedOver {
		r.tried, r.again = nil, true // another attempt may be looking at the old ones
	}
	if a.pick.Node != nil && !a.stays() {
		r.tried = append(r.tried, a.pick.Node.Serial())
	}
}

// Held returns the attempt whose answer is still held, or nil, and stops holding
// it.
func (r *Record) Held() *Attempt {
	a := r.held
	r.held = nil
	return a
}

func (r *Record) discardHeld() {
	r.Held().Discard()
}

// Joined returns err, the error that ended the call, together with those of all
// attempts and of the caller's context. Each is found by errors.Is and errors.As.
func (r *Record) Joined(err error) error {
	var all []error
	for _, a := range r.Attempts() {
		if a.Lost() == outcome.Unknown && a.Failure != nil && a.Failure != err { //nolint:errorlint // the very same error, not one like it
			all = append(all, a.Failure)
		}
	}
	all = append(all, err)
	switch gone := r.CallerErr(); {
	case gone != nil && !errors.Is(err, gone):
		all = append(all, gone)
	case r.Reason == outcome.Deadline && !errors.Is(err, context.DeadlineExceeded):
		all = append(all, ErrNoTime)
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// Finish must be called once, with the attempt whose answer the caller gets and
// with nil if there is none. It lets go of the request's body, and of the rest
// when the answer has ended.
func (r *Record) Finish(answer *Attempt) {
	r.finished, r.final = true, answer
	r.releaseBody()
	if r.bound != nil {
		r.bound.deadline.Lift()
	}
	if answer == nil || answer.Response == nil || answer.final() {
		r.end()
	}
}

// Abort ends a call that a panic, of a transport or of a hook, has interrupted:
// nothing stays acquired or open. It is deferred by whoever calls Finish, and does
// nothing after that.
func (r *Record) Abort() {
	if r.finished {
		return
	}
	r.Held().Discard()
	if r.last != nil && r.last.race == nil { // else whoever drives the race has seen to it
		r.last.abort()
	}
	r.Finish(nil)
}

// end tells that nothing of the call is left.
func (r *Record) end() {
	if r.ended.CompareAndSwap(false, true) {
		r.leave()
	}
}

// leave ends a part of the call.
func (r *Record) leave() {
	if r.parts.Add(-1) != 0 {
		return
	}
	if r.bound != nil {
		r.bound.deadline.End()
	}
	if r.cfg.Ended != nil {
		r.cfg.Ended(r)
	}
}

// InTime returns the response of the call, or the error of the limit set by [Record.Bound] if
// that has passed just after the headers: the body is dead then.
func (r *Record) InTime(resp *http.Response) (*http.Response, error) {
	if !r.TimedOut() {
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, r.bound.cause
}

// Ending returns why a call that failed had no further attempt.
func (r *Record) Ending() outcome.Reason {
	switch {
	case r.CallerErr() != nil:
		return outcome.Caller
	case r.TimedOut():
		return outcome.Deadline
	}
	return r.Reason
}

// Failed reports whether the last attempt did not bring what its caller wanted.
func (r *Record) Failed() bool {
	a := r.Final()
	return a == nil || !a.Outcome.Class.Good()
}

// Once makes a whole call of one attempt, for a layer that found none to join.
func Once(req *http.Request, cfg *Config, send func(*Attempt) (*http.Response, error)) (*http.Response, error) {
	if err := Check(req); err != nil {
		Refuse(req)
		return nil, err
	}
	r := New(req, cfg)
	defer r.Abort()
	a := r.NewAttempt(0, Paid{})
	resp, err := send(a)
	r.Finish(a)
	return resp, err
}

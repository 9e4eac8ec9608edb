package call

import (
	"context"
	"errors"
	"io"
	"net/http"
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
	// Answered is told of each attempt once its outcome is known. May be nil.
	Answered func(*Attempt)
	// Ended is told of each record once nothing of the call is left: it
	// failed, or the body of its response has ended. May be nil.
	Ended func(*Record)
}

// Resolve fills in what a Config was left without.
func (c Config) Resolve() *Config {
	c.Clock = clock.Or(c.Clock)
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
	caller *http.Request // the caller's own request
	outer  *Record       // the call inside which this one was made, or nil

	source  io.ReadCloser // the body that the next attempt will read, or nil
	getBody func() (io.ReadCloser, error)

	// Tried are the serials of the nodes that were picked and failed.
	Tried []uint64
	// Again is set when all endpoints have been tried and a second round began.
	Again bool
	// Reason is why no further attempt was made.
	Reason outcome.Reason

	sent       int          // attempts handed to a transport
	spent      atomic.Int32 // those of them that count, with those of calls made inside
	limit      int32        // on spent; 0 is none
	errs       []error      // of the attempts that failed without an answer
	held       *Attempt     // has an answer that is thrown away once the next attempt is sent
	last       *Attempt
	deadline   *wait.Deadline
	boundCause error
	boundAt    time.Time
	finished   bool
	plain      bool // see Config.Plain
	ended      atomic.Bool

	triedSpace [4]uint64
	first      Attempt
}

type recordKey struct{}

// New makes the record of a call. A record that it finds in the request's
// context belongs to a call around this one, of which only the bound on
// attempts is taken over.
func New(req *http.Request, cfg *Config) *Record {
	r := &Record{Context: req.Context(), caller: req, cfg: cfg}
	if outer := From(req.Context()); outer != nil && outer.limit > 0 {
		r.outer, r.limit = outer, outer.limit
	}
	r.Tried = r.triedSpace[:0]
	r.first.req = *req.WithContext(r) //nolint:contextcheck // a record is the caller's context and more
	if req.Header == nil {
		r.first.req.Header = make(http.Header)
	}
	if req.Body != nil && req.Body != http.NoBody {
		r.source, r.getBody = req.Body, req.GetBody
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
	if r := From(req.Context()); r != nil && r.last == nil {
		return r
	}
	return nil
}

// Value implements [context.Context].
func (r *Record) Value(key any) any {
	if key == (recordKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// Request returns the caller's request under the record's context, for the
// layer below. It is good until the first attempt is made, which takes its place
// in memory.
func (r *Record) Request() *http.Request { return &r.first.req }

// CallerRequest returns the caller's own request, which nobody may change.
func (r *Record) CallerRequest() *http.Request { return r.caller }

// CallerErr returns the error of the caller's context, or that of one who gave up in the
// old way, which the time limit of http.Client also takes, and may be the first to: who gave
// up is judged by that alone.
func (r *Record) CallerErr() error {
	if err := r.caller.Context().Err(); err != nil {
		return err
	}
	select {
	case <-r.caller.Cancel: //nolint:staticcheck // http.Client sets it
		return context.Canceled
	default:
		return nil
	}
}

// GivesUp returns when the caller or the call's own limit will end it; zero is
// never. The caller's deadline is compared with the call's clock as it is.
func (r *Record) GivesUp() time.Time {
	at := r.boundAt
	if d, ok := r.caller.Context().Deadline(); ok && (at.IsZero() || d.Before(at)) {
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
	if r.last != nil && !r.last.sent {
		return r.last.before
	}
	return r.last
}

// Sent returns how many attempts were handed to a transport.
func (r *Record) Sent() int { return r.sent }

// Bound puts a limit on the time until the response's headers. It must be
// called before the first attempt.
func (r *Record) Bound(d time.Duration, cause error) {
	r.boundCause, r.boundAt = cause, r.cfg.Clock.Now().Add(d)
	r.Context, r.deadline = wait.NewDeadline(r.Context, r.cfg.Clock, d, cause)
}

// TimedOut reports whether the limit of [Record.Bound] has passed.
func (r *Record) TimedOut() bool { return r.deadline != nil && r.deadline.Passed() }

// LimitAttempts bounds the attempts of this call together with those of calls
// made inside it, unless a call around it has set a bound already. Attempts that
// were never sent do not count.
func (r *Record) LimitAttempts(n int) {
	if r.limit == 0 {
		r.limit = int32(n)
	}
}

// MayAttempt reports whether the bound allows one more attempt. Inside another
// call, the first attempt here is the one that is under way there.
func (r *Record) MayAttempt() bool {
	if r.outer != nil {
		return r.outer.spent.Load()+1 < r.limit
	}
	return r.limit == 0 || r.spent.Load() < r.limit
}

// spend counts an attempt that was sent, here and, if it is more than the one
// which they count themselves, in the calls around this one.
func (r *Record) spend() {
	if r.spent.Add(1) == 1 {
		return
	}
	for o := r.outer; o != nil; o = o.outer {
		o.spent.Add(1)
	}
}

// Hold notes that a has been tried, and keeps its answer, which is thrown away when the next attempt is
// sent and not before: should there be none, it is still the caller's.
func (r *Record) Hold(a *Attempt) {
	r.held = a
	if a.pick.Node != nil {
		r.Tried = append(r.Tried, a.pick.Node.Serial())
	}
}

// StartOver forgets which endpoints were tried, because all of them were.
func (r *Record) StartOver() { r.Tried, r.Again = r.Tried[:0], true }

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
	all := r.errs
	if len(all) == 0 || all[len(all)-1] != err { //nolint:errorlint // the very same error, not one like it
		all = append(all, err)
	}
	switch gone := r.CallerErr(); {
	case gone != nil && !errors.Is(err, gone):
		all = append(all, gone)
	case r.Reason == outcome.Deadline && !errors.Is(err, context.DeadlineExceeded):
		all = append(all, errNoTime)
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
	r.finished = true
	r.releaseBody()
	if r.deadline != nil {
		r.deadline.Lift()
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
	if r.last != nil {
		r.last.abort()
	}
	r.Finish(nil)
}

// end tells that nothing of the call is left.
func (r *Record) end() {
	if !r.ended.CompareAndSwap(false, true) {
		return
	}
	if r.deadline != nil {
		r.deadline.End()
	}
	if r.cfg.Ended != nil {
		r.cfg.Ended(r)
	}
}

// TimeoutErr returns the error of the limit set by [Record.Bound].
func (r *Record) TimeoutErr() error { return r.boundCause }

// Failed reports whether the last attempt did not bring what its caller wanted.
func (r *Record) Failed() bool { return r.last == nil || !r.last.Outcome.Class.Good() }

// Once makes a whole call of one attempt, for a layer that found none to join.
func Once(req *http.Request, cfg *Config, send func(*Attempt) (*http.Response, error)) (*http.Response, error) {
	if err := Check(req); err != nil {
		Refuse(req)
		return nil, err
	}
	r := New(req, cfg)
	r.plain = cfg.Plain
	defer r.Abort()
	a := r.NewAttempt(0)
	resp, err := send(a)
	r.Finish(a)
	return resp, err
}

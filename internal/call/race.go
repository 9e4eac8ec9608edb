package call

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// racer is what an attempt has that may run beside another one of the same call. Such an
// attempt runs on a goroutine of its own. What it is sent with is prepared by the goroutine
// that drives the call; what comes of it belongs to its own goroutine until that has handed
// it over.
type racer struct {
	onSent func()
	stage  atomic.Int32
	lost   atomic.Bool // another attempt has won

	// replaces has an answer that is thrown away once this attempt is sent.
	replaces *Attempt

	// Of the goroutine that drives the call.
	gone  outcome.Class // what it meant to the call, if the call did not wait for it
	after time.Duration
}

// The stages of an attempt that may run beside others. It is either sent or given up, whatever
// comes first.
const (
	waiting int32 = iota // for an endpoint, or a goroutine
	leaving              // the answer before is thrown away
	sent                 // what Take and Send have set before can be read by others
	givenUp
)

// Own makes attempts independent of the caller's request: those that nobody waits for may still
// look at it when the call is over, and the caller reuses it. It must be called before the first
// attempt.
func (r *Record) Own() {
	req := &r.first.req
	req.Header, req.TransferEncoding = req.Header.Clone(), slices.Clone(req.TransferEncoding)
	u := *req.URL
	req.URL = &u
}

// NewRacer is [Record.NewAttempt] for an attempt that may run beside others, which takes a body
// that is [Record.Rewindable]. onSent is called, by another goroutine, when it is sent. It returns
// nil if the body cannot be had again.
func (r *Record) NewRacer(timeout time.Duration, paid Paid, beside *Attempt, onSent func()) *Attempt {
	source := r.source
	if source != nil && r.lastWithBody() != nil {
		if beside == nil && !r.detachAll() {
			return nil
		}
		var err error
		if source, err = r.getBody(); err != nil {
			return nil
		}
	}
	a := r.NewAttempt(timeout, paid)
	a.race = new(racer)
	a.Context, a.cancel = context.WithCancelCause(a.Context)
	if source != nil {
		r.give(a, source)
	}
	if beside == nil {
		a.race.replaces = r.Held()
	} else {
		a.Beside = true
		if beside.pick.Node != nil {
			a.Tried = append(slices.Clip(a.Tried), beside.pick.Node.Serial())
		}
	}
	a.race.onSent = onSent
	r.parts.Add(1)
	return a
}

// Rewindable reports whether attempts can have bodies of their own at once.
func (r *Record) Rewindable() bool { return r.source == nil || r.getBody != nil }

// Replaced returns the attempt whose answer is still kept because this one, which has ended,
// was not sent; nil if there is none.
func (a *Attempt) Replaced() *Attempt { return a.race.replaces }

// Keep makes a, which may be nil, the attempt whose answer is held.
func (r *Record) Keep(a *Attempt) { r.held = a }

// DiscardAside is [Attempt.Discard] on another goroutine, if that may take long.
func (r *Record) DiscardAside(a *Attempt) {
	if a == nil || a.Response == nil || a.ended.Load() == over {
		return
	}
	r.parts.Add(1)
	go func() {
		defer r.leave()
		a.Discard()
	}()
}

// Waits reports whether the attempt waits for an endpoint, so that the end of its context ends
// it at once.
func (a *Attempt) Waits() bool { return a.race.stage.Load() == waiting }

// Picked reports whether a layer below has picked an endpoint for the attempt, which must have
// been sent.
func (a *Attempt) Picked() bool { return a.pick.Node != nil }

// Supersede ends an attempt that is under way, because another one has won. Its endpoint
// learns neither good nor bad from it. It reports whether the attempt was sent; if not, it never
// will be.
func (a *Attempt) Supersede() (wasSent bool) {
	a.race.lost.Store(true)
	return a.Forget(outcome.Superseded)
}

// Forget notes that the call does not wait for an attempt that is under way, and what that
// means to the call. What it reports is the same.
func (a *Attempt) Forget(class outcome.Class) (wasSent bool) {
	a.race.gone = class
	defer a.cancel(errSuperseded)
	if a.race.stage.CompareAndSwap(waiting, givenUp) || a.race.stage.CompareAndSwap(leaving, givenUp) {
		return false
	}
	a.race.after = a.record.cfg.now().Sub(a.start)
	return true
}

// Lost returns what an attempt meant for which the call did not wait, and
// [outcome.Unknown] for any other.
func (a *Attempt) Lost() outcome.Class {
	if a.race == nil {
		return outcome.Unknown
	}
	return a.race.gone
}

// LostAfter returns for how long such an attempt had been under way.
func (a *Attempt) LostAfter() time.Duration { return a.race.after }

// Leave ends the part that an attempt beside others has in its call. Its goroutine calls it
// last.
func (a *Attempt) Leave() { a.record.leave() }

// Abandon ends an attempt beside others that a panic, or runtime.Goexit, has interrupted.
func (a *Attempt) Abandon() {
	if a.Failure == nil && a.Response == nil {
		a.Failure = errGone
	}
	a.race.replaces.Discard()
	a.abort()
}

package retry

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Hooks observe attempts and what follows from them. They are called by the goroutine of
// the call, so they run concurrently and must be fast; no lock is held.
type Hooks struct {
	// Attempt is told of each attempt that was sent: when its response's headers have
	// arrived, when it has failed, or when the call does not wait for it any longer.
	Attempt func(Attempt)
	// Decided is told of each decision: after an attempt, and when one has been under way
	// for so long that another could begin beside it.
	Decided func(Decision)
}

// Attempt tells how an attempt went.
type Attempt struct {
	// Number counts the attempts of the call, from 1.
	Number int
	// Endpoint is where it went; it is zero if no layer below picks one.
	Endpoint discovery.Endpoint
	// Hedge says that it was begun beside another one.
	Hedge bool
	// Outcome is what it meant.
	Outcome outcome.Outcome
	// StatusCode is the status of the response, 0 if there was none.
	StatusCode int
	// Err is why there was no response.
	Err error
	// Took is the time from sending to the response's headers.
	Took time.Duration
	// Connections is how many connections net/http got for the attempt: more
	// than one when it repeated the request by itself, none when it never
	// got one, and where nobody counted (see [InfoOf]).
	Connections int
}

// Decision is an event: what follows.
type Decision struct {
	// Attempt is the number of the attempt after which it was decided, counted from 1.
	Attempt int
	// Endpoint is the address it went to, empty if unknown.
	Endpoint string
	// Hedge says that the attempt is still under way, and that the action is whether
	// another begins beside it.
	Hedge bool
	// Outcome is what the attempt meant.
	Outcome outcome.Outcome
	// Err is why it failed, nil if there was a response.
	Err error
	// Action is what follows.
	Action Action
}

// Case is what [Policy.RetryIf] is asked about: an attempt that has ended.
type Case struct {
	Attempt
	// Request is the caller's request. It must not be changed or kept.
	Request *http.Request
	// Response is the answer, nil if there was none. Its body must not be read.
	Response *http.Response
	// WroteHeaders says that the transport has reported that it has written the headers. If
	// not, that proves nothing: see Outcome.
	WroteHeaders bool
	// Idempotent says that by the policy's rules the request may reach a server more than
	// once.
	Idempotent bool
}

// Info tells how a call went.
type Info struct {
	// Attempts are those that were sent, in order.
	Attempts []Attempt
	// Reason is why there was no further one, empty where none was wanted.
	Reason outcome.Reason
}

// InfoOf tells how the call went that brought a response, whatever its status: the innermost, if
// one was made inside another. It reports false for responses that do not come through a
// [Transport]. Where nothing needed to be watched when a Transport of this package made the first
// attempt (no body, no time limit, no hook), connections are not counted, and how long the first
// attempt took is known only if it was not good.
func InfoOf(resp *http.Response) (Info, bool) {
	if resp == nil || resp.Request == nil {
		return Info{}, false
	}
	ctx := resp.Request.Context()
	if a := call.FromAttempt(ctx); a != nil {
		return infoOf(a.Record()), true
	}
	light, became := call.LightOf(ctx)
	switch {
	case light == nil:
		return Info{}, false
	case became != nil:
		return infoOf(became), true
	}
	only := Attempt{Number: 1, Outcome: outcome.Outcome{Class: outcome.Success}, StatusCode: resp.StatusCode}
	return Info{Attempts: []Attempt{only}}, true
}

func infoOf(r *call.Record) Info { return Info{Attempts: AttemptsOf(r), Reason: r.Reason} }

// AttemptsOf tells of the attempts of a call that were sent. It is for those who compose layers
// inside of evenkeel.
func AttemptsOf(r *call.Record) (attempts []Attempt) {
	for _, a := range r.Attempts() {
		attempts = append(attempts, describe(a))
	}
	return attempts
}

// describe returns what is told of an attempt. One that the call does not wait for may still
// be changing, so only what was noted about it is looked at.
func describe(a *call.Attempt) Attempt {
	d := Attempt{Number: a.Number(), Hedge: a.Beside}
	if a.Sent() {
		d.Endpoint = a.Endpoint()
	}
	if class := a.Lost(); class != outcome.Unknown {
		d.Outcome.Class, d.Took = class, a.LostAfter()
		return d
	}
	d.Outcome, d.Err, d.Took, d.Connections = a.Outcome, a.Failure, a.Took, a.Connections()
	if a.Response != nil {
		d.StatusCode = a.Response.StatusCode
	}
	return d
}

// tellAttempt tells of an attempt that was sent.
func (h *Hooks) tellAttempt(a *call.Attempt) {
	if h.Attempt != nil && a.Sent() {
		h.Attempt(describe(a))
	}
}

// tellDecided tells what follows after an attempt.
func (h *Hooks) tellDecided(plan *Plan, a *call.Attempt, hedge bool, action Action) {
	if h.Decided == nil {
		return
	}
	d := Decision{Attempt: a.Number(), Hedge: hedge, Action: action}
	if a.Sent() {
		d.Endpoint = a.Endpoint().Address
	}
	if !hedge { // else it is under way
		told := describe(a)
		d.Outcome, d.Err = told.Outcome, told.Err
	}
	plan.tell(h.Decided, d)
}

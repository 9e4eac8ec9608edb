package evenkeel

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Hooks observe a [Transport]. Each may be nil and then costs nothing. Those of
// calls are called by the goroutine of the call, so they run concurrently and
// must be fast; hand over what takes longer. No lock is held: a hook may use the
// transport, but not close it.
type Hooks struct {
	// Attempt is told of each attempt when its response's headers have
	// arrived or it has failed.
	Attempt func(Attempt)
	// Decided is told of each decision after an attempt: stop, and why, or
	// try again, and when.
	Decided func(retry.Decision)
	// Called is told of each call when its response or error is handed to the
	// caller.
	Called func(Call)
	// Endpoints is told when endpoints come and go, become available or
	// unavailable, and when panic begins and ends.
	Endpoints func(balancer.Change)
	// Breaker is told of each change of state of a circuit breaker, in order: of an
	// endpoint's, which is named after its address, or of the target's. Calls do not
	// overlap; some come from timers.
	Breaker func(breaker.Change)
	// Discovery is told what the resolver finds, and what it fails to.
	Discovery func(discovery.Event)
}

// Attempt is an event: an attempt has its answer.
type Attempt struct {
	// Number counts the attempts of the call, from 1.
	Number int
	// Endpoint is where it went.
	Endpoint discovery.Endpoint
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
	// got one.
	Connections int
}

// Call is an event: a call has its answer.
type Call struct {
	// Request is the caller's request. It must not be changed or kept.
	Request *http.Request
	// Info tells how the call went.
	Info Info
	// StatusCode is the status of the response, 0 if there was none.
	StatusCode int
	// Err is the error, of type [*Error], nil if there was a response.
	Err error
}

// Info tells how a call went.
type Info struct {
	// Attempts is how many attempts were sent.
	Attempts int
	// Endpoint is where the last of them went.
	Endpoint discovery.Endpoint
	// Reason is why there was no further one, empty where none was wanted.
	Reason outcome.Reason
}

// InfoOf tells how the call went that brought a response, whatever its status.
// It reports false for responses that are not from a [Transport].
func InfoOf(resp *http.Response) (Info, bool) {
	if resp == nil || resp.Request == nil {
		return Info{}, false
	}
	a := call.FromAttempt(resp.Request.Context())
	if a == nil {
		return Info{}, false
	}
	return infoOf(a.Record()), true
}

func infoOf(r *call.Record) Info {
	info := Info{Attempts: r.Sent(), Reason: r.Reason}
	if last := r.LastSent(); last != nil {
		info.Endpoint = last.Endpoint()
	}
	return info
}

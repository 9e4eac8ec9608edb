package evenkeel

import (
	"net/http"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// Hooks observe a [Transport]. Each may be nil and then costs nothing. Those of
// calls are called by the goroutine of the call, so they run concurrently and
// must be fast; hand over what takes longer. No lock is held: a hook may use the
// transport, but not close it.
type Hooks struct {
	// Attempt is told of each attempt: when its response's headers have
	// arrived, when it has failed, or when the call does not wait for it any longer: one beside
	// it was faster, the caller has gone, or time has run out.
	Attempt func(Attempt)
	// Decided is told of each decision after an attempt: stop, and why, or
	// try again, and when; and of whether another one begins beside one that takes long.
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
	// Health is told when probes find an endpoint healthy or not, and when one is ejected and
	// returns, in order. Calls do not overlap; they come from probes, timers and calls.
	Health func(health.Change)
	// Session is told when sessions move to another endpoint, and what else is out of the
	// ordinary with them. The goroutine of the call that it happens to calls it.
	Session func(session.Event)
	// Discovery is told what the resolver finds, and what it fails to.
	Discovery func(discovery.Event)
}

// Attempt is an event: how an attempt went.
type Attempt = retry.Attempt

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
	// Attempts are those that were sent, in order.
	Attempts []Attempt
	// Endpoint is where the one went that decided the call, zero if none was sent.
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
	info := Info{Attempts: retry.AttemptsOf(r), Reason: r.Reason}
	if final := r.Final(); final != nil {
		info.Endpoint = final.Endpoint()
	}
	return info
}

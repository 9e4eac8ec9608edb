package call

import (
	"context"
	"net/http"

	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Affinity is what a layer above knows of where a call belongs. Attempts that run beside each other
// ask it concurrently.
type Affinity interface {
	// Pin returns where the call belongs. Nil is anywhere.
	Pin() *node.Pin
	// Claim is asked before the first attempt of a call is sent to another endpoint than the
	// one where it belongs, which cannot take it because of cause, or of one that belongs nowhere yet.
	// It returns the endpoint where the call belongs from now on, which is to be tried; empty or
	// the same means that it stays as it was picked. An error means that the attempt must not be
	// made. It may wait, but not beyond the context.
	Claim(ctx context.Context, endpoint, cause string) (elsewhere string, err error)
	// Bound reports whether the call must stay where it belongs after an attempt there that has ended like
	// that, or not yet.
	Bound(class outcome.Class) bool
	// Begins reports whether the session begins with this call, so that nothing is lost yet elsewhere.
	Begins() bool
}

// SetAffinity says where the call belongs. It must be called before the first attempt.
func (r *Record) SetAffinity(a Affinity) { r.affinity = a }

// Affinity returns what knows where the call belongs, or nil.
func (r *Record) Affinity() Affinity { return r.affinity }

// bound reports whether the next attempt must go where this one went, where the call belongs.
func (a *Attempt) bound() bool {
	return a.record.affinity != nil && (a.record.affinity.Bound(a.Outcome.Class) || a.stays())
}

// stays reports whether the endpoint where the call belongs has too many requests of this caller, who would
// not be better off elsewhere without his session.
func (a *Attempt) stays() bool {
	if a.record.affinity == nil || a.Response == nil || a.Response.StatusCode != http.StatusTooManyRequests {
		return false
	}
	pin := a.record.affinity.Pin()
	return pin != nil && pin.ID == a.EndpointID() && !a.record.affinity.Begins()
}

// EndpointID returns the identity of the endpoint that the attempt went to, "" if no layer picks.
func (a *Attempt) EndpointID() string {
	if a.endpoint == nil {
		return ""
	}
	return a.endpoint.Key().ID
}

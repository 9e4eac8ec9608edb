package call

import (
	"context"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Affinity is what a layer above knows of where a call belongs. Attempts that run beside each other
// ask it concurrently.
type Affinity interface {
	// Pin returns where the call belongs. Nil is anywhere.
	Pin() *node.Pin
	// Claim is asked before the first attempt of a call is sent to another endpoint than the
	// one where it belongs, which cannot take it because of cause, or of one that belongs nowhere yet.
	// It returns the endpoint where the call belongs from now on, which is to be tried; empty or
	// the same means that it stays as it was picked. It may wait, but not beyond the context.
	Claim(ctx context.Context, endpoint, cause string) (elsewhere string)
}

// SetAffinity says where the call belongs. It must be called before the first attempt.
func (r *Record) SetAffinity(a Affinity) { r.affinity = a }

// Affinity returns what knows where the call belongs, or nil.
func (r *Record) Affinity() Affinity { return r.affinity }

// strict reports whether the call belongs to one endpoint and no other.
func (r *Record) strict() bool {
	if r.affinity == nil {
		return false
	}
	pin := r.affinity.Pin()
	return pin != nil && pin.Strict
}

// EndpointID returns the identity of the endpoint that the attempt went to, "" if no layer picks.
func (a *Attempt) EndpointID() string {
	if a.endpoint == nil {
		return ""
	}
	return a.endpoint.Key().ID
}

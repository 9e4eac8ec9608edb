package discovery

import (
	"context"
	"fmt"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Static is a service whose addresses the program knows, such as
// Static{"10.0.0.1:8443", "10.0.0.2:8443"}. For endpoints with weights, zones
// or IDs use [List].
type Static []string

// Watch implements [Resolver]: it tells the addresses once, then waits for ctx
// to end.
func (s Static) Watch(ctx context.Context, sink Sink) error {
	return List(s.endpoints()).Watch(ctx, sink)
}

// Validate returns all problems joined, or nil. An empty list is one, and so is
// an address given twice.
func (s Static) Validate() error {
	var errs field.Errors
	errs.Check(len(s) > 0, "Static", s, "must not be empty")
	seen := identities{}
	for i, e := range s.endpoints() {
		path := fmt.Sprintf("Static[%d]", i)
		problem := addressProblem(e.Address)
		errs.Check(problem == "", path, shown(e.Address), problem)
		if before, twice := seen.add(e, path); twice {
			errs.Add(path, shown(e.Address), "must not repeat "+before)
		}
	}
	return errs.Err()
}

func (s Static) endpoints() []Endpoint {
	endpoints := make([]Endpoint, len(s))
	for i, address := range s {
		endpoints[i].Address = address
	}
	return endpoints
}

// List is a service whose endpoints the program knows. It must not be changed
// while it is watched.
type List []Endpoint

// Watch implements [Resolver]: it tells the endpoints once, then waits for ctx
// to end.
func (l List) Watch(ctx context.Context, sink Sink) error {
	sink.Update(slices.Clone(l), nil)
	<-ctx.Done()
	return ctx.Err()
}

// Validate returns all problems joined, or nil. An empty list is one, and so are
// two endpoints with the same [Key].
func (l List) Validate() error {
	var errs field.Errors
	errs.Check(len(l) > 0, "List", l, "must not be empty")
	seen := identities{}
	for i, e := range l {
		path := fmt.Sprintf("List[%d]", i)
		errs.Under(path, e.Validate())
		if before, twice := seen.add(e, path); twice {
			errs.Add(path, e.label(), "must not have the identity of "+before)
		}
	}
	return errs.Err()
}

// identities finds endpoints that are the same one, seen twice.
type identities map[Key]string

// add notes where an endpoint stands, unless its identity is taken: then it
// returns where the first one stands, and true.
func (seen identities) add(e Endpoint, where string) (before string, twice bool) {
	if before, twice = seen[e.Key()]; !twice {
		seen[e.Key()] = where
	}
	return before, twice
}

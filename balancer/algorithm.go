package balancer

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// An Algorithm is a way to choose one of several endpoints. It is data: a plain
// struct whose zero value has the recommended settings, which may be used by any
// number of pools. [RoundRobin], [Random], [LeastRequest] and [PeakEWMA] are
// built on this interface, and so can be an algorithm of the user's own.
type Algorithm interface {
	// NewBuilder returns what builds the pickers of one pool, or all that is
	// wrong with the settings.
	NewBuilder(Env) (Builder, error)
}

// Env is what a pool gives to its algorithm.
type Env struct {
	// Rand returns a random number. It is safe for concurrent use.
	Rand func() uint64
	// Now is the instant at which the pool was made.
	Now time.Time
}

// A Builder is the side of an algorithm that changes: the pool calls it, never
// concurrently, whenever its endpoints change.
type Builder interface {
	// Observer returns the state that the algorithm wants to keep for an
	// endpoint, or nil. The pool keeps it as long as the endpoint's identity
	// stays, and offers it as previous when the algorithm is replaced by
	// another, which may take it over if it knows its type.
	Observer(e discovery.Endpoint, previous Observer) Observer

	// Build returns the picker for a set of candidates. There is at least
	// one, and the slice never changes.
	Build(candidates []Candidate) Picker
}

// A Picker chooses among the candidates it was built for. It is called for each
// attempt, concurrently, and must not block, lock or allocate.
type Picker interface {
	// Pick returns the index of a candidate.
	Pick(Info) int
}

// Observer is what an algorithm keeps per endpoint. It is told of each attempt
// there, concurrently, and must not block or allocate.
type Observer interface {
	// Picked tells that the endpoint was picked at the instant now. What it
	// returns comes back with the answer.
	Picked(now time.Time) (token uint32)
	// Answered tells how it went, exactly once for each Picked.
	Answered(token uint32, a outcome.Answer)
}

// Info is what is known of the attempt for which an endpoint is picked.
type Info struct {
	// Now is the present instant. Algorithms that do not learn from time
	// work without it.
	Now time.Time
	// Tried are the serials ([Pick.Serial]) of endpoints that this call has
	// tried and that are avoided while there is another.
	Tried []uint64
	// Request is the request to be sent, or nil where there is none.
	Request *http.Request
}

// Candidate is an endpoint that may be picked.
type Candidate struct {
	node     *node.Node
	observer node.Observer
	weight   float64
}

// Endpoint returns what discovery knows of the endpoint.
func (c Candidate) Endpoint() discovery.Endpoint { return c.node.Endpoint() }

// Weight returns the weight of the endpoint, which is above zero.
func (c Candidate) Weight() float64 { return c.weight }

// InFlight returns how many attempts were picked and have not ended, response
// body included.
func (c Candidate) InFlight() int64 { return c.node.InFlight() }

// Observer returns what [Builder.Observer] returned for the endpoint.
func (c Candidate) Observer() Observer { return c.observer }

// Validate returns all that is wrong with the settings of an algorithm, or nil.
// A nil algorithm is the default one.
func Validate(a Algorithm) error {
	if a == nil {
		return nil
	}
	_, err := a.NewBuilder(Env{Rand: func() uint64 { return 0 }})
	return err
}

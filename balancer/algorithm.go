package balancer

import (
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// An Algorithm is a way to choose one of several endpoints. It is data: a plain
// struct whose zero value has the recommended settings, which may be used by any
// number of pools. All of this package's are built on this interface, and so can be
// one of the user's own.
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
// concurrently, whenever its endpoints change. It may also be a [Keyer] or a
// [Refresher].
type Builder interface {
	// Observer returns the state that the algorithm wants to keep for an
	// endpoint, or nil. The pool keeps it as long as the endpoint's identity
	// stays, and offers it as previous when the algorithm is replaced by
	// another, which may take it over if it knows its type.
	Observer(e discovery.Endpoint, previous Observer) Observer

	// Build returns the picker for a group of endpoints.
	Build(Group) Picker
}

// Group is a set of endpoints among which an algorithm picks: those of one
// priority, or of one zone in it, or whatever else the [Rules] make of a pool.
// Nothing in it may be changed, and nothing in it changes later.
type Group struct {
	// Candidates are the endpoints that may be picked now. There is at least
	// one.
	Candidates []Candidate
	// Unavailable are those that belong to the group as well and may not be
	// picked now, for a [Keyer], which must not give the keys of an endpoint
	// to others for good when it is away for a moment. Others do not get them.
	Unavailable []Candidate
	// Previous is the picker that was built for the same group before, by
	// whatever algorithm the pool had then, or nil.
	Previous Picker
	// Now is the present instant.
	Now time.Time

	limited bool      // Rules.MaxInFlight is set
	pins    bool      // attempts have pins
	born    time.Time // when the pool was made
}

// A Keyer is a [Builder] whose pickers choose by a key that they find in the
// request. Whatever would send a key here today and there tomorrow does not
// apply to it: zones, client subsets and slow start.
type Keyer interface {
	Builder
	// Key returns the key of the request, or a random one if it has none. A
	// priority is chosen by it too.
	Key(*http.Request) uint64
}

// A Refresher is a [Builder] whose pickers get stale: the pool has them built
// anew at every interval, which must be above zero.
type Refresher interface {
	Builder
	// RefreshInterval returns how often.
	RefreshInterval() time.Duration
}

// A Picker chooses among the candidates it was built for. It is called for each
// attempt, concurrently, and must not block, lock or allocate.
type Picker interface {
	// Pick returns the index of a candidate.
	Pick(Info) int
}

// Observer is what an algorithm keeps per endpoint. It is told of each attempt
// there, concurrently, and must not block, allocate or panic.
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
	// Pin is the endpoint where the attempt belongs, or nil. The pool sees to it:
	// algorithms need not.
	Pin *Pin
}

// An estimator is a [Picker] that can tell what a pick will cost. With one, the
// rule of zones sees that the local zone is slow.
type estimator interface {
	Picker
	// estimate returns what an attempt at the candidate is expected to take,
	// in seconds, as far as answers tell; infinity if that is not known and
	// not to be tried. fades says that what is known may be forgotten while
	// there is no answer: so for the local zone, which is to be used again,
	// but not for others, which would seem faster and faster.
	estimate(info Info, candidate int, fades bool) float64
}

// Candidate is an endpoint that may be picked.
type Candidate struct {
	node     *node.Node
	observer node.Observer
	weight   float64
}

// Endpoint returns what discovery knows of the endpoint.
func (c *Candidate) Endpoint() discovery.Endpoint { return c.node.Endpoint() }

// Weight returns the weight of the endpoint, which is above zero.
func (c *Candidate) Weight() float64 { return c.weight }

// InFlight returns how many attempts were picked and have not ended, response
// body included.
func (c *Candidate) InFlight() int64 { return c.node.InFlight() }

// Observer returns what [Builder.Observer] returned for the endpoint.
func (c *Candidate) Observer() Observer { return c.observer }

// Usable reports whether the call has not tried the endpoint and
// [Rules.MaxInFlight] lets it have another attempt. A picker need not ask: if it
// picks another, it is asked again, and then the next usable one is taken. It
// should if it does not choose by chance, for then it would pick the same again.
func (c *Candidate) Usable(info Info) bool {
	return !c.node.Full() && !slices.Contains(info.Tried, c.node.Serial())
}

// Validate returns all that is wrong with the settings of an algorithm, or nil.
// A nil algorithm is the default one.
func Validate(a Algorithm) error {
	if a == nil {
		return nil
	}
	_, err := a.NewBuilder(Env{Rand: func() uint64 { return 0 }})
	return err
}

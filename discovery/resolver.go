package discovery

import (
	"context"

	"github.com/evenkeel-go/evenkeel/clock"
)

// A Resolver finds the endpoints of one service and goes on watching them. It
// is a value that describes where to look: the same one may be watched more
// than once, at the same time.
type Resolver interface {
	// Watch tells the sink each new state of the service until ctx is done.
	// It blocks all that time and returns ctx.Err(). Any other error means
	// that the watch broke; the owner starts a new one after a while. Watch
	// leaves no goroutine, timer or connection behind.
	//
	// A resolver says what it sees, no more: to keep the last good endpoints
	// through errors and empty answers is the business of [LastGood].
	Watch(ctx context.Context, sink Sink) error
}

// A Validator is a [Resolver] that can be checked before it is used.
type Validator interface {
	// Validate returns all problems joined, or nil.
	Validate() error
}

// Sink is what a resolver tells its findings to. The owner of the watch fills
// in every field.
type Sink struct {
	// Update takes a complete set, which replaces the one before. Empty means
	// that the source says there are no endpoints, which is not an error.
	// The error beside it, if any, tells of entries that had to be left out.
	// The slice must not be changed afterwards.
	Update func(endpoints []Endpoint, skipped error)

	// Fail says that the source could not be asked, or that its answer made
	// no sense. The set known before stays in use.
	Fail func(err error)

	// Refresh yields a value when endpoints fail, and a fresh look would be
	// welcome. It may yield far more often than a source can be asked: the
	// resolver keeps its minimum interval.
	Refresh <-chan struct{}

	// Clock is the clock to wait on.
	Clock clock.Clock

	// Rand returns a uniform number in [0,1), for jitter. It may be called
	// from any goroutine of the watch.
	Rand func() float64
}

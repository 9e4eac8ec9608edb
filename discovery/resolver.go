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
//
// Update and Fail may be called from any goroutine of the watch, but the calls
// of one watch never overlap, and none comes once Watch has returned: an owner
// needs no lock of its own to take them in. The watch stands still while one of
// them runs, so they should be short.
type Sink struct {
	// Update takes a complete set, which replaces the one before. Empty means
	// that the source says there are no endpoints, which is not an error.
	// The error beside it, if any, tells of entries that had to be left out
	// (as a [SkippedError], where they are counted), and of parts of the
	// source that could not be asked and for which older knowledge stands in.
	// The slice must not be changed afterwards, by neither side.
	Update func(endpoints []Endpoint, skipped error)

	// Fail says that the source could not be asked, or that its answer made
	// no sense. The set known before stays in use.
	Fail func(err error)

	// Refresh yields a value when endpoints fail, and a fresh look would be
	// welcome. It may yield far more often than a source can be asked: the
	// resolver keeps its minimum interval. Nobody may be listening, so the
	// owner sends without waiting, into a channel with room for one value.
	Refresh <-chan struct{}

	// Clock is the clock to wait on.
	Clock clock.Clock

	// Rand returns a uniform number in [0,1), for jitter. It may be called
	// from any goroutine of the watch, also by several at once.
	Rand func() float64
}

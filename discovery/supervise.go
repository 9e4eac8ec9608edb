package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// The waits before a broken watch is started again.
const (
	restartAfter  = time.Second
	restartWithin = time.Minute
)

// report is one call of a sink's func, on its way to the goroutine that acts on
// it.
type report struct {
	source    int // which of several resolvers it comes from
	endpoints []Endpoint
	skipped   error
	failed    error // if not nil, there was no answer
}

// supervise watches r until ctx is done and sends what it says to reports. A
// watch that breaks is started again: after a wait that grows from 1s to 60s
// as long as no watch gets an answer, or 1s after it broke when a refresh is asked
// for.
func supervise(ctx context.Context, source int, r Resolver, sink Sink, reports chan<- report) {
	var answered atomic.Bool
	send := func(what report) {
		what.source = source
		if what.failed == nil {
			answered.Store(true)
		}
		select {
		case reports <- what:
		case <-ctx.Done():
		}
	}
	sink.Update = func(endpoints []Endpoint, skipped error) { send(updated(endpoints, skipped)) }
	sink.Fail = func(err error) { send(report{failed: err}) }
	restart := backoff{min: restartAfter, max: restartWithin}
	for {
		err := r.Watch(ctx, sink)
		if ctx.Err() != nil {
			return
		}
		if answered.Swap(false) {
			restart.reset()
		}
		send(report{failed: broken(err)})
		if pause(ctx, sink, sink.Clock.Now(), restart.min, restart.next(sink.Rand())) != nil {
			return
		}
	}
}

// updated turns an update into a report. Nothing left of an answer that was not
// empty is no answer: otherwise one bad record would empty a service that has
// one endpoint.
func updated(endpoints []Endpoint, skipped error) report {
	if len(endpoints) == 0 && skipped != nil {
		return report{failed: fmt.Errorf("discovery: nothing usable in the answer: %w", skipped)}
	}
	return report{endpoints: endpoints, skipped: skipped}
}

func broken(err error) error {
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return fmt.Errorf("discovery: the watch broke: %w", err)
}

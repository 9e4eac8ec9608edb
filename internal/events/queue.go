// Package events tells callbacks of users what has happened: in order, one at a time, and
// under no lock.
package events

import "sync"

// Queue holds events until they are told. They are added under whatever lock puts them in
// order, and told without it.
type Queue[E any] struct {
	// Tell is the callback. It may use what it is told of. If it is nil, nothing is kept.
	Tell func(E)

	mu      sync.Mutex // guards what follows; taken last; not held while telling
	events  []E
	telling chan struct{} // closed when the callback has returned, nil if it is not called
	closed  bool
}

// Add takes an event that is to be told.
func (q *Queue[E]) Add(e E) {
	if q.Tell == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.events = append(q.events, e)
	}
}

// Flush tells what was added. If another goroutine is at it, that one tells ours too.
// Should the callback panic, the rest is told the next time.
func (q *Queue[E]) Flush() {
	if q.Tell == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.telling != nil {
		return
	}
	for len(q.events) > 0 {
		q.tellNextLocked()
	}
	q.events = nil
}

// tellNextLocked lets go of the lock while it tells, also if that panics.
func (q *Queue[E]) tellNextLocked() {
	next := q.events[0]
	q.events = q.events[1:]
	q.telling = make(chan struct{})
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		close(q.telling)
		q.telling = nil
	}()
	q.Tell(next)
}

// Close drops what is not told yet, and waits for the call that is under way: none begins
// when it has returned. It must not be called by the callback.
func (q *Queue[E]) Close() {
	q.mu.Lock()
	q.closed, q.events = true, nil
	telling := q.telling
	q.mu.Unlock()
	if telling != nil {
		<-telling
	}
}

package balancer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// ErrSaturated is what [SaturatedError] wraps: every endpoint has as many attempts
// as [Rules.MaxInFlight] allows.
var ErrSaturated = errors.New("balancer: every endpoint has as many requests as MaxInFlight allows")

// SaturatedError says that no endpoint had room for an attempt, and that it could
// not wait, or has waited for nothing. The request was sent to nobody.
type SaturatedError struct {
	// Waited is how long it was in the queue.
	Waited time.Duration
	// QueueFull says that there was no place in the queue.
	QueueFull bool
	// Pinned says that it was for one endpoint only, because of a strict [Pin]. Then the
	// error wraps [ErrPinned] as well.
	Pinned bool
}

// Error implements error.
func (e *SaturatedError) Error() string {
	what := ErrSaturated.Error()
	if e.Pinned {
		what = ErrPinned.Error() + ": it has as many requests as MaxInFlight allows"
	}
	switch {
	case e.QueueFull:
		return what + ", and the queue is full"
	case e.Waited > 0:
		return fmt.Sprintf("%s, for the %v that the queue allows", what, e.Waited)
	}
	return what
}

// Unwrap makes errors.Is find [ErrSaturated].
func (e *SaturatedError) Unwrap() []error {
	if e.Pinned {
		return []error{ErrSaturated, ErrPinned}
	}
	return []error{ErrSaturated}
}

// Reason returns [outcome.Limiter].
func (e *SaturatedError) Reason() outcome.Reason { return outcome.Limiter }

// errNoRoom is what a pick that does not wait is refused with.
var errNoRoom error = &SaturatedError{}

// errNoRoomPinned is the same for one with a strict pin.
var errNoRoomPinned error = &SaturatedError{Pinned: true}

// queue is where attempts wait for room, first come, first served. Who ends an
// attempt picks for the first in the queue and hands the pick over, so nobody can
// overtake. It also counts the attempts in flight of the pool, for those who need
// that.
type queue struct {
	inFlight atomic.Int64
	waiting  atomic.Int32 // about to be, or in the list

	mu      sync.Mutex // guards waiters; picks are made under it, taken before the pool's lock
	waiters list.List  // of *waiter
	pinned  int        // how many of them have a pin
}

// various reports whether what one attempt has no room for may have room for another: because of
// routes, or because of pins.
func (q *queue) various(s *snapshot) bool { return len(s.routes) > 0 || q.pinned > 0 }

// add puts an attempt at the end of the queue.
func (q *queue) add(w *waiter) *list.Element {
	w.waits = true
	if w.info.Pin != nil {
		q.pinned++
	}
	return q.waiters.PushBack(w)
}

// remove takes an attempt out of the queue, if it is still in it.
func (q *queue) remove(place *list.Element) {
	w := q.waiters.Remove(place).(*waiter)
	if w.waits && w.info.Pin != nil {
		q.pinned--
	}
	w.waits = false
}

// waiter is an attempt in the queue.
type waiter struct {
	info   Info
	pick   Pick
	news   bool // there is something to tell of the pick
	waits  bool // it is in the list
	err    error
	served chan struct{} // closed when pick or err is there
}

// ended is told that an attempt has ended.
func (p *Pool) ended(counted bool) {
	if counted {
		p.queue.inFlight.Add(-1)
	}
	p.serve()
}

// serve picks for those who wait, in their order, as long as there is room.
func (p *Pool) serve() {
	q := &p.queue
	if q.waiting.Load() == 0 {
		return
	}
	if p.serveNow() {
		p.tellChanges()
	}
}

func (p *Pool) serveNow() (news bool) {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return p.serveLocked()
}

// serveLocked needs the lock of the queue. It says whether there is something to tell that
// nobody who is served will tell.
func (p *Pool) serveLocked() (news bool) {
	q := &p.queue
	routed, full := len(p.snapshot.Load().routes) > 0, false
	var homes []string // that have no room, of waiters with a pin
	for e := q.waiters.Front(); e != nil && (routed || !full || q.pinned > 0); {
		w, at := e.Value.(*waiter), e
		e = e.Next()
		if full && !routed && (w.info.Pin == nil || slices.Contains(homes, w.info.Pin.ID)) {
			continue // what there is no room for is the same for all who may go anywhere, or to the same home
		}
		w.info.Now = p.now()
		if w.pick, w.news, w.err = p.pick(w.info); !errors.Is(w.err, ErrSaturated) {
			q.remove(at)
			close(w.served)
			continue
		}
		news = news || w.news
		full = full || !w.info.strict() // one with a loose pin has been offered everything, too
		if w.info.Pin != nil && len(w.info.Tried) == 0 && !slices.Contains(homes, w.info.Pin.ID) {
			homes = append(homes, w.info.Pin.ID)
		}
	}
	return news
}

// pickQueued is [Pool.Pick] that waits in the queue while there is no room.
func (p *Pool) pickQueued(ctx context.Context, info Info, limits Queue) (_ Pick, news bool, _ error) {
	q := &p.queue
	q.waiting.Add(1) // before the pick: who makes room after it sees us
	defer q.waiting.Add(-1)
	w, place, news, err := p.enqueue(info, limits)
	if place == nil {
		return w.pick, news, err
	}
	if news {
		p.tellQueued(w, place)
	}
	gaveUp := wait.SleepOr(ctx, p.clock, limits.Timeout, w.served) != nil
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-w.served:
		return w.pick, w.news, w.err // the context of the attempt decides what becomes of it
	default:
	}
	q.remove(place)
	if gaveUp {
		return Pick{}, false, context.Cause(ctx)
	}
	return Pick{}, false, &SaturatedError{Waited: limits.Timeout, Pinned: info.strict()}
}

// tellQueued tells what has changed while an attempt found no room. If a callback panics,
// the attempt gives up its place.
func (p *Pool) tellQueued(w *waiter, place *list.Element) {
	told := false
	defer func() {
		if told {
			return
		}
		p.queue.mu.Lock()
		p.queue.remove(place)
		p.queue.mu.Unlock()
		if w.pick.pick.Node != nil { // it was served meanwhile
			defer w.pick.Done()
			w.pick.Answered(outcome.Answer{Class: outcome.Canceled})
		}
	}()
	p.tellChanges()
	told = true
}

// tellChanges calls back with what has changed. No lock may be held.
func (p *Pool) tellChanges() {
	p.changes.Flush()
	if p.cfg.Breakers != nil {
		p.cfg.Breakers.Tell()
	}
}

// enqueue picks if there is room, and takes a place in the queue if there is none.
func (p *Pool) enqueue(info Info, limits Queue) (w *waiter, place *list.Element, news bool, err error) {
	q := &p.queue
	w = &waiter{info: info, served: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock() // also if the key function of a user panics
	news = p.serveLocked()
	// What is left for us may be of no use to those before us.
	if q.waiters.Len() == 0 || q.various(p.snapshot.Load()) || info.Pin != nil {
		var picked bool
		w.pick, picked, err = p.pick(info)
		news = news || picked
		if !errors.Is(err, ErrSaturated) {
			return w, nil, news, err
		}
	}
	if q.waiters.Len() >= limits.Size {
		return w, nil, news, &SaturatedError{QueueFull: true, Pinned: info.strict()}
	}
	return w, q.add(w), news, nil
}

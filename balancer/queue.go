package balancer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
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
}

// Error implements error.
func (e *SaturatedError) Error() string {
	switch {
	case e.QueueFull:
		return ErrSaturated.Error() + ", and the queue is full"
	case e.Waited > 0:
		return fmt.Sprintf("%v, for the %v that the queue allows", ErrSaturated, e.Waited)
	}
	return ErrSaturated.Error()
}

// Unwrap makes errors.Is find [ErrSaturated].
func (e *SaturatedError) Unwrap() error { return ErrSaturated }

// Reason returns [outcome.Limiter].
func (e *SaturatedError) Reason() outcome.Reason { return outcome.Limiter }

// errNoRoom is what a pick that does not wait is refused with.
var errNoRoom error = &SaturatedError{}

// queue is where attempts wait for room, first come, first served. Who ends an
// attempt picks for the first in the queue and hands the pick over, so nobody can
// overtake. It also counts the attempts in flight of the pool, for those who need
// that.
type queue struct {
	inFlight atomic.Int64
	waiting  atomic.Int32 // about to be, or in the list

	mu      sync.Mutex // guards waiters; picks are made under it, taken before the pool's lock
	waiters list.List  // of *waiter
}

// waiter is an attempt in the queue.
type waiter struct {
	info   Info
	pick   Pick
	news   bool // there is something to tell of the pick
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
		p.changes.Flush()
		p.cfg.Breakers.Tell()
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
	routed := len(p.snapshot.Load().routes) > 0
	for e := q.waiters.Front(); e != nil; {
		w, at := e.Value.(*waiter), e
		e = e.Next()
		w.info.Now = p.now()
		if w.pick, w.news, w.err = p.pick(w.info); !errors.Is(w.err, ErrSaturated) {
			q.waiters.Remove(at)
			close(w.served)
			continue
		}
		news, w.news = news || w.news, false
		if !routed {
			break // what there is no room for is the same for all
		}
	}
	return news
}

// pickQueued is [Pool.Pick] that waits in the queue while there is no room.
func (p *Pool) pickQueued(ctx context.Context, info Info, limits Queue) (_ Pick, news bool, _ error) {
	q := &p.queue
	q.waiting.Add(1) // before the pick: who makes room after it sees us
	defer q.waiting.Add(-1)
	w, place, err := p.enqueue(info, limits)
	if place == nil {
		return w.pick, w.news, err
	}
	gaveUp := wait.SleepOr(ctx, p.clock, limits.Timeout, w.served) != nil
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-w.served:
		return w.pick, w.news, w.err // the context of the attempt decides what becomes of it
	default:
	}
	q.waiters.Remove(place)
	if gaveUp {
		return Pick{}, w.news, context.Cause(ctx)
	}
	return Pick{}, w.news, &SaturatedError{Waited: limits.Timeout}
}

// enqueue picks if there is room, and takes a place in the queue if there is none.
func (p *Pool) enqueue(info Info, limits Queue) (w *waiter, place *list.Element, err error) {
	q := &p.queue
	w = &waiter{info: info, served: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock() // also if the key function of a user panics
	w.news = p.serveLocked()
	// With routes, what is left for us may be of no use to those before us.
	if q.waiters.Len() == 0 || len(p.snapshot.Load().routes) > 0 {
		pick, news, failed := p.pick(info)
		w.pick, w.news = pick, w.news || news
		if !errors.Is(failed, ErrSaturated) {
			return w, nil, failed
		}
	}
	if q.waiters.Len() >= limits.Size {
		return w, nil, &SaturatedError{QueueFull: true}
	}
	return w, q.waiters.PushBack(w), nil
}

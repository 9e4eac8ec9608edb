package retry

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// contest drives a call whose attempts may run beside each other, two at most. Each runs on a
// goroutine of its own; all decisions are made by the goroutine of the caller, in drive. An
// attempt that the call no longer waits for ends on its own goroutine, which cleans up after
// it, so that whatever it hangs in holds up nobody.
type contest[A comparable] struct {
	ctx   context.Context // of the call
	clock clock.Clock
	side[A]

	results chan finished[A] // has room for all that can come at once
	running []A
	current A // has ended, and is the caller's only when drive returns

	mu   sync.Mutex // guards over
	over bool
}

// side is what a contest is about: HTTP requests, or functions. All but run and drop are called
// by the goroutine of the caller.
type side[A comparable] interface {
	// begin prepares an attempt, beside another one unless that is zero. It reports false if
	// there cannot be one.
	begin(beside A, why Action) (a A, ok bool)
	// run makes the attempt, and blocks.
	run(a A)
	// ended says what follows after an attempt, and which one decides the call if none does: this
	// one, or if it was not made after all, perhaps the one that ended before. running says
	// that another one is under way.
	ended(a A, running bool) (action Action, last A)
	// aborted is told of an attempt that has panicked.
	aborted(a A)
	// due returns how much longer the attempt, which was sent, is to be alone; false means for
	// ever.
	due(a A) (time.Duration, bool)
	// hedge says whether another attempt begins beside it.
	hedge(a A) Action
	// keep keeps an answer until another attempt is sent.
	keep(a A)
	// sleep reports whether the time is over, and the caller is still there.
	sleep(d time.Duration) bool
	// unmade is told that an attempt does not follow from an action after all.
	unmade(action Action)
	// departures yields when an attempt that had been waiting is sent. It may be nil.
	departures() <-chan struct{}
	// waits reports whether the attempt waits to be sent, so that the end of the context ends
	// it, and underWay whether it was.
	waits(a A) bool
	underWay(a A) bool
	// lose ends an attempt that is under way, because another one has won or the context has
	// ended, and lost tells that.
	lose(a A)
	lost(a A)
	// drop ends an attempt whose answer is of no use. It must not block.
	drop(a A)
	// left is told when an attempt and its goroutine have ended.
	left(a A)
}

// finished is an attempt that has ended.
type finished[A any] struct {
	attempt  A
	panicked any
	exited   bool // by runtime.Goexit
}

// drive makes attempts until one decides the call, which it returns, or until the context ends.
func (c *contest[A]) drive() (last A, interrupted bool) {
	c.results = make(chan finished[A], 2)
	decided := false
	defer func() { c.end(decided) }()

	var none A
	if !c.start(none, Action{}) {
		return none, false
	}
	hedges := true
	for {
		f, what := c.await(hedges)
		switch what {
		case departure:
		case ring:
			action := c.hedge(c.running[0])
			hedges = action.Again && c.start(c.running[0], action) // otherwise never in this call
		case interrupt:
			return none, true
		case result:
			action, last := c.take(f)
			switch {
			case action.Await:
				hedges = hedges && last == f.attempt
				continue
			case !action.Again:
				c.current, decided = last, true
				return last, false
			case !c.sleep(action.Wait):
				c.unmade(action)
				return none, true
			}
			if !c.start(none, action) {
				return last, false
			}
		}
	}
}

// happening is what a contest waits for.
type happening uint8

const (
	result    happening = iota // an attempt has ended
	departure                  // one that had been waiting was sent
	ring                       // one has been alone for long enough
	interrupt                  // the context has ended
)

// await waits for what happens next. What has come of an attempt counts first.
func (c *contest[A]) await(hedges bool) (f finished[A], what happening) {
	var rings chan struct{}
	var departures <-chan struct{}
	switch {
	case len(c.running) != 1 || !hedges:
	case !c.underWay(c.running[0]):
		departures = c.departures()
	default:
		if d, ok := c.due(c.running[0]); ok {
			rings = make(chan struct{})
			t := c.clock.AfterFunc(d, func() { close(rings) })
			defer t.Stop()
		}
	}
	select {
	case f = <-c.results:
		return f, result
	case <-departures:
		what = departure
	case <-rings:
		what = ring
	case <-c.ctx.Done():
		what = interrupt
		if len(c.running) == 1 && c.waits(c.running[0]) {
			return <-c.results, result // it knows what it has been waiting for
		}
	}
	select {
	case f = <-c.results:
		return f, result
	default:
		return f, what
	}
}

// take asks what follows after an attempt. If that panics, or the attempt has, it is dropped.
func (c *contest[A]) take(f finished[A]) (action Action, last A) {
	c.running = slices.DeleteFunc(c.running, func(a A) bool { return a == f.attempt })
	if f.exited || f.panicked != nil {
		c.aborted(f.attempt)
	}
	switch {
	case f.exited:
		runtime.Goexit()
	case f.panicked != nil:
		panic(f.panicked) //nolint:forbidigo // it is the attempt's
	}
	c.current = f.attempt
	action, last = c.ended(f.attempt, len(c.running) > 0)
	var none A
	if c.current = none; last != none && (action.Again || action.Await) {
		c.keep(last)
	}
	return action, last
}

// start begins an attempt.
func (c *contest[A]) start(beside A, why Action) bool {
	a, ok := c.begin(beside, why)
	if !ok {
		return false
	}
	c.running = append(c.running, a)
	go c.launch(a)
	return true
}

// launch makes an attempt and hands over what has come of it.
func (c *contest[A]) launch(a A) {
	defer c.left(a)
	f := finished[A]{attempt: a, exited: true}
	defer func() {
		if f.exited { // or it has panicked
			f.panicked = recover()
			f.exited = f.panicked == nil
		}
		if !c.hand(f) && f.panicked == nil && !f.exited {
			c.drop(a)
		}
	}()
	c.run(a)
	f.exited = false
}

// hand gives an attempt to the driver, if that still waits. The panic of one that nobody waits
// for has nowhere to go: its caller may have its answer already.
func (c *contest[A]) hand(f finished[A]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.results <- f
	}
	return !c.over
}

// end ends the attempts that are left. decided says that the current one is the caller's, unless
// a callback panics.
func (c *contest[A]) end(decided bool) {
	told := false
	defer func() {
		var none A
		if c.current != none && !(decided && told) {
			c.drop(c.current)
		}
	}()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	for _, a := range c.running {
		c.lose(a)
	}
	c.dropResults()
	for _, a := range c.running {
		c.lost(a)
	}
	told = true
}

// dropResults drops what has come of attempts that nobody waits for.
func (c *contest[A]) dropResults() {
	for {
		select {
		case f := <-c.results:
			if f.panicked == nil && !f.exited {
				c.drop(f.attempt)
			}
		default:
			return
		}
	}
}

package clock

import (
	"container/heap"
	"sync"
	"time"
)

// Fake is a clock that stands still until [Fake.Advance] moves it. Use
// [NewFake] to make one. It is safe for concurrent use.
type Fake struct {
	mu     sync.Mutex // guards what follows; never held while a callback runs
	now    time.Time
	timers timerHeap
	serial uint64 // orders callbacks that are due at the same instant
}

// NewFake returns a clock that shows start.
func NewFake(start time.Time) *Fake { return &Fake{now: start} }

// Now returns the instant that the clock shows. Inside a callback that is the
// instant for which the callback was due.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// AfterFunc arranges for fn to be called by the call of [Fake.Advance] that
// reaches the instant d from now. Also when d is zero or less, fn waits for the
// next Advance, which may be Advance(0).
func (f *Fake) AfterFunc(d time.Duration, fn func()) Timer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serial++
	t := &fakeTimer{clock: f, due: f.now.Add(max(d, 0)), serial: f.serial, fn: fn}
	heap.Push(&f.timers, t)
	return t
}

// Advance moves the clock forward by d and runs, on the caller's goroutine,
// all callbacks that become due: in order of time, those of one instant in the
// order in which they were set, each with [Fake.Now] at its own instant.
// Callbacks set by callbacks run too if they become due. A negative d panics:
// callers that test clocks which jump back pass instants to a policy directly.
func (f *Fake) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: Advance by a negative duration") //nolint:forbidigo // a mistake in a test, which cannot go on
	}
	f.mu.Lock()
	end := f.now.Add(d)
	for len(f.timers) > 0 && !f.timers[0].due.After(end) {
		t := heap.Pop(&f.timers).(*fakeTimer)
		if t.due.After(f.now) {
			f.now = t.due
		}
		f.mu.Unlock()
		t.fn()
		f.mu.Lock()
	}
	if end.After(f.now) {
		f.now = end
	}
	f.mu.Unlock()
}

// Pending returns how many callbacks are waiting, so that a test can see that
// nothing was left behind.
func (f *Fake) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.timers)
}

type fakeTimer struct {
	clock  *Fake
	due    time.Time
	serial uint64
	index  int // in the heap; -1 when taken out
	fn     func()
}

// Stop implements [Timer].
func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if t.index < 0 {
		return false
	}
	heap.Remove(&t.clock.timers, t.index)
	return true
}

// timerHeap implements heap.Interface: the earliest first, then the oldest.
type timerHeap []*fakeTimer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].serial < h[j].serial
	}
	return h[i].due.Before(h[j].due)
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*fakeTimer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	t.index = -1
	*h = old[:len(old)-1]
	return t
}

package balancer

import (
	"sync/atomic"
	"time"
)

// failing knows whether the last attempts at an endpoint failed. Such an endpoint
// is avoided while there are others, before load is looked at, as in Finagle:
// failing is fast, and what is fast looks idle.
type failing struct {
	row   atomic.Uint32 // failures in a row
	until atomic.Uint32 // the tick until which the endpoint is avoided, 0 for not
}

// An endpoint is avoided for a second, and for twice as long with every further
// failure in a row. Then it gets a chance.
const (
	avoidFor     = uint32(time.Second / tick)
	avoidForMost = uint32(30 * time.Second / tick)
)

// failed counts a failure and returns how many there were in a row. Those that come
// while the endpoint is avoided do not count: they were under way together.
func (f *failing) failed(now uint32, pool *anyFailing) (row uint32) {
	before := f.until.Load()
	if before != 0 && until(before, now) > 0 {
		return f.row.Load()
	}
	row = min(f.row.Load()+1, 16)
	if next := now + min(avoidFor<<(row-1), avoidForMost); f.until.CompareAndSwap(before, next) {
		f.row.Store(row)
		pool.note(next, now)
	}
	return row
}

// takeOver goes on where another one was: an endpoint does not get better by a new
// policy. The instants are the same one, by the ticks of either.
func (f *failing) takeOver(old *failing, oldNow, now uint32, pool *anyFailing) {
	f.row.Store(old.row.Load())
	if left := until(old.until.Load(), oldNow); old.avoided(oldNow) {
		f.until.Store(now + left)
		pool.note(now+left, now)
	}
}

// succeeded ends what failed began.
func (f *failing) succeeded() {
	if f.row.Load() != 0 { // a store costs more than a look
		f.row.Store(0)
		f.until.Store(0)
	}
}

// avoided reports whether the endpoint is to be avoided.
func (f *failing) avoided(now uint32) bool {
	later := f.until.Load()
	return later != 0 && until(later, now) > 0
}

// anyFailing knows whether any endpoint of a pool is avoided, so that picks mostly
// need not look at each.
type anyFailing struct{ until atomic.Uint32 }

func (a *anyFailing) note(later, now uint32) {
	for {
		latest := a.until.Load()
		if latest != 0 && until(latest, now) >= later-now || a.until.CompareAndSwap(latest, later) {
			return
		}
	}
}

// now reports whether any endpoint may be avoided now.
func (a *anyFailing) now(now uint32) bool {
	latest := a.until.Load()
	if latest != 0 && until(latest, now) == 0 {
		a.until.CompareAndSwap(latest, 0)
		return false
	}
	return latest != 0
}

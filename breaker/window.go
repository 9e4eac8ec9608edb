package breaker

import (
	"sync/atomic"
	"time"
)

// Counts is what a breaker has counted.
type Counts struct {
	// Successes, Failures and Slow are the calls in the window: of the last 10s or so
	// many, as configured. A slow call is also one of the others. In the state
	// HalfOpen they are the probes that have ended. They are zero if no rate is
	// looked at.
	Successes, Failures, Slow int
	// ConsecutiveFailures is how many calls in a row have failed.
	ConsecutiveFailures int
	// Rejected is how many calls were refused since the state began, or would have
	// been in the mode MetricsOnly.
	Rejected uint64
}

// Calls returns how many calls are in the window.
func (c Counts) Calls() int { return c.Successes + c.Failures }

// FailureRate returns the part of the calls that failed, 0 if there are none.
func (c Counts) FailureRate() float64 { return rate(c.Failures, c.Calls()) }

// SlowRate returns the part of the calls that were slow, 0 if there are none.
func (c Counts) SlowRate() float64 { return rate(c.Slow, c.Calls()) }

func rate(part, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}

// window counts the calls of the recent past.
type window interface {
	// timed reports whether success must be told the time.
	timed() bool
	// success counts a call that was good and fast. It may be called concurrently
	// with everything else.
	success(at time.Duration)
	// add counts another call. Calls of it and of those below must not overlap.
	add(at time.Duration, failed, slow bool)
	// broke counts as failed what was counted as good shortly before.
	broke(at time.Duration, slow bool)
	// counts returns what is in the window.
	counts(at time.Duration) (successes, failures, slow int)
}

// newWindow returns the window of a configuration, nil if it needs none.
func newWindow(s *settings) window {
	switch {
	case !s.windows():
		return nil
	case s.WindowCalls > 0:
		return &countWindow{size: uint64(s.WindowCalls)}
	default:
		return &timeWindow{ticks: ticks{width: s.Window / buckets}}
	}
}

// buckets is how many ticks a window of time has. It slides by one of them.
const buckets = 10

// ticks divides time. It does not go back, also if the clock does, or if instants are handed
// in late.
type ticks struct {
	width  time.Duration // of a tick: a tenth of the window
	latest atomic.Int64
}

func (t *ticks) at(at time.Duration) int64 {
	tick := int64(at / t.width)
	for {
		latest := t.latest.Load()
		if tick <= latest {
			return latest
		}
		if t.latest.CompareAndSwap(latest, tick) {
			return tick
		}
	}
}

// tally counts something by tick, in buckets of one tick each, which are used again ten
// ticks later. It may be used concurrently.
type tally [buckets]atomic.Uint64 // tick in the upper half, modulo 2^32; count in the lower

const countMask = 1<<32 - 1

func (t *tally) add(clock *ticks, tick int64) {
	bucket := &t[tick%buckets]
	for {
		word := bucket.Load()
		had := uint32(word >> 32)
		// If the bucket is of a later tick, we had to wait for very long, and count there.
		late := int32(had-uint32(tick)) > 0 && int32(uint32(clock.latest.Load())-had) >= 0
		if had == uint32(tick) || late {
			if uint32(bucket.Add(1)>>32) == had {
				return
			}
			bucket.Add(^uint64(0)) // it was begun anew between the two
		} else if bucket.CompareAndSwap(word, uint64(tick)<<32|1) {
			return
		}
	}
}

// remove takes one out of what was counted for a tick, if there is any.
func (t *tally) remove(tick int64) bool {
	bucket := &t[tick%buckets]
	for word := bucket.Load(); uint32(word>>32) == uint32(tick) && word&countMask > 0; word = bucket.Load() {
		if bucket.CompareAndSwap(word, word-1) {
			return true
		}
	}
	return false
}

// takeBack takes one out of the latest tick that has any.
func (t *tally) takeBack(now int64) {
	for tick := now; tick > now-buckets && tick >= 0; tick-- {
		if t.remove(tick) {
			return
		}
	}
}

// count returns what was counted for a tick.
func (t *tally) count(tick int64) int {
	if word := t[max(tick, 0)%buckets].Load(); uint32(word>>32) == uint32(tick) {
		return int(word & countMask)
	}
	return 0
}

// sum returns what was counted in the ten ticks up to now.
func (t *tally) sum(now int64) (n int) {
	for i := range t {
		if word := t[i].Load(); uint32(now)-uint32(word>>32) < buckets {
			n += int(word & countMask)
		}
	}
	return n
}

// timeWindow counts the calls of a time.
type timeWindow struct {
	ticks     ticks
	successes tally
	others    [buckets]others
	past      past
}

// past is what was counted in the ticks of a window before the present one, which mostly
// does not change any more. (A success that took longer than a tick to be counted may be
// missing until the next one.)
type past struct {
	until                     int64 // the present tick, 0 if it must be counted anew
	successes, failures, slow int
}

// others are the calls of a tick that were not good and fast.
type others struct {
	tick               int64
	slowButGood        uint32
	failures, slowFail uint32
}

func (w *timeWindow) timed() bool { return true }

func (w *timeWindow) success(at time.Duration) { w.successes.add(&w.ticks, w.ticks.at(at)) }

func (w *timeWindow) add(at time.Duration, failed, slow bool) {
	tick := w.ticks.at(at)
	o := &w.others[tick%buckets]
	if o.tick != tick {
		*o = others{tick: tick}
	}
	switch {
	case failed && slow:
		o.failures++
		o.slowFail++
	case failed:
		o.failures++
	default:
		o.slowButGood++
	}
}

// broke takes the success from the latest bucket that has one: it was not long ago,
// and a bucket more or less is what the window is exact to.
func (w *timeWindow) broke(at time.Duration, slow bool) {
	w.past.until = 0
	if now := w.ticks.at(at); slow {
		w.takeBackSlow(now)
	} else {
		w.successes.takeBack(now)
	}
	w.add(at, true, slow)
}

func (w *timeWindow) takeBackSlow(now int64) {
	for tick := now; tick > now-buckets && tick >= 0; tick-- {
		if o := &w.others[tick%buckets]; o.tick == tick && o.slowButGood > 0 {
			o.slowButGood--
			return
		}
	}
}

func (w *timeWindow) counts(at time.Duration) (successes, failures, slow int) {
	now := w.ticks.at(at)
	if w.past.until != now {
		w.past = past{until: now}
		for tick := max(now-buckets+1, 0); tick < now; tick++ {
			w.past.count(w, tick)
		}
	}
	sum := w.past
	sum.count(w, now)
	return sum.successes, sum.failures, sum.slow
}

// count adds what was counted in a tick.
func (p *past) count(w *timeWindow, tick int64) {
	p.successes += w.successes.count(tick)
	if o := &w.others[tick%buckets]; o.tick == tick {
		p.successes += int(o.slowButGood)
		p.failures += int(o.failures)
		p.slow += int(o.slowButGood + o.slowFail)
	}
}

// countWindow counts the last so many calls. Calls are numbered, and only the numbers
// of those that were not good and fast are kept: the others are all that is between.
type countWindow struct {
	size   uint64
	calls  atomic.Uint64
	last   atomic.Uint64 // number of the last that was not good and fast
	failed recent
	slow   recent
}

func (w *countWindow) timed() bool { return false }

// success need not count where all calls of the window are successes, and will be.
func (w *countWindow) success(time.Duration) {
	if calls := w.calls.Load(); calls < w.size || calls-w.last.Load() < w.size {
		w.calls.Add(1)
	}
}

func (w *countWindow) add(_ time.Duration, failed, slow bool) {
	call := w.calls.Add(1)
	w.last.Store(call)
	if failed {
		w.failed.add(call)
	}
	if slow {
		w.slow.add(call)
	}
	w.forget(call)
}

// broke counts the latest call as the one that failed. That it was slow is counted already.
func (w *countWindow) broke(time.Duration, bool) {
	call := w.calls.Load()
	w.last.Store(call)
	w.failed.add(call)
}

func (w *countWindow) counts(time.Duration) (successes, failures, slow int) {
	calls := w.calls.Load()
	w.forget(calls)
	failures, slow = w.failed.size, w.slow.size
	return max(int(min(calls, w.size))-failures, 0), failures, slow
}

// forget drops what has left the window after so many calls.
func (w *countWindow) forget(calls uint64) {
	if calls > w.size {
		w.failed.forget(calls - w.size)
		w.slow.forget(calls - w.size)
	}
}

// recent is the numbers of some calls, in order: a ring that grows as needed.
type recent struct {
	ring        []uint64
	first, size int
}

func (r *recent) add(call uint64) {
	if r.size == len(r.ring) {
		bigger := make([]uint64, max(2*r.size, 8))
		n := copy(bigger, r.ring[r.first:])
		copy(bigger[n:], r.ring[:r.first])
		r.ring, r.first = bigger, 0
	}
	r.ring[(r.first+r.size)&(len(r.ring)-1)] = call
	r.size++
}

// forget drops the calls up to a number.
func (r *recent) forget(last uint64) {
	for r.size > 0 && r.ring[r.first] <= last {
		r.first = (r.first + 1) & (len(r.ring) - 1)
		r.size--
	}
}

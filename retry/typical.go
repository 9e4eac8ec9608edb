package retry

import (
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
)

// typical is about the median of the latencies of a target's good answers. It is looked at a
// few times a second only, and moves by a sixteenth up or down each time, so that a hot path
// hardly ever writes.
type typical struct {
	// The latency in microseconds in the upper 40 bits, and when it was written, in ticks of
	// 1<<tickShift nanoseconds, in the others.
	packed atomic.Uint64
}

const (
	tickShift = 26 // 67 ms
	tickBits  = 24
	tickMask  = 1<<tickBits - 1
)

// note takes a latency into account.
func (t *typical) note(took time.Duration, now time.Time) {
	tick := uint64(now.UnixNano()) >> tickShift & tickMask
	old := t.packed.Load()
	if old != 0 && old&tickMask == tick {
		return
	}
	micros := min(uint64(max(took, 0)/time.Microsecond), 1<<40-1)
	if old != 0 {
		before := old >> tickBits
		step := before/16 + 1
		switch {
		case micros > before:
			micros = min(before+step, micros)
		default:
			micros = max(before-min(step, before), micros)
		}
	}
	t.packed.CompareAndSwap(old, micros<<tickBits|tick) // whoever was faster has noted another one
}

// noteLight does that for the good answer of a light call, whose end nobody has noted: it looks
// at the clock only if it is of use.
func (t *typical) noteLight(l *call.Light) {
	if old := t.packed.Load(); old == 0 || old&tickMask != uint64(l.Started().UnixNano())>>tickShift&tickMask {
		now := l.Now()
		t.note(now.Sub(l.Started()), now)
	}
}

// latency returns it, 0 while nothing is known.
func (t *typical) latency() time.Duration {
	return time.Duration(t.packed.Load()>>tickBits) * time.Microsecond
}

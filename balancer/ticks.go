package balancer

import "time"

// ticks are instants in 32 bits, so that one fits into a word together with what
// was seen then. They wrap after 5 days; what is older is taken for fresher.
type ticks struct{ epoch time.Time }

// tick is the resolution of ticks.
const tick = 100 * time.Microsecond

// at returns the instant in ticks; it is never zero, which means "none".
func (t ticks) at(now time.Time) uint32 {
	return max(uint32(max(now.Sub(t.epoch), 0)/tick), 1)
}

// since returns the ticks from an earlier instant; a clock that went back is
// taken for one that stood still.
func since(earlier, now uint32) uint32 {
	if d := int32(now - earlier); d > 0 {
		return uint32(d)
	}
	return 0
}

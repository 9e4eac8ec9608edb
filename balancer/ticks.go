package balancer

import "time"

// ticks are instants in 32 bits, so that one fits into a word together with what
// was seen then. They wrap after 5 days: what is older is taken for fresher, so
// nothing may hang on an instant for long.
type ticks struct{ epoch time.Time }

// tick is the resolution of ticks.
const tick = 100 * time.Microsecond

// at returns the instant in ticks; it is never zero, which means "none".
func (t ticks) at(now time.Time) uint32 {
	return max(uint32(max(now.Sub(t.epoch), 0)/tick), 1)
}

// since returns the ticks from an earlier instant. One that is later by less than a
// few minutes comes from a clock that went back, or from another processor, and is
// taken for now.
func since(earlier, now uint32) uint32 {
	const back = uint32(10 * time.Minute / tick)
	if earlier-now < back {
		return 0
	}
	return now - earlier
}

// until returns the ticks to an instant at most a minute ahead, 0 if it has passed.
func until(later, now uint32) uint32 {
	if d := later - now; d <= uint32(time.Minute/tick) {
		return d
	}
	return 0
}

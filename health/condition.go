package health

import "time"

// State is what the probes of an endpoint have found out.
type State uint8

// The states.
const (
	// Unknown: no probe has ended yet, or too few have failed. The endpoint serves.
	Unknown State = iota
	// Healthy: the endpoint serves.
	Healthy
	// Unhealthy: the endpoint gets no traffic.
	Unhealthy
	// Withdrawn: the endpoint says that it is about to leave, and gets no new traffic.
	Withdrawn
)

var stateNames = [...]string{"unknown", "healthy", "unhealthy", "withdrawn"}

// String returns the name of the state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// finding is what one probe has found.
type finding uint8

const (
	good    finding = iota
	bad             // one failure, which may be chance
	down            // the endpoint says itself that it cannot serve
	leaving         // the endpoint says that it is about to leave
)

// alike reports whether two findings are of one row.
func (f finding) alike(o finding) bool {
	return f == o || (f != good && f != leaving && o != good && o != leaving)
}

// condition is what the probes of an endpoint have found out so far. Its zero value is that of an
// endpoint of which nothing is known.
type condition struct {
	state State
	last  finding // of the latest probe
	row   int     // how many probes in a row have found that
	downs int     // how many have failed since it is unhealthy, without a good one
}

// take notes what a probe has found. The state changes when Fall probes in a row have failed, or
// Rise have not; at once when the endpoint itself says what is to be done; and the first good
// probe is enough where nothing is known.
func (c *condition) take(f finding, s *Check) {
	if !f.alike(c.last) {
		c.row = 0
	}
	c.last = f
	c.row++
	switch {
	case f == leaving:
		c.state = Withdrawn
	case f == good && (c.state == Unknown || (c.state != Healthy && c.row >= s.Rise)):
		c.state = Healthy
	case f != good && (f == down || c.row >= s.Fall):
		c.state = Unhealthy
	}
	if c.state == Unhealthy && f != good {
		c.downs++
	} else {
		c.downs = 0
	}
}

// unsettled reports whether the next probes may change the state.
func (c *condition) unsettled() bool {
	switch c.state {
	case Unknown:
		return c.row > 0
	case Healthy:
		return c.last != good
	case Withdrawn:
		return c.last != leaving
	default:
		return c.last == good
	}
}

// wait returns after what time the next probe is due, without jitter: sooner while the state is
// changing; ever later while the endpoint stays down; seldom for a healthy one that nobody calls.
func (c *condition) wait(s *Check, idle bool) time.Duration {
	switch {
	case c.unsettled():
		return s.FastInterval
	case c.state == Unhealthy:
		d := s.DownInterval
		for range c.downs - 1 {
			if d >= s.MaxDownInterval/2 {
				return s.MaxDownInterval
			}
			d *= 2
		}
		return d
	case idle && s.IdleInterval > s.Interval:
		return s.IdleInterval
	default:
		return s.Interval
	}
}

package balancer

import (
	"math"
	"time"
)

// youngest is the age below which an endpoint in slow start gets no less than at
// that age.
const youngest = time.Second

// factor returns which part of its weight an endpoint has, this long after it
// joined. The formula is Envoy's.
func (s SlowStart) factor(age time.Duration) float64 {
	if s.Window <= 0 || age >= s.Window {
		return 1
	}
	share := math.Pow(float64(max(age, min(youngest, s.Window)))/float64(s.Window), 1/s.Aggression)
	return min(1, max(s.Floor, share))
}

// step is how often the weights are looked at while somebody is in slow start.
func (s SlowStart) step() time.Duration { return max(s.Window/30, 10*time.Millisecond) }

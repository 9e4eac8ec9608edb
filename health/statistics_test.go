package health

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// traffic is what the endpoints of a pool get in one interval, and how they are.
type traffic struct {
	requests []int
	rates    []float64 // of failures
	broken   int       // so many of the first are worse than the others
}

// evenTraffic is as many requests for each of n endpoints, of which the first ones are broken.
func evenTraffic(n, requests int, rate float64, broken int, brokenRate float64) traffic {
	f := traffic{broken: broken}
	for i := range n {
		f.requests = append(f.requests, requests)
		if i < broken {
			f.rates = append(f.rates, brokenRate)
		} else {
			f.rates = append(f.rates, rate)
		}
	}
	return f
}

// draw draws what they answer.
func (f traffic) draw(random *rand.Rand) []counted {
	list := make([]counted, len(f.requests))
	for i, n := range f.requests {
		list[i] = counted{uint64(n), binomial(random, n, f.rates[i])}
	}
	return list
}

// detector is a test for endpoints that are worse than the others. It sees one interval after the
// other, and names those that it has ejected by then.
type detector interface {
	reset()
	sees(list []counted) (out []bool)
}

// ours is the production test: counters of a monitor, and its sweep.
type ours struct {
	*Monitor
	members []*Member
	out     []bool
}

func newOurs(t *testing.T, n int, o Outlier) *ours {
	t.Helper()
	o.ConsecutiveFailures, o.LocalFailures = Off, Off
	w := newWard(t, Config{Outlier: o})
	d := &ours{Monitor: w.Monitor, out: make([]bool, n)}
	for i := range n {
		m, err := w.Add(discovery.Endpoint{Address: fmt.Sprintf("e%d:80", i)})
		require.NoError(t, err)
		d.members = append(d.members, m)
	}
	return d
}

func (d *ours) reset() {
	d.mu.Lock()
	defer d.unlock()
	for _, e := range d.members {
		d.returnLocked(e.watch, d.now())
		e.watch.level = 0
	}
}

func (d *ours) sees(list []counted) []bool {
	for i, c := range list {
		if w := d.members[i].watch; w.cause == "" {
			w.good[0].n.Add(c.requests - c.failures)
			w.bad.Add(c.failures)
		}
	}
	d.sweep()
	for i, e := range d.members {
		d.out[i] = e.watch.cause != ""
	}
	return d.out
}

// theirs is the success rate test of Envoy and of gRPC A50: who is below the mean by 1.9 standard
// deviations, among at least 5 with at least 100 requests.
type theirs struct{ out []bool }

func (d *theirs) reset() { clear(d.out) }

func (d *theirs) sees(list []counted) []bool {
	var rates []float64
	for i, c := range list {
		if !d.out[i] && c.requests >= 100 {
			rates = append(rates, 1-c.rate())
		}
	}
	if len(rates) < 5 {
		return d.out
	}
	mean, variance := 0.0, 0.0
	for _, r := range rates {
		mean += r / float64(len(rates))
	}
	for _, r := range rates {
		variance += (r - mean) * (r - mean) / float64(len(rates))
	}
	limit := mean - 1.9*math.Sqrt(variance)
	for i, c := range list {
		if c.requests >= 100 && 1-c.rate() < limit {
			d.out[i] = true
		}
	}
	return d.out
}

// figures are what a detector did in many trials of three intervals.
type figures struct {
	alarms float64 // part of first intervals in which somebody was ejected who was as good as others
	first  float64 // part of broken ones ejected in the first interval
	third  float64 // within three
}

func (f figures) String() string {
	return fmt.Sprintf("%7.4f %6.3f %6.3f", f.alarms, f.first, f.third)
}

func measure(d detector, f traffic, trials int, random *rand.Rand) (result figures) {
	for range trials {
		d.reset()
		alarmed := 0.0
		for interval := range 3 {
			out := d.sees(f.draw(random))
			found := 0.0
			for i, is := range out {
				switch {
				case is && i < f.broken:
					found += 1 / float64(f.broken)
				case is && interval == 0:
					alarmed = 1
				}
			}
			if interval == 0 {
				result.first += found / float64(trials)
			}
			if interval == 2 {
				result.third += found / float64(trials)
			}
			if f.broken == 0 {
				break // what matters has been seen
			}
		}
		result.alarms += alarmed / float64(trials)
	}
	return result
}

// tolerated is a probability with four standard errors of so many trials.
func tolerated(p float64, trials int) float64 { return p + 4*math.Sqrt(p*(1-p)/float64(trials)) }

// Given a healthy pool with 1 % of failures, then ejections are as rare as FalseAlarms says; the
// published test ejects somebody in most intervals.
func TestDeviation_HealthyPools(t *testing.T) {
	t.Parallel()
	const seed, trials = 21, 2000
	t.Logf("seed %d; part of %d intervals with a false ejection, at 1 %% of failures", seed, trials)
	t.Logf("%9s %8s %8s %8s", "endpoints", "requests", "ours", "theirs")
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{10, 30, 100} {
		for _, requests := range []int{50, 200, 1000} {
			f := evenTraffic(n, requests, 0.01, 0, 0)
			us := measure(newOurs(t, n, Outlier{Shadow: true}), f, trials, random)
			them := measure(&theirs{make([]bool, n)}, f, trials, random)
			t.Logf("%9d %8d %8.4f %8.4f", n, requests, us.alarms, them.alarms)
			assert.LessOrEqual(t, us.alarms, tolerated(0.001, trials), "%d endpoints with %d requests", n, requests)
			if requests >= 100 {
				assert.Greater(t, them.alarms, 0.3, "what is wrong with the published one")
				assert.Less(t, us.alarms, them.alarms/50)
			}
		}
	}
}

// Given broken endpoints, one, two or a third of all, then they are found; the published test does
// not find a third, however broken.
func TestDeviation_BrokenEndpoints(t *testing.T) {
	t.Parallel()
	const seed, trials = 22, 40
	t.Logf("seed %d; %d trials; false ejections in the first interval, found in the first, found within three", seed, trials)
	t.Logf("%9s %8s %6s %5s   %-21s   %s", "endpoints", "requests", "broken", "rate", "ours", "theirs")
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{10, 30, 100} {
		for _, requests := range []int{50, 200, 1000} {
			for _, broken := range []int{1, 2, n / 3} {
				for _, rate := range []float64{0.1, 0.2, 0.5, 1} {
					f := evenTraffic(n, requests, 0.01, broken, rate)
					us := measure(newOurs(t, n, Outlier{Shadow: true}), f, trials, random)
					them := measure(&theirs{make([]bool, n)}, f, trials, random)
					name := fmt.Sprintf("%9d %8d %6d %5.2f", n, requests, broken, rate)
					t.Logf("%s   %v   %v", name, us, them)
					assert.LessOrEqual(t, us.alarms, tolerated(0.001, trials), name)
					switch {
					case rate >= 0.5, requests >= 1000, requests >= 200 && rate >= 0.2:
						assert.Greater(t, us.first, 0.99, name)
					case requests >= 200 && n == 10, rate >= 0.2 && n == 10:
						assert.Greater(t, us.third, 0.7, name)
					}
					if broken == n/3 && rate >= 0.5 {
						assert.Less(t, them.first, 0.05, "what is wrong with the published one: %s", name)
					}
				}
			}
		}
	}
}

// FalseAlarms is how likely it is that anybody is ejected in an interval in which all are equally
// good: however few they are, however often all fail, and however the requests are spread.
func TestDeviation_FalseAlarmsAreAsRareAsSaid(t *testing.T) {
	t.Parallel()
	const seed, trials = 23, 2000
	t.Logf("seed %d; part of %d intervals with a false ejection", seed, trials)
	random := rand.New(rand.NewPCG(seed, 0))
	check := func(name string, f traffic, said float64) {
		us := measure(newOurs(t, len(f.requests), Outlier{Shadow: true, FalseAlarms: said, MaxEjected: 1}), f, trials, random)
		t.Logf("%-60s said %6.4f  seen %6.4f", name, said, us.alarms)
		assert.LessOrEqual(t, us.alarms, tolerated(said, trials), name)
	}
	for _, n := range []int{2, 3, 5, 10, 30} {
		for _, rate := range []float64{0.03, 0.1, 0.3} {
			for _, requests := range []int{50, 200} {
				check(fmt.Sprintf("%d endpoints with %d requests, of which %g fail", n, requests, rate), evenTraffic(n, requests, rate, 0, 0), 0.001)
			}
		}
	}
	check("30 endpoints with 100 requests, of which 0.1 fail", evenTraffic(30, 100, 0.1, 0, 0), 0.05)
	for _, rate := range []float64{0.03, 0.1, 0.3} {
		uneven := evenTraffic(2, 1000, rate, 0, 0)
		uneven.requests[1] = 60
		check(fmt.Sprintf("one with 1000 requests, one with 60, of which %g fail", rate), uneven, 0.001)
		uneven = evenTraffic(10, 60, rate, 0, 0)
		uneven.requests[0] = 5000
		check(fmt.Sprintf("one with 5000 requests, nine with 60, of which %g fail", rate), uneven, 0.001)
	}
}

// The same through the front door, on a clock: all that has been seen is judged when the interval
// is over.
func TestDeviation_ByAnswers_B08(t *testing.T) {
	t.Parallel()
	const seed, n, requests = 24, 12, 200
	t.Logf("seed %d", seed)
	for _, broken := range []int{0, 1, 2, 4} {
		random := rand.New(rand.NewPCG(seed, uint64(broken)))
		w := newWard(t, Config{Outlier: Outlier{ConsecutiveFailures: Off, LocalFailures: Off}})
		for i := range n {
			w.join(fmt.Sprint("e", i))
		}
		isOut := func(i int) bool { return !w.members[fmt.Sprint("e", i)].Available() }
		for range 3 {
			for i := range n {
				rate := 0.01
				if i < broken {
					rate = 0.3
				}
				for range requests {
					a := ok200
					if random.Float64() < rate {
						a = err500
						if random.IntN(2) == 0 {
							a = lostIt
						}
					}
					w.answers(fmt.Sprint("e", i), 1, a)
				}
			}
			w.fake.Advance(10*second - 1)
			for i := range n {
				if len(w.told) == 0 {
					require.False(t, isOut(i))
				}
			}
			w.fake.Advance(1)
			for i := range n {
				require.Equal(t, i < broken, isOut(i), "%d of %d", i, broken)
			}
		}
		for _, c := range w.told {
			require.Equal(t, Deviation, c.Cause)
		}
		require.Len(t, w.told, broken)
		w.checkEvents()
	}
}

package balancer

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Refusing is faster than serving, and as little of a reason to come.
func TestOverload_FastAttractsNothing_B02(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 2), 1, 1, 1, 1)
			got := load{40000, time.Millisecond, func(i int, _ time.Duration) (time.Duration, outcome.Class) {
				if i == 0 {
					return time.Millisecond, outcome.Overload
				}
				return 50 * time.Millisecond, outcome.Success
			}}.run(p, c)
			assert.Positive(t, got[0], "it gets its chances")
			assert.Less(t, got[0], 30, "%v", got)
		})
	}
}

// Ten requests that fail when a connection breaks are one failure, not ten in a row.
func TestFailing_TogetherCountAsOne_B11(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 1), 1, 1, 1)
			for i := range c {
				answered(c[i], epoch, 10*time.Millisecond, outcome.Success)
			}
			for range 10 {
				answered(c[0], epoch, 5*time.Millisecond, outcome.Failure)
			}
			first := time.Duration(-1)
			load{4000, 10 * time.Millisecond, func(i int, at time.Duration) (time.Duration, outcome.Class) {
				if i == 0 && first < 0 {
					first = at
				}
				return 9 * time.Millisecond, outcome.Success
			}}.run(p, c)
			assert.GreaterOrEqual(t, first, time.Second)
			assert.Less(t, first, 1500*time.Millisecond)
		})
	}
}

// Given three endpoints that restart one after the other, each with what it has in
// flight, then each is back to its share seconds after.
func TestFailing_RollingRestart_B11(t *testing.T) {
	const downFor = 500 * time.Millisecond
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 1), 1, 1, 1)
			var perSecond [40][3]int
			load{20000, 2 * time.Millisecond, func(i int, at time.Duration) (time.Duration, outcome.Class) {
				perSecond[at/time.Second][i]++
				down := time.Duration(5+10*i) * time.Second
				switch {
				case at < down && at+40*time.Millisecond > down:
					return down - at, outcome.Failure // it breaks off
				case at >= down && at < down+downFor:
					return time.Millisecond, outcome.NeverSent
				}
				return 40 * time.Millisecond, outcome.Success
			}}.run(p, c)
			for i := range c {
				back := 5 + 10*i + 1 // the first whole second
				served := 0
				for s := back; s < back+5; s++ {
					served += perSecond[s][i]
				}
				assert.Positive(t, served, "endpoint %d serves within 5 s", i)
				assert.InDelta(t, 500./3, perSecond[back+5][i], 500./6, "endpoint %d has its share after that: %v", i, perSecond)
			}
		})
	}
}

// What was seen before a weekend has no say after it. Half of the time in which
// ticks wrap is 59.7 h.
func TestTicks_SilenceOfDaysForgets(t *testing.T) {
	for _, a := range avoiding {
		for _, silence := range []time.Duration{time.Hour, 61 * time.Hour, 100 * time.Hour} {
			for _, row := range []struct {
				name  string
				took  time.Duration
				class outcome.Class
			}{
				{"failure", time.Millisecond, outcome.Failure},
				{"slow answer", 5 * time.Second, outcome.Success},
			} {
				t.Run(fmt.Sprintf("%T %s %v", a, row.name, silence), func(t *testing.T) {
					p, fake := fakePool(t, Config{Algorithm: a}, in(0, 2)...)
					attempts(t, p, 50)
					pick := mustPick(t, p, Info{Now: p.now()})
					fake.Advance(row.took)
					pick.Answered(outcome.Answer{Now: p.now(), Took: row.took, Class: row.class})
					pick.Done()
					fake.Advance(silence)
					const n = 400
					got := 0
					for range n { // more than an hour
						next := mustPick(t, p, Info{Now: p.now()})
						if next.Serial() == pick.Serial() {
							got++
						}
						fake.Advance(10 * time.Second)
						finish(p, next)
					}
					assertShare(t, 0.5, got, n)
				})
			}
		}
	}
}

func TestTicks_AroundTheWrap(t *testing.T) {
	const (
		last   = math.MaxUint32
		minute = uint32(time.Minute / tick)
		hour   = 60 * minute
	)
	for _, row := range []struct {
		name         string
		before, now  uint32
		since, until uint32 // from before to now, and from now to before
	}{
		{"the same", 100, 100, 0, 0},
		{"a little ago", 100, 150, 50, 0},
		{"a little ahead: the clock went back", 150, 100, 0, 50},
		{"over the wrap", last - 9, 10, 20, 0},
		{"ahead over the wrap", 10, last - 9, 0, 20},
		{"a minute ahead", 1 + minute, 1, 0, minute},
		{"more than a minute ahead", 2 + minute, 1, 0, 0},
		{"nearly ten minutes ahead", 10 * minute, 1, 0, 0},
		{"an hour ago", last - hour + 2, 1, hour, 0},
		{"59 h ago", 1, 1 + 59*hour, 59 * hour, 0},
		{"61 h ago", 1, 1 + 61*hour, 61 * hour, 0},
		{"61 h ago over the wrap", last - hour, 60*hour - 1, 61 * hour, 0},
		{"100 h ago", 1, 1 + 100*hour, 100 * hour, 0},
		{"119 h ago", 1, 1 + 119*hour, 119 * hour, 0},
	} {
		assert.Equal(t, row.since, since(row.before, row.now), "since: %s", row.name)
		assert.Equal(t, row.until, until(row.before, row.now), "until: %s", row.name)
	}
}

// A clock that goes back a little neither ends what failed nor makes it last.
func TestTicks_ClockGoesBack(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 1), 1, 1)
			at := epoch.Add(time.Hour)
			for i := range c {
				answered(c[i], at, 10*time.Millisecond, outcome.Success)
			}
			answered(c[0], at, 10*time.Millisecond, outcome.Failure)
			for _, back := range []time.Duration{0, time.Second, 10 * time.Second} {
				for range 20 {
					assert.Equal(t, 1, p.Pick(Info{Now: at.Add(-back)}), "%v back", back)
				}
			}
			got := [2]int{}
			for range 1000 {
				got[p.Pick(Info{Now: at.Add(2 * time.Second)})]++
			}
			assert.Positive(t, got[0])
		})
	}
}

// deaf learns nothing.
type deaf struct{}

func (deaf) Picked(time.Time) uint32         { return 0 }
func (deaf) Answered(uint32, outcome.Answer) {}

// meanPeak returns the mean of the highest number of requests at one of ten
// endpoints, at 1000 requests a second of about 50 ms of which a part fails.
func meanPeak(t *testing.T, a Algorithm, failing float64) float64 {
	t.Helper()
	p, c := picker(t, a, seeded(t, 1), 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for i := range c {
		if c[i].observer == nil {
			c[i].observer = deaf{}
		}
	}
	random := rand.New(rand.NewPCG(1, 3))
	sum, n := 0.0, 0
	load{30000, time.Millisecond, func(_ int, at time.Duration) (time.Duration, outcome.Class) {
		if at > 5*time.Second {
			most := int64(0)
			for i := range c {
				most = max(most, c[i].InFlight())
			}
			sum += float64(most)
			n++
		}
		class := outcome.Success
		if random.Float64() < failing {
			class = outcome.Failure
		}
		return 40*time.Millisecond + time.Duration(random.Int64N(int64(20*time.Millisecond))), class
	}}.run(p, c)
	return sum / float64(n)
}

// Given services of which one answer in a hundred is an error, and there are many,
// then traffic does not run from one endpoint to the other.
func TestPeakEWMA_OrdinaryErrorsMoveLittle(t *testing.T) {
	calm, failing, random := meanPeak(t, PeakEWMA{}, 0), meanPeak(t, PeakEWMA{}, 0.01), meanPeak(t, Random{}, 0.01)
	t.Logf("without errors %.1f, with %.1f, at random %.1f", calm, failing, random)
	assert.LessOrEqual(t, failing, 1.5*calm)
	assert.Less(t, failing, random)
}

// secondAttempts returns where n attempts go that follow on an attempt at that
// address, which is still in flight. In between, up to so many other calls begin
// and end: what is alone picks in lockstep with [RoundRobin].
func secondAttempts(t *testing.T, p *Pool, first string, n, between int) map[string]int {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 4))
	got := map[string]int{}
	for n > 0 {
		pick := mustPick(t, p, Info{Now: p.now()})
		if pick.Endpoint().Address == first {
			attempts(t, p, random.IntN(between))
			second := mustPick(t, p, Info{Now: p.now(), Tried: []uint64{pick.Serial()}})
			got[second.Endpoint().Address]++
			finish(p, second)
			n--
		}
		finish(p, pick)
	}
	return got
}

// When an endpoint fails, its requests do not all go to the same other one.
func TestPick_SecondAttemptsSpread_R17(t *testing.T) {
	const seconds = 3000
	check := func(t *testing.T, got map[string]int, n int) {
		t.Helper()
		assert.Len(t, got, n)
		for address, k := range got {
			assert.LessOrEqual(t, k, 2*seconds/n, "%s: %v", address, got)
		}
	}
	for _, a := range []Algorithm{PeakEWMA{}, LeastRequest{}, RoundRobin{}} {
		for _, n := range []int{4, 10} {
			t.Run(fmt.Sprintf("%T of %d", a, n), func(t *testing.T) {
				p, _ := fakePool(t, Config{Algorithm: a}, in(0, n)...)
				check(t, secondAttempts(t, p, "p0-0:80", seconds, n), n-1)
			})
		}
		t.Run(fmt.Sprintf("%T with zones", a), func(t *testing.T) {
			p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Zones: Zones{
				Local: "a", Clients: map[string]float64{"a": 1, "b": 100, "c": 100},
			}}}, inZones(1, 4, 4)...)
			check(t, secondAttempts(t, p, "a-0:80", seconds, 9), 8)
		})
	}
}

// Streams that are open when the policy changes are no reason to wait for answers.
func TestUse_WithOpenStreams_P01(t *testing.T) {
	for _, n := range []int{4, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p, fake := fakePool(t, Config{Algorithm: RoundRobin{}}, in(0, n)...)
			for range n {
				mustPick(t, p, Info{Now: p.now()}).Answered(outcome.Answer{Now: p.now(), Took: time.Millisecond, Class: outcome.Success})
			}
			require.NoError(t, p.Use(PeakEWMA{}, Rules{}))
			const calls = 4000
			got := map[string]int{}
			for range calls {
				pick := mustPick(t, p, Info{Now: p.now()})
				got[pick.Endpoint().Address]++
				fake.Advance(5 * time.Millisecond)
				pick.Answered(outcome.Answer{Now: p.now(), Took: 5 * time.Millisecond, Class: outcome.Success})
				pick.Done()
			}
			assert.Len(t, got, n)
			for address, k := range got {
				assert.InDelta(t, calls/n, k, 0.5*calls/float64(n), "%s: %v", address, got)
			}
		})
	}
}

// Given that nine of ten endpoints are replaced at once, then the one that stays does
// not have to carry all while the others warm up.
func TestSlowStart_SurvivorOfARollout_B04(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin{}, Random{}} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, fake := fakePool(t, Config{Algorithm: a}, in(0, 10)...)
			fake.Advance(time.Minute)
			attempts(t, p, 100)
			p.update(append(in(0, 1), in(0, 19)[10:]...))
			for range 35 {
				const n = 2000
				got := attempts(t, p, n)
				most := 0.2 * n
				assert.LessOrEqual(t, float64(got["p0-0:80"]), most+5*math.Sqrt(most), "a fifth, give or take five standard deviations")
				fake.Advance(time.Second)
			}
			for address, weight := range weightsOf(p) {
				assert.InDelta(t, 1, weight, 1e-9, address)
			}
		})
	}
}

// In panic the ill get traffic: they are warm when it ends.
func TestSlowStart_NotAfterPanic_B04(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			endpoints := in(0, 3)
			p, fake := fakePool(t, Config{Algorithm: a}, endpoints...)
			fake.Advance(time.Minute)
			judge(t, p, false, endpoints[:2]...)
			require.True(t, p.Status().Panic)
			assert.Len(t, attempts(t, p, 300), 3)
			judge(t, p, true, endpoints[0])
			require.False(t, p.Status().Panic)
			assert.Equal(t, map[string]float64{"p0-0:80": 1, "p0-2:80": 1}, weightsOf(p))
			assertShare(t, 0.5, attempts(t, p, 300)["p0-0:80"], 300)
		})
	}
}

// A report that is wrong does not bring an endpoint all of the traffic, nor take it.
func TestLoadWeighted_AbsurdReport(t *testing.T) {
	for _, row := range []struct {
		name, report string
		repeat       bool
	}{
		{"once", "TEXT rps_fractional=1e300,application_utilization=1e-300", false},
		{"always", "TEXT rps_fractional=1e300,application_utilization=1e-300", true},
		{"tiny", "TEXT rps_fractional=1e-300,application_utilization=1", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			build, c := loadWeighted(t, LoadWeighted{}, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
			least, most := math.Inf(1), 0.0
			for s := range 60 {
				at := time.Duration(s) * time.Second
				for i := range c {
					if i == 0 && (s == 0 || row.repeat) {
						answeredWith(c[i], at, outcome.Success, row.report)
					} else if i > 0 {
						weighs(c[i], at, 200)
					}
				}
				got := shares(build(at+time.Second), len(c))
				others := slices.Sorted(slices.Values(got[1:]))
				relative := got[0] / others[len(others)/2]
				least, most = min(least, relative), max(most, relative)
			}
			assert.LessOrEqual(t, most, 10.5, "of the median")
			assert.GreaterOrEqual(t, least, 1/10.5, "of the median")
		})
	}
}

// Given a key function of the user that panics while a pick waits, then the one who
// called gets the panic, and the pool goes on.
func TestQueue_KeyFunctionPanics(t *testing.T) {
	endpoints, route := versions("canary")
	for _, row := range []struct {
		name string
		cfg  func(f func(*http.Request) string) Config
	}{
		{"algorithm", func(f func(*http.Request) string) Config {
			return Config{Algorithm: Maglev{Keys: []HashKey{{Func: f}}, TableSize: 251}}
		}},
		{"route", func(f func(*http.Request) string) Config {
			with := route
			with.From = []HashKey{{Func: f}}
			return Config{Rules: Rules{Routes: []Route{with}}}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				boom := false
				cfg := row.cfg(func(*http.Request) string {
					if boom {
						panic("the user's")
					}
					return "canary"
				})
				cfg.Rules.MaxInFlight, cfg.Rules.Queue = 1, Queue{Timeout: time.Hour}
				p := testPool(t, cfg, endpoints...)
				l := newLine(t, p)
				info := asksFor("canary")
				held := mustPick(t, p, info)
				l.join(t.Context(), "waits", info)
				l.none()
				boom = true
				assert.PanicsWithValue(t, "the user's", func() { _, _ = p.PickWait(context.Background(), info) })
				assert.Equal(t, 1, p.Status().Waiting)
				boom = false

				held.Done()
				waited := l.one()
				require.NoError(t, waited.err)
				waited.Done()
				for range 3 {
					mustPick(t, p, info).Done()
				}
				l.join(t.Context(), "after", info)
				after := l.one()
				require.NoError(t, after.err)
				after.Done()
				assert.Zero(t, inFlight(p))
				assert.Zero(t, p.Status().Waiting)
			})
		})
	}
}

// With few requests there is nothing in flight to compare, and still weights count.
func TestPeakEWMA_WeightsAtLowLoad_B07(t *testing.T) {
	p, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 10)
	const calls = 1200
	got := load{calls, 100 * time.Millisecond, steady(1, 40*time.Millisecond, 60*time.Millisecond)}.run(p, c)
	assert.Positive(t, got[0])
	assert.LessOrEqual(t, got[0], calls/4, "by weight it would be an eleventh")
}

// Given standbys that are healthy, then nobody who is ill is used because too few
// others are well.
func TestStandby_BeforeTheIll_B09(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			standbys := in(1, 10)
			for i := range standbys {
				standbys[i].Standby = true
			}
			primaries := in(0, 10)
			p, _ := fakePool(t, Config{Algorithm: a}, slices.Concat(primaries, standbys)...)
			judge(t, p, false, primaries[1:]...)
			got := attempts(t, p, 2000)
			assert.Positive(t, got[primaries[0].Address])
			for _, e := range primaries[1:] {
				assert.Zero(t, got[e.Address], "%s is ill", e.Address)
			}
			assert.Len(t, got, 11, "one primary, and all standbys: %v", got)
			judge(t, p, true, primaries...)
			for address := range attempts(t, p, 200) {
				assert.True(t, slices.ContainsFunc(primaries, func(e discovery.Endpoint) bool { return e.Address == address }), "standbys rest: %s", address)
			}
		})
	}
}

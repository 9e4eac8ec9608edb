package health

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// judged is the settings of tests that are about sweeps only.
func judged(o Outlier) Outlier {
	o.ConsecutiveFailures, o.LocalFailures = Off, Off
	return o
}

// some is so many answers of an endpoint, of which some have failed, with the failures spread.
func (w *ward) some(name string, n, failures int) {
	w.Helper()
	for i := range n {
		a := ok200
		if (i+1)*failures/n > i*failures/n {
			a = err500
		}
		w.answers(name, 1, a)
	}
}

// The sweep comes one Interval after the first request, goes on as long as there is traffic, and
// leaves no timer when there is none.
func TestSweep_ComesWithTraffic(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{Interval: 4 * second})}, "a", "b", "c")
	require.Zero(t, w.fake.Pending(), "nobody calls")
	w.at(time.Hour)
	for range 3 {
		w.some("a", 100, 100)
		w.some("b", 100, 0)
		w.answers("c", 1, ok200)
		require.Equal(t, 1, w.fake.Pending())
		w.fake.Advance(4*second - 1)
		require.Empty(t, w.out())
		w.fake.Advance(1)
		require.Equal(t, "a: deviation", w.out())
		w.fake.Advance(time.Hour)
		require.Zero(t, w.fake.Pending())
		require.Empty(t, w.out())
	}
	w.answers("a", 1, gaveUp)
	assert.LessOrEqual(t, w.fake.Pending(), 1)
	w.fake.Advance(8 * second)
	assert.Zero(t, w.fake.Pending())
}

// Each interval is judged by itself.
func TestSweep_IntervalsAreApart(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{})}, "a", "b", "c")
	for range 50 {
		w.some("a", 100, 4) // in two intervals it would be too many
		w.some("b", 1000, 0)
		w.fake.Advance(10 * second)
		require.Empty(t, w.out())
	}
	w.some("a", 100, 20)
	w.some("b", 1000, 0)
	w.fake.Advance(10 * second)
	assert.Equal(t, "a: deviation", w.out())
}

// Endpoints are compared with those of their own priority.
func TestSweep_TiersAreApart(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name         string
		a, b, others discovery.Endpoint
		want         string
	}{
		{"one tier", discovery.Endpoint{}, discovery.Endpoint{}, discovery.Endpoint{}, "a: deviation"},
		{"a worse tier", discovery.Endpoint{Priority: 1}, discovery.Endpoint{Priority: 1}, discovery.Endpoint{}, ""},
		{"standbys", discovery.Endpoint{Standby: true}, discovery.Endpoint{Standby: true, Priority: 3}, discovery.Endpoint{}, ""},
		{"standbys are no tier of a number", discovery.Endpoint{Priority: 2}, discovery.Endpoint{Priority: 2}, discovery.Endpoint{Standby: true, Priority: 2}, ""},
		{"a tier of its own", discovery.Endpoint{Priority: 1}, discovery.Endpoint{}, discovery.Endpoint{}, ""},
	} {
		w := newWard(t, Config{Outlier: judged(Outlier{})})
		for i, e := range []discovery.Endpoint{row.others, row.a, row.others, row.b, row.others} {
			name := []string{"c", "a", "d", "b", "e"}[i]
			e.Address = name + ":80"
			w.joinAs(name, e)
		}
		w.some("a", 100, 30)
		if row.a.Priority == row.b.Priority || row.b.Standby {
			w.some("b", 100, 30)
		}
		if row.want != "" {
			w.some("b", 100, 0)
		}
		for _, name := range []string{"c", "d", "e"} {
			w.some(name, 200, 0)
		}
		w.fake.Advance(10 * second)
		if row.want != "" {
			assert.Contains(t, w.out(), row.want, row.name)
		} else {
			assert.Empty(t, w.out(), row.name)
		}
	}
}

// The worst comes first when not all can be ejected, and a large part that is bad does not hide.
func TestSweep_WorstFirst_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{MaxEjected: 0.25})}, "a", "b", "c", "d", "e", "f", "g", "h")
	for i, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		w.some(name, 200, []int{60, 0, 100, 0, 80, 0, 0, 0}[i])
	}
	w.fake.Advance(10 * second)
	assert.Equal(t, "c: deviation, e: deviation", w.out())

	w = newWard(t, Config{Outlier: judged(Outlier{})}, "a", "b", "c", "d", "e", "f", "g", "h")
	for i, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		w.some(name, 200, []int{200, 200, 200, 0, 0, 0, 0, 0}[i])
	}
	w.fake.Advance(10 * second)
	assert.Equal(t, "a: deviation, b: deviation, c: deviation", w.out())

	w = newWard(t, Config{Outlier: judged(Outlier{})}, "a", "b", "c", "d")
	for range 20 {
		for _, name := range []string{"a", "b", "c", "d"} {
			w.some(name, 200, 200)
		}
		w.fake.Advance(10 * second)
		require.Empty(t, w.out(), "where all fail, nobody is worse")
	}
}

// FailureRate looks at no others.
func TestSweep_FailureRate(t *testing.T) {
	t.Parallel()
	type pool [6][2]int // requests and failures
	rate := judged(Outlier{FailureRate: 0.5, Deviation: Off})
	all := [2]int{50, 25}
	for _, row := range []struct {
		name string
		o    Outlier
		pool pool
		want int
	}{
		{"as bad as may be", rate, pool{all, {50, 0}, {50, 0}, {50, 0}, {50, 0}}, 1},
		{"a bit better", rate, pool{{50, 24}, {50, 0}, {50, 0}, {50, 0}, {50, 0}}, 0},
		{"too few requests", rate, pool{{49, 49}, {50, 0}, {50, 0}, {50, 0}, {50, 0}, {50, 0}}, 0},
		{"too few endpoints", rate, pool{all, {50, 0}, {50, 0}, {50, 0}}, 0},
		{"too few with enough requests", rate, pool{all, {50, 0}, {50, 0}, {50, 0}, {49, 0}, {49, 0}}, 0},
		{"all, up to the cap", rate, pool{all, all, all, all, all, all}, 3},
		{"off", judged(Outlier{Deviation: Off}), pool{all, all, {50, 0}, {50, 0}, {50, 0}}, 0},
		{"all of them", judged(Outlier{FailureRate: 1, Deviation: Off}), pool{{50, 50}, {50, 49}, {50, 0}, {50, 0}, {50, 0}}, 1},
		{"a low one", judged(Outlier{FailureRate: 0.05, Deviation: Off}), pool{{50, 5}, {60, 4}, {60, 3}, {50, 2}, {50, 0}, {50, 0}}, 3},
		{"the lowest", judged(Outlier{FailureRate: 0.01, Deviation: Off}), pool{{50, 1}, {50, 0}, {50, 0}, {50, 0}, {50, 0}, {50, 0}}, 1},
	} {
		w := newWard(t, Config{Outlier: row.o})
		for i, c := range row.pool {
			name := fmt.Sprint("e", i)
			w.join(name)
			if c[0] > 0 {
				w.some(name, c[0], c[1])
			}
		}
		w.fake.Advance(10 * second)
		assert.Equal(t, row.want, w.countOut(), row.name)
		for _, c := range w.told {
			assert.Equal(t, FailureRate, c.Cause, row.name)
		}
	}
}

// What an endpoint answered before it was ejected counts no more when it is back.
func TestSweep_RestartsOnReturn_B11(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{EjectFor: second, MaxEjectFor: second})}, "a", "b", "c")
	w.some("a", 100, 100)
	w.some("b", 1000, 0)
	w.at(10 * second)
	require.Equal(t, "a: deviation", w.out())
	w.some("a", 100, 100) // under way when it was ejected
	w.some("b", 1000, 0)
	w.at(11 * second)
	require.Empty(t, w.out())
	w.answers("a", 100, took(2*second, err500)) // as well
	w.at(20 * second)
	require.Empty(t, w.out(), "the interval of the return")
	w.some("a", 100, 100)
	w.some("b", 1000, 0)
	w.at(30 * second)
	require.Equal(t, "a: deviation", w.out(), "again by as much")
}

// slowly answers so many requests of an endpoint, each in about that time.
func (w *ward) slowly(name string, n int, d time.Duration) {
	w.Helper()
	for i := range n {
		w.answers(name, 1, took(d*time.Duration(90+i*20/n)/100, ok200))
	}
}

// Given endpoints that are slower than most by a factor and by a time, then they are ejected.
func TestSlowness_Pools_B08(t *testing.T) {
	t.Parallel()
	type pool []struct {
		n int
		d time.Duration
	}
	for _, row := range []struct {
		name string
		o    Outlier
		pool pool
		want string
	}{
		{"slower three times", Outlier{SlowerBy: 3}, pool{{100, 400 * ms}, {100, 100 * ms}, {100, 100 * ms}}, "a"},
		{"not by so much", Outlier{SlowerBy: 3}, pool{{100, 250 * ms}, {100, 100 * ms}, {100, 100 * ms}}, ""},
		{"by a factor, but not by a time", Outlier{SlowerBy: 3}, pool{{100, 44 * ms}, {100, 4 * ms}, {100, 4 * ms}}, ""},
		{"by a lesser time", Outlier{SlowerBy: 3, SlowerByTime: 20 * ms}, pool{{100, 44 * ms}, {100, 4 * ms}, {100, 4 * ms}}, "a"},
		{"by a time, but not by a factor", Outlier{SlowerBy: 3}, pool{{100, 5 * second}, {100, 2 * second}, {100, 2 * second}}, ""},
		{"by a lesser factor", Outlier{SlowerBy: 1.5}, pool{{100, 5 * second}, {100, 2 * second}, {100, 2 * second}}, "a"},
		{"too few answers", Outlier{SlowerBy: 3}, pool{{99, second}, {100, 100 * ms}, {100, 100 * ms}, {100, 100 * ms}}, ""},
		{"too few endpoints", Outlier{SlowerBy: 3}, pool{{100, second}, {100, 100 * ms}}, ""},
		{"too few with enough answers", Outlier{SlowerBy: 3}, pool{{100, second}, {100, 100 * ms}, {99, 100 * ms}}, ""},
		{"off", Outlier{}, pool{{100, second}, {100, 100 * ms}, {100, 100 * ms}}, ""},
		{"half of them", Outlier{SlowerBy: 3}, pool{{100, second}, {100, 900 * ms}, {100, 100 * ms}, {100, 100 * ms}}, "a, b"},
		{"more than half of them", Outlier{SlowerBy: 3}, pool{{100, second}, {100, second}, {100, second}, {100, 100 * ms}, {100, 100 * ms}}, ""},
		{"the slowest first", Outlier{SlowerBy: 3, MaxEjected: 0.4}, pool{{100, 800 * ms}, {100, 2 * second}, {100, 900 * ms}, {100, 100 * ms}, {100, 100 * ms}, {100, 100 * ms}, {100, 100 * ms}}, "b, c"},
		{"longer than anything", Outlier{SlowerBy: 3}, pool{{100, 10 * time.Hour}, {100, second}, {100, second}}, "a"},
		{"faster than a unit", Outlier{SlowerBy: 3}, pool{{100, 30 * time.Microsecond}, {100, time.Microsecond}, {100, 0}}, ""},
	} {
		w := newWard(t, Config{Outlier: row.o})
		for i, p := range row.pool {
			name := string(rune('a' + i))
			w.join(name)
			w.slowly(name, p.n, p.d)
		}
		w.fake.Advance(10*second - 1)
		require.Empty(t, w.out(), row.name)
		w.fake.Advance(1)
		want := ""
		for _, c := range row.want {
			if c >= 'a' {
				if want != "" {
					want += ", "
				}
				want += string(c) + ": slower"
			}
		}
		assert.Equal(t, want, w.out(), row.name)
	}
}

// Only answers are looked at that say how long it takes: no failures, which may be fast or slow,
// and no 429, which is fast because nothing was done.
func TestSlowness_WhatIsASample(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		a    outcome.Answer
		want bool
	}{
		{"200", ok200, true},
		{"404", not404, true},
		{"500", err500, false},
		{"503 with Retry-After", busy503, false},
		{"429", busy429, false},
		{"no answer", lostIt, false},
		{"cancelled", gaveUp, false},
		{"superseded", hedged, false},
	} {
		w := newWard(t, Config{Outlier: judged(Outlier{SlowerBy: 3, Deviation: Off})}, "a", "b", "c")
		w.slowly("b", 150, 100*ms)
		w.slowly("c", 150, 100*ms)
		w.answers("a", 150, took(second, row.a))
		w.fake.Advance(10 * second)
		assert.Equal(t, row.want, w.out() != "", row.name)
	}
}

// What was slow before the return is forgotten, and what was fast long ago, too.
func TestSlowness_Forgets_B11(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{SlowerBy: 3, EjectFor: 12 * second, MaxEjectFor: 12 * second, Jitter: Off}}, "a", "b", "c")
	others := func() {
		w.slowly("b", 150, 100*ms)
		w.slowly("c", 150, 100*ms)
	}
	w.slowly("a", 400, second)
	others()
	w.fake.Advance(10 * second)
	require.Equal(t, "a: slower", w.out())
	w.slowly("a", 400, 2*second) // under way when it was ejected
	w.fake.Advance(12 * second)
	require.Empty(t, w.out())
	for range 5 {
		w.slowly("a", 150, 100*ms)
		others()
		w.fake.Advance(10 * second)
		require.Empty(t, w.out(), "it is not ejected for what was before")
	}
	for range 60 {
		w.slowly("a", 150, 100*ms)
		others()
		w.fake.Advance(10 * second)
	}
	for interval := range 4 {
		w.slowly("a", 150, second)
		others()
		w.fake.Advance(10 * second)
		if w.out() != "" {
			return
		}
		require.Less(t, interval, 3, "it has been slow for long, whatever it was before")
	}
}

// Given an endpoint that stays slow, then its ejections are longer each time: an interval in which
// it was slow is not one of good service.
func TestSlowness_Grows_B11(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		answers int // in an interval
		busy    bool
		off     time.Duration // by which returns come after sweeps
	}{
		{"enough answers in each interval", 200, false, 0},
		{"enough answers in each interval, and the others go on", 200, true, 0},
		{"enough answers in two intervals", 60, false, 0},
		{"enough answers in two intervals, and the others go on", 60, true, 0},
		{"enough answers in two intervals, of which the first is not whole", 60, true, 3 * second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t, Config{Outlier: Outlier{SlowerBy: 3, Jitter: Off, EjectFor: 30*second + row.off}}, "a", "b", "c")
			interval := func() {
				if w.members["a"].Available() {
					w.slowly("a", row.answers, second)
				}
				w.slowly("b", 150, 100*ms)
				w.slowly("c", 150, 100*ms)
				w.fake.Advance(10 * second)
			}
			for i := 1; i <= 4; i++ {
				for n := 0; w.members["a"].Available(); n++ {
					require.Less(t, n, 10)
					interval()
				}
				require.Equal(t, "a: slower", w.out())
				require.Equal(t, time.Duration(i)*(30*second+row.off), w.lasts("a"), "ejection %d", i)
				for row.busy && w.lasts("a") > 0 {
					interval()
				}
				w.fake.Advance(w.lasts("a"))
			}
		})
	}
}

// However much traffic there is, the median is that of the answers.
func TestSlowness_Busy(t *testing.T) {
	t.Parallel()
	const seed = 31
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWard(t, Config{Outlier: Outlier{SlowerBy: 3, Shadow: true}}, "a", "b", "c", "d")
	for interval := range 6 {
		for _, name := range []string{"a", "b", "c", "d"} {
			for range 5000 {
				d := 80*ms + time.Duration(random.IntN(40))*ms
				if name == "a" && interval >= 3 {
					d *= 4
				}
				w.answers(name, 1, took(d, ok200))
			}
		}
		w.fake.Advance(10 * second)
		if interval < 3 {
			require.Empty(t, w.told)
		}
	}
	require.Len(t, w.told, 1)
	assert.Equal(t, SlowerBy, w.told[0].Cause)
	assert.LessOrEqual(t, w.told[0].Time.Sub(firstDay), 50*second, "in the second interval at the latest")
}

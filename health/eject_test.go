package health

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

const (
	byServer  = "a: consecutive failures"
	byGateway = "a: gateway failures"
	byLocal   = "a: local failures"
)

// Given k failures in a row, then the endpoint is out, for its time.
func TestEject_Steps_B08(t *testing.T) {
	t.Parallel()
	gateways := Outlier{GatewayFailures: 3, ConsecutiveFailures: Off}
	for _, row := range []struct {
		name  string
		o     Outlier
		steps []step
	}{
		{"server", Outlier{}, []step{
			{0, send(4, err500), ""},
			{time.Hour, send(1, err500), byServer},
			{time.Hour + 30*second - 1, idle, byServer},
			{time.Hour + 30*second, idle, ""},
		}},
		{"server: any 5xx but those that blame the request", Outlier{}, []step{
			{0, send(1, err500), ""},
			{0, send(1, err502), ""},
			{0, send(1, err503), ""},
			{0, send(1, busy503), ""},
			{0, send(1, not501), ""},
			{0, send(1, err504), byServer},
		}},
		{"server: a success ends the row", Outlier{}, []step{
			{0, send(4, err500), ""}, {0, send(1, ok200), ""}, {0, send(4, err500), ""}, {0, send(1, err500), byServer},
		}},
		{"server: a 4xx does not", Outlier{}, []step{
			{0, send(4, err500), ""}, {0, send(50, not404), ""}, {0, send(1, err500), byServer},
		}},
		{"server: nor a 429", Outlier{}, []step{
			{0, send(4, err500), ""}, {0, send(50, busy429), ""}, {0, send(1, err500), byServer},
		}},
		{"server: nor a request without an answer", Outlier{}, []step{
			{0, send(4, err500), ""}, {0, send(4, noDial), ""}, {0, send(1, err500), byServer},
		}},
		{"server: nor what says nothing", Outlier{}, []step{
			{0, send(4, err500), ""},
			{0, send(50, gaveUp), ""},
			{0, send(50, hedged), ""},
			{0, send(50, refusal), ""},
			{0, send(50, notBegun), ""},
			{0, send(50, unknown), ""},
			{0, send(1, err500), byServer},
		}},
		{"server: a failure by the user's classifier", Outlier{}, []step{{0, send(5, answered(outcome.Failure, 200)), byServer}}},
		{"server: another number", Outlier{ConsecutiveFailures: 1}, []step{{0, send(1, err500), byServer}}},
		{"server: off", Outlier{ConsecutiveFailures: Off}, []step{{0, send(1000, err500), ""}, {0, send(1000, err503), ""}, {0, send(5, noDial), byLocal}}},

		{"gateway", gateways, []step{
			{0, send(1, err502), ""}, {0, send(1, err503), ""}, {0, send(1, err504), byGateway}, {30 * second, idle, ""},
		}},
		{"gateway: with Retry-After", gateways, []step{{0, send(2, busy503), ""}, {0, send(1, busy503), byGateway}}},
		{"gateway: a 500 ends the row", gateways, []step{
			{0, send(2, err502), ""}, {0, send(100, err500), ""}, {0, send(2, err502), ""}, {0, send(1, err502), byGateway},
		}},
		{"gateway: a success ends the row", gateways, []step{
			{0, send(2, err502), ""}, {0, send(1, ok200), ""}, {0, send(2, err502), ""}, {0, send(1, err502), byGateway},
		}},
		{"gateway: others do not", gateways, []step{
			{0, send(2, err502), ""},
			{0, send(9, not404), ""},
			{0, send(9, busy429), ""},
			{0, send(4, noDial), ""},
			{0, send(9, gaveUp), ""},
			{0, send(9, notBegun), ""},
			{0, send(1, err502), byGateway},
		}},
		{"gateway: before any failure", Outlier{GatewayFailures: 3}, []step{{0, send(2, err500), ""}, {0, send(3, err502), byGateway}}},
		{"gateway: as many as any failures", Outlier{GatewayFailures: 5}, []step{{0, send(4, err502), ""}, {0, send(1, err502), byGateway}}},
		{"gateway: off by default", Outlier{ConsecutiveFailures: Off}, []step{{0, send(1000, err502), ""}}},

		{"local", Outlier{}, []step{
			{0, send(3, noDial), ""}, {0, send(1, lostIt), ""}, {second, send(1, noDial), byLocal}, {31*second - 1, idle, byLocal}, {31 * second, idle, ""},
		}},
		{"local: a success ends the row", Outlier{}, []step{
			{0, send(4, lostIt), ""}, {0, send(1, ok200), ""}, {0, send(4, lostIt), ""}, {0, send(1, lostIt), byLocal},
		}},
		{"local: so does a 4xx", Outlier{}, []step{
			{0, send(4, lostIt), ""}, {0, send(1, not404), ""}, {0, send(4, lostIt), ""}, {0, send(1, lostIt), byLocal},
		}},
		{"local: so does a 5xx, which adds nothing", Outlier{}, []step{
			{0, send(4, lostIt), ""},
			{0, send(1, err500), ""},
			{0, send(4, lostIt), ""},
			{0, send(1, err502), ""},
			{0, send(4, lostIt), ""},
			{0, send(1, busy503), ""},
			{0, send(4, lostIt), ""},
			{0, send(1, lostIt), byLocal},
		}},
		{"local: so does a 429", Outlier{}, []step{
			{0, send(4, lostIt), ""}, {0, send(1, busy429), ""}, {0, send(4, lostIt), ""}, {0, send(1, lostIt), byLocal},
		}},
		{"local: what says nothing does not", Outlier{}, []step{
			{0, send(4, lostIt), ""},
			{0, send(9, gaveUp), ""},
			{0, send(9, hedged), ""},
			{0, send(9, refusal), ""},
			{0, send(9, notBegun), ""},
			{0, send(9, unknown), ""},
			{0, send(1, lostIt), byLocal},
		}},
		{"local: off", Outlier{LocalFailures: Off}, []step{{0, send(1000, lostIt), ""}, {0, send(1000, noDial), ""}, {0, send(5, err500), byServer}}},

		{"429 alone", Outlier{ConsecutiveFailures: 1, GatewayFailures: 1, LocalFailures: 1}, []step{{0, send(1000, busy429), ""}}},
		{"all off", Outlier{ConsecutiveFailures: Off, LocalFailures: Off, Deviation: Off}, []step{
			{0, send(1000, err500), ""}, {0, send(1000, noDial), ""}, {time.Minute, send(1000, err503), ""}, {time.Hour, idle, ""},
		}},
		{"disabled", Outlier{Disabled: true, ConsecutiveFailures: 1, GatewayFailures: 1, LocalFailures: 1, FailureRate: 0.1, Deviation: 0.01}, []step{
			{0, send(1000, err500), ""}, {0, send(1000, noDial), ""}, {time.Minute, send(1000, err503), ""}, {time.Hour, idle, ""},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			follow(t, row.o, row.steps)
		})
	}
}

// Given headers that were good and a body that breaks, then there was no success.
func TestEject_BodiesThatBreak(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"it goes on with the row", []step{{0, send(4, lostIt), ""}, {0, arrives(ok200), ""}, {second, breaks(ok200), byLocal}}},
		{"that of a 404, too", []step{{0, send(4, lostIt), ""}, {0, arrives(not404), ""}, {second, breaks(not404), byLocal}}},
		{"it ends well", []step{
			{0, send(4, lostIt), ""},
			{0, arrives(ok200), ""},
			{0, ends, ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, send(3, lostIt), ""},
			{0, send(1, lostIt), byLocal},
		}},
		{"all of them", []step{
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), byLocal},
		}},
		{"a failure that was answered came between", []step{
			{0, send(4, lostIt), ""},
			{0, arrives(ok200), ""},
			{0, send(1, err500), ""},
			{0, breaks(ok200), ""},
			{0, send(3, lostIt), ""},
			{0, send(1, lostIt), byLocal},
		}},
		{"it makes the row longer than it takes", []step{
			{0, send(4, lostIt), ""}, {0, arrives(ok200), ""}, {0, send(3, lostIt), ""}, {0, breaks(ok200), byLocal},
		}},
		{"a 429 came between, which is no more under way", []step{
			{0, send(4, lostIt), ""},
			{0, send(1, busy429), ""},
			{0, arrives(ok200), ""},
			{0, breaks(ok200), ""},
			{0, send(3, lostIt), ""},
			{0, send(1, lostIt), byLocal},
		}},
		{"one that began before the endpoint returned", []step{
			{0, arrives(ok200), ""},
			{0, send(5, err500), byServer},
			{30 * second, idle, ""},
			{31 * second, func(w *ward) {
				early := ok200
				early.Now = firstDay // when its headers came
				for range 5 {
					breaks(early)(w)
				}
			}, ""},
		}},
		{"one that began after the endpoint returned", []step{
			{0, send(5, err500), byServer},
			{30 * second, idle, ""},
			{31 * second, arrives(ok200), ""},
			{31 * second, send(4, lostIt), ""},
			{32 * second, func(w *ward) {
				a := ok200
				a.Now = firstDay.Add(31 * second)
				breaks(a)(w)
			}, byLocal},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			follow(t, Outlier{}, row.steps)
		})
	}
}

// Given re-admission, then the counters start anew, and each ejection is longer, up to the longest.
func TestEject_RestartsAndGrows_B11(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		o     Outlier
		lasts []time.Duration
	}{
		{"by default", Outlier{}, []time.Duration{
			30 * second, 60 * second, 90 * second, 120 * second, 150 * second, 180 * second, 210 * second, 240 * second, 240 * second, 240 * second,
		}},
		{"without jitter", Outlier{Jitter: Off}, []time.Duration{
			30 * second, 60 * second, 90 * second, 120 * second, 150 * second, 180 * second, 210 * second, 240 * second, 270 * second, 300 * second, 300 * second,
		}},
		{"as nginx", Outlier{EjectFor: 10 * second, MaxEjectFor: 10 * second, Jitter: Off}, []time.Duration{10 * second, 10 * second, 10 * second}},
		{"longer than the default of the longest", Outlier{EjectFor: 10 * time.Minute, Jitter: Off}, []time.Duration{10 * time.Minute, 10 * time.Minute}},
		{"up to what is no multiple", Outlier{EjectFor: 4 * second, MaxEjectFor: 10 * second, Jitter: Off}, []time.Duration{4 * second, 8 * second, 10 * second, 10 * second}},
	} {
		for _, a := range []outcome.Answer{err500, err502, lostIt} {
			row.o.Deviation = Off
			w := newWard(t, Config{Outlier: row.o}, "a", "b")
			for i, d := range row.lasts {
				name := fmt.Sprintf("%s, ejection %d", row.name, i+1)
				w.answers("a", 4, a)
				require.Empty(t, w.out(), name)
				w.answers("a", 1, a)
				require.Equal(t, d, w.lasts("a"), name)
				require.EqualValues(t, i+1, w.members["a"].Status().Ejections, name)
				w.answers("a", 7, a) // those that were under way
				w.fake.Advance(d - 1)
				require.False(t, w.members["a"].Available(), name)
				w.fake.Advance(1)
				require.True(t, w.members["a"].Available(), name)
				w.answers("a", 20, took(ms, a))
				w.fake.Advance(second)
				w.answers("a", 20, took(second+1, a))
				require.Empty(t, w.out(), "%s: those that began before do not count", name)
			}
			w.checkEvents()
		}
	}
}

// Given an ejection, then all rows start anew, whichever of them it was for.
func TestEject_RestartsAllRows_B11(t *testing.T) {
	t.Parallel()
	follow(t, Outlier{}, []step{
		{0, send(4, err500), ""},
		{0, send(5, lostIt), byLocal},
		{30 * second, idle, ""},
		{31 * second, send(4, err500), ""},
		{31 * second, send(1, err500), byServer},
	})
	follow(t, Outlier{GatewayFailures: 3}, []step{
		{0, send(2, err502), ""},
		{0, send(5, lostIt), byLocal},
		{30 * second, idle, ""},
		{31 * second, send(2, err502), ""},
		{31 * second, send(1, err502), byGateway},
	})
	for name, a := range map[string]outcome.Answer{"server": err500, "gateway": err502, "local": lostIt} {
		w := newWard(t, Config{Outlier: Outlier{GatewayFailures: 5}}, "a", "b")
		w.some("b", 100, 0)
		w.some("a", 100, 40)
		w.answers("a", 1, ok200)
		w.answers("a", 4, a)
		w.at(10 * second)
		require.Equal(t, "a: deviation", w.out(), name)
		w.at(41 * second)
		w.answers("a", 4, a)
		require.Empty(t, w.out(), name)
		w.answers("a", 1, a)
		require.NotEmpty(t, w.out(), name)
	}
	w := newWard(t, Config{Outlier: Outlier{EjectFor: second, MaxEjectFor: second}}, "a", "b")
	w.some("b", 100, 0)
	w.some("a", 100, 40)
	w.answers("a", 1, ok200)
	w.answers("a", 5, err500)
	require.Equal(t, byServer, w.out())
	w.at(2 * second)
	w.some("a", 100, 4)
	w.at(10 * second)
	require.Empty(t, w.out(), "what was counted before the ejection, in the same interval")
}

// A timer that could not be stopped in time ends no later ejection.
func TestEject_LateTimer_B11(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{}, "a", "b")
	a := w.members["a"].watch
	w.answers("a", 5, err500)
	w.fake.Advance(time.Minute)
	w.answers("a", 5, err500)
	w.comeBack(a, 1)
	require.Equal(t, byServer, w.out())
	w.comeBack(a, 2)
	require.Empty(t, w.out())
	w.comeBack(a, 2)
	w.checkEvents()
}

// However often it was ejected, the way back is no longer than to where ejections stop growing.
func TestEject_LevelIsBounded_B11(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off, EjectFor: second, MaxEjectFor: 3 * second}}, "a", "b")
	for range 30 {
		w.answers("a", 5, err500)
		w.fake.Advance(w.lasts("a") + second)
	}
	assert.Equal(t, 4, w.members["a"].Status().Level)
	assert.EqualValues(t, 30, w.members["a"].Status().Ejections)
}

// Sums of weights do not drift.
func TestCensus_NoSumOfRoundingErrors_B10(t *testing.T) {
	t.Parallel()
	c := census{endpoints: 4, weight: 1e17 + 3, out: 2, outWeight: 1e17}
	c.back(1e17)
	c.back(1) // which was lost in the sum
	assert.Equal(t, census{endpoints: 4, weight: 1e17 + 3}, c)
}

// Given good service, then the next ejections are shorter: by a step for each Interval in which
// there was any.
func TestEject_GoodServiceShrinksIt_B11(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b")
	level := func() int { return w.members["a"].Status().Level }
	ejections := func(n int) {
		for range n {
			w.answers("a", 5, err500)
			w.fake.Advance(w.lasts("a") + second)
		}
	}
	ejections(3)
	require.Equal(t, 3, level())
	w.fake.Advance(time.Hour)
	require.Equal(t, 3, level(), "no service is none that is good")
	for range 20 {
		w.answers("b", 1, ok200)
		w.answers("a", 4, gaveUp)
		w.fake.Advance(10 * second)
	}
	require.Equal(t, 3, level(), "nor is that of others")
	for range 20 {
		w.answers("b", 1, ok200)
		w.answers("a", 1, noDial)
		w.answers("a", 1, err500)
		w.fake.Advance(10 * second)
		w.answers("a", 1, not404) // which ends the row of lost requests
		w.answers("b", 1, ok200)
		if w.out() != "" {
			break
		}
	}
	require.Equal(t, 4, level(), "failures alone are not, and here they are in a row")
	w.fake.Advance(w.lasts("a") + second)
	w.answers("a", 1, ok200)
	w.fake.Advance(10 * second)
	require.Equal(t, 4, level(), "it was not there for a whole interval")
	for range 5 {
		w.some("a", 100, 60)
		w.fake.Advance(10 * second)
		require.Equal(t, 4, level(), "most of it was not good")
	}
	for want := 3; want >= 0; want-- {
		w.answers("a", 1, ok200)
		w.fake.Advance(10 * second)
		require.Equal(t, want, level())
	}
	w.answers("a", 1, ok200)
	w.fake.Advance(10 * second)
	require.Equal(t, 0, level())
	w.answers("a", 5, err500)
	assert.Equal(t, 30*second, w.lasts("a"), "as if it were the first")
	for range 3 {
		w.answers("a", 20, ok200)
		w.fake.Advance(10*second - 1)
	}
	assert.Equal(t, 1, level(), "what comes from one that is out is no good service")
}

// The first ejection lasts from 30 s to 37.5 s; none lasts longer than the longest; and they spread.
func TestEject_Jitter_B11(t *testing.T) {
	t.Parallel()
	const seed = 5
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, row := range []struct {
		o                       Outlier
		first, firstTo, longest time.Duration
	}{
		{Outlier{}, 30 * second, 37500 * ms, 5 * time.Minute},
		{Outlier{Jitter: 1}, 30 * second, time.Minute, 5 * time.Minute},
		{Outlier{Jitter: Off}, 30 * second, 30 * second, 5 * time.Minute},
		{Outlier{EjectFor: time.Minute, MaxEjectFor: time.Minute}, 48 * second, time.Minute, time.Minute},
		{Outlier{EjectFor: 10 * time.Minute}, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute},
		{Outlier{EjectFor: maxInterval, MaxEjectFor: maxInterval}, 800 * time.Hour, maxInterval, maxInterval},
		{Outlier{EjectFor: minInterval, MaxEjectFor: maxInterval}, minInterval, minInterval * 5 / 4, maxInterval},
	} {
		o := row.o.WithDefaults()
		for _, n := range []int{1, 2, 5, 10, 11, o.longest(), 1 << 30} {
			previous := time.Duration(0)
			for _, u := range []float64{0, 0.25, 0.5, 0.999999} {
				d := o.lasts(n, u)
				require.GreaterOrEqual(t, d, previous)
				require.Positive(t, d)
				require.LessOrEqual(t, d, row.longest, "ejection %d of %+v", n, row.o)
				if n == 1 {
					require.GreaterOrEqual(t, d, row.first)
					require.LessOrEqual(t, d, row.firstTo)
				}
				previous = d
			}
		}
		require.InDelta(t, float64(row.longest), float64(o.lasts(o.longest(), 1)), float64(time.Microsecond), "the level at which they stop growing is one at which they do not")
	}
	var sum time.Duration
	w := newWard(t, Config{Rand: rand.NewPCG(seed, 1)}, "a", "b")
	const n = 2000
	quarters := [4]int{}
	for range n {
		w.answers("a", 5, err500)
		d := w.lasts("a")
		require.GreaterOrEqual(t, d, 30*second)
		require.Less(t, d, 37500*ms)
		sum += d
		quarters[int((d-30*second)/(1875*ms))]++
		w.fake.Advance(d + second)
		for range 2 { // the first is no whole interval
			w.answers("a", 1, ok200)
			w.fake.Advance(10*second + time.Duration(random.IntN(1000))*ms)
		}
		require.Zero(t, w.members["a"].Status().Level)
	}
	for _, q := range quarters {
		assert.InDelta(t, n/4, q, 100, "five standard deviations are 97")
	}
	assert.InDelta(t, 33.75, (sum / n).Seconds(), 0.25)
}

// Given a report of everything, then it is in order and complete.
func TestEject_Events(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{GatewayFailures: 2, Deviation: Off}}, "a", "b", "c", "d")
	w.at(second)
	w.answers("a", 5, err500)
	w.at(2 * second)
	w.answers("b", 5, lostIt)
	w.answers("c", 5, err500)
	w.at(40 * second)
	w.answers("c", 2, err502)
	w.answers("a", 5, err500)
	w.at(200 * second)
	assert.Equal(t, []string{
		"1s a eject (consecutive failures) until 31s",
		"2s b eject (local failures) until 32s",
		"31s a return (consecutive failures) until 31s",
		"32s b return (local failures) until 32s",
		"40s c eject (gateway failures) until 1m10s",
		"40s a eject (consecutive failures) until 1m40s",
		"1m10s c return (gateway failures) until 1m10s",
		"1m40s a return (consecutive failures) until 1m40s",
	}, w.events())
	w.checkEvents()
	assert.Equal(t, "eject return", fmt.Sprint(Eject, " ", Return))
}

// Given no room, then what goes on failing is ejected when there is, after as many failures again.
func TestEject_NoRoom_B10(t *testing.T) {
	t.Parallel()
	for _, a := range []outcome.Answer{err500, lostIt} {
		w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
		w.answers("b", 5, a)
		w.at(second)
		w.answers("c", 5, a)
		w.answers("a", 9, a)
		require.NotContains(t, w.out(), "a:", "two of four are out")
		assert.Zero(t, w.members["a"].Status().Ejections)
		w.at(30 * second)
		require.NotContains(t, w.out(), "a:", "there is room, and no failure")
		w.answers("a", 1, a)
		require.Contains(t, w.out(), "a:", "the tenth")
		assert.Equal(t, 30*second, w.lasts("a"), "the first time, whatever happened before")
	}
}

// Given Shadow, or an Enforce that does not take this one, then it is reported, and nothing else.
func TestEject_Shadow(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Outlier{"shadow": {Shadow: true, Deviation: Off}, "enforced by half": {Enforce: 0.5, Deviation: Off}} {
		w := newWard(t, Config{Outlier: o}, "a", "b")
		w.chance.say(0.5)
		jitter := time.Duration(0.25 * 0.5 * float64(30*second))
		w.answers("a", 5, err500)
		s := w.members["a"].Status()
		assert.True(t, s.Shadow, name)
		assert.Equal(t, ConsecutiveFailures, s.Ejected, name)
		assert.Equal(t, firstDay.Add(30*second+jitter), s.Until, name)
		assert.True(t, w.members["a"].Available(), name)
		assert.Empty(t, w.out(), name)
		w.answers("a", 53, err500)
		w.answers("a", 53, lostIt)
		assert.Len(t, w.told, 1, "%s: once in the time it would last", name)
		w.answers("b", 50, err500)
		assert.Len(t, w.told, 1, "%s: it holds as many places as it would", name)
		w.at(30*second + jitter)
		require.Len(t, w.told, 2, name)
		w.at(40 * second)
		w.answers("a", 4, err500)
		assert.Len(t, w.told, 2, name)
		w.answers("a", 1, err500)
		assert.Equal(t, 2, w.members["a"].Status().Level, "%s: it grows as it would", name)
		assert.Equal(t, 2*(30*second+jitter), w.lasts("a"))
		assert.Equal(t, []string{
			"0s a eject (consecutive failures) until 33.75s shadow",
			"33.75s a return (consecutive failures) until 33.75s shadow",
			"40s a eject (consecutive failures) until 1m47.5s shadow",
		}, w.events(), name)
		assert.Empty(t, w.out(), name)
		w.checkEvents()
	}
}

// Enforce is the part of ejections that take place.
func TestEject_EnforceIsAPart(t *testing.T) {
	t.Parallel()
	const seed, n = 9, 2000
	t.Logf("seed %d", seed)
	for _, part := range []float64{0, 0.1, 0.5, 0.9, 1} {
		w := newWard(t, Config{Outlier: Outlier{Enforce: part, ConsecutiveFailures: 1, EjectFor: second, MaxEjectFor: second}, Rand: rand.NewPCG(seed, 0)}, "a", "b")
		enforced := 0
		for range n {
			w.answers("a", 1, err500)
			s := w.members["a"].Status()
			require.NotEmpty(t, s.Ejected)
			require.Equal(t, s.Shadow, w.members["a"].Available())
			if !s.Shadow {
				enforced++
			}
			w.fake.Advance(2 * second)
		}
		if part == 0 {
			part = 1
		}
		assert.InDelta(t, part*n, enforced, 5*22.4*min(1, 1000*part*(1-part)), "five standard deviations, none for all")
		w.checkEvents()
	}
}

// Given a callback that uses the monitor, then nothing stands still, and what it sees has happened.
func TestEject_OnChangeMayUseTheMonitor(t *testing.T) {
	t.Parallel()
	var w *ward
	told := 0
	w = newWard(t, Config{Outlier: Outlier{Deviation: Off}, OnChange: func(c Change) {
		told++
		for _, s := range w.Status() {
			if s.Endpoint.Address == c.Endpoint.Address {
				assert.Equal(t, c.Kind == Eject, s.Ejected != "")
			}
		}
		assert.NoError(t, w.Use(Config{Outlier: Outlier{Deviation: Off, MaxEjected: 0.5}}))
		assert.Equal(t, c.Kind == Return, w.members["a"].Available())
		other, err := w.Add(discovery.Endpoint{Address: fmt.Sprintf("x%d:80", told)})
		assert.NoError(t, err)
		other.Answered(err500)
		other.Remove()
	}}, "a", "b")
	w.answers("a", 5, err500)
	w.fake.Advance(time.Minute)
	assert.Equal(t, 2, told)
	require.NoError(t, w.Use(Config{Outlier: Outlier{Disabled: true}}))

	// One that ejects another one: that is told afterwards, not within.
	depth := 0
	order := []string{}
	w = newWard(t, Config{Outlier: Outlier{Deviation: Off}, OnChange: func(c Change) {
		depth++
		assert.Equal(t, 1, depth, "calls do not overlap")
		order = append(order, c.Endpoint.Address)
		if len(order) == 1 {
			w.answers("b", 5, err500)
		}
		depth--
	}}, "a", "b", "c", "d")
	w.answers("a", 5, err500)
	assert.Equal(t, []string{"a:80", "b:80"}, order)
}

// share is a part of a whole, exactly.
type share struct{ of, whole int }

func (s share) float() float64 { return float64(s.of) / float64(s.whole) }

func (s share) floor(n int) int { return n * s.of / s.whole }

func (w *ward) countOut() (n int) {
	for _, m := range w.members {
		if m.watch.node.Reasons()&node.Ejected != 0 {
			n++
		}
	}
	return n
}

// Given n endpoints that all fail and a cap p, then at every moment at most floor(n*p) are out, and
// all these can be.
func TestEject_Cap_B10(t *testing.T) {
	t.Parallel()
	for _, p := range []share{{1, 10}, {3, 10}, {1, 2}, {67, 100}, {1, 1}} {
		for n := 1; n <= 20; n++ {
			w := newWard(t, Config{Outlier: Outlier{MaxEjected: p.float(), EjectFor: 20 * second, MaxEjectFor: 40 * second}})
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprint("e", i)
				w.join(names[i])
			}
			most := 0
			for range 12 {
				for _, name := range names {
					for _, a := range []outcome.Answer{err500, err500, lostIt, err500, err500, err500} {
						w.answers(name, 1, a)
					}
					out := w.countOut()
					require.LessOrEqual(t, out, p.floor(n), "%d endpoints, cap %v", n, p.float())
					most = max(most, out)
				}
				w.fake.Advance(7 * second)
			}
			require.Equal(t, p.floor(n), most, "%d endpoints, cap %v", n, p.float())
			w.checkEvents()
		}
	}
}

// A single endpoint is not ejected unless the cap is all.
func TestEject_Single_B10(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64]string{0: "", 0.1: "", 0.5: "", 0.99: "", 0.999999: "", 1: byServer} {
		w := newWard(t, Config{Outlier: Outlier{MaxEjected: most}}, "a")
		w.answers("a", 100, err500)
		assert.Equal(t, want, w.out(), "cap %v", most)
	}
}

// By default no less than half of the weight stays in service, and half of the endpoints.
func TestEject_CapByWeight_B10(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		names, fail, want []string
	}{
		{[]string{"a*3", "b", "c"}, []string{"a", "b", "c"}, []string{"b"}},
		{[]string{"a*3", "b", "c"}, []string{"c", "b"}, []string{"c"}},
		{[]string{"a*2", "b", "c"}, []string{"a", "b", "c"}, []string{"a"}},
		{[]string{"a*100", "b", "c", "d"}, []string{"a", "b", "c", "d"}, []string{"b", "c"}},
		{[]string{"a*0.1", "b*0.2", "c*0.3", "d*0.6"}, []string{"c", "b", "a"}, []string{"b", "c"}},
		{[]string{"a*0.1", "b*0.2", "c*0.3"}, []string{"c"}, []string{"c"}},
		{[]string{"a*1e300", "b*1e300"}, []string{"b"}, []string{"b"}},
		{[]string{"a*1.7e308", "b*1.7e308", "c*1.7e308", "d*1.7e308"}, []string{"a", "b", "c", "d"}, []string{"a", "b"}},
		{[]string{"a*1e-300", "b*1e-300"}, []string{"a", "b"}, []string{"a"}},
		{[]string{"a*2", "b"}, []string{"a", "b"}, []string{"b"}},
	} {
		w := newWard(t, Config{}, row.names...)
		for _, name := range row.fail {
			w.answers(name, 5, err500)
		}
		out := []string{}
		for _, name := range slices.Sorted(maps.Keys(w.members)) {
			if !w.members[name].Available() {
				out = append(out, name)
			}
		}
		assert.Equal(t, row.want, out, "%v", row.names)
		w.fake.Advance(time.Hour)
		for range 3 {
			for _, name := range row.fail {
				w.answers(name, 5, err500)
			}
			w.fake.Advance(time.Hour)
		}
		assert.Empty(t, w.out())
	}
}

// Given endpoints that leave, then the cap holds for those that stay: whoever's time is over first
// comes back.
func TestEject_CapHoldsWhenOthersLeave_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d", "e", "f", "g", "h")
	for i, name := range []string{"c", "a", "d", "b"} {
		w.at(time.Duration(i) * second)
		w.answers(name, 5, err500)
	}
	leave := func(names ...string) string {
		for _, name := range names {
			w.members[name].Remove()
			delete(w.members, name)
		}
		w.fake.Advance(0)
		return w.out()
	}
	const because = ": consecutive failures"
	assert.Equal(t, "a"+because+", b"+because+", d"+because, leave("e"))
	assert.Equal(t, "a"+because+", b"+because+", d"+because, leave("c"), "it is free")
	assert.Equal(t, "b"+because, leave("f", "g", "a"), "b, d and h: two that leave in service, one that is out")
	before := w.events()
	assert.Empty(t, leave("h", "d"), "a single endpoint is not ejected")
	assert.Greater(t, len(w.events()), len(before))
	w.at(5 * second)
	w.answers("b", 4, took(0, err500))
	assert.Empty(t, w.out())
	w.join("x")
	w.answers("b", 1, err500)
	assert.Equal(t, "b"+because, w.out(), "it is not single any more")
	assert.Equal(t, 60*second, w.lasts("b"), "it is the second time, although the first was cut short")
	w.join("y*9")
	w.at(6 * second)
	w.answers("x", 5, err500)
	assert.Equal(t, "b"+because, w.out(), "by number one of three")
}

// The greatest weights there are do not spoil the sums for those that stay.
func TestEject_CapWithGreatWeights_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a*1.7e308", "b*1.7e308", "x*1.7e308", "y*1.7e308", "c", "d", "e", "f", "g", "h")
	for _, name := range []string{"c", "a", "b"} {
		w.answers(name, 5, err500)
		require.Equal(t, ConsecutiveFailures, w.members[name].Status().Ejected, name)
	}
	for _, name := range []string{"a", "b", "x", "y"} {
		w.members[name].Remove()
		delete(w.members, name)
	}
	w.fake.Advance(0)
	w.answers("d", 5, err500)
	assert.Equal(t, "c: consecutive failures, d: consecutive failures", w.out())
}

// One that is leaving is not ejected: it gets no traffic anyway.
func TestEject_NotWhoDrains(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
	n := w.members["a"].watch.node
	e := n.Endpoint()
	e.Draining = true
	n.Update(e)
	w.answers("a", 50, err500)
	w.answers("a", 50, lostIt)
	assert.Empty(t, w.told)
	e.Draining = false
	n.Update(e)
	w.answers("a", 5, err500)
	assert.Equal(t, byServer, w.out())
}

// Those that drain get no traffic, so they are not among those that serve while others are ejected.
func TestEject_CapHoldsWhenOthersDrain_B10(t *testing.T) {
	t.Parallel()
	drain := func(w *ward, names ...string) {
		for _, name := range names {
			n := w.members[name].watch.node
			e := n.Endpoint()
			e.Draining = true
			n.Update(e)
		}
	}
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
	drain(w, "c", "d")
	w.answers("a", 5, err500)
	w.answers("b", 5, err500)
	assert.Equal(t, 1, w.countOut(), "of two that get traffic")

	w = newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
	w.answers("c", 1, ok200) // so that they were counted once
	w.at(10 * second)
	w.answers("a", 5, err500)
	drain(w, "c", "d")
	w.fake.Advance(2 * second) // they are not counted all the time
	w.answers("b", 5, err500)
	assert.Equal(t, 1, w.countOut(), "of two that get traffic, of which one was out already")

	w = newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
	w.answers("a", 5, err500)
	w.answers("b", 5, err500)
	drain(w, "c", "d")
	w.answers("c", 1, ok200)
	w.at(20 * second) // any time for a sweep
	assert.Equal(t, 1, w.countOut(), "of two that get traffic")
}

// A mirror is what a simple model knows of a monitor.
type mirror struct {
	*ward
	random *rand.Rand
	most   float64
	serial int
	gone   map[string]*Member
	ended  map[string]uint64 // ejections of those that have left
}

func TestEject_RandomModel_B10(t *testing.T) {
	t.Parallel()
	seeds := 50
	if testing.Short() {
		seeds = 30
	}
	ejected := 0
	for seed := range seeds {
		ejected += testModel(t, uint64(seed))
	}
	assert.Greater(t, ejected, seeds, "the model is not about nothing")
}

func testModel(t *testing.T, seed uint64) (ejected int) {
	t.Helper()
	m := &mirror{random: rand.New(rand.NewPCG(seed, 0)), gone: map[string]*Member{}, ended: map[string]uint64{}, most: 0.5}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	m.ward = newWard(t, Config{Rand: rand.NewPCG(seed, 1), OnChange: func(c Change) {
		if c.Kind == Eject {
			ejected++
			m.checkCap("an ejection")
			for name := range m.gone {
				require.NotEqual(t, name+":80", c.Endpoint.Address, "nobody is ejected who has left")
			}
		}
	}})
	for range 400 {
		m.step()
		for name, e := range m.gone {
			require.Equal(t, m.ended[name], e.Status().Ejections, "seed %d: nobody is ejected who has left", seed)
		}
	}
	m.Close()
	require.Zero(t, m.fake.Pending(), "seed %d", seed)
	told := len(m.told)
	for name := range m.members {
		m.answers(name, 20, err500)
		m.members[name].Remove()
	}
	m.fake.Advance(time.Hour)
	require.Len(t, m.told, told, "seed %d", seed)
	require.Zero(t, m.fake.Pending(), "seed %d", seed)
	return ejected
}

func (m *mirror) step() {
	names := slices.Sorted(maps.Keys(m.members))
	switch what := m.random.IntN(20); {
	case what == 0 && len(names) < 12 || len(names) == 0:
		m.serial++
		spec := fmt.Sprint("e", m.serial)
		if m.random.IntN(2) == 0 {
			spec += fmt.Sprintf("*%g", []float64{0.1, 0.5, 2, 3, 7, 1e5}[m.random.IntN(6)])
		}
		m.join(spec)
	case what == 1:
		name := names[m.random.IntN(len(names))]
		m.gone[name] = m.members[name]
		m.ended[name] = m.members[name].Status().Ejections
		m.members[name].Remove()
		m.members[name].Remove() // twice is once
		delete(m.members, name)
		if m.random.IntN(2) == 0 {
			m.fake.Advance(0)
			m.checkCap("somebody has left")
		}
	case what == 2:
		o := Outlier{
			MaxEjected: max(m.most, []float64{0.1, 0.34, 0.5, 0.9, 1}[m.random.IntN(5)]), // less ejects nobody back: P-01
			SlowerBy:   []float64{0, 3}[m.random.IntN(2)], FailureRate: []float64{0, 0.5}[m.random.IntN(2)],
			Disabled: m.random.IntN(8) == 0, Shadow: m.random.IntN(4) == 0, Enforce: m.random.Float64(),
			ConsecutiveFailures: m.random.IntN(4), GatewayFailures: m.random.IntN(3),
		}
		if m.random.IntN(8) == 0 {
			m.most, o.Disabled = 0.1, true // then all are back
			require.NoError(m, m.Use(Config{Outlier: o}))
			o.Disabled, o.MaxEjected = false, m.most
		}
		m.most = o.MaxEjected
		require.NoError(m, m.Use(Config{Outlier: o}))
	case what < 6:
		m.fake.Advance([]time.Duration{0, ms, second, 10 * second, time.Minute}[m.random.IntN(5)])
	case what == 6 && len(m.gone) > 0:
		for _, e := range m.gone {
			e.Answered(err500)
		}
	default:
		a := []outcome.Answer{ok200, err500, err502, lostIt, not404, gaveUp}[m.random.IntN(6)]
		a.Took = time.Duration(m.random.IntN(3)) * second
		m.answers(names[m.random.IntN(len(names))], 1+m.random.IntN(30), a)
	}
	m.out()
}

// checkCap checks that no more are out than may be, those that are only reported included. Nobody
// is told of a removal, so those that have left and have not been counted out are let go first.
func (m *mirror) checkCap(why string) {
	n, out, weight, outWeight := 0, 0, 0.0, 0.0
	for _, e := range m.members {
		s := e.Status()
		n++
		weight += s.Endpoint.EffectiveWeight()
		if s.Ejected != "" {
			out++
			outWeight += s.Endpoint.EffectiveWeight()
		}
	}
	require.LessOrEqual(m, float64(out), m.most*float64(n)+1e-6, why)
	require.LessOrEqual(m, outWeight, m.most*weight*(1+1e-6), why)
}

// Given all of it at once, then nothing races, and the cap holds.
func TestEject_Concurrent_B10(t *testing.T) {
	t.Parallel()
	const n = 8
	fake := clock.NewFake(firstDay)
	var mu sync.Mutex
	out := map[string]bool{}
	m := newMonitor(t, Config{Clock: fake, Outlier: Outlier{EjectFor: second, MaxEjectFor: 2 * second, SlowerBy: 3}, OnChange: func(c Change) {
		mu.Lock()
		defer mu.Unlock()
		out[c.Endpoint.Address] = c.Kind == Eject
		count := 0
		for _, is := range out {
			if is {
				count++
			}
		}
		assert.LessOrEqual(t, count, n/2)
	}})
	members := make([]*Member, n)
	for i := range members {
		var err error
		members[i], err = m.Add(discovery.Endpoint{Address: fmt.Sprintf("e%d:80", i)})
		require.NoError(t, err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 0))
			for range 3000 {
				e := members[random.IntN(n)]
				e.Answered([]outcome.Answer{ok200, err500, err500, err502, lostIt, not404}[random.IntN(6)])
				if random.IntN(20) == 0 {
					e.watch.Broke(ok200)
				}
				e.Available()
				if random.IntN(50) == 0 {
					m.Status()
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 300 {
			fake.Advance(100 * ms)
			o := Outlier{EjectFor: second, MaxEjectFor: 2 * second}
			if i%2 == 0 {
				o.SlowerBy = 3
			}
			assert.NoError(t, m.Use(Config{Outlier: o}))
		}
	})
	wg.Wait()
	fake.Advance(time.Minute)
	for _, e := range members {
		assert.True(t, e.Available())
	}
	m.Close()
	assert.Zero(t, fake.Pending())
}

// Given endpoints that leave while the monitor is closed, then nothing races.
func TestClose_WhileEndpointsLeave(t *testing.T) {
	t.Parallel()
	for range 50 {
		m, err := NewMonitor(Config{Clock: clock.NewFake(firstDay)})
		require.NoError(t, err)
		members := make([]*Member, 64)
		for i := range members {
			members[i], err = m.Add(discovery.Endpoint{Address: fmt.Sprintf("e%d:80", i)})
			require.NoError(t, err)
		}
		var wg sync.WaitGroup
		wg.Go(m.Close)
		wg.Go(func() {
			for _, e := range members {
				e.Remove()
			}
		})
		wg.Wait()
	}
}

package breaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// dawn is when the clocks of these tests begin.
var dawn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// What calls can mean, as short as rows of tables want it.
const (
	ok200   = outcome.Success
	ok404   = outcome.ClientError
	err429  = outcome.Overload
	err500  = outcome.Failure
	noDial  = outcome.NeverSent
	hangsUp = outcome.Canceled
)

// steady is a source of randomness that always says the same.
type steady struct{ bits atomic.Uint64 }

func (s *steady) Uint64() uint64 { return s.bits.Load() }

// say sets what it says, a number of [0,1).
func (s *steady) say(u float64) { s.bits.Store(uint64(u*(1<<53)) << 11) }

// rig is a breaker whose time and randomness are the test's.
type rig struct {
	testing.TB
	*Breaker
	fake   *clock.Fake
	random *steady
	held   map[string]*Permit
	told   []Change
}

// rigged returns a breaker. Its jitter and its ramp draw zero, unless the configuration
// brings its own source.
func rigged(t testing.TB, cfg Config) *rig {
	t.Helper()
	r := &rig{TB: t, fake: clock.NewFake(dawn), random: &steady{}, held: map[string]*Permit{}}
	cfg.Clock = r.fake
	if cfg.Rand == nil {
		cfg.Rand = r.random
	}
	cfg.OnChange = func(c Change) { r.told = append(r.told, c) }
	b, err := New("users", cfg)
	require.NoError(t, err)
	r.Breaker = b
	return r
}

// at moves the clock to an instant, counted from when the breaker was made.
func (r *rig) at(d time.Duration) { r.fake.Advance(dawn.Add(d).Sub(r.fake.Now())) }

// now returns the instant that the clock shows.
func (r *rig) now() time.Duration { return r.fake.Now().Sub(dawn) }

// What an event can lead to.
const (
	admitted   = "admitted"
	refused    = "refused"
	counted    = "counted"
	notCounted = "not counted"
)

func countedIf(yes bool) string {
	if yes {
		return counted
	}
	return notCounted
}

// event is something that happens to a breaker, and what it led to.
type event func(*rig) string

// send is a call that ends at once.
func send(c outcome.Class) event { return report(Result{Class: c}) }

func report(result Result) event {
	return func(r *rig) string {
		p, err := r.Allow()
		if err != nil {
			require.ErrorIs(r, err, ErrOpen)
			return refused
		}
		return countedIf(p.Report(result))
	}
}

// begin is a call that ends later.
func begin(name string) event {
	return func(r *rig) string {
		p, err := r.Allow()
		if err != nil {
			require.ErrorIs(r, err, ErrOpen)
			return refused
		}
		r.held[name] = &p
		return admitted
	}
}

// end is the end of a call that began before.
func end(name string, c outcome.Class) event {
	return func(r *rig) string {
		require.Contains(r, r.held, name)
		return countedIf(r.held[name].Done(c))
	}
}

// times is the same event so many times, always with the same consequence.
func times(n int, e event) event {
	return func(r *rig) string {
		first := e(r)
		for i := 1; i < n; i++ {
			require.Equal(r, first, e(r), "time %d of %d", i+1, n)
		}
		return first
	}
}

// nothing is no event.
func nothing(*rig) string { return "" }

func setMode(m Mode) event {
	return func(r *rig) string {
		require.NoError(r, r.SetMode(m))
		return ""
	}
}

func use(cfg Config) event {
	return func(r *rig) string {
		require.NoError(r, r.Use(cfg))
		return ""
	}
}

func reset(r *rig) string {
	r.Reset()
	return ""
}

// step is what happens at an instant, what that leads to, and the state that follows.
type step struct {
	at    time.Duration
	event event
	want  string
	state State
}

// follow goes through the steps.
func follow(t *testing.T, cfg Config, steps []step) *rig {
	t.Helper()
	r := rigged(t, cfg)
	for i, s := range steps {
		r.at(s.at)
		require.Equal(t, s.want, s.event(r), "step %d, at %v", i, s.at)
		require.Equal(t, s.state, r.State(), "the state after step %d, at %v", i, s.at)
	}
	chain := Closed
	if cfg.Mode == ForcedOpen {
		chain = Open
	}
	for _, c := range r.told {
		require.Equal(t, chain, c.From, "%v", r.told)
		require.NotEqual(t, c.From, c.To)
		chain = c.To
	}
	require.Equal(t, r.State(), chain, "the last event tells the state")
	return r
}

// reasons returns the reasons of all events.
func (r *rig) reasons() []Reason {
	list := []Reason{}
	for _, c := range r.told {
		list = append(list, c.Reason)
	}
	return list
}

const second = time.Second

// trips are all ways in which a closed breaker opens, and how it just does not.
var trips = []struct {
	name  string
	cfg   Config
	steps []step
	why   []Reason
}{
	{"five in a row", Config{}, []step{
		{0, times(4, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
		{0, send(ok200), refused, Open},
	}, []Reason{ConsecutiveFailures}},
	{"a success begins the row anew", Config{FailureRate: Off}, []step{
		{0, times(4, send(err500)), counted, Closed},
		{0, send(ok200), counted, Closed},
		{0, times(4, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	}, []Reason{ConsecutiveFailures}},
	{"a row has no time", Config{}, []step{
		{0, times(4, send(err500)), counted, Closed},
		{1000 * time.Hour, send(err500), counted, Open},
	}, []Reason{ConsecutiveFailures}},
	{"one is enough", Config{ConsecutiveFailures: 1}, []step{
		{0, send(err500), counted, Open},
	}, []Reason{ConsecutiveFailures}},
	{"dials that fail", Config{ConsecutiveFailures: 3}, []step{
		{0, times(2, send(noDial)), counted, Closed},
		{0, send(noDial), counted, Open},
	}, []Reason{ConsecutiveFailures}},
	{"no row", Config{ConsecutiveFailures: Off}, []step{
		{0, times(19, send(err500)), counted, Closed},
		{0, send(err500), counted, Open}, // the rate
	}, []Reason{FailureRate}},
	{"neither row nor rate", Config{ConsecutiveFailures: Off, FailureRate: Off}, []step{
		{0, times(1000, send(err500)), counted, Closed},
	}, []Reason{}},
	{"half of them", Config{ConsecutiveFailures: Off}, []step{
		{0, times(10, send(ok200)), counted, Closed},
		{1 * second, times(9, send(err500)), counted, Closed},
		{2 * second, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"just less than half of them", Config{ConsecutiveFailures: Off}, []step{
		{0, times(21, send(ok200)), counted, Closed},
		{1 * second, times(20, send(err500)), counted, Closed}, // 20 of 41
		{2 * second, send(err500), counted, Open},              // 21 of 42
	}, []Reason{FailureRate}},
	{"half of the last so many", Config{ConsecutiveFailures: Off, WindowCalls: 20}, []step{
		{0, times(100, send(ok200)), counted, Closed},
		{0, times(9, send(err500)), counted, Closed},
		{1000 * time.Hour, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"a window of calls that is not full", Config{ConsecutiveFailures: Off, WindowCalls: 100}, []step{
		{0, times(19, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"a window of few calls", Config{ConsecutiveFailures: Off, WindowCalls: 4, FailureRate: 1}, []step{
		{0, times(3, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"all of them, by time", Config{ConsecutiveFailures: Off, FailureRate: 1}, []step{
		{0, send(ok200), counted, Closed},
		{0, times(100, send(err500)), counted, Closed},
		{9 * second, times(100, send(err500)), counted, Closed},
		{10 * second, send(err500), counted, Open}, // the success is too long ago
	}, []Reason{FailureRate}},
	{"all of them, by number", Config{ConsecutiveFailures: Off, FailureRate: 1, WindowCalls: 20}, []step{
		{0, send(ok200), counted, Closed},
		{0, times(19, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"a small part", Config{ConsecutiveFailures: Off, FailureRate: 0.01, MinCalls: 1}, []step{
		{0, times(199, send(ok200)), counted, Closed},
		{0, send(err500), counted, Closed},
		{0, send(err500), counted, Closed}, // 2 of 201
		{0, send(err500), counted, Open},
	}, []Reason{FailureRate}},
	{"slow ones", Config{SlowAfter: second}, []step{
		{0, times(4, report(Result{Class: ok200, Took: second})), counted, Closed}, // so long they may take
		{0, times(15, report(Result{Class: ok200, Took: second + 1})), counted, Closed},
		{0, report(Result{Class: ok200, Took: second + 1}), counted, Open},
	}, []Reason{SlowRate}},
	{"slow ones by number", Config{SlowAfter: second, WindowCalls: 10}, []step{
		{0, times(20, send(ok200)), counted, Closed},
		{0, times(7, report(Result{Class: ok200, Took: 2 * second})), counted, Closed},
		{0, report(Result{Class: ok200, Took: 2 * second}), counted, Open},
	}, []Reason{SlowRate}},
	{"only slow ones", Config{SlowAfter: second, SlowRate: 1, MinCalls: 3}, []step{
		{0, send(ok200), counted, Closed},
		{1 * second, times(100, report(Result{Class: ok200, Took: 2 * second})), counted, Closed},
		{10 * second, report(Result{Class: ok200, Took: 2 * second}), counted, Open},
	}, []Reason{SlowRate}},
	{"a slow success ends the row", Config{SlowAfter: second, FailureRate: Off}, []step{
		{0, times(4, send(err500)), counted, Closed},
		{0, report(Result{Class: ok200, Took: 2 * second}), counted, Closed},
		{0, times(4, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	}, []Reason{ConsecutiveFailures}},
	{"slow and failed is both", Config{SlowAfter: second, ConsecutiveFailures: Off, FailureRate: Off, MinCalls: 2}, []step{
		{0, report(Result{Class: err500, Took: 2 * second}), counted, Closed},
		{0, report(Result{Class: err500, Took: 2 * second}), counted, Open},
	}, []Reason{SlowRate}},
	{"a slow client error is nothing", Config{SlowAfter: second, MinCalls: 1}, []step{
		{0, times(100, report(Result{Class: ok404, Took: 2 * second})), notCounted, Closed},
	}, []Reason{}},
	{"slow by the clock", Config{SlowAfter: second, MinCalls: 1}, []step{
		{0, begin("a"), admitted, Closed},
		{0, begin("b"), admitted, Closed},
		{1 * second, end("a", ok200), counted, Closed},
		{1*second + 1, end("b", ok200), counted, Closed}, // half of them
		{2 * second, begin("c"), admitted, Closed},
		{2 * second, begin("d"), admitted, Closed},
		{2 * second, begin("e"), admitted, Closed},
		{12 * second, end("c", ok200), counted, Open}, // those before are too long ago
		{12 * second, end("d", ok200), notCounted, Open},
	}, []Reason{SlowRate}},
	{"without a limit nothing is slow", Config{SlowRate: 0.1, MinCalls: 1}, []step{
		{0, times(100, report(Result{Class: ok200, Took: time.Hour})), counted, Closed},
	}, []Reason{}},
	{"a predicate", Config{ConsecutiveFailures: Off, FailureRate: Off, TripIf: func(c Counts) bool { return c.Failures == 3 && c.Successes > 0 }}, []step{
		{0, times(3, send(err500)), counted, Closed}, // three, but no success
		{11 * second, times(2, send(err500)), counted, Closed},
		{11 * second, send(ok200), counted, Closed},
		{11 * second, send(err500), counted, Open},
	}, []Reason{Predicate}},
}

func TestSteps_Trips(t *testing.T) {
	t.Parallel()
	for _, row := range trips {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.cfg.Jitter = Off
			r := follow(t, row.cfg, row.steps)
			assert.Equal(t, row.why, r.reasons())
		})
	}
}

// In the mode MetricsOnly the same happens, but nobody is refused.
func TestSteps_TripsInTheShadow(t *testing.T) {
	t.Parallel()
	for _, row := range trips {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.cfg.Jitter, row.cfg.Mode = Off, MetricsOnly
			steps := slices.Clone(row.steps)
			for i := range steps {
				if steps[i].want == refused {
					steps[i].want = notCounted
				}
			}
			r := follow(t, row.cfg, steps)
			assert.Equal(t, row.why, r.reasons())
		})
	}
}

func TestTrip_MinimumVolume_K09(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{ConsecutiveFailures: Off},
		{ConsecutiveFailures: Off, WindowCalls: 20},
		{ConsecutiveFailures: Off, WindowCalls: 1000},
		{ConsecutiveFailures: Off, FailureRate: 1},
		{ConsecutiveFailures: Off, FailureRate: 1e-9},
		{ConsecutiveFailures: Off, FailureRate: Off, SlowAfter: 1},
	} {
		slow := Result{Class: err500, Took: time.Minute}
		follow(t, cfg, []step{
			{0, times(19, report(slow)), counted, Closed},
			{0, report(slow), counted, Open},
		})
	}
	follow(t, Config{ConsecutiveFailures: Off, MinCalls: 3}, []step{
		{0, times(2, send(err500)), counted, Closed},
		{0, send(err500), counted, Open},
	})
}

// tripIfAsked counts how often a predicate is asked.
func tripIfAsked(asked *[]Counts) func(Counts) bool {
	return func(c Counts) bool {
		*asked = append(*asked, c)
		return false
	}
}

func TestTripIf_IsAskedAfterFailuresAndSlowCalls(t *testing.T) {
	t.Parallel()
	var asked []Counts
	cfg := Config{SlowAfter: second, ConsecutiveFailures: 4, FailureRate: Off, Jitter: Off, TripIf: tripIfAsked(&asked)}
	r := rigged(t, cfg)
	times(3, send(ok200))(r)
	times(3, send(ok404))(r)
	times(3, send(hangsUp))(r)
	assert.Empty(t, asked, "none of these speaks against what was called")
	send(err500)(r)
	assert.Equal(t, []Counts{{Successes: 3, Failures: 1, ConsecutiveFailures: 1}}, asked)
	report(Result{Class: ok200, Took: 2 * second})(r)
	report(Result{Class: err500, Took: 2 * second})(r)
	assert.Equal(t, []Counts{
		{Successes: 3, Failures: 1, ConsecutiveFailures: 1},
		{Successes: 4, Failures: 1, Slow: 1},
		{Successes: 4, Failures: 2, Slow: 2, ConsecutiveFailures: 1},
	}, asked)

	times(3, send(err500))(r)
	require.Equal(t, Open, r.State())
	n := len(asked)
	r.at(5 * second)
	send(err500)(r)
	assert.Equal(t, Open, r.State())
	assert.Len(t, asked, n, "a probe is none of its business")
	require.NoError(t, r.SetMode(Disabled))
	times(3, send(err500))(r)
	assert.Len(t, asked, n, "nothing counts")
	require.NoError(t, r.SetMode(MetricsOnly))
	times(3, send(err500))(r)
	assert.Len(t, asked, n+3)
}

// The predicate may ask the breaker, and change it.
func TestTripIf_HoldsNoLock(t *testing.T) {
	t.Parallel()
	var b *Breaker
	then := func() {}
	b, err := New("users", Config{Clock: clock.NewFake(dawn), TripIf: func(c Counts) bool {
		assert.Equal(t, c, b.Counts())
		then()
		return true
	}})
	require.NoError(t, err)
	p, err := b.Allow()
	require.NoError(t, err)
	assert.True(t, p.Done(err500))
	assert.Equal(t, Open, b.State())

	then = b.Reset
	b.Reset()
	p, err = b.Allow()
	require.NoError(t, err)
	assert.True(t, p.Done(err500))
	assert.Equal(t, Closed, b.State(), "what it was asked about is over")

	then = func() { panic("predicate") }
	p, err = b.Allow()
	require.NoError(t, err)
	assert.PanicsWithValue(t, "predicate", func() { p.Done(err500) })
	assert.Equal(t, 1, b.Counts().Failures, "which is counted, and no lock is held")
}

// rates compares what a window counts with the samples themselves.
func rates(t *testing.T, window time.Duration, samples map[time.Duration]outcome.Class, now time.Duration, c Counts) {
	t.Helper()
	count := func(length time.Duration) (successes, failures int) {
		for at, class := range samples {
			if now-at < length && class == ok200 {
				successes++
			} else if now-at < length {
				failures++
			}
		}
		return successes, failures
	}
	leastOK, leastBad := count(window - window/10)
	mostOK, mostBad := count(window)
	assert.True(t, leastOK <= c.Successes && c.Successes <= mostOK, "at %v: %d to %d successes, not %d", now, leastOK, mostOK, c.Successes)
	assert.True(t, leastBad <= c.Failures && c.Failures <= mostBad, "at %v: %d to %d failures, not %d", now, leastBad, mostBad, c.Failures)
}

// A thousand calls a second, of which the last 900 of ten seconds fail, wherever in a
// bucket that is. A window that tumbles reads 90 % or more after the edge.
func TestWindow_Slides_K10(t *testing.T) {
	t.Parallel()
	for begins := range 3 {
		r := rigged(t, Config{ConsecutiveFailures: Off, FailureRate: 0.2})
		samples := map[time.Duration]outcome.Class{}
		start := time.Duration(begins) * 370 * time.Millisecond
		for i := range 10000 {
			at := start + time.Duration(i)*time.Millisecond
			r.at(at)
			class := ok200
			if i >= 9100 {
				class = err500
			}
			samples[at] = class
			require.Equal(t, counted, send(class)(r))
			if i%100 == 99 {
				rates(t, 10*second, samples, at, r.Counts())
				require.Less(t, r.Counts().FailureRate(), 0.1001, "at %v", at)
			}
		}
		require.InDelta(t, 0.09, r.Counts().FailureRate(), 0.0101)
		assert.Equal(t, Closed, r.State())
		for range 120 { // and out again
			r.at(r.now() + 100*time.Millisecond)
			rates(t, 10*second, samples, r.now(), r.Counts())
		}
		assert.Zero(t, r.Counts().Calls())
	}
	r := rigged(t, Config{ConsecutiveFailures: Off, FailureRate: 0.2, WindowCalls: 10000})
	times(9100, send(ok200))(r)
	times(900, send(err500))(r)
	assert.InDelta(t, 0.09, r.Counts().FailureRate(), 1e-9)
	times(8000, send(ok200))(r)
	assert.InDelta(t, 0.09, r.Counts().FailureRate(), 1e-9)
	times(1100, send(ok200))(r)
	assert.Equal(t, 900, r.Counts().Failures, "they are still in the window")
	times(1, send(ok200))(r)
	assert.Equal(t, 899, r.Counts().Failures, "one is not any more")
	times(1000, send(ok200))(r)
	assert.Equal(t, Counts{Successes: 10000}, r.Counts())
}

func TestWindow_SamplesLeaveIt(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{10 * time.Millisecond, second, 10 * second, time.Hour} {
		for tenths := range 10 { // where in a bucket it begins
			bucket := window / 10
			t0 := 3*window + bucket*time.Duration(tenths)/10
			r := rigged(t, Config{Window: window, ConsecutiveFailures: Off, SlowAfter: time.Minute})
			r.at(t0)
			send(ok200)(r)
			send(err500)(r)
			report(Result{Class: ok200, Took: time.Hour})(r)
			report(Result{Class: err500, Took: time.Hour})(r)
			in := Counts{Successes: 2, Failures: 2, Slow: 2, ConsecutiveFailures: 1}
			assert.Equal(t, in, r.Counts())
			r.at(t0 + window - bucket - 1)
			assert.Equal(t, in, r.Counts(), "a window of %v, begun at %v: for nine tenths", window, t0)
			r.at(t0 + window)
			assert.Equal(t, Counts{ConsecutiveFailures: 1}, r.Counts(), "a window of %v, begun at %v: it is over", window, t0)
			r.at(t0 + 1000*window)
			assert.Equal(t, Counts{ConsecutiveFailures: 1}, r.Counts())
			send(err500)(r)
			assert.Equal(t, 1, r.Counts().Failures, "and what comes then is counted")
		}
	}
}

// Buckets are used again; after however long a time, what was in them is gone, and the
// others do not hide what is new. With ten milliseconds, time begins anew after weeks.
func TestWindow_LongTimes(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, idle := range []time.Duration{time.Hour, day, 20 * day, 25 * day, 30 * day, 49 * day, 50 * day, 60 * day, 74 * day, 75 * day, 365 * day} {
		for _, before := range []int{0, 1, 15} {
			r := rigged(t, Config{Window: 10 * time.Millisecond, ConsecutiveFailures: Off, FailureRate: 1})
			for i := range before {
				r.at(time.Duration(i) * time.Millisecond)
				send(ok200)(r)
				send(err500)(r)
			}
			r.at(idle)
			assert.Zero(t, r.Counts().Calls(), "%v later, after %d", idle, before)
			send(ok200)(r)
			send(err500)(r)
			send(err500)(r)
			assert.Equal(t, 1, r.Counts().Successes, "%v later, after %d", idle, before)
			assert.Equal(t, 2, r.Counts().Failures, "%v later, after %d", idle, before)
			r.at(idle + 10*time.Millisecond)
			assert.Zero(t, r.Counts().Calls(), "and it leaves the window, %v later, after %d", idle, before)
		}
	}
}

// A success that is counted late, even by a whole window because its goroutine had to
// wait, takes nothing from those that came meanwhile.
func TestWindow_LateSuccesses(t *testing.T) {
	t.Parallel()
	for late := range int64(35) {
		var successes tally
		var clock ticks
		const now = 100
		clock.latest.Store(now)
		for range 7 {
			successes.add(&clock, now)
		}
		successes.add(&clock, now-late)
		got := successes.sum(now)
		assert.True(t, got == 7 || got == 8, "%d, with one that is %d ticks late", got, late)
		if late < buckets {
			assert.Equal(t, 8, got, "%d ticks late", late)
		}
	}
}

// A success can come at any time, also between failures, and is not lost.
func TestWindow_CountsWhatFailedAmongWhatDidNot(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 3, 10, 100} {
		const seed = 7
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, uint64(size)))
		r := rigged(t, Config{WindowCalls: size, ConsecutiveFailures: Off, FailureRate: 1, MinCalls: size, SlowAfter: second, SlowRate: 1, Mode: MetricsOnly})
		type sample struct{ failed, slow bool }
		var all []sample
		for range 2000 {
			s := sample{random.IntN(4) == 0, random.IntN(5) == 0}
			if random.IntN(3) == 0 {
				s = sample{}
			}
			if len(all) > 0 && all[len(all)-1] != (sample{}) {
				s = sample{} // so that no rate ever is 1, but for windows of one call
			}
			if size == 1 {
				s.slow, s.failed = false, false
			}
			all = append(all, s)
			result := Result{Class: ok200, Took: 1}
			if s.failed {
				result.Class = err500
			}
			if s.slow {
				result.Took = time.Minute
			}
			require.Equal(t, counted, report(result)(r))
			want := Counts{}
			for _, s := range all[max(len(all)-size, 0):] {
				if s.failed {
					want.Failures++
				} else {
					want.Successes++
				}
				if s.slow {
					want.Slow++
				}
			}
			got := r.Counts()
			got.ConsecutiveFailures = 0
			require.Equal(t, want, got, "window of %d after %d", size, len(all))
		}
	}
}

func TestCounts_Rates(t *testing.T) {
	t.Parallel()
	assert.Zero(t, Counts{}.FailureRate())
	assert.Zero(t, Counts{}.SlowRate())
	c := Counts{Successes: 3, Failures: 1, Slow: 2}
	assert.Equal(t, 4, c.Calls())
	assert.InDelta(t, 0.25, c.FailureRate(), 0)
	assert.InDelta(t, 0.5, c.SlowRate(), 0)
}

// quick opens at the first failure and closes after the first good probe.
var quick = Config{ConsecutiveFailures: 1, FailureRate: Off, Jitter: Off, Probes: 1}

// reopen lets the open breaker's time pass, and fails its probe.
func (r *rig) reopen() {
	r.Helper()
	r.fake.Advance(r.wait())
	require.Equal(r, counted, send(err500)(r))
	require.Equal(r, Open, r.State())
}

// wait returns how long the breaker is open from now on.
func (r *rig) wait() time.Duration {
	r.Helper()
	s := r.Status()
	require.Equal(r, Open, s.State)
	return s.Until.Sub(r.fake.Now())
}

// closeIt lets the open breaker's time pass, and its probes succeed.
func (r *rig) closeIt() {
	r.Helper()
	r.fake.Advance(r.wait())
	for r.State() == HalfOpen {
		require.Equal(r, counted, send(ok200)(r))
	}
	require.Equal(r, Closed, r.State())
}

func TestOpenFor_Doubles(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		cfg  Config
		want []time.Duration
	}{
		{"defaults", Config{}, []time.Duration{5, 10, 20, 40, 80, 160, 300, 300, 300}},
		{"own", Config{OpenFor: 3 * second, MaxOpenFor: 20 * second}, []time.Duration{3, 6, 12, 20, 20}},
		{"fixed", Config{OpenFor: 7 * second, MaxOpenFor: 7 * second}, []time.Duration{7, 7, 7}},
		{"long", Config{OpenFor: time.Hour}, []time.Duration{3600, 3600}},
		{"twice", Config{OpenFor: 4 * second, MaxOpenFor: 8 * second}, []time.Duration{4, 8, 8}},
		{"less than twice", Config{OpenFor: 4 * second, MaxOpenFor: 7 * second}, []time.Duration{4, 7, 7}},
	} {
		cfg := quick
		cfg.OpenFor, cfg.MaxOpenFor = row.cfg.OpenFor, row.cfg.MaxOpenFor
		r := rigged(t, cfg)
		send(err500)(r)
		for i, want := range row.want {
			require.Equal(t, want*second, r.wait(), "%s: opening %d", row.name, i+1)
			r.fake.Advance(r.wait() - 1)
			require.Equal(t, refused, send(ok200)(r))
			r.reopen()
		}
	}
}

// With jitter it is from half of the time to the whole, or as configured, and evenly.
func TestOpenFor_IsJittered(t *testing.T) {
	t.Parallel()
	for _, jitter := range []float64{0, 0.1, 0.5, 1} {
		const seed, n = 11, 400
		t.Logf("seed %d", seed)
		least := 1 - jitter
		if jitter == 0 {
			least = 0.5 // the default
		}
		lowest, highest, sum := make([]float64, 3), make([]float64, 3), make([]float64, 3)
		for i := range n {
			cfg := quick
			cfg.Jitter, cfg.Rand = jitter, rand.NewPCG(seed, uint64(i))
			r := rigged(t, cfg)
			send(err500)(r)
			for level, d := range []time.Duration{5 * second, 10 * second, 20 * second} {
				share := float64(r.wait()) / float64(d)
				require.GreaterOrEqual(t, share, least)
				require.LessOrEqual(t, share, 1.0)
				if i == 0 {
					lowest[level], highest[level] = share, share
				}
				lowest[level], highest[level] = min(lowest[level], share), max(highest[level], share)
				sum[level] += share
				r.reopen()
			}
		}
		for level := range 3 {
			width := 1 - least
			assert.InDelta(t, least, lowest[level], 0.03*width)
			assert.InDelta(t, 1, highest[level], 0.03*width)
			assert.InDelta(t, 1-width/2, sum[level]/n, 0.1*width)
		}
	}
	for _, u := range []float64{0, 0.25, 0.5, 0.75} { // exactly
		cfg := quick
		cfg.Jitter = 0.5
		r := rigged(t, cfg)
		r.random.say(u)
		send(err500)(r)
		assert.Equal(t, 5*second-time.Duration(u*2.5*float64(second)), r.wait())
	}
	cfg := quick
	cfg.OpenFor, cfg.MaxOpenFor, cfg.Jitter = 8*second, 8*second, 0.5
	r := rigged(t, cfg)
	r.random.say(0.5)
	send(err500)(r)
	assert.Equal(t, 6*second, r.wait(), "a fixed time has its jitter too")
}

// A thousand breakers that open at the same instant try again at different ones.
func TestOpenFor_SpreadsReturns_K11(t *testing.T) {
	t.Parallel()
	const seed, n = 3, 1000
	t.Logf("seed %d", seed)
	g, err := NewGroup(Config{Clock: clock.NewFake(dawn), Rand: rand.NewPCG(seed, 0)})
	require.NoError(t, err)
	defer g.Close()
	waits := make([]float64, n)
	sum := 0.0
	for i := range n {
		b := g.Breaker(fmt.Sprint(i))
		for range 5 {
			p, err := b.Allow()
			require.NoError(t, err)
			p.Done(err500)
		}
		s := b.Status()
		require.Equal(t, Open, s.State)
		waits[i] = s.Until.Sub(dawn).Seconds()
		sum += waits[i]
	}
	mean := sum / n
	assert.LessOrEqual(t, slices.Min(waits), 0.8*mean)
	assert.GreaterOrEqual(t, slices.Max(waits), 1.2*mean)
	tenths := [10]int{}
	for _, w := range waits {
		tenths[min(int((w-2.5)/0.25), 9)]++
	}
	for i, there := range tenths {
		assert.InDelta(t, n/10, there, n/20, "tenth %d", i)
	}
}

// One doubling is taken back for each open time that the breaker stays closed.
func TestOpenFor_FallsWhileClosed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		openings int           // before it closes
		calm     time.Duration // then
		want     time.Duration // of the next opening
	}{
		{1, 0, 10},
		{1, 5*second - 1, 10},
		{1, 5 * second, 5},
		{1, time.Hour, 5},
		{2, 0, 20},
		{2, 10*second - 1, 20},
		{2, 10 * second, 10},
		{2, 15*second - 1, 10},
		{2, 15 * second, 5},
		{4, 40*second - 1, 80},
		{4, 40 * second, 40},
		{4, 60 * second, 20},
		{4, 70 * second, 10},
		{4, 75 * second, 5},
		{7, 0, 300},
		{7, 300*second - 1, 300},
		{7, 300 * second, 300},
		{7, 460*second - 1, 300},
		{7, 460 * second, 160},
		{30, 460 * second, 160}, // at the maximum it does not count on
		{7, 615*second - 1, 10},
		{7, 615 * second, 5},
	} {
		r := rigged(t, quick)
		send(err500)(r)
		for range row.openings - 1 {
			r.reopen()
		}
		r.closeIt()
		r.fake.Advance(row.calm)
		send(err500)(r)
		assert.Equal(t, row.want*second, r.wait(), "closed for %v after %d openings", row.calm, row.openings)
	}
}

// Failures that do not open the breaker do not disturb that, and only the time since it
// closed last counts.
func TestOpenFor_FallsOnlyByTheLastCalm(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.ConsecutiveFailures, cfg.ProbeFailures = 2, 1
	r := rigged(t, cfg)
	times(2, send(err500))(r)
	r.reopen() // 10s
	r.closeIt()
	r.fake.Advance(4 * second)
	send(err500)(r)
	send(ok200)(r)
	r.fake.Advance(4 * second)
	times(2, send(err500))(r)
	assert.Equal(t, 20*second, r.wait())
	r.closeIt()
	r.fake.Advance(16 * second)
	times(2, send(err500))(r)
	assert.Equal(t, 40*second, r.wait(), "8s and 16s are not 20s")
	r.closeIt()
	r.fake.Advance(40 * second)
	times(2, send(err500))(r)
	assert.Equal(t, 40*second, r.wait(), "one taken back, one more")
	r.Reset()
	times(2, send(err500))(r)
	assert.Equal(t, 5*second, r.wait(), "after Reset it is as if it were new")
}

func TestRetryAfter_RaisesTheOpenTime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		cfg    Config
		random float64
		asked  time.Duration
		want   time.Duration
	}{
		{"longer", Config{Jitter: Off}, 0, 60 * second, 60 * second},
		{"shorter", Config{Jitter: Off}, 0, 2 * second, 5 * second},
		{"none", Config{Jitter: Off}, 0, 0, 5 * second},
		{"negative", Config{Jitter: Off}, 0, -60 * second, 5 * second},
		{"longer than the maximum", Config{Jitter: Off}, 0, time.Hour, 300 * second},
		{"longer than a lower maximum", Config{Jitter: Off, MaxOpenFor: 30 * second}, 0, time.Hour, 30 * second},
		{"longer than anything", Config{Jitter: Off}, 0, math.MaxInt64, 300 * second},
		{"a fixed time is the maximum", Config{Jitter: Off, OpenFor: 5 * second, MaxOpenFor: 5 * second}, 0, time.Minute, 5 * second},
		{"ignored", Config{Jitter: Off, IgnoreRetryAfter: true}, 0, 60 * second, 5 * second},
		{"ignored, with jitter", Config{IgnoreRetryAfter: true}, 0.5, 60 * second, 3750 * time.Millisecond},
		{"shorter than with jitter", Config{}, 0.5, second, 3750 * time.Millisecond},
	} {
		cfg := row.cfg
		cfg.ConsecutiveFailures = 1
		r := rigged(t, cfg)
		r.random.say(row.random)
		report(Result{Class: err500, RetryAfter: row.asked})(r)
		assert.Equal(t, row.want, r.wait(), row.name)
	}
}

// Clients that were all told the same do not come back together either, and never
// before they may.
func TestRetryAfter_IsNeverEarlier_K11(t *testing.T) {
	t.Parallel()
	const seed = 5
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	waits := map[time.Duration]bool{}
	for i := range 1000 {
		asked := 60 * second
		r := rigged(t, Config{ConsecutiveFailures: 1, Rand: rand.NewPCG(seed, uint64(i)), Probes: 1})
		if random.IntN(2) == 0 { // of the probe
			report(Result{Class: err500})(r)
			r.at(5 * second)
		}
		report(Result{Class: err500, RetryAfter: asked})(r)
		require.GreaterOrEqual(t, r.wait(), asked)
		require.LessOrEqual(t, r.wait(), 5*time.Minute)
		waits[r.wait()] = true
	}
	assert.Greater(t, len(waits), 900)
}

// Results that come when the breaker is open already neither extend nor end that.
func TestRetryAfter_LateOnesDoNotExtend_K05(t *testing.T) {
	t.Parallel()
	r := rigged(t, quick)
	begin("late")(r)
	send(err500)(r)
	assert.False(t, r.held["late"].Report(Result{Class: err500, RetryAfter: time.Minute}))
	assert.Equal(t, 5*second, r.wait())
}

// So long times are meant to be for ever: nothing overflows.
func TestOpenFor_TheLongestTimes(t *testing.T) {
	t.Parallel()
	const longest = time.Duration(math.MaxInt64)
	for _, cfg := range []Config{
		{OpenFor: longest, Jitter: Off},
		{OpenFor: longest - 1, Jitter: Off},
		{OpenFor: longest},
		{OpenFor: longest / 2, MaxOpenFor: longest, Jitter: Off},
		{MaxOpenFor: longest},
	} {
		cfg.ConsecutiveFailures = 1
		for _, asked := range []time.Duration{0, longest} {
			r := rigged(t, cfg)
			r.at(time.Minute)
			report(Result{Class: err500, RetryAfter: asked})(r)
			want := time.Hour
			if cfg.OpenFor == 0 && asked == 0 {
				want = second
			}
			r.at(time.Minute + want)
			assert.Equal(t, refused, send(ok200)(r), "%v of %v, asked for %v", cfg.OpenFor, cfg.MaxOpenFor, asked)
			assert.Equal(t, Open, r.State(), "%v of %v, asked for %v", cfg.OpenFor, cfg.MaxOpenFor, asked)
		}
	}
	cfg := quick
	cfg.RampFor = longest
	r := rigged(t, cfg)
	send(err500)(r)
	r.closeIt()
	r.random.say(0.5)
	assert.Equal(t, refused, send(ok200)(r), "it has only just begun to grow")
}

// Events and Status say when something happened, not when somebody noticed.
func TestChange_TellsWhen(t *testing.T) {
	t.Parallel()
	cfg := Config{Jitter: Off, Probes: 2, SlowAfter: time.Hour}
	r := rigged(t, cfg)
	r.at(second)
	times(2, send(ok200))(r)
	times(5, send(err500))(r)
	times(7, send(ok200))(r)
	r.at(10 * second)
	begin("hung")(r)
	send(ok200)(r)
	begin("hung too")(r)
	times(2, send(ok200))(r)
	r.at(time.Hour)
	s := r.Status()
	at := dawn.Add
	assert.Equal(t, Status{Name: "users", State: HalfOpen, Because: OpenTimeOver, Since: at(50 * second)}, s)
	assert.Equal(t, []Change{
		{Name: "users", To: Open, Reason: ConsecutiveFailures, At: at(second), Until: at(6 * second), Counts: Counts{Successes: 2, Failures: 5, ConsecutiveFailures: 5}},
		{Name: "users", From: Open, To: HalfOpen, Reason: OpenTimeOver, At: at(6 * second), Counts: Counts{Rejected: 7}},
		{Name: "users", From: HalfOpen, To: Open, Reason: ProbeTimedOut, At: at(40 * second), Until: at(50 * second), Counts: Counts{Successes: 1, Failures: 1, Rejected: 3}},
		{Name: "users", From: Open, To: HalfOpen, Reason: OpenTimeOver, At: at(50 * second)},
	}, r.told)

	require.NoError(t, r.SetMode(MetricsOnly))
	send(err500)(r)
	s = r.Status()
	assert.Equal(t, Status{
		Name: "users", Mode: MetricsOnly, State: Open, Because: ProbeFailed,
		Since: at(time.Hour), Until: at(time.Hour + 20*second),
	}, s)
	require.Len(t, r.told, 5)
	assert.Equal(t, Change{
		Name: "users", From: HalfOpen, To: Open, Reason: ProbeFailed, Mode: MetricsOnly,
		At: at(time.Hour), Until: at(time.Hour + 20*second), Counts: Counts{Failures: 1},
	}, r.told[4])

	require.NoError(t, r.SetMode(ForcedOpen))
	s = r.Status()
	assert.Equal(t, Status{Name: "users", Mode: ForcedOpen, State: Open, Because: ModeSet, Since: at(time.Hour)}, s)
	assert.Len(t, r.told, 5, "it was open")
	require.NoError(t, r.SetMode(Auto))
	require.NoError(t, r.SetMode(ForcedOpen))
	require.Len(t, r.told, 7)
	assert.Equal(t, Change{Name: "users", From: Closed, To: Open, Reason: ModeSet, Mode: ForcedOpen, At: at(time.Hour)}, r.told[6])
}

func TestClasses_CancelledByTheCaller_K01(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {WindowCalls: 100}, {SlowAfter: 1}, {OverloadFails: true}} {
		r := rigged(t, cfg)
		times(4, send(err500))(r)
		before := r.Counts()
		for range 1000 {
			require.Equal(t, notCounted, report(Result{Class: hangsUp, Took: time.Hour})(r))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("left the page"))
		for range 1000 {
			err := r.Do(ctx, context.Cause)
			require.EqualError(t, err, "left the page")
		}
		assert.Equal(t, before, r.Counts(), "neither a success nor a failure, and the row goes on")
		assert.Equal(t, Closed, r.State())
		send(err500)(r)
		assert.Equal(t, Open, r.State())
	}
}

func TestClasses_ClientErrors_K06(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	require.Equal(t, notCounted, times(1000, send(ok404))(r))
	assert.Zero(t, r.Counts())
	assert.Equal(t, Closed, r.State())

	r = rigged(t, Config{ConsecutiveFailures: Off})
	for i := range 20 { // interleaved with failures and successes
		require.Equal(t, Closed, r.State(), "after %d", i)
		times(3, send(ok404))(r)
		if i%2 == 0 {
			send(ok200)(r)
		} else {
			send(err500)(r)
		}
	}
	assert.Equal(t, Open, r.State(), "half of those that count")

	r = rigged(t, Config{FailureRate: Off})
	for i := range 5 { // the row of failures goes on
		require.Equal(t, Closed, r.State(), "after %d", i)
		times(3, send(ok404))(r)
		send(err500)(r)
	}
	assert.Equal(t, Open, r.State())
}

func TestClasses_Overload_K07(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	times(4, send(err500))(r)
	require.Equal(t, notCounted, times(1000, send(err429))(r))
	assert.Equal(t, Counts{Failures: 4, ConsecutiveFailures: 4}, r.Counts())
	assert.Equal(t, Closed, r.State())

	follow(t, Config{OverloadFails: true}, []step{
		{0, times(4, send(err429)), counted, Closed},
		{0, send(err429), counted, Open},
	})
	follow(t, Config{OverloadFails: true, ConsecutiveFailures: Off}, []step{
		{0, times(10, send(ok200)), counted, Closed},
		{0, times(9, send(err429)), counted, Closed},
		{0, send(err429), counted, Open},
	})
}

func TestClasses_AllOthersAreNeutral(t *testing.T) {
	t.Parallel()
	for c := range outcome.Class(255) {
		r := rigged(t, Config{})
		want := notCounted
		if c == ok200 || c == err500 || c == noDial {
			want = counted
		}
		assert.Equal(t, want, send(c)(r), "%v", c)
		assert.Equal(t, want, countedIf(r.Counts() != Counts{}), "%v", c)
	}
}

// Done says whether it counted, a second time never.
func TestPermit_GivenBackTwice(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{ConsecutiveFailures: 2, Probes: 2})
	begin("a")(r)
	assert.Equal(t, counted, end("a", err500)(r))
	for range 10 {
		assert.Equal(t, notCounted, end("a", err500)(r))
		assert.False(t, r.held["a"].Report(Result{Class: ok200}))
	}
	assert.Equal(t, Counts{Failures: 1, ConsecutiveFailures: 1}, r.Counts())

	var none Permit
	assert.False(t, none.Done(ok200), "one that nobody gave")
}

func TestSteps_ModesAndReset(t *testing.T) {
	t.Parallel()
	fast := Config{ConsecutiveFailures: 2, Jitter: Off, Probes: 1}
	mode := func(m Mode) Config {
		c := fast
		c.Mode = m
		return c
	}
	for _, row := range []struct {
		name  string
		cfg   Config
		steps []step
		why   []Reason
	}{
		{"forced open", mode(ForcedOpen), []step{
			{0, send(ok200), refused, Open},
			{1000 * time.Hour, times(10, send(ok200)), refused, Open},
			{1000 * time.Hour, reset, "", Open},
			{2000 * time.Hour, send(ok200), refused, Open},
			{2000 * time.Hour, setMode(Auto), "", Closed},
			{2000 * time.Hour, send(ok200), counted, Closed},
		}, []Reason{ModeSet}},
		{"forced open and not", fast, []step{
			{0, begin("a"), admitted, Closed},
			{0, send(err500), counted, Closed},
			{0, setMode(ForcedOpen), "", Open},
			{1 * second, send(ok200), refused, Open},
			{1 * second, end("a", err500), notCounted, Open},
			{time.Hour, send(ok200), refused, Open},
			{time.Hour, setMode(ForcedOpen), "", Open},
			{time.Hour, setMode(Auto), "", Closed},
			{time.Hour, send(err500), counted, Closed}, // the row was forgotten
			{time.Hour, send(err500), counted, Open},
		}, []Reason{ModeSet, ModeSet, ConsecutiveFailures}},
		{"forced open while open", fast, []step{
			{0, times(2, send(err500)), counted, Open},
			{0, setMode(ForcedOpen), "", Open},
			{time.Hour, nothing, "", Open},
			{time.Hour, setMode(Auto), "", Closed},
		}, []Reason{ConsecutiveFailures, ModeSet}},
		{"forced open while half-open", fast, []step{
			{0, times(2, send(err500)), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, setMode(ForcedOpen), "", Open},
			{5 * second, end("a", ok200), notCounted, Open},
			{time.Hour, nothing, "", Open},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ModeSet}},
		{"disabled", mode(Disabled), []step{
			{0, times(100, send(err500)), notCounted, Closed},
			{0, times(100, send(ok200)), notCounted, Closed},
			{0, begin("a"), admitted, Closed},
			{0, setMode(Auto), "", Closed},
			{0, end("a", err500), notCounted, Closed},
			{0, send(err500), counted, Closed},
			{0, send(err500), counted, Open},
		}, []Reason{ConsecutiveFailures}},
		{"disabled while open", fast, []step{
			{0, send(err500), counted, Closed},
			{0, begin("a"), admitted, Closed},
			{0, send(err500), counted, Open},
			{0, setMode(Disabled), "", Closed},
			{0, times(100, send(err500)), notCounted, Closed},
			{0, reset, "", Closed},
			{0, times(100, send(err500)), notCounted, Closed},
			{0, setMode(ForcedOpen), "", Open},
			{0, send(err500), refused, Open},
			{0, setMode(Disabled), "", Closed},
			{0, send(err500), notCounted, Closed},
			{0, setMode(MetricsOnly), "", Closed},
			{0, times(2, send(err500)), counted, Open},
			{0, send(err500), notCounted, Open},
		}, []Reason{ConsecutiveFailures, ModeSet, ModeSet, ModeSet, ConsecutiveFailures}},
		{"disabled while half-open", fast, []step{
			{0, times(2, send(err500)), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, setMode(Disabled), "", Closed},
			{5 * second, end("a", ok200), notCounted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ModeSet}},
		{"metrics only", mode(MetricsOnly), []step{
			{0, times(2, send(err500)), counted, Open},
			{1 * second, times(10, send(ok200)), notCounted, Open}, // Auto would have refused them
			{1 * second, times(10, send(err500)), notCounted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, begin("b"), admitted, HalfOpen}, // beyond the one probe
			{5 * second, end("b", ok200), notCounted, HalfOpen},
			{5 * second, end("a", err500), counted, Open},
			{15 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeFailed, OpenTimeOver, ProbesSucceeded}},
		{"metrics only and hung probes", mode(MetricsOnly), []step{
			{0, times(2, send(err500)), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{34 * second, send(ok200), notCounted, HalfOpen},
			{35 * second, send(ok200), notCounted, Open},
			{45 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeTimedOut, OpenTimeOver, ProbesSucceeded}},
		{"metrics only and back: the state stays", fast, []step{
			{0, begin("a"), admitted, Closed},
			{0, send(err500), counted, Closed},
			{0, setMode(MetricsOnly), "", Closed},
			{0, end("a", err500), counted, Open}, // the second in a row
			{0, send(ok200), notCounted, Open},
			{0, setMode(Auto), "", Open},
			{0, send(ok200), refused, Open},
			{5 * second, begin("b"), admitted, HalfOpen},
			{5 * second, setMode(MetricsOnly), "", HalfOpen},
			{5 * second, send(ok200), notCounted, HalfOpen},
			{5 * second, setMode(Auto), "", HalfOpen},
			{5 * second, send(ok200), refused, HalfOpen},
			{5 * second, end("b", ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"metrics only from forced open", mode(ForcedOpen), []step{
			{0, setMode(MetricsOnly), "", Closed},
			{0, times(2, send(err500)), counted, Open},
		}, []Reason{ModeSet, ConsecutiveFailures}},
		{"reset while closed", fast, []step{
			{0, begin("a"), admitted, Closed},
			{0, send(err500), counted, Closed},
			{0, reset, "", Closed},
			{0, end("a", err500), notCounted, Closed},
			{0, send(err500), counted, Closed},
			{0, send(err500), counted, Open},
		}, []Reason{ConsecutiveFailures}},
		{"reset while open", fast, []step{
			{0, times(2, send(err500)), counted, Open},
			{0, reset, "", Closed},
			{0, times(2, send(err500)), counted, Open},
			{5*second - 1, send(ok200), refused, Open},
			{5 * second, send(ok200), counted, Closed}, // not doubled
		}, []Reason{ConsecutiveFailures, WasReset, ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"reset while half-open", fast, []step{
			{0, times(2, send(err500)), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, reset, "", Closed},
			{5 * second, end("a", err500), notCounted, Closed},
			{5 * second, send(err500), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, WasReset}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := follow(t, row.cfg, row.steps)
			assert.Equal(t, row.why, r.reasons())
		})
	}
}

// Whatever the mode was: counts, permits and errors are those of the new one.
func TestModes_CountNothingOfTheOther(t *testing.T) {
	t.Parallel()
	for from := range MetricsOnly + 1 {
		for to := range MetricsOnly + 1 {
			r := rigged(t, Config{Mode: from, ConsecutiveFailures: 3, FailureRate: Off, TripIf: func(Counts) bool { return false }})
			times(2, send(err500))(r)
			require.NoError(t, r.SetMode(to))
			s := r.Status()
			assert.Equal(t, to, s.Mode)
			want := Closed
			if to == ForcedOpen {
				want = Open
			}
			assert.Equal(t, want, s.State, "%v to %v", from, to)
			counts, because := Counts{}, ModeSet
			if from == to {
				because = Created
			}
			if from == ForcedOpen && to == ForcedOpen {
				counts.Rejected = 2
			}
			if !from.fixed() && !to.fixed() {
				counts, because = Counts{Failures: 2, ConsecutiveFailures: 2}, Created
			}
			assert.Equal(t, counts, s.Counts, "%v to %v", from, to)
			assert.Equal(t, because, s.Because, "%v to %v", from, to)
			assert.True(t, s.Until.IsZero())
		}
	}
	r := rigged(t, Config{})
	assert.ErrorContains(t, r.SetMode(MetricsOnly+1), "Mode")
	assert.Equal(t, Auto, r.Status().Mode)
}

func TestUse_StateAndCountsStay_P01(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{Jitter: Off})
	times(3, send(ok200))(r)
	times(4, send(err500))(r)
	before := r.Status()
	begin("a")(r)
	require.NoError(t, r.Use(Config{Jitter: Off, FailureRate: 0.9, OpenFor: time.Minute, Probes: 1, MinCalls: 8}))
	assert.Equal(t, before, r.Status())
	assert.Equal(t, counted, end("a", err500)(r))
	assert.Equal(t, time.Minute, r.wait(), "the fifth in a row, and the new time")

	require.NoError(t, r.Use(Config{Jitter: Off, OpenFor: second}))
	assert.Equal(t, time.Minute, r.wait(), "it is open for as long as it was to be")
	r.at(time.Minute - 1)
	assert.Equal(t, refused, send(ok200)(r))
	r.at(time.Minute)
	for _, name := range []string{"b", "c", "d"} {
		require.Equal(t, admitted, begin(name)(r))
	}
	assert.Equal(t, refused, begin("e")(r), "and then has the new number of probes")
	require.NoError(t, r.Use(Config{Jitter: Off, Probes: 4}))
	assert.Equal(t, HalfOpen, r.State())
	assert.Equal(t, admitted, begin("e")(r))
	assert.Equal(t, counted, end("e", ok200)(r))
	assert.Equal(t, counted, end("b", ok200)(r), "permits stay good")
	assert.Equal(t, notCounted, end("c", hangsUp)(r))

	err := r.Use(Config{Probes: -1, FailureRate: 2})
	assert.ErrorContains(t, err, "Probes")
	assert.ErrorContains(t, err, "FailureRate")
	assert.Equal(t, HalfOpen, r.State())
	assert.Equal(t, Counts{Successes: 2, Rejected: 1}, r.Counts(), "nothing has changed")
	send(ok200)(r)
	assert.Equal(t, HalfOpen, r.State(), "still four")
	assert.Equal(t, counted, end("d", ok200)(r))
	assert.Equal(t, Closed, r.State())
}

// What an operator has set stays when the configuration changes, unless that is to have
// another mode.
func TestUse_KeepsTheModeThatWasSet_P01(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	for i, row := range []struct {
		event event
		mode  Mode
	}{
		{setMode(ForcedOpen), ForcedOpen},
		{use(Config{Probes: 7}), ForcedOpen},
		{use(Config{Probes: 8}), ForcedOpen}, // also the second time
		{use(Config{Mode: Disabled}), Disabled},
		{setMode(Auto), Auto},
		{use(Config{Mode: Disabled, Probes: 9}), Auto},
		{use(Config{Mode: MetricsOnly}), MetricsOnly},
		{use(Config{Mode: MetricsOnly, Probes: 9}), MetricsOnly},
		{setMode(MetricsOnly), MetricsOnly},
		{use(Config{}), Auto},
		{setMode(Disabled), Disabled},
		{reset, Disabled},
		{use(Config{WindowCalls: 10}), Disabled},
		{setMode(Auto), Auto},
		{use(Config{Mode: ForcedOpen}), ForcedOpen},
		{use(Config{}), Auto},
	} {
		row.event(r)
		assert.Equal(t, row.mode, r.Status().Mode, "after step %d", i)
		assert.Equal(t, row.mode == ForcedOpen, r.State() == Open)
	}
	assert.Equal(t, counted, send(ok200)(r))
}

// The clock, the randomness and who is told stay those of New.
func TestUse_KeepsWhatCannotChange_P01(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.Jitter = 0.5
	r := rigged(t, cfg)
	r.at(second)
	r.random.say(0.5)
	cfg.Clock, cfg.Rand = clock.NewFake(dawn.Add(time.Hour)), rand.NewPCG(1, 1)
	cfg.OnChange = func(Change) { t.Error("was replaced") }
	require.NoError(t, r.Use(cfg))
	send(err500)(r)
	assert.Equal(t, 3750*time.Millisecond, r.wait())
	require.Len(t, r.told, 1)
	assert.Equal(t, dawn.Add(second), r.told[0].At)
	require.NoError(t, r.Use(Config{Mode: ForcedOpen}))
	assert.Equal(t, Status{Name: "users", Mode: ForcedOpen, State: Open, Because: ModeSet, Since: dawn.Add(second)}, r.Status())
}

// A window of another shape begins empty; the row of failures, the state and the
// number of those that were refused are no window's.
func TestUse_AnotherWindow_P01(t *testing.T) {
	t.Parallel()
	for _, then := range []Config{{Window: second}, {WindowCalls: 100}, {FailureRate: Off}} {
		r := rigged(t, Config{Jitter: Off})
		times(3, send(ok200))(r)
		times(4, send(err500))(r)
		then.Jitter = Off
		r.at(time.Minute)
		require.NoError(t, r.Use(then))
		assert.Equal(t, Status{Name: "users", Because: Created, Since: dawn, Counts: Counts{ConsecutiveFailures: 4}}, r.Status())
		send(err500)(r)
		assert.Equal(t, 5*second, r.wait())
	}
	cfg := quick
	cfg.RampFor, cfg.OpenFor = 30*second, 20*second
	r := rigged(t, cfg)
	r.at(second)
	send(err500)(r)
	r.closeIt()
	r.random.say(0.5)
	require.Equal(t, refused, times(3, send(ok200))(r))
	r.at(31 * second)
	cfg.WindowCalls, cfg.FailureRate = 10, 0.5
	require.NoError(t, r.Use(cfg))
	assert.Equal(t, Status{
		Name: "users", Because: ProbesSucceeded, Since: dawn.Add(21 * second), Counts: Counts{Rejected: 3},
	}, r.Status())
	assert.Equal(t, refused, send(ok200)(r), "the ramp goes on")
	r.at(37 * second)
	assert.Equal(t, counted, send(ok200)(r))
	r.at(41*second - 1)
	send(err500)(r)
	assert.Equal(t, 40*second, r.wait(), "closed for just less than 20s")
	require.NotEmpty(t, r.told)
	assert.Equal(t, Closed, r.told[len(r.told)-1].From)
}

// Calls that began before slowness was looked at are as slow as they are.
func TestUse_SlowAfter_OfCallsUnderWay(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	r.at(time.Hour)
	begin("fast")(r)
	begin("slow")(r)
	r.at(time.Hour + second)
	require.NoError(t, r.Use(Config{SlowAfter: 2 * second}))
	assert.Equal(t, counted, end("fast", ok200)(r))
	assert.Equal(t, Counts{Successes: 1}, r.Counts(), "it took a second")
	r.at(time.Hour + 3*second)
	assert.Equal(t, counted, end("slow", ok200)(r))
	assert.LessOrEqual(t, r.Counts().Slow, 1)
}

// A breaker that has just closed lets a growing part of the calls through.
func TestRamp_GrowsFromATenthToAll_K12(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.RampFor = 30 * second
	r := rigged(t, cfg)
	send(err500)(r)
	r.closeIt()
	closed := r.now()
	before := 0.0
	for tenths := range 175 {
		at := time.Duration(tenths) * 200 * time.Millisecond
		r.at(closed + at)
		passed := 0
		for i := range 1000 {
			r.random.say(float64(i) / 1000)
			if send(ok200)(r) != refused {
				passed++
			}
		}
		share := float64(passed) / 1000
		require.GreaterOrEqual(t, share, before, "at %v", at)
		require.InDelta(t, min(1, max(0.1, at.Seconds()/30)), share, 0.0011, "at %v", at)
		before = share
	}
	assert.InDelta(t, 1.0, before, 0)
	assert.Len(t, r.told, 3)
}

func TestRamp_ARealDraw_K12(t *testing.T) {
	t.Parallel()
	const seed, n = 9, 20000
	t.Logf("seed %d", seed)
	cfg := quick
	cfg.RampFor, cfg.Rand = 30*second, rand.NewPCG(seed, 0)
	r := rigged(t, cfg)
	send(err500)(r)
	r.closeIt()
	closed := r.now()
	for _, at := range []time.Duration{0, 6, 15, 24, 30} {
		r.at(closed + at*second)
		passed := 0
		for range n {
			if send(ok200)(r) != refused {
				passed++
			}
		}
		assert.InDelta(t, max(0.1, float64(at)/30), float64(passed)/n, 0.015) // four standard deviations
	}
}

func TestRamp_FailuresReopen_K12(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		at     time.Duration // since it closed
		enough int           // failures
	}{{0, 5}, {3 * second, 5}, {6 * second, 5}, {9 * second, 6}, {15 * second, 10}, {29 * second, 20}, {30 * second, 20}, {time.Hour, 20}} {
		cfg := Config{ConsecutiveFailures: Off, Jitter: Off, Probes: 1, RampFor: 30 * second}
		r := rigged(t, cfg)
		times(20, send(err500))(r)
		r.closeIt()
		r.at(r.now() + row.at)
		if row.enough > 1 {
			require.Equal(t, counted, times(row.enough-1, send(err500))(r))
		}
		assert.Equal(t, Closed, r.State(), "%d at %v", row.enough-1, row.at)
		require.Equal(t, counted, send(err500)(r))
		assert.Equal(t, Open, r.State(), "%d at %v", row.enough, row.at)
	}
	cfg := Config{Jitter: Off, Probes: 1, RampFor: 30 * second}
	r := rigged(t, cfg)
	times(5, send(err500))(r)
	r.closeIt()
	times(10, send(ok200))(r)
	require.Equal(t, Closed, r.State())
	times(5, send(err500))(r)
	assert.Equal(t, 10*second, r.wait(), "a burst reopens it, for longer")
	cfg.MinCalls = 3
	r = rigged(t, cfg)
	times(3, send(err500))(r)
	r.closeIt()
	times(2, send(err500))(r)
	require.Equal(t, Closed, r.State(), "five, or what is enough at other times")
	send(err500)(r)
	assert.Equal(t, Open, r.State())
}

// Those that are refused while the traffic grows are told when all may come. In the mode
// MetricsOnly they are counted as refused and are not.
func TestRamp_Refusals_K12(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.RampFor = 30 * second
	r := rigged(t, cfg)
	send(err500)(r)
	r.closeIt()
	r.random.say(0.99)
	_, err := r.Allow()
	var open *OpenError
	require.ErrorAs(t, err, &open)
	assert.Equal(t, Closed, open.State)
	assert.Equal(t, ProbesSucceeded, open.Because)
	assert.Zero(t, open.Until, "some pass at any time")
	assert.Zero(t, open.RetryAfter())
	assert.Equal(t, uint64(1), r.Counts().Rejected)
	require.NoError(t, r.SetMode(MetricsOnly))
	assert.Equal(t, notCounted, send(err500)(r), "Auto would have refused it")
	assert.Equal(t, uint64(2), r.Counts().Rejected)
	assert.Equal(t, Closed, r.State())
	r.random.say(0.05)
	assert.Equal(t, counted, send(ok200)(r))

	for _, end := range []event{reset, func(r *rig) string { setMode(Disabled)(r); return setMode(Auto)(r) }} {
		cfg.Mode = Auto
		r = rigged(t, cfg)
		send(err500)(r)
		r.closeIt()
		r.random.say(0.99)
		require.Equal(t, refused, send(ok200)(r))
		end(r)
		assert.Equal(t, counted, send(ok200)(r), "what is new does not ramp")
	}
	r = rigged(t, cfg)
	r.random.say(0.99)
	assert.Equal(t, counted, send(ok200)(r), "what is new does not ramp")
}

func TestOpenError_SaysWhoWhyAndWhen_K15(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{Jitter: Off, Probes: 1})
	r.at(second)
	times(5, send(err500))(r)
	r.at(2 * second)
	_, err := r.Allow()
	_, again := r.Allow()
	assert.Same(t, err, again, "one error for all of a phase")
	require.ErrorIs(t, err, ErrOpen)
	assert.Equal(t, outcome.Open, outcome.ReasonOf(err))
	assert.EqualError(t, err, "breaker: users is open (consecutive_failures), next try in 4s")
	var open *OpenError
	require.ErrorAs(t, err, &open)
	assert.Equal(t, "users", open.Name)
	assert.Equal(t, Open, open.State)
	assert.Equal(t, ConsecutiveFailures, open.Because)
	assert.Equal(t, dawn.Add(6*second), open.Until)
	assert.Equal(t, 4*second, open.RetryAfter())
	r.at(5 * second)
	assert.Equal(t, second, open.RetryAfter())
	r.at(6 * second)
	assert.Zero(t, open.RetryAfter())
	r.at(time.Hour)
	assert.Zero(t, open.RetryAfter())

	begin("a")(r)
	_, err = r.Allow()
	require.ErrorAs(t, err, &open)
	assert.Equal(t, HalfOpen, open.State)
	assert.Zero(t, open.Until)
	assert.Zero(t, open.RetryAfter())
	assert.EqualError(t, err, "breaker: users is half-open (open_time_over)")

	require.NoError(t, r.SetMode(ForcedOpen))
	_, err = r.Allow()
	require.ErrorAs(t, err, &open)
	assert.Equal(t, ModeSet, open.Because)
	assert.Zero(t, open.Until)
	assert.Zero(t, open.RetryAfter())
	assert.EqualError(t, err, "breaker: users is open (mode_set)")
	assert.Equal(t, "users", r.Breaker.Name())
}

func TestNames(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "closed open half-open State(9)", fmt.Sprint(Closed, Open, HalfOpen, State(9)))
	assert.Equal(t, "auto forced open disabled metrics only Mode(9)", fmt.Sprint(Auto, ForcedOpen, Disabled, MetricsOnly, Mode(9)))
}

// jumping is a clock that the test sets, also back.
type jumping struct{ now atomic.Int64 }

func (j *jumping) Now() time.Time { return dawn.Add(time.Duration(j.now.Load())) }

func (j *jumping) AfterFunc(time.Duration, func()) clock.Timer { return noTimer{} }

// noTimer is a timer that does nothing.
type noTimer struct{}

func (noTimer) Stop() bool { return true }

// jumpRig is a rig whose clock may jump.
func jumpRig(t *testing.T, cfg Config) (*rig, func(time.Duration)) {
	t.Helper()
	j := &jumping{}
	j.now.Store(int64(time.Hour))
	cfg.Clock, cfg.Rand, cfg.Jitter = j, &steady{}, Off
	b, err := New("users", cfg)
	require.NoError(t, err)
	r := &rig{TB: t, Breaker: b, held: map[string]*Permit{}}
	return r, func(d time.Duration) { j.now.Store(int64(d)) }
}

// A clock that jumps back makes nothing end too early, loses nothing and forgets nothing.
func TestTime_JumpsBack(t *testing.T) {
	t.Parallel()
	for _, back := range []time.Duration{1, time.Millisecond, second, 3 * second, time.Minute, time.Hour, 2 * time.Hour} {
		name := fmt.Sprint(back)
		r, at := jumpRig(t, Config{SlowAfter: second, Probes: 1, OpenFor: 5 * second, MaxOpenFor: 5 * second})
		at(2 * time.Hour)
		send(ok200)(r)
		times(2, send(err500))(r)
		begin("a")(r)
		at(2*time.Hour - back)
		assert.Equal(t, counted, end("a", err500)(r), name)
		assert.Equal(t, Counts{Successes: 1, Failures: 3, ConsecutiveFailures: 3}, r.Counts(), name)
		send(err500)(r)
		assert.Equal(t, Closed, r.State())
		begin("late")(r)
		send(err500)(r)
		assert.Equal(t, Open, r.State(), "%s: the row goes on", name)
		opened := 2*time.Hour - back

		at(opened - back)
		assert.Equal(t, refused, send(ok200)(r), name)
		assert.Equal(t, Open, r.State(), name)
		_, err := r.Allow()
		var open *OpenError
		require.ErrorAs(t, err, &open)
		assert.Equal(t, 5*second+back, open.RetryAfter(), name)
		assert.Equal(t, notCounted, end("late", err500)(r), name)
		at(opened + 5*second - 1)
		assert.Equal(t, refused, send(ok200)(r), name)
		at(opened + 5*second)
		assert.Equal(t, admitted, begin("probe")(r), name)
		at(opened + 5*second - back)
		assert.Equal(t, refused, send(ok200)(r), "%s: half-open it stays", name)
		assert.Equal(t, HalfOpen, r.State(), name)
		assert.Equal(t, counted, end("probe", ok200)(r), name)
		assert.Equal(t, Closed, r.State(), name)
		at(opened - 2*back)
		assert.Equal(t, Closed, r.State(), name)
		times(5, send(err500))(r)
		assert.Equal(t, Open, r.State(), name)
	}
}

// What jumps back by less than the window is in the window.
func TestTime_JumpsBackInTheWindow(t *testing.T) {
	t.Parallel()
	for _, first := range []time.Duration{time.Hour, time.Hour + 100*time.Millisecond, time.Hour + 999*time.Millisecond} {
		for back := time.Duration(0); back <= 8*second; back += 100 * time.Millisecond {
			r, at := jumpRig(t, Config{ConsecutiveFailures: Off, FailureRate: 1})
			at(time.Hour)
			send(ok200)(r)
			at(first + 10*second)
			send(ok200)(r)
			send(err500)(r)
			at(first + 10*second - back)
			send(ok200)(r)
			send(err500)(r)
			assert.Equal(t, Counts{Successes: 2, Failures: 2, ConsecutiveFailures: 1}, r.Counts(), "%v back", back)
			at(first + 10*second)
			assert.Equal(t, Counts{Successes: 2, Failures: 2, ConsecutiveFailures: 1}, r.Counts(), "%v back and again there", back)
			at(first + 21*second)
			assert.Zero(t, r.Counts().Calls(), "%v back: it leaves the window", back)
		}
	}
}

// After a jump of an hour back the rates still find what is sick.
func TestTime_JumpsFarBack(t *testing.T) {
	t.Parallel()
	r, at := jumpRig(t, Config{ConsecutiveFailures: Off})
	for i := range 100 {
		at(2*time.Hour + time.Duration(i)*100*time.Millisecond)
		send(ok200)(r)
		if i%10 == 0 {
			send(err500)(r)
		}
	}
	for i := range 1000 {
		at(90*time.Minute + time.Duration(i)*100*time.Millisecond)
		send(err500)(r)
	}
	assert.Equal(t, Open, r.State(), "100 seconds of nothing but failures")
}

// The ramp does not run backwards into refusing all, and a probe does not time out early.
func TestTime_JumpsBackInTheRamp(t *testing.T) {
	t.Parallel()
	j := &jumping{}
	source := &steady{}
	cfg := quick
	cfg.Clock, cfg.Rand, cfg.RampFor = j, source, 30*second
	b, err := New("users", cfg)
	require.NoError(t, err)
	r := &rig{TB: t, Breaker: b, held: map[string]*Permit{}}
	j.now.Store(int64(time.Hour))
	send(err500)(r)
	j.now.Store(int64(time.Hour + 5*second))
	send(ok200)(r)
	require.Equal(t, Closed, r.State())
	j.now.Store(int64(time.Minute))
	source.say(0.09)
	assert.Equal(t, counted, send(ok200)(r), "a tenth always passes")
	source.say(0.11)
	assert.Equal(t, refused, send(ok200)(r))
	j.now.Store(int64(time.Hour + 35*second))
	assert.Equal(t, counted, send(ok200)(r))
	j.now.Store(int64(time.Minute))
	assert.Equal(t, counted, send(ok200)(r), "what has ended stays so")
}

// The body of a probe may break when that has closed the breaker already: then it is a
// failure of what came.
func TestBroke_ProbeThatClosedIt_K16(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {WindowCalls: 10}} {
		cfg.ConsecutiveFailures, cfg.Jitter, cfg.Probes = 2, Off, 1
		r := rigged(t, cfg)
		times(2, send(err500))(r)
		r.at(5 * second)
		require.Equal(t, HalfOpen, r.State())
		half := r.phase.Load()
		send(ok200)(r)
		require.Equal(t, Closed, r.State())
		half.Broke(outcome.Answer{Class: outcome.Success})
		assert.Equal(t, Counts{Failures: 1, ConsecutiveFailures: 1}, r.Counts())
		send(err500)(r)
		assert.Equal(t, 10*second, r.wait(), "the second in a row")
		half.Broke(outcome.Answer{Class: outcome.Success})
		assert.Equal(t, 10*second, r.wait(), "that is over")
	}
}

// A good answer whose body breaks later has failed after all.
func TestBroke_TakesTheSuccessBack_K16(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {WindowCalls: 10}, {FailureRate: Off}, {SlowAfter: time.Hour}} {
		r := rigged(t, cfg)
		times(3, send(ok200))(r)
		p := r.phase.Load()
		for i := range 3 {
			r.at(time.Duration(i/2+1) * 1500 * time.Millisecond) // twice in the same tick, which is not that of the successes
			p.Broke(outcome.Answer{Class: outcome.Success})
			if cfg.FailureRate != Off {
				assert.Equal(t, Counts{Successes: 2 - i, Failures: 1 + i, ConsecutiveFailures: 1 + i}, r.Counts())
			}
		}
		times(1, send(err500))(r)
		require.Equal(t, Closed, r.State())
		p.Broke(outcome.Answer{Class: outcome.Success})
		assert.Equal(t, Open, r.State(), "the fifth")
		until := r.Status().Until
		p.Broke(outcome.Answer{Class: outcome.Success})
		assert.Equal(t, Counts{}, r.Counts(), "and after that it is over")
		assert.Equal(t, until, r.Status().Until, "and does not extend anything")
	}
	r := rigged(t, Config{ConsecutiveFailures: 1, Jitter: Off})
	send(err500)(r)
	r.at(5 * second)
	times(2, send(ok200))(r)
	r.phase.Load().Broke(outcome.Answer{Class: outcome.Success})
	assert.Equal(t, Open, r.State(), "a probe that broke has failed")
	r = rigged(t, Config{ConsecutiveFailures: 1, Jitter: Off, ProbeFailures: 2})
	send(err500)(r)
	r.at(5 * second)
	times(2, send(ok200))(r)
	r.phase.Load().Broke(outcome.Answer{Class: outcome.Success})
	assert.Equal(t, Counts{Successes: 1, Failures: 1}, r.Counts())
	send(ok200)(r)
	assert.Equal(t, HalfOpen, r.State())
	send(ok200)(r)
	assert.Equal(t, Closed, r.State())
	r = rigged(t, Config{Mode: Disabled})
	send(ok200)(r)
	r.phase.Load().Broke(outcome.Answer{Class: outcome.Success})
	assert.Zero(t, r.Counts())
}

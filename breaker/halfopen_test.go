package breaker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// fate is what becomes of a probe in the truth table.
type fate byte

const (
	succeeds fate = 'G' // every other one of them with a client error
	fails    fate = 'B'
	cancels  fate = 'N'
	hangs    fate = 'H' // and never ends
	late     fate = 'L' // hangs, and ends when it was given up already
)

// destiny is the rule of the truth table. As soon as enough probes were good the breaker is
// closed, and as soon as enough have failed it is open. Those that hang have failed when
// their time is up; the others wait for that if there is no room, and in the end all do.
type destiny struct {
	permits, successes, failures int

	good, bad, hung, began int
}

func (d *destiny) state() State {
	switch {
	case d.bad == d.failures:
		return Open
	case d.good == d.successes:
		return Closed
	}
	return HalfOpen
}

// wait lets those fail that hang, until that decides.
func (d *destiny) wait() {
	for ; d.hung > 0 && d.state() == HalfOpen; d.hung-- {
		d.bad++
	}
}

// fulfil does all that is fated to happen.
func (d *destiny) fulfil(fates []fate) {
	for _, f := range fates {
		if d.state() == HalfOpen && (d.hung == d.permits || d.good+d.hung == max(d.permits, d.successes)) {
			d.wait()
		}
		if d.state() != HalfOpen {
			return
		}
		d.began++
		switch f {
		case succeeds:
			d.good++
		case fails:
			d.bad++
		case hangs, late:
			d.hung++
		case cancels:
		}
	}
	d.wait()
}

// suffer does the same to a breaker, and compares.
func suffer(t *testing.T, d destiny, fates []fate) {
	t.Helper()
	name := fmt.Sprintf("%d permits, %d successes, %d failures, %s", d.permits, d.successes, d.failures, string(fates))
	r := rigged(t, Config{
		ConsecutiveFailures: 1, FailureRate: Off, Jitter: Off, OpenFor: time.Hour, MaxOpenFor: time.Hour,
		Probes: d.permits, ProbeSuccesses: d.successes, ProbeFailures: d.failures, ProbeTimeout: time.Minute,
	})
	early, err := r.Allow() // ends as late as those that hang
	require.NoError(t, err)
	send(err500)(r)
	r.fake.Advance(time.Hour)
	ends := []*Permit{&early}
	began := 0
	for _, f := range fates {
		if r.State() != HalfOpen {
			break
		}
		p, err := r.Allow()
		if err != nil {
			r.fake.Advance(time.Minute)
			if r.State() != HalfOpen {
				break
			}
			p, err = r.Allow()
			require.NoError(t, err, name)
		}
		began++
		switch f {
		case succeeds:
			require.True(t, p.Done([]outcome.Class{ok404, ok200}[began%2]), name)
		case fails:
			require.True(t, p.Done(err500), name)
		case cancels:
			require.False(t, p.Done(hangsUp), name)
		case hangs:
			continue
		case late:
			ends = append(ends, &p)
			continue
		}
		require.False(t, p.Done(err500), name) // a second time
	}
	r.fake.Advance(time.Minute)
	d.fulfil(fates)
	require.Equal(t, d.state(), r.State(), name)
	require.Equal(t, d.began, began, name)
	got := r.Counts()
	if d.state() != HalfOpen {
		require.Len(t, r.told, 3, name)
		got = r.told[2].Counts
	}
	require.Equal(t, Counts{Successes: d.good, Failures: d.bad, Rejected: got.Rejected}, got, name)

	if r.State() == Open { // for an hour, whatever has failed; then it begins anew
		require.Equal(t, refused, send(ok200)(r), name)
		r.fake.Advance(r.wait())
		d.good, d.bad = 0, 0
	}
	if r.State() == Closed {
		for _, p := range ends {
			require.False(t, p.Done(err500), name)
		}
		require.Equal(t, Closed, r.State(), name)
		require.Zero(t, r.Counts(), name)
		return
	}
	var last []*Permit // all that there is room for
	for range min(d.permits, max(d.permits, d.successes)-d.good) {
		p, err := r.Allow()
		require.NoError(t, err, name)
		last = append(last, &p)
	}
	for i, p := range ends {
		require.False(t, p.Done([]outcome.Class{ok200, err500, hangsUp}[i%3]), name)
		require.Equal(t, HalfOpen, r.State(), name)
		require.Equal(t, refused, send(ok200)(r), "a slot given back: %s", name)
	}
	require.Equal(t, d.good, r.Counts().Successes, name)
	require.Equal(t, d.bad, r.Counts().Failures, name)
	for ; d.good < d.successes && len(last) > 0; d.good++ {
		require.True(t, last[0].Done(ok200), name)
		last = last[1:]
	}
	for ; d.good < d.successes; d.good++ {
		require.Equal(t, counted, send(ok200)(r), name)
	}
	require.Equal(t, Closed, r.State(), name)
}

// All probes that there can be, up to four, and all numbers up to three of permits, of
// successes that close the breaker and of failures that open it.
func TestHalfOpen_TruthTable_K03_K04_K05_K08(t *testing.T) {
	t.Parallel()
	var all [][]fate
	var grow func([]fate)
	grow = func(fates []fate) {
		all = append(all, fates)
		if len(fates) < 4 {
			for _, f := range []fate{succeeds, fails, cancels, hangs, late} {
				grow(append(slices.Clip(fates), f))
			}
		}
	}
	grow(nil)
	require.Len(t, all, 1+5+25+125+625)
	for n := range 27 {
		d := destiny{permits: 1 + n%3, successes: 1 + n/3%3, failures: 1 + n/9}
		for _, fates := range all {
			suffer(t, d, fates)
		}
	}
}

func TestSteps_HalfOpen_K02_K04_K05_K06_K07_K08(t *testing.T) {
	t.Parallel()
	cfg := Config{ConsecutiveFailures: 1, Jitter: Off}
	with := func(change func(*Config)) Config {
		c := cfg
		change(&c)
		return c
	}
	for _, row := range []struct {
		name  string
		cfg   Config
		steps []step
		why   []Reason
	}{
		{"three good probes close it", cfg, []step{
			{0, send(err500), counted, Open},
			{5*second - 1, send(ok200), refused, Open},
			{5 * second, nothing, "", HalfOpen},
			{5 * second, times(2, send(ok200)), counted, HalfOpen},
			{5 * second, send(ok200), counted, Closed},
			{5 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"as many as are left to succeed", cfg, []step{
			{0, send(err500), counted, Open},
			{5 * second, send(ok200), counted, HalfOpen},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, begin("b"), admitted, HalfOpen},
			{5 * second, begin("c"), refused, HalfOpen}, // could not count
			{5 * second, end("a", hangsUp), notCounted, HalfOpen},
			{5 * second, begin("c"), admitted, HalfOpen},
			{6 * second, end("b", ok200), counted, HalfOpen},
			{6 * second, end("c", ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"more must succeed than may be under way", with(func(c *Config) { c.Probes, c.ProbeSuccesses = 1, 3 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, send(ok200), refused, HalfOpen},
			{6 * second, end("a", ok200), counted, HalfOpen},
			{6 * second, send(ok200), counted, HalfOpen},
			{6 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"fewer must succeed than may be under way", with(func(c *Config) { c.ProbeSuccesses = 1 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, begin("b"), admitted, HalfOpen},
			{5 * second, begin("c"), admitted, HalfOpen},
			{5 * second, begin("d"), refused, HalfOpen},
			{6 * second, end("b", ok200), counted, Closed},
			{6 * second, end("a", err500), notCounted, Closed}, // K-05
			{6 * second, end("c", ok200), notCounted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"one failed probe opens it again, whatever the minimum, K-04", with(func(c *Config) {
			c.MinCalls, c.ConsecutiveFailures, c.TripIf = 1000, 100, func(c Counts) bool { return c.Failures > 0 }
		}), []step{
			{0, send(err500), counted, Open},
			{5 * second, times(2, send(ok200)), counted, HalfOpen},
			{5 * second, send(err500), counted, Open},
			{15*second - 1, send(ok200), refused, Open}, // a full period, which has grown
			{15 * second, send(noDial), counted, Open},
			{35*second - 1, send(ok200), refused, Open},
			{35 * second, times(2, send(ok200)), counted, HalfOpen}, // what was good before counts no more
			{35 * second, send(ok200), counted, Closed},
		}, []Reason{Predicate, OpenTimeOver, ProbeFailed, OpenTimeOver, ProbeFailed, OpenTimeOver, ProbesSucceeded}},
		{"two may fail", with(func(c *Config) { c.ProbeFailures = 3 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, times(2, send(err500)), counted, HalfOpen},
			{5 * second, times(2, send(ok200)), counted, HalfOpen},
			{5 * second, send(err500), counted, Open},
			{15 * second, times(2, send(err500)), counted, HalfOpen}, // counted anew
			{15 * second, times(2, send(ok200)), counted, HalfOpen},
			{15 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeFailed, OpenTimeOver, ProbesSucceeded}},
		{"a slow probe has failed", with(func(c *Config) { c.SlowAfter = second }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{6 * second, end("a", ok200), counted, HalfOpen}, // just not slow
			{6 * second, begin("b"), admitted, HalfOpen},
			{7*second + 1, end("b", ok200), counted, Open},
			{17*second + 1, report(Result{Class: ok404, Took: 2 * second}), counted, Open},
			{37*second + 1, report(Result{Class: hangsUp, Took: 2 * second}), notCounted, HalfOpen},
			{37*second + 1, report(Result{Class: ok200, Took: second}), counted, HalfOpen},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeFailed, OpenTimeOver, ProbeFailed, OpenTimeOver}},
		{"without a limit no probe is slow", cfg, []step{
			{0, send(err500), counted, Open},
			{5 * second, times(2, report(Result{Class: ok200, Took: time.Hour})), counted, HalfOpen},
			{5 * second, report(Result{Class: ok200, Took: time.Hour}), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"a client error is a sign of life, K-06", cfg, []step{
			{0, send(err500), counted, Open},
			{5 * second, times(2, send(ok404)), counted, HalfOpen},
			{5 * second, send(ok404), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"an overloaded probe says nothing, K-07", cfg, []step{
			{0, send(err500), counted, Open},
			{5 * second, times(100, send(err429)), notCounted, HalfOpen},
			{5 * second, times(2, send(ok200)), counted, HalfOpen},
			{5 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"an overloaded probe fails if that counts, K-07", with(func(c *Config) { c.OverloadFails = true }), []step{
			{0, send(err429), counted, Open},
			{5 * second, send(err429), counted, Open},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeFailed}},
		{"a cancelled probe frees its slot, K-02", with(func(c *Config) { c.Probes = 1 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{5 * second, send(ok200), refused, HalfOpen},
			{6 * second, end("a", hangsUp), notCounted, HalfOpen},
			{6 * second, begin("b"), admitted, HalfOpen},
			{6 * second, end("a", ok200), notCounted, HalfOpen}, // given back twice
			{6 * second, end("a", err500), notCounted, HalfOpen},
			{6 * second, send(ok200), refused, HalfOpen},
			{6 * second, end("b", outcome.Superseded), notCounted, HalfOpen},
			{6 * second, send(outcome.Refused), notCounted, HalfOpen},
			{6 * second, send(outcome.Unknown), notCounted, HalfOpen},
			{6 * second, send(outcome.Class(99)), notCounted, HalfOpen},
			{6 * second, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded}},
		{"a probe that hangs has failed, K-08", with(func(c *Config) { c.Probes = 1 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{35*second - 1, send(ok200), refused, HalfOpen},
			{35 * second, send(ok200), refused, Open},
			{35 * second, end("a", ok200), notCounted, Open},
			{45*second - 1, nothing, "", Open},
			{45 * second, begin("b"), admitted, HalfOpen},
			{75*second - 1, end("b", ok200), counted, Closed}, // just in time
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeTimedOut, OpenTimeOver, ProbesSucceeded}},
		{"its time is configured, K-08", with(func(c *Config) { c.Probes, c.ProbeTimeout = 1, second }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{6*second - 1, nothing, "", HalfOpen},
			{6 * second, nothing, "", Open},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeTimedOut}},
		{"some may hang, K-08", with(func(c *Config) { c.Probes, c.ProbeFailures = 2, 3 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{6 * second, begin("b"), admitted, HalfOpen},
			{6 * second, begin("c"), refused, HalfOpen},
			{35 * second, begin("c"), admitted, HalfOpen},
			{35 * second, begin("d"), refused, HalfOpen},
			{35 * second, end("a", ok200), notCounted, HalfOpen},
			{35 * second, begin("d"), refused, HalfOpen}, // and gives back nothing
			{36 * second, begin("d"), admitted, HalfOpen},
			{36 * second, end("d", err500), counted, Open},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeFailed}},
		{"a late probe of the time before, K-05", with(func(c *Config) { c.Probes = 1 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{45 * second, begin("b"), admitted, HalfOpen},
			{45 * second, end("a", ok200), notCounted, HalfOpen},
			{45 * second, begin("c"), refused, HalfOpen},
			{45 * second, end("b", ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeTimedOut, OpenTimeOver, ProbesSucceeded}},
		{"late calls of the time before, K-05", with(func(c *Config) { c.ConsecutiveFailures = 2 }), []step{
			{0, times(3, begin("x")), admitted, Closed},
			{0, begin("a"), admitted, Closed},
			{0, begin("b"), admitted, Closed},
			{0, begin("c"), admitted, Closed},
			{0, begin("d"), admitted, Closed},
			{0, begin("e"), admitted, Closed},
			{0, times(2, send(err500)), counted, Open},
			{1 * second, end("a", ok200), notCounted, Open},
			{1 * second, end("b", err500), notCounted, Open},
			{5*second - 1, send(ok200), refused, Open}, // not extended
			{5 * second, begin("probe"), admitted, HalfOpen},
			{5 * second, end("c", ok200), notCounted, HalfOpen},
			{5 * second, end("d", err500), notCounted, HalfOpen},
			{5 * second, end("probe", ok200), counted, HalfOpen},
			{5 * second, times(2, send(ok200)), counted, Closed},
			{5 * second, send(err500), counted, Closed},
			{5 * second, end("e", err500), notCounted, Closed}, // an earlier time of being closed
			{5 * second, end("x", ok200), notCounted, Closed},
			{5 * second, send(err500), counted, Open}, // so this is the second in a row
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbesSucceeded, ConsecutiveFailures}},
		{"nobody asks for a long time", with(func(c *Config) { c.Probes = 1 }), []step{
			{0, send(err500), counted, Open},
			{5 * second, begin("a"), admitted, HalfOpen},
			{time.Hour, end("a", ok200), notCounted, HalfOpen},
			{time.Hour, send(ok200), counted, Closed},
		}, []Reason{ConsecutiveFailures, OpenTimeOver, ProbeTimedOut, OpenTimeOver, ProbesSucceeded}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := follow(t, row.cfg, row.steps)
			assert.Equal(t, row.why, r.reasons())
		})
	}
}

// Open ends when its time is over, whatever the traffic, and probes can always close it.
func TestOpen_AlwaysEnds_K08(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{0, time.Millisecond, second} {
		for _, hung := range []bool{false, true} {
			r := rigged(t, Config{Jitter: Off, ConsecutiveFailures: 1})
			for range 4 { // late results of before
				begin("late")(r)
				send(hangsUp)(r)
			}
			send(err500)(r)
			until, refusals := 5*second, 0
			for interval > 0 && r.now()+interval < until {
				r.at(r.now() + interval)
				require.Equal(t, refused, send(ok200)(r))
				r.held["late"].Report(Result{Class: err500, RetryAfter: time.Minute})
				refusals++
			}
			assert.Equal(t, uint64(refusals), r.Counts().Rejected)
			r.at(until)
			if hung {
				require.Equal(t, admitted, times(3, begin("hung"))(r))
				until += 30 * second
				for interval > 0 && r.now()+interval < until {
					r.at(r.now() + interval)
					require.Equal(t, refused, send(ok200)(r))
				}
				until += 10 * second
				for interval > 0 && r.now()+interval < until {
					r.at(r.now() + interval)
					require.Equal(t, refused, send(ok200)(r))
				}
				r.at(until)
			}
			assert.Equal(t, counted, times(3, send(ok200))(r), "every %v, hung: %v", interval, hung)
			assert.Equal(t, Closed, r.State(), "every %v, hung: %v", interval, hung)
		}
	}
}

// Another configuration must not leave a half-open breaker with nothing that can change
// that.
func TestUse_HalfOpenStillEnds_K08(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name           string
		before, then   Config
		good, bad, out int // probes
	}{
		{"fewer probes", Config{Probes: 10}, Config{}, 5, 0, 0},
		{"as many probes as were good", Config{Probes: 10}, Config{Probes: 5}, 5, 0, 0},
		{"fewer successes", Config{Probes: 2, ProbeSuccesses: 5}, Config{Probes: 2, ProbeSuccesses: 2}, 3, 0, 0},
		{"fewer probes, some under way", Config{Probes: 10}, Config{Probes: 2}, 5, 0, 4},
		{"fewer failures", Config{Probes: 10, ProbeFailures: 5}, Config{Probes: 10, ProbeFailures: 2}, 0, 3, 0},
		{"fewer failures and successes", Config{Probes: 10, ProbeFailures: 5}, Config{Probes: 3, ProbeFailures: 2}, 3, 3, 2},
	} {
		for _, mode := range []Mode{Auto, MetricsOnly} {
			before, then := row.before, row.then
			for _, c := range []*Config{&before, &then} {
				c.ConsecutiveFailures, c.Jitter, c.Mode = 1, Off, mode
			}
			r := rigged(t, before)
			send(err500)(r)
			r.at(5 * second)
			for i := range row.out {
				require.Equal(t, admitted, begin(fmt.Sprint(i))(r))
			}
			for range row.good {
				require.Equal(t, counted, send(ok200)(r))
			}
			for range row.bad {
				require.Equal(t, counted, send(err500)(r))
			}
			require.Equal(t, HalfOpen, r.State())
			require.NoError(t, r.Use(then))
			for range 10 { // what hangs has failed after 30s, what is open is half-open after 10s
				r.fake.Advance(30 * second)
				send(ok200)(r)
			}
			assert.Equal(t, Closed, r.State(), "%s, %v", row.name, mode)
		}
	}
}

// Calls that a balancer forces through are no probes, take no room, and yet say what
// they find out.
func TestForced_FindsOut(t *testing.T) {
	t.Parallel()
	force := func(r *rig, c outcome.Class) string {
		set := r.settings.Load()
		p, refusal, _ := r.admit(set, set.elapsed(), true)
		require.Nil(r, refusal)
		return countedIf(p.Done(c))
	}
	cfg := quick
	cfg.ProbeSuccesses = 2
	r := rigged(t, cfg)
	send(err500)(r)
	assert.Equal(t, counted, force(r, ok200))
	assert.Equal(t, counted, force(r, err500))
	assert.Equal(t, notCounted, force(r, hangsUp))
	assert.Equal(t, counted, force(r, ok404))
	assert.Equal(t, Open, r.State(), "not two in a row")
	assert.Equal(t, 5*second, r.wait(), "and failures do not extend it")
	assert.Zero(t, r.Counts().Rejected)
	assert.Equal(t, counted, force(r, ok200))
	assert.Equal(t, Closed, r.State())
	assert.Equal(t, []Reason{ConsecutiveFailures, ProbesSucceeded}, r.reasons())

	send(err500)(r)
	r.at(r.now() + r.wait())
	begin("probe")(r)
	assert.Equal(t, refused, send(ok200)(r))
	assert.Equal(t, counted, force(r, ok200), "beside the probe")
	assert.Equal(t, refused, send(ok200)(r), "whose slot it does not free")
	assert.Equal(t, counted, force(r, err500))
	assert.Equal(t, Open, r.State())
	assert.Equal(t, ProbeFailed, r.Status().Because)

	require.NoError(t, r.SetMode(ForcedOpen))
	set := r.settings.Load()
	_, refusal, _ := r.admit(set, set.elapsed(), true)
	assert.NotNil(t, refusal, "nothing must pass what was opened by hand")
	assert.Equal(t, Open, r.State())
}

package breaker

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// FuzzConfig asserts that every configuration is either refused with errors that name
// the fields, or gives a breaker that keeps its word through a few hundred operations.
func FuzzConfig(f *testing.F) {
	const longest = math.MaxInt64
	add := func(seed uint64, c Config) {
		f.Add(seed, uint8(c.Mode), c.ConsecutiveFailures, c.FailureRate, int64(c.SlowAfter), c.SlowRate, c.MinCalls, int64(c.Window), c.WindowCalls,
			int64(c.OpenFor), int64(c.MaxOpenFor), c.IgnoreRetryAfter, c.Jitter, c.Probes, c.ProbeSuccesses, c.ProbeFailures,
			int64(c.ProbeTimeout), int64(c.RampFor), c.OverloadFails)
	}
	for i, c := range []Config{
		{},
		{ConsecutiveFailures: 1, Probes: 1, ProbeFailures: 3, ProbeSuccesses: 5},
		{WindowCalls: 1, ConsecutiveFailures: Off, FailureRate: 1},
		{Window: 10 * time.Millisecond, SlowAfter: time.Millisecond, MinCalls: 1},
		{Mode: MetricsOnly, Jitter: 1, OpenFor: 1, MaxOpenFor: 3, RampFor: time.Second},
		{Mode: ForcedOpen},
		{Mode: Disabled},
		{Mode: 17},
		{OpenFor: longest, MaxOpenFor: longest, Jitter: Off, ConsecutiveFailures: 1},
		{ProbeTimeout: longest, RampFor: longest, Window: longest, SlowAfter: longest},
		{ProbeTimeout: 1, RampFor: 1, SlowAfter: 1, OpenFor: 1},
		{FailureRate: math.NaN(), Jitter: math.Inf(1), SlowRate: math.Inf(-1)},
		{Probes: 10_000, ProbeSuccesses: 1, OverloadFails: true, IgnoreRetryAfter: true},
		{OpenFor: -1, MaxOpenFor: -1},
		{Window: time.Second, WindowCalls: 1},
	} {
		add(uint64(i), c)
	}
	f.Fuzz(func(t *testing.T, seed uint64, mode uint8, consecutive int, failureRate float64, slowAfter int64, slowRate float64, minCalls int,
		window int64, windowCalls int, openFor, maxOpenFor int64, ignoreRetryAfter bool, jitter float64, probes, probeSuccesses, probeFailures int,
		probeTimeout, rampFor int64, overloadFails bool,
	) {
		cfg := Config{
			Mode: Mode(mode), ConsecutiveFailures: consecutive, FailureRate: failureRate, SlowAfter: time.Duration(slowAfter), SlowRate: slowRate,
			MinCalls: minCalls, Window: time.Duration(window), WindowCalls: windowCalls, OpenFor: time.Duration(openFor),
			MaxOpenFor: time.Duration(maxOpenFor), IgnoreRetryAfter: ignoreRetryAfter, Jitter: jitter, Probes: probes,
			ProbeSuccesses: probeSuccesses, ProbeFailures: probeFailures, ProbeTimeout: time.Duration(probeTimeout),
			RampFor: time.Duration(rampFor), OverloadFails: overloadFails,
		}
		if err := cfg.Validate(); err != nil {
			assert.NotEmpty(t, problems(t, err))
			b, made := New("users", cfg)
			assert.Nil(t, b)
			assert.EqualError(t, made, err.Error())
			return
		}
		require.NoError(t, cfg.WithDefaults().Validate())
		keepsItsWord(t, seed, cfg)
	})
}

// soon is the longest time that these tests let pass at once.
const soon = 30 * 24 * time.Hour

// keepsItsWord does a few hundred things to a breaker, and asserts what must hold whatever
// its configuration is.
func keepsItsWord(t *testing.T, seed uint64, cfg Config) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	fake := clock.NewFake(dawn)
	set := cfg.WithDefaults()
	c := &chain{TB: t, last: map[string]State{}}
	if cfg.Mode == ForcedOpen {
		c.last["users"] = Open
	}
	c.then = func(change Change) {
		assert.False(t, change.At.Before(dawn))
		if change.To == Open && change.Reason != ModeSet && cfg.Mode != ForcedOpen {
			assert.False(t, change.Until.Before(change.At), "%+v", change)
			assert.LessOrEqual(t, change.Until.Sub(change.At), set.MaxOpenFor, "%+v", change)
		}
	}
	cfg.Clock, cfg.Rand, cfg.OnChange = fake, rand.NewPCG(seed, 1), c.told
	b, err := New("users", cfg)
	require.NoError(t, err)

	var held []Permit
	probes := map[int32]bool{} // that are under way
	var half *phase            // whose they are
	for range 300 {
		switch op := random.IntN(20); {
		case op < 9:
			p, err := b.Allow()
			switch {
			case err != nil:
				require.ErrorIs(t, err, ErrOpen)
				require.NotEqual(t, MetricsOnly, cfg.Mode)
				require.NotEqual(t, Disabled, cfg.Mode)
			case p.phase != nil && p.probe > 0:
				if p.phase != half {
					half, probes = p.phase, map[int32]bool{}
				}
				require.False(t, probes[p.probe], "there is another probe %d", p.probe)
				probes[p.probe] = true
				if set.ProbeTimeout > 300*soon { // none is given up
					require.LessOrEqual(t, len(probes), set.Probes)
				}
				require.LessOrEqual(t, len(half.probes.underWay), set.Probes)
				held = append(held, p)
			default:
				require.NotEqual(t, ForcedOpen, cfg.Mode)
				held = append(held, p)
			}
		case op < 17 && len(held) > 0:
			i := random.IntN(len(held))
			p := held[i]
			held = append(held[:i], held[i+1:]...)
			if p.phase == half {
				delete(probes, p.probe)
			}
			classes := []outcome.Class{ok200, ok404, err429, err500, err500, err500, noDial, hangsUp, outcome.Class(random.IntN(256))}
			p.Report(Result{
				Class: classes[random.IntN(len(classes))], Took: time.Duration(random.Int64N(3)) * set.SlowAfter / 2,
				RetryAfter: []time.Duration{0, time.Second, math.MaxInt64, -1}[random.IntN(4)],
			})
			require.False(t, p.Done(err500), "a second time")
		case op == 17:
			fake.Advance(time.Duration(random.Int64N(int64(min(set.MaxOpenFor, soon)) + 1)))
		case op == 18:
			fake.Advance(time.Duration(random.Int64N(int64(min(set.ProbeTimeout, soon)) + 1)))
		case op == 19 && random.IntN(10) == 0:
			b.Reset()
		}
		s := b.Status()
		require.True(t, s.Counts.Successes >= 0 && s.Counts.Failures >= 0 && s.Counts.Slow >= 0 && s.Counts.Slow <= s.Counts.Calls(), "%+v", s)
		require.Equal(t, s.State, c.last["users"])
		if set.WindowCalls > 0 && s.State == Closed {
			require.LessOrEqual(t, s.Counts.Calls(), set.WindowCalls)
		}
		if s.State == Open && s.Until != (time.Time{}) {
			require.True(t, s.Until.After(fake.Now()), "%+v", s)
			if _, err := b.Allow(); cfg.Mode == Auto {
				require.ErrorIs(t, err, ErrOpen)
			}
		}
	}
	endsWhenItsTimeIsUp(t, b, fake, set)
}

// endsWhenItsTimeIsUp asserts that what is open is not any more after MaxOpenFor, and that
// good probes close it.
func endsWhenItsTimeIsUp(t *testing.T, b *Breaker, fake *clock.Fake, set Config) {
	t.Helper()
	if set.Mode != Auto || set.MaxOpenFor > soon || set.ProbeTimeout > soon {
		return
	}
	for range 3 {
		if b.State() == Open {
			fake.Advance(set.MaxOpenFor)
			require.NotEqual(t, Open, b.State())
		}
		if b.State() == HalfOpen { // whatever hangs has failed then
			fake.Advance(set.ProbeTimeout)
		}
	}
	if b.State() == Open {
		fake.Advance(set.MaxOpenFor)
	}
	for i := 0; b.State() == HalfOpen; i++ {
		require.LessOrEqual(t, i, set.ProbeSuccesses)
		p, err := b.Allow()
		require.NoError(t, err)
		require.True(t, p.Report(Result{Class: ok200, Took: 1}))
	}
	require.Equal(t, Closed, b.State())
}

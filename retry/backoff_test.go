package retry

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// draws returns the waits of one call if the random numbers are these, over and over.
func draws(b Backoff, n int, shares ...float64) (waits []time.Duration) {
	i := 0
	next := b.withDefaults().new(func() float64 { i++; return shares[(i-1)%len(shares)] })
	for range n {
		waits = append(waits, next.NextBackOff())
	}
	return waits
}

func TestBackoff_Bounds(t *testing.T) {
	const ms = time.Millisecond
	highest := math.Nextafter(1, 0)
	for _, row := range []struct {
		name      string
		backoff   Backoff
		low, high []time.Duration // with the lowest and the highest of random numbers
	}{
		{"full jitter, the default", Backoff{}, []time.Duration{ms, ms, ms}, []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms, 2000 * ms}},
		{"equal jitter", Backoff{Kind: EqualJitter}, []time.Duration{25 * ms, 50 * ms, 100 * ms}, []time.Duration{50 * ms, 100 * ms, 200 * ms}},
		{"decorrelated", Backoff{Kind: Decorrelated}, []time.Duration{50 * ms, 50 * ms}, []time.Duration{150 * ms, 450 * ms, 1350 * ms, 2000 * ms, 2000 * ms}},
		{"constant", Backoff{Kind: Constant}, []time.Duration{50 * ms, 50 * ms}, []time.Duration{50 * ms, 50 * ms}},
		{"exponential", Backoff{Kind: Exponential}, []time.Duration{50 * ms, 100 * ms}, []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms, 2000 * ms}},
		{"factor 1", Backoff{Kind: Exponential, Factor: 1}, []time.Duration{50 * ms, 50 * ms}, []time.Duration{50 * ms, 50 * ms}},
		{"factor 10", Backoff{Kind: Exponential, Factor: 10}, []time.Duration{50 * ms, 500 * ms, 2000 * ms}, []time.Duration{50 * ms, 500 * ms, 2000 * ms}},
		{"base is max", Backoff{Base: time.Hour}, []time.Duration{ms, ms}, []time.Duration{time.Hour, time.Hour}},
		{"decorrelated, the largest there is", Backoff{Kind: Decorrelated, Base: math.MaxInt64 / 2, Max: math.MaxInt64}, []time.Duration{math.MaxInt64 / 2}, []time.Duration{math.MaxInt64, math.MaxInt64}},
		{"below a millisecond", Backoff{Base: 1000, Max: 1000}, []time.Duration{1000}, []time.Duration{1000}},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.low, draws(row.backoff, len(row.low), 0))
			for i, wait := range draws(row.backoff, len(row.high), highest) {
				assert.InDelta(t, row.high[i], wait, max(1000, float64(row.high[i])*1e-12), "wait %d", i+1)
				assert.LessOrEqual(t, wait, row.high[i])
			}
		})
	}
}

// A decorrelated wait follows from the one before, not from the number of waits.
func TestBackoff_DecorrelatedFollowsTheWaitBefore(t *testing.T) {
	waits := draws(Backoff{Kind: Decorrelated, Base: 100, Max: 10000}, 3, 0.5, 0, 0.5)
	assert.Equal(t, []time.Duration{200, 100, 200}, waits)
}

func TestBackoff_NeverOverflows_R08(t *testing.T) {
	const seed = 8
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	lengths := []time.Duration{0, 1, time.Millisecond, time.Hour, math.MaxInt64 - 1, math.MaxInt64}
	for _, base := range lengths {
		for _, limit := range lengths {
			for _, factor := range []float64{0, 1, 1.5, 2, 3, 1e9, 1e300, math.Inf(1)} {
				for kind := FullJitter; kind <= Exponential; kind++ {
					b := Backoff{Kind: kind, Base: base, Max: limit, Factor: factor}
					if b.validate() != nil {
						continue
					}
					n := 200 // which is far beyond where sums overflow
					if factor == 2 {
						n = 10000
					}
					checkWaits(t, b.withDefaults(), n, random.Float64)
				}
			}
		}
	}
}

// checkWaits checks what R-08 says of the waits of one call.
func checkWaits(t testing.TB, b Backoff, n int, random func() float64) {
	t.Helper()
	waits, before := b.new(random), time.Duration(0)
	for i := range n {
		wait := waits.NextBackOff()
		if wait < 0 || wait > b.Max {
			t.Fatalf("%+v, wait %d: %v", b, i+1, wait)
		}
		if (b.Kind == Constant || b.Kind == Exponential) && wait < before {
			t.Fatalf("%+v, wait %d: %v after %v", b, i+1, wait, before)
		}
		before = wait
	}
}

func TestBackoff_JitterIsKeptAtTheCeiling_R09(t *testing.T) {
	const clients = 10000
	const ms = time.Millisecond
	for _, b := range []Backoff{
		{},
		{Kind: EqualJitter},
		{Kind: Decorrelated},
		{Base: 50 * ms, Max: 50 * ms},
		{Base: 2 * ms, Max: 10 * ms}, // just above the least wait
	} {
		r := retrier(t, Policy{Backoff: b})
		seen := map[time.Duration]int{}
		for range clients {
			waits := r.policy.waits(r.rand)
			var last time.Duration
			for range 30 { // long after the bound is the largest
				last = waits.NextBackOff()
			}
			require.LessOrEqual(t, last, r.policy.Backoff.Max)
			seen[last]++
		}
		for wait, n := range seen {
			assert.LessOrEqual(t, n, clients/100, "%+v: %v", b, wait)
		}
	}
}

// What comes out of NewBackOff, and what becomes of it.
type scriptedWaits struct{ waits []time.Duration }

func (s *scriptedWaits) Reset() {}
func (s *scriptedWaits) NextBackOff() time.Duration {
	next := s.waits[0]
	s.waits = s.waits[1:]
	return next
}

func TestPlan_NewBackOff(t *testing.T) {
	script := func(waits ...time.Duration) func() backoff.BackOff {
		return func() backoff.BackOff { return &scriptedWaits{waits} }
	}
	const s, ms = time.Second, time.Millisecond
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name   string
		make   func() backoff.BackOff
		waits  []time.Duration
		reason outcome.Reason
	}{
		{"as it says", script(3*s, s, 2*s), []time.Duration{3 * s, s, 2 * s}, outcome.Attempts},
		{"stop", script(s, backoff.Stop), []time.Duration{s}, outcome.Backoff},
		{"stop at once", func() backoff.BackOff { return &backoff.StopBackOff{} }, nil, outcome.Backoff},
		{"at least 1 ms", script(0, 1, ms-1), []time.Duration{ms, ms, ms}, outcome.Attempts},
		{"negative, but not stop", script(-2, math.MinInt64, -s), []time.Duration{ms, ms, ms}, outcome.Attempts},
		{"longer than Backoff.Max", script(s, time.Hour, math.MaxInt64), []time.Duration{s, time.Hour, math.MaxInt64}, outcome.Attempts},
		{"zero", func() backoff.BackOff { return &backoff.ZeroBackOff{} }, []time.Duration{ms, ms, ms}, outcome.Attempts},
		{"none, so Backoff counts", func() backoff.BackOff { return nil }, []time.Duration{7 * s, 7 * s, 7 * s}, outcome.Attempts},
		{"constant", func() backoff.BackOff { return backoff.NewConstantBackOff(s) }, []time.Duration{s, s, s}, outcome.Attempts},
		{"so many", func() backoff.BackOff { return backoff.WithMaxRetries(backoff.NewConstantBackOff(s), 2) }, []time.Duration{s, s}, outcome.Backoff},
		{"its context", func() backoff.BackOff { return backoff.WithContext(backoff.NewConstantBackOff(s), done) }, nil, outcome.Backoff},
		{
			"exponential without jitter",
			func() backoff.BackOff {
				return backoff.NewExponentialBackOff(backoff.WithInitialInterval(s), backoff.WithMultiplier(2),
					backoff.WithRandomizationFactor(0), backoff.WithMaxInterval(3*s))
			},
			[]time.Duration{s, 2 * s, 3 * s},
			outcome.Attempts,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, Policy{MaxAttempts: 4, NewBackOff: row.make, Backoff: Backoff{Kind: Constant, Base: 7 * s}})
			for range 2 { // each call has waits of its own
				plan := begin(r)
				for i, wait := range row.waits {
					a := plan.Next(get(failed, false))
					assert.True(t, a.Again)
					assert.Equal(t, wait, a.Wait, "wait %d", i+1)
				}
				before := r.Tokens()
				assert.Equal(t, Action{Reason: row.reason}, plan.Next(get(failed, false)))
				assert.Equal(t, before, r.Tokens())
			}
		})
	}
}

// Moving on to an endpoint that was not tried takes no wait, so none is asked for.
func TestPlan_NewBackOffIsAskedForWaitsOnly(t *testing.T) {
	made := 0
	r := retrier(t, Policy{MaxAttempts: 4, NewBackOff: func() backoff.BackOff {
		made++
		return &scriptedWaits{[]time.Duration{time.Second, time.Minute}}
	}})
	plan := begin(r)
	assert.Zero(t, plan.Next(get(failed, true)).Wait)
	assert.Zero(t, made)
	assert.Equal(t, time.Second, plan.Next(get(failed, false)).Wait)
	assert.Equal(t, time.Minute, plan.Next(get(failed, false)).Wait)
	assert.Equal(t, 1, made, "once for each call")
}

// A server that asks for a pause is heard as well, but cannot undo a stop.
func TestPlan_NewBackOffAndPushback_R10(t *testing.T) {
	r := retrier(t, Policy{NewBackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(8 * time.Second) }})
	assert.Equal(t, 8*time.Second, begin(r).Next(asked(time.Second, false)).Wait, "the longer of the two")
	assert.GreaterOrEqual(t, begin(r).Next(asked(9*time.Second, false)).Wait, 9*time.Second)
	r = retrier(t, Policy{Pushback: Pushback{Shorten: true}, NewBackOff: func() backoff.BackOff { return &backoff.StopBackOff{} }})
	assert.Equal(t, outcome.Backoff, begin(r).Next(asked(time.Hour, false)).Reason)
}

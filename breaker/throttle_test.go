package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// loadedDice is a source of which every number of [0,1) is the same, until it is set anew.
type loadedDice struct{ roll float64 }

func (d *loadedDice) Uint64() uint64 { return uint64(d.roll * (1 << 53)) }

const (
	rollMost  = 1 - 1e-9 // a roll that refuses nothing that has a chance
	rollLeast = 0        // a roll that refuses all that may be refused
)

var throttleEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newTestThrottle returns a throttle on a clock that stands still. Unless the
// configuration says otherwise, it refuses however few calls there are.
func newTestThrottle(t *testing.T, cfg ThrottleConfig) (*Throttle, *clock.Fake, *loadedDice) {
	t.Helper()
	fake, source := clock.NewFake(throttleEpoch), &loadedDice{roll: rollMost}
	cfg.Clock = fake
	if cfg.Rand == nil {
		cfg.Rand = source
	}
	if cfg.MinRate == 0 {
		cfg.MinRate = Off
	}
	throttle, err := NewThrottle(cfg)
	require.NoError(t, err)
	return throttle, fake, source
}

// tookIt and overloaded are how calls end.
var (
	tookIt     = outcome.Outcome{Class: outcome.Success}
	overloaded = outcome.Outcome{Class: outcome.Overload}
)

// ended makes calls that all pass and end like that.
func (t *Throttle) ended(tb testing.TB, n int, o outcome.Outcome) {
	tb.Helper()
	for range n {
		permit, err := t.Allow()
		require.NoError(tb, err)
		permit.Done(o)
	}
}

// The probability is max(0, (requests - K·accepts) / (requests + 1)), as in chapter 21 of
// "Site Reliability Engineering", at most MaxReject.
func TestThrottle_Formula(t *testing.T) {
	for _, row := range []struct {
		k, most           float64
		requests, accepts int
		want              float64
	}{
		{0, 0, 0, 0, 0},
		{0, 0, 1, 1, 0},
		{0, 0, 1, 0, 1. / 2},
		{0, 0, 100, 100, 0},
		{0, 0, 100, 51, 0},
		{0, 0, 100, 50, 0},         // K times as many as it accepts
		{0, 0, 100, 49, 2. / 101},  // (100 - 98) / 101
		{0, 0, 100, 25, 50. / 101}, // (100 - 50) / 101
		{0, 0, 100, 6, 88. / 101},
		{0, 0, 100, 0, 0.9}, // 100/101, but not more than MaxReject
		{0, 1, 100, 0, 100. / 101},
		{0, 0.5, 100, 25, 50. / 101},
		{0, 0.25, 100, 25, 0.25},
		{1, 1, 10, 5, 5. / 11},
		{1, 1, 10, 10, 0},
		{1.1, 1, 100, 90, 1. / 101},
		{3, 1, 90, 20, 30. / 91},
		{3, 1, 90, 30, 0},
		{1e6, 1, 900, 1, 0},
	} {
		t.Run(fmt.Sprintf("K=%v MaxReject=%v %d of %d", row.k, row.most, row.accepts, row.requests), func(t *testing.T) {
			throttle, _, source := newTestThrottle(t, ThrottleConfig{K: row.k, MaxReject: row.most})
			throttle.ended(t, row.accepts, tookIt)
			throttle.ended(t, row.requests-row.accepts, overloaded)
			status := throttle.Status()
			assert.Equal(t, row.requests, status.Requests)
			assert.Equal(t, row.accepts, status.Accepts)
			assert.InDelta(t, row.want, status.Refusal, 1e-12)

			if row.want == 0 {
				source.roll = rollLeast
				_, err := throttle.Allow()
				assert.NoError(t, err)
				return
			}
			source.roll = row.want + 1e-9
			_, err := throttle.Allow()
			assert.NoError(t, err, "just above the probability")
			counts := throttle.counts.Load()
			counts.requests.takeBack(0)
			counts.underWay.takeBack(0)
			source.roll = row.want - 1e-9
			_, err = throttle.Allow()
			assert.ErrorIs(t, err, ErrThrottled, "just below the probability")
		})
	}
}

// A call counts before it is sent: of a server that hangs nobody hears anything. But it does
// not count against the server at once: many calls may begin together.
func TestThrottle_CountsBeforeSending(t *testing.T) {
	throttle, fake, source := newTestThrottle(t, ThrottleConfig{})
	for range 9 {
		_, err := throttle.Allow()
		require.NoError(t, err)
	}
	for range 2 {
		assert.Equal(t, ThrottleStatus{Requests: 9}, throttle.Status())
		fake.Advance(time.Second)
	}
	assert.Equal(t, ThrottleStatus{Requests: 9, Refusal: 0.9}, throttle.Status())
	source.roll = rollLeast
	_, err := throttle.Allow()
	assert.NoError(t, err, "none has passed for a second")
	_, err = throttle.Allow()
	assert.ErrorIs(t, err, ErrThrottled)
}

// A call counts also when it is refused: else refusals would end when they begin.
func TestThrottle_CountsWhatItRefuses(t *testing.T) {
	throttle, _, source := newTestThrottle(t, ThrottleConfig{MaxReject: 1})
	throttle.ended(t, 10, tookIt)
	throttle.ended(t, 11, overloaded)
	for i := range 50 {
		want := float64(21+i-20) / float64(21+i+1)
		assert.InDelta(t, want, throttle.Status().Refusal, 1e-12)
		source.roll = rollLeast
		_, err := throttle.Allow()
		require.ErrorIs(t, err, ErrThrottled)
	}
	status := throttle.Status()
	assert.Equal(t, 71, status.Requests)
	assert.Equal(t, 10, status.Accepts)
	assert.EqualValues(t, 50, status.Rejected)
}

// What an answer means to the throttle: most speak for or against the server, of the
// others it is as if they had never been.
func TestThrottle_Classes_K01_K06(t *testing.T) {
	for _, row := range []struct {
		o                 outcome.Outcome
		requests, accepts int
	}{
		{outcome.Outcome{Class: outcome.Success}, 1, 1},
		{outcome.Outcome{Class: outcome.ClientError}, 1, 1},
		{outcome.Outcome{Class: outcome.Overload}, 1, 0},
		{outcome.Outcome{Class: outcome.Failure}, 1, 0},
		{outcome.Outcome{Class: outcome.NeverSent}, 1, 0},
		{outcome.Outcome{Class: outcome.Failure, Timeout: true}, 0, 0},
		{outcome.Outcome{Class: outcome.NeverSent, Timeout: true}, 0, 0},
		{outcome.Outcome{Class: outcome.Canceled}, 0, 0},
		{outcome.Outcome{Class: outcome.Refused}, 0, 0},
		{outcome.Outcome{Class: outcome.Superseded}, 0, 0},
		{outcome.Outcome{Class: outcome.Unknown}, 0, 0},
	} {
		t.Run(fmt.Sprintf("%v timeout=%v", row.o.Class, row.o.Timeout), func(t *testing.T) {
			throttle, fake, _ := newTestThrottle(t, ThrottleConfig{})
			permit, err := throttle.Allow()
			require.NoError(t, err)
			assert.Equal(t, 1, throttle.Status().Requests)
			fake.Advance(3 * time.Second) // into another bucket
			for range 3 {                 // only the first time counts
				permit.Done(row.o)
				status := throttle.Status()
				assert.Equal(t, row.requests, status.Requests)
				assert.Equal(t, row.accepts, status.Accepts)
			}
		})
	}
	var none ThrottlePermit
	assert.NotPanics(t, func() { none.Done(tookIt) })
}

// Given callers that leave all at once, then none of their calls is left in the count.
func TestThrottle_TakesBackConcurrently_K01(t *testing.T) {
	for range 20 {
		throttle, _, _ := newTestThrottle(t, ThrottleConfig{})
		const callers, each = 16, 500
		begin, over := make(chan struct{}), sync.WaitGroup{}
		for range callers {
			over.Go(func() {
				<-begin
				for range each {
					permit, err := throttle.Allow()
					assert.NoError(t, err)
					permit.Done(outcome.Outcome{Class: outcome.Canceled})
				}
			})
		}
		close(begin)
		over.Wait()
		require.Zero(t, throttle.Status().Requests)
	}
}

// With fewer calls than MinRate asks for, nobody is refused.
func TestThrottle_MinRate(t *testing.T) {
	for _, row := range []struct {
		rate   float64
		window time.Duration
		free   int // calls that pass whatever the server does
	}{
		{0, 0, 50}, // 5 a second in 10 s
		{0, 2 * time.Second, 10},
		{20, time.Second, 20},
		{0.5, 4 * time.Second, 2},
		{0.1, time.Second, 1}, // none is refused before one was sent
		{Off, 0, 1},
	} {
		t.Run(fmt.Sprint(row.rate, row.window), func(t *testing.T) {
			source := &loadedDice{roll: rollLeast}
			throttle, err := NewThrottle(ThrottleConfig{
				MinRate: row.rate, Window: row.window, Rand: source, Clock: clock.NewFake(throttleEpoch),
			})
			require.NoError(t, err)
			for range row.free {
				assert.Zero(t, throttle.Status().Refusal)
				throttle.ended(t, 1, overloaded)
			}
			assert.Positive(t, throttle.Status().Refusal)
			_, err = throttle.Allow()
			assert.ErrorIs(t, err, ErrThrottled)
		})
	}
}

// Calls count as long as Window, to a tenth of it.
func TestThrottle_WindowSlides_K10(t *testing.T) {
	throttle, fake, _ := newTestThrottle(t, ThrottleConfig{Window: 10 * time.Second})
	for range 10 { // one bucket after the other
		throttle.ended(t, 3, tookIt)
		throttle.ended(t, 7, overloaded)
		fake.Advance(time.Second)
	}
	for i := range 10 { // and out again
		status := throttle.Status()
		assert.Equal(t, 90-10*i, status.Requests)
		assert.Equal(t, 27-3*i, status.Accepts)
		fake.Advance(time.Second)
	}
	assert.Equal(t, ThrottleStatus{}, throttle.Status())
	throttle.ended(t, 1, tookIt)
	fake.Advance(365 * 24 * time.Hour)
	assert.Equal(t, ThrottleStatus{}, throttle.Status())
}

// While all are refused, one call in each ProbeEvery passes, to find out.
func TestThrottle_ProbeEvery_K08(t *testing.T) {
	for _, every := range []time.Duration{0, 250 * time.Millisecond, 3 * time.Second} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			throttle, fake, source := newTestThrottle(t, ThrottleConfig{ProbeEvery: every, MaxReject: 1})
			if every == 0 {
				every = time.Second
			}
			throttle.ended(t, 5, overloaded) // the last of them passes at the beginning
			source.roll = rollLeast
			var passed []time.Duration
			const step = 50 * time.Millisecond
			for at := time.Duration(0); at < 5*every; at += step {
				if permit, err := throttle.Allow(); err == nil {
					permit.Done(overloaded)
					passed = append(passed, at)
				}
				fake.Advance(step)
			}
			assert.Equal(t, []time.Duration{every, 2 * every, 3 * every, 4 * every}, passed)
		})
	}
}

// A call that chance lets pass is as good as a probe: the next is due from then on.
func TestThrottle_ProbeAfterTheLastThatPassed(t *testing.T) {
	throttle, fake, source := newTestThrottle(t, ThrottleConfig{})
	throttle.ended(t, 5, overloaded)
	fake.Advance(900 * time.Millisecond)
	throttle.ended(t, 1, overloaded)
	source.roll = rollLeast
	fake.Advance(999 * time.Millisecond)
	_, err := throttle.Allow()
	require.ErrorIs(t, err, ErrThrottled)
	fake.Advance(time.Millisecond)
	_, err = throttle.Allow()
	require.NoError(t, err)
}

func TestThrottle_OneProbeOfAThousandCallers_K03(t *testing.T) {
	throttle, fake, source := newTestThrottle(t, ThrottleConfig{MaxReject: 1})
	throttle.ended(t, 5, overloaded)
	source.roll = rollLeast
	for range 10 {
		fake.Advance(time.Second)
		var passed atomic.Int32
		begin, over := make(chan struct{}), sync.WaitGroup{}
		for range 1000 {
			over.Go(func() {
				<-begin
				if permit, err := throttle.Allow(); err == nil {
					passed.Add(1)
					permit.Done(overloaded)
				}
			})
		}
		close(begin)
		over.Wait()
		require.EqualValues(t, 1, passed.Load())
	}
}

// Of those who find at the same time that a probe is due, one gets it.
func TestThrottle_OneOfThoseWhoAskTogether_K03(t *testing.T) {
	throttle, fake, _ := newTestThrottle(t, ThrottleConfig{})
	set := throttle.settings.Load()
	for range 20 {
		fake.Advance(time.Second)
		var passed atomic.Int32
		begin, over := make(chan struct{}), sync.WaitGroup{}
		for range 100 {
			over.Go(func() {
				<-begin
				if throttle.probe(set, set.elapsed()) {
					passed.Add(1)
				}
			})
		}
		close(begin)
		over.Wait()
		require.EqualValues(t, 1, passed.Load())
	}
}

// Given 100 calls a second and an outage of 30 s, then nearly all are held back, and
// after it all are accepted again within 25 s: the most that is let through at first is a
// tenth, and that grows by about a sixth each second with K = 2 and a window of 10 s, so
// that it takes two windows and a half at most.
func TestThrottle_RecoversAfterAnOutage_K08(t *testing.T) {
	const (
		perSecond = 100
		down, up  = 30, 60
		bound     = 25
	)
	for seed := range uint64(10) {
		t.Logf("seed %d", seed)
		throttle, fake, _ := newTestThrottle(t, ThrottleConfig{Rand: rand.NewPCG(seed, 0)})
		var sent, taken [up + 3*bound]int
		for second := range sent {
			for range perSecond {
				if permit, err := throttle.Allow(); err == nil {
					sent[second]++
					if second >= down && second < up {
						permit.Done(overloaded)
					} else {
						taken[second]++
						permit.Done(tookIt)
					}
				}
				fake.Advance(time.Second / perSecond)
			}
		}
		for second := range down {
			assert.Equal(t, perSecond, taken[second], "second %d: nothing is held back without a reason", second)
		}
		outage := 0
		for second := down + 10; second < up; second++ {
			outage += sent[second]
		}
		assert.InDelta(t, 0.1*perSecond*(up-down-10), outage, 75, "MaxReject of 0.9, five standard deviations and the probes")
		recovered := up
		for second := up; second < len(taken); second++ {
			if taken[second] < perSecond {
				recovered = second + 1
			}
		}
		t.Logf("all are accepted after %d s", recovered-up)
		assert.LessOrEqual(t, recovered-up, bound)
	}
}

// served is how many of the calls each second a server gets and accepts that takes so many.
func servedAtCapacity(t *testing.T, k float64, seed uint64, rps, capacity, seconds int) (sent, taken float64) {
	t.Helper()
	throttle, fake, _ := newTestThrottle(t, ThrottleConfig{K: k, Rand: rand.NewPCG(seed, 0)})
	const settling = 30
	for second := range seconds + settling {
		room := capacity
		for range rps {
			if permit, err := throttle.Allow(); err == nil {
				if second >= settling {
					sent++
				}
				if room--; room >= 0 {
					if second >= settling {
						taken++
					}
					permit.Done(tookIt)
				} else {
					permit.Done(overloaded)
				}
			}
			fake.Advance(time.Second / time.Duration(rps))
		}
	}
	return sent / float64(seconds), taken / float64(seconds)
}

// Given a server with room for 50 calls a second that is asked four times as much, then
// it gets about K times what it accepts.
func TestThrottle_LetsThroughKTimesWhatIsAccepted(t *testing.T) {
	for _, k := range []float64{1.5, 2, 3} {
		for seed := range uint64(3) {
			t.Logf("seed %d", seed)
			const capacity = 50
			sent, taken := servedAtCapacity(t, k, seed, 4*capacity, capacity, 60)
			t.Logf("K=%v: %.1f a second sent, %.1f accepted", k, sent, taken)
			assert.InEpsilon(t, capacity, taken, 0.02, "K=%v: the server has all that it can take", k)
			assert.InEpsilon(t, k*taken, sent, 0.05, "K=%v", k)
		}
	}
}

// Given a server that accepts every other call whatever it gets, then all pass with a K
// above 2; with less, what passes is always less than what was asked before, down to what
// MaxReject leaves.
func TestThrottle_HalfAccepted(t *testing.T) {
	for _, row := range []struct {
		k           float64
		least, most float64 // part of the calls that pass
	}{{2.2, 0.99, 1}, {3, 1, 1}, {1.5, 0.1, 0.2}} {
		const seed, calls = 3, 20_000
		t.Logf("seed %d", seed)
		throttle, fake, _ := newTestThrottle(t, ThrottleConfig{K: row.k, Rand: rand.NewPCG(seed, 0)})
		passed := 0
		for range calls {
			if permit, err := throttle.Allow(); err == nil {
				passed++
				if passed%2 == 0 {
					permit.Done(tookIt)
				} else {
					permit.Done(overloaded)
				}
			}
			fake.Advance(10 * time.Millisecond)
		}
		share := float64(passed) / calls
		assert.GreaterOrEqual(t, share, row.least, "K=%v", row.k)
		assert.LessOrEqual(t, share, row.most, "K=%v", row.k)
	}
}

func TestThrottleConfig_Defaults(t *testing.T) {
	assert.Equal(t, ThrottleConfig{
		K: 2, Window: 10 * time.Second, MaxReject: 0.9, MinRate: 5, ProbeEvery: time.Second,
		MaxKeys: 10_000, IdleFor: 10 * time.Minute,
	}, ThrottleConfig{}.WithDefaults())
	all := ThrottleConfig{K: 1, Window: 1, MaxReject: 1, MinRate: Off, ProbeEvery: 1, MaxKeys: 1, IdleFor: 1}
	assert.Equal(t, all, all.WithDefaults(), "what is set stays")
	assert.NoError(t, ThrottleConfig{}.Validate())
	assert.NoError(t, ThrottleConfig{}.WithDefaults().Validate())
}

// throttleFields returns the names of the fields that an error blames.
func throttleFields(err error) (names []string) {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return nil
	}
	for _, e := range joined.Unwrap() {
		var wrong *field.Error
		if errors.As(e, &wrong) {
			names = append(names, wrong.Field)
		}
	}
	return names
}

func TestThrottleConfig_Validate_P02(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, row := range []struct {
		cfg    ThrottleConfig
		fields []string
	}{
		{ThrottleConfig{K: 0.99}, []string{"K"}},
		{ThrottleConfig{K: -1}, []string{"K"}},
		{ThrottleConfig{K: nan}, []string{"K"}},
		{ThrottleConfig{K: inf}, []string{"K"}},
		{ThrottleConfig{Window: 10*time.Millisecond - 1}, []string{"Window"}},
		{ThrottleConfig{Window: -1}, []string{"Window"}},
		{ThrottleConfig{MaxReject: 1.01}, []string{"MaxReject"}},
		{ThrottleConfig{MaxReject: -0.5}, []string{"MaxReject"}},
		{ThrottleConfig{MaxReject: Off}, []string{"MaxReject"}},
		{ThrottleConfig{MaxReject: nan}, []string{"MaxReject"}},
		{ThrottleConfig{MinRate: -2}, []string{"MinRate"}},
		{ThrottleConfig{MinRate: -0.5}, []string{"MinRate"}},
		{ThrottleConfig{MinRate: nan}, []string{"MinRate"}},
		{ThrottleConfig{MinRate: inf}, []string{"MinRate"}},
		{ThrottleConfig{ProbeEvery: -1}, []string{"ProbeEvery"}},
		{ThrottleConfig{MaxKeys: -1}, []string{"MaxKeys"}},
		{ThrottleConfig{IdleFor: -1}, []string{"IdleFor"}},
		{
			ThrottleConfig{K: -1, Window: 1, MaxReject: 2, MinRate: -3, ProbeEvery: -1, MaxKeys: -1, IdleFor: -1},
			[]string{"K", "Window", "MaxReject", "MinRate", "ProbeEvery", "MaxKeys", "IdleFor"},
		},
	} {
		t.Run(fmt.Sprint(row.fields, row.cfg.K, row.cfg.MaxReject, row.cfg.MinRate), func(t *testing.T) {
			assert.Equal(t, row.fields, throttleFields(row.cfg.Validate()))
			_, err := NewThrottle(row.cfg)
			assert.Equal(t, row.fields, throttleFields(err))
			_, err = NewThrottleTransport(http.DefaultTransport, row.cfg)
			assert.Equal(t, row.fields, throttleFields(err))
			_, err = NewThrottleTransport(nil, row.cfg)
			assert.Equal(t, append([]string{"next"}, row.fields...), throttleFields(err))
		})
	}
	for _, good := range []ThrottleConfig{
		{K: 1}, {Window: 10 * time.Millisecond}, {MaxReject: 1}, {MinRate: Off}, {MinRate: 1e-9}, {ProbeEvery: 1}, {MaxKeys: 1}, {IdleFor: 1},
	} {
		assert.NoError(t, good.Validate(), "%+v", good)
	}
}

// A new configuration applies at once and keeps what was counted. An invalid one changes
// nothing.
func TestThrottle_UseKeepsTheCounts_P01_P02(t *testing.T) {
	throttle, fake, source := newTestThrottle(t, ThrottleConfig{})
	fake.Advance(3 * time.Second) // an instant that is not the first
	throttle.ended(t, 25, tookIt)
	throttle.ended(t, 75, overloaded)
	source.roll = rollLeast
	_, err := throttle.Allow()
	require.ErrorIs(t, err, ErrThrottled)
	before := throttle.Status()
	require.Equal(t, ThrottleStatus{Requests: 101, Accepts: 25, Refusal: 51. / 102, Rejected: 1}, before)

	assert.Equal(t, []string{"K", "MaxReject"}, throttleFields(throttle.Use(ThrottleConfig{K: 0.5, MaxReject: 2, MinRate: 100})))
	assert.Equal(t, before, throttle.Status())

	for _, row := range []struct {
		cfg  ThrottleConfig
		want float64
	}{
		{ThrottleConfig{K: 1}, 76. / 102},
		{ThrottleConfig{K: 1, MaxReject: 0.3}, 0.3},
		{ThrottleConfig{MinRate: 10.2}, 0},
		{ThrottleConfig{MinRate: 10.1}, 51. / 102},
		{ThrottleConfig{K: 5}, 0},
		{ThrottleConfig{Clock: clock.NewFake(throttleEpoch.Add(time.Hour))}, 51. / 102},
	} {
		require.NoError(t, throttle.Use(row.cfg))
		want := before
		want.Refusal = row.want
		assert.Equal(t, want, throttle.Status(), "%+v", row.cfg)
	}
	require.NoError(t, throttle.Use(ThrottleConfig{Rand: rand.NewPCG(1, 1), ProbeEvery: time.Minute}))
	for range 10 {
		_, err = throttle.Allow()
		require.ErrorIs(t, err, ErrThrottled, "the dice stay, too")
	}
	var refused *ThrottledError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, time.Minute, refused.RetryAfter())
	fake.Advance(10 * time.Second)
	assert.Zero(t, throttle.Status().Requests)
}

// A permit that was given before Use is taken back after it.
func TestThrottle_UseWhileCallsAreUnderWay_P01(t *testing.T) {
	throttle, _, _ := newTestThrottle(t, ThrottleConfig{})
	good, _ := throttle.Allow()
	neutral, _ := throttle.Allow()
	require.NoError(t, throttle.Use(ThrottleConfig{K: 3}))
	good.Done(tookIt)
	neutral.Done(outcome.Outcome{Class: outcome.Canceled})
	assert.Equal(t, ThrottleStatus{Requests: 1, Accepts: 1}, throttle.Status())
}

func TestThrottledError(t *testing.T) {
	throttle, _, source := newTestThrottle(t, ThrottleConfig{ProbeEvery: 1500 * time.Millisecond})
	throttle.ended(t, 5, overloaded)
	source.roll = rollLeast
	_, err := throttle.Allow()
	require.ErrorIs(t, err, ErrThrottled)
	assert.NotErrorIs(t, err, ErrOpen)
	assert.EqualError(t, err, "breaker: throttled: the server accepts less than it is asked")
	assert.Equal(t, outcome.Limiter, outcome.ReasonOf(err))
	var refused *ThrottledError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, 1500*time.Millisecond, refused.RetryAfter())
}

func TestThrottle_Do(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	type key struct{}
	timeout := fmt.Errorf("mine: %w", context.DeadlineExceeded)
	for _, row := range []struct {
		name              string
		ctx               context.Context
		err               error
		requests, accepts int
	}{
		{"success", t.Context(), nil, 1, 1},
		{"failure", t.Context(), io.EOF, 1, 0},
		{"timeout", t.Context(), timeout, 0, 0},
		{"caller gave up", gone, io.EOF, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			throttle, _, _ := newTestThrottle(t, ThrottleConfig{})
			err := throttle.Do(context.WithValue(row.ctx, key{}, 1), func(ctx context.Context) error {
				assert.Equal(t, 1, ctx.Value(key{}))
				return row.err
			})
			assert.Equal(t, row.err, err)
			status := throttle.Status()
			assert.Equal(t, row.requests, status.Requests)
			assert.Equal(t, row.accepts, status.Accepts)
		})
	}

	throttle, _, source := newTestThrottle(t, ThrottleConfig{Classifier: func(a outcome.Attempt) outcome.Outcome {
		assert.Equal(t, outcome.Attempt{Err: io.EOF}, a)
		return outcome.Outcome{Class: outcome.ClientError}
	}})
	require.Equal(t, io.EOF, throttle.Do(t.Context(), func(context.Context) error { return io.EOF }))
	assert.Equal(t, 1, throttle.Status().Accepts, "the classifier decides")
	assert.PanicsWithValue(t, "ordered", func() {
		_ = throttle.Do(t.Context(), func(context.Context) error { panic("ordered") })
	})
	assert.Equal(t, 2, throttle.Status().Requests, "a panic is not accepted")
	assert.Equal(t, 1, throttle.Status().Accepts)

	var wrong *field.Error
	require.ErrorAs(t, throttle.Do(t.Context(), nil), &wrong)
	assert.Equal(t, "fn", wrong.Field)
	assert.Equal(t, 2, throttle.Status().Requests)

	throttle.ended(t, 50, overloaded)
	source.roll = rollLeast
	err := throttle.Do(t.Context(), func(context.Context) error { assert.Fail(t, "it was called"); return nil })
	assert.ErrorIs(t, err, ErrThrottled)
}

// tripFunc is a transport of the test's own.
type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func throttleRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return req
}

// replies is a transport that answers with the status that the query asks for, and counts
// by host what it gets.
type replies struct{ got map[string]int }

func (r *replies) RoundTrip(req *http.Request) (*http.Response, error) {
	r.got[req.URL.Host]++
	if req.Body != nil {
		req.Body.Close()
	}
	status := http.StatusOK
	if _, err := fmt.Sscan(req.URL.RawQuery, &status); err != nil {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("x")), Request: req}, nil
}

func (r *replies) CloseIdleConnections() { r.got["idle"]++ }

// Each host has its own throttle, or each key.
func TestThrottleTransport_Keyed(t *testing.T) {
	for _, row := range []struct {
		name    string
		key     func(*http.Request) string
		sick    []string // share a throttle
		healthy []string
	}{
		{"host", nil, []string{"http://a/", "http://A/", "http://a:80/x", "http://A:80"}, []string{"http://b/", "http://a:81/", "https://a/"}},
		{"key", func(req *http.Request) string { return req.URL.Path }, []string{"http://a/x", "http://b/x", "https://c/x"}, []string{"http://a/y"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			source := &loadedDice{roll: rollMost}
			next := &replies{got: map[string]int{}}
			tr, err := NewThrottleTransport(next, ThrottleConfig{
				MinRate: Off, Key: row.key, Rand: source, Clock: clock.NewFake(throttleEpoch),
			})
			require.NoError(t, err)
			get := func(url string) error {
				t.Helper()
				resp, err := tr.RoundTrip(throttleRequest(t, url))
				if err == nil {
					resp.Body.Close()
				}
				return err
			}
			for i := range 12 {
				require.NoError(t, get(row.sick[i%len(row.sick)]+"?503"))
			}
			for _, url := range row.healthy {
				for range 12 {
					require.NoError(t, get(url))
				}
			}
			source.roll = rollLeast
			for _, url := range row.sick {
				assert.ErrorIs(t, get(url), ErrThrottled, url)
			}
			for _, url := range row.healthy {
				assert.NoError(t, get(url), url)
			}
			tr.CloseIdleConnections()
			assert.Equal(t, 1, next.got["idle"])
			require.NoError(t, tr.Close())
			for _, url := range row.sick {
				assert.NoError(t, get(url), "a throttle that is new, and not kept")
			}
		})
	}
}

// The transport counts what the classifier says of answers and errors.
func TestThrottleTransport_Outcomes_K06_K07(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name              string
		ctx               context.Context
		status            int
		err               error
		requests, accepts int
	}{
		{"200", t.Context(), 200, nil, 1, 1},
		{"301", t.Context(), 301, nil, 1, 1},
		{"404", t.Context(), 404, nil, 1, 1},
		{"429", t.Context(), 429, nil, 1, 0},
		{"500", t.Context(), 500, nil, 1, 0},
		{"503", t.Context(), 503, nil, 1, 0},
		{"error", t.Context(), 0, io.ErrUnexpectedEOF, 1, 0},
		{"timeout of the transport", t.Context(), 0, context.DeadlineExceeded, 0, 0},
		{"caller gave up", gone, 0, context.Canceled, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			throttle, _, _ := newTestThrottle(t, ThrottleConfig{})
			tr := throttle.Transport(tripFunc(func(req *http.Request) (*http.Response, error) {
				if row.err != nil {
					return nil, row.err
				}
				return &http.Response{StatusCode: row.status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
			}))
			resp, err := tr.RoundTrip(throttleRequest(t, "http://a/").WithContext(row.ctx))
			assert.Equal(t, row.err, err)
			if err == nil {
				assert.Equal(t, row.status, resp.StatusCode)
				resp.Body.Close()
			}
			status := throttle.Status()
			assert.Equal(t, row.requests, status.Requests)
			assert.Equal(t, row.accepts, status.Accepts)
			tr.CloseIdleConnections() // which this one has not
			assert.NoError(t, tr.Close())
		})
	}
}

// A panic of the transport below is not accepted, and goes on.
func TestThrottleTransport_Panic_K16(t *testing.T) {
	throttle, _, _ := newTestThrottle(t, ThrottleConfig{})
	tr := throttle.Transport(tripFunc(func(*http.Request) (*http.Response, error) { panic("ordered") }))
	assert.PanicsWithValue(t, "ordered", func() {
		_, _ = tr.RoundTrip(throttleRequest(t, "http://a/"))
	})
	assert.Equal(t, ThrottleStatus{Requests: 1, Refusal: 0.5}, throttle.Status())
}

// closes counts the calls of Close.
type closes struct {
	io.Reader
	n int
}

func (c *closes) Close() error {
	c.n++
	return nil
}

// A request that is refused is not sent, its body is closed once, and the error says all
// that a caller needs, also from within an http.Client.
func TestThrottleTransport_Refused(t *testing.T) {
	throttle, _, source := newTestThrottle(t, ThrottleConfig{})
	throttle.ended(t, 20, overloaded)
	source.roll = rollLeast
	sent := 0
	client := &http.Client{Transport: throttle.Transport(tripFunc(func(*http.Request) (*http.Response, error) {
		sent++
		return nil, io.EOF
	}))}
	body := &closes{Reader: strings.NewReader("order 1")}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/", body)
	require.NoError(t, err)
	resp, err := client.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	require.ErrorIs(t, err, ErrThrottled)
	var refused *ThrottledError
	require.ErrorAs(t, err, &refused)
	assert.EqualError(t, err, `Post "http://a/": breaker: throttled: the server accepts less than it is asked`)
	assert.Zero(t, sent)
	assert.Equal(t, 1, body.n)
	assert.EqualValues(t, 1, throttle.Status().Rejected)
}

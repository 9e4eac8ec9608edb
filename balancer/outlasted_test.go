package balancer

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

const ms = time.Millisecond

// lostOrWon is an attempt that has ended.
type lostOrWon struct {
	at    time.Duration
	took  time.Duration
	class outcome.Class
	want  time.Duration // the average after it, for a decay that has not begun
}

// Given attempts that lost, then the latency that is expected never gets better by them: it is
// what they took at least, and after two in a row twice what was thought.
func TestOutlasted_Average_R20_B02(t *testing.T) {
	const won, lost, failed = outcome.Success, outcome.Superseded, outcome.Failure
	for _, row := range []struct {
		name   string
		events []lostOrWon
	}{
		{"nothing is known", []lostOrWon{{0, 50 * ms, lost, 50 * ms}}},
		{"longer than thought", []lostOrWon{{0, 10 * ms, won, 10 * ms}, {0, 50 * ms, lost, 50 * ms}}},
		{"shorter than thought", []lostOrWon{{0, 100 * ms, won, 100 * ms}, {0, 50 * ms, lost, 100 * ms}}},
		{"as long as thought", []lostOrWon{{0, 50 * ms, won, 50 * ms}, {0, 50 * ms, lost, 50 * ms}}},
		{"it took no time", []lostOrWon{{0, 100 * ms, won, 100 * ms}, {0, 0, lost, 100 * ms}}},
		{"again and again", []lostOrWon{
			{0, 10 * ms, won, 10 * ms},
			{0, 50 * ms, lost, 50 * ms},
			{0, 50 * ms, lost, 100 * ms},
			{0, 50 * ms, lost, 200 * ms},
			{0, 50 * ms, lost, 400 * ms},
		}},
		{"a second one longer than twice", []lostOrWon{{0, 10 * ms, won, 10 * ms}, {0, 50 * ms, lost, 50 * ms}, {0, 300 * ms, lost, 300 * ms}}},
		{"not beyond the penalty", []lostOrWon{{0, 3 * time.Second, lost, 3 * time.Second}, {0, 50 * ms, lost, 5 * time.Second}, {0, 50 * ms, lost, 5 * time.Second}}},
		{"longer than the penalty", []lostOrWon{{0, 3 * time.Second, lost, 3 * time.Second}, {0, 20 * time.Second, lost, 20 * time.Second}}},
		{"after a failure", []lostOrWon{{0, 10 * ms, won, 10 * ms}, {0, 30 * ms, failed, 30 * ms}, {0, 30 * ms, lost, 60 * ms}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
			state := c[0].observer.(*ewmaState)
			for i, e := range row.events {
				answered(c[0], epoch.Add(e.at), e.took, e.class)
				average := ewmaSample(state.sample.Load()).at(state.shared.at(epoch.Add(e.at)), state.shared.perTick)
				assert.InDelta(t, e.want.Seconds(), average, 1e-4, "after event %d", i+1)
			}
		})
	}
}

// Given an endpoint whose attempts lose, then it is not one that fails: it is not avoided, does
// not count for the median, and is no failure of the pool.
func TestOutlasted_IsNoFailure_R20(t *testing.T) {
	_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
	state := c[0].observer.(*ewmaState)
	for range 20 {
		answered(c[0], epoch, 50*ms, outcome.Superseded)
	}
	now := state.shared.at(epoch)
	assert.Zero(t, state.row.Load())
	assert.False(t, state.avoided(now))
	assert.False(t, state.shared.failing.now(now))
	assert.False(t, state.waiting.any(), "it has given its place back")

	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, _ := fakePool(t, Config{Algorithm: a}, addresses("a", "b")...)
			for range 20 {
				pick := mustPick(t, p, Info{Now: p.now()})
				pick.Answered(outcome.Answer{Now: p.now(), Took: 50 * ms, Class: outcome.Superseded})
				pick.Done()
			}
			for _, e := range p.Status().Endpoints {
				assert.Zero(t, e.Failures)
				assert.Zero(t, e.InFlight)
				assert.Empty(t, e.Unavailable)
			}
		})
	}
}

// Given attempts that lost among failures, then they neither end a row of failures nor make it
// longer.
func TestOutlasted_LeavesTheRowOfFailures_B11(t *testing.T) {
	_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
	state := c[0].observer.(*ewmaState)
	answered(c[0], epoch, 10*ms, outcome.Failure)
	require.EqualValues(t, 1, state.row.Load())
	until := state.until.Load()
	answered(c[0], epoch.Add(ms), 50*ms, outcome.Superseded)
	answered(c[0], epoch.Add(10*time.Second), 50*ms, outcome.Superseded)
	assert.EqualValues(t, 1, state.row.Load())
	assert.Equal(t, until, state.until.Load())
}

// Given an endpoint that hangs, whose attempts all lose against one that answers in 10 ms, then
// after two of them it gets hardly anything; and when it is well again, it is found out soon.
func TestOutlasted_SteersAwayAndBack_R20_B03(t *testing.T) {
	p, c := picker(t, PeakEWMA{}, seeded(t, 3), 1, 1, 1)
	well := 60 * time.Second
	last, back := time.Duration(0), time.Duration(-1)
	got := load{120_000, ms, func(i int, at time.Duration) (time.Duration, outcome.Class) {
		switch {
		case i != 0:
			return 10 * ms, outcome.Success
		case at < well:
			last = at
			return 60 * ms, outcome.Superseded // its hedge began after 50 ms
		case back < 0:
			back = at
		}
		return 10 * ms, outcome.Success
	}}.run(p, c)
	t.Logf("%v, last lost at %v, back at %v", got, last, back)
	require.GreaterOrEqual(t, back, well, "it never came back")
	assert.Less(t, back, well+15*time.Second)
	assert.Greater(t, got[0], 10_000, "of 120,000, for half of the time")
	assert.Less(t, got[0], 30_000)
}

// Given an endpoint that loses now and then only, then what it lost is forgotten ten times as fast
// as a latency that was measured.
func TestOutlasted_IsForgottenSoon_R20(t *testing.T) {
	at := func(class outcome.Class, after time.Duration) float64 {
		_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
		state := c[0].observer.(*ewmaState)
		answered(c[0], epoch, 10*ms, outcome.Success)
		answered(c[0], epoch, 50*ms, class)
		return ewmaSample(state.sample.Load()).at(state.shared.at(epoch.Add(after)), state.shared.perTick)
	}
	assert.InDelta(t, at(outcome.Success, 10*time.Second), at(outcome.Superseded, time.Second), 1e-3)
	assert.InDelta(t, 0.050/2.718, at(outcome.Superseded, time.Second), 1e-3)
	assert.Greater(t, at(outcome.Success, time.Second), 0.040)

	// What takes less than was thought leaves even that alone.
	_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
	answered(c[0], epoch, 100*ms, outcome.Success)
	before := c[0].observer.(*ewmaState).sample.Load()
	answered(c[0], epoch.Add(10*ms), 50*ms, outcome.Superseded)
	assert.Equal(t, before, c[0].observer.(*ewmaState).sample.Load())
}

// Given two measured answers after lost ones, then the average is slow to fade again.
func TestOutlasted_MeasuredAnswersCountAgain_R20(t *testing.T) {
	_, c := picker(t, PeakEWMA{}, seeded(t, 1), 1, 1)
	state := c[0].observer.(*ewmaState)
	answered(c[0], epoch, 50*ms, outcome.Superseded)
	assert.True(t, ewmaSample(state.sample.Load()).fast())
	answered(c[0], epoch, 45*ms, outcome.Success)
	answered(c[0], epoch, 45*ms, outcome.Success)
	assert.False(t, ewmaSample(state.sample.Load()).fast())
}

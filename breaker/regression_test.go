package breaker

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Picks went round and round while a breaker had opened and its node did not know yet:
// whoever is refused finds the reason in the node.
func TestGate_WhoIsRefusedFindsTheReason_K15(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{})
	n, gate := guardedNode(g, "a:80")
	b := g.All()[0]
	for range 20 {
		found := make(chan node.Reasons)
		b.mu.Lock()
		b.openLocked(b.settings.Load(), ConsecutiveFailures, b.settings.Load().elapsed(), 0)
		go func() {
			assert.False(t, gate.Acquire(fake.Now(), false).OK)
			found <- n.Reasons()
		}()
		for b.phase.Load().rejected.Load() == 0 {
			runtime.Gosched()
		}
		for range 100 { // had it not to wait, it would be done by now
			runtime.Gosched()
		}
		b.pushLocked()
		b.mu.Unlock()
		require.Equal(t, node.Open, <-found)
		b.Reset()
	}
}

// The reason was set only when the timer was, which a clock may take long for.
func TestGate_TheNodeKnowsBeforeTheTimerIsSet_K15(t *testing.T) {
	t.Parallel()
	var n *node.Node
	set := 0
	fake := clock.NewFake(dawn)
	g, err := NewGroup(Config{ConsecutiveFailures: 1, Probes: 1, Jitter: Off, Clock: countingClock{fake, func() {
		set++
		assert.Equal(t, node.Open, n.Reasons())
	}}})
	require.NoError(t, err)
	n, gate := guardedNode(g, "a:80")
	trip(t, g.All()[0])
	require.Equal(t, 1, set)
	fake.Advance(5 * second)
	assert.Zero(t, n.Reasons())
	require.True(t, gate.Acquire(fake.Now(), false).OK)
	require.Equal(t, 2, set, "for the probe, which is the only one")
	g.Close()
	assert.Zero(t, fake.Pending())
}

// pickOf makes the attempt that a balancer would make.
func pickOf(t *testing.T, n *node.Node, at time.Time) *node.Pick {
	t.Helper()
	a := n.Gate().Acquire(at, false)
	require.True(t, a.OK)
	return &node.Pick{Node: n, Pass: a.Pass, Number: a.Number}
}

// A server that sends headers and then breaks off was never found out by the row of
// failures if it had two calls at once, because the headers of the one ended the row of
// the other.
func TestBroke_SeveralAtOnce_K16(t *testing.T) {
	t.Parallel()
	good := outcome.Answer{Class: outcome.Success}
	for _, atOnce := range []int{2, 3, 10} {
		g, fake := grouped(t, Config{ConsecutiveFailures: 20, FailureRate: Off})
		n, _ := guardedNode(g, "a:80")
		b := g.All()[0]
		broken := 0
		for b.State() == Closed {
			var picks []*node.Pick
			for range atOnce {
				pick := pickOf(t, n, fake.Now())
				pick.Answered(good)
				picks = append(picks, pick)
			}
			for _, pick := range picks {
				if b.State() == Closed {
					broken++
				}
				pick.Broke(good)
			}
			require.Less(t, broken, 100, "%d at once", atOnce)
		}
		assert.Equal(t, 20, broken, "%d at once", atOnce)
	}
}

// Given a success whose body is whole while another's is under way, then the row of
// failures before them is over, although the other breaks.
func TestBroke_BesideAWholeBody_K16(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{FailureRate: Off})
	n, _ := guardedNode(g, "a:80")
	b := g.All()[0]
	good := outcome.Answer{Class: outcome.Success}
	for range 4 {
		pickOf(t, n, fake.Now()).Answered(outcome.Answer{Class: outcome.Failure})
	}
	whole, breaks := pickOf(t, n, fake.Now()), pickOf(t, n, fake.Now())
	whole.Answered(good)
	breaks.Answered(good)
	whole.Whole()
	breaks.Broke(good)
	assert.Equal(t, Closed, b.State())
	assert.Equal(t, 1, b.Counts().ConsecutiveFailures)
}

// A probe that has failed already is no second failure, and takes no other's success
// back, when its body breaks: one that came too late, and one that was slow.
func TestBroke_OfAProbeThatHasFailed_K04_K16(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		took time.Duration
	}{{"too late", 10 * second}, {"slow", 2 * second}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{ConsecutiveFailures: 1, ProbeFailures: 3, ProbeTimeout: 10 * second, SlowAfter: second}
			g, fake := grouped(t, cfg)
			n, _ := guardedNode(g, "a:80")
			b := g.All()[0]
			trip(t, b)
			fake.Advance(5 * second)
			late, other := pickOf(t, n, fake.Now()), pickOf(t, n, fake.Now())
			other.Answered(outcome.Answer{Class: outcome.Success})
			fake.Advance(row.took)
			answer := outcome.Answer{Class: outcome.Success, Took: row.took}
			late.Answered(answer)
			assert.Equal(t, Counts{Successes: 1, Failures: 1}, b.Counts())
			late.Broke(answer)
			assert.Equal(t, Counts{Successes: 1, Failures: 1}, b.Counts())
			assert.Equal(t, HalfOpen, b.State())
		})
	}
}

// A timer of an endpoint that came too late to be stopped made the breaker forget the next
// one, which then outlived the endpoint.
func TestGate_ALateTimer_K14(t *testing.T) {
	t.Parallel()
	timers := &lateTimers{Fake: clock.NewFake(dawn)}
	g, err := NewGroup(Config{Clock: timers, Jitter: Off, ConsecutiveFailures: 1})
	require.NoError(t, err)
	n, gate := guardedNode(g, "a:80")
	trip(t, g.All()[0])
	require.Len(t, timers.set, 1)
	pickOf(t, n, dawn.Add(5*second)) // sooner than the timer, which is on its way
	require.Len(t, timers.set, 2)
	assert.Equal(t, 1, timers.Pending(), "for the probe")
	timers.set[0]()
	assert.Equal(t, 1, timers.Pending())
	gate.Gone()
	assert.Zero(t, timers.Pending())
	timers.set[1]()
	assert.Zero(t, timers.Pending())
	g.Close()
}

// A breaker that had been open for long, and then well for a day, was open for as long
// again at its first failure, if its mode had been changed meanwhile.
func TestOpenFor_AnotherModeBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Disabled, ForcedOpen} {
		for name, set := range map[string]func(Mode) event{
			"set":  setMode,
			"used": func(m Mode) event { cfg := quick; cfg.Mode = m; return use(cfg) },
		} {
			r := rigged(t, quick)
			send(err500)(r)
			for range 8 {
				r.reopen()
			}
			require.Equal(t, 5*time.Minute, r.wait())
			r.closeIt()
			r.fake.Advance(24 * time.Hour)
			set(mode)(r)
			set(Auto)(r)
			send(err500)(r)
			assert.Equal(t, 5*second, r.wait(), "%v, %s", mode, name)
		}
	}
}

// Given another window, then what is under way counts in none: the old one is gone, and the
// new one began after it.
func TestUse_AnotherWindowAndCallsUnderWay_P01(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	times(3, send(err500))(r)
	begin("a")(r)
	require.NoError(t, r.Use(Config{WindowCalls: 50}))
	begin("b")(r)
	assert.Equal(t, notCounted, end("a", err500)(r))
	assert.Equal(t, Counts{ConsecutiveFailures: 3}, r.Counts())
	assert.Equal(t, counted, end("b", err500)(r))
	assert.Equal(t, Counts{Failures: 1, ConsecutiveFailures: 4}, r.Counts())
}

// A throttle kept its window whatever Use said. Another window begins empty, and what is
// under way does not count in it.
func TestThrottle_UseAnotherWindow_P01(t *testing.T) {
	t.Parallel()
	throttle, fake, _ := newTestThrottle(t, ThrottleConfig{})
	throttle.ended(t, 10, overloaded)
	underWay, err := throttle.Allow()
	require.NoError(t, err)
	require.NoError(t, throttle.Use(ThrottleConfig{Window: time.Minute, MinRate: Off}))
	assert.Equal(t, ThrottleStatus{}, throttle.Status())
	throttle.ended(t, 3, overloaded)
	underWay.Done(tookIt)
	want := ThrottleStatus{Requests: 3, Refusal: 3. / 4}
	assert.Equal(t, want, throttle.Status())
	fake.Advance(54*second - 1)
	assert.Equal(t, want, throttle.Status(), "it counts for longer")
	fake.Advance(6*second + 1)
	assert.Equal(t, ThrottleStatus{}, throttle.Status())

	require.NoError(t, throttle.Use(ThrottleConfig{Window: second, MinRate: 4}))
	throttle.ended(t, 3, overloaded)
	assert.Zero(t, throttle.Status().Refusal, "the least number of calls is that of the new window")
	throttle.ended(t, 1, overloaded)
	assert.Positive(t, throttle.Status().Refusal)
}

// Two endpoints that differ in nothing but their ID could not be told apart.
func TestGroup_NamesOfEndpoints(t *testing.T) {
	t.Parallel()
	var told []string
	g, _ := grouped(t, Config{ConsecutiveFailures: 1, OnChange: func(c Change) { told = append(told, c.Name) }})
	for _, id := range []string{"pod-2", "pod-1", "a:80", ""} {
		n := node.New(discovery.Endpoint{ID: id, Address: "a:80"}, 1, nil, nil)
		n.Guard(g.Gate(n))
	}
	want := []string{"a:80", "a:80", "a:80 (pod-1)", "a:80 (pod-2)"}
	assert.Equal(t, want, names(g))
	for _, b := range g.All() {
		trip(t, b)
	}
	assert.ElementsMatch(t, want, told)
}

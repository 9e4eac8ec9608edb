package clock_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/clock"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestFake_RunsCallbacksInOrderOfTime(t *testing.T) {
	c := clock.NewFake(start)
	var ran []string
	note := func(name string) func() {
		return func() { ran = append(ran, fmt.Sprint(name, " at ", c.Now().Sub(start))) }
	}
	c.AfterFunc(2*time.Second, note("b"))
	c.AfterFunc(time.Second, note("a"))
	c.AfterFunc(2*time.Second, note("c")) // the same instant: in the order in which they were set
	c.AfterFunc(4*time.Second, note("late"))
	c.AfterFunc(-time.Second, note("now"))

	c.Advance(3 * time.Second)

	assert.Equal(t, []string{"now at 0s", "a at 1s", "b at 2s", "c at 2s"}, ran)
	assert.Equal(t, start.Add(3*time.Second), c.Now())
	assert.Equal(t, 1, c.Pending())
}

func TestFake_CallbackMaySetAndStopTimers(t *testing.T) {
	c := clock.NewFake(start)
	ticks := 0
	doomed := c.AfterFunc(3*time.Second, func() { t.Error("was stopped") })
	var tick func()
	tick = func() {
		ticks++
		if ticks == 2 {
			assert.True(t, doomed.Stop())
			assert.False(t, doomed.Stop(), "a second Stop prevents nothing")
		}
		c.AfterFunc(time.Second, tick)
	}
	c.AfterFunc(time.Second, tick)

	c.Advance(5 * time.Second)

	assert.Equal(t, 5, ticks)
	assert.Equal(t, 1, c.Pending())
}

func TestFake_StopAfterTheCallbackReportsFalse(t *testing.T) {
	c := clock.NewFake(start)
	timer := c.AfterFunc(time.Second, func() {})
	c.Advance(time.Second)
	assert.False(t, timer.Stop())
}

func TestFake_DoesNotRunBackwards(t *testing.T) {
	c := clock.NewFake(start)
	assert.Panics(t, func() { c.Advance(-1) })
}

func TestSystem_FollowsTheBubble_X01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := clock.System.Now()
		ran := make(chan time.Time)
		clock.System.AfterFunc(time.Hour, func() { ran <- clock.System.Now() })
		assert.Equal(t, time.Hour, (<-ran).Sub(before))
	})
}

func TestInstants_AreThoseOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock.Instants(clock.System)
		before := now()
		time.Sleep(time.Hour) // of the bubble
		assert.Equal(t, time.Hour, now().Sub(before))
		assert.Zero(t, clock.System.Now().Sub(now()), "they can be subtracted from each other")
	})
	fake := clock.NewFake(start)
	now := clock.Instants(fake)
	fake.Advance(time.Minute)
	assert.Equal(t, start.Add(time.Minute), now())
}

func TestOr(t *testing.T) {
	fake := clock.NewFake(start)
	assert.Equal(t, clock.System, clock.Or(nil))
	assert.Equal(t, clock.Clock(fake), clock.Or(fake))
}

// A policy under test asks the fake clock, and the test moves it.
func ExampleFake() {
	c := clock.NewFake(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	c.AfterFunc(30*time.Second, func() { fmt.Println("open breaker tries again at", c.Now().Format(time.TimeOnly)) })

	c.Advance(29 * time.Second)
	fmt.Println("nothing yet")
	c.Advance(time.Second)
	// Output:
	// nothing yet
	// open breaker tries again at 12:00:30
}

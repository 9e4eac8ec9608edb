package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		require.NoError(t, Sleep(t.Context(), clock.System, time.Minute))
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, Sleep(t.Context(), clock.System, -1))

		wake := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(wake) })
		require.NoError(t, SleepOr(t.Context(), clock.System, time.Hour, wake))
		assert.Equal(t, time.Minute+time.Second, time.Since(begin))
	})
}

func TestSleep_EndsWithItsContext_R07(t *testing.T) {
	c := clock.NewFake(time.Time{})
	ctx, cancel := context.WithCancel(t.Context())
	c.AfterFunc(time.Second, cancel)
	go c.Advance(time.Minute)
	require.ErrorIs(t, Sleep(ctx, c, time.Hour), context.Canceled)
	assert.Zero(t, c.Pending(), "no timer is left")
	assert.ErrorIs(t, Sleep(ctx, c, 0), context.Canceled, "also without a wait")
}

var errLate = errors.New("too late")

func TestDeadline_Passes(t *testing.T) {
	c := clock.NewFake(time.Time{})
	ctx, d := NewDeadline(t.Context(), c, time.Second, errLate)
	c.Advance(time.Second - 1)
	require.NoError(t, ctx.Err())
	c.Advance(1)
	assert.Equal(t, errLate, context.Cause(ctx))
	assert.True(t, d.Passed())
	assert.False(t, d.Lift(), "it is too late to lift it")
	d.End()
}

func TestDeadline_LiftedLeavesTheContextAlive_T08(t *testing.T) {
	c := clock.NewFake(time.Time{})
	ctx, d := NewDeadline(t.Context(), c, time.Second, errLate)
	require.True(t, d.Lift())
	assert.Zero(t, c.Pending())
	c.Advance(time.Hour)
	require.NoError(t, ctx.Err())
	assert.False(t, d.Passed())
	d.End()
	assert.Error(t, ctx.Err())
	d.End()
}

package discovery_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// five is a set of five endpoints.
var five = set("a:1", "b:1", "c:1", "d:1", "e:1")

const told5 = "0s [a:1 b:1 c:1 d:1 e:1]"

func TestLastGood_ErrorKeepsTheSet_D01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		w := start(t, discovery.LastGood{Resolver: says(five, nil, nil), OnEvent: seen.add})
		time.Sleep(time.Hour)
		all := w.stop()
		assert.Equal(t, []string{told5, "1s failed", "2s failed"}, lines(all))
		require.ErrorIs(t, all[1].failed, errSource)
		failed := seen.of(discovery.Failed)
		require.Len(t, failed, 2)
		require.ErrorIs(t, failed[1].Err, errSource)
		assert.Equal(t, 5, failed[1].Size)
		assert.Equal(t, 2*time.Second, failed[1].Time.Sub(failed[1].Answered))
	})
}

func TestLastGood_EmptyAnswer_D02(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		grace  time.Duration
		source discovery.Resolver
		want   []string
	}{
		{"is held for 30s", 0, says(five, none), []string{told5, "31s []"}},
		{"is held for as long as configured", time.Minute, says(five, none), []string{told5, "1m1s []"}},
		{"is believed at once if configured", -1, says(five, none), []string{told5, "1s []"}},
		{"does not begin anew with each empty answer", 3 * time.Second, says(five, none, none, none, none, none), []string{told5, "4s []"}},
		{"is taken back", 3 * time.Second, says(five, none, none, five), []string{told5}},
		{"is taken back by others", 3 * time.Second, says(five, none, none, set("f:1")), []string{told5, "3s [f:1]"}},
		{"begins anew after it was taken back", 3 * time.Second, says(five, none, none, five, none), []string{told5, "7s []"}},
		{"is neither ended nor extended by an error", 3 * time.Second, says(five, none, nil), []string{told5, "2s failed", "4s []"}},
		{"is passed on if it is the first", 0, says(none, none), []string{"0s []"}},
		{"is passed on if only errors were before", 0, says(nil, none), []string{"0s failed", "1s []"}},
		{"ends with the next set", time.Second, says(five, none, none, none, set("f:1")), []string{told5, "2s []", "4s [f:1]"}},
		{"is not a set of bad entries only", -1, says(five, set("bad")), []string{told5, "1s failed"}},
		{"is not nothing beside an error", -1, script(func(ctx context.Context, sink discovery.Sink) error {
			sink.Update(five, nil)
			time.Sleep(time.Second)
			sink.Update(nil, errSource)
			return stay(ctx)
		}), []string{told5, "1s failed"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, discovery.LastGood{Resolver: row.source, EmptyGrace: row.grace})
				time.Sleep(time.Hour)
				assert.Equal(t, row.want, lines(w.stop()))
			})
		})
	}
}

func TestLastGood_TellsOfAnEmptyAnswer_D02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		w := start(t, discovery.LastGood{Resolver: says(five, none, none), OnEvent: seen.add})
		time.Sleep(time.Hour)
		w.stop()
		var kinds []discovery.EventKind
		for _, e := range seen.all() {
			kinds = append(kinds, e.Kind)
		}
		assert.Equal(t, []discovery.EventKind{discovery.Updated, discovery.Held, discovery.Held, discovery.Emptied}, kinds)
		emptied := seen.all()[3]
		assert.Equal(t, 0, emptied.Size)
		assert.Equal(t, 5, emptied.Before)
		assert.Equal(t, 29*time.Second, emptied.Time.Sub(emptied.Answered))
	})
}

func TestLastGood_SuddenDropRaisesAnEvent_D02(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		share float64
		left  int // of ten
		want  bool
	}{
		{"half", 0, 5, false},
		{"less than half", 0, 4, true},
		{"off", -1, 1, false},
		{"any", 1, 9, true},
		{"none", 1, 10, false},
		{"custom", 0.2, 2, false},
		{"less than custom", 0.2, 1, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ten := set("a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1", "i:1", "j:1")
				seen := &events{}
				w := start(t, discovery.LastGood{Resolver: says(ten, ten[:row.left]), MinShare: row.share, OnEvent: seen.add})
				time.Sleep(time.Minute)
				w.stop()
				assert.Len(t, w.last(), row.left, "it is used nevertheless")
				dropped := seen.of(discovery.Dropped)
				require.Equal(t, row.want, len(dropped) == 1)
				if row.want {
					assert.Equal(t, 10, dropped[0].Before)
					assert.Equal(t, row.left, dropped[0].Size)
				}
			})
		})
	}
}

func TestLastGood_EqualSetsAreNoOps_D15(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rich := []discovery.Endpoint{
			{Address: "a:1", ID: "a", Weight: 2, Attributes: map[string]string{"version": "1"}},
			{Address: "b:1", Weight: 1},
		}
		again := []discovery.Endpoint{
			{Address: "b:1", ID: "b:1"}, // the default ID and the default weight
			{Address: "a:1", ID: "a", Weight: 2, Attributes: map[string]string{"version": "1"}},
		}
		changed := slices.Clone(again)
		changed[0].Draining = true
		seen := &events{}
		w := start(t, discovery.LastGood{Resolver: says(rich, again, rich, changed, rich[:1], changed[1:]), OnEvent: seen.add})
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"0s [a:1 b:1]", "3s [a:1 b:1]", "4s [a:1]"}, lines(w.stop()))
		assert.Len(t, seen.of(discovery.Unchanged), 3)
	})
}

// TestLastGood_BadEntries_D06: they are left out, counted and told; so is an
// endpoint that is in the set already (which would get twice the traffic).
func TestLastGood_BadEntries_D06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		source := script(func(ctx context.Context, sink discovery.Sink) error {
			sink.Update([]discovery.Endpoint{
				{Address: "a:1"}, {Address: "bad"}, {Address: "a:1", Weight: 7}, {Address: "b:1", Weight: -1}, {Address: "c:1"},
			}, errSource)
			return stay(ctx)
		})
		w := start(t, discovery.LastGood{Resolver: source, OnEvent: seen.add})
		synctest.Wait()
		all := w.stop()
		require.Len(t, all, 1)
		assert.Equal(t, set("a:1", "c:1"), all[0].set, "the first of two wins")
		require.ErrorIs(t, all[0].skipped, errSource)
		list := seen.all()
		require.Len(t, list, 2)
		assert.Equal(t, discovery.Skipped, list[0].Kind)
		assert.Equal(t, 4, list[0].Skipped, "three here, one by the source")
		assert.Equal(t, 2, list[0].Size)
		assert.Equal(t, discovery.Updated, list[1].Kind)
		assert.Equal(t, 2, list[1].Size)
	})
}

// TestLastGood_BrokenWatchIsStartedAgain_D03: a broken watch keeps the set, and
// a refresh shortens the wait to 1s, no more.
func TestLastGood_BrokenWatchIsStartedAgain_D03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started []time.Duration
		begin := time.Now()
		broken := script(func(_ context.Context, sink discovery.Sink) error {
			started = append(started, time.Since(begin))
			if len(started) == 1 {
				sink.Update(five, nil)
			}
			return errSource
		})
		w := startOn(t, discovery.LastGood{Resolver: broken}, clock.System, func() float64 { return 0.9999999999 })
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			w.ask()
		}
		all := w.stop()
		assert.Equal(t, told5, all[0].String())
		assert.GreaterOrEqual(t, len(started), 9)
		require.GreaterOrEqual(t, len(failures(all)), 9)
		require.ErrorContains(t, failures(all)[0], "the watch broke: "+errSource.Error())
		assertGaps(t, started, time.Second, 1100*time.Millisecond)
	})
}

// TestLastGood_FollowsAnyClock: the grace time runs on the sink's clock alone.
func TestLastGood_FollowsAnyClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Unix(1_000_000, 0))
		updates := make(chan []discovery.Endpoint)
		source := script(func(ctx context.Context, sink discovery.Sink) error {
			for {
				select {
				case s := <-updates:
					sink.Update(s, nil)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		w := startOn(t, discovery.LastGood{Resolver: source}, fake, func() float64 { return 0.5 })
		updates <- five
		updates <- none
		synctest.Wait()
		fake.Advance(29 * time.Second)
		synctest.Wait()
		assert.Len(t, w.last(), 5)
		fake.Advance(time.Second)
		synctest.Wait()
		assert.Empty(t, w.last())

		updates <- five
		updates <- none
		synctest.Wait()
		assert.Equal(t, 1, fake.Pending(), "the grace time")
		updates <- five
		synctest.Wait()
		assert.Zero(t, fake.Pending(), "taken back")
		updates <- none
		synctest.Wait()
		w.stop()
		assert.Zero(t, fake.Pending(), "timers left behind")
	})
}

// TestLastGood_CallsNeverOverlap: a source that calls its sink from many
// goroutines, and a grace time that ends meanwhile.
func TestLastGood_CallsNeverOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := script(func(ctx context.Context, sink discovery.Sink) error {
			done := make(chan struct{})
			for i := range 8 {
				go func() {
					for j := range 50 {
						sink.Update(five[:(i+j)%6], nil)
						sink.Fail(errSource)
						time.Sleep(time.Millisecond)
					}
					done <- struct{}{}
				}()
			}
			for range 8 {
				<-done
			}
			return stay(ctx)
		})
		inside := 0
		w := start(t, discovery.Merge{
			discovery.LastGood{Resolver: source, EmptyGrace: 2 * time.Millisecond, OnEvent: func(discovery.Event) {
				inside++ // a race, should the calls overlap
			}},
			source,
		})
		time.Sleep(time.Minute)
		w.stop()
		assert.Positive(t, inside)
	})
}

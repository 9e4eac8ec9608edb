package discovery_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

var errSource = errors.New("the registry is down")

// says is a script in which each line is a set or, if nil, a failure, a second
// after the one before.
func says(sets ...[]discovery.Endpoint) script {
	return func(ctx context.Context, sink discovery.Sink) error {
		for _, set := range sets {
			if set == nil {
				sink.Fail(errSource)
			} else {
				sink.Update(set, nil)
			}
			time.Sleep(time.Second)
		}
		return stay(ctx)
	}
}

// later begins half a second later than others.
func later(s script) script {
	return func(ctx context.Context, sink discovery.Sink) error {
		time.Sleep(500 * time.Millisecond)
		return s(ctx, sink)
	}
}

var none = []discovery.Endpoint{}

func TestMerge_IsTheUnionOfTheLatestSets(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		merge discovery.Merge
		want  []string
	}{
		{"of one", discovery.Merge{discovery.Static{"a:1"}}, []string{"0s [a:1]"}},
		{
			"changes of both",
			discovery.Merge{says(set("a:1"), set("a:2"), set("a:3")), later(says(set("b:1"), nil, set("b:2")))},
			[]string{"0s [a:1]", "500ms [a:1 b:1]", "1s [a:2 b:1]", "1.5s failed", "2s [a:3 b:1]", "2.5s [a:3 b:2]"},
		},
		{
			"a failure keeps the last set",
			discovery.Merge{says(set("a:1"), nil, nil, none), says()},
			[]string{"0s [a:1]", "1s failed", "2s failed", "3s []"},
		},
		{"one that never answers", discovery.Merge{says(), says(set("b:1"))}, []string{"0s [b:1]"}},
		{"one that fails before it ever answers", discovery.Merge{says(nil), says()}, []string{"0s failed"}},
		{"empty, while another is silent", discovery.Merge{says(none, none), says()}, nil},
		{"both empty", discovery.Merge{says(none), says(none)}, []string{"0s []"}},
		{
			"emptied later, while another is silent",
			discovery.Merge{says(set("a:1"), none), says()},
			[]string{"0s [a:1]", "1s []"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, row.merge)
				time.Sleep(10 * time.Second)
				assert.Equal(t, row.want, lines(w.stop()))
			})
		})
	}
}

// TestMerge_EmptyBesideAFailure: the first empty answer waits for the others,
// but a failure is as good as an answer there.
func TestMerge_EmptyBesideAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := script(func(ctx context.Context, sink discovery.Sink) error {
			time.Sleep(3 * time.Second)
			sink.Fail(errSource)
			return stay(ctx)
		})
		w := start(t, discovery.Merge{says(none), late})
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"3s failed", "3s []"}, lines(w.stop()))
	})
}

// TestMerge_FirstResolverWins: a known endpoint is never doubled, whichever
// source speaks last.
func TestMerge_FirstResolverWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front := discovery.List{{Address: "a:1", Weight: 9}}
		behind := discovery.List{{Address: "a:1", Weight: 1}, {Address: "a:1", ID: "other"}, {Address: "b:1"}}
		w := start(t, discovery.Merge{front, behind})
		synctest.Wait()
		assert.Equal(t, []discovery.Endpoint{
			{Address: "a:1", Weight: 9}, {Address: "a:1", ID: "other"}, {Address: "b:1"},
		}, w.last())
		w.stop()
	})
}

func TestMerge_NamesTheSourceOfAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		partly := script(func(ctx context.Context, sink discovery.Sink) error {
			sink.Update(set("a:1"), errSource)
			sink.Update(nil, errSource) // bad entries only: not an empty answer
			return stay(ctx)
		})
		w := start(t, discovery.Merge{says(), partly})
		synctest.Wait()
		all := w.stop()
		assert.Equal(t, []string{"0s [a:1]", "0s failed"}, lines(all))
		require.ErrorIs(t, all[0].skipped, errSource)
		require.ErrorContains(t, all[0].skipped, "source 1: ")
		require.ErrorIs(t, all[1].failed, errSource)
		require.ErrorContains(t, all[1].failed, "source 1: ")
	})
}

// TestMerge_RefreshReachesEverySource, also one that is busy, and one that does
// not listen blocks nobody.
func TestMerge_RefreshReachesEverySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan string, 100)
		listener := func(name string) script {
			return func(ctx context.Context, sink discovery.Sink) error {
				for {
					select {
					case <-sink.Refresh:
						heard <- name
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
		}
		w := start(t, discovery.Merge{says(), listener("b"), listener("c")})
		for range 3 {
			synctest.Wait()
			w.ask()
		}
		synctest.Wait()
		w.stop()
		close(heard)
		count := map[string]int{}
		for name := range heard {
			count[name]++
		}
		assert.Equal(t, map[string]int{"b": 3, "c": 3}, count)
	})
}

// TestMerge_BrokenWatchIsStartedAgain_D04: the waits grow from 1s to 60s, are
// random, and begin anew once a watch got an answer.
func TestMerge_BrokenWatchIsStartedAgain_D04(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		random float64
		want   []time.Duration
	}{
		{0, []time.Duration{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{0.5, []time.Duration{0, 1500, 4000, 8500, 17000, 33500, 64000, 94500, 125000, 155500, 186000}},
		{0.9999999999, []time.Duration{0, 2, 6, 14, 30, 62, 122, 182, 242, 302, 362}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var started []time.Duration
			begin := time.Now()
			broken := script(func(context.Context, discovery.Sink) error {
				started = append(started, time.Since(begin).Round(time.Millisecond))
				if len(started) < 11 {
					return errSource
				}
				return nil // to end without an error is just as wrong
			})
			w := startOn(t, discovery.Merge{broken, discovery.Static{"a:1"}}, clock.System, func() float64 { return row.random })
			time.Sleep(363*time.Second + time.Second/2) // between two starts
			all := w.stop()
			unit := time.Second
			if row.random == 0.5 {
				unit = time.Millisecond
			}
			for i := range row.want {
				assert.Equal(t, row.want[i]*unit, started[i])
			}
			require.Len(t, failures(all), len(started))
			for i, err := range failures(all) {
				require.ErrorContains(t, err, "source 0: discovery: the watch broke: ")
				if i < 10 {
					require.ErrorIs(t, err, errSource)
				}
			}
		})
	}
}

func TestMerge_AnswerMakesTheWaitShortAgain_D04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started []time.Duration
		begin := time.Now()
		broken := script(func(_ context.Context, sink discovery.Sink) error {
			started = append(started, time.Since(begin))
			if len(started) == 4 {
				sink.Update(set("a:1"), nil)
			}
			return errSource
		})
		w := start(t, discovery.Merge{broken})
		time.Sleep(14 * time.Second)
		w.stop()
		const s = time.Second
		assert.Equal(t, []time.Duration{0, s * 3 / 2, 4 * s, s * 17 / 2, 10 * s, s * 25 / 2}, started)
	})
}

// TestWatch_WaitsForWhatItStarted: a resolver that needs a second to close what
// it has open.
func TestWatch_WaitsForWhatItStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		slow := script(func(ctx context.Context, _ discovery.Sink) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended++
			return ctx.Err()
		})
		for i, r := range []discovery.Resolver{discovery.LastGood{Resolver: slow}, discovery.Merge{slow}} {
			w := start(t, r)
			synctest.Wait()
			w.stop()
			assert.Equal(t, i+1, ended)
		}
	})
}

package discovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKeeper drives the core with explicit times. A line of want is what is told
// to the sink, then the events.
func TestKeeper(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	tick := report{source: -1}
	fail := report{failed: errors.New("down")}
	says := func(list ...string) report {
		r := report{endpoints: []Endpoint{}}
		for _, address := range list {
			r.endpoints = append(r.endpoints, Endpoint{Address: address})
		}
		return r
	}
	type row struct {
		at    time.Duration
		event report
		want  string
	}
	for name, rows := range map[string][]row{
		"sets": {
			{0, says("a:1", "b:1"), "update 2: updated 0→2"},
			{1, says("b:1", "a:1"), "unchanged 2→2"},
			{2, says("b:1", "a:1", "c:1"), "update 3: updated 2→3"},
			{3, says("c:1"), "update 1: dropped 3→1, updated 3→1"},
			{4, fail, "fail: failed 1→1"},
			{5, says("c:1", "c:1"), "skipped 1→1, unchanged 1→1"},
			{6, says("c:1", "nothing"), "skipped 1→1, unchanged 1→1"},
			{7, says("nothing"), "fail: failed 1→1"},
		},
		"grace": {
			{0, says("a:1"), "update 1: updated 0→1"},
			{1, tick, ""},
			{2, says(), "held 1→1"},
			{11, tick, ""},
			{11, says(), "held 1→1"},
			{12, tick, "update 0: emptied 1→0"},
			{13, tick, ""},
			{14, says(), "unchanged 0→0"},
			{15, says("a:1"), "update 1: updated 0→1"},
		},
		"grace over before the timer is heard": {
			{0, says("a:1"), "update 1: updated 0→1"},
			{2, says(), "held 1→1"},
			{13, says(), "update 0: emptied 1→0"},
		},
		"set just in time": {
			{0, says("a:1"), "update 1: updated 0→1"},
			{2, says(), "held 1→1"},
			{13, says("a:1"), "unchanged 1→1"},
			{14, tick, ""},
		},
		"time jumps back": {
			{100, says("a:1"), "update 1: updated 0→1"},
			{100, says(), "held 1→1"},
			{10, tick, ""},
			{10, says(), "held 1→1"},
			{109, tick, ""},
			{110, tick, "update 0: emptied 1→0"},
		},
		"nothing known": {
			{0, tick, ""},
			{0, fail, "fail: failed 0→0"},
			{1, says(), "update 0: emptied 0→0"},
			{2, fail, "fail: failed 0→0"},
			{3, says(), "unchanged 0→0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keeper{grace: 10 * time.Second, minShare: 0.5}
			for i, row := range rows {
				now := start.Add(row.at * time.Second)
				var s step
				if row.event.source < 0 {
					s = k.tick(now)
				} else {
					s = k.take(now, row.event)
				}
				assert.Equal(t, row.want, describe(&k, s), "row %d", i)
			}
		})
	}
}

func describe(k *keeper, s step) string {
	var events []string
	for _, e := range s.events {
		events = append(events, fmt.Sprintf("%v %d→%d", e.Kind, e.Before, e.Size))
	}
	told := ""
	switch {
	case s.failed != nil:
		told = "fail: "
	case s.update:
		told = fmt.Sprintf("update %d: ", len(k.set))
	}
	return told + strings.Join(events, ", ")
}

// TestKeeper_Invariants checks, over random histories, what must hold of each.
func TestKeeper_Invariants(t *testing.T) {
	t.Parallel()
	for range 200 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			checkHistory(t, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // a test
		})
	}
}

func checkHistory(t *testing.T, random *rand.Rand) {
	t.Helper()
	k := keeper{grace: 30 * time.Second, minShare: 0.5}
	now := time.Unix(1_000_000, 0)
	var emptySince time.Time // since when no answer had endpoints
	for range 300 {
		now = now.Add(time.Duration(random.IntN(20)) * time.Second)
		before := k.set
		var s step
		if random.IntN(4) == 0 {
			s = k.tick(now)
		} else {
			r := randomReport(random)
			s = k.take(now, r)
			switch {
			case s.failed != nil: // no answer
			case len(r.endpoints) > 0:
				emptySince = time.Time{}
			case emptySince.IsZero():
				emptySince = now
			}
		}
		good, bad := vet(k.set)
		require.Len(t, good, len(k.set))
		require.Zero(t, bad.Count, "the set in use is always valid")
		if !s.update {
			require.Equal(t, before, k.set, "what is in use has been told")
		}
		if s.failed != nil {
			require.False(t, s.update, "an error changes nothing")
		}
		if s.update && len(before) > 0 {
			require.False(t, sameSet(before, k.set), "equal sets are not told")
		}
		if len(before) > 0 && len(k.set) == 0 {
			require.GreaterOrEqual(t, now.Sub(emptySince), 30*time.Second)
		}
		if last := len(s.events) - 1; last >= 0 && s.events[last].Kind == Held {
			require.Less(t, now.Sub(emptySince), 30*time.Second, "nothing is held for longer")
		}
	}
}

func randomReport(random *rand.Rand) report {
	if random.IntN(4) == 0 {
		return report{failed: errors.New("down")}
	}
	r := report{}
	for range max(0, random.IntN(8)-3) {
		r.endpoints = append(r.endpoints, Endpoint{
			Address: fmt.Sprintf("h%d:%d", random.IntN(4), random.IntN(3)), // port 0 is not valid
			Weight:  float64(random.IntN(2)),
		})
	}
	return r
}

func TestVet_CopiesOnlyWhatIsBad(t *testing.T) {
	t.Parallel()
	all := []Endpoint{{Address: "a:1"}, {Address: "b:1"}}
	good, bad := vet(all)
	assert.Same(t, &all[0], &good[0])
	assert.Zero(t, bad.Count)

	all = []Endpoint{{Address: "a:1"}, {}, {Address: "b:1"}}
	good, bad = vet(all)
	assert.Equal(t, []Endpoint{{Address: "a:1"}, {Address: "b:1"}}, good)
	assert.Equal(t, 1, bad.Count)
	assert.Empty(t, all[1].Address, "the slice of the source stays as it is")
}

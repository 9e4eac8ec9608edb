//go:build !race

package breaker

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// allocConfigs are the ways of counting, none of which opens the breaker here.
var allocConfigs = []struct {
	name string
	cfg  Config
}{
	{"consecutive", Config{FailureRate: Off}},
	{"by time", Config{}},
	{"by number", Config{WindowCalls: 100}},
	{"slow calls by time", Config{SlowAfter: time.Hour}},
	{"slow calls by number", Config{SlowAfter: time.Hour, WindowCalls: 100}},
	{"predicate", Config{FailureRate: Off, TripIf: func(Counts) bool { return false }}},
	{"disabled", Config{Mode: Disabled}},
	{"metrics only", Config{Mode: MetricsOnly}},
}

// A call that passes allocates nothing, whatever it means and whatever is counted.
func TestAlloc_Closed(t *testing.T) {
	for _, row := range allocConfigs {
		for _, c := range []outcome.Class{ok200, ok404, err429, hangsUp} {
			r := rigged(t, row.cfg)
			assert.Zero(t, testing.AllocsPerRun(1000, func() {
				p, err := r.Allow()
				if err != nil || p.Done(c) != (c == ok200 && row.cfg.Mode != Disabled) {
					t.Fatal("it is closed, and counts")
				}
			}), "%s, %v", row.name, c)
		}
		system, err := New("users", row.cfg) // whose time is read in another way
		require.NoError(t, err)
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			p, _ := system.Allow()
			p.Report(Result{Class: ok200})
		}), row.name)
	}
}

// Neither does one that is refused, for whatever reason.
func TestAlloc_Refused(t *testing.T) {
	open, half, closedAgain := rigged(t, quick), rigged(t, quick), quick
	send(err500)(open)
	send(err500)(half)
	half.at(5 * time.Second)
	begin("probe")(half)
	closedAgain.RampFor = time.Minute
	ramp := rigged(t, closedAgain)
	send(err500)(ramp)
	ramp.closeIt()
	ramp.random.say(0.99)
	for name, r := range map[string]*rig{"open": open, "half-open": half, "forced open": rigged(t, Config{Mode: ForcedOpen}), "ramp": ramp} {
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, err := r.Allow(); err == nil {
				t.Fatal("it passes")
			}
		}), name)
	}
	require.NoError(t, open.SetMode(MetricsOnly))
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := open.Allow(); err != nil {
			t.Fatal("it is refused")
		}
	}), "would have been refused")
}

// A failure and a slow call allocate nothing in a window of time.
func TestAlloc_FailureInATimeWindow(t *testing.T) {
	for _, cfg := range []Config{
		{}, {SlowAfter: time.Second}, {FailureRate: Off}, {FailureRate: Off, TripIf: func(Counts) bool { return false }},
	} {
		cfg.ConsecutiveFailures, cfg.MinCalls = Off, 1_000_000
		r := rigged(t, cfg)
		for _, result := range []Result{{Class: err500}, {Class: noDial}, {Class: err500, Took: time.Minute}, {Class: ok200, Took: time.Minute}} {
			assert.Zero(t, testing.AllocsPerRun(1000, func() {
				r.fake.Advance(10 * time.Millisecond)
				p, err := r.Allow()
				if err != nil || !p.Report(result) {
					t.Fatal("it counts")
				}
			}), "%v", result)
		}
	}
}

// A group finds a breaker without allocating.
func TestAlloc_GroupFinds(t *testing.T) {
	g, err := NewGroup(Config{Clock: clock.NewFake(dawn)})
	require.NoError(t, err)
	defer g.Close()
	g.Breaker("users:80")
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		p, _ := g.Breaker("users:80").Allow()
		p.Done(ok200)
	}))
}

// Here because it takes long with the race detector.
func TestAlloc_AMillionHosts_K14(t *testing.T) { manyHosts(t, 1_000_000) }

// So many breakers fit into 100 MiB, whatever they count and in whatever state.
func TestAlloc_MemoryOf100000Breakers_K14(t *testing.T) {
	const n = 100_000
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("host-%d.example.com:443", i)
	}
	for _, row := range []struct {
		name string
		cfg  Config
	}{
		{"closed, counted by time", Config{SlowAfter: time.Second}},
		{"closed, counted by number", Config{WindowCalls: 100}},
		{"open", Config{ConsecutiveFailures: 1}},
	} {
		row.cfg.MaxKeys = n
		g, _ := grouped(t, row.cfg)
		before := heap()
		for _, key := range keys {
			b := g.Breaker(key)
			for range 2 {
				if p, err := b.Allow(); err == nil {
					p.Done(err500)
				}
			}
		}
		used := heap() - before
		require.Len(t, g.All(), n)
		t.Logf("%s: %d bytes each", row.name, used/n)
		assert.LessOrEqual(t, used, int64(100<<20), row.name)
		g.Close()
	}
}

package breaker

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// grouped returns a group whose time is the test's, and that has no jitter.
func grouped(t testing.TB, cfg Config) (*Group, *clock.Fake) {
	t.Helper()
	fake := clock.NewFake(dawn)
	cfg.Clock, cfg.Jitter = fake, Off
	g, err := NewGroup(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		g.Close()
		assert.Zero(t, fake.Pending(), "a timer is left")
	})
	return g, fake
}

// names returns the names of all breakers of a group.
func names(g *Group) []string {
	list := []string{}
	for _, b := range g.All() {
		list = append(list, b.Name())
	}
	return list
}

// trip opens a breaker.
func trip(t testing.TB, b *Breaker) {
	t.Helper()
	for range 10_000 {
		p, err := b.Allow()
		if err != nil {
			require.Equal(t, Open, b.State())
			return
		}
		p.Done(err500)
	}
	require.FailNow(t, "it does not open")
}

func TestGroup_MadeWhenAskedFor(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{})
	assert.Empty(t, g.All())
	assert.Empty(t, g.Status())
	assert.Zero(t, fake.Pending())
	b := g.Breaker("b")
	a := g.Breaker("a")
	assert.Same(t, b, g.Breaker("b"))
	assert.NotSame(t, a, b)
	assert.Equal(t, "b", b.Name())
	assert.Equal(t, []*Breaker{a, b}, g.All(), "by name")
	empty := g.Breaker("")
	trip(t, b)
	fake.Advance(time.Second)
	assert.Equal(t, []Status{
		{Because: Created, Since: dawn},
		{Name: "a", Because: Created, Since: dawn},
		{Name: "b", State: Open, Because: ConsecutiveFailures, Since: dawn, Until: dawn.Add(5 * time.Second), Counts: Counts{Rejected: 1}},
	}, g.Status())
	assert.Same(t, empty, g.Breaker(""))
	assert.Equal(t, 1, fake.Pending(), "one timer for all")
}

func TestGroup_BreakersDoNotShareAnything(t *testing.T) {
	t.Parallel()
	g, _ := grouped(t, Config{})
	trip(t, g.Breaker("sick"))
	for i := range 4 {
		p, err := g.Breaker("other").Allow()
		require.NoError(t, err)
		p.Done(err500)
		assert.Equal(t, i+1, g.Breaker("other").Counts().Failures)
	}
	assert.Equal(t, Closed, g.Breaker("other").State())
}

func TestGroup_Remove_K14(t *testing.T) {
	t.Parallel()
	g, _ := grouped(t, Config{})
	before := g.Breaker("a")
	g.Breaker("b")
	g.Breaker("c")
	trip(t, before)
	g.Remove("a")
	g.Remove("a")
	g.Remove("never there")
	assert.Equal(t, []string{"b", "c"}, names(g))
	assert.Equal(t, Open, before.State(), "who still has it can go on")
	after := g.Breaker("a")
	assert.NotSame(t, before, after)
	assert.Equal(t, Closed, after.State())
	for _, name := range []string{"c", "b", "a"} {
		assert.Contains(t, names(g), name)
		g.Remove(name)
		assert.NotContains(t, names(g), name)
	}
}

// However many hosts there are, the group holds as many as it may, and the memory is
// bounded; when all are idle it is free again.
func TestGroup_ManyHosts_K14(t *testing.T) { manyHosts(t, 50_000) }

func manyHosts(t *testing.T, hosts int) {
	t.Helper()
	const most = 1000
	g, fake := grouped(t, Config{MaxKeys: most, IdleFor: time.Minute})
	before := heap()
	for i := range hosts {
		g.Breaker(strconv.Itoa(i))
		if i%10_000 == 0 {
			require.LessOrEqual(t, len(g.All()), most)
		}
	}
	assert.LessOrEqual(t, len(g.All()), most)
	assert.Greater(t, len(g.All()), most*9/10)
	assert.Less(t, heap()-before, int64(4<<20))
	fake.Advance(2 * time.Minute)
	assert.Empty(t, g.All())
	assert.Less(t, heap()-before, int64(1<<20))
	assert.Zero(t, fake.Pending())
	runtime.KeepAlive(g)
}

// heap returns how much memory is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Those that are in use stay, however many others come.
func TestGroup_InUseSurvives_K14(t *testing.T) {
	t.Parallel()
	const seed = 4
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	g, _ := grouped(t, Config{MaxKeys: 100})
	var hot []*Breaker
	for i := range 30 {
		hot = append(hot, g.Breaker(fmt.Sprint("hot", i)))
	}
	for i := range 3000 {
		g.Breaker(fmt.Sprint("cold", i))
		for range 10 { // each of them about every third time
			k := random.IntN(len(hot))
			require.Same(t, hot[k], g.Breaker(fmt.Sprint("hot", k)), "after %d others", i)
		}
		require.LessOrEqual(t, len(g.All()), 100)
	}
}

// That holds also for those that are asked for while others make room.
func TestGroup_InUseSurvivesUnderRaces_K14(t *testing.T) {
	t.Parallel()
	const hot, cold, most = 3, 3000, 20
	g, _ := grouped(t, Config{MaxKeys: most})
	var uses [hot]atomic.Int64
	var over atomic.Bool
	together(hot+1, func(i int) {
		if i < hot {
			key := fmt.Sprint("hot", i)
			b := g.Breaker(key)
			for !over.Load() && assert.Same(t, b, g.Breaker(key), "after %d uses", uses[i].Load()) {
				uses[i].Add(1)
				runtime.Gosched()
			}
			uses[i].Store(math.MaxInt64 / 2)
			return
		}
		defer over.Store(true)
		for k := range cold {
			g.Breaker(fmt.Sprint("cold", k))
			for i := range hot { // all of them were used since
				for before := uses[i].Load(); uses[i].Load() < before+2 && before < math.MaxInt64/2; {
					runtime.Gosched()
				}
			}
		}
	})
}

// Who had found a value before room was made, and notes its use meanwhile, does not make it
// look as if it had not been used for ever.
func TestKeyed_UsedWhileRoomIsMade_K14(t *testing.T) {
	t.Parallel()
	for _, used := range []string{"a", "b", "c"} {
		k := keyed[string]{build: func(key string) string { return key }, clock: clock.NewFake(dawn), most: 3, idleFor: time.Hour}
		k.keep = func(value string) bool {
			if value == used {
				k.byKey[value].used.Store(k.turn.Add(1))
			}
			return false
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			k.get(key)
		}
		there := k.all()
		assert.Contains(t, there, used)
		assert.Contains(t, there, "d")
		assert.Len(t, there, 3)
		k.close()
	}
}

// Who finds that somebody else has made the value meanwhile takes that one.
func TestKeyed_MadeMeanwhile_K14(t *testing.T) {
	t.Parallel()
	made := 0
	k := keyed[int]{build: func(string) int { made++; return made }, keep: func(int) bool { return false }, clock: clock.NewFake(dawn), most: 3, idleFor: time.Hour}
	assert.Equal(t, 1, k.add("a"))
	assert.Equal(t, 1, k.add("a"))
	assert.Equal(t, 1, k.get("a"))
	assert.Equal(t, 1, made)
}

// Of those that were asked for once, the oldest make room.
func TestGroup_TheOldestMakeRoom_K14(t *testing.T) {
	t.Parallel()
	const most = 10
	g, _ := grouped(t, Config{MaxKeys: most})
	for i := range 5 * most {
		g.Breaker(fmt.Sprintf("%02d", i))
		want := []string{}
		for k := max(0, i+1-most); k <= i; k++ {
			want = append(want, fmt.Sprintf("%02d", k))
		}
		require.Equal(t, want, names(g), "after %d", i+1)
	}
}

// Who was used last stays, whatever the order in which they were made.
func TestGroup_TheLeastRecentlyUsedMakesRoom_K14(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"a", "b", "c"}, {"b", "a", "c"}, {"c", "b", "a"}, {"b", "c", "a"}, {"a", "c", "b"}, {"c", "a", "b"}} {
		for range 10 {
			g, fake := grouped(t, Config{MaxKeys: 3})
			for _, key := range append([]string{"a", "b", "c"}, order...) {
				g.Breaker(key)
				fake.Advance(time.Second)
			}
			g.Breaker("d")
			want := append([]string{"d"}, order[1:]...)
			slices.Sort(want)
			require.Equal(t, want, names(g), "used in the order %v", order)
		}
	}
}

func TestGroup_OneAtMost_K14(t *testing.T) {
	t.Parallel()
	g, _ := grouped(t, Config{MaxKeys: 1})
	a := g.Breaker("a")
	assert.Same(t, a, g.Breaker("a"))
	g.Breaker("b")
	assert.Equal(t, []string{"b"}, names(g))
	assert.NotSame(t, a, g.Breaker("a"))
}

// What is not used is dropped after IdleFor at the earliest and after twice that at the
// latest; looking at all is no use.
func TestGroup_IdleOnesAreDropped_K14(t *testing.T) {
	t.Parallel()
	const seed, idleFor = 6, 10 * time.Minute
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, cfg := range []Config{{}, {IdleFor: idleFor}} {
		g, fake := grouped(t, cfg)
		used := map[string]time.Time{}
		dropped := 0
		for range 1500 {
			fake.Advance(time.Duration(random.Int64N(int64(time.Minute))))
			g.Status()
			there := names(g)
			for key, at := range used {
				age := fake.Now().Sub(at)
				if age < idleFor {
					require.Contains(t, there, key, "used %v ago", age)
				}
				if age >= 2*idleFor {
					require.NotContains(t, there, key, "used %v ago", age)
					delete(used, key)
					dropped++
				}
			}
			if random.IntN(3) > 0 {
				key := fmt.Sprint(random.IntN(30))
				g.Breaker(key)
				used[key] = fake.Now()
			}
			require.LessOrEqual(t, fake.Pending(), 1)
		}
		assert.Greater(t, dropped, 20)
		fake.Advance(2 * idleFor)
		assert.Empty(t, g.All())
		assert.Zero(t, fake.Pending(), "with nothing to drop there is no timer")
		g.Breaker("a")
		assert.Equal(t, 1, fake.Pending())
	}
}

// A group that is full makes room for others. What was just used is not idle for that.
func TestGroup_WhatWasJustUsedIsNotIdle_K14(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{MaxKeys: 10, IdleFor: 10 * time.Minute})
	for i := range 10 {
		g.Breaker(fmt.Sprint("old", i))
	}
	fake.Advance(9*time.Minute + 59*time.Second)
	for i := range 10 {
		trip(t, g.Breaker(fmt.Sprint("old", i)))
	}
	g.Breaker("new")
	there := names(g)
	require.Len(t, there, 10)
	fake.Advance(2 * time.Second)
	assert.Equal(t, there, names(g), "two seconds ago they were in use")
}

// What is open stays as long as that lasts, and what somebody has set stays for good: a new
// breaker would not do as well. Yet they are no more than allowed.
func TestGroup_WhatMattersIsKept_K14(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{MaxKeys: 10, IdleFor: time.Minute, OpenFor: time.Hour, ConsecutiveFailures: 1})
	open, set := g.Breaker("open"), g.Breaker("set")
	trip(t, open)
	require.NoError(t, set.SetMode(Disabled))
	g.Breaker("closed")
	fake.Advance(2 * time.Minute)
	assert.Equal(t, []string{"open", "set"}, names(g))
	for i := range 100 {
		g.Breaker(fmt.Sprint(i))
	}
	assert.Contains(t, g.All(), open)
	assert.Contains(t, g.All(), set)
	fake.Advance(time.Hour)
	assert.Equal(t, []string{"set"}, names(g), "its time is over, and nobody asks for it")
	require.NoError(t, set.SetMode(Auto))
	fake.Advance(2 * time.Minute)
	assert.Empty(t, g.All())

	for i := range 100 {
		trip(t, g.Breaker(fmt.Sprint(i)))
		require.LessOrEqual(t, len(g.All()), 10)
	}
	fake.Advance(time.Hour + 2*time.Minute)
	assert.Empty(t, g.All())
	assert.Zero(t, fake.Pending())
}

// A sweep that was begun when the group got another time for it, and comes late, is
// none: neither does it drop too early, nor does it go on beside the other.
func TestGroup_ALateSweep_K14(t *testing.T) {
	t.Parallel()
	timers := &lateTimers{Fake: clock.NewFake(dawn)}
	g, err := NewGroup(Config{Clock: timers, IdleFor: time.Minute})
	require.NoError(t, err)
	g.Breaker("a")
	require.Len(t, timers.set, 1)
	require.NoError(t, g.Use(Config{IdleFor: time.Hour}))
	require.Len(t, timers.set, 2)
	assert.Equal(t, 1, timers.Pending())

	timers.set[0]() // it was on its way when it was stopped
	timers.set[0]()
	assert.Equal(t, []string{"a"}, names(g), "used a moment ago")
	assert.Equal(t, 1, timers.Pending(), "two sweeps go on")
	g.Close()
	assert.Zero(t, timers.Pending())
	timers.set[0]()
	assert.Zero(t, timers.Pending())
}

// lateTimers is a clock that remembers what it was to call.
type lateTimers struct {
	*clock.Fake
	set []func()
}

func (l *lateTimers) AfterFunc(d time.Duration, f func()) clock.Timer {
	l.set = append(l.set, f)
	return l.Fake.AfterFunc(d, f)
}

func TestGroup_UseAppliesToAll_P01(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{})
	trip(t, g.Breaker("open"))
	for range 3 {
		p, err := g.Breaker("closed").Allow()
		require.NoError(t, err)
		p.Done(err500)
	}
	require.NoError(t, g.Breaker("forced").SetMode(ForcedOpen))
	before := g.Status()

	require.Error(t, g.Use(Config{Probes: -1}))
	assert.Equal(t, before, g.Status(), "nothing has changed")

	fake.Advance(time.Second)
	require.NoError(t, g.Use(Config{ConsecutiveFailures: 4, OpenFor: time.Minute, Jitter: Off, Probes: 1}))
	after := g.Status()
	assert.Equal(t, before[0], after[0], "counts stay")
	assert.Equal(t, before[1], after[1], "what was forced open stays so")
	assert.Equal(t, before[2], after[2], "what is open stays open, as long as it was to be")
	fake.Advance(4*time.Second - 1)
	assert.Equal(t, Open, g.Breaker("open").State())
	fake.Advance(1)
	p, err := g.Breaker("open").Allow()
	require.NoError(t, err)
	_, err = g.Breaker("open").Allow()
	assert.ErrorIs(t, err, ErrOpen, "one probe")
	p.Done(ok200)
	p, err = g.Breaker("closed").Allow()
	require.NoError(t, err)
	p.Done(err500)
	assert.Equal(t, Open, g.Breaker("closed").State(), "four")
	trip(t, g.Breaker("new"))
	s := g.Breaker("new").Status()
	assert.Equal(t, time.Minute, s.Until.Sub(s.Since), "also those that are made later have it")
	assert.Equal(t, dawn.Add(5*time.Second), s.Since, "by the same clock")
}

// Of configurations that are set at the same time one wins, everywhere.
func TestGroup_UseConcurrently_P01(t *testing.T) {
	t.Parallel()
	g, _ := grouped(t, Config{MaxKeys: 300})
	for i := range 300 {
		g.Breaker(fmt.Sprint(i))
	}
	for round := range 100 {
		together(2, func(i int) {
			assert.NoError(t, g.Use(Config{Probes: 1 + i, MaxKeys: 300}))
			g.Breaker(fmt.Sprint("new", round, i))
		})
		probes := g.settings.Load().Probes
		for _, b := range g.All() {
			require.Equal(t, probes, b.settings.Load().Probes, "%s, round %d", b.Name(), round)
		}
	}
}

func TestGroup_UseBounds_K14(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{MaxKeys: 50})
	for i := range 50 {
		g.Breaker(fmt.Sprint(i))
	}
	require.NoError(t, g.Use(Config{MaxKeys: 7, IdleFor: time.Minute, Jitter: Off}))
	assert.Len(t, g.All(), 7)
	g.Breaker("one more")
	assert.Len(t, g.All(), 7)
	require.NoError(t, g.Use(Config{MaxKeys: 9, IdleFor: time.Minute, Jitter: Off}))
	for i := range 50 {
		g.Breaker(fmt.Sprint(i))
	}
	assert.Len(t, g.All(), 9)
	assert.Equal(t, 1, fake.Pending())
	fake.Advance(2 * time.Minute)
	assert.Empty(t, g.All(), "the new time")
	assert.Zero(t, fake.Pending())
	require.NoError(t, g.Use(Config{Jitter: Off}))
	assert.Zero(t, fake.Pending())
}

// A closed group holds nothing and has no timer. Who asks gets a breaker all the same.
func TestGroup_Close_K13_K14(t *testing.T) {
	t.Parallel()
	told := 0
	g, fake := grouped(t, Config{OnChange: func(Change) { told++ }})
	a := g.Breaker("a")
	trip(t, a)
	require.Equal(t, 1, told)
	g.Close()
	g.Close()
	assert.Empty(t, g.All())
	assert.Zero(t, fake.Pending())
	fake.Advance(5 * time.Second)
	assert.Equal(t, HalfOpen, a.State(), "who still has it can go on")
	b := g.Breaker("b")
	trip(t, b)
	assert.NotSame(t, b, g.Breaker("b"))
	assert.Empty(t, g.All())
	assert.Zero(t, fake.Pending())
	assert.Equal(t, 1, told, "never after Close")
	g.Remove("a")
	assert.NoError(t, g.Use(Config{}))
	assert.Zero(t, fake.Pending())
}

// guarded is the node of an endpoint with its gate.
func guardedNode(g *Group, address string) (*node.Node, node.Gate) {
	n := node.New(discovery.Endpoint{Address: address}, 1, nil, nil)
	gate := g.Gate(n)
	n.Guard(gate)
	return n, gate
}

// The breakers of endpoints are the group's as long as the endpoints are there, beside
// however many others.
func TestGroup_Endpoints_K14(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{MaxKeys: 1, IdleFor: time.Minute})
	_, b := guardedNode(g, "b:80")
	_, a := guardedNode(g, "a:80")
	_, c := guardedNode(g, "c:80")
	g.Breaker("b2")
	g.Breaker("b1")
	assert.Equal(t, []string{"a:80", "b1", "b:80", "c:80"}, names(g))
	assert.True(t, slices.IsSortedFunc(g.Status(), func(x, y Status) int { return slices.Compare([]string{x.Name}, []string{y.Name}) }))
	fake.Advance(time.Hour)
	assert.Equal(t, []string{"a:80", "b:80", "c:80"}, names(g), "they are not idle")
	b.Gone()
	b.Gone()
	assert.Equal(t, []string{"a:80", "c:80"}, names(g))
	require.NoError(t, g.Use(Config{Mode: ForcedOpen}))
	for _, gate := range []node.Gate{a, c} {
		assert.False(t, gate.Acquire(fake.Now(), false).OK)
	}
	require.NoError(t, g.Use(Config{ConsecutiveFailures: 1, Jitter: Off}))
	for _, breaker := range g.All() {
		trip(t, breaker)
	}
	assert.Equal(t, 2, fake.Pending(), "each has a timer, since nobody asks it")
	gone := g.All()[0]
	a.Gone()
	assert.Equal(t, 1, fake.Pending())
	gone.Reset()
	trip(t, gone)
	assert.Equal(t, 1, fake.Pending(), "nobody waits for one that is gone")
	g.Close()
	assert.Zero(t, fake.Pending())
	assert.Empty(t, g.All())
}

// Endpoints that come and go leave nothing behind, in whatever state they were.
func TestGroup_ChurnOfEndpoints_K14(t *testing.T) {
	t.Parallel()
	g, fake := grouped(t, Config{ConsecutiveFailures: 1})
	for i := range 5000 {
		_, gate := guardedNode(g, fmt.Sprint(i))
		b := g.All()[0]
		if i%2 == 0 {
			trip(t, b)
		}
		if i%4 == 0 {
			fake.Advance(5 * time.Second)
			gate.Acquire(fake.Now(), false)
		}
		gate.Gone()
		if i%8 == 0 {
			fake.Advance(time.Minute)
			b.State()
		}
		require.Zero(t, fake.Pending(), "after %d", i)
	}
	assert.Empty(t, g.gates)
}

// A probe that may take for ever needs no timer; it does not need one all the time.
func TestGroup_EndpointWhoseProbesMayTakeForEver_K08(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(dawn)
	set := 0
	g, err := NewGroup(Config{
		ConsecutiveFailures: 1, Jitter: Off, ProbeTimeout: math.MaxInt64,
		Clock: countingClock{fake, func() { set++; require.Less(t, set, 100, "timers without end") }},
	})
	require.NoError(t, err)
	n, gate := guardedNode(g, "a:80")
	trip(t, g.All()[0])
	fake.Advance(5 * time.Second)
	require.True(t, gate.Acquire(fake.Now(), false).OK)
	fake.Advance(time.Hour)
	assert.Equal(t, node.Reasons(0), n.Reasons(), "there is room for two more")
	assert.Equal(t, HalfOpen, g.All()[0].State())
	g.Close()
	assert.Zero(t, fake.Pending())
}

// countingClock tells of each timer that is set.
type countingClock struct {
	*clock.Fake
	setting func()
}

func (c countingClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.setting()
	return c.Fake.AfterFunc(d, f)
}

// All at once from many goroutines: one breaker per key, never more than allowed.
func TestGroup_Concurrently_K14(t *testing.T) {
	t.Parallel()
	const seed = 8
	t.Logf("seed %d", seed)
	g, fake := grouped(t, Config{MaxKeys: 50, ConsecutiveFailures: 1})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 3000 {
				key := fmt.Sprint(random.IntN(100))
				switch random.IntN(20) {
				case 0:
					g.Remove(key)
				case 1:
					assert.NoError(t, g.Use(Config{MaxKeys: 40 + random.IntN(10), IdleFor: time.Minute, ConsecutiveFailures: 1}))
				case 2:
					fake.Advance(time.Second)
				case 3:
					all := g.Status()
					assert.LessOrEqual(t, len(all), 50)
				default:
					b := g.Breaker(key)
					assert.Equal(t, key, b.Name())
					if p, err := b.Allow(); err == nil {
						p.Done(err500)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, b := range g.All() {
		assert.Same(t, b, g.Breaker(b.Name()))
	}

	g, _ = grouped(t, Config{})
	for round := range 500 {
		found := make([]*Breaker, 8)
		together(len(found), func(i int) { found[i] = g.Breaker(fmt.Sprint(round)) })
		for _, b := range found {
			require.Same(t, found[0], b)
		}
	}
}

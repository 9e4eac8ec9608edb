package breaker

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// together calls f from so many goroutines at once, and waits for them.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

// Of a thousand callers at the instant at which the breaker becomes half-open, exactly so
// many pass as there are probes, and the others get ErrOpen.
func TestHalfOpen_ExactlyNProbes_K03(t *testing.T) {
	t.Parallel()
	const callers = 1000
	for _, row := range []struct {
		probes, successes int
		passing           int
	}{{0, 0, 3}, {1, 0, 1}, {3, 0, 3}, {10, 0, 10}, {100, 0, 100}, {3, 1, 3}, {1, 5, 1}, {4, 7, 4}, {999, 0, 999}, {1000, 0, 1000}, {10000, 0, 1000}} {
		r := rigged(t, Config{ConsecutiveFailures: 1, Jitter: Off, Probes: row.probes, ProbeSuccesses: row.successes})
		send(err500)(r)
		r.fake.Advance(5 * time.Second)
		permits := make([]Permit, callers)
		passed := make([]bool, callers)
		var refusals atomic.Uint64
		together(callers, func(i int) {
			p, err := r.Allow()
			if err != nil {
				assert.ErrorIs(t, err, ErrOpen)
				refusals.Add(1)
				return
			}
			permits[i], passed[i] = p, true
		})
		name := fmt.Sprintf("%+v", row)
		require.Equal(t, uint64(callers-row.passing), refusals.Load(), name)
		require.Equal(t, refusals.Load(), r.Counts().Rejected, name)
		require.Equal(t, HalfOpen, r.State(), name)

		// They give their permits back, all at once, unused: as many pass again.
		together(callers, func(i int) { assert.False(t, permits[i].Done(hangsUp)) })
		again := 0
		for range callers {
			p, err := r.Allow()
			if err == nil {
				permits[again] = p
				again++
			}
		}
		require.Equal(t, row.passing, again, name)
		need := max(row.successes, row.probes)
		if row.successes > 0 {
			need = row.successes
		}
		if need == 0 {
			need = 3
		}
		var counts atomic.Int64
		together(again, func(i int) {
			if permits[i].Done(ok200) {
				counts.Add(1)
			}
		})
		if again < need {
			require.Equal(t, HalfOpen, r.State(), name)
			require.Equal(t, int64(again), counts.Load(), name)
			continue
		}
		require.Equal(t, Closed, r.State(), name)
		require.Equal(t, int64(need), counts.Load(), "those that come after the last that was needed do not count: %s", name)
	}
}

// The same with probes that end while others come: never more are under way than may be,
// and no more succeed than it takes.
func TestHalfOpen_NeverMoreThanNProbes_K03(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		probes, successes := 1+round%5, 1+round
		r := rigged(t, Config{ConsecutiveFailures: 1, Jitter: Off, Probes: probes, ProbeSuccesses: successes})
		send(err500)(r)
		r.fake.Advance(5 * time.Second)
		half := r.advanced()
		var under, counts, cancelled atomic.Int64
		together(16, func(i int) {
			random := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			for half == r.phase.Load() {
				p, err := r.Allow()
				if err != nil || p.phase != half {
					p.Done(hangsUp)
					continue
				}
				assert.LessOrEqual(t, under.Add(1), int64(probes))
				class := ok200
				if random.IntN(3) > 0 {
					class = hangsUp
					cancelled.Add(1)
				}
				under.Add(-1) // before: afterwards somebody else may be there
				if p.Done(class) {
					counts.Add(1)
				}
			}
		})
		assert.Equal(t, Closed, r.State())
		assert.Equal(t, int64(successes), counts.Load())
	}
}

// advanced returns the phase after all that time has brought.
func (r *rig) advanced() *phase {
	r.State()
	return r.phase.Load()
}

// Whatever comes together: what Done says it counted is what is counted.
func TestCounts_AreExactUnderRaces(t *testing.T) {
	t.Parallel()
	const seed, goroutines, each = 12, 8, 4000
	t.Logf("seed %d", seed)
	for _, row := range []struct {
		name   string
		cfg    Config
		moving bool // the clock, through less than the window
	}{
		{"by time", Config{}, false},
		{"by time, which passes", Config{Window: 20 * time.Minute}, true},
		{"by number", Config{WindowCalls: goroutines * each}, false},
		{"slow calls too", Config{SlowAfter: time.Second}, false},
		{"slow calls too, by number", Config{SlowAfter: time.Second, WindowCalls: goroutines * each}, false},
	} {
		row.cfg.ConsecutiveFailures, row.cfg.FailureRate, row.cfg.SlowRate = Off, 1, 1
		r := rigged(t, row.cfg)
		send(ok200)(r) // so that not all have failed
		report(Result{Class: ok200, Took: 1})(r)
		var successes, failures, slow, ignored atomic.Int64
		successes.Store(2)
		together(goroutines, func(i int) {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range each - 1 {
				p, err := r.Allow()
				if !assert.NoError(t, err) {
					return
				}
				if row.moving && random.IntN(100) == 0 {
					r.fake.Advance(time.Second)
				}
				result := Result{Class: outcome.Class(random.IntN(9)), Took: time.Duration(1 + random.Int64N(int64(2*time.Second)))}
				if !p.Report(result) {
					ignored.Add(1)
					assert.NotContains(t, []outcome.Class{ok200, err500, noDial}, result.Class)
					continue
				}
				if result.Class == ok200 {
					successes.Add(1)
				} else {
					failures.Add(1)
				}
				if result.Took > time.Second && row.cfg.SlowAfter > 0 {
					slow.Add(1)
				}
				if random.IntN(200) == 0 {
					r.Counts()
				}
			}
		})
		if row.moving { // a success that was late for its tick may be missing until the next
			r.fake.Advance(2 * time.Minute)
		}
		got := r.Counts()
		got.ConsecutiveFailures = 0
		assert.Equal(t, Counts{Successes: int(successes.Load()), Failures: int(failures.Load()), Slow: int(slow.Load())}, got, row.name)
		assert.Equal(t, Closed, r.State(), row.name)
	}
}

// Failures and successes that go on while the window slides: counts are never of more
// than there were, and none are left in the end.
func TestCounts_StayInBoundsWhileTheWindowSlides(t *testing.T) {
	t.Parallel()
	const seed = 21
	t.Logf("seed %d", seed)
	for _, cfg := range []Config{{Window: 100 * time.Millisecond}, {WindowCalls: 50}} {
		cfg.ConsecutiveFailures, cfg.MinCalls = Off, 50
		cfg.Mode = MetricsOnly
		cfg.TripIf = func(c Counts) bool {
			assert.True(t, c.Successes >= 0 && c.Failures >= 0 && c.Slow >= 0 && c.Slow <= c.Calls())
			assert.LessOrEqual(t, c.Calls(), 4*2000)
			return false
		}
		cfg.FailureRate = Off
		r := rigged(t, cfg)
		together(4, func(i int) {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 2000 {
				if p, err := r.Allow(); assert.NoError(t, err) {
					p.Done([]outcome.Class{ok200, ok200, err500}[random.IntN(3)])
				}
				if i == 0 {
					r.fake.Advance(time.Millisecond)
				}
			}
		})
		if cfg.Window > 0 {
			r.fake.Advance(cfg.Window)
			assert.Zero(t, r.Counts().Calls())
			continue
		}
		require.Equal(t, counted, times(50, send(ok200))(r))
		assert.Equal(t, Counts{Successes: 50}, r.Counts())
		require.Equal(t, counted, times(20, send(err500))(r))
		assert.Equal(t, 30, r.Counts().Successes)
	}
}

// Of two that count to a bucket of which one or both begin a tick anew, each counts once.
// Every other time one is late by a whole window: it counts to what there is, before or
// after.
func TestTally_BeginsAnewUnderRaces(t *testing.T) {
	t.Parallel()
	var successes tally
	var clock ticks
	const rounds = 20_000
	var arrived atomic.Int64
	meet := func(times int64) { // both are there
		arrived.Add(1)
		for spins := 0; arrived.Load() < 2*times; spins++ {
			if spins > 20 {
				runtime.Gosched()
			}
		}
	}
	together(2, func(i int) {
		for round := range int64(rounds) {
			now, late, least := (round+1)*buckets, int64(0), 2
			if round%2 == 0 {
				late, least = int64(i)*buckets, 1
			}
			if i == 0 {
				successes.add(&clock, now-buckets)
				clock.latest.Store(now)
			}
			meet(3*round + 1)
			successes.add(&clock, now-late)
			meet(3*round + 2)
			if n := successes.count(now); i == 0 && (n < least || n > 2) {
				assert.Fail(t, "each counts once", "%d in round %d", n, round)
			}
			meet(3*round + 3)
		}
	})
}

// The source of randomness is used by one goroutine at a time, whatever configurations
// come.
func TestRand_AccessIsSerialised(t *testing.T) {
	t.Parallel()
	g, err := NewGroup(Config{Clock: clock.NewFake(dawn), Rand: &exclusive{TB: t}, ConsecutiveFailures: 1})
	require.NoError(t, err)
	defer g.Close()
	for i := range 300 { // so that a configuration reaches the first long before the last
		g.Breaker(fmt.Sprint("b", i))
	}
	together(4, func(i int) {
		name := []string{"a", "c"}[i%2]
		for k := range 300 {
			b := g.Breaker(name)
			if p, err := b.Allow(); err == nil {
				p.Done(err500)
			}
			b.Reset()
			if i == 0 && k%10 == 0 {
				assert.NoError(t, g.Use(Config{ConsecutiveFailures: 1}))
			}
		}
	})
}

// exclusive is a source that may not be used by two at once, and takes its time.
type exclusive struct {
	testing.TB
	n    uint64 // the race detector looks at it too
	busy atomic.Bool
}

func (e *exclusive) Uint64() uint64 {
	assert.True(e, e.busy.CompareAndSwap(false, true), "two at once")
	defer e.busy.Store(false)
	for range 5 {
		runtime.Gosched()
	}
	e.n++
	return e.n << 50
}

// chain is an observer that asserts that each change begins where the one before ended, one
// at a time.
type chain struct {
	testing.TB
	last    map[string]State
	n       int
	telling atomic.Int32
	then    func(Change) // what it does besides
}

func (c *chain) told(change Change) {
	assert.Equal(c, int32(1), c.telling.Add(1), "calls overlap")
	defer c.telling.Add(-1)
	assert.Equal(c, c.last[change.Name], change.From, "change %d: %+v", c.n, change)
	assert.NotEqual(c, change.From, change.To, "%+v", change)
	c.last[change.Name] = change.To
	c.n++
	if c.then != nil {
		c.then(change)
	}
}

// shake does all sorts of things to breakers, from many goroutines.
func shake(t *testing.T, seed uint64, n int, fake *clock.Fake, pick func(*rand.Rand) *Breaker) {
	t.Helper()
	together(6, func(i int) {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		var held []Permit
		for range n {
			b := pick(random)
			quietly(func() {
				switch random.IntN(30) {
				case 0:
					assert.NoError(t, b.SetMode(Mode(random.IntN(4))))
				case 1:
					b.Reset()
				case 2, 3:
					assert.NoError(t, b.SetMode(Auto))
				case 4:
					b.Status()
				case 5, 6, 7:
					fake.Advance(time.Duration(random.Int64N(int64(time.Second))))
				default:
					if p, err := b.Allow(); err == nil {
						held = append(held, p)
					}
				}
			})
			if len(held) > random.IntN(5) {
				quietly(func() {
					p := held[0]
					held = held[1:]
					p.Report(Result{Class: outcome.Class(random.IntN(6)), Took: time.Duration(random.IntN(3)) * time.Second})
				})
			}
		}
	})
}

// inCallback is what callbacks of these tests panic with.
const inCallback = "panic in a callback"

// quietly lets a callback panic.
func quietly(f func()) {
	defer func() {
		if r := recover(); r != nil && r != inCallback {
			panic(r)
		}
	}()
	f()
}

// Whatever the callback does, there is no deadlock, and the chain holds.
func TestOnChange_ChainUnderRaces_K13(t *testing.T) {
	t.Parallel()
	for seed, row := range []struct {
		name string
		then func(b *Breaker, c Change, n int)
	}{
		{"only listens", nil},
		{"asks", func(b *Breaker, c Change, n int) { b.State(); b.Counts(); b.Status() }},
		{"calls", func(b *Breaker, c Change, n int) {
			if p, err := b.Allow(); err == nil {
				p.Done([]outcome.Class{ok200, err500, hangsUp}[n%3])
			}
		}},
		{"resets", func(b *Breaker, c Change, n int) {
			if n%5 == 0 {
				b.Reset()
			}
		}},
		{"sets the mode", func(b *Breaker, c Change, n int) { _ = b.SetMode(Mode(n % 4)) }},
		{"panics", func(b *Breaker, c Change, n int) {
			if n%3 == 0 {
				panic(inCallback)
			}
		}},
		{"does something and panics", func(b *Breaker, c Change, n int) {
			if n%7 == 0 {
				b.Reset()
				_ = b.SetMode(ForcedOpen)
				_ = b.SetMode(Auto)
				panic(inCallback)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			fake := clock.NewFake(dawn)
			c := &chain{TB: t, last: map[string]State{}}
			cfg := Config{
				Clock: fake, Rand: rand.NewPCG(uint64(seed), 77), OnChange: c.told, ConsecutiveFailures: 2,
				OpenFor: time.Second, MaxOpenFor: 2 * time.Second, ProbeTimeout: 5 * time.Second,
			}
			b, err := New("users", cfg)
			require.NoError(t, err)
			if row.then != nil {
				c.then = func(change Change) { row.then(b, change, c.n) }
			}
			shake(t, uint64(seed), 1500, fake, func(*rand.Rand) *Breaker { return b })
			c.then = nil
			for b.State() != c.last["users"] { // what a panic has left
				b.Status()
			}
			assert.Equal(t, b.State(), c.last["users"], "all has been told")
			assert.Greater(t, c.n, 100)

			require.NoError(t, b.SetMode(Auto))
			b.Reset()
			for range 3 { // and it works
				trip(t, b)
				fake.Advance(5 * time.Second)
				for b.State() == HalfOpen {
					p, err := b.Allow()
					require.NoError(t, err)
					require.True(t, p.Done(ok200))
				}
				require.Equal(t, Closed, b.State())
			}
		})
	}
}

// The breakers of a group have one observer, which hears of one change at a time.
func TestOnChange_OfAGroup_K13(t *testing.T) {
	t.Parallel()
	const seed = 31
	t.Logf("seed %d", seed)
	fake := clock.NewFake(dawn)
	c := &chain{TB: t, last: map[string]State{}}
	g, err := NewGroup(Config{Clock: fake, Rand: rand.NewPCG(seed, 0), OnChange: c.told, ConsecutiveFailures: 2, OpenFor: time.Second})
	require.NoError(t, err)
	c.then = func(change Change) {
		g.Status()
		if c.n%10 == 0 {
			g.Breaker(change.Name).Reset()
			panic(inCallback)
		}
	}
	shake(t, seed, 1500, fake, func(random *rand.Rand) *Breaker { return g.Breaker(fmt.Sprint(random.IntN(5))) })
	c.then = nil
	for _, s := range g.Status() {
		for range 2 { // the first may find what a panic has left
			assert.Equal(t, g.Breaker(s.Name).State(), s.State)
		}
	}
	for _, s := range g.Status() {
		assert.Equal(t, s.State, c.last[s.Name], "all has been told of %s", s.Name)
	}
	assert.Greater(t, c.n, 100)
	g.Close()
}

// After Mute or Close has returned the callback is not called any more, and was not left
// in the middle.
func TestOnChange_NeverAfterTheEnd_K13(t *testing.T) {
	t.Parallel()
	for round := range 60 {
		fake := clock.NewFake(dawn)
		var over, telling atomic.Bool
		g, err := NewGroup(Config{
			Clock: fake, ConsecutiveFailures: 1, OpenFor: time.Second, Rand: rand.NewPCG(uint64(round), 5),
			OnChange: func(c Change) {
				telling.Store(true)
				defer telling.Store(false)
				assert.False(t, over.Load(), "%+v", c)
				for range 50 {
					_ = fake.Now()
				}
				assert.False(t, over.Load(), "the end does not wait: %+v", c)
			},
		})
		require.NoError(t, err)
		b := g.Breaker("a")
		end := g.Close
		together(5, func(i int) {
			if i == 0 {
				for range round * 5 {
					_ = fake.Now()
				}
				end()
				over.Store(true)
				assert.False(t, telling.Load())
				return
			}
			for range 100 {
				if p, err := b.Allow(); err == nil {
					p.Done([]outcome.Class{ok200, err500}[i%2])
				}
				b.Reset()
				fake.Advance(100 * time.Millisecond)
			}
		})
		g.Close()
	}
}

// The end waits for the callback that is under way, and nobody else does.
func TestOnChange_TheEndWaits_K13(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			release := make(chan struct{})
			var calls []Change
			g, err := NewGroup(Config{Clock: clock.NewFake(dawn), ConsecutiveFailures: 1, OnChange: func(c Change) {
				calls = append(calls, c)
				<-release
			}})
			require.NoError(t, err)
			b := g.Breaker("a")
			go func() {
				if p, err := b.Allow(); err == nil {
					p.Done(err500)
				}
			}()
			synctest.Wait()
			require.Len(t, calls, 1)
			b.Reset() // is not held up, and told later
			assert.Equal(t, Closed, b.State())
			_, err = b.Allow()
			assert.NoError(t, err)
			ended := false
			go func() {
				g.Close()
				ended = true
			}()
			synctest.Wait()
			assert.False(t, ended)
			close(release)
			synctest.Wait()
			assert.True(t, ended)
			assert.Len(t, calls, 1, "what was not told yet is not told")
			require.NoError(t, b.SetMode(ForcedOpen))
			assert.Len(t, calls, 1)
		}
	})
}

// A callback that panics does so in whoever told it; what else there is to tell is told
// the next time, in order.
func TestOnChange_PanicLosesNothing_K13(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(dawn)
	var got []string
	panics := map[int]bool{}
	b, err := New("users", Config{
		Clock: fake, Jitter: Off, ConsecutiveFailures: 1, Probes: 1,
		OnChange: func(c Change) {
			got = append(got, fmt.Sprint(c.From, " to ", c.To))
			if panics[len(got)] {
				panic(inCallback)
			}
		},
	})
	require.NoError(t, err)
	p, err := b.Allow()
	require.NoError(t, err)
	panics[1], panics[2], panics[4] = true, true, true
	assert.PanicsWithValue(t, inCallback, func() { p.Done(err500) })
	assert.Equal(t, []string{"closed to open"}, got)
	assert.False(t, p.Done(err500), "it was given back")
	fake.Advance(5 * time.Second)

	assert.PanicsWithValue(t, inCallback, func() { p, _ = b.Allow() })
	assert.Equal(t, []string{"closed to open", "open to half-open"}, got)
	p, err = b.Allow()
	require.NoError(t, err, "the only permit is not lost")
	_, err = b.Allow()
	require.ErrorIs(t, err, ErrOpen, "and there is only one")

	fake.Advance(30*time.Second + 10*time.Second) // it hangs: two changes at once
	assert.PanicsWithValue(t, inCallback, func() { b.Counts() })
	assert.Equal(t, HalfOpen, b.State())
	assert.Equal(t, []string{"closed to open", "open to half-open", "half-open to open", "open to half-open"}, got)

	panics[5] = true
	fake.Advance(0)
	p, err = b.Allow()
	require.NoError(t, err)
	fake.Advance(30*time.Second + 20*time.Second)
	assert.PanicsWithValue(t, inCallback, func() { _, _ = b.Allow() }, "the first of two")
	assert.Equal(t, "half-open to open", got[4])
	assert.Equal(t, HalfOpen, b.State(), "which tells the second, if nobody has")
	assert.Equal(t, "open to half-open", got[5])
	p, err = b.Allow()
	require.NoError(t, err, "the permit of the one who panicked is free")
	assert.True(t, p.Done(ok200))
	assert.Equal(t, "half-open to closed", got[6])
	assert.Len(t, got, 7)
}

// In the mode MetricsOnly nobody is ever refused, whatever happens beside.
func TestMetricsOnly_NeverRefuses(t *testing.T) {
	t.Parallel()
	for _, ramp := range []time.Duration{0, 3 * time.Second} {
		fake := clock.NewFake(dawn)
		c := &chain{TB: t, last: map[string]State{}}
		b, err := New("users", Config{
			Mode: MetricsOnly, Clock: fake, Rand: rand.NewPCG(1, 2), OnChange: c.told, ConsecutiveFailures: 2, OpenFor: time.Second,
			MaxOpenFor: 2 * time.Second, RampFor: ramp, ProbeTimeout: 4 * time.Second,
		})
		require.NoError(t, err)
		states := map[State]*atomic.Int64{Closed: {}, Open: {}, HalfOpen: {}}
		together(8, func(i int) {
			random := rand.New(rand.NewPCG(9, uint64(i)))
			for range 3000 {
				p, err := b.Allow()
				if !assert.NoError(t, err) {
					return
				}
				states[b.State()].Add(1)
				switch random.IntN(50) {
				case 0:
					fake.Advance(time.Duration(random.Int64N(int64(time.Second))))
				case 1:
					b.Reset()
				case 2:
					assert.NoError(t, b.SetMode(MetricsOnly))
				}
				if random.IntN(20) > 0 {
					p.Done([]outcome.Class{ok200, ok200, ok200, ok404, err500, err500, hangsUp}[random.IntN(7)])
				}
			}
		})
		for s, n := range states {
			assert.Positive(t, n.Load(), "it never was %v", s)
		}
		assert.Positive(t, c.n)
	}
}

// Permits that are given back by others than those who got them, all at once, after the
// state has changed many times: nothing but the present probes count.
func TestLateResults_ManyAtOnce_K05(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{ConsecutiveFailures: 2, Jitter: Off, Probes: 2})
	var old []Permit
	for range 3 {
		for range 200 {
			p, err := r.Allow()
			require.NoError(t, err)
			old = append(old, p)
		}
		times(2, send(err500))(r)
		r.fake.Advance(r.wait())
		for range 2 {
			p, err := r.Allow()
			require.NoError(t, err)
			old = append(old, p)
		}
		r.fake.Advance(30 * time.Second)
		r.closeIt()
	}
	times(2, send(err500))(r)
	until := r.Status().Until
	finish := func(class outcome.Class) {
		mine := append([]Permit(nil), old...)
		together(len(mine), func(i int) { assert.False(t, mine[i].Done(class)) })
	}
	finish(ok200)
	finish(err500)
	assert.Equal(t, Open, r.State())
	assert.Equal(t, until, r.Status().Until)
	r.fake.Advance(r.wait())
	require.Equal(t, admitted, begin("probe")(r))
	finish(ok200)
	finish(err500)
	finish(hangsUp)
	assert.Equal(t, HalfOpen, r.State())
	assert.Zero(t, r.Counts())
	assert.Equal(t, admitted, begin("other")(r))
	assert.Equal(t, refused, begin("third")(r), "they freed no slot")
	assert.Equal(t, counted, end("probe", ok200)(r))
	assert.Equal(t, counted, end("other", ok200)(r))
	assert.Equal(t, Closed, r.State())
	finish(err500)
	assert.Zero(t, r.Counts())
}

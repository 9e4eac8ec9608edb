package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// lot is a pool in which endpoints ask to be left alone.
type lot struct {
	*Pool
	*clock.Fake
	own int // timers that the pool has anyway
}

// timers returns how many timers there are because of parking.
func (l lot) timers() int { return l.Pending() - l.own }

// newLot returns a pool by name. Slow start is off unless it is set.
func newLot(t *testing.T, rules Rules, names ...string) lot {
	t.Helper()
	if rules.SlowStart == (SlowStart{}) {
		rules.SlowStart.Window = -1
	}
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: rules}, addresses(names...)...)
	return lot{p, fake, fake.Pending()}
}

// answer answers an attempt with a status and header lines, "Name", "value", ..., as the stack does.
func (l lot) answer(pick Pick, status int, header ...string) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	o := outcome.Classify(outcome.Attempt{Response: &http.Response{StatusCode: status, Header: h}})
	pick.Answered(outcome.Answer{Now: l.Fake.Now(), Class: o.Class, Status: status, Header: h})
	pick.Done()
}

// at returns an attempt at an endpoint, which must be picked sometimes.
func (l lot) at(t testing.TB, address string) Pick {
	t.Helper()
	for range 1000 {
		pick := mustPick(t, l.Pool, Info{Now: l.now()})
		if pick.Endpoint().Address == address {
			return pick
		}
		finish(l.Pool, pick)
	}
	require.Fail(t, "it is not picked", address)
	return Pick{}
}

// busy makes the endpoint answer 503, to come back after so many seconds.
func (l lot) busy(t testing.TB, address string, seconds int) {
	t.Helper()
	l.answer(l.at(t, address), 503, "Retry-After", fmt.Sprint(seconds))
}

// why returns why the endpoint is not available.
func (l lot) why(t testing.TB, address string) string {
	t.Helper()
	for _, e := range l.Status().Endpoints {
		if e.Endpoint.Address == address {
			return e.Unavailable
		}
	}
	require.Fail(t, "no endpoint", address)
	return ""
}

// comesBack returns after how long the endpoint is available, to a tenth of a second.
func (l lot) comesBack(t testing.TB, address string) (after time.Duration) {
	t.Helper()
	for ; l.why(t, address) != ""; after += 100 * time.Millisecond {
		require.Less(t, after, 10*time.Minute, "it never comes back")
		assert.Zero(t, attempts(t, l.Pool, 12)[address], "after %v", after)
		l.Advance(100 * time.Millisecond)
	}
	assert.Positive(t, attempts(t, l.Pool, 12)[address])
	return after
}

// Given an answer, then its endpoint is left alone for as long as it asks for and up to half as
// long again; what does not ask is not.
func TestParking_AsLongAsAsked_R12(t *testing.T) {
	in := func(d time.Duration) string { return epoch.Add(d).UTC().Format(http.TimeFormat) }
	for _, row := range []struct {
		name   string
		rules  Rules
		status int
		header []string
		least  time.Duration // 0 is not at all
		most   time.Duration // 0 is half as much again
	}{
		{"503 in seconds", Rules{}, 503, []string{"Retry-After", "20"}, 20 * time.Second, 0},
		{"503 by a date", Rules{}, 503, []string{"Retry-After", in(20 * time.Second)}, 20 * time.Second, 0},
		{"503 by a date of the server's clock", Rules{}, 503, []string{"Retry-After", in(time.Hour + 20*time.Second), "Date", in(time.Hour)}, 20 * time.Second, 0},
		{"503 with two wishes", Rules{}, 503, []string{"Retry-After", "5", "Retry-After", "20"}, 20 * time.Second, 0},
		{"429 in seconds", Rules{}, 429, []string{"Retry-After", "20"}, 20 * time.Second, 0},
		{"429 with RateLimit", Rules{}, 429, []string{"Ratelimit", `"default";r=0;t=20`}, 20 * time.Second, 0},
		{"429 with the older RateLimit", Rules{}, 429, []string{"Ratelimit", "limit=10, remaining=0, reset=20"}, 20 * time.Second, 0},
		{"429 with X-RateLimit-Reset", Rules{}, 429, []string{"X-Ratelimit-Reset", "20"}, 20 * time.Second, 0},
		{"429 with an instant", Rules{}, 429, []string{"X-Ratelimit-Reset", fmt.Sprint(epoch.Add(20 * time.Second).Unix())}, 20 * time.Second, 0},
		{"longer than the default allows", Rules{}, 503, []string{"Retry-After", "3600"}, 200 * time.Second, 5 * time.Minute},
		{"absurdly long", Rules{}, 503, []string{"Retry-After", "99999999999999999999"}, 200 * time.Second, 5 * time.Minute},
		{"longer than the rules allow", Rules{MaxPark: 3 * time.Second}, 503, []string{"Retry-After", "20"}, 2 * time.Second, 3 * time.Second},
		{"as long as the rules allow", Rules{MaxPark: 20 * time.Second}, 503, []string{"Retry-After", "20"}, 20 * time.Second, 20 * time.Second},
		{"off", Rules{MaxPark: -1}, 503, []string{"Retry-After", "20"}, 0, 0},
		{"zero", Rules{}, 503, []string{"Retry-After", "0"}, 0, 0},
		{"past", Rules{}, 503, []string{"Retry-After", in(-time.Hour)}, 0, 0},
		{"garbage", Rules{}, 503, []string{"Retry-After", "soon"}, 0, 0},
		{"negative", Rules{}, 503, []string{"Retry-After", "-1"}, 0, 0},
		{"503 that does not ask", Rules{}, 503, nil, 0, 0},
		{"503 with what belongs to 429", Rules{}, 503, []string{"X-Ratelimit-Reset", "20"}, 0, 0},
		{"429 that does not ask", Rules{}, 429, nil, 0, 0},
		{"429 of which something is left", Rules{}, 429, []string{"X-Ratelimit-Remaining", "3", "X-Ratelimit-Reset", "20"}, 0, 0},
		{"404", Rules{}, 404, []string{"Retry-After", "20"}, 0, 0},
		{"200 that warns", Rules{}, 200, []string{"X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "20"}, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLot(t, row.rules, "a", "b", "c")
			l.answer(l.at(t, "a:80"), row.status, row.header...)
			if row.least == 0 {
				assert.Empty(t, l.why(t, "a:80"))
				assert.Zero(t, l.timers())
				return
			}
			assert.Equal(t, "parked", l.why(t, "a:80"))
			assert.Empty(t, l.why(t, "b:80"))
			if row.most == 0 {
				row.most = row.least * 3 / 2
			}
			after := l.comesBack(t, "a:80")
			assert.GreaterOrEqual(t, after, row.least)
			assert.LessOrEqual(t, after, row.most+100*time.Millisecond)
			assert.Zero(t, l.timers())
		})
	}
}

// Given many that were told the same, then none comes back too soon, and they spread.
func TestParking_Spreads_R09_R12(t *testing.T) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("s", i)
	}
	l := newLot(t, Rules{}, names...)
	for _, m := range l.members[:500] {
		m.Overloaded(outcome.Answer{Now: l.Fake.Now(), Status: 503, Header: http.Header{"Retry-After": {"10"}}})
	}
	late, instants := 0, map[time.Time]bool{}
	for _, m := range l.members[:500] {
		after := m.until.Sub(epoch)
		require.GreaterOrEqual(t, after, 10*time.Second)
		require.LessOrEqual(t, after, 15*time.Second)
		instants[m.until] = true
		if after > 12500*time.Millisecond {
			late++
		}
	}
	assert.Greater(t, len(instants), 490)
	assert.InDelta(t, 250, late, 60)
}

// Given a second wish while the first is kept, then the one that ends later counts, whichever
// came first.
func TestParking_LongerReplacesShorter_R12(t *testing.T) {
	for _, row := range []struct {
		wishes []int // seconds, at the same instant
		least  time.Duration
	}{
		{[]int{10, 100}, 100 * time.Second},
		{[]int{100, 10}, 100 * time.Second},
		{[]int{10, 0}, 10 * time.Second},
		{[]int{10, 100, 50, 1}, 100 * time.Second},
	} {
		t.Run(fmt.Sprint(row.wishes), func(t *testing.T) {
			l := newLot(t, Rules{}, "a", "b", "c")
			var picks []Pick
			for range row.wishes { // they were under way together
				picks = append(picks, l.at(t, "a:80"))
			}
			for i, wish := range row.wishes {
				l.answer(picks[i], 503, "Retry-After", fmt.Sprint(wish))
				assert.Equal(t, 1, l.timers(), "one timer, after %d", wish)
			}
			after := l.comesBack(t, "a:80")
			assert.GreaterOrEqual(t, after, row.least)
			assert.LessOrEqual(t, after, row.least*3/2+100*time.Millisecond)
		})
	}
}

// Given an endpoint that is back, then its share grows as that of a new one does.
func TestParking_BackThroughSlowStart_B04(t *testing.T) {
	l := newLot(t, Rules{SlowStart: SlowStart{Window: 30 * time.Second}, MaxPark: 10 * time.Second}, "a", "b", "c", "d")
	l.busy(t, "a:80", 10) // the longest that it gets
	assert.NotContains(t, weightsOf(l.Pool), "a:80")
	l.Advance(10 * time.Second)
	before := 0.0
	for age := range 32 {
		weight := weightsOf(l.Pool)["a:80"]
		assert.InDelta(t, min(1, max(0.1, float64(age)/30)), weight, 0.001, "after %d s", age)
		assert.GreaterOrEqual(t, weight, before)
		before = weight
		l.Advance(time.Second)
	}
	assert.Zero(t, l.timers())
}

// Given that nobody else is there, or that too many are parked, then calls go all the same,
// unless the rules say that they shall not.
func TestParking_TooFewOthers_B09(t *testing.T) {
	for _, row := range []struct {
		name    string
		panics  Panic
		size    int
		parked  int
		want    int // how many get traffic; 0 is an error
		inPanic bool
	}{
		{"the only one", Panic{}, 1, 1, 1, true},
		{"half", Panic{}, 4, 2, 2, false},
		{"more than half: the one that is left", Panic{}, 4, 3, 1, true},
		{"all", Panic{}, 4, 4, 4, true},
		{"more than half, and no panic", Panic{Threshold: -1}, 4, 3, 1, false},
		{"all, and no panic", Panic{Threshold: -1}, 4, 4, 0, false},
		{"more than half, and reject", Panic{Reject: true}, 4, 3, 0, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLot(t, Rules{Panic: row.panics}, []string{"a", "b", "c", "d"}[:row.size]...)
			var picks []Pick
			for _, m := range l.members[:row.parked] {
				picks = append(picks, l.at(t, m.node.Published().Address))
			}
			for _, pick := range picks {
				l.answer(pick, 429, "Retry-After", "20")
			}
			assert.Equal(t, row.inPanic, l.Status().Panic)
			if row.want == 0 {
				_, err := l.Pick(Info{Now: l.now()})
				require.ErrorIs(t, err, ErrNoEndpoints)
			} else {
				assert.Len(t, attempts(t, l.Pool, 40), row.want)
			}
			l.Advance(time.Minute)
			assert.False(t, l.Status().Panic)
			assert.Len(t, attempts(t, l.Pool, 40), row.size)
		})
	}
}

// Given rules or an algorithm that change, or an endpoint of which discovery says something new,
// then who is parked stays so, for as long as before.
func TestParking_StaysUnderOtherRules_P01(t *testing.T) {
	off := SlowStart{Window: -1}
	for name, change := range map[string]func(*testing.T, lot){
		"other rules": func(t *testing.T, l lot) {
			require.NoError(t, l.Use(RoundRobin{}, Rules{SlowStart: off, MaxPark: time.Hour}))
		},
		"another algorithm": func(t *testing.T, l lot) { require.NoError(t, l.Use(LeastRequest{}, Rules{SlowStart: off})) },
		"a shorter MaxPark": func(t *testing.T, l lot) {
			require.NoError(t, l.Use(RoundRobin{}, Rules{SlowStart: off, MaxPark: time.Second}))
		},
		"parking is off now": func(t *testing.T, l lot) { require.NoError(t, l.Use(RoundRobin{}, Rules{SlowStart: off, MaxPark: -1})) },
		"a heavier endpoint": func(_ *testing.T, l lot) {
			l.update([]discovery.Endpoint{{Address: "a:80", Weight: 2}, {Address: "b:80", Weight: 3}, {Address: "c:80"}})
		},
		"a new one": func(_ *testing.T, l lot) { l.update(addresses("new", "a", "b", "c")) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLot(t, Rules{}, "a", "b", "c")
			l.busy(t, "a:80", 20)
			l.Advance(5 * time.Second)
			change(t, l)
			assert.Equal(t, "parked", l.why(t, "a:80"))
			after := l.comesBack(t, "a:80")
			assert.GreaterOrEqual(t, after, 15*time.Second)
			assert.LessOrEqual(t, after, 25*time.Second+100*time.Millisecond)
		})
	}
}

// Given an endpoint that leaves while it is parked, or before its answer comes, then there is no
// timer, and if it comes back, it is a new one.
func TestParking_EndsWithTheEndpoint_B14_T18(t *testing.T) {
	for _, row := range []struct {
		name     string
		answered bool // before it leaves
		closed   bool
		end      func(lot)
	}{
		{"removed", true, false, func(l lot) { l.update(addresses("b", "c")) }},
		{"answered after it was removed", false, false, func(l lot) { l.update(addresses("b", "c")) }},
		{"closed", true, true, func(l lot) { l.Close() }},
		{"answered after Close", false, true, func(l lot) { l.Close() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, fake := fakePool(t, Config{Algorithm: RoundRobin{}, DrainTimeout: -1, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, addresses("a", "b", "c")...)
			l := lot{p, fake, 0}
			before := l.Pending()
			if row.closed {
				before = 0
			}
			pick := l.at(t, "a:80")
			if row.answered {
				l.answer(pick, 503, "Retry-After", "20")
			}
			row.end(l)
			if !row.answered {
				l.answer(pick, 503, "Retry-After", "20")
			}
			assert.LessOrEqual(t, l.Pending(), before)
			if !row.closed {
				l.update(addresses("a", "b", "c"))
				assert.Empty(t, l.why(t, "a:80"), "it is another one")
				assert.Positive(t, attempts(t, l.Pool, 12)["a:80"])
			}
		})
	}
}

// Given a breaker that opens by the same answer, then both reasons are told, and the endpoint is
// available when neither is left.
func TestParking_BesideOtherReasons_K15(t *testing.T) {
	for _, row := range []struct {
		ask  int // seconds; the breaker is open for as long, but at least 5 s
		want []string
	}{
		{2, []string{"open,parked", "open", ""}},
		{60, []string{"open,parked"}},
	} {
		t.Run(fmt.Sprint(row.ask), func(t *testing.T) {
			g, fake := still(t, Config{Algorithm: RoundRobin{}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, breaker.Config{}, addresses("a", "b", "c")...)
			l := lot{g.Pool, fake, 0}
			l.busy(t, "a:80", row.ask)
			assert.Equal(t, "open,parked", l.why(t, "a:80"))
			var seen []string
			for range 50 {
				if why := l.why(t, "a:80"); len(seen) == 0 || seen[len(seen)-1] != why {
					seen = append(seen, why)
				}
				got := attempts(t, l.Pool, 6)["a:80"]
				assert.Equal(t, l.why(t, "a:80") == "", got > 0)
				fake.Advance(200 * time.Millisecond)
			}
			assert.Equal(t, row.want, seen)
		})
	}
	t.Run("unhealthy", func(t *testing.T) {
		l := newLot(t, Rules{}, "a", "b", "c")
		l.busy(t, "a:80", 2)
		key := discovery.Endpoint{Address: "a:80"}.Key()
		require.True(t, l.SetHealthy(key, false))
		assert.Equal(t, "marked unhealthy,parked", l.why(t, "a:80"))
		l.Advance(time.Minute)
		assert.Equal(t, "marked unhealthy", l.why(t, "a:80"))
		l.SetHealthy(key, true)
		assert.Empty(t, l.why(t, "a:80"))
	})
}

// Given a thousand wishes, then no timer is left of them.
func TestParking_ManyLeakNothing_P04(t *testing.T) {
	l := newLot(t, Rules{}, "a", "b", "c", "d", "e")
	for i := range 1000 {
		l.busy(t, "a:80", 1+i%7)
		require.Equal(t, 1, l.timers())
		l.Advance(time.Duration(1+i%7) * 1500 * time.Millisecond)
		require.Empty(t, l.why(t, "a:80"))
		require.Zero(t, l.timers())
	}
}

// Given answers, updates, rules and timers at once, then there is no race, nothing hangs, and in
// the end all are available.
func TestParking_Concurrently_T18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seed = 9
		t.Logf("seed %d", seed)
		p := testPool(t, Config{Algorithm: PeakEWMA{}}, addresses("a", "b", "c", "d", "e")...)
		var working sync.WaitGroup
		for w := range uint64(8) {
			working.Go(func() {
				random := rand.New(rand.NewPCG(seed, w))
				for range 300 {
					pick, err := p.Pick(Info{Now: p.now()})
					if !assert.NoError(t, err) {
						return
					}
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
					l := lot{p, clock.NewFake(time.Now()), 0}
					l.answer(pick, []int{200, 429, 503}[random.IntN(3)], "Retry-After", fmt.Sprint(random.IntN(3)))
				}
			})
		}
		working.Go(func() {
			for i := range 100 {
				names := []string{"a", "b", "c", "d", "e"}
				p.update(addresses(names[:3+i%3]...))
				assert.NoError(t, p.Use(nil, Rules{MaxPark: time.Duration(i%4) * time.Second}))
				time.Sleep(70 * time.Millisecond)
			}
		})
		working.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, e := range p.Status().Endpoints {
			assert.Empty(t, e.Unavailable)
			assert.Zero(t, e.InFlight)
		}
	})
}

package balancer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// told is a resolver whose answers come from the test.
type told chan []discovery.Endpoint

func (c told) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case endpoints := <-c:
			sink.Update(endpoints, nil)
		}
	}
}

// numbered returns endpoints e0:80, e1:80 and so on.
func numbered(n int) []discovery.Endpoint {
	all := make([]discovery.Endpoint, n)
	for i := range all {
		all[i].Address = fmt.Sprintf("e%d:80", i)
	}
	return all
}

// newTold returns a pool that is closed with the test.
func newTold(t testing.TB, c balancer.Config) (*balancer.Pool, told) {
	t.Helper()
	list := make(told)
	c.Resolver = list
	p, err := balancer.NewPool(c)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p, list
}

func pinTo(address string, strict bool) balancer.Info {
	return balancer.Info{Now: time.Now(), Pin: &balancer.Pin{ID: address, Strict: strict}}
}

// sends makes an attempt that is answered at once, and returns where it went.
func sends(t testing.TB, p *balancer.Pool, info balancer.Info) string {
	t.Helper()
	pick, err := p.Pick(info)
	require.NoError(t, err)
	pick.Answered(outcome.Answer{Now: info.Now, Took: time.Millisecond, Class: outcome.Success})
	pick.Done()
	return pick.Endpoint().Address
}

// Given a full endpoint, then a strict attempt waits in the queue, behind those of the same endpoint
// and past those of others, and gets the place; or it is told that there was none.
func TestPin_StrictWaitsInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, list := newTold(t, balancer.Config{Algorithm: balancer.RoundRobin{}, Rules: balancer.Rules{
			MaxInFlight: 1, Queue: balancer.Queue{Timeout: time.Minute, Size: 3},
		}})
		list <- numbered(2)
		synctest.Wait()
		held := map[string]balancer.Pick{}
		for _, address := range []string{"e0:80", "e1:80"} {
			pick, err := p.Pick(pinTo(address, true))
			require.NoError(t, err)
			held[address] = pick
		}
		type result struct {
			name string
			balancer.Pick
			err error
		}
		results := make(chan result, 10)
		join := func(name string, info balancer.Info) {
			go func() {
				pick, err := p.PickWait(t.Context(), info)
				results <- result{name, pick, err}
			}()
			synctest.Wait()
		}
		join("first of e0", pinTo("e0:80", true))
		join("second of e0", pinTo("e0:80", true))
		join("first of e1", pinTo("e1:80", true))
		require.Empty(t, results)
		join("too many", pinTo("e1:80", true))
		require.Len(t, results, 1)
		r := <-results
		full := new(balancer.SaturatedError)
		require.ErrorAs(t, r.err, &full)
		assert.True(t, full.QueueFull)

		time.Sleep(time.Second)
		next := func(address, name string) {
			t.Helper()
			held[address].Done()
			synctest.Wait()
			require.Len(t, results, 1)
			r := <-results
			require.NoError(t, r.err)
			assert.Equal(t, name, r.name)
			assert.Equal(t, address, r.Endpoint().Address)
			held[address] = r.Pick
		}
		next("e1:80", "first of e1")
		next("e0:80", "first of e0")
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Len(t, results, 1)
		r = <-results
		require.ErrorAs(t, r.err, &full)
		assert.Equal(t, "second of e0", r.name)
		assert.Equal(t, time.Minute, full.Waited)
		assert.Equal(t, outcome.Limiter, outcome.ReasonOf(r.err))
		join("soft", pinTo("e0:80", false)) // both are full
		require.Empty(t, results)
		next("e1:80", "soft")

		join("leaves with it", pinTo("e0:80", true))
		list <- numbered(2)[1:]
		synctest.Wait()
		require.Len(t, results, 1)
		assert.ErrorIs(t, (<-results).err, balancer.ErrPinned, "nobody waits for what has gone")
		for _, pick := range held {
			pick.Done()
		}
	})
}

// Given pinned picks that come first, all at once, beside others, then none of them misses its pin.
func TestPin_TheFirstOnesRace(t *testing.T) {
	t.Parallel()
	const pools, pickers, endpoints = 100, 16, 8
	for range pools {
		p, list := newTold(t, balancer.Config{Algorithm: balancer.RoundRobin{}})
		list <- numbered(endpoints)
		require.NoError(t, p.Ready(t.Context()))
		race(pickers, func(i int) {
			info := balancer.Info{Now: time.Now()}
			address := fmt.Sprintf("e%d:80", i%endpoints)
			if i%4 != 0 {
				info = pinTo(address, i%2 == 0)
			}
			if got := sends(t, p, info); info.Pin != nil {
				assert.Equal(t, address, got)
			}
		})
		p.Close()
	}
}

// Given pinned picks that wait for the first set of endpoints, or come with it, then none of them misses
// its pin.
func TestPin_TheFirstSetRaces(t *testing.T) {
	t.Parallel()
	const pools, pickers, endpoints = 100, 16, 8
	for round := range pools {
		p, list := newTold(t, balancer.Config{Algorithm: balancer.RoundRobin{}})
		race(pickers+1, func(i int) {
			if i == pickers {
				list <- numbered(endpoints)
				return
			}
			info := balancer.Info{Now: time.Now()}
			address := fmt.Sprintf("e%d:80", i%endpoints)
			if (i+round)%2 == 0 {
				info = pinTo(address, i%4 < 2)
			}
			pick, err := p.PickWait(t.Context(), info)
			if assert.NoError(t, err) && info.Pin != nil {
				assert.Equal(t, address, pick.Endpoint().Address)
			}
			if err == nil {
				pick.Done()
			}
		})
		p.Close()
	}
}

// race does something many times at once.
func race(n int, do func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	all.Wait()
}

// Before the first endpoints are known, a pin is no reason to say anything else than without.
func TestPin_BeforeTheFirstEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, list := newTold(t, balancer.Config{})
		_, without := p.Pick(balancer.Info{Now: time.Now()})
		for _, strict := range []bool{false, true} {
			_, err := p.Pick(pinTo("e1:80", strict))
			assert.Equal(t, without, err)
			assert.NotErrorIs(t, err, balancer.ErrPinned, "it may come with the first set")
		}
		waits := make(chan string, 2)
		for _, strict := range []bool{false, true} {
			go func() {
				pick, err := p.PickWait(t.Context(), pinTo("e1:80", strict))
				if assert.NoError(t, err) {
					waits <- pick.Endpoint().Address
					pick.Done()
				}
			}()
		}
		time.Sleep(time.Second)
		list <- numbered(9)
		synctest.Wait()
		assert.Equal(t, []string{"e1:80", "e1:80"}, []string{<-waits, <-waits})
	})
}

func TestPin_ClosedPool(t *testing.T) {
	for _, before := range []bool{false, true} {
		p := seededPool(t, balancer.PeakEWMA{}, numbered(2)...)
		if before {
			require.Equal(t, "e1:80", sends(t, p, pinTo("e1:80", true)))
		}
		p.Close()
		for _, strict := range []bool{false, true} {
			_, err := p.Pick(pinTo("e1:80", strict))
			assert.ErrorIs(t, err, balancer.ErrClosed)
			assert.NotErrorIs(t, err, balancer.ErrPinned)
		}
	}
}

// A pick with a pin allocates nothing, wherever it goes.
func TestPin_AllocatesNothing(t *testing.T) {
	for _, a := range []balancer.Algorithm{balancer.RoundRobin{}, balancer.Random{}, balancer.LeastRequest{}, balancer.PeakEWMA{}} {
		p, list := newTold(t, balancer.Config{Algorithm: a})
		list <- numbered(100)
		require.NoError(t, p.Ready(t.Context()))
		for _, address := range []string{"e7:80", "gone:80"} {
			info := pinTo(address, false)
			assert.Zero(t, testing.AllocsPerRun(1000, func() {
				pick, err := p.Pick(info)
				if err != nil {
					panic(err)
				}
				pick.Answered(outcome.Answer{Now: info.Now, Took: time.Millisecond, Class: outcome.Success})
				pick.Done()
			}), "%T to %s", a, address)
		}
	}
}

// inTurn are the algorithms that do not look at load.
var inTurn = []balancer.Algorithm{balancer.RoundRobin{}, balancer.Random{}}

// seededPool returns a pool whose choices are the same in every run.
func seededPool(t *testing.T, a balancer.Algorithm, endpoints ...discovery.Endpoint) *balancer.Pool {
	t.Helper()
	const seed = 11
	t.Logf("seed %d", seed)
	p, list := newTold(t, balancer.Config{Algorithm: a, Rand: rand.NewPCG(seed, 0)})
	list <- endpoints
	require.NoError(t, p.Ready(t.Context()))
	return p
}

// Given endpoints with sessions, then each gets so many fewer of the others that the totals are as
// the weights say to two fifths, as far as that can be.
func TestPin_SessionsCountInTheTurns(t *testing.T) {
	for _, row := range []struct {
		name    string
		weights []float64
		pinned  []int // of 12 attempts
		totals  []float64
	}{
		{"one has some", []float64{1, 1, 1, 1}, []int{2, 0, 0, 0}, []float64{3, 3, 3, 3}},
		{"two have some", []float64{1, 1, 1, 1}, []int{1, 2, 0, 0}, []float64{3, 3, 3, 3}},
		{"weights", []float64{1, 2, 3}, []int{0, 3, 3}, []float64{2, 4, 6}},
		{"weights, the lightest has some", []float64{1, 2, 3}, []int{1, 0, 0}, []float64{2, 4, 6}},
		{"more than its share", []float64{1, 1, 1, 1}, []int{6, 0, 0, 0}, []float64{6, 2, 2, 2}},
		{"all alike", []float64{1, 1, 1}, []int{2, 2, 2}, []float64{4, 4, 4}},
		{"nobody", []float64{1, 2, 3}, []int{0, 0, 0}, []float64{2, 4, 6}},
	} {
		for _, a := range inTurn {
			t.Run(fmt.Sprintf("%s/%T", row.name, a), func(t *testing.T) {
				all := numbered(len(row.weights))
				for i := range all {
					all[i].Weight = row.weights[i]
				}
				p := seededPool(t, a, all...)
				const rounds = 2000
				got := map[string]int{}
				for range rounds {
					free := 12
					for i, n := range row.pinned {
						for range n {
							got[sends(t, p, pinTo(all[i].Address, false))]++
							free--
						}
					}
					for range free {
						got[sends(t, p, balancer.Info{})]++
					}
				}
				for i, want := range row.totals {
					assert.InDelta(t, want, float64(got[all[i].Address])/rounds, 0.25*want, "%s", all[i].Address)
				}
			})
		}
	}
}

// Given sessions that end, however many they were, then their endpoint gets its share again soon, and is not left
// out until then.
func TestPin_SessionsThatEnd(t *testing.T) {
	for _, a := range inTurn {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, now := seededPool(t, a, numbered(4)...), time.Now()
			for range 10_000 {
				info := pinTo("e0:80", false)
				info.Now = now
				require.Equal(t, "e0:80", sends(t, p, info))
			}
			others := func() map[string]int {
				counts := map[string]int{}
				for range 4000 {
					counts[sends(t, p, balancer.Info{Now: now})]++
				}
				return counts
			}
			assert.Less(t, others()["e0:80"], 750)
			now = now.Add(3 * time.Minute)
			for address, got := range others() {
				assert.InDelta(t, 1000, got, 150, "%s", address)
			}
		})
	}
}

// Given no pins, then the turns are what they are; one pin that nobody has changes nothing either. (Chance is
// evened out a bit, once there are pins.)
func TestPin_WithoutPinsNothingChanges(t *testing.T) {
	for _, a := range []balancer.Algorithm{balancer.RoundRobin{}} {
		var turns [2][]string
		for i := range turns {
			p := seededPool(t, a, numbered(5)...)
			for k := range 1000 {
				if i == 1 && k == 500 {
					_, err := p.Pick(pinTo("gone:80", true))
					require.ErrorIs(t, err, balancer.ErrPinned)
				}
				turns[i] = append(turns[i], sends(t, p, balancer.Info{}))
			}
		}
		assert.True(t, slices.Equal(turns[0], turns[1]), "%T", a)
	}
}

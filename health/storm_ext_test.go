package health_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
)

// crowd is clients that start together, each with a monitor of its own for the one server.
type crowd struct {
	*scene
	members []*health.Member
}

func gather(s *scene, n int, seed uint64, c health.Check) *crowd {
	s.Helper()
	crowd := &crowd{scene: s}
	for i := range n {
		m, err := health.NewMonitor(health.Config{
			Check: &c, Rand: rand.NewPCG(seed, uint64(i)), Target: "http://users", Transport: s.network.Transport(),
		})
		require.NoError(s, err)
		s.Cleanup(m.Close)
		e, err := m.Add(discovery.Endpoint{Address: "users-1:80"})
		require.NoError(s, err)
		crowd.members = append(crowd.members, e)
	}
	return crowd
}

// call lets d pass, in which each client has a request each second, in its turn.
func (c *crowd) call(d time.Duration) {
	for range int(d / time.Second) {
		for i, e := range c.members {
			if i%100 == 0 {
				time.Sleep(time.Second * 100 / time.Duration(len(c.members)))
			}
			e.Answered(succeeded())
		}
	}
}

// Given 1000 clients that start together, then no tenth of a second has more than three times the mean
// of the probes: in the first interval, and in ten.
func TestThousandClients_NoStorm_H02(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, traffic %v", seed, busy), func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					a := &asked{}
					c := gather(s, 1000, seed, health.Check{Probe: a.probe()})
					if busy {
						c.call(50 * time.Second)
					} else {
						time.Sleep(50 * time.Second)
					}
					at := a.times("users-1:80")
					assertSpread(t, slots(at, s.start, 50), "the first interval")
					assertSpread(t, slots(at, s.start, 500), "ten intervals")
					assert.InDelta(t, 10_000, len(at), 300, "200 a second, as documented")
				})
			})
		}
	}
}

// The same, with requests on the wire.
func TestThousandClients_HTTP_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		server := s.network.Serve("users-1:80", nil)
		gather(s, 1000, 3, health.Check{})
		time.Sleep(10 * time.Second)
		var at []time.Time
		for _, r := range server.Received() {
			at = append(at, r.At)
		}
		assertSpread(t, slots(at, s.start, 50), "the first interval")
		assertSpread(t, slots(at, s.start, 100), "two intervals")
		assert.Equal(t, 1000, server.Dials(), "one connection for each client")
	})
}

// Given 1000 clients that are idle, when the first request of all of them comes at the same instant,
// then their next probes are spread over an interval. As long as they are idle, they are spread over a
// minute.
func TestThousandClients_TrafficBegins_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		c := gather(s, 1000, 4, health.Check{Probe: a.probe()})
		for _, e := range c.members {
			e.Answered(succeeded()) // before that, nobody can know whether there is traffic
		}
		time.Sleep(200 * time.Second)
		before := a.total()
		time.Sleep(60 * time.Second)
		assert.InDelta(t, 1000, a.total()-before, 200, "one a minute and client")
		begin := time.Now()
		for _, e := range c.members {
			e.Answered(succeeded())
		}
		c.call(10 * time.Second)
		at := a.times("users-1:80")
		assertSpread(t, slots(at, begin, 50), "the first interval with traffic")
		assertSpread(t, slots(at, begin, 100), "two of them")
	})
}

// Given 1000 clients whose endpoint is down for a while, then they do not come back together either.
func TestThousandClients_WhileDown_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(context.Context, string) error { return assert.AnError }}
		gather(s, 1000, 5, health.Check{Probe: a.probe()})
		time.Sleep(130 * time.Second)
		at := a.times("users-1:80")
		assertSpread(t, slots(at, s.start, 100), "the first ten seconds")
		most := slices.Max(slots(at, s.start.Add(10*time.Second), 1200))
		assert.LessOrEqual(t, most, 3*1000/50, "then no more than is allowed while all is well")
	})
}

// Each interval is longer or shorter by a tenth at most, at random, and the first probe comes within
// one interval.
func TestJitter_Bounds_H02(t *testing.T) {
	for _, row := range []struct {
		jitter float64
		least  time.Duration
		most   time.Duration
	}{
		{0, 4500 * time.Millisecond, 5500 * time.Millisecond},
		{0.5, 2500 * time.Millisecond, 7500 * time.Millisecond},
		{health.Off, 5 * time.Second, 5 * time.Second},
	} {
		inScene(t, func(t *testing.T, s *scene) {
			a := &asked{}
			s.check(health.Check{Probe: a.probe(), Jitter: row.jitter, IdleInterval: health.Off})
			first := map[time.Duration]bool{}
			for i := range 50 {
				s.add(name(i))
			}
			time.Sleep(200 * time.Second)
			shortest, longest := time.Hour, time.Duration(0)
			for i := range 50 {
				at := a.times(name(i))
				wait := at[0].Sub(s.start)
				first[wait] = true
				assert.GreaterOrEqual(t, wait, time.Duration(0))
				assert.Less(t, wait, 5*time.Second)
				for _, gap := range gaps(at) {
					shortest, longest = min(shortest, gap), max(longest, gap)
				}
			}
			assert.Len(t, first, 50, "all at different times")
			assert.GreaterOrEqual(t, shortest, row.least)
			assert.LessOrEqual(t, longest, row.most)
			if row.most > row.least {
				assert.InDelta(t, row.least.Seconds(), shortest.Seconds(), 0.1, "all of it is used")
				assert.InDelta(t, row.most.Seconds(), longest.Seconds(), 0.1, "all of it is used")
			}
		})
	}
}

// Given 200 endpoints of which half hang, then the others are probed as if there were none of these.
// (Defect 54: traefik probes one target after the other.)
func TestSlowEndpoints_DelayNoOther_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		slow := map[string]bool{}
		a := &asked{answer: func(ctx context.Context, address string) error {
			if slow[address] {
				return hang(ctx)
			}
			return nil
		}}
		for i := range 100 {
			slow[name(2*i)] = true
		}
		s.check(health.Check{Probe: a.probe(), IdleInterval: health.Off})
		for i := range 200 {
			s.add(name(i))
		}
		time.Sleep(60 * time.Second)
		for i := range 200 {
			st := s.status(name(i))
			if slow[name(i)] {
				assert.Equal(t, health.Unhealthy, st.State, "%v", st)
				assert.Equal(t, 2*time.Second, st.Took)
				assert.ErrorIs(t, st.Err, context.DeadlineExceeded)
				continue
			}
			assert.Equal(t, health.Healthy, st.State, "%v", st)
			for _, gap := range gaps(a.times(name(i))) {
				require.LessOrEqual(t, gap, 5500*time.Millisecond, "no probe has waited")
			}
		}
	})
}

// late fails after a time, if its context lets it.
func late(d time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, _ string) error {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return assert.AnError
	}
}

// The number of probes under way at once is bounded, exactly.
func TestMaxConcurrent_H02(t *testing.T) {
	for _, row := range []struct{ limit, want int }{{1, 1}, {7, 7}, {0, 128}, {250, 250}} {
		inScene(t, func(t *testing.T, s *scene) {
			a := &asked{answer: late(4900 * time.Millisecond)}
			s.check(health.Check{Probe: a.probe(), MaxConcurrent: row.limit, Timeout: 5 * time.Second})
			for i := range 300 {
				s.add(name(i))
			}
			time.Sleep(5 * time.Minute)
			_, most := a.atOnce()
			assert.Equal(t, row.want, most, "limit %d", row.limit)
		})
	}
}

// Given that one probe may be under way at once, and most hang, then all have their turn.
func TestMaxConcurrent_OneMakesProgress_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(ctx context.Context, address string) error {
			if address != name(3) {
				return late(time.Second)(ctx, address)
			}
			return nil
		}}
		s.check(health.Check{Probe: a.probe(), MaxConcurrent: 1})
		for i := range 6 {
			s.add(name(i))
		}
		time.Sleep(10 * time.Minute)
		_, most := a.atOnce()
		assert.Equal(t, 1, most)
		for i := range 6 {
			assert.Greater(t, a.count(name(i)), 8, "%d", i)
		}
		assert.Equal(t, health.Healthy, s.status(name(3)).State)
		for _, gap := range gaps(a.times(name(3))) {
			assert.LessOrEqual(t, gap, 66*time.Second+5*time.Second, "its interval, and one probe of each other")
		}
	})
}

// Another limit holds from then on, whether it is higher or lower.
func TestMaxConcurrent_Changes_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: late(1900 * time.Millisecond)}
		check := health.Check{Probe: a.probe(), MaxConcurrent: 3}
		s.check(check)
		for i := range 60 {
			s.add(name(i))
		}
		for _, limit := range []int{3, 20, 2, 1, 11} {
			check.MaxConcurrent = limit
			s.use(&check)
			time.Sleep(2 * check.WithDefaults().Timeout)
			a.mu.Lock()
			a.most = a.now
			a.mu.Unlock()
			time.Sleep(time.Minute)
			_, most := a.atOnce()
			assert.Equal(t, limit, most)
		}
	})
}

// Given endpoints that hang, when another limit is used, then the others are not delayed either.
func TestMaxConcurrent_ChangeDelaysNobody_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(ctx context.Context, address string) error {
			if address != "good:80" {
				return hang(ctx)
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.Timeout, check.MaxDownInterval = 5*time.Second, time.Second
		s.check(check)
		for i := range 10 {
			s.add(name(i))
		}
		s.add("good:80")
		time.Sleep(30 * time.Second)
		for i := range 20 {
			check.MaxConcurrent = 100 + i%2
			s.use(&check)
			time.Sleep(7 * time.Second)
		}
		longest := slices.Max(gaps(a.times("good:80")))
		assert.LessOrEqual(t, longest, 5500*time.Millisecond)
	})
}

// Many endpoints join at once, and their probes are spread as well.
func TestManyEndpoints_Spread_H02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		var at []time.Time
		a := &asked{}
		s.check(health.Check{Probe: a.probe(), MaxConcurrent: 1})
		for i := range 1000 {
			s.add(name(i))
		}
		time.Sleep(10 * time.Second)
		for i := range 1000 {
			at = append(at, a.times(name(i))...)
		}
		assertSpread(t, slots(at, s.start, 50), "the first interval")
		assertSpread(t, slots(at, s.start, 100), "two intervals")
	})
}

// With a clock of the test's own, the timers are on it, and Close leaves none.
func TestFakeClock_LeavesNothing_H06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Now())
		a := &asked{}
		check := health.Check{Probe: a.probe(), HoldNew: time.Minute}
		m, err := health.NewMonitor(health.Config{Check: &check, Clock: fake, Rand: rand.NewPCG(1, 1)})
		require.NoError(t, err)
		idle := fake.Pending()
		for i := range 1000 {
			e, err := m.Add(discovery.Endpoint{Address: name(i)})
			require.NoError(t, err)
			if i%3 == 0 {
				fake.Advance(5 * time.Second)
				synctest.Wait()
			}
			e.Remove()
			e.Remove()
			require.Equal(t, idle, fake.Pending())
		}
		assert.Empty(t, m.Status())
		for i := range 100 {
			_, err := m.Add(discovery.Endpoint{Address: name(i)})
			require.NoError(t, err)
		}
		for range 100 {
			fake.Advance(time.Second)
			synctest.Wait()
		}
		before := a.total()
		m.Close()
		m.Close()
		assert.Zero(t, fake.Pending())
		fake.Advance(time.Hour)
		synctest.Wait()
		assert.Equal(t, before, a.total(), "no probe starts later")
	})
}

// The wake-up of idle endpoints is a timer, too.
func TestFakeClock_CloseWhileTrafficBegins_H06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Now())
		a := &asked{}
		m, err := health.NewMonitor(health.Config{Check: &health.Check{Probe: a.probe()}, Clock: fake})
		require.NoError(t, err)
		e, err := m.Add(discovery.Endpoint{Address: "a:80"})
		require.NoError(t, err)
		fake.Advance(10 * time.Minute)
		synctest.Wait()
		e.Answered(succeeded())
		m.Close()
		assert.Zero(t, fake.Pending())
	})
}

package health_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
)

// scripted answers one probe after the other, and repeats the last answer.
func scripted(answers ...error) func(context.Context, string) error {
	var n atomic.Int64
	return func(context.Context, string) error {
		return answers[min(int(n.Add(1))-1, len(answers)-1)]
	}
}

// oneByOne is a check without chance: the first probe is all that comes at random.
func oneByOne(p health.Probe) health.Check {
	return health.Check{Probe: p, Jitter: health.Off, IdleInterval: health.Off}
}

// Given fall 3 and rise 2, and the results F F S F F F S S, then traffic is kept away exactly from the
// 6th on, and comes back exactly after the 8th. The events say so, once each, with what was found.
func TestProbes_RiseAndFall_H01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		broken := errors.New("broken")
		a := &asked{answer: scripted(broken, broken, nil, broken, broken, broken, nil, nil)}
		s.check(oneByOne(a.probe()))
		e := s.add("a:80")
		want := []health.State{health.Unknown, health.Unknown, health.Healthy, health.Healthy, health.Healthy, health.Unhealthy, health.Unhealthy, health.Healthy, health.Healthy}
		assert.Equal(t, health.Status{Endpoint: discovery.Endpoint{Address: "a:80"}}, e.Status(), "nothing is known")
		var at []time.Time
		for i, state := range want {
			for a.count("a:80") <= i {
				s.settle(10 * time.Millisecond)
			}
			at = a.times("a:80")
			st := e.Status()
			assert.Equal(t, state, st.State, "after %d", i+1)
			assert.Equal(t, state != health.Unhealthy, e.Available())
			assert.True(t, st.Probed.Equal(at[i]))
			if i == 0 || i == 1 || (i >= 3 && i <= 5) {
				assert.Equal(t, broken, st.Err)
			} else {
				assert.NoError(t, st.Err)
			}
			assert.Equal(t, []health.Status{st}, s.monitor.Status())
		}
		const fast, normal = time.Second, 5 * time.Second
		assert.Equal(t, []time.Duration{fast, fast, normal, fast, fast, time.Second, fast, normal}, gaps(at))
		endpoint := discovery.Endpoint{Address: "a:80"}
		assert.Equal(t, []health.Change{
			{Time: at[2], Endpoint: endpoint, Kind: health.TurnedHealthy},
			{Time: at[5], Endpoint: endpoint, Kind: health.TurnedUnhealthy, Err: broken},
			{Time: at[7], Endpoint: endpoint, Kind: health.TurnedHealthy},
		}, s.journal.all())
	})
}

// What an endpoint says of itself counts at once, also when it is wrapped.
func TestFunc_DownAndDraining_H01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: scripted(
			nil, fmt.Errorf("the disk: %w", health.ErrDown), nil, nil,
			fmt.Errorf("%w: new version", health.ErrDraining), health.ErrDraining, nil, nil,
		)}
		s.check(oneByOne(a.probe()))
		e := s.add("a:80")
		for range 8 {
			n := a.count("a:80")
			for a.count("a:80") == n {
				s.settle(100 * time.Millisecond)
			}
			switch a.count("a:80") {
			case 2, 3:
				assert.Equal(t, health.Unhealthy, e.Status().State)
				assert.False(t, e.Available())
			case 5, 6, 7:
				assert.Equal(t, health.Withdrawn, e.Status().State)
				assert.False(t, e.Available())
			default:
				assert.Equal(t, health.Healthy, e.Status().State)
				assert.True(t, e.Available())
			}
		}
		assert.Equal(t, []string{"a:80 healthy", "a:80 unhealthy", "a:80 healthy", "a:80 withdrawn", "a:80 healthy"}, s.journal.kinds())
		assert.ErrorContains(t, s.journal.all()[1].Err, "the disk")
	})
}

// Given a pool whose probes all hang, then its endpoints serve from the start, and as long as too few
// probes have failed.
func TestNewEndpoints_ServeBeforeAnyResult_H03(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		for _, e := range []string{"a:80", "b:80"} {
			s.network.Serve(e, nil)
		}
		a := &asked{answer: func(ctx context.Context, _ string) error { return hang(ctx) }}
		check := health.Check{Probe: a.probe(), Interval: time.Minute, Timeout: time.Minute, HoldNew: time.Hour}
		s.check(check)
		tr := s.balance(balancer.Config{Rules: balancer.Rules{Panic: balancer.Panic{Threshold: -1}}}, "a:80", "b:80")
		for range 100 {
			assert.Equal(t, map[string]int{"a:80": 1, "b:80": 1}, tr.share(2))
			time.Sleep(time.Second)
		}
		assert.Positive(t, a.total())
		tr.say("c:80")
		s.network.Serve("c:80", nil)
		s.settle(0)
		assert.Equal(t, map[string]int{"c:80": 3}, tr.share(3), "there is nothing else")
	})
}

// Given HoldNew, then an endpoint that joins others gets nothing until its first good probe.
func TestHoldNew_UntilTheFirstGoodProbe_H03(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		for _, e := range []string{"a:80", "b:80"} {
			s.network.Serve(e, nil)
		}
		good := atomic.Bool{}
		a := &asked{answer: func(_ context.Context, address string) error {
			if address == "b:80" && !good.Load() {
				return assert.AnError
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.HoldNew, check.Fall = time.Hour, 1000
		s.check(check)
		tr := s.balance(balancer.Config{Rules: balancer.Rules{Panic: balancer.Panic{Threshold: -1}, SlowStart: balancer.SlowStart{Window: -1}}}, "a:80")
		time.Sleep(10 * time.Second)
		tr.say("a:80", "b:80")
		s.settle(0)
		for range 30 {
			assert.Equal(t, map[string]int{"a:80": 10}, tr.share(10))
			assert.Equal(t, "pending", tr.unavailable("b:80"))
			time.Sleep(time.Second)
		}
		good.Store(true)
		s.settle(time.Second)
		assert.Empty(t, tr.unavailable("b:80"))
		assert.Equal(t, map[string]int{"a:80": 5, "b:80": 5}, tr.share(10))
	})
}

// It is held back no longer than HoldNew, and then serves like one of which nothing is known.
func TestHoldNew_AtMostSoLong_H03(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(ctx context.Context, address string) error {
			if address == "b:80" {
				return hang(ctx)
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.HoldNew, check.Interval, check.Timeout = 7*time.Second, time.Minute, 50*time.Second
		s.check(check)
		first := s.add("a:80")
		assert.True(t, first.Available(), "there is no other")
		second := s.add("c:80")
		assert.True(t, second.Available(), "nothing is known of the other")
		time.Sleep(time.Minute)
		e := s.add("b:80")
		assert.False(t, e.Available())
		s.settle(7*time.Second - time.Nanosecond)
		assert.False(t, e.Available())
		assert.Equal(t, 1, a.count("b:80"), "its first probe comes in time")
		s.settle(time.Nanosecond)
		assert.True(t, e.Available())
		assert.Equal(t, health.Unknown, e.Status().State)
	})
}

// Given HoldNew and one endpoint held back, when all others fall ill or leave, then it is used at once,
// whether there is a panic mode or not.
func TestHoldNew_UsedIfNothingElseIs_H03(t *testing.T) {
	for _, threshold := range []float64{0, -1} {
		for _, leave := range []bool{false, true} {
			t.Run(fmt.Sprintf("panic %v, leave %v", threshold, leave), func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					for _, e := range []string{"a:80", "b:80"} {
						s.network.Serve(e, nil)
					}
					ill := atomic.Bool{}
					a := &asked{answer: func(ctx context.Context, address string) error {
						switch {
						case address == "b:80":
							return hang(ctx)
						case ill.Load():
							return health.ErrDown
						}
						return nil
					}}
					check := oneByOne(a.probe())
					check.HoldNew, check.Fall = time.Hour, 1000
					s.check(check)
					tr := s.balance(balancer.Config{Rules: balancer.Rules{Panic: balancer.Panic{Threshold: threshold}}}, "a:80")
					time.Sleep(10 * time.Second)
					tr.say("a:80", "b:80")
					s.settle(0)
					assert.Equal(t, map[string]int{"a:80": 10}, tr.share(10))
					if leave {
						tr.say("b:80")
						s.settle(0)
					} else {
						ill.Store(true)
						s.settle(10 * time.Second)
					}
					assert.Positive(t, tr.share(10)["b:80"], "%v", tr.pool.Status())
				})
			})
		}
	}
}

// When an endpoint is removed, then no probe of it starts any more, and the one under way is cancelled.
func TestRemove_EndsProbes_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		cancelled := map[string]time.Time{}
		var mu sync.Mutex
		a := &asked{answer: func(ctx context.Context, address string) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			cancelled[address] = time.Now()
			return ctx.Err()
		}}
		check := oneByOne(a.probe())
		check.Interval, check.Timeout = 10*time.Minute, 10*time.Minute
		s.check(check)
		e, other := s.add("a:80"), s.add("b:80")
		for a.total() < 2 {
			s.settle(time.Second)
		}
		e.Remove()
		synctest.Wait()
		mu.Lock()
		assert.Equal(t, map[string]time.Time{"a:80": time.Now()}, cancelled, "at once, and no other")
		mu.Unlock()
		assert.Len(t, s.monitor.Status(), 1)
		time.Sleep(time.Hour)
		assert.Equal(t, 1, a.count("a:80"))
		assert.Greater(t, a.count("b:80"), 2)
		assert.NoError(t, e.Status().Err, "what came too late is not noted")
		other.Remove()
		n := a.total()
		s.settle(time.Hour)
		assert.Equal(t, n, a.total())
	})
}

// Given a probe that waits for its turn, when its endpoint leaves, then it never starts.
func TestRemove_WhileWaitingForATurn_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: late(time.Second)}
		check := oneByOne(a.probe())
		check.MaxConcurrent = 1
		s.check(check)
		var members []*health.Member
		for i := range 50 {
			members = append(members, s.add(name(i)))
		}
		time.Sleep(10500 * time.Millisecond) // all are due, ten or so have had their turn
		n := a.total()
		var running *health.Member // leaves last: its place is free then
		for i, e := range members {
			if at := a.times(name(i)); len(at) > 0 && time.Since(at[len(at)-1]) < time.Second {
				running = e
			} else {
				e.Remove()
			}
		}
		running.Remove()
		s.settle(time.Hour)
		assert.Equal(t, n, a.total(), "no probe starts later")
	})
}

// The same when the monitor is closed, and when probes are switched off.
func TestClose_WhileWaitingForATurn_H06(t *testing.T) {
	for name, end := range map[string]func(s *scene){
		"close": func(s *scene) { s.monitor.Close() },
		"off":   func(s *scene) { s.use(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				inScene(t, func(t *testing.T, s *scene) {
					a := &asked{answer: late(time.Second)}
					check := oneByOne(a.probe())
					check.MaxConcurrent = 1
					s.check(check)
					for i := range 50 {
						s.add(fmt.Sprintf("e%d:80", i))
					}
					time.Sleep(10500 * time.Millisecond)
					n := a.total()
					end(s)
					s.settle(time.Hour)
					require.Equal(t, n, a.total(), "no probe starts later")
				})
			}
		})
	}
}

// Close cancels what is under way and waits for it; endpoints stay as they are.
func TestClose_EndsProbes_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		for i := range 20 {
			s.network.Serve(name(i), evenkeeltest.Hang())
		}
		s.network.Serve("good:80", nil)
		s.check(health.Check{})
		for i := range 20 {
			s.add(name(i))
		}
		good := s.add("good:80")
		time.Sleep(time.Minute)
		assert.Positive(t, s.network.OpenConns("good:80"))
		before := s.monitor.Status()
		told := len(s.journal.all())
		now := time.Now()
		s.monitor.Close()
		assert.Equal(t, now, time.Now(), "at once")
		synctest.Wait()
		s.network.AssertNoConns(t)
		assert.Equal(t, before, s.monitor.Status())
		assert.True(t, good.Available())
		assert.Len(t, s.journal.all(), told)
		assert.NoError(t, s.monitor.Use(health.Config{Check: &health.Check{}}))
		late, err := s.monitor.Add(discovery.Endpoint{Address: "late:80"})
		require.NoError(t, err)
		assert.True(t, late.Available())
		s.settle(time.Hour)
		assert.Zero(t, s.network.Dials("late:80"))
		s.network.AssertNoConns(t)
		late.Remove()
		good.Remove()
	})
}

// Members leave while the monitor is being closed.
func TestClose_WhileMembersLeave_H06(t *testing.T) {
	for range 20 {
		inScene(t, func(t *testing.T, s *scene) {
			s.check(health.Check{Probe: (&asked{}).probe()})
			var members []*health.Member
			for i := range 300 {
				members = append(members, s.add(name(i)))
			}
			time.Sleep(5 * time.Second)
			begin := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				<-begin
				s.monitor.Close()
			})
			for part := range 3 {
				wg.Go(func() {
					<-begin
					for i := range 100 {
						members[100*part+i].Remove()
					}
				})
			}
			close(begin)
			wg.Wait()
			s.monitor.Close()
		})
	}
}

// Endpoints come and go while probes run and other checks are used. In the end nothing is left.
func TestChurn_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		const endpoints = 20
		for i := range endpoints {
			h := http.Handler(evenkeeltest.Status(200))
			switch i % 4 {
			case 1:
				h = evenkeeltest.Hang()
			case 2:
				h = evenkeeltest.Script(evenkeeltest.Status(503), evenkeeltest.Status(200), evenkeeltest.Status(200))
			}
			s.network.Serve(name(i), h)
		}
		check := health.Check{Interval: time.Second, MaxConcurrent: 3, HoldNew: 500 * time.Millisecond, Timeout: 300 * time.Millisecond}
		s.check(check)
		tr := s.balance(balancer.Config{}, name(0))
		random := rand.New(rand.NewPCG(7, 7))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(7 * time.Millisecond):
						ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
						req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://svc.example/", http.NoBody)
						if resp, err := tr.rt.RoundTrip(req); err == nil {
							resp.Body.Close()
						}
						cancel()
						_ = s.monitor.Status()
					}
				}
			})
		}
		for round := range 300 {
			set := []string{}
			for i := range endpoints {
				if random.IntN(2) == 0 {
					set = append(set, name(i))
				}
			}
			tr.say(set...)
			time.Sleep(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
			if round%7 == 0 {
				next := check
				next.MaxConcurrent = 1 + random.IntN(5)
				if round%21 == 0 {
					s.use(nil)
				} else {
					s.use(&next)
				}
			}
		}
		tr.say(name(0))
		s.settle(10 * time.Second)
		for i := range endpoints {
			if i > 0 {
				assert.Zero(t, s.network.OpenConns(name(i)), "%d has left", i)
			}
		}
		close(stop)
		wg.Wait()
		assert.Len(t, s.monitor.Status(), 1)
		tr.pool.Close()
		s.monitor.Close()
		synctest.Wait()
		s.network.AssertNoConns(t)
	})
}

// Given an endpoint whose address is silent, so that dials hang, then they do not pile up, and when it
// leaves none goes on.
func TestBlackHole_DialsEnd_H06(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		d := &dialled{scene: s}
		s.network.BlackHole("a:80")
		s.watch(health.Config{Check: &health.Check{}, Transport: &http.Transport{DialContext: d.dial}})
		e := s.add("a:80")
		for range 100 {
			s.settle(10 * time.Second)
			if now := d.now.Load(); !assert.LessOrEqual(t, now, int64(1), "dials under way after %v", s.elapsed()) {
				break
			}
		}
		e.Remove()
		s.settle(time.Minute)
		assert.Zero(t, d.now.Load(), "the endpoint has left")
	})
}

// dialled counts the dials under way.
type dialled struct {
	*scene
	now atomic.Int64
}

func (d *dialled) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.now.Add(1)
	defer d.now.Add(-1)
	return d.network.DialContext(ctx, network, address)
}

// Given an interval of 30 s and a restart of 1 s at any moment, then an endpoint that went out is back
// within 5 s of its end, with traffic that fails and without.
func TestRestart_BackWithin5s_H07(t *testing.T) {
	outs := 0
	for _, fall := range []int{1, 2, 3} {
		for _, busy := range []bool{false, true} {
			for seed := range uint64(10) {
				inScene(t, func(t *testing.T, s *scene) {
					random := rand.New(rand.NewPCG(seed, uint64(fall)))
					server := s.network.Serve("a:80", nil)
					s.network.Serve("b:80", nil)
					s.watch(health.Config{Check: &health.Check{Interval: 30 * time.Second, Fall: fall}, Rand: rand.NewPCG(seed, 9)})
					tr := s.balance(balancer.Config{}, "a:80", "b:80")
					ctx, stop := context.WithCancel(t.Context())
					var wg sync.WaitGroup
					if busy {
						wg.Go(func() {
							for ctx.Err() == nil {
								_, _, _ = tr.get("http://svc.example/")
								time.Sleep(250 * time.Millisecond)
							}
						})
					}
					time.Sleep(30*time.Second + time.Duration(random.Int64N(int64(60*time.Second))))
					server.Kill()
					time.Sleep(time.Second)
					if s.settle(0); tr.unavailable("a:80") != "" {
						outs++
					}
					server.Restart()
					s.settle(5 * time.Second)
					for range 10 {
						assert.Empty(t, tr.unavailable("a:80"), "fall %d, traffic %v, seed %d: %v", fall, busy, seed, s.status("a:80"))
						s.settle(5 * time.Second)
					}
					stop()
					wg.Wait()
				})
			}
		}
	}
	assert.Greater(t, outs, 4, "it did go out")
}

// An endpoint that stays down is asked at growing intervals, with jitter.
func TestDown_GrowingIntervals_H07(t *testing.T) {
	for seed := range uint64(5) {
		inScene(t, func(t *testing.T, s *scene) {
			server := s.network.Serve("a:80", nil)
			s.watch(health.Config{Check: &health.Check{Interval: 30 * time.Second}, Rand: rand.NewPCG(seed, 3)})
			s.add("a:80")
			server.Kill()
			time.Sleep(15 * time.Minute)
			at := s.status("a:80").Probed
			assert.WithinDuration(t, time.Now(), at, 132*time.Second, "seed %d", seed)
			dials := server.Dials()
			assert.InDelta(t, 3+7+(900-15-2-127)/120, dials, 2, "seed %d: 1, 2, 4, ... 64 s and then 120 s", seed)
		})
		inScene(t, func(t *testing.T, s *scene) {
			a := &asked{answer: scripted(health.ErrDown)}
			s.watch(health.Config{Check: &health.Check{Probe: a.probe(), Interval: 30 * time.Second}, Rand: rand.NewPCG(seed, 3)})
			s.add("a:80")
			time.Sleep(15 * time.Minute)
			got := gaps(a.times("a:80"))[:10]
			want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 120, 120, 120}
			for i := range want {
				want[i] *= time.Second
			}
			assertAbout(t, want, got)
			assert.NotEqual(t, want, got, "with jitter")
		})
	}
}

// A request that fails makes the next probe due at once, but at most one a second. One that is good
// does not.
func TestFailingRequests_MakeAProbeDue_H07(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		check := oneByOne(a.probe())
		check.Interval = 5 * time.Minute
		s.check(check)
		e, other := s.add("a:80"), s.add("b:80")
		time.Sleep(5 * time.Minute)
		n, m := a.count("a:80"), a.count("b:80")
		other.Answered(succeeded())
		e.Answered(failure())
		synctest.Wait()
		require.Equal(t, n+1, a.count("a:80"), "at once")
		for range 200 {
			e.Answered(failure())
			e.Answered(succeeded())
			other.Answered(succeeded())
			s.settle(100 * time.Millisecond)
		}
		at := a.times("a:80")[n:]
		assert.InDelta(t, 20, len(at), 1)
		for _, gap := range gaps(at) {
			assert.GreaterOrEqual(t, gap, time.Second)
		}
		assert.LessOrEqual(t, a.count("b:80"), m+1, "the other has its own")
		n = a.count("a:80")
		s.settle(4 * time.Minute)
		assert.Equal(t, n, a.count("a:80"), "then it has its interval again")
	})
}

// One that is down is left to its intervals.
func TestFailingRequests_NotWhileDown_H07(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: scripted(health.ErrDown)}
		s.check(oneByOne(a.probe()))
		e := s.add("a:80")
		time.Sleep(5 * time.Second)
		require.Equal(t, health.Unhealthy, e.Status().State)
		for range 400 {
			e.Answered(failure())
			time.Sleep(100 * time.Millisecond)
		}
		assert.Equal(t, []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}, gaps(a.times("a:80"))[:5])
	})
}

func TestFailingRequests_IgnoreTraffic_H07(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		check := oneByOne(a.probe())
		check.IgnoreTraffic = true
		s.check(check)
		e := s.add("a:80")
		for range 1000 {
			e.Answered(failure())
			time.Sleep(50 * time.Millisecond)
		}
		for _, gap := range gaps(a.times("a:80")) {
			assert.Equal(t, 5*time.Second, gap)
		}
	})
}

// Without traffic for long, healthy endpoints are asked less often, and at once more often again.
func TestIdleInterval(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		check := health.Check{Probe: a.probe(), Jitter: health.Off}
		s.check(check)
		e, other := s.add("a:80"), s.add("b:80")
		e.Answered(succeeded()) // before that, nobody can know whether there is traffic
		time.Sleep(60 * time.Second)
		assert.Len(t, a.times("a:80"), 12)
		time.Sleep(10*time.Minute + 10*time.Second) // traffic counts as there until the next look at the rates
		assert.InDelta(t, 14+10, a.count("a:80"), 1)
		for range 20 {
			n := [2]int{a.count("a:80"), a.count("b:80")}
			for range 3 {
				e.Answered(succeeded())
				time.Sleep(time.Second)
				e.Answered(succeeded())
				time.Sleep(4 * time.Second)
			}
			assert.InDelta(t, n[0]+3, a.count("a:80"), 1)
			assert.InDelta(t, n[1]+3, a.count("b:80"), 1, "traffic to one is traffic")
		}
		other.Remove()
	})
}

// A function that panics has failed; so has one that ends its goroutine. The value is kept.
func TestFunc_Panics(t *testing.T) {
	var (
		typed   *http.Request
		nothing any
	)
	for what, row := range map[string]struct {
		f    health.Func
		want string
	}{
		"a text":        {func(context.Context, discovery.Endpoint) error { panic("oops") }, "health: the probe panicked: oops"},
		"an error":      {func(context.Context, discovery.Endpoint) error { panic(health.ErrDown) }, "health: the probe panicked: " + health.ErrDown.Error()},
		"nil":           {func(context.Context, discovery.Endpoint) error { panic(nothing) }, "health: the probe panicked: panic called with nil"},
		"a nil pointer": {func(context.Context, discovery.Endpoint) error { panic(typed) }, "health: the probe panicked: <nil>"},
		"a nil error":   {func(context.Context, discovery.Endpoint) error { panic(error(nil)) }, "health: the probe panicked: panic called with nil"}, //nolint:govet // on purpose
		"dereferenced":  {func(context.Context, discovery.Endpoint) error { return fmt.Errorf("%v", typed.URL.Path) }, "nil pointer dereference"},
		"Goexit":        {func(context.Context, discovery.Endpoint) error { runtime.Goexit(); return nil }, "runtime.Goexit"},
	} {
		t.Run(what, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				a := &asked{answer: func(ctx context.Context, address string) error {
					return row.f(ctx, discovery.Endpoint{Address: address})
				}}
				s.check(oneByOne(a.probe()))
				s.add("a:80")
				time.Sleep(time.Minute)
				st := s.status("a:80")
				assert.Equal(t, health.Unhealthy, st.State)
				assert.ErrorContains(t, st.Err, row.want)
				assert.NotErrorIs(t, st.Err, health.ErrDown, "it is no answer of the endpoint's")
				assert.Greater(t, a.count("a:80"), 5, "it goes on")
				if what != "Goexit" {
					var p *health.PanicError
					assert.ErrorAs(t, st.Err, &p)
				}
			})
		})
	}
}

// Given a function that never returns, then no second one is started for its endpoint; others have
// their turn when its time is over; and Close does not wait for it.
func TestFunc_NeverReturns(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		release := make(chan struct{})
		a := &asked{answer: func(_ context.Context, address string) error {
			if address != "good:80" {
				<-release
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.MaxConcurrent = 1
		s.check(check)
		for i := range 3 {
			s.add(name(i))
		}
		s.add("good:80")
		time.Sleep(5 * time.Minute)
		for i := range 3 {
			assert.Equal(t, 1, a.count(name(i)))
			st := s.status(name(i))
			assert.Equal(t, health.Unhealthy, st.State)
			assert.ErrorContains(t, st.Err, "has not returned")
			assert.Zero(t, st.Took)
		}
		assert.Equal(t, health.Healthy, s.status("good:80").State)
		assert.Greater(t, a.count("good:80"), 45)

		now := time.Now()
		s.monitor.Close()
		assert.Equal(t, now, time.Now())
		close(release)
	})
}

// When such a function returns after all, then the endpoint is asked again, and what it returned too
// late does not count.
func TestFunc_ReturnsLate(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		first := atomic.Bool{}
		a := &asked{answer: func(context.Context, string) error {
			if !first.Swap(true) {
				time.Sleep(time.Minute)
				return health.ErrDraining
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.Fall = 2
		s.check(check)
		e := s.add("a:80")
		time.Sleep(30 * time.Second)
		assert.Equal(t, health.Unhealthy, e.Status().State)
		time.Sleep(time.Minute)
		assert.Equal(t, health.Healthy, e.Status().State)
		assert.Equal(t, []string{"a:80 unhealthy", "a:80 healthy"}, s.journal.kinds())
	})
}

// What takes as long as the time allows, or longer, has failed; a nanosecond less is good.
func TestTimeout_Exactly_H05(t *testing.T) {
	for _, row := range []struct {
		takes time.Duration
		want  health.State
	}{{2*time.Second - 1, health.Healthy}, {2*time.Second + 1, health.Unhealthy}, {time.Hour, health.Unhealthy}} {
		inScene(t, func(t *testing.T, s *scene) {
			a := &asked{answer: func(ctx context.Context, _ string) error {
				select {
				case <-time.After(row.takes):
					return nil
				case <-ctx.Done():
					return nil // it does not care
				}
			}}
			check := oneByOne(a.probe())
			check.Fall = 1
			s.check(check)
			e := s.add("a:80")
			time.Sleep(8 * time.Second)
			st := e.Status()
			assert.Equal(t, row.want, st.State)
			assert.Equal(t, min(row.takes, 2*time.Second), st.Took)
			if row.want == health.Unhealthy {
				assert.ErrorIs(t, st.Err, context.DeadlineExceeded)
				assert.ErrorContains(t, st.Err, "took too long")
			}
		})
	}
}

// Another interval, probe or threshold keeps what is known, and counts go on.
func TestUse_KeepsStates_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		broken := &asked{answer: func(_ context.Context, address string) error {
			if address == "down:80" || address == "failing:80" {
				return assert.AnError
			}
			if address == "leaving:80" {
				return health.ErrDraining
			}
			return nil
		}}
		check := oneByOne(broken.probe())
		check.Fall = 3
		s.check(check)
		down, leaving, fine := s.add("down:80"), s.add("leaving:80"), s.add("fine:80")
		time.Sleep(time.Minute)
		failing := s.add("failing:80")
		for broken.count("failing:80") < 2 {
			s.settle(100 * time.Millisecond)
		}
		want := s.monitor.Status()
		require.Equal(t, []health.State{health.Unhealthy, health.Withdrawn, health.Healthy, health.Unknown},
			[]health.State{down.Status().State, leaving.Status().State, fine.Status().State, failing.Status().State})
		told := len(s.journal.all())
		other := &asked{answer: broken.answer}
		for i := range 20 {
			next := oneByOne(other.probe())
			next.Interval = time.Duration(1+i%7) * time.Minute
			next.FastInterval = 30 * time.Second
			next.DownInterval = 10 * time.Second
			next.MaxConcurrent = 1 + i%5
			next.Rise = 3
			s.use(&next)
			assert.Equal(t, want, s.monitor.Status())
		}
		s.settle(31 * time.Second)
		assert.Equal(t, health.Unhealthy, failing.Status().State, "its third failure in a row")
		assert.Len(t, s.journal.all(), told+1)
		assert.Positive(t, other.total())
		n := broken.total()
		s.settle(10 * time.Minute)
		assert.Equal(t, n, broken.total(), "the old probe asks no more")
	})
}

// A shorter interval holds at once, spread at random; a longer one after the next probe.
func TestUse_AnotherInterval_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		check := oneByOne(a.probe())
		check.Interval = time.Hour
		s.check(check)
		for i := range 100 {
			s.add(name(i))
		}
		time.Sleep(time.Hour)
		begin := time.Now()
		check.Interval, check.FastInterval, check.DownInterval = 10*time.Second, 0, 0
		s.use(&check)
		time.Sleep(10 * time.Second)
		var at []time.Time
		for i := range 100 {
			times := a.times(name(i))
			require.False(t, times[len(times)-1].Before(begin), "%d", i)
			at = append(at, times[len(times)-1])
		}
		counts := slots(at, begin, 100)
		for _, n := range counts {
			assert.LessOrEqual(t, n, 8)
		}
		for range 1000 { // again and again, which must not keep anybody from its turn
			s.use(&check)
			time.Sleep(100 * time.Millisecond)
		}
		for i := range 100 {
			assert.Greater(t, a.count(name(i)), 9)
		}
	})
}

// Given that probes are switched off, then they stop, and what they have found counts no more. On
// again, they begin.
func TestUse_OffAndOn_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(ctx context.Context, address string) error {
			switch address {
			case "down:80":
				return health.ErrDown
			case "leaving:80":
				return health.ErrDraining
			case "hung:80", "new:80":
				return hang(ctx)
			}
			return nil
		}}
		check := oneByOne(a.probe())
		check.HoldNew = time.Hour
		s.check(check)
		members := []*health.Member{s.add("down:80"), s.add("leaving:80"), s.add("fine:80"), s.add("hung:80")}
		time.Sleep(30 * time.Second)
		members = append(members, s.add("new:80"))
		available := 0
		for _, e := range members {
			if e.Available() {
				available++
			}
		}
		require.Equal(t, 1, available)

		s.use(nil)
		synctest.Wait()
		now, _ := a.atOnce()
		assert.Zero(t, now, "those under way are cancelled")
		for _, e := range members {
			assert.True(t, e.Available())
			assert.Equal(t, health.Unknown, e.Status().State)
		}
		n := a.total()
		members[0].Answered(failure())
		s.settle(time.Hour)
		assert.Equal(t, n, a.total())

		s.use(&check)
		s.settle(8 * time.Second)
		assert.Equal(t, health.Unhealthy, members[0].Status().State)
		assert.Equal(t, health.Healthy, members[2].Status().State)
		for range 10 { // in one instant
			s.use(nil)
			s.use(&check)
		}
		s.settle(8 * time.Second)
		assert.Equal(t, health.Withdrawn, members[1].Status().State)
		assert.False(t, members[0].Available())
		before := a.total()
		s.settle(5 * time.Second)
		assert.Greater(t, a.total(), before)
	})
}

// A monitor that began without a check can get one.
func TestUse_FirstCheck_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		s.watch(health.Config{})
		e := s.add("a:80")
		time.Sleep(time.Hour)
		a := &asked{answer: scripted(health.ErrDown)}
		check := oneByOne(a.probe())
		s.use(&check)
		time.Sleep(5 * time.Second)
		assert.False(t, e.Available())
	})
}

func TestUse_InvalidChangesNothing_P02(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{}
		s.check(oneByOne(a.probe()))
		s.add("a:80")
		time.Sleep(7 * time.Second)
		err := s.monitor.Use(health.Config{Check: &health.Check{Rise: -1, Probe: health.HTTP{Path: "x"}}, Outlier: health.Outlier{MaxEjected: 7}})
		assert.ErrorContains(t, err, "Check.Rise")
		assert.ErrorContains(t, err, "Check.Probe.Path")
		assert.ErrorContains(t, err, "Outlier.MaxEjected")
		n := a.count("a:80")
		time.Sleep(50 * time.Second)
		assert.Equal(t, n+10, a.count("a:80"))
		m, err := health.NewMonitor(health.Config{Check: &health.Check{Rise: -1}})
		assert.Error(t, err)
		assert.Nil(t, m)
	})
}

// Given 1000 other checks, then no connection, timer or goroutine is left of those before.
func TestUse_ThousandTimes_P04(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		for port := range 50 {
			s.network.Serve(fmt.Sprintf("a:%d", 1000+port), nil)
		}
		s.check(health.Check{})
		s.add("a:1000")
		for i := range 1000 {
			s.use(&health.Check{Interval: time.Second, Probe: health.HTTP{Port: 1000 + i%50}})
			time.Sleep(time.Second)
		}
		s.settle(time.Second)
		open := 0
		for port := range 50 {
			open += s.network.OpenConns(fmt.Sprintf("a:%d", 1000+port))
		}
		assert.LessOrEqual(t, open, 1, "connections to an endpoint that is probed at one port")
	})
}

// When probes are switched off, their connections are closed.
func TestUse_OffClosesConnections_P04(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		s.network.Serve("a:80", nil)
		s.check(health.Check{})
		s.add("a:80")
		s.settle(10 * time.Second)
		require.Equal(t, 1, s.network.OpenConns("a:80"))
		s.use(nil)
		s.settle(10 * time.Minute)
		assert.Zero(t, s.network.OpenConns("a:80"), "nobody is probed, and there is no traffic")
	})
}

// Other checks are used while probes run and requests are answered.
func TestUse_Race_P03(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		a := &asked{answer: func(ctx context.Context, address string) error {
			_ = late(time.Millisecond)(ctx, address)
			return ctx.Err()
		}}
		check := health.Check{Probe: a.probe(), Interval: 10 * time.Millisecond, FastInterval: 10 * time.Millisecond}
		s.check(check)
		var members []*health.Member
		for i := range 20 {
			members = append(members, s.add(name(i)))
		}
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() {
				for i := range 200 {
					switch (i + k) % 4 {
					case 0:
						s.use(nil)
					default:
						next := check
						next.MaxConcurrent = 1 + (i+k)%7
						s.use(&next)
					}
					members[(i*7+k)%20].Answered(failure())
					_ = s.monitor.Status()
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		s.use(&check)
		s.settle(time.Second)
		for _, e := range members {
			assert.Equal(t, health.Healthy, e.Status().State)
		}
	})
}

// OnChange may use the monitor, and is told in order, one at a time.
func TestOnChange_MayUseTheMonitor(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		flip := atomic.Int64{}
		a := &asked{answer: func(context.Context, string) error {
			if flip.Add(1)%3 == 0 {
				return health.ErrDown
			}
			return nil
		}}
		check := health.Check{Probe: a.probe(), Interval: 100 * time.Millisecond, Rise: 1}
		var m *health.Monitor
		telling, added := atomic.Int64{}, 0
		log := &eventLog{}
		m = s.watch(health.Config{Check: &check, OnChange: func(c health.Change) {
			assert.Equal(t, int64(1), telling.Add(1), "calls do not overlap")
			defer telling.Add(-1)
			log.note(c)
			_ = m.Status()
			time.Sleep(time.Millisecond)
			if added++; added <= 5 {
				e, err := m.Add(discovery.Endpoint{Address: fmt.Sprintf("more%d:80", added)})
				if assert.NoError(t, err) && added == 3 {
					e.Remove()
				}
			}
			assert.NoError(t, m.Use(health.Config{Check: &check, Outlier: health.Outlier{Disabled: true}}))
		}})
		for i := range 10 {
			s.add(name(i))
		}
		s.settle(30 * time.Second)
		assert.Len(t, m.Status(), 14)
		last := map[string]health.Change{}
		for _, c := range log.all() {
			before, known := last[c.Endpoint.Address]
			if known {
				assert.NotEqual(t, before.Kind, c.Kind, "a change")
				assert.False(t, c.Time.Before(before.Time), "in order")
			}
			assert.Equal(t, c.Kind == health.TurnedUnhealthy, c.Err != nil)
			last[c.Endpoint.Address] = c
		}
		assert.Len(t, last, 14)
		assert.Greater(t, len(log.all()), 100)
	})
}

// A slow OnChange holds up nobody's probes, and after Close it is not called.
func TestOnChange_NotAfterClose(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		flip := atomic.Int64{}
		a := &asked{answer: func(context.Context, string) error {
			if flip.Add(1)%2 == 0 {
				return health.ErrDown
			}
			return nil
		}}
		closed := atomic.Bool{}
		check := health.Check{Probe: a.probe(), Interval: 100 * time.Millisecond, Rise: 1}
		m := s.watch(health.Config{Check: &check, OnChange: func(health.Change) {
			assert.False(t, closed.Load())
			time.Sleep(10 * time.Second)
		}})
		for i := range 5 {
			s.add(name(i))
		}
		time.Sleep(9 * time.Second)
		assert.Greater(t, a.total(), 50)
		m.Close()
		closed.Store(true)
		time.Sleep(time.Minute)
	})
}

// One monitor serves one pool, or is used alone.
func TestAttach_OnlyOnce(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		m := s.check(health.Check{Probe: (&asked{}).probe()})
		s.balance(balancer.Config{}, "a:80")
		_, err := m.Add(discovery.Endpoint{Address: "b:80"})
		assert.ErrorContains(t, err, "another pool")
		_, err = balancer.NewPool(balancer.Config{Resolver: discovery.Static{"c:80"}, Health: m})
		assert.ErrorContains(t, err, "another pool")
	})
	inScene(t, func(t *testing.T, s *scene) {
		m := s.check(health.Check{Probe: (&asked{}).probe()})
		s.add("a:80")
		_, err := balancer.NewPool(balancer.Config{Resolver: discovery.Static{"c:80"}, Health: m})
		assert.ErrorContains(t, err, "another pool")
		_, err = m.Add(discovery.Endpoint{Address: "b"})
		assert.True(t, err != nil && strings.Contains(err.Error(), "Address"), "%v", err)
	})
}

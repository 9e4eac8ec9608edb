package balancer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// judge says of some endpoints whether they are healthy.
func judge(t testing.TB, p *Pool, healthy bool, endpoints ...discovery.Endpoint) {
	t.Helper()
	for _, e := range endpoints {
		require.True(t, p.SetHealthy(e.Key(), healthy), "%v is in the pool", e)
	}
}

func TestSetHealthy_UnknownEndpoint(t *testing.T) {
	p := testPool(t, Config{}, addresses("a")...)
	assert.False(t, p.SetHealthy(discovery.Key{ID: "b:80", Address: "b:80"}, false))
	p.update(addresses("b"))
	assert.False(t, p.SetHealthy(discovery.Key{ID: "a:80", Address: "a:80"}, false), "it has left")
	assert.True(t, p.SetHealthy(discovery.Key{ID: "b:80", Address: "b:80"}, false))
	assert.Equal(t, "marked unhealthy", p.Status().Endpoints[0].Unavailable)
	p.Close()
	assert.NotPanics(t, func() { p.SetHealthy(discovery.Key{ID: "b:80", Address: "b:80"}, true) })
}

func TestSetHealthy_BelongsToTheIncarnation_B14(t *testing.T) {
	a, b := discovery.Endpoint{ID: "pod-1", Address: "a:80"}, discovery.Endpoint{Address: "b:80"}
	p := testPool(t, Config{Algorithm: RoundRobin{}}, a, b)
	judge(t, p, false, a)
	p.update([]discovery.Endpoint{{ID: "pod-1", Address: "a:80", Zone: "z"}, b})
	assert.Equal(t, map[string]int{"b:80": 10}, picked(t, p, 10), "an update heals nobody")
	p.update([]discovery.Endpoint{b})
	p.update([]discovery.Endpoint{a, b})
	assert.Len(t, picked(t, p, 22), 2, "who joins is healthy, and has one pick of eleven at first")
}

// Given a health check that is broken and condemns one endpoint after the other,
// then each algorithm goes on serving: as long as half is left, from those that
// are; then from all, ill or not. When it is repaired, from the healthy again.
func TestPanic_BrokenHealthCheckAlone_B09(t *testing.T) {
	t.Parallel()
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			t.Parallel()
			endpoints := in(0, 6)
			p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, endpoints...)
			check := func(healthy int) {
				t.Helper()
				const picks = 2000
				used := 6
				if healthy >= 3 {
					used = healthy
				}
				got := attempts(t, p, picks)
				assert.Len(t, got, used, "%d are healthy", healthy)
				for _, n := range got {
					assertShare(t, 1/float64(used), n, picks, "%d are healthy", healthy)
				}
			}
			for i := range endpoints {
				judge(t, p, false, endpoints[i])
				check(6 - 1 - i)
			}
			for i := range endpoints {
				judge(t, p, true, endpoints[i])
				check(i + 1)
			}
		})
	}
}

// Given panic, then who is draining gets nothing all the same.
func TestPanic_NeverUsesDraining_B09(t *testing.T) {
	for _, a := range allAlgorithms {
		endpoints := in(0, 4)
		endpoints[0].Draining, endpoints[1].Draining = true, true
		p, _ := fakePool(t, Config{Algorithm: a}, endpoints...)
		judge(t, p, false, endpoints...)
		got := attempts(t, p, 100)
		assert.Len(t, got, 2, "%T", a)
		assert.Positive(t, got["p0-2:80"], "%T", a)
		assert.Positive(t, got["p0-3:80"], "%T", a)

		endpoints = slices.Clone(endpoints)
		endpoints[2].Draining, endpoints[3].Draining = true, true
		p.update(endpoints)
		_, err := p.Pick(Info{})
		assert.ErrorIs(t, err, ErrNoEndpoints, "%T", a)
		assert.ErrorContains(t, err, "all of them are draining or unhealthy", "%T", a)
	}
}

// Given panic in one priority only, then it shares the traffic as without panic,
// but its part goes to all of its endpoints.
func TestPanic_OfOnePriority_B09(t *testing.T) {
	endpoints := append(in(0, 20), in(1, 20)...)
	p, _ := fakePool(t, Config{Algorithm: Random{}}, endpoints...)
	judge(t, p, false, endpoints[1:20]...)
	judge(t, p, false, endpoints[20:27]...) // 5 % and 65 %, a row of Envoy's table
	const picks = 50000
	got, first := attempts(t, p, picks), 0
	for _, e := range endpoints[:20] {
		assert.Positive(t, got[e.Address])
		first += got[e.Address]
	}
	assertShare(t, 0.07/0.98, first, picks)
	for _, e := range endpoints[20:27] {
		assert.Zero(t, got[e.Address], "this priority is not in panic")
	}
}

// Given that the configuration says so, then a call in panic fails at once, although
// some endpoints are healthy, and the error says why.
func TestPanic_Reject_B09(t *testing.T) {
	endpoints := in(0, 4)
	p, fake := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Reject: true}}}, endpoints...)
	judge(t, p, false, endpoints[:2]...)
	assert.Len(t, picked(t, p, 100), 2, "half is enough")
	judge(t, p, false, endpoints[2])

	_, err := p.Pick(Info{})
	require.ErrorIs(t, err, ErrNoEndpoints)
	assert.EqualError(t, err, "balancer: no endpoints: too few of them are healthy, and Panic.Reject is set")
	assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
	begin := fake.Now()
	_, err = p.PickWait(t.Context(), Info{})
	assert.ErrorIs(t, err, ErrNoEndpoints)
	assert.Equal(t, begin, fake.Now(), "at once")
	assert.False(t, p.Others(Pick{}, Info{}), "nor is there another for a retry")

	judge(t, p, false, endpoints[3])
	_, err = p.Pick(Info{})
	assert.EqualError(t, err, "balancer: no endpoints: all of them are draining or unhealthy")
	judge(t, p, true, endpoints[1], endpoints[3])
	assert.Equal(t, map[string]int{"p0-1:80": 50, "p0-3:80": 50}, picked(t, p, 100))
}

// Given Reject, and one priority in panic, then the others carry what they can.
// Healthy endpoints of the one in panic are used, those that are ill are not.
func TestPanic_RejectNeedsAllPriorities_B09(t *testing.T) {
	endpoints := append(in(0, 20), in(1, 20)...)
	p, _ := fakePool(t, Config{Algorithm: Random{}, Rules: Rules{Panic: Panic{Reject: true}}}, endpoints...)
	judge(t, p, false, endpoints[1:20]...)
	judge(t, p, false, endpoints[20:27]...)
	const picks = 20000
	got := attempts(t, p, picks)
	assert.Len(t, got, 1+13)
	assertShare(t, 0.07/0.98, got[endpoints[0].Address], picks)
	judge(t, p, false, endpoints[27:31]...) // 45 %
	_, err := p.Pick(Info{})
	assert.ErrorContains(t, err, "Panic.Reject")
}

// Given standby endpoints that can carry the load, then nothing is rejected.
func TestPanic_RejectDespiteStandby_B09(t *testing.T) {
	endpoints := append(in(0, 10), in(1, 4)...)
	for i := range endpoints[10:] {
		endpoints[10+i].Standby = true
	}
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Reject: true}}}, endpoints...)
	judge(t, p, false, endpoints[1:10]...)
	assert.Len(t, picked(t, p, 100), 1+4, "the only one that is healthy, and those on standby")

	judge(t, p, false, endpoints[0])
	assert.Len(t, picked(t, p, 100), 4, "all is theirs")
	judge(t, p, false, endpoints[10:13]...)
	_, err := p.Pick(Info{})
	assert.ErrorIs(t, err, ErrNoEndpoints, "and 1 of 4 is too few again")
}

// Given that panic is off, then only healthy endpoints are used, down to the last.
func TestPanic_Off_B09(t *testing.T) {
	endpoints := append(in(0, 10), in(1, 10)...)
	var changes []Change
	cfg := Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Threshold: -1}}, OnChange: func(c Change) { changes = append(changes, c) }}
	p, _ := fakePool(t, cfg, endpoints...)
	judge(t, p, false, endpoints[1:]...)
	assert.Equal(t, map[string]int{"p0-0:80": 100}, picked(t, p, 100))
	judge(t, p, false, endpoints[0])
	_, err := p.Pick(Info{})
	assert.EqualError(t, err, "balancer: no endpoints: all of them are draining or unhealthy")
	judge(t, p, true, endpoints[13])
	assert.Equal(t, map[string]int{"p1-3:80": 100}, picked(t, p, 100))
	for _, c := range changes {
		assert.False(t, c.Panic)
	}
}

// Every change of health is told, with how many are left, and panic with it: when
// it begins and when it ends, each once, whatever brings it about.
func TestPanic_Events_B09(t *testing.T) {
	endpoints := in(0, 4)
	var changes []Change
	p, _ := fakePool(t, Config{OnChange: func(c Change) { changes = append(changes, c) }}, endpoints...)
	told := func() []Change {
		got := changes
		changes = nil
		return got
	}
	assert.Equal(t, []Change{{Added: endpoints, Size: 4, Available: 4}}, told())
	judge(t, p, false, endpoints[0])
	judge(t, p, false, endpoints[1])
	assert.Equal(t, []Change{{Size: 4, Available: 3}, {Size: 4, Available: 2}}, told())
	judge(t, p, false, endpoints[1]) // it is already
	judge(t, p, true, endpoints[2])
	assert.Empty(t, told(), "nothing has changed")
	judge(t, p, false, endpoints[2])
	assert.Equal(t, []Change{{Size: 4, Available: 1, Panic: true}}, told(), "panic begins")
	judge(t, p, false, endpoints[3])
	assert.Equal(t, []Change{{Size: 4, Panic: true}}, told())
	judge(t, p, true, endpoints[0])
	judge(t, p, true, endpoints[1])
	assert.Equal(t, []Change{{Size: 4, Available: 1, Panic: true}, {Size: 4, Available: 2}}, told(), "panic ends")

	require.NoError(t, p.Use(nil, Rules{Panic: Panic{Threshold: 0.51}}))
	assert.Equal(t, []Change{{Size: 4, Available: 2, Panic: true}}, told(), "other rules")
	require.NoError(t, p.Use(nil, Rules{Panic: Panic{Threshold: 0.6}}))
	assert.Empty(t, told(), "it is panic still")
	require.NoError(t, p.Use(nil, Rules{}))
	assert.Equal(t, []Change{{Size: 4, Available: 2}}, told())
	p.update(endpoints[1:])
	assert.Equal(t, []Change{{Removed: endpoints[:1], Size: 3, Available: 1, Panic: true}}, told(), "a healthy one leaves")
	p.update(endpoints[:2])
	assert.Equal(t, []Change{{Added: endpoints[:1], Removed: endpoints[2:], Size: 2, Available: 2}}, told(), "the ill leave")
}

// Reject is told as panic too, and so is panic inside of one priority.
func TestPanic_EventsOfRejectAndPriorities_B09(t *testing.T) {
	endpoints := append(in(0, 20), in(1, 20)...)
	var last Change
	cfg := Config{Rules: Rules{Panic: Panic{Reject: true}}, OnChange: func(c Change) { last = c }}
	p, _ := fakePool(t, cfg, endpoints...)
	judge(t, p, false, endpoints[1:20]...)
	assert.Equal(t, Change{Size: 40, Available: 21}, last, "the other priority can carry it")
	judge(t, p, false, endpoints[20:27]...)
	assert.Equal(t, Change{Size: 40, Available: 14, Panic: true}, last)
	judge(t, p, true, endpoints[20])
	assert.Equal(t, Change{Size: 40, Available: 15}, last)
}

// A wave of changes from many goroutines: the last snapshot knows all of them.
func TestSetHealthy_Concurrently(t *testing.T) {
	endpoints := in(0, 40)
	p := testPool(t, Config{Algorithm: Random{}, Rules: Rules{Panic: Panic{Threshold: -1}}}, endpoints...)
	done := make(chan struct{})
	for i, e := range endpoints {
		go func() {
			for k := range 50 {
				p.SetHealthy(e.Key(), k%2 == 0)
			}
			p.SetHealthy(e.Key(), i%4 == 0)
			done <- struct{}{}
		}()
	}
	for range endpoints {
		_, _ = p.Pick(Info{})
		<-done
	}
	got := picked(t, p, 5000)
	assert.Len(t, got, 10)
	for i := 0; i < len(endpoints); i += 4 {
		assert.Positive(t, got[endpoints[i].Address])
	}
}

// marking is an algorithm during whose work something else happens.
type marking struct {
	RoundRobin
	hook *func()
}

func (a marking) NewBuilder(env Env) (Builder, error) {
	b, err := a.RoundRobin.NewBuilder(env)
	return markingBuilder{b, a.hook}, err
}

type markingBuilder struct {
	Builder
	hook *func()
}

func (b markingBuilder) Build(g Group) Picker {
	if hook := *b.hook; hook != nil {
		*b.hook = nil
		hook()
	}
	return b.Builder.Build(g)
}

// Given a change of health while another is being published, then it is published
// too, without anybody asking again.
func TestSetHealthy_WhileAnotherIsPublished(t *testing.T) {
	var hook func()
	endpoints := in(0, 6)
	p := testPool(t, Config{Algorithm: marking{hook: &hook}}, endpoints...)
	second := p.byKey[endpoints[1].Key()].node
	hook = func() { second.Mark(node.Unhealthy) }
	judge(t, p, false, endpoints[0])
	assert.Len(t, picked(t, p, 100), 4)
}

// Round robin does not begin anew when an endpoint falls ill or recovers. (httplb
// does, and gives the first of the list too much.)
func TestRoundRobin_SurvivesFlaps_B06(t *testing.T) {
	endpoints := in(0, 10)
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, endpoints...)
	got := map[string]int{}
	for i := range 100 {
		judge(t, p, i%2 == 1, endpoints[9])
		for a, n := range picked(t, p, 97) { // not so many whole turns
			got[a] += n
		}
	}
	turns := func() *turn { return p.pickers[groupKey{}].(interface{ turns() *turn }).turns() }
	before := turns()
	judge(t, p, false, endpoints[3])
	assert.Same(t, before, turns(), "it goes on where it was")
	delete(got, endpoints[9].Address)
	least, most := 1<<30, 0
	for _, e := range endpoints[:9] {
		least, most = min(least, got[e.Address]), max(most, got[e.Address])
	}
	assert.LessOrEqual(t, float64(most)/float64(least), 1.1, "%v", got)
}

// Given an algorithm that has learnt something, when endpoints around come and go,
// attributes change and health flaps, then it still knows that, and attempts under way
// still count.
func TestState_SurvivesUpdatesAndFlaps_D15(t *testing.T) {
	fails := outcome.Answer{Class: outcome.Failure, Took: time.Millisecond}
	slow := outcome.Answer{Class: outcome.Success, Took: 5 * time.Second}
	busy := outcome.Answer{Class: outcome.Success, Took: time.Millisecond, Header: http.Header{
		"Endpoint-Load-Metrics": {"TEXT application_utilization=0.99,rps_fractional=1"},
	}}
	idle := outcome.Answer{Class: outcome.Success, Took: time.Millisecond, Header: http.Header{
		"Endpoint-Load-Metrics": {"TEXT application_utilization=0.01,rps_fractional=100"},
	}}
	for _, row := range []struct {
		a         Algorithm
		bad, good outcome.Answer
		most      int // picks of the bad one in 20
	}{
		{PeakEWMA{}, slow, idle, 0},
		{PeakEWMA{}, fails, idle, 0},
		{LeastRequest{}, fails, idle, 0},
		{LoadWeighted{Blackout: -1}, busy, idle, 3}, // a tenth of the other's weight
		{Rendezvous{Keys: userKey, Fallback: PeakEWMA{}}, slow, idle, 0},
	} {
		t.Run(fmt.Sprintf("%T_%v", row.a, row.bad.Class), func(t *testing.T) {
			rules := Rules{SlowStart: SlowStart{Window: -1}, Panic: Panic{Threshold: -1}}
			p, fake := fakePool(t, Config{Algorithm: row.a, Rules: rules}, addresses("bad", "good")...)
			for range 4 {
				pick := mustPick(t, p, Info{Now: p.now()})
				other := mustPick(t, p, Info{Now: p.now(), Tried: []uint64{pick.Serial()}})
				for _, pick := range []Pick{pick, other} {
					answer := row.good
					if pick.Endpoint().Address == "bad:80" {
						answer = row.bad
					}
					answer.Now = p.now()
					pick.Answered(answer)
					pick.Done()
				}
			}
			fake.Advance(time.Second - time.Millisecond) // reports are turned into weights each second
			fake.Advance(time.Millisecond)
			var held []Pick
			for len(held) < 6 {
				held = append(held, mustPick(t, p, Info{Now: p.now()}))
			}
			before, loads := observersOf(p), loadsOf(p)
			require.Len(t, before, 2)
			check := func(what string) {
				t.Helper()
				for address, observer := range before {
					require.Same(t, observer, observersOf(p)[address], "%s: %s", what, address)
					require.Equal(t, loads[address], loadsOf(p)[address], "%s: %s", what, address)
				}
				bad := 0
				for range 20 {
					pick := mustPick(t, p, Info{Now: p.now()})
					if pick.Endpoint().Address == "bad:80" {
						bad++
					}
					pick.Answered(outcome.Answer{Now: p.now(), Class: outcome.Canceled})
					pick.Done()
				}
				require.LessOrEqual(t, bad, row.most, what)
			}
			for _, pick := range held { // they would make the good one look busy
				finishCanceled(p, pick)
			}
			loads = loadsOf(p)
			check("as it is")
			for k := range 20 {
				changed := addresses("good", "bad")
				for i := range changed {
					changed[i].Zone, changed[i].Attributes = fmt.Sprint(k), map[string]string{"k": fmt.Sprint(k)}
				}
				p.update(changed)
				check("other attributes")
				judge(t, p, false, changed...)
				judge(t, p, true, changed...)
				check("a flap")
				draining := slices.Clone(changed)
				draining[1].Draining = true
				p.update(draining)
				p.update(changed)
				check("draining, and not after all")
				p.update(append(slices.Clone(changed), addresses(fmt.Sprint("new-", k))...))
				p.update(changed)
				check("another came and went")
			}
			require.NoError(t, p.Use(row.a, Rules{SlowStart: SlowStart{Window: -1}, MaxInFlight: 100}))
			before = observersOf(p)
			check("other rules")
		})
	}
}

func finishCanceled(p *Pool, pick Pick) {
	pick.Answered(outcome.Answer{Now: p.now(), Class: outcome.Canceled})
	pick.Done()
}

// observersOf returns what the algorithm keeps, by address.
func observersOf(p *Pool) map[string]any {
	observers := map[string]any{}
	for _, m := range p.members {
		observers[m.node.Endpoint().Address] = m.observer
	}
	return observers
}

func loadsOf(p *Pool) map[string]int64 {
	loads := map[string]int64{}
	for _, e := range p.Status().Endpoints {
		loads[e.Endpoint.Address] = e.InFlight
	}
	return loads
}

// Given nine warm endpoints and one that nobody knows, then by default the new one
// gets more than nothing and at most twice the mean: within the first thousand requests
// and in the thousands after that. The same when it comes back.
func TestPeakEWMA_ColdEndpoint_B03(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		for _, concurrency := range []int{1, 4, 20} {
			t.Run(fmt.Sprintf("%v_%d", latency, concurrency), func(t *testing.T) {
				t.Parallel()
				p, fake := fakePool(t, Config{}, in(0, 9)...)
				random := rand.New(rand.NewPCG(4, 4))
				load := func() int {
					got := 0
					inParallel(t, p, fake, concurrency, 1000, func(_ int, pick Pick) time.Duration {
						if pick.Endpoint().Address == "p0-9:80" {
							got++
						}
						return latency/2 + time.Duration(random.Int64N(int64(latency)))
					})
					return got
				}
				load()
				p.update(in(0, 10))
				held, first := make([]Pick, 100), 0 // nothing is answered yet
				for i := range held {
					held[i] = mustPick(t, p, Info{Now: p.now()})
					if held[i].Endpoint().Address == "p0-9:80" {
						first++
					}
				}
				assert.Equal(t, 1, first, "until it has answered, it gets one")
				for _, pick := range held {
					finish(p, pick)
				}
				for range 3 {
					got := load()
					assert.Positive(t, got)
					assert.LessOrEqual(t, got, 200)
				}
				judge(t, p, false, in(0, 10)[9])
				assert.Zero(t, load())
				judge(t, p, true, in(0, 10)[9])
				got := load()
				assert.Positive(t, got)
				assert.LessOrEqual(t, got, 200)
			})
		}
	}
}

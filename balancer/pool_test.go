package balancer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

func addresses(addrs ...string) []discovery.Endpoint {
	endpoints := make([]discovery.Endpoint, len(addrs))
	for i, a := range addrs {
		endpoints[i] = discovery.Endpoint{Address: a + ":80"}
	}
	return endpoints
}

func mustPick(t testing.TB, p *Pool, info Info) Pick {
	t.Helper()
	pick, err := p.Pick(info)
	require.NoError(t, err)
	return pick
}

// picked returns how often each address is picked in many picks.
func picked(t *testing.T, p *Pool, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		pick := mustPick(t, p, Info{})
		got[pick.Endpoint().Address]++
		pick.Done()
	}
	return got
}

// allAlgorithms are those that follow every rule.
var allAlgorithms = []Algorithm{RoundRobin{}, Random{}, LeastRequest{}, PeakEWMA{}}

func TestPool_TriedIsAvoidedWithCertainty_R17(t *testing.T) {
	for _, a := range churned {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p := testPool(t, Config{Algorithm: a}, addresses("a", "b", "c")...)
			for range 1000 {
				first := mustPick(t, p, Info{})
				assert.True(t, p.Others(first, Info{}))
				second := mustPick(t, p, Info{Tried: []uint64{first.Serial()}})
				third := mustPick(t, p, Info{Tried: []uint64{first.Serial(), second.Serial()}})
				assert.False(t, p.Others(third, Info{Tried: []uint64{first.Serial(), second.Serial()}}))
				all := map[string]bool{first.Endpoint().Address: true, second.Endpoint().Address: true, third.Endpoint().Address: true}
				require.Len(t, all, 3)
				again := mustPick(t, p, Info{Tried: []uint64{first.Serial(), second.Serial(), third.Serial()}})
				for _, pick := range []Pick{first, second, third, again} {
					pick.Done()
				}
			}
		})
	}
}

func TestPool_PriorityTiers_D07(t *testing.T) {
	endpoints := addresses("a", "b", "c")
	endpoints[2].Priority = 20
	endpoints[0].Priority, endpoints[1].Priority = 10, 10
	p := testPool(t, Config{Algorithm: RoundRobin{}}, endpoints...)
	assert.Equal(t, map[string]int{"a:80": 50, "b:80": 50}, picked(t, p, 100))

	a := mustPick(t, p, Info{})
	b := mustPick(t, p, Info{Tried: []uint64{a.Serial()}})
	next := mustPick(t, p, Info{Tried: []uint64{a.Serial(), b.Serial()}})
	assert.Equal(t, "c:80", next.Endpoint().Address, "the next tier, when the first has nothing left for this call")
}

func TestPool_StandbyOnlyWhenNothingElseIsLeft_B07(t *testing.T) {
	endpoints := addresses("a", "b")
	endpoints[0].Standby = true
	endpoints[1].Priority = 7
	p := testPool(t, Config{Algorithm: Random{}}, endpoints...)
	assert.Equal(t, map[string]int{"b:80": 100}, picked(t, p, 100))
	p.update(endpoints[:1])
	assert.Equal(t, map[string]int{"a:80": 10}, picked(t, p, 10))
}

func TestPool_DrainingGetsNothingNew_B12(t *testing.T) {
	endpoints := addresses("a", "b")
	p := testPool(t, Config{Algorithm: RoundRobin{}}, endpoints...)
	endpoints = addresses("a", "b")
	endpoints[0].Draining = true
	p.update(endpoints)
	assert.Equal(t, map[string]int{"b:80": 10}, picked(t, p, 10))
	assert.Equal(t, "draining", p.Status().Endpoints[0].Unavailable)

	endpoints = addresses("a", "b")
	endpoints[1].Draining = true
	p.update(endpoints)
	assert.Equal(t, map[string]int{"a:80": 10}, picked(t, p, 10), "draining can end")

	endpoints = slices.Clone(endpoints)
	endpoints[0].Draining = true
	p.update(endpoints)
	_, err := p.Pick(Info{})
	assert.ErrorIs(t, err, ErrNoEndpoints)
	assert.ErrorContains(t, err, "draining")
}

func TestPool_StateBelongsToTheIdentity_B14(t *testing.T) {
	p := testPool(t, Config{}, discovery.Endpoint{ID: "pod-1", Address: "a:80"})
	old := mustPick(t, p, Info{})

	// The same endpoint with other attributes keeps its state.
	p.update([]discovery.Endpoint{{ID: "pod-1", Address: "a:80", Weight: 3, Zone: "z"}})
	same := mustPick(t, p, Info{})
	assert.Equal(t, old.Serial(), same.Serial())
	assert.Equal(t, "z", same.Endpoint().Zone)
	assert.Equal(t, int64(2), p.Status().Endpoints[0].InFlight)
	same.Done()

	// Another pod at the same address starts with nothing, connections included.
	p.update([]discovery.Endpoint{{ID: "pod-2", Address: "a:80"}})
	fresh := mustPick(t, p, Info{})
	assert.NotEqual(t, old.Serial(), fresh.Serial())
	assert.NotSame(t, old.Transport(), fresh.Transport())
	assert.Equal(t, int64(1), p.Status().Endpoints[0].InFlight)
	assert.Equal(t, 1, p.Status().Draining)
	old.Done()
	assert.Equal(t, 0, p.Status().Draining)
	fresh.Done()

	// And one that returns is not the one that left.
	p.update([]discovery.Endpoint{{ID: "pod-1", Address: "a:80"}})
	assert.NotEqual(t, old.Serial(), mustPick(t, p, Info{}).Serial())
}

// closable counts what its owner does to it.
type closable struct {
	http.RoundTripper
	idle atomic.Int32
}

func (c *closable) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}
func (c *closable) CloseIdleConnections() { c.idle.Add(1) }

func TestPool_RemovedEndpointIsClosedAtItsLastEnd_B12(t *testing.T) {
	fake := clock.NewFake(epoch)
	made := map[string]*closable{}
	p := testPool(t, Config{
		Clock: fake,
		EndpointTransport: func(e discovery.Endpoint) http.RoundTripper {
			made[e.Address] = &closable{}
			return made[e.Address]
		},
	}, addresses("a")...)
	var held []Pick
	for range 5 {
		pick := mustPick(t, p, Info{})
		_, err := pick.Transport().RoundTrip(&http.Request{})
		require.NoError(t, err)
		held = append(held, pick)
	}
	p.update(addresses("b"))
	assert.Equal(t, map[string]int{"b:80": 10}, picked(t, p, 10))
	for i, pick := range held {
		assert.Zero(t, made["a:80"].idle.Load(), "%d still in flight", 5-i)
		pick.Done()
	}
	assert.Positive(t, made["a:80"].idle.Load())
	p.Close()
	assert.Zero(t, fake.Pending(), "no timer is left")
}

func TestPool_DrainHasALimit_B12(t *testing.T) {
	fake := clock.NewFake(epoch)
	transport := &closable{}
	p := testPool(t, Config{
		Clock: fake, DrainTimeout: 30 * time.Second,
		EndpointTransport: func(discovery.Endpoint) http.RoundTripper { return transport },
	}, addresses("a")...)
	pick := mustPick(t, p, Info{})
	_, _ = pick.Transport().RoundTrip(&http.Request{})
	p.update(addresses("b"))
	fake.Advance(30*time.Second - 1)
	assert.Zero(t, transport.idle.Load())
	fake.Advance(1)
	assert.Positive(t, transport.idle.Load())
	pick.Done()
}

func TestPool_IdleTransportIsDropped(t *testing.T) {
	fake := clock.NewFake(epoch)
	made := 0
	transport := &closable{}
	p := testPool(t, Config{Clock: fake, EndpointTransport: func(discovery.Endpoint) http.RoundTripper {
		made++
		return transport
	}}, addresses("a")...)
	use := func() {
		pick := mustPick(t, p, Info{})
		_, _ = pick.Transport().RoundTrip(&http.Request{})
		pick.Done()
	}
	use()
	fake.Advance(sweepInterval)
	assert.Zero(t, transport.idle.Load(), "it was used since the sweep before")
	fake.Advance(sweepInterval)
	assert.Positive(t, transport.idle.Load())
	use()
	assert.Equal(t, 2, made)
}

// Ten thousand random changes of the endpoints, with picks and their ends in
// between: no absent endpoint is picked, no count goes below zero, and all are
// zero in the end.
func TestPool_ChurnKeepsCounts_B01(t *testing.T) {
	const seed = 42
	t.Logf("seed %d", seed)
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			p := testPool(t, Config{Algorithm: a, Rand: rand.NewPCG(seed, 1), DrainTimeout: -1})
			present := map[discovery.Key]bool{}
			var open []Pick
			for i := range 10000 {
				if i%3 == 0 {
					present = churn(p, random)
				}
				if len(present) > 0 {
					pick := mustPick(t, p, Info{Now: epoch.Add(time.Duration(i) * time.Millisecond)})
					require.True(t, present[pick.Endpoint().Key()], "picked %v, which is not there", pick.Endpoint())
					open = append(open, pick)
				}
				for len(open) > 0 && random.IntN(2) == 0 {
					k := random.IntN(len(open))
					open[k].Answered(outcome.Answer{Now: epoch.Add(time.Duration(i) * time.Millisecond), Class: outcome.Class(random.IntN(8) + 1)})
					open[k].Done()
					open[k] = open[len(open)-1]
					open = open[:len(open)-1]
				}
				inFlight := int64(0)
				for _, e := range p.Status().Endpoints {
					require.GreaterOrEqual(t, e.InFlight, int64(0))
					inFlight += e.InFlight
				}
				require.LessOrEqual(t, inFlight, int64(len(open)))
			}
			for _, pick := range open {
				pick.Answered(outcome.Answer{Now: epoch, Class: outcome.Canceled})
				pick.Done()
			}
			for _, e := range p.Status().Endpoints {
				assert.Zero(t, e.InFlight, "%v", e.Endpoint)
			}
			assert.Zero(t, p.Status().Draining)
			assert.Empty(t, p.draining)
		})
	}
}

// churn gives the pool a random set out of eight endpoints.
func churn(p *Pool, random *rand.Rand) map[discovery.Key]bool {
	present := map[discovery.Key]bool{}
	var set []discovery.Endpoint
	for i := range 8 {
		if random.IntN(3) == 0 {
			continue
		}
		e := discovery.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i), Weight: float64(random.IntN(4))}
		set = append(set, e)
		present[e.Key()] = true
	}
	p.update(set)
	return present
}

func TestPool_ConcurrentPicksAndUpdates_B01(t *testing.T) {
	p := testPool(t, Config{DrainTimeout: -1}, addresses("a", "b")...)
	sets := [][]discovery.Endpoint{addresses("a", "b"), addresses("b", "c"), addresses("a", "c", "d")}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				pick, err := p.Pick(Info{Now: time.Now()})
				if !assert.NoError(t, err) {
					return
				}
				pick.Answered(outcome.Answer{Now: time.Now(), Class: outcome.Success})
				pick.Done()
			}
		})
	}
	for i := range 500 {
		p.update(sets[i%len(sets)])
	}
	wg.Wait()
	for _, e := range p.Status().Endpoints {
		assert.Zero(t, e.InFlight)
	}
	assert.Empty(t, p.draining)
}

func TestPool_UseKeepsWhatIsKnown_P01(t *testing.T) {
	p := testPool(t, Config{Algorithm: PeakEWMA{}}, addresses("a", "b")...)
	for range 2 { // both become known, b as slow
		pick := mustPick(t, p, Info{Now: epoch})
		took := time.Millisecond
		if pick.Endpoint().Address == "b:80" {
			took = time.Second
		}
		pick.Answered(outcome.Answer{Now: p.clock.Now(), Took: took, Class: outcome.Success})
		pick.Done()
	}
	held := mustPick(t, p, Info{Now: p.clock.Now()})

	require.NoError(t, p.Use(PeakEWMA{Choices: 2, Decay: time.Minute}, Rules{}))
	for range 10 {
		pick := mustPick(t, p, Info{Now: p.clock.Now()})
		assert.Equal(t, "a:80", pick.Endpoint().Address, "b is still known to be slow")
		pick.Done()
	}
	held.Answered(outcome.Answer{Now: p.clock.Now(), Class: outcome.Success}) // told to the old state
	held.Done()

	assert.Error(t, p.Use(PeakEWMA{Choices: 99}, Rules{}))
	require.NoError(t, p.Use(RoundRobin{}, Rules{}))
	assert.Equal(t, map[string]int{"a:80": 5, "b:80": 5}, picked(t, p, 10))
}

func TestPool_ColdStartWaitsForTheFirstSet_B16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tell := make(chan []discovery.Endpoint)
		p := testPool(t, Config{Resolver: resolverFunc(func(ctx context.Context, sink discovery.Sink) error {
			select {
			case set := <-tell:
				sink.Update(set, nil)
			case <-ctx.Done():
			}
			<-ctx.Done()
			return ctx.Err()
		})})
		time.AfterFunc(5*time.Second, func() { tell <- addresses("a") })
		begin := time.Now()
		pick, err := p.PickWait(t.Context(), Info{})
		require.NoError(t, err)
		assert.Equal(t, 5*time.Second, time.Since(begin))
		pick.Done()
		require.NoError(t, p.Ready(t.Context()))
	})
}

type resolverFunc func(context.Context, discovery.Sink) error

func (f resolverFunc) Watch(ctx context.Context, s discovery.Sink) error { return f(ctx, s) }

func TestPool_WaitEndsWithTheCallerAndNamesTheCause_B16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Resolver: resolverFunc(func(ctx context.Context, sink discovery.Sink) error {
			sink.Fail(fmt.Errorf("the name server is on fire"))
			<-ctx.Done()
			return ctx.Err()
		})})
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := p.PickWait(ctx, Info{})
		assert.Equal(t, 200*time.Millisecond, time.Since(begin))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ErrNoEndpoints)
		assert.ErrorContains(t, err, "on fire")
		assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
		assert.ErrorIs(t, p.Ready(ctx), context.DeadlineExceeded)
	})
}

func TestPool_WaitIsBoundedWithoutADeadline_B16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Resolver: silent{}})
		begin := time.Now()
		_, err := p.PickWait(t.Context(), Info{})
		assert.ErrorIs(t, err, ErrNoEndpoints)
		assert.Equal(t, firstWait, time.Since(begin))
	})
}

func TestPool_CloseReleasesThoseWhoWait_T18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Resolver: silent{}})
		time.AfterFunc(time.Second, p.Close)
		_, err := p.PickWait(t.Context(), Info{})
		require.ErrorIs(t, err, ErrClosed)
		assert.ErrorIs(t, p.Ready(t.Context()), ErrClosed)
		assert.ErrorIs(t, p.Use(RoundRobin{}, Rules{}), ErrClosed)
		p.Close()
	})
}

func TestPool_EmptyAnswerIsNamed(t *testing.T) {
	p := testPool(t, Config{})
	p.update(nil)
	_, err := p.Pick(Info{})
	assert.ErrorContains(t, err, "says that there are none")
}

func TestPool_TellsChanges(t *testing.T) {
	var changes []Change
	p := testPool(t, Config{OnChange: func(c Change) { changes = append(changes, c) }}, addresses("a", "b")...)
	p.update(addresses("b", "c"))
	require.Len(t, changes, 2)
	assert.Equal(t, Change{Added: addresses("a", "b"), Size: 2, Available: 2}, changes[0])
	assert.Equal(t, Change{Added: addresses("c"), Removed: addresses("a"), Size: 2, Available: 2}, changes[1])
}

func TestConfig_AllProblemsAtOnce(t *testing.T) {
	_, err := NewPool(Config{
		Resolver:          discovery.Static{"", "a:80", "a:80"},
		Algorithm:         LeastRequest{Choices: 50},
		Template:          &http.Transport{DialTLSContext: (&http.Transport{}).DialTLSContext, DialContext: nil},
		EndpointTransport: func(discovery.Endpoint) http.RoundTripper { return nil },
	})
	var problem *field.Error
	require.ErrorAs(t, err, &problem)
	for _, name := range []string{"Resolver", "Algorithm.Choices", "EndpointTransport"} {
		assert.ErrorContains(t, err, name)
	}
	_, err = NewPool(Config{})
	assert.ErrorContains(t, err, "Resolver")
}

// A pick that finds nothing, and the first set right after it: the wait must not
// be mistaken for over.
func TestPool_FirstCallersDoNotMissTheFirstSet_B16(t *testing.T) {
	for range 300 {
		p, err := NewPool(Config{Resolver: discovery.Static{"a:80"}})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				pick, err := p.PickWait(t.Context(), Info{})
				if assert.NoError(t, err) {
					pick.Done()
				}
			})
		}
		wg.Wait()
		p.Close()
	}
}

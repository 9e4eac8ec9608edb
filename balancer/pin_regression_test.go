package balancer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// A session at the only endpoint of its route, which drains, stays there.
func TestPin_DrainingAloneOnItsRoute(t *testing.T) {
	for _, fallback := range []RouteFallback{FallbackAny, FallbackDefault, FallbackFail} {
		endpoints, route := versions("canary", "stable")
		route.Fallback, route.Default = fallback, "stable"
		p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{route}}}, endpoints...)
		info := asksFor("canary")
		info.Now, info.Pin = p.now(), &Pin{ID: "canary:80"}
		require.Equal(t, "canary:80", where(t, p, info))
		drains := append([]discovery.Endpoint(nil), endpoints...)
		drains[0].Draining = true
		p.update(drains)
		pick, err := p.Pick(info)
		if assert.NoError(t, err, "%v", fallback) {
			assert.Equal(t, "canary:80", pick.Endpoint().Address, "%v", fallback)
		}
	}
}

// An endpoint that is away for a moment, alone on its route, keeps its sessions.
func TestPin_AwayAloneOnItsRoute(t *testing.T) {
	for _, r := range []string{"withdrawn", "parked", "pending"} {
		for _, fallback := range []RouteFallback{FallbackAny, FallbackDefault, FallbackFail} {
			endpoints, route := versions("canary", "stable")
			route.Fallback, route.Default = fallback, "stable"
			p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{route}}}, endpoints...)
			info := asksFor("canary")
			info.Now, info.Pin = p.now(), &Pin{ID: "canary:80"}
			m := p.byKey[endpoints[0].Key()]
			switch r {
			case "withdrawn":
				m.node.Mark(1 << 4)
			case "parked":
				m.node.Mark(1 << 9)
			case "pending":
				m.node.Mark(1 << 5)
			}
			pick, err := p.Pick(info)
			if assert.NoError(t, err, "%v", fallback) {
				assert.Equal(t, "canary:80", pick.Endpoint().Address, "%v %v %v", fallback, r, m.node.Reasons())
			}
		}
	}
}

// Of two endpoints with one identity, one is ill and one is full: a strict session waits.
func TestPin_OneIdentityIllAndFull(t *testing.T) {
	all := []discovery.Endpoint{{ID: "x", Address: "a:80"}, {ID: "x", Address: "b:80"}, {ID: "y", Address: "c:80"}}
	for i := range 2 {
		p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Panic: Panic{Threshold: -1}}}, all...)
		judge(t, p, false, all[i])
		mustPick(t, p, pinnedTo(p, "x", true))
		_, err := p.Pick(pinnedTo(p, "x", true))
		assert.ErrorIs(t, err, ErrSaturated, "ill: %d", i)
	}
}

// The first attempt with a pin comes while others wait.
func TestPin_FirstPinBehindOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := addresses("a", "b")
		all[1].Draining = true
		p := testPool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Minute}}}, all...)
		l := newLine(t, p)
		mustPick(t, p, Info{Now: time.Now()})
		l.join(t.Context(), "waits", Info{Now: time.Now()})
		l.none()
		l.join(t.Context(), "pinned", pinnedTo(p, "b:80", true))
		r := l.served()
		require.Len(t, r, 1)
		assert.NoError(t, r[0].err)
	})
}

// Given pinned requests at all endpoints, more than new ones, then no endpoint is left without new ones, whatever
// their number.
func TestPin_NobodyStarves(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin{}, Random{}} {
		for _, n := range []int{2, 33, 66} {
			var endpoints []discovery.Endpoint
			for i := range n {
				endpoints = append(endpoints, discovery.Endpoint{Address: fmt.Sprintf("10.0.0.%d:80", i+1)})
			}
			p, _ := fakePool(t, Config{Algorithm: a, Rand: rand.NewPCG(1, uint64(n))}, endpoints...)
			got := map[string]int{}
			for range 40 * n {
				for i := range endpoints {
					for range 2 {
						where(t, p, Info{Now: p.now(), Pin: &Pin{ID: endpoints[i].Address}})
					}
				}
				got[where(t, p, Info{Now: p.now()})]++
			}
			for _, e := range endpoints {
				assert.InDelta(t, 40, got[e.Address], 25, "%T, %d endpoints: %s", a, n, e.Address)
			}
		}
	}
}

// Given one endpoint with a hundred times as many requests of sessions, however many these are, then it gets clearly
// fewer new ones than its share.
func TestPin_ManySessionsFewNewOnes(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin{}, Random{}} {
		for _, each := range []int{1, 10} {
			p, _ := fakePool(t, Config{Algorithm: a, Rand: rand.NewPCG(1, 2)},
				discovery.Endpoint{Address: "a:80"}, discovery.Endpoint{Address: "b:80"}, discovery.Endpoint{Address: "c:80"})
			got := map[string]int{}
			for range 600 {
				for range 100 * each {
					where(t, p, Info{Now: p.now(), Pin: &Pin{ID: "a:80"}})
				}
				for range each {
					where(t, p, Info{Now: p.now(), Pin: &Pin{ID: "b:80"}})
					where(t, p, Info{Now: p.now(), Pin: &Pin{ID: "c:80"}})
				}
				got[where(t, p, Info{Now: p.now()})]++
			}
			assert.Less(t, got["a:80"], 20, "%T", a)
			assert.InDelta(t, got["b:80"], got["c:80"], 60, "%T", a)
		}
	}
}

// Given endpoints that come at the very end of the wait for them, then whoever waited goes on.
func TestPool_AwaitFirst_InTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPool(Config{Resolver: waits{}})
		require.NoError(t, err)
		defer p.Close()
		require.ErrorIs(t, p.awaitFirst(t.Context()), ErrNoEndpoints)
		p.snapshot.Store(&snapshot{main: &cluster{}}) // published, and not ready yet
		assert.NoError(t, p.awaitFirst(t.Context()))
	})
}

// waits is a resolver that says nothing.
type waits struct{}

// Watch implements [discovery.Resolver].
func (waits) Watch(ctx context.Context, _ discovery.Sink) error {
	<-ctx.Done()
	return ctx.Err()
}

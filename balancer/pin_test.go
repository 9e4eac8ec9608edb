package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// pinnedTo is what attempts of a session say.
func pinnedTo(p *Pool, id string, strict bool) Info {
	return Info{Now: p.now(), Pin: &Pin{ID: id, Strict: strict}}
}

// where returns the address that a pick goes to.
func where(t testing.TB, p *Pool, info Info) string {
	t.Helper()
	pick := mustPick(t, p, info)
	defer finish(p, pick)
	return pick.Endpoint().Address
}

// assertPinned asserts that attempts stay where they belong, with others between them.
func assertPinned(t testing.TB, p *Pool, id, address string) {
	t.Helper()
	for i := range 10 {
		require.Equal(t, address, where(t, p, pinnedTo(p, id, i%2 == 0)))
		require.NotEmpty(t, where(t, p, Info{Now: p.now()}))
	}
}

// Given an endpoint that others would not get, then its sessions do, whatever the algorithm; and
// it gets no other traffic while there are endpoints that are preferred.
func TestPin_IsHonoured_S05(t *testing.T) {
	others := addresses("b", "c", "d", "e")
	for _, row := range []struct {
		name     string
		rules    Rules
		endpoint discovery.Endpoint
		reasons  node.Reasons
		sessions bool // it gets nothing else
	}{
		{name: "like the others"},
		{name: "of the second priority", endpoint: discovery.Endpoint{Priority: 1}, sessions: true},
		{name: "standby", endpoint: discovery.Endpoint{Standby: true}, sessions: true},
		{name: "in another zone", rules: Rules{Zones: Zones{Local: "here", Tolerance: -1}}, endpoint: discovery.Endpoint{Zone: "there"}},
		{name: "draining", endpoint: discovery.Endpoint{Draining: true}, sessions: true},
		{name: "draining, the last of its priority", endpoint: discovery.Endpoint{Draining: true, Priority: 2}, sessions: true},
		{name: "withdrawn", reasons: node.Withdrawn, sessions: true},
		{name: "pending", reasons: node.Pending, sessions: true},
		{name: "parked", reasons: node.Parked, sessions: true},
		{name: "all at once", endpoint: discovery.Endpoint{Draining: true, Standby: true}, reasons: node.Parked | node.Withdrawn, sessions: true},
	} {
		for _, a := range churned {
			t.Run(fmt.Sprintf("%s/%T", row.name, a), func(t *testing.T) {
				row.endpoint.Address = "a:80"
				all := append([]discovery.Endpoint{row.endpoint}, others...)
				for i := range all[1:] {
					all[i+1].Zone = "here"
				}
				p := marked(t, Config{Algorithm: a, Rules: row.rules}, all, row.reasons, 0)
				assertPinned(t, p, "a:80", "a:80")
				if row.sessions {
					assert.Zero(t, attempts(t, p, 100)["a:80"], "without a pin")
				}
			})
		}
	}
}

func TestPin_OutsideOfTheSubset(t *testing.T) {
	for _, a := range allAlgorithms {
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Subset: Subset{Size: 3, Seed: "x"}}}, in(0, 30)...)
		for i := range 30 {
			address := fmt.Sprintf("p0-%d:80", i)
			assertPinned(t, p, address, address)
		}
		assert.Len(t, attempts(t, p, 300), 3, "%T: others stay within it", a)
	}
}

// Given an endpoint that cannot serve, then a pin does not make anybody go there: a soft one is
// as none, and the error of a strict one says why.
func TestPin_IsNotHonoured_S01(t *testing.T) {
	for _, row := range []struct {
		reasons node.Reasons
		says    string
	}{
		{node.Marked, "marked unhealthy"},
		{node.Unhealthy, "unhealthy"},
		{node.Ejected, "ejected"},
		{node.Open, "open"},
		{node.ForcedOpen, "forced open"},
		{node.Draining | node.Unhealthy, "unhealthy"},
		{node.Ejected | node.Open | node.Parked, "ejected,open"},
		{node.Removed, "removed"},
	} {
		for _, a := range churned {
			t.Run(fmt.Sprintf("%v/%T", row.reasons, a), func(t *testing.T) {
				p := marked(t, Config{Algorithm: a}, addresses("a", "b", "c", "d", "e"), row.reasons&^node.Removed, 0)
				if row.reasons == node.Removed {
					p.update(addresses("b", "c", "d", "e"))
				}
				for range 10 {
					assert.NotEqual(t, "a:80", where(t, p, pinnedTo(p, "a:80", false)))
				}
				_, err := p.Pick(pinnedTo(p, "a:80", true))
				assert.ErrorIs(t, err, ErrPinned)
				assert.ErrorIs(t, err, ErrNoEndpoints)
				assert.ErrorContains(t, err, ErrPinned.Error()+": "+row.says)
				assert.NotContains(t, err.Error(), "a:80", "callers may see it")
				assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
				info := pinnedTo(p, "a:80", false)
				assert.Equal(t, row.says, p.missed(&info))

				if row.reasons == node.Removed {
					p.update(addresses("a", "b", "c", "d", "e"))
				} else {
					p.byKey[discovery.Key{ID: "a:80", Address: "a:80"}].node.Clear(row.reasons)
				}
				assertPinned(t, p, "a:80", "a:80")
			})
		}
	}
}

// Given panic, then opinions about health keep nobody from where he belongs; what nothing overrules
// does.
func TestPin_InPanic_B09(t *testing.T) {
	for _, a := range churned {
		p := marked(t, Config{Algorithm: a}, addresses("a", "b", "c", "d"), node.Ejected|node.Open, node.Unhealthy|node.Parked, node.Marked|node.ForcedOpen, 0)
		require.True(t, p.Status().Panic)
		assertPinned(t, p, "a:80", "a:80")
		assertPinned(t, p, "b:80", "b:80")
		assert.NotEqual(t, "c:80", where(t, p, pinnedTo(p, "c:80", false)), "%T", a)
		_, err := p.Pick(pinnedTo(p, "c:80", true))
		assert.ErrorIs(t, err, ErrPinned, "%T", a)

		p.update(append(addresses("a", "b", "c", "d"), in(1, 8)...)) // they can carry it all
		assert.NotEqual(t, "a:80", where(t, p, pinnedTo(p, "a:80", false)), "%T: no panic any more", a)
	}
}

// Given breakers, then a pin passes one that is closed or tries, and no other; the error of a strict
// one says that, and when it is tried again.
func TestPin_Breakers_S01(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			g, fake := still(t, Config{Algorithm: a}, breaker.Config{}, addresses("a", "b", "c")...)
			check := func(address string, reason outcome.Reason) {
				t.Helper()
				assert.Equal(t, address == "a:80", where(t, g.Pool, pinnedTo(g.Pool, "a:80", false)) == "a:80")
				if reason == "" {
					return
				}
				_, err := g.Pick(pinnedTo(g.Pool, "a:80", true))
				assert.ErrorIs(t, err, ErrPinned)
				assert.ErrorIs(t, err, breaker.ErrOpen)
				assert.Equal(t, reason, outcome.ReasonOf(err))
			}
			check("a:80", "")
			g.fail(t, "a:80")
			check("", outcome.Open)
			fake.Advance(5 * time.Second)
			probe := mustPick(t, g.Pool, pinnedTo(g.Pool, "a:80", false))
			require.Equal(t, "a:80", probe.Endpoint().Address, "the session tries it")
			check("", outcome.Open)
			finish(g.Pool, probe)
			check("a:80", "")
			require.NoError(t, g.at(t, "a:80").SetMode(breaker.ForcedOpen))
			check("", outcome.Open)
		})
	}
}

// Given routes, then a pin off the request's route is not honoured.
func TestPin_Routes(t *testing.T) {
	for _, fallback := range []RouteFallback{FallbackAny, FallbackDefault, FallbackFail} {
		for _, a := range churned {
			endpoints, route := versions("canary", "stable", "old")
			route.Fallback, route.Default = fallback, "stable"
			p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Routes: []Route{route}}}, endpoints...)
			for _, asked := range []string{"canary", "stable", "old"} {
				for _, pinned := range []string{"canary:80", "stable:80", "old:80"} {
					info := asksFor(asked)
					info.Now, info.Pin = p.now(), &Pin{ID: pinned}
					assert.Equal(t, asked+":80", where(t, p, info), "%T, %v: pinned to %s", a, fallback, pinned)
					info.Pin = &Pin{ID: pinned, Strict: true}
					_, err := p.Pick(info)
					if pinned == asked+":80" {
						assert.NoError(t, err)
						continue
					}
					assert.ErrorIs(t, err, ErrPinned)
					assert.ErrorContains(t, err, "not on the request's route")
					assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
				}
			}
		}
	}
}

// Given MaxInFlight, then a soft pin goes elsewhere while its endpoint has no room.
func TestPin_Full(t *testing.T) {
	for _, a := range churned {
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{MaxInFlight: 2}}, addresses("a", "b")...)
		first, second := mustPick(t, p, pinnedTo(p, "a:80", false)), mustPick(t, p, pinnedTo(p, "a:80", true))
		for range 4 {
			assert.Equal(t, "b:80", where(t, p, pinnedTo(p, "a:80", false)), "%T", a)
			_, err := p.Pick(pinnedTo(p, "a:80", true))
			assert.ErrorIs(t, err, ErrSaturated, "%T", a)
			info := pinnedTo(p, "a:80", false)
			assert.Equal(t, "saturated", p.missed(&info))
		}
		finish(p, first)
		assertPinned(t, p, "a:80", "a:80")
		finish(p, second)
		assert.Zero(t, inFlight(p), "%T", a)
	}
}

// Given attempts that have failed, then a soft pin goes elsewhere with certainty, and a strict one
// stays.
func TestPin_Tried_R17(t *testing.T) {
	for _, a := range churned {
		p, _ := fakePool(t, Config{Algorithm: a}, addresses("a", "b", "c")...)
		info := pinnedTo(p, "a:80", false)
		pick := mustPick(t, p, info)
		finish(p, pick)
		info.Tried = []uint64{pick.Serial()}
		for range 100 {
			require.NotEqual(t, "a:80", where(t, p, info), "%T", a)
		}
		assert.Equal(t, "attempt failed", p.missed(&info))
		for _, m := range p.members[1:] {
			info.Tried = append(info.Tried, m.node.Serial())
		}
		require.NotEmpty(t, where(t, p, info), "%T: it starts over", a)
		info.Pin = &Pin{ID: "a:80", Strict: true}
		require.Equal(t, "a:80", where(t, p, info), "%T", a)
	}
}

// Given DrainFor, then sessions leave exactly so long after draining has begun, the last time.
func TestPin_DrainFor_S05(t *testing.T) {
	const limit = time.Minute
	withdraw := func(p *Pool, leaving bool) {
		m := p.byKey[discovery.Key{ID: "a:80", Address: "a:80"}]
		if leaving {
			m.node.Mark(node.Withdrawn)
		} else {
			m.node.Clear(node.Withdrawn)
		}
	}
	drain := func(p *Pool, leaving bool) {
		all := addresses("a", "b", "c")
		all[0].Draining = leaving
		p.update(all)
	}
	for name, leave := range map[string]func(*Pool, bool){"draining": drain, "withdrawn": withdraw} {
		t.Run(name, func(t *testing.T) {
			p, fake := fakePool(t, Config{Algorithm: RoundRobin{}}, addresses("a", "b", "c")...)
			info := func(strict bool) Info {
				return Info{Now: p.now(), Pin: &Pin{ID: "a:80", Strict: strict, DrainFor: limit}}
			}
			stays := func(stays bool) {
				t.Helper()
				require.Equal(t, stays, where(t, p, info(false)) == "a:80")
				_, err := p.Pick(info(true))
				if stays {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, ErrPinned)
				require.ErrorContains(t, err, "drained")
				missed := info(false)
				require.Equal(t, "drained", p.missed(&missed))
			}
			fake.Advance(time.Hour)
			stays(true)
			for _, pause := range []time.Duration{0, time.Nanosecond, limit} {
				leave(p, true)
				fake.Advance(limit - time.Nanosecond)
				p.update(slices.Clone(p.endpoints)) // an update says nothing new
				p.byKey[discovery.Key{ID: "a:80", Address: "a:80"}].node.Mark(node.Parked)
				stays(true)
				fake.Advance(time.Nanosecond)
				stays(false)
				require.Equal(t, "a:80", where(t, p, pinnedTo(p, "a:80", true)), "without a limit")
				fake.Advance(time.Hour)
				stays(false)
				leave(p, false)
				fake.Advance(pause)
				stays(true)
			}
		})
	}
}

// Given an identity at two addresses, then either will do, and both while one cannot serve.
func TestPin_OneIdentityTwice(t *testing.T) {
	all := []discovery.Endpoint{{ID: "x", Address: "a:80"}, {ID: "x", Address: "b:80"}, {ID: "y", Address: "c:80"}}
	for _, a := range churned {
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Panic: Panic{Threshold: -1}}}, all...)
		for range 10 {
			assert.NotEqual(t, "c:80", where(t, p, pinnedTo(p, "x", true)), "%T", a)
		}
		for i, other := range []string{"b:80", "a:80"} {
			judge(t, p, false, all[i])
			assertPinned(t, p, "x", other)
			judge(t, p, true, all[i])
			p.update(slices.Delete(slices.Clone(all), i, i+1))
			assertPinned(t, p, "x", other)
			p.update(all)
		}
		judge(t, p, false, all[:2]...)
		assert.Equal(t, "c:80", where(t, p, pinnedTo(p, "x", false)), "%T", a)
		_, err := p.Pick(pinnedTo(p, "x", true))
		assert.ErrorIs(t, err, ErrPinned, "%T", a)
		assert.Equal(t, "c:80", where(t, p, pinnedTo(p, "y", true)), "%T", a)
	}
}

// Given a thousand changes, then each pin goes where its endpoint is, and nowhere if that has gone.
func TestPin_Updates_S06(t *testing.T) {
	for seed := range uint64(4) {
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		p, _ := fakePool(t, Config{Algorithm: churned[seed]}, in(0, 1)...)
		present := map[string]discovery.Endpoint{}
		for i := range 1000 {
			id := fmt.Sprint("e", random.IntN(20))
			if _, ok := present[id]; ok && random.IntN(2) == 0 {
				delete(present, id)
			} else {
				present[id] = discovery.Endpoint{
					ID: id, Address: fmt.Sprintf("a%d:80", random.IntN(40)), Weight: float64(1 + random.IntN(3)), Priority: random.IntN(2),
					Draining: random.IntN(4) == 0, Standby: random.IntN(4) == 0,
				}
			}
			all := in(0, 1)
			for _, e := range present { // in any order
				all = append(all, e)
			}
			if i%100 == 50 {
				require.NoError(t, p.Use(churned[random.IntN(len(churned))], Rules{}))
			}
			p.update(all)
			for k := range 20 {
				id := fmt.Sprint("e", k)
				if e, ok := present[id]; ok {
					require.Equal(t, e.Address, where(t, p, pinnedTo(p, id, true)), "change %d", i)
					continue
				}
				_, err := p.Pick(pinnedTo(p, id, true))
				require.ErrorIs(t, err, ErrPinned, "change %d", i)
				require.NotEmpty(t, where(t, p, pinnedTo(p, id, false)))
			}
		}
	}
}

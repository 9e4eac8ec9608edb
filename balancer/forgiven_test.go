package balancer

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// forgivable are the reasons that are none where nobody is available otherwise.
var forgivable = []node.Reasons{node.Withdrawn, node.Pending, node.Withdrawn | node.Pending}

// marked returns a pool whose endpoints have these reasons, each its own, the rest the last one.
func marked(t testing.TB, cfg Config, endpoints []discovery.Endpoint, reasons ...node.Reasons) *Pool {
	t.Helper()
	cfg.Rules.SlowStart.Window = -1
	p, _ := fakePool(t, cfg, endpoints...)
	for i, m := range p.members {
		if r := reasons[min(i, len(reasons)-1)]; r != 0 {
			m.node.Mark(r)
		}
	}
	return p
}

// Given endpoints that are about to leave, or await their first probe, all of them, then calls go
// there as if nothing were the matter, whatever Panic says; as soon as another one is there, to that.
func TestForgiven_WhereNobodyElseIs_H03_B09(t *testing.T) {
	ring := RingHash{Keys: byUser()}
	for name, panics := range map[string]Panic{"default": {}, "reject": {Reject: true}, "off": {Threshold: -1}, "always": {Threshold: 1}} {
		for _, reason := range forgivable {
			for _, a := range append([]Algorithm{ring, Rendezvous{Keys: byUser()}}, allAlgorithms...) {
				t.Run(fmt.Sprintf("%s/%v/%T", name, reason, a), func(t *testing.T) {
					p := marked(t, Config{Algorithm: a, Rules: Rules{Panic: panics}}, addresses("a", "b", "c", "d"), reason)
					assert.Len(t, byKey(t, p, 200), 4)
					assert.False(t, p.Status().Panic, "that they leave, or are new, is no reason for panic")

					if name != "reject" && name != "always" { // those say how many must be well
						p.members[2].node.Clear(reason)
						assert.Equal(t, map[string]int{"c:80": 200}, byKey(t, p, 200))
						p.members[2].node.Mark(reason)
					}
					for priority := range 2 {
						p.update(append(addresses("a", "b", "c", "d"), in(priority, 4)...))
						got := byKey(t, p, 200)
						assert.Len(t, got, 4)
						assert.Zero(t, got["a:80"]+got["b:80"]+got["c:80"]+got["d:80"], "others are available")
					}
				})
			}
		}
	}
}

// byKey returns how often each address is picked in attempts that differ in their key.
func byKey(t testing.TB, p *Pool, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for user := range n {
		one, err := ask(p, 1, "X-User", fmt.Sprint(user))
		require.NoError(t, err)
		for address := range one {
			got[address]++
		}
	}
	return got
}

// Given reasons of all kinds, then only those that are forgiven are, and only if they are the only
// ones of an endpoint.
func TestForgiven_WhoIsPicked_H03_B09(t *testing.T) {
	const out, gone = node.Withdrawn, node.Draining
	for _, row := range []struct {
		name    string
		panics  Panic
		reasons []node.Reasons // of a, b, c and d
		want    []string       // none is an error
	}{
		{"one leaves", Panic{}, []node.Reasons{out, 0}, []string{"b", "c", "d"}},
		{"all but one leave", Panic{}, []node.Reasons{out, out, out, 0}, []string{"d"}},
		{"all but one are new", Panic{}, []node.Reasons{0, node.Pending}, []string{"a"}},
		{"all but one are new, and reject", Panic{Reject: true}, []node.Reasons{0, node.Pending}, []string{"a"}},
		{"some leave, the others are new", Panic{}, []node.Reasons{out, out, node.Pending}, []string{"a", "b", "c", "d"}},
		{"all leave, and one is gone", Panic{}, []node.Reasons{gone, out}, []string{"b", "c", "d"}},
		{"all are gone", Panic{}, []node.Reasons{gone | out}, nil},
		{"all are gone but one, which leaves", Panic{Threshold: -1}, []node.Reasons{out, gone}, []string{"a"}},
		{"somebody has forced the breaker open", Panic{}, []node.Reasons{out | node.ForcedOpen, out}, []string{"b", "c", "d"}},
		{"half leave, half are ill", Panic{}, []node.Reasons{out, out, node.Unhealthy}, []string{"a", "b"}},
		{"half leave, half are ill, and reject", Panic{Reject: true}, []node.Reasons{out, out, node.Unhealthy}, []string{"a", "b"}},
		{"one leaves, the others are ill: panic", Panic{}, []node.Reasons{out, node.Unhealthy}, []string{"a", "b", "c", "d"}},
		{"one leaves, the others are ill, and no panic", Panic{Threshold: -1}, []node.Reasons{out, node.Unhealthy}, []string{"a"}},
		{"one leaves, the others are ill, and reject", Panic{Reject: true}, []node.Reasons{out, node.Unhealthy}, nil},
		{"what leaves is ill, too", Panic{Threshold: -1}, []node.Reasons{out | node.Unhealthy, out}, []string{"b", "c", "d"}},
		{"what leaves is ejected, all of it, and no panic", Panic{Threshold: -1}, []node.Reasons{out | node.Ejected}, nil},
		{"what leaves is ejected, all of it", Panic{}, []node.Reasons{out | node.Ejected}, []string{"a", "b", "c", "d"}},
		{"what leaves is parked, half of it", Panic{}, []node.Reasons{out | node.Parked, out | node.Parked, out}, []string{"c", "d"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := marked(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: row.panics}}, addresses("a", "b", "c", "d"), row.reasons...)
			if row.want == nil {
				_, err := p.Pick(Info{})
				assert.ErrorIs(t, err, ErrNoEndpoints)
				return
			}
			assert.Equal(t, evenly(120, row.want...), attempts(t, p, 120))
		})
	}
}

// Given weights, priorities, standbys, zones and subsets, when everybody is about to leave or new,
// then the traffic is divided exactly as it is when nobody is.
func TestForgiven_DividedAsUsual_H03_B09(t *testing.T) {
	weighted := addresses("a", "b", "c")
	for i := range weighted {
		weighted[i].Weight = float64(i + 1)
	}
	standby := addresses("a", "b", "c", "d")
	standby[0].Standby, standby[3].Standby = true, true
	small := inZones(1, 4, 4)
	small[0].Weight = 2
	for name, row := range map[string]struct {
		endpoints []discovery.Endpoint
		rules     Rules
		used      int
	}{
		"weights":                  {weighted, Rules{}, 3},
		"priorities":               {append(in(1, 3), in(0, 2)...), Rules{}, 2},
		"standbys":                 {standby, Rules{}, 2},
		"standbys only":            {standby[3:], Rules{}, 1},
		"equal zones":              {inZones(4, 4), Rules{Zones: Zones{Local: "a"}}, 4},
		"the local zone is small":  {small, Rules{Zones: Zones{Local: "a"}}, 9},
		"the local zone is large":  {inZones(7, 1, 1), Rules{Zones: Zones{Local: "a"}}, 7},
		"another zone is ours":     {inZones(4, 4), Rules{Zones: Zones{Local: "elsewhere"}}, 8},
		"too few for zones":        {inZones(2, 2), Rules{Zones: Zones{Local: "a"}}, 4},
		"zones, and reject":        {inZones(4, 4), Rules{Zones: Zones{Local: "b"}, Panic: Panic{Reject: true}}, 4},
		"zones, and no panic":      {inZones(4, 4), Rules{Zones: Zones{Local: "b"}, Panic: Panic{Threshold: -1}}, 4},
		"zones of two priorities":  {append(inZones(4, 4), in(1, 3)...), Rules{Zones: Zones{Local: "a"}}, 4},
		"a subset":                 {in(0, 20), Rules{Subset: Subset{Size: 5, Seed: "me"}}, 5},
		"zones of a subset":        {inZones(10, 10), Rules{Zones: Zones{Local: "a"}, Subset: Subset{Size: 6, Seed: "me"}}, 6},
		"a limit on what is under": {inZones(4, 4), Rules{Zones: Zones{Local: "a"}, MaxInFlight: 10}, 4},
	} {
		for _, a := range allAlgorithms {
			t.Run(fmt.Sprintf("%s/%T", name, a), func(t *testing.T) {
				cfg := Config{Algorithm: a, Rules: row.rules}
				want := attempts(t, marked(t, cfg, row.endpoints, 0), 600)
				require.Len(t, want, row.used)
				for _, reasons := range append(forgivable, 0) {
					all := []node.Reasons{reasons}
					if reasons == 0 {
						all = []node.Reasons{node.Withdrawn, node.Pending} // one leaves, the rest are new
					}
					p := marked(t, cfg, row.endpoints, all...)
					got := attempts(t, p, 600)
					assert.Len(t, got, len(want), "%v", all)
					for address, n := range want {
						assert.InDelta(t, n, got[address], 5*24, "%v, %s", all, address)
					}
					assert.Equal(t, weightsOf(marked(t, cfg, row.endpoints, 0)), weightsOf(p), "%v", all)
				}
			})
		}
	}
}

// Given a zone that is ill beside one that leaves, then the traffic goes to the one that leaves; and
// where nobody can serve, the error says so.
func TestForgiven_ZonesBesideOtherReasons_B09(t *testing.T) {
	for _, row := range []struct {
		name   string
		panics Panic
		local  node.Reasons // of those in zone a
		other  node.Reasons
		want   string // the zone, empty for an error
	}{
		{"the local zone is ill", Panic{}, node.Unhealthy, node.Withdrawn, "b"},
		{"the other zone is ill", Panic{}, node.Withdrawn, node.Unhealthy, "a"},
		{"the local zone leaves", Panic{}, node.Withdrawn, 0, "b"},
		{"the other zone leaves", Panic{}, 0, node.Withdrawn, "a"},
		{"the other zone is new", Panic{}, 0, node.Pending, "a"},
		{"the local zone leaves, the other is gone", Panic{}, node.Withdrawn, node.Draining, "a"},
		{"all are ill, and no panic", Panic{Threshold: -1}, node.Unhealthy, node.Ejected, ""},
		{"all are ill and leave, and no panic", Panic{Threshold: -1}, node.Unhealthy | node.Withdrawn, node.Ejected | node.Pending, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, o := row.local, row.other
			p := marked(t, Config{Rules: Rules{Panic: row.panics, Zones: Zones{Local: "a"}}}, inZones(4, 4), l, l, l, l, o)
			if row.want == "" {
				_, err := p.Pick(Info{})
				assert.ErrorIs(t, err, ErrNoEndpoints)
				assert.ErrorContains(t, err, "all of them are draining or unhealthy")
				return
			}
			got := attempts(t, p, 200)
			assert.Len(t, got, 4)
			for address := range got {
				assert.Equal(t, row.want, address[:1])
			}
		})
	}
}

// Given priorities, then one in which all leave is skipped as long as another one serves.
func TestForgiven_PrioritiesBesideOthers_B09(t *testing.T) {
	for _, row := range []struct {
		name          string
		first, second node.Reasons
		want          int // the priority that is used
	}{
		{"the first leaves", node.Withdrawn, 0, 1},
		{"the first is new", node.Pending, 0, 1},
		{"the second is new", 0, node.Pending, 0},
		{"the second leaves", 0, node.Withdrawn, 0},
		{"both leave", node.Withdrawn, node.Withdrawn, 0},
		{"the first leaves, the second is new", node.Withdrawn, node.Pending, 0},
		{"the first leaves, the second is ill", node.Withdrawn, node.Unhealthy, 0},
		{"the first is ill, the second leaves", node.Unhealthy, node.Withdrawn, 1},
	} {
		for _, standby := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", row.name, standby), func(t *testing.T) {
				endpoints := append(in(0, 3), in(1, 3)...)
				for i := range endpoints[3:] {
					endpoints[3+i].Standby = standby
				}
				p := marked(t, Config{Algorithm: RoundRobin{}}, endpoints, row.first, row.first, row.first, row.second)
				want := map[string]int{}
				for _, e := range in(row.want, 3) {
					want[e.Address] = 40
				}
				assert.Equal(t, want, attempts(t, p, 120))
			})
		}
	}
}

// Given a route, then endpoints that leave or are new are no reason to stay there where the route has
// a fallback that is well; where it has none, they serve.
func TestForgiven_RoutesFallBack_H03_B09(t *testing.T) {
	fleet := versioned(map[string]int{"canary": 2, "stable": 2})
	canary, stable := []string{"canary-0", "canary-1"}, []string{"stable-0", "stable-1"}
	all := append(append([]string{}, canary...), stable...)
	for _, reason := range forgivable {
		for _, row := range []struct {
			name           string
			fallback       RouteFallback
			canary, stable node.Reasons
			want           []string // of those who ask for canary
		}{
			{"any", FallbackAny, reason, 0, stable},
			{"default", FallbackDefault, reason, 0, stable},
			{"none", FallbackFail, reason, 0, canary},
			{"any, and the others are the same", FallbackAny, reason, reason, all},
			{"default, and it is the same", FallbackDefault, reason, reason, stable},
			{"none, and the others are the same", FallbackFail, reason, reason, canary},
			{"any, and the others are ill", FallbackAny, reason, node.Unhealthy, canary},
			{"well, any", FallbackAny, 0, reason, canary},
			{"well, default", FallbackDefault, 0, reason, canary},
		} {
			t.Run(fmt.Sprintf("%v/%s", reason, row.name), func(t *testing.T) {
				route := with(byVersion, func(r *Route) { r.Fallback, r.Default = row.fallback, "stable" })
				p := marked(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{route}}}, fleet, row.canary, row.canary, row.stable)
				got, err := ask(p, 120, "X-Version", "canary")
				require.NoError(t, err)
				assert.Equal(t, evenly(120, row.want...), got)

				for _, m := range p.members[:2] { // a probe was good
					m.node.Clear(row.canary)
				}
				got, err = ask(p, 120, "X-Version", "canary")
				require.NoError(t, err)
				assert.Equal(t, evenly(120, canary...), got)
			})
		}
	}
}

// Given a route whose endpoints are all new or about to leave, and others that cannot serve at all,
// then its own do, whatever the fallback.
func TestForgiven_RoutesWithoutAnythingElse_H03_B09(t *testing.T) {
	fleet := versioned(map[string]int{"canary": 2, "stable": 1})
	for _, reason := range forgivable {
		for _, fallback := range []RouteFallback{FallbackAny, FallbackDefault, FallbackFail} {
			for _, away := range []node.Reasons{node.Draining, node.Unhealthy} {
				for _, reject := range []bool{false, true} {
					t.Run(fmt.Sprint(reason, fallback, away, reject), func(t *testing.T) {
						route := with(byVersion, func(r *Route) { r.Fallback, r.Default = fallback, "stable" })
						rules := Rules{Routes: []Route{route}, Panic: Panic{Reject: reject}}
						p := marked(t, Config{Algorithm: RoundRobin{}, Rules: rules}, fleet, reason, reason, away)
						got, err := ask(p, 60, "X-Version", "canary")
						require.NoError(t, err)
						assert.Equal(t, evenly(60, "canary-0", "canary-1"), got)
					})
				}
			}
		}
	}
}

// Given a route of which one endpoint is left, then the calls go there and not to the one that leaves,
// nor to those of other routes.
func TestForgiven_RouteWithOneLeft_B09(t *testing.T) {
	fleet := versioned(map[string]int{"canary": 2, "stable": 2})
	for _, reason := range forgivable {
		p := marked(t, Config{Rules: Rules{Routes: []Route{byVersion}}}, fleet, reason, 0)
		got, err := ask(p, 50, "X-Version", "canary")
		require.NoError(t, err)
		assert.Equal(t, evenly(50, "canary-1"), got)
	}
}

// Given a new canary that is held back until its first probe, then the calls that ask for it go to
// the others until then, and its own from the probe on.
func TestForgiven_NewCanaryIsHeld_H03(t *testing.T) {
	d := &doctor{}
	p, fake := fakePool(t, Config{Health: d, Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion}, SlowStart: SlowStart{Window: -1}}},
		versioned(map[string]int{"stable": 2})...)
	d.at = func(n *node.Node) { n.Set(node.Pending, node.Pending) }
	p.update(versioned(map[string]int{"stable": 2, "canary": 1}))
	req := &http.Request{Header: http.Header{"X-Version": {"canary"}}}
	for range 5 {
		got, err := askFor(p, 20, req)
		require.NoError(t, err)
		assert.Equal(t, evenly(20, "stable-0", "stable-1"), got)
		fake.Advance(time.Second)
	}
	d.patients["canary-0:80"][0].node.Clear(node.Pending)
	got, err := askFor(p, 20, req)
	require.NoError(t, err)
	assert.Equal(t, evenly(20, "canary-0"), got)
}

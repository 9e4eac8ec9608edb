package balancer

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// versioned returns endpoints, so many of each version: "canary-0:80".
func versioned(counts map[string]int) (endpoints []discovery.Endpoint) {
	for _, version := range []string{"canary", "stable", "old", ""} {
		for i := range counts[version] {
			e := discovery.Endpoint{Address: fmt.Sprintf("%s-%d:80", version, i)}
			if version == "" {
				e.Address = fmt.Sprintf("plain-%d:80", i)
			} else {
				e.Attributes = map[string]string{"version": version, "other": "x"}
			}
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}

var byVersion = Route{Attribute: "version", From: []HashKey{{Header: "X-Version"}, {Query: "v"}}}

func with(r Route, change func(*Route)) Route {
	change(&r)
	return r
}

// ask sends attempts with some headers, and returns how many each address gets, or
// the error of the last.
func ask(p *Pool, n int, headers ...string) (map[string]int, error) {
	req := &http.Request{Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return askFor(p, n, req)
}

func askFor(p *Pool, n int, req *http.Request) (map[string]int, error) {
	got := map[string]int{}
	for range n {
		pick, err := p.Pick(Info{Now: p.now(), Request: req})
		if err != nil {
			return nil, err
		}
		got[pick.Endpoint().Address]++
		finish(p, pick)
	}
	return got, nil
}

// evenly is what the attempts of endpoints look like that have equal shares.
func evenly(n int, endpoints ...string) map[string]int {
	want := map[string]int{}
	for _, e := range endpoints {
		want[e+":80"] = n / len(endpoints)
	}
	return want
}

func TestRoute_Canary(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion}}},
		versioned(map[string]int{"canary": 1, "stable": 3})...)
	all := []string{"canary-0", "stable-0", "stable-1", "stable-2"}
	for _, row := range []struct {
		name    string
		request *http.Request
		want    []string
	}{
		{"by header", &http.Request{Header: http.Header{"X-Version": {"canary"}}}, all[:1]},
		{"by header, others", &http.Request{Header: http.Header{"X-Version": {"stable"}}}, all[1:]},
		{"by query", request(t, "http://x/?v=canary"), all[:1]},
		{"no value", request(t, "http://x/"), all},
		{"an empty value", request(t, "http://x/?v="), all},
		{"a value that nobody has", request(t, "http://x/?v=unheard-of"), all},
		{"case matters", request(t, "http://x/?v=Canary"), all},
		{"not by another attribute", request(t, "http://x/?v=x"), all},
		{"no request", nil, all},
		{"an empty request", &http.Request{}, all},
	} {
		got, err := askFor(p, 12, row.request)
		require.NoError(t, err, row.name)
		assert.Equal(t, evenly(12, row.want...), got, row.name)
	}
}

func request(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return req
}

func TestRoute_FallbackAndDefault(t *testing.T) {
	stable := func(r *Route) { r.Default = "stable" }
	fallback := func(f RouteFallback, value string) func(*Route) {
		return func(r *Route) { r.Fallback, r.Default = f, value }
	}
	const none = `balancer: no endpoints: none has what the request asks for in the attribute "version"`
	all := []string{"canary-0", "stable-0", "plain-0"}
	for _, row := range []struct {
		name  string
		route Route
		value string // in the header
		want  []string
		err   string
	}{
		{"any", byVersion, "old", all, ""},
		{"any, no value", byVersion, "", all, ""},
		{"any, with default", with(byVersion, stable), "old", all, ""},
		{"default for those without a value", with(byVersion, stable), "", []string{"stable-0"}, ""},
		{"a default that nobody has", with(byVersion, func(r *Route) { r.Default = "old" }), "", all, ""},
		{"fallback to default", with(byVersion, fallback(FallbackDefault, "stable")), "old", []string{"stable-0"}, ""},
		{"fallback to default, value is there", with(byVersion, fallback(FallbackDefault, "stable")), "canary", []string{"canary-0"}, ""},
		{"fallback to a default that nobody has", with(byVersion, fallback(FallbackDefault, "old")), "new", nil, none},
		{"fail", with(byVersion, fallback(FallbackFail, "")), "old", nil, none},
		{"fail, value is there", with(byVersion, fallback(FallbackFail, "")), "stable", []string{"stable-0"}, ""},
		{"fail, no value", with(byVersion, fallback(FallbackFail, "")), "", all, ""},
		{"fail, default", with(byVersion, fallback(FallbackFail, "stable")), "", []string{"stable-0"}, ""},
		{"fail, a default that nobody has", with(byVersion, fallback(FallbackFail, "old")), "", nil, none},
	} {
		p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{row.route}}},
			versioned(map[string]int{"canary": 1, "stable": 1, "": 1})...)
		var headers []string
		if row.value != "" {
			headers = []string{"X-Version", row.value}
		}
		got, err := ask(p, 12, headers...)
		if row.err == "" {
			require.NoError(t, err, row.name)
			assert.Equal(t, evenly(12, row.want...), got, row.name)
			continue
		}
		require.EqualError(t, err, row.err, row.name)
		assert.ErrorIs(t, err, ErrNoEndpoints, row.name)
		assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err), row.name)
		assert.False(t, p.Others(Pick{}, Info{Request: &http.Request{Header: http.Header{"X-Version": {row.value}}}}), row.name)
	}
}

// The first route that applies counts, and the others do not.
func TestRoute_InOrder(t *testing.T) {
	endpoints := []discovery.Endpoint{
		{Address: "a:80", Attributes: map[string]string{"version": "1", "shard": "x"}},
		{Address: "b:80", Attributes: map[string]string{"version": "2", "shard": "x"}},
		{Address: "c:80", Attributes: map[string]string{"version": "2", "shard": "y"}},
	}
	shard := Route{Attribute: "shard", From: []HashKey{{Header: "X-Shard"}}, Fallback: FallbackFail}
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion, shard}}}, endpoints...)
	for _, row := range []struct {
		headers []string
		want    []string
	}{
		{[]string{"X-Version", "2"}, []string{"b", "c"}},
		{[]string{"X-Shard", "x"}, []string{"a", "b"}},
		{[]string{"X-Version", "1", "X-Shard", "y"}, []string{"a"}},
		{[]string{"X-Version", "unheard-of", "X-Shard", "y"}, []string{"a", "b", "c"}},
		{nil, []string{"a", "b", "c"}},
	} {
		got, err := ask(p, 12, row.headers...)
		require.NoError(t, err)
		assert.Equal(t, evenly(12, row.want...), got, "%v", row.headers)
	}
	_, err := ask(p, 1, "X-Shard", "z")
	assert.ErrorContains(t, err, `in the attribute "shard"`)

	// Two routes by the same attribute, from different places.
	fromCookie := Route{Attribute: "version", From: []HashKey{{Cookie: "v"}}, Fallback: FallbackFail}
	require.NoError(t, p.Use(RoundRobin{}, Rules{Routes: []Route{byVersion, fromCookie}}))
	got, err := ask(p, 12, "Cookie", "v=2")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "b", "c"), got)
	_, err = ask(p, 1, "Cookie", "v=3")
	assert.ErrorIs(t, err, ErrNoEndpoints)
	require.NoError(t, p.Use(RoundRobin{}, Rules{}))
	got, err = ask(p, 12, "X-Version", "1")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "a", "b", "c"), got, "no route any more")
}

// A value whose endpoints are all ill is as good as none, unless the request is to
// fail rather than go elsewhere: then its endpoints have panic of their own. Neither
// is panic of the pool.
func TestRoute_PanicInside_B09(t *testing.T) {
	endpoints := versioned(map[string]int{"canary": 2, "stable": 8})
	var last Change
	p, _ := fakePool(t, Config{
		Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion}, SlowStart: SlowStart{Window: -1}},
		OnChange: func(c Change) { last = c },
	}, endpoints...)
	judge(t, p, false, endpoints[0])
	got, err := ask(p, 12, "X-Version", "canary")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "canary-1"), got)
	judge(t, p, false, endpoints[1])
	got, err = ask(p, 8*9, "X-Version", "canary")
	require.NoError(t, err)
	assert.Len(t, got, 8, "all that are healthy")
	assert.False(t, last.Panic)

	strict := with(byVersion, func(r *Route) { r.Fallback = FallbackFail })
	require.NoError(t, p.Use(RoundRobin{}, Rules{Routes: []Route{strict}}))
	got, err = ask(p, 12, "X-Version", "canary")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "canary-0", "canary-1"), got)
	assert.False(t, p.Status().Panic)
	got, err = ask(p, 8*9)
	require.NoError(t, err)
	assert.Len(t, got, 8, "the others are not in panic")

	for _, row := range []struct {
		panic Panic
		cause string
	}{
		{Panic{Reject: true}, "too few of them are healthy"},
		{Panic{Threshold: -1}, "all of them are draining or unhealthy"},
	} {
		require.NoError(t, p.Use(RoundRobin{}, Rules{Routes: []Route{strict}, Panic: row.panic}))
		_, err = ask(p, 1, "X-Version", "canary")
		require.ErrorIs(t, err, ErrNoEndpoints)
		got, err = ask(p, 16, "X-Version", "stable")
		require.NoError(t, err)
		assert.Len(t, got, 8)
	}
}

// Priorities hold inside of a value.
func TestRoute_Priorities_D07(t *testing.T) {
	endpoints := versioned(map[string]int{"canary": 2, "stable": 2})
	endpoints[1].Priority, endpoints[3].Priority = 1, 1
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion}}}, endpoints...)
	got, err := ask(p, 12, "X-Version", "canary")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "canary-0"), got)
	judge(t, p, false, endpoints[0])
	got, err = ask(p, 12, "X-Version", "canary")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "canary-1"), got)
}

// Retries stay inside of the route.
func TestRoute_RetriesStayInside_R17(t *testing.T) {
	for _, a := range allAlgorithms {
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{Routes: []Route{byVersion}}},
			versioned(map[string]int{"canary": 2, "stable": 8})...)
		info := Info{Now: p.now(), Request: &http.Request{Header: http.Header{"X-Version": {"canary"}}}}
		first := mustPick(t, p, info)
		assert.True(t, p.Others(first, info), "%T", a)
		info.Tried = []uint64{first.Serial()}
		second := mustPick(t, p, info)
		assert.NotEqual(t, first.Serial(), second.Serial(), "%T", a)
		assert.False(t, p.Others(second, info), "%T", a)
		info.Tried = append(info.Tried, second.Serial())
		third := mustPick(t, p, info)
		for _, pick := range []Pick{first, second, third} {
			assert.Contains(t, []string{"canary-0:80", "canary-1:80"}, pick.Endpoint().Address, "%T", a)
			finish(p, pick)
		}
	}
}

// Endpoints that change what they are, leave, or are about to, change who gets what
// at once.
func TestRoute_FollowsDiscovery_D15(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{
		Routes: []Route{with(byVersion, func(r *Route) { r.Fallback = FallbackFail })}, SlowStart: SlowStart{Window: -1},
	}}, versioned(map[string]int{"canary": 1, "stable": 2})...)
	expect := func(endpoints []discovery.Endpoint, want ...string) {
		t.Helper()
		p.update(endpoints)
		got, err := ask(p, 12, "X-Version", "canary")
		if len(want) == 0 {
			assert.ErrorIs(t, err, ErrNoEndpoints)
			return
		}
		require.NoError(t, err)
		assert.Equal(t, evenly(12, want...), got)
	}
	promoted := versioned(map[string]int{"canary": 1, "stable": 2})
	promoted[2].Attributes = map[string]string{"version": "canary"}
	expect(promoted, "canary-0", "stable-1")
	serial := mustPick(t, p, Info{}).Serial()
	assert.NotZero(t, serial)
	demoted := versioned(map[string]int{"canary": 1, "stable": 2})
	demoted[0].Attributes = nil
	expect(demoted)
	expect(versioned(map[string]int{"canary": 2, "stable": 2}), "canary-0", "canary-1")
	draining := versioned(map[string]int{"canary": 2, "stable": 2})
	draining[0].Draining = true
	expect(draining, "canary-1")
	expect(draining[2:])
	expect(versioned(map[string]int{"canary": 1}), "canary-0")
	expect(nil)
}

// An endpoint that is leaving has no value: what happens then is the fallback.
func TestRoute_DrainingIsNoValue_B12(t *testing.T) {
	endpoints := versioned(map[string]int{"canary": 1, "stable": 2})
	endpoints[0].Draining = true
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{byVersion}}}, endpoints...)
	got, err := ask(p, 12, "X-Version", "canary")
	require.NoError(t, err)
	assert.Equal(t, evenly(12, "stable-0", "stable-1"), got)
}

// Given an empty attribute, then it is no value that could be asked for.
func TestRoute_EmptyAttribute(t *testing.T) {
	p, _ := fakePool(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Routes: []Route{with(byVersion, func(r *Route) { r.Fallback = FallbackFail })}}},
		discovery.Endpoint{Address: "a:80", Attributes: map[string]string{"version": ""}}, discovery.Endpoint{Address: "b:80"})
	_, err := ask(p, 1, "X-Version", "x")
	assert.ErrorIs(t, err, ErrNoEndpoints)
	got, err := ask(p, 12)
	require.NoError(t, err)
	assert.Len(t, got, 2)
}

func TestRouteFallback_String(t *testing.T) {
	for f, want := range map[RouteFallback]string{
		FallbackAny: "any", FallbackDefault: "default", FallbackFail: "fail", 9: "RouteFallback(9)", -1: "RouteFallback(-1)",
	} {
		assert.Equal(t, want, f.String())
	}
}

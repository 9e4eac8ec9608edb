package balancer

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// twoRoutes are an endpoint of each of two routes, by a header, with no way from the one to
// the other.
func twoRoutes() (stable, canary discovery.Endpoint, rules Rules) {
	stable = discovery.Endpoint{Address: "stable:80", Attributes: map[string]string{"version": "stable"}}
	canary = discovery.Endpoint{Address: "canary:80", Attributes: map[string]string{"version": "canary"}}
	rules = Rules{Panic: Panic{Threshold: -1}, Routes: []Route{{
		Attribute: "version", From: []HashKey{{Header: "X-Version"}}, Fallback: FallbackFail,
	}}}
	return stable, canary, rules
}

func versionRequest(version string) *http.Request {
	return &http.Request{Header: http.Header{"X-Version": {version}}}
}

// The error of a request whose route has nothing but an unhealthy endpoint named an open
// breaker of another route.
func TestGate_ErrorOfTheOwnRoute_K15(t *testing.T) {
	stable, canary, rules := twoRoutes()
	g, fake := still(t, Config{Algorithm: RoundRobin{}, Rules: rules}, breaker.Config{}, stable, canary)
	refusedFor := func(version string) error {
		t.Helper()
		_, err := g.Pick(Info{Now: g.now(), Request: versionRequest(version)})
		require.ErrorIs(t, err, ErrNoEndpoints)
		return err
	}
	judge(t, g.Pool, false, canary)
	g.fail(t, "stable:80")
	err := refusedFor("canary")
	assert.NotErrorIs(t, err, breaker.ErrOpen)
	assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
	err = refusedFor("stable")
	var open *breaker.OpenError
	require.ErrorAs(t, err, &open)
	assert.Equal(t, "stable:80", open.Name)
	assert.Equal(t, outcome.Open, outcome.ReasonOf(err), "and not that there are no endpoints")

	fake.Advance(time.Second)
	judge(t, g.Pool, true, canary)
	require.NoError(t, g.at(t, "canary:80").SetMode(breaker.ForcedOpen))
	err = refusedFor("canary")
	require.ErrorAs(t, err, &open)
	assert.Equal(t, "canary:80", open.Name, "although the other is tried sooner")
}

// Given that all endpoints of a route are forced open, then the error says so: it said that
// no endpoint has what the request asks for.
func TestGate_ErrorOfARouteForcedOpen_B09_K15(t *testing.T) {
	stable, canary, rules := twoRoutes()
	g, _ := still(t, Config{Algorithm: RoundRobin{}, Rules: rules}, breaker.Config{}, stable, canary)
	require.NoError(t, g.at(t, "stable:80").SetMode(breaker.ForcedOpen))
	_, err := g.Pick(Info{Now: g.now(), Request: versionRequest("stable")})
	var open *breaker.OpenError
	require.ErrorAs(t, err, &open)
	assert.Equal(t, "stable:80", open.Name)
	assert.Equal(t, outcome.Open, outcome.ReasonOf(err))
	require.NotErrorIs(t, err, errNoRoute)
	pick := mustPick(t, g.Pool, Info{Now: g.now(), Request: versionRequest("canary")})
	assert.Equal(t, "canary:80", pick.Endpoint().Address)
	finish(g.Pool, pick)
	_, err = g.Pick(Info{Now: g.now(), Request: versionRequest("none")})
	require.ErrorIs(t, err, errNoRoute)
	assert.NotErrorIs(t, err, breaker.ErrOpen)
}

// Refusals waited for each other, and for whoever changes the pool, exactly when everything
// was down.
func TestGate_RefusalsNeedNoLock_K15(t *testing.T) {
	g, _ := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, addresses("a", "b", "c")...)
	for _, address := range []string{"a:80", "b:80", "c:80"} {
		g.fail(t, address)
	}
	got := make(chan error, 1)
	g.mu.Lock()
	go func() {
		_, err := g.Pick(Info{Now: epoch})
		got <- err
	}()
	select {
	case err := <-got:
		g.mu.Unlock()
		require.ErrorIs(t, err, breaker.ErrOpen)
	case <-time.After(10 * time.Second):
		g.mu.Unlock()
		require.Fail(t, "it waits for the pool's lock")
	}
}

// A callback that panics in a pick out of the queue left the pick in flight for ever, and
// the place of the probe taken.
func TestGate_CallbackPanicsInTheQueue_B01_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := false
		g := newGuarded(t, Config{
			Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}},
			OnChange: func(Change) {
				if boom {
					boom = false
					panic("ordered")
				}
			},
		}, breaker.Config{}, addresses("a")...)
		g.fail(t, "a:80")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		g.queue.waiting.Add(1) // somebody is about to wait, so that all go through the queue
		boom = true
		assert.PanicsWithValue(t, "ordered", func() { _, _ = g.PickWait(t.Context(), Info{Now: g.now()}) })
		require.False(t, boom)
		assert.Zero(t, inFlight(g.Pool))
		assert.Zero(t, g.queue.inFlight.Load())
		pick, err := g.PickWait(t.Context(), Info{Now: g.now()})
		require.NoError(t, err, "the place of the probe is free")
		finish(g.Pool, pick)
		assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
		g.queue.waiting.Add(-1)
	})
}

// The function that a route asks may panic after an attempt has failed, when it is asked once
// more, for whether there is another endpoint. Then nothing stays in flight, and no place of a
// probe is lost.
func TestGate_UserCodePanicsAfterAnAttempt_B01_K16(t *testing.T) {
	calls := -1 // is asked without harm
	stable, _, rules := twoRoutes()
	rules.MaxInFlight, rules.Routes[0].From = 5, []HashKey{{Func: func(*http.Request) string {
		if calls--; calls == 0 {
			panic("ordered")
		}
		return "stable"
	}}}
	g, fake := still(t, Config{
		Algorithm: RoundRobin{}, Rules: rules,
		EndpointTransport: func(discovery.Endpoint) http.RoundTripper { return broken{} },
	}, breaker.Config{}, stable)
	g.fail(t, "stable:80")
	fake.Advance(5 * time.Second)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/", http.NoBody)
	require.NoError(t, err)
	calls = 2
	assert.PanicsWithValue(t, "ordered", func() {
		tr, err := retry.NewTransport(NewTransport(g.Pool, nil), retry.Policy{})
		require.NoError(t, err)
		resp, err := tr.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
	})
	assert.Zero(t, inFlight(g.Pool))
	assert.Zero(t, g.queue.inFlight.Load())
	if g.at(t, "stable:80").State() == breaker.Open { // what panicked has failed
		fake.Advance(time.Hour)
	}
	pick, err := g.Pick(Info{Now: g.now()})
	require.NoError(t, err, "the place of the probe is free")
	finish(g.Pool, pick)
}

// broken is a transport whose connections break.
type broken struct{}

func (broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }

// Given a pick that finds out that a probe has taken too long, and then waits for room
// elsewhere, then what it found out is told at once, and not when its wait is over.
func TestGate_ToldBeforeTheWait_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, Config{Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}},
			breaker.Config{Probes: 2}, addresses("a", "b")...)
		g.fail(t, "a:80")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		held := map[string]Pick{}
		for range 2 {
			pick := mustPick(t, g.Pool, Info{Now: time.Now()})
			held[pick.Endpoint().Address] = pick
		}
		g.limit(t, 2, "a:80")
		require.Len(t, g.changes, 2)
		g.queue.waiting.Add(1) // somebody is about to wait, so that all go through the queue
		l := newLine(t, g.Pool)
		l.join(t.Context(), "late", Info{Now: time.Now().Add(31 * time.Second)}) // the timer has not noticed
		l.none()
		require.Len(t, g.changes, 3, "it is told")
		assert.Equal(t, breaker.ProbeTimedOut, g.changes[2].Reason)
		g.queue.waiting.Add(-1)
		finish(g.Pool, held["b:80"])
		finish(g.Pool, l.one().Pick)
		finish(g.Pool, held["a:80"])
	})
}

// limit lets an endpoint have another number of attempts than the others.
func (g *guarded) limit(t *testing.T, n uint32, address string) {
	t.Helper()
	for _, m := range g.members {
		if m.node.Endpoint().Address == address {
			m.node.SetLimit(n)
			return
		}
	}
	require.Fail(t, "no endpoint", address)
}

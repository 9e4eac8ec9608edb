package evenkeel_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// fetch sends a request and returns the response with its body read.
func fetch(t *testing.T, rt http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(body)
}

// A route leads calls to the endpoints that they ask for, and a new policy changes
// what happens where there are none.
func TestWithRules_RoutesAndUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		stable, canary := network.Serve("stable:80", evenkeeltest.OK("stable")).Endpoint(), network.Serve("canary:80", evenkeeltest.OK("canary")).Endpoint()
		stable.Attributes = map[string]string{"version": "stable"}
		canary.Attributes = map[string]string{"version": "canary"}
		route := balancer.Route{Attribute: "version", From: []balancer.HashKey{{Header: "X-Version"}}, Default: "stable"}
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.List{stable, canary}),
			evenkeel.WithTransport(network.Transport()), evenkeel.WithRules(balancer.Rules{Routes: []balancer.Route{route}}))
		require.NoError(t, err)

		ask := func(version string) *http.Request {
			req := getRequest(t, "http://users/")
			req.Header.Set("X-Version", version)
			return req
		}
		for range 10 {
			_, body := fetch(t, tr, getRequest(t, "http://users/"))
			assert.Equal(t, "stable", body)
			_, body = fetch(t, tr, ask("canary"))
			assert.Equal(t, "canary", body)
		}
		fetch(t, tr, ask("none")) // anybody

		config := tr.Config()
		route.Fallback = balancer.FallbackFail
		config.Rules.Routes = []balancer.Route{route}
		require.NoError(t, tr.Update(config))
		_, err = tr.RoundTrip(ask("none"))
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.NoEndpoints, failed.Reason)
		assert.ErrorContains(t, err, `attribute "version"`)
		require.NoError(t, tr.Close())
	})
}

// Who finds every endpoint full waits; what it waits is no endpoint's failure, and
// after the wait the call fails without a repetition.
func TestWithRules_WaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		server := network.Serve("a:80", evenkeeltest.OK("late").Delay(5*time.Second))
		var took []time.Duration
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{server.Addr()}),
			evenkeel.WithTransport(network.Transport()),
			evenkeel.WithHooks(evenkeel.Hooks{Attempt: func(a evenkeel.Attempt) { took = append(took, a.Took) }}),
			evenkeel.WithRetry(retry.Policy{PerAttemptTimeout: 6 * time.Second}),
			evenkeel.WithRules(balancer.Rules{MaxInFlight: 1, Queue: balancer.Queue{Timeout: 8 * time.Second}}))
		require.NoError(t, err)
		var calls []chan error
		for range 3 {
			done := make(chan error, 1)
			calls = append(calls, done)
			req := getRequest(t, "http://users/")
			go func() {
				resp, err := tr.RoundTrip(req)
				if err == nil {
					err = resp.Body.Close()
				}
				done <- err
			}()
			synctest.Wait() // one after the other
		}
		assert.Equal(t, 2, tr.Stats().Pool.Waiting)
		began := time.Now()
		require.NoError(t, <-calls[0])
		err = <-calls[2]
		assert.Equal(t, 8*time.Second, time.Since(began))
		var failed *evenkeel.Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, outcome.Limiter, failed.Reason)
		assert.Empty(t, failed.Attempts)
		require.ErrorIs(t, err, balancer.ErrSaturated)
		require.NoError(t, <-calls[1], "the wait of 5 s is not in the 6 s of the attempt")
		assert.Equal(t, []time.Duration{5 * time.Second, 5 * time.Second}, took, "nor in what the endpoint took")
		assert.Zero(t, tr.Stats().Pool.Endpoints[0].Failures)
		require.NoError(t, tr.Close())
	})
}

// Reports of servers steer the traffic, and are hidden from callers on request only.
func TestLoadReports_SteerAndHide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		reporting := func(address, report string) *evenkeeltest.Server {
			return network.Serve(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(orca.Header, report)
				_, _ = io.WriteString(w, address)
			}))
		}
		reporting("busy:80", "TEXT application_utilization=0.9,rps_fractional=100")
		reporting("idle:80", "TEXT application_utilization=0.3,rps_fractional=100")
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{"busy:80", "idle:80"}),
			evenkeel.WithTransport(network.Transport()),
			evenkeel.WithBalancer(balancer.LoadWeighted{Blackout: -1}))
		require.NoError(t, err)
		for range 10 { // seconds, for the weights to settle
			for range 4 {
				resp, _ := fetch(t, tr, getRequest(t, "http://users/"))
				assert.NotEmpty(t, resp.Header.Get(orca.Header))
			}
			time.Sleep(time.Second) // of the bubble
		}
		got := map[string]int{}
		for range 400 {
			_, body := fetch(t, tr, getRequest(t, "http://users/"))
			got[body]++
		}
		assert.InDelta(t, 300, got["idle:80"], 4, "three times as idle, three times the traffic")

		config := tr.Config()
		config.Rules.HideLoadReports = true
		require.NoError(t, tr.Update(config))
		resp, _ := fetch(t, tr, getRequest(t, "http://users/"))
		assert.Empty(t, resp.Header.Get(orca.Header))
		require.NoError(t, tr.Close())
	})
}

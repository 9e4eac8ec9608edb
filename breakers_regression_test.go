package evenkeel_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// A hook that sets another policy, and a Close meanwhile, waited for each other. Close waits
// for the hook, whose update comes too late.
func TestHooks_BreakerUpdatesDuringClose_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr *evenkeel.Transport
		var updated error
		told := make(chan struct{})
		cfg := fragile
		cfg.ConsecutiveFailures = 1
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{"a:80"}),
			evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}), evenkeel.WithBreaker(cfg),
			evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper {
				return status500{}
			}),
			evenkeel.WithHooks(evenkeel.Hooks{Breaker: func(breaker.Change) {
				close(told)
				time.Sleep(time.Second) // it is closed meanwhile
				c := tr.Config()
				c.Timeout = time.Minute
				updated = tr.Update(c)
			}}))
		require.NoError(t, err)
		require.NoError(t, tr.Ready(t.Context()))
		var calling sync.WaitGroup
		calling.Go(func() {
			resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
			if assert.NoError(t, err) {
				resp.Body.Close()
			}
		})
		<-told
		start := time.Now()
		require.NoError(t, tr.Close())
		assert.Equal(t, time.Second, time.Since(start), "it waits for the hook")
		assert.ErrorIs(t, updated, evenkeel.ErrClosed)
		calling.Wait()
	})
}

// status500 is an endpoint that is broken.
type status500 struct{}

func (status500) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusInternalServerError, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// An update of whatever else put an endpoint back into use that somebody had taken out of it
// by hand.
func TestBreakers_UpdateKeepsForcedOpen_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, []string{"a", "b"})
		require.NoError(t, f.breakerOf("a").SetMode(breaker.ForcedOpen))
		before := f.state("a")
		for range 2 {
			time.Sleep(time.Second)
			c := f.Config()
			c.Timeout += time.Second
			c.Breaker.Probes++
			require.NoError(t, f.Update(c))
			assert.Equal(t, before, f.state("a"))
			assert.Equal(t, map[string]int{"b": 20}, f.calls(20))
		}
	})
}

// The time that calls spend in the queue of the transport itself opened the breaker of the
// target, which was never asked.
func TestTargetBreaker_TimeInTheQueueIsNoFailure_K15_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		server := f.network.Serve("a:80", evenkeeltest.OK("all of it").Drip(1, time.Minute))
		f.use(evenkeel.WithResolver(discovery.List{server.Endpoint()}),
			evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 2}), evenkeel.WithTimeout(time.Second),
			evenkeel.WithRules(balancer.Rules{MaxInFlight: 1, Queue: balancer.Queue{Timeout: time.Hour}}))
		stream, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		before := f.Stats().TargetBreaker
		for range 5 {
			_, err = f.call()
			require.Error(t, err)
			require.NotErrorIs(t, err, breaker.ErrOpen)
		}
		assert.Equal(t, before, f.Stats().TargetBreaker)
		assert.Empty(t, f.told())
		server.AssertRequests(t, 1)
		stream.Body.Close()
		f.idle()
	})
}

// Given a target that nobody has heard of yet, then calls that end while they wait for it say
// nothing against it, either.
func TestTargetBreaker_WaitingForEndpointsIsNoFailure_K16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		f.use(evenkeel.WithResolver(resolverFunc(func(ctx context.Context, _ discovery.Sink) error {
			<-ctx.Done()
			return ctx.Err()
		})),
			evenkeel.WithTargetBreaker(breaker.Config{ConsecutiveFailures: 2}), evenkeel.WithTimeout(time.Second))
		for range 5 {
			_, err := f.call()
			require.Error(t, err)
			require.NotErrorIs(t, err, breaker.ErrOpen)
		}
		assert.Equal(t, breaker.Counts{}, f.Stats().TargetBreaker.Counts)
	})
}

// Given a body that breaks, and a hook that panics because that opens a breaker, then whoever
// reads the body gets the panic, and nothing of the call stays behind: the end of an attempt
// was told before its endpoint was let go.
func TestHooks_BreakerPanicsAtTheEndOfABody_B01_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bare(t)
		server := f.network.Serve("a:80", evenkeeltest.OK("all of it").CloseMidBody(3))
		f.use(evenkeel.WithResolver(discovery.List{server.Endpoint()}), evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 1}),
			evenkeel.WithHooks(evenkeel.Hooks{Breaker: func(breaker.Change) { panic("ordered") }}))
		resp, err := f.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		assert.PanicsWithValue(t, "ordered", func() { _, _ = io.ReadAll(resp.Body) })
		resp.Body.Close()
		stats := f.Stats()
		assert.Zero(t, stats.Active)
		assert.Zero(t, stats.Pool.Endpoints[0].InFlight)
		assert.Equal(t, breaker.Open, stats.Breakers[0].State)
	})
}

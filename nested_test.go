package evenkeel_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/retry"
)

// roundTripper is a transport that is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func unavailable(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// over returns a transport whose endpoints all are the given one.
func over(t *testing.T, base http.RoundTripper, options ...evenkeel.Option) *evenkeel.Transport {
	t.Helper()
	options = append([]evenkeel.Option{
		evenkeel.WithResolver(discovery.Static{"a:80", "b:80", "c:80", "d:80"}),
		evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return base }),
	}, options...)
	tr, err := evenkeel.New("http://users", options...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	require.NoError(t, tr.Ready(t.Context()))
	return tr
}

// A server that calls another one with the context of its own caller's request, in
// the same process: three attempts inside of three attempts are three, not nine.
func TestNestedClients_DoNotMultiply_R05(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int32
		inner := over(t, roundTripper(func(req *http.Request) (*http.Response, error) {
			sent.Add(1)
			return unavailable(req)
		}))
		outer := over(t, roundTripper(func(req *http.Request) (*http.Response, error) {
			return inner.RoundTrip(getRequest(t, "http://users/").WithContext(req.Context()))
		}))
		resp, err := outer.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		assert.Equal(t, int32(3), sent.Load())

		sent.Store(0)
		_, err = inner.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		assert.Equal(t, int32(3), sent.Load(), "by itself it still has its three")
		require.NoError(t, outer.Close())
		require.NoError(t, inner.Close())
	})
}

// With a seeded source, endpoints and waits are the same in each run.
func TestRand_IsRepeatable_X04(t *testing.T) {
	const seed = 12
	t.Logf("seed %d", seed)
	run := func() (story string) {
		synctest.Test(t, func(t *testing.T) {
			tr := over(t, roundTripper(unavailable),
				evenkeel.WithRand(rand.NewPCG(seed, 0)),
				evenkeel.WithBalancer(balancer.Random{}),
				evenkeel.WithRetry(retry.Policy{MaxAttempts: 6}),
				evenkeel.WithHooks(evenkeel.Hooks{Decided: func(d retry.Decision) {
					story += fmt.Sprint(d.Endpoint, d.Action.Wait, " ")
				}}))
			begin := time.Now()
			for range 5 {
				resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
			}
			story += time.Since(begin).String()
			require.NoError(t, tr.Close())
		})
		return story
	}
	first := run()
	t.Log(first)
	assert.Equal(t, first, run())
}

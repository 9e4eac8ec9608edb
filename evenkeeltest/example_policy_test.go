package evenkeeltest_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Cooldown is a policy of a user's own: the first endpoint in the list that has
// not failed within the last Rest. It is written against the public interface of
// package balancer, and tested below in the two ways there are.
type Cooldown struct{ Rest time.Duration }

// NewBuilder implements balancer.Algorithm.
func (c Cooldown) NewBuilder(balancer.Env) (balancer.Builder, error) {
	if c.Rest <= 0 {
		return nil, fmt.Errorf("cooldown: Rest must be positive, not %v", c.Rest)
	}
	return c, nil
}

// Observer implements balancer.Builder.
func (c Cooldown) Observer(discovery.Endpoint, balancer.Observer) balancer.Observer {
	return &cooling{}
}

// Build implements balancer.Builder.
func (c Cooldown) Build(g balancer.Group) balancer.Picker {
	return cooldownPicker{c.Rest, g.Candidates}
}

// cooling remembers the last failure of one endpoint.
type cooling struct{ failed atomic.Pointer[time.Time] }

func (*cooling) Picked(time.Time) uint32 { return 0 }

func (c *cooling) Answered(_ uint32, a outcome.Answer) {
	if a.Class.Bad() {
		c.failed.Store(&a.Now)
	}
}

type cooldownPicker struct {
	rest       time.Duration
	candidates []balancer.Candidate
}

func (p cooldownPicker) Pick(info balancer.Info) int {
	for i := range p.candidates {
		failed := p.candidates[i].Observer().(*cooling).failed.Load()
		if failed == nil || info.Now.Sub(*failed) >= p.rest {
			return i
		}
	}
	return 0
}

// What a policy decides is tested with a fake clock: tell it what happened,
// advance the clock, look at what it says. Nothing waits, and no HTTP is needed.
func TestExample_OwnPolicyWithAFakeClock(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	pool, err := balancer.NewPool(balancer.Config{
		Resolver:  discovery.Static{"users-1:80", "users-2:80"},
		Algorithm: Cooldown{Rest: 10 * time.Second},
		Clock:     fake,
	})
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, pool.Ready(t.Context()))

	attempt := func(class outcome.Class) string {
		pick, err := pool.Pick(balancer.Info{Now: fake.Now()})
		require.NoError(t, err)
		defer pick.Done()
		pick.Answered(outcome.Answer{Now: fake.Now(), Class: class})
		return pick.Endpoint().Address
	}

	assert.Equal(t, "users-1:80", attempt(outcome.Failure))
	assert.Equal(t, "users-2:80", attempt(outcome.Success), "the first one rests")
	fake.Advance(10*time.Second - 1)
	assert.Equal(t, "users-2:80", attempt(outcome.Success))
	fake.Advance(1)
	assert.Equal(t, "users-1:80", attempt(outcome.Success), "and is back to the instant")
}

// What a client does on the wire is tested in a bubble: a network without sockets,
// servers that fail on command, and time that passes only while everybody waits.
func TestExample_OwnPolicyInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		first := network.Serve("users-1:80", evenkeeltest.Script(
			evenkeeltest.Hang(), // the first request is never answered
			evenkeeltest.OK("users-1"),
		))
		second := network.Serve("users-2:80", evenkeeltest.OK("users-2"))

		users, err := evenkeel.New("http://users",
			evenkeel.WithResolver(discovery.List{first.Endpoint(), second.Endpoint()}),
			evenkeel.WithTransport(network.Transport()),
			evenkeel.WithBalancer(Cooldown{Rest: time.Minute}),
			evenkeel.WithRetry(retry.Policy{PerAttemptTimeout: 30 * time.Second}),
		)
		require.NoError(t, err)
		defer users.Close()
		client := &http.Client{Transport: users}

		begin := time.Now()
		resp, err := get(t.Context(), client, "http://users/api/users/42")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 30*time.Second, time.Since(begin), "exactly, and it took no time at all")
		info, _ := evenkeel.InfoOf(resp)
		assert.Len(t, info.Attempts, 2)
		assert.Equal(t, "users-2:80", info.Endpoint.Address)

		time.Sleep(time.Minute) // of the bubble
		resp, err = get(t.Context(), client, "http://users/api/users/42")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		first.AssertRequests(t, 2)
		second.AssertRequests(t, 1)
	})
}

func get(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

package evenkeel_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// hanging answers when its caller gives up.
func hanging(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// With another clock, limits follow that one: no time passes in the bubble.
func TestWithClock_LimitsFollowIt_X01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		tr := over(t, roundTripper(hanging), evenkeel.WithClock(fake), evenkeel.WithTimeout(3*time.Second))
		begin, done, req := time.Now(), make(chan error), getRequest(t, "http://users/")
		go func() {
			_, err := tr.RoundTrip(req)
			done <- err
		}()
		synctest.Wait()
		fake.Advance(3*time.Second - 1)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("too early: ", err)
		default:
		}
		fake.Advance(1)
		var failed *evenkeel.Error
		require.ErrorAs(t, <-done, &failed)
		assert.Equal(t, outcome.Deadline, failed.Reason)
		assert.Zero(t, time.Since(begin))
		require.NoError(t, tr.Close())
		assert.Zero(t, fake.Pending())
	})
}

// The classifier's word counts for all: a 200 that it calls a failure is repeated
// and counted against its endpoint.
func TestWithClassifier_ReplacesTheDefault(t *testing.T) {
	sent := 0
	tr := over(t, roundTripper(func(req *http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}), evenkeel.WithClassifier(func(a outcome.Attempt) outcome.Outcome {
		if sent < 3 {
			return outcome.Outcome{Class: outcome.Failure, Again: outcome.Anywhere}
		}
		return outcome.Classify(a)
	}))
	_, err := tr.RoundTrip(getRequest(t, "http://users/"))
	require.NoError(t, err)
	assert.Equal(t, 3, sent)
	failures := uint64(0)
	for _, e := range tr.Stats().Pool.Endpoints {
		failures += e.Failures
	}
	assert.Equal(t, uint64(2), failures)
}

func TestWithOtherHosts_PassesThemOn(t *testing.T) {
	var asked []string
	tr := over(t, roundTripper(unavailable), evenkeel.WithOtherHosts(roundTripper(func(req *http.Request) (*http.Response, error) {
		asked = append(asked, req.URL.Host)
		return unavailable(req)
	})))
	for _, url := range []string{"http://orders/", "http://users/"} {
		_, err := tr.RoundTrip(getRequest(t, url))
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"orders"}, asked)
	assert.Equal(t, uint64(1), tr.Stats().Calls, "no policy applies to them, and nobody counts them")
}

// switched is a resolver whose set the test changes.
type switched chan []discovery.Endpoint

func (s switched) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case set := <-s:
			sink.Update(set, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestWithDrainTimeout_BoundsTheDrain_B12(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		old := network.Serve("old:80", evenkeeltest.OK("a long answer").Drip(1, time.Minute))
		next := network.Serve("next:80", nil)
		sets := make(switched)
		tr, err := evenkeel.New("http://users", evenkeel.WithResolver(sets),
			evenkeel.WithTransport(network.Transport()), evenkeel.WithDrainTimeout(5*time.Second))
		require.NoError(t, err)
		sets <- []discovery.Endpoint{old.Endpoint()}
		resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)

		sets <- []discovery.Endpoint{next.Endpoint()}
		time.Sleep(5*time.Second - 1) // of the bubble
		synctest.Wait()
		assert.Equal(t, 1, old.OpenConns())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Zero(t, old.OpenConns())
		require.NoError(t, resp.Body.Close())
		require.NoError(t, tr.Close())
	})
}

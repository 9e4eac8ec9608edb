package evenkeel_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// policyRows are P-01 to P-04: Update.
func policyRows() []row {
	const noNetwork = "the transports are the test's own, and know no protocol"
	updated := on("only the whole stack has Update", full)
	return []row{
		{"P-01", "Update keeps latencies, counts and connections", updated, false, updateKeepsTheEndpoints},
		{"P-01", "Update keeps what is in flight", updated, false, updateKeepsWhatIsInFlight},
		{"P-01", "Update keeps the quota", updated, false, updateKeepsTheQuota},
		{"P-02", "an invalid policy changes nothing", updated, false, anInvalidPolicyChangesNothing},
		{"P-03", "a call keeps its policy", updated.over(noNetwork, http1), false, aCallKeepsItsPolicy},
		{"P-04", "a thousand updates leak nothing", updated, true, aThousandUpdatesLeakNothing},
	}
}

// policyWith returns a policy that differs from others in one number.
func policyWith(a balancer.Algorithm, attempts int) evenkeel.Config {
	return evenkeel.Config{Balancer: a, Retry: retry.Policy{MaxAttempts: attempts, Backoff: retry.Backoff{Base: soon}}}
}

// Given a slow and a fast endpoint of which peak EWMA knows, then it still knows
// after an Update: one that has forgotten would ask the slow one first to learn.
func updateKeepsTheEndpoints(t *testing.T, s *stackUnderTest) {
	slow := s.serve("slow", evenkeeltest.OK("slow").Delay(time.Second))
	fast := s.serve("fast", evenkeeltest.OK("fast").Delay(time.Millisecond))
	s.use(config{balancer: balancer.PeakEWMA{}, rand: seeded(t, 3)})
	for range 20 {
		s.get()
		s.settle()
	}
	slowBefore, before := slow.Requests(), s.status().Endpoints

	for _, c := range []evenkeel.Config{
		policyWith(balancer.PeakEWMA{}, 2),
		policyWith(balancer.PeakEWMA{Decay: 20 * time.Second}, 2),
	} {
		require.NoError(t, s.whole.Update(c))
		for range 20 {
			s.get()
			s.settle()
		}
	}

	assert.Equal(t, slowBefore, slow.Requests(), "the slow one is asked as if nothing were known of it")
	for i, e := range s.status().Endpoints {
		assert.GreaterOrEqual(t, e.Attempts, before[i].Attempts)
		assert.Equal(t, 1, e.Connections)
	}
	assert.Equal(t, 1, slow.Dials())
	assert.Equal(t, 1, fast.Dials())
}

func updateKeepsWhatIsInFlight(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("0123456789").Drip(1, time.Second))
	s.use(config{})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	for _, a := range []balancer.Algorithm{balancer.Random{}, balancer.LeastRequest{}, balancer.PeakEWMA{}, balancer.RoundRobin{}} {
		require.NoError(t, s.whole.Update(policyWith(a, 2)))
		assert.EqualValues(t, 1, s.status().Endpoints[0].InFlight)
	}
	assert.Equal(t, "0123456789", readBody(t, resp))
	assert.Zero(t, s.status().Endpoints[0].InFlight)
}

func updateKeepsTheQuota(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Status(503))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	for range 20 {
		_, _ = s.answer(s.request(http.MethodGet))
	}
	left := s.whole.Stats().QuotaTokens
	require.Equal(t, 500-20*2*5, left)

	require.NoError(t, s.whole.Update(policyWith(nil, 4)))

	assert.Equal(t, left, s.whole.Stats().QuotaTokens)
}

// Given policies that are wrong in one or many fields, then the error names each
// of them, and not even the parts that were right are applied.
func anInvalidPolicyChangesNothing(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.serve("b")
	s.use(config{rand: seeded(t, 5), timeout: time.Minute})
	before := s.whole.Config()

	for _, c := range []struct {
		policy evenkeel.Config
		fields []string
	}{
		{evenkeel.Config{Timeout: -1}, []string{"Timeout"}},
		{evenkeel.Config{Balancer: balancer.LeastRequest{Choices: 1}}, []string{"Balancer.Choices"}},
		{evenkeel.Config{Balancer: balancer.Random{}, Retry: retry.Policy{MaxAttempts: -1}}, []string{"Retry.MaxAttempts"}},
		{evenkeel.Config{
			Balancer: balancer.PeakEWMA{Decay: -1, Penalty: -1, Choices: 17},
			Retry: retry.Policy{
				MaxAttempts: -1, PerAttemptTimeout: -1,
				Backoff: retry.Backoff{Base: -1, Factor: 0.5}, Budget: retry.Quota{Cost: -1, TimeoutCost: -1},
			},
			Timeout: -1,
		}, []string{
			"Balancer.Decay", "Balancer.Penalty", "Balancer.Choices", "Retry.MaxAttempts", "Retry.PerAttemptTimeout",
			"Retry.Backoff.Base", "Retry.Backoff.Factor", "Retry.Budget.Cost", "Retry.Budget.TimeoutCost", "Timeout",
		}},
	} {
		err := s.whole.Update(c.policy)
		require.Error(t, err)
		assert.Equal(t, c.fields, fieldsOf(err), "%v", err)
		assert.Equal(t, before, s.whole.Config())
		first := s.get()
		assert.NotEqual(t, first, s.get(), "round robin is still the algorithm")
	}
}

// fieldsOf returns the names of all fields that an error speaks of.
func fieldsOf(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var names []string
		for _, e := range joined.Unwrap() {
			names = append(names, fieldsOf(e)...)
		}
		return names
	}
	var f *evenkeel.FieldError
	if errors.As(err, &f) {
		return []string{f.Field}
	}
	return []string{fmt.Sprintf("not a FieldError: %v", err)}
}

// Given two policies that swap without pause while 10 000 calls fail, each with
// its own number of attempts and its own limit, then each call has kept to one of
// them: 2 attempts under the one, 5 under the other, never anything between.
func aCallKeepsItsPolicy(t *testing.T, s *stackUnderTest) {
	const workers, calls = 20, 500
	s.serve("a")
	s.serve("b")
	off := retry.Quota{Size: -1}
	policies := []evenkeel.Config{
		{Balancer: balancer.Random{}, Timeout: time.Minute, Retry: retry.Policy{MaxAttempts: 2, Budget: off, Backoff: retry.Backoff{Base: soon}}},
		{Balancer: balancer.RoundRobin{}, Timeout: time.Hour, Retry: retry.Policy{MaxAttempts: 5, Budget: off, Backoff: retry.Backoff{Base: 2 * soon}}},
	}
	s.use(config{
		rand:     rand.NewPCG(6, 6),
		options:  []evenkeel.Option{evenkeel.WithConfig(policies[0])},
		endpoint: func(discovery.Endpoint) http.RoundTripper { return roundTripFunc(scripted) },
	})
	var over atomic.Bool
	var updating, calling sync.WaitGroup
	updating.Go(func() {
		for i := 0; !over.Load(); i++ {
			assert.NoError(t, s.whole.Update(policies[i%2]))
			time.Sleep(time.Millisecond)
		}
	})
	var seen [8]atomic.Int64
	for w := range workers {
		calling.Go(func() {
			for range calls {
				req := s.request(http.MethodGet)
				req.Header.Set("X-End", "status")
				resp, err := s.rt.RoundTrip(req)
				if !assert.NoError(t, err) {
					continue
				}
				resp.Body.Close()
				info, _ := evenkeel.InfoOf(resp)
				seen[min(len(info.Attempts), 7)].Add(1)
				time.Sleep(time.Duration(50+10*w) * time.Microsecond) // else all is over at once
			}
		})
	}
	calling.Wait()
	over.Store(true)
	updating.Wait()

	two, five := seen[2].Load(), seen[5].Load()
	assert.EqualValues(t, workers*calls, two+five, "calls with another number of attempts")
	assert.Positive(t, two)
	assert.Positive(t, five)
}

func aThousandUpdatesLeakNothing(t *testing.T, s *stackUnderTest) {
	const updates = 1000
	s.serve("a")
	s.serve("b")
	s.use(config{})
	s.get()
	s.get()
	synctest.Wait()
	goroutines, conns := runtime.NumGoroutine(), s.openConns()

	kinds := []balancer.Algorithm{balancer.Random{}, balancer.LeastRequest{}, balancer.PeakEWMA{}, balancer.RoundRobin{}}
	for i := range updates {
		require.NoError(t, s.whole.Update(policyWith(kinds[i%len(kinds)], 1+i%5)))
		if i%10 == 0 {
			s.get()
		}
	}

	synctest.Wait()
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2) // of a test before, some may have ended since
	assert.InDelta(t, conns, s.openConns(), 2, "connections")
}

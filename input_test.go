package evenkeel_test

import (
	"context"
	"math"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/retry"
)

func TestNew_NamesTheField(t *testing.T) {
	endpoints := func(e ...discovery.Endpoint) evenkeel.Option { return evenkeel.WithResolver(discovery.List(e)) }
	ok := discovery.Endpoint{Address: "10.0.0.1:80"}
	for _, row := range []struct {
		name, target string
		option       evenkeel.Option
		field        string
	}{
		{"no scheme", "users", nil, "Target"},
		{"unknown scheme", "gopher://users", nil, "Target"},
		{"no endpoint", "http://users", endpoints(), "Resolver.List"},
		{"empty address", "http://users", endpoints(ok, discovery.Endpoint{}), "Resolver.List[1].Address"},
		{"nonsensical address", "http://users", evenkeel.WithResolver(discovery.Static{"what"}), "Resolver.Static[0]"},
		{"port 0", "http://users", evenkeel.WithResolver(discovery.Static{"a:0"}), "Resolver.Static[0]"},
		{"negative weight", "http://users", endpoints(discovery.Endpoint{Address: "a:80", Weight: -1}), "Resolver.List[0].Weight"},
		{"NaN weight", "http://users", endpoints(discovery.Endpoint{Address: "a:80", Weight: math.NaN()}), "Resolver.List[0].Weight"},
		{"duplicate identity", "http://users", endpoints(ok, ok), "Resolver.List[1]"},
		{"negative attempts", "http://users", evenkeel.WithRetry(retry.Policy{MaxAttempts: -1}), "Retry.MaxAttempts"},
		{"negative time limit", "http://users", evenkeel.WithTimeout(-time.Second), "Timeout"},
		{"one choice", "http://users", evenkeel.WithBalancer(balancer.PeakEWMA{Choices: 1}), "Balancer.Choices"},
		{"transport with a TLS dialer", "https://users", evenkeel.WithTransport(&http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed },
		}), "Template.DialTLSContext"},
	} {
		t.Run(row.name, func(t *testing.T) {
			options := []evenkeel.Option{}
			if row.option != nil {
				options = append(options, row.option)
			}
			tr, err := evenkeel.New(row.target, options...)
			require.Error(t, err)
			assert.Nil(t, tr)
			var problem *evenkeel.FieldError
			require.ErrorAs(t, err, &problem)
			assert.Equal(t, row.field, problem.Field, "%v", err)
		})
	}
}

func TestNew_ReportsAllProblemsAtOnce(t *testing.T) {
	_, err := evenkeel.New("gopher://u:secret@users/path?x=y",
		evenkeel.WithResolver(discovery.Static{"", "a:80", "a:80"}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: -1, Backoff: retry.Backoff{Factor: 0.5}}),
		evenkeel.WithTimeout(-time.Second),
	)
	for _, part := range []string{
		"scheme", "user", "path", "query", "Static[0]", "Static[2]", "Retry.MaxAttempts", "Retry.Backoff.Factor", "Timeout: must not be negative (got -1s)",
	} {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), "secret")
}

// The table in the package documentation says what New switches on.
func TestNew_DocumentedDefaults(t *testing.T) {
	tr, err := evenkeel.New("http://10.0.0.1")
	require.NoError(t, err)
	defer tr.Close()
	assert.Equal(t, evenkeel.Config{
		Balancer: balancer.PeakEWMA{},
		Rules: balancer.Rules{
			Priorities: balancer.Priorities{Overprovisioning: 1.4},
			Panic:      balancer.Panic{Threshold: 0.5},
			SlowStart:  balancer.SlowStart{Window: 30 * time.Second, Floor: 0.1, Aggression: 1},
			MaxPark:    5 * time.Minute,
		},
		Breaker: breaker.Config{
			ConsecutiveFailures: 5, FailureRate: 0.5, MinCalls: 20, Window: 10 * time.Second,
			OpenFor: 5 * time.Second, MaxOpenFor: 5 * time.Minute, Jitter: 0.5,
			Probes: 3, ProbeSuccesses: 3, ProbeFailures: 1, ProbeTimeout: 30 * time.Second,
			MaxKeys: 10_000, IdleFor: 10 * time.Minute,
		},
		Outlier: health.Outlier{
			Enforce: 1, GatewayFailures: health.Off,
			Deviation: 0.05, FalseAlarms: 0.001, SlowerByTime: 50 * time.Millisecond, Interval: 10 * time.Second,
			EjectFor: 30 * time.Second, MaxEjectFor: 5 * time.Minute, Jitter: 0.25, MaxEjected: 0.5,
		},
		Retry: retry.Policy{
			MaxAttempts: 3,
			Pushback:    retry.Pushback{Max: 10 * time.Second},
			Backoff:     retry.Backoff{Base: 50 * time.Millisecond, Max: 2 * time.Second, Factor: 2},
			Budget:      retry.Quota{Size: 500, Cost: 5, TimeoutCost: 10},
		},
	}, tr.Config())
}

package balancer

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// silent is a resolver that never says anything: tests update the pool directly.
type silent struct{}

func (silent) Watch(ctx context.Context, _ discovery.Sink) error {
	<-ctx.Done()
	return ctx.Err()
}

// testPool returns a pool of these endpoints, which is closed with the test.
func testPool(tb testing.TB, cfg Config, endpoints ...discovery.Endpoint) *Pool {
	tb.Helper()
	if cfg.Resolver == nil {
		cfg.Resolver = silent{}
	}
	p, err := NewPool(cfg)
	require.NoError(tb, err)
	tb.Cleanup(p.Close)
	if len(endpoints) > 0 {
		p.update(endpoints)
	}
	return p
}

package evenkeel

import (
	"context"
	"fmt"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
)

// UnavailableError says that calls have bad prospects, by what the transport knows.
type UnavailableError struct {
	// Target is the service, without anything secret.
	Target string
	// Available is how many endpoints nothing speaks against, Endpoints how many there are.
	Available, Endpoints int
	// Err is what explains it, nil if the numbers do.
	Err error
}

// Error implements error.
func (e *UnavailableError) Error() string {
	text := fmt.Sprintf("evenkeel: %s: %d of %d endpoints are available", e.Target, e.Available, e.Endpoints)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns what explains it.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Check returns nil if calls have good prospects, by what is known already: no request is sent. The
// error is an [*UnavailableError] if no endpoint is available, so few are that health is ignored
// (balancer.Panic), or the target's breaker is open. Until the first endpoints are known it waits
// for them, as [Transport.Ready] does, whose errors it returns. It is meant for health.Component: a
// service tells by it how those behind it do.
func (t *Transport) Check(ctx context.Context) error {
	if err := t.Ready(ctx); err != nil {
		return err
	}
	stats := t.Stats()
	e := &UnavailableError{Target: stats.Target, Endpoints: len(stats.Pool.Endpoints)}
	for _, endpoint := range stats.Pool.Endpoints {
		if endpoint.Unavailable == "" {
			e.Available++
		}
	}
	switch b := stats.TargetBreaker; {
	case b != nil && (b.Mode == breaker.ForcedOpen || (b.Mode == breaker.Auto && b.State == breaker.Open)):
		e.Err = breaker.ErrOpen
	case e.Endpoints == 0:
		e.Err = balancer.ErrNoEndpoints
	case e.Available > 0 && !stats.Pool.Panic:
		return nil
	}
	return e
}

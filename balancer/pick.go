package balancer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Pick is an endpoint that was picked for one attempt. It counts as in flight
// until Done, which must be called exactly once, after Answered.
type Pick struct{ pick node.Pick }

// Endpoint returns the endpoint.
func (p Pick) Endpoint() discovery.Endpoint { return p.pick.Node.Endpoint() }

// Serial returns the number that stands for this incarnation of the endpoint in
// [Info.Tried].
func (p Pick) Serial() uint64 { return p.pick.Node.Serial() }

// Transport returns what sends requests to this endpoint, over connections that
// no other endpoint uses.
func (p Pick) Transport() http.RoundTripper { return p.pick.Node.Base() }

// Answered tells how the attempt went, once that is known.
func (p Pick) Answered(a outcome.Answer) { p.pick.Answered(a) }

// Done says that the attempt is over, the body of its response included.
func (p Pick) Done() { p.pick.Done() }

// Pick picks an endpoint. It never blocks and allocates nothing. The error is a
// [*NoEndpointsError] or [ErrClosed].
func (p *Pool) Pick(info Info) (Pick, error) {
	for {
		s := p.snapshot.Load()
		if len(s.tiers) == 0 {
			return Pick{}, p.refusal(s)
		}
		c := s.pick(info)
		if !c.node.Acquire() {
			continue // removed since: a newer snapshot is there
		}
		pick := Pick{node.Pick{Node: c.node, Observer: c.observer}}
		if c.observer != nil {
			pick.pick.Token = c.observer.Picked(info.Now)
		}
		return pick, nil
	}
}

// Others reports whether there is an available endpoint that is not the one
// picked and not among those tried.
func (p *Pool) Others(pick Pick, tried []uint64) bool {
	return p.snapshot.Load().untried(&Candidate{node: pick.pick.Node}, tried)
}

func (p *Pool) refusal(s *snapshot) error {
	if errors.Is(s.cause, ErrClosed) {
		return ErrClosed
	}
	err := &NoEndpointsError{Cause: s.cause}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Err != nil && !errors.Is(s.cause, errAllUnavailable) {
		err.Cause = p.status.Err
	}
	return err
}

// firstWait bounds the wait for the first set of endpoints where the caller has
// set no deadline.
const firstWait = 10 * time.Second

// PickWait is [Pool.Pick] that waits for the first set of endpoints: until ctx
// is done, and if it has no deadline, at most 10 s.
func (p *Pool) PickWait(ctx context.Context, info Info) (Pick, error) {
	ready := p.isReady() // asked first: it may become so just after a pick that found nothing
	pick, err := p.Pick(info)
	if err == nil || ready {
		return pick, err
	}
	bound := firstWait
	if _, ok := ctx.Deadline(); ok {
		bound = math.MaxInt64 // the context ends first
	}
	if wait.SleepOr(ctx, p.clock, bound, p.ready) != nil {
		return Pick{}, p.refusedWith(context.Cause(ctx))
	}
	info.Now = p.clock.Now()
	return p.Pick(info)
}

// refusedWith returns the cause, together with what keeps picks from succeeding
// if anything does.
func (p *Pool) refusedWith(cause error) error {
	if s := p.snapshot.Load(); len(s.tiers) == 0 {
		return fmt.Errorf("%w: %w", p.refusal(s), cause)
	}
	return cause
}

func (p *Pool) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// Ready waits until the first set of endpoints is known. It returns nil, the
// context's error together with that of the resolver, or [ErrClosed].
func (p *Pool) Ready(ctx context.Context) error {
	select {
	case <-p.ready:
		if errors.Is(p.snapshot.Load().cause, ErrClosed) {
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return p.refusedWith(context.Cause(ctx))
	}
}

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

// id returns the identity of the endpoint.
func (p Pick) id() string { return p.pick.Node.Published().Key().ID }

// giveBack ends a pick of which no use is made.
func (p Pick) giveBack(now time.Time) {
	defer p.Done()
	p.Answered(outcome.Answer{Now: now, Class: outcome.Refused})
}

// Transport returns what sends requests to this endpoint, over connections that
// no other endpoint uses.
func (p Pick) Transport() http.RoundTripper { return p.pick.Node.Base() }

// Answered tells how the attempt went, once that is known.
func (p Pick) Answered(a outcome.Answer) { p.pick.Answered(a) }

// Done says that the attempt is over, the body of its response included.
func (p Pick) Done() { p.pick.Done() }

// Pick picks an endpoint. It never blocks and allocates nothing. The error is a
// [*NoEndpointsError], a [*SaturatedError] or [ErrClosed].
func (p *Pool) Pick(info Info) (Pick, error) {
	pick, news, err := p.pick(info)
	if news {
		p.tellPicked(pick, err)
	}
	return pick, err
}

// tellPicked tells what a pick has changed. No lock may be held. If a callback panics,
// nobody gets the pick.
func (p *Pool) tellPicked(pick Pick, err error) {
	told := false
	defer func() {
		if !told && err == nil {
			defer pick.Done() // also if this panics, too
			pick.Answered(outcome.Answer{Class: outcome.Canceled})
		}
	}()
	p.serve()
	p.tellChanges()
	told = true
}

// pick is [Pool.Pick] under the lock of the queue: it calls nobody back, and says whether
// there is something to tell.
func (p *Pool) pick(info Info) (_ Pick, news bool, _ error) {
	caughtUp := false
	for {
		s := p.snapshot.Load()
		var c *Candidate
		var must, pinned bool
		switch {
		case info.Pin != nil && s.directory == nil && (p.beginPins() || p.snapshot.Load() != s):
			news = true
			continue
		case s.plainTier != nil && len(info.Tried) == 0 && info.Pin == nil:
			c, must = &s.plain.candidates[s.plain.picker.Pick(info)], s.plainTier.ill
		default:
			var err error
			c, must, pinned, err = p.choose(s, &info)
			if info.Pin != nil && !pinned && !caughtUp {
				caughtUp = true
				if p.catchUpPinned(s, &info) {
					news = true
					continue
				}
			}
			if err != nil {
				return Pick{}, news, err
			}
		}
		if c.node.Acquire() != node.Granted {
			continue // removed since: a newer snapshot is there; or another was faster
		}
		pick := node.Pick{Node: c.node, Observer: c.observer, Counted: s.counted}
		if gate := c.node.Gate(); gate != nil {
			a := gate.Acquire(info.Now, must)
			if a.Changed || !a.OK {
				p.catchUp(c.node.Watcher().(*member))
				news = true
			}
			if !a.OK {
				c.node.Undo()
				continue // others were faster: its breaker has all the probes that it wants
			}
			pick.Pass, pick.Number = a.Pass, a.Number
		}
		if c.observer != nil {
			pick.Token = c.observer.Picked(info.Now)
		}
		if s.counted {
			p.queue.inFlight.Add(1)
		}
		if s.directory != nil {
			c.node.NoteRecent(tickAt(info.Now, p.born))
		}
		return Pick{pick}, news, nil
	}
}

// choose decides where among the endpoints to pick, and picks. It also tells whether the endpoint's
// health is ignored, and whether the attempt was pinned to it.
func (p *Pool) choose(s *snapshot, info *Info) (c *Candidate, must, pinned bool, err error) {
	from, err := s.cluster(info)
	if info.Pin != nil {
		if c, must, err := s.pinned(from, info); c != nil || err != nil {
			return c, must, err == nil, err
		}
		if (err != nil || from.cause != nil) && len(info.Tried) > 0 { // a call starts over rather than fail
			again := *info
			again.Tried = nil
			if c, must, _ := s.pinned(from, &again); c != nil {
				return c, must, true, nil
			}
		}
	}
	if err != nil {
		return nil, false, false, err
	}
	if from.cause != nil {
		return nil, false, false, p.refusal(from)
	}
	c, t := s.pick(from, info)
	if c == nil {
		return nil, false, false, errNoRoom
	}
	return c, t.ill, false, nil
}

// Others reports whether there is an available endpoint for the call that is not
// the one picked and not among those tried.
func (p *Pool) Others(pick Pick, info Info) bool {
	from, err := p.snapshot.Load().cluster(&info)
	return err == nil && from.cause == nil && from.untried(pick.pick.Node, info.Tried)
}

// refusal returns the error of a pick for which there is nothing.
func (p *Pool) refusal(from *cluster) error {
	cause := from.cause
	if errors.Is(cause, ErrClosed) {
		return ErrClosed
	}
	if open := soonest(from.gates); open != nil {
		return &NoEndpointsError{Cause: fmt.Errorf("%w: %w", cause, open)}
	}
	err := &NoEndpointsError{Cause: cause}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Err != nil && (errors.Is(cause, errUnresolved) || errors.Is(cause, errNoneFound)) {
		err.Cause = p.status.Err
	}
	return err
}

// soonest returns the refusal of the gate that lets an attempt pass first, nil if none
// refuses any.
func soonest(gates []node.Gate) (first error) {
	var at time.Time
	for _, gate := range gates {
		until, err := gate.Refusal()
		if err != nil && (first == nil || (!until.IsZero() && (at.IsZero() || until.Before(at)))) {
			first, at = err, until
		}
	}
	return first
}

// firstWait bounds the wait for the first set of endpoints where the caller has
// set no deadline.
const firstWait = 10 * time.Second

// PickWait is [Pool.Pick] that waits: for the first set of endpoints until ctx is
// done, and if it has no deadline, at most 10 s; for room at an endpoint as
// [Rules.Queue] says.
func (p *Pool) PickWait(ctx context.Context, info Info) (Pick, error) {
	pick, _, err := p.pickWait(ctx, info)
	return pick, err
}

// pickWait also tells whether it has waited.
func (p *Pool) pickWait(ctx context.Context, info Info) (pick Pick, waited bool, err error) {
	ready := p.isReady() // asked first: it may become so just after a pick that found nothing
	if p.queue.waiting.Load() == 0 {
		pick, err = p.Pick(info)
		if err == nil || (ready && !errors.Is(err, ErrSaturated)) {
			return pick, false, err
		}
	}
	if !ready {
		if err = p.waitForFirst(ctx); err != nil {
			return Pick{}, true, err
		}
		info.Now = p.now()
	}
	pick, news, err := p.pickQueued(ctx, info, p.snapshot.Load().queue)
	if news {
		p.tellPicked(pick, err)
	}
	return pick, true, err
}

// waitForFirst waits until the first set of endpoints is known.
func (p *Pool) waitForFirst(ctx context.Context) error {
	bound := firstWait
	if _, ok := ctx.Deadline(); ok {
		bound = math.MaxInt64 // the context ends first
	}
	if wait.SleepOr(ctx, p.clock, bound, p.ready) != nil {
		return p.refusedWith(context.Cause(ctx))
	}
	return nil
}

// refusedWith returns the cause, together with what keeps picks from succeeding
// if anything does.
func (p *Pool) refusedWith(cause error) error {
	if main := p.snapshot.Load().main; main.cause != nil {
		return fmt.Errorf("%w: %w", p.refusal(main), cause)
	}
	return cause
}

// awaitFirst is waitForFirst that fails if there was nothing to be had, so that nobody waits once more.
func (p *Pool) awaitFirst(ctx context.Context) error {
	if err := p.waitForFirst(ctx); err != nil {
		return err
	}
	main := p.snapshot.Load().main
	if main.cause == nil || p.isReady() { // there may be endpoints just before it is ready
		return nil
	}
	return p.refusal(main)
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
		if errors.Is(p.snapshot.Load().main.cause, ErrClosed) {
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return p.refusedWith(context.Cause(ctx))
	}
}

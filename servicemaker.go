package evenkeel

import (
	"context"
	"errors"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// pending is a transport that is being made.
type pending struct {
	cancel  context.CancelFunc // ends Find
	waiting int                // how many want it
	found   bool               // nobody gives it up any more
	done    chan struct{}      // closed when the next two are set
	member  *member
	err     error
}

// get returns a service with its transport: m, or that of the name if m is nil. It waits until the
// service is found and made, or the caller gives up.
func (s *Services) get(ctx context.Context, gone <-chan struct{}, m *member, name string) (*member, error) {
	if ctx.Err() != nil {
		return nil, gaveUp(ctx)
	}
	s.mu.Lock()
	if m == nil {
		m = s.index.Load().names[name] // it may have been found in the meantime
	}
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	case m != nil && m.transport.Load() != nil:
		s.mu.Unlock()
		return m, nil
	case m != nil:
		name = m.name
	case s.config.Find == nil || !isName(name):
		s.mu.Unlock()
		return nil, &UnknownServiceError{Name: name, Err: ErrUnknownService}
	}
	p := s.pending[name]
	if p == nil {
		p = s.beginLocked(m, name) //nolint:contextcheck // it is for all who come to wait, and outlives this one
	}
	p.waiting++
	s.mu.Unlock()

	var err error
	select {
	case <-p.done:
		return p.member, p.err
	case <-s.ctx.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		err = gaveUp(ctx)
	case <-gone:
		err = context.Canceled
	}
	s.leave(p, name)
	return nil, err
}

// gaveUp returns the error of a context that has ended, with its cause.
func gaveUp(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return errors.Join(cause, err)
}

// beginLocked begins to make a transport: of m, or of what is found under the name if m is nil.
func (s *Services) beginLocked(m *member, name string) *pending {
	p := &pending{member: m, found: m != nil, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(s.ctx)
	p.cancel = cancel
	s.pending[name] = p
	s.makers.Go(func() { // before Close waits for them: nothing is closed yet, and the lock is held
		defer close(p.done)
		defer cancel()
		s.make(ctx, p, name)
	})
	return p
}

// leave takes back that somebody waits. When nobody does any more, the search ends; who comes later
// begins another one.
func (s *Services) leave(p *pending, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.waiting--; p.waiting == 0 && !p.found && s.pending[name] == p {
		delete(s.pending, name)
		p.cancel()
	}
}

// make finds a service and makes its transport.
func (s *Services) make(ctx context.Context, p *pending, name string) {
	if p.member == nil {
		p.member, p.err = s.search(ctx, name)
	}
	s.mu.Lock()
	wanted := s.pending[name] == p
	p.found = true
	s.mu.Unlock()
	if !wanted {
		return // nobody looks at it, and another search may be under way
	}
	var t *Transport
	if p.err == nil && ctx.Err() == nil {
		if t, p.err = p.member.open(); p.err != nil { //nolint:contextcheck // it lives until Close. A balancer of the user's own has refused
			p.err = &UnknownServiceError{Name: name, Err: p.err}
		}
	}
	s.mu.Lock()
	delete(s.pending, name)
	closed := s.closed
	if !closed && t != nil {
		p.member.transport.Store(t)
		if x := s.index.Load(); x.names[name] == nil {
			s.index.Store(x.with(p.member))
		}
	}
	s.mu.Unlock()
	if closed {
		p.err = ErrClosed
		if t != nil {
			_ = t.Close()
		}
	}
}

// search asks Find.
func (s *Services) search(ctx context.Context, name string) (*member, error) {
	service, err := s.config.Find(ctx, name)
	var m *member
	if err == nil {
		var errs field.Errors
		m, err = s.config.member(name, service)
		errs.Under(pathOf(name), err)
		err = errs.Err()
	}
	if err != nil {
		return nil, &UnknownServiceError{Name: name, Err: err}
	}
	return m, nil
}

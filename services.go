package evenkeel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Service is one of the services of a [Services].
type Service struct {
	// Target is a URL as [New] takes it. Empty means "http://" and the service's name.
	Target string
	// Options come after [ServicesConfig.Defaults], so they count where both set the same. A
	// whole policy, [WithConfig], replaces that of the defaults. [WithOtherHosts] has no use here.
	Options []Option
}

// ServicesConfig says which services a [Services] has. The zero ServicesConfig has none.
type ServicesConfig struct {
	// Services are the services by name. A name is a host name without a port; case does not
	// count, and two that differ in nothing else are an error.
	Services map[string]Service
	// Defaults are options of each service, before its own. What a resolver, a source of random
	// numbers or a hook in here keeps is shared by all services.
	Defaults []Option

	// Find, if set, is asked for a name that is not in Services: for those in a registry, say. The
	// name is in lower case. A service that is found is kept until Close, so it should only
	// find what is one; an error is not remembered. Requests that wait for the same name wait for one
	// and the same call; others do not wait. Its context carries no values of any request, and ends when
	// nobody waits any more, and when the Services is closed, which waits for Find to return. Where there is
	// no such service, its error should hold [ErrUnknownService]. It is called concurrently, for
	// different names. With it, Defaults must be valid on their own.
	Find func(ctx context.Context, name string) (Service, error)

	// Eager makes the transports of Services at once, so that each begins to look for its endpoints.
	// Otherwise the first request for a service does.
	Eager bool
}

// Services is an [http.RoundTripper] for many targets: services with names, each with a [Transport]
// of its own. Make one with [NewServices], give it to an [http.Client], and close it when it is no
// longer needed. It is safe for concurrent use.
//
// The host of a request's URL says which service it is for. Case does not count, and the port is that of
// the scheme, if there is one:
//
//	http://users/api/users/42   the service users, with the scheme of its target
//	lb://users/api/users/42     the same, without a port
//	https://users/api/users/42  the same, but only if its target is https; else ErrWrongTarget
//
// A request for the very target of one service, and of no other, is for that service too: redirects
// may lead there. Names come first. All else is refused with an [*UnknownServiceError].
//
// What is sent has the scheme and the host of the target, as Service.Target is written, and
// so has [http.Response.Request]; hooks see what the caller wrote. The Host header is the target's,
// unless the caller has set [http.Request.Host] to something else than the host of the URL, as a
// reverse proxy does that keeps the one it got.
//
// The form http://users is the one for daily use, because an [http.Client] treats it as it treats
// other URLs. It follows redirects for lb:// as well, but keeps no cookies, and it holds name and
// target for two hosts: what it does not send on to another host, such as Authorization, is lost by a
// redirect from one to the other.
type Services struct {
	config ServicesConfig
	index  atomic.Pointer[index]
	ctx    context.Context // ends with the services
	stop   context.CancelFunc
	makers sync.WaitGroup // of transports

	mu      sync.Mutex // guards what follows and changes of the index; nothing is called under it
	pending map[string]*pending
	closed  bool
}

// logical is the scheme of requests that leave the scheme to the target.
const logical = "lb"

// NewServices returns a transport for many services. All of them are checked before any is made: the
// error joins a [*FieldError] for each problem, such as Services["users"].Retry.MaxAttempts, and
// nothing has been started.
func NewServices(c ServicesConfig) (*Services, error) {
	c.Services, c.Defaults = maps.Clone(c.Services), slices.Clone(c.Defaults) // the caller may change its own
	members, err := c.members()
	if err != nil {
		return nil, err
	}
	s := &Services{config: c, pending: map[string]*pending{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.index.Store((&index{}).with(members...))
	if !c.Eager {
		return s, nil
	}
	var errs field.Errors
	for _, m := range members {
		t, err := m.open()
		if errs.Under(pathOf(m.name), err); err == nil {
			m.transport.Store(t)
		}
	}
	if err := errs.Err(); err != nil { // a balancer of the user's own has refused
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// RoundTrip implements [http.RoundTripper]. It does what that of the service's [Transport] does, after
// it has waited for [ServicesConfig.Find] if it must. Every error is an [*Error]: with the cause
// [*UnknownServiceError] if the request is for no service, [ErrWrongTarget] if it asks for TLS where the
// target has none, and [ErrClosed]. Requests that no transport has got are in no statistics, and hooks do not
// see them.
func (s *Services) RoundTrip(req *http.Request) (*http.Response, error) {
	t := s.index.Load().ready(req.URL)
	if t == nil {
		var refused *Error
		if t, refused = s.route(req); refused != nil {
			call.Refuse(req)
			return nil, refused
		}
	}
	return t.serve(req)
}

// route returns the transport for a request, and makes it if need be, or says why there is none.
func (s *Services) route(req *http.Request) (*Transport, *Error) {
	m, name := s.index.Load().find(req.URL)
	if m == nil {
		if err := call.Check(req, logical); err != nil {
			return nil, &Error{Target: redacted, Reason: outcome.Invalid, Err: err}
		}
		if name == "" {
			name = req.URL.Host
		}
	}
	fail := func(reason outcome.Reason, err error) (*Transport, *Error) {
		return nil, &Error{Target: req.URL.Scheme + "://" + req.URL.Host, Reason: reason, Err: err}
	}
	if m == nil || (m.allows(req.URL.Scheme) && m.transport.Load() == nil) {
		var err error
		if m, err = s.get(req.Context(), req.Cancel, m, name); err != nil { //nolint:staticcheck // http.Client sets Cancel
			return fail(reasonOf(err), err)
		}
	}
	if !m.allows(req.URL.Scheme) {
		return fail(outcome.WrongTarget, fmt.Errorf("%w: https was asked for, and the service's target is http", ErrWrongTarget))
	}
	return m.transport.Load(), nil
}

// reasonOf returns why get has failed.
func reasonOf(err error) outcome.Reason {
	var unknown *UnknownServiceError
	switch {
	case errors.As(err, &unknown):
		return outcome.WrongTarget
	case errors.Is(err, ErrClosed):
		return outcome.Closed
	}
	return outcome.Caller
}

// Transport returns the transport of a service, to ask it ([Transport.Stats], [Transport.Check]) or to
// change its policy ([Transport.Update]); the services keep it, and close it. It is made if need be,
// which may mean to wait for [ServicesConfig.Find]. The error is an [*UnknownServiceError], or [ErrClosed].
func (s *Services) Transport(name string) (*Transport, error) {
	m, err := s.get(context.Background(), nil, nil, strings.ToLower(name))
	if err != nil {
		return nil, err
	}
	return m.transport.Load(), nil
}

// Names returns the names of the services, sorted, those that were found included.
func (s *Services) Names() []string { return slices.Sorted(maps.Keys(s.index.Load().names)) }

// Stats returns what is known now of each service whose transport was made, by name.
func (s *Services) Stats() map[string]Stats {
	stats := map[string]Stats{}
	for name, m := range s.index.Load().names {
		if t := m.transport.Load(); t != nil {
			stats[name] = t.Stats()
		}
	}
	return stats
}

// Ready waits until the first endpoints of all services are known, of those that were found so far and
// of all in [ServicesConfig.Services], whose transports it makes. The error joins those of
// [Transport.Ready], each with the name of its service.
func (s *Services) Ready(ctx context.Context) error {
	return s.each(func(m *member) error {
		m, err := s.get(ctx, nil, m, m.name)
		if err != nil {
			return err
		}
		return m.transport.Load().Ready(ctx)
	})
}

// each does something with all services at once, and joins the errors.
func (s *Services) each(do func(*member) error) error {
	names := s.index.Load().names
	sorted := slices.Sorted(maps.Keys(names))
	errs := make([]error, len(sorted))
	var all sync.WaitGroup
	for i, name := range sorted {
		all.Go(func() {
			if err := do(names[name]); err != nil {
				errs[i] = fmt.Errorf("evenkeel: service %s: %w", name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// CloseIdleConnections closes the connections of all services that nobody uses.
// [http.Client.CloseIdleConnections] calls it.
func (s *Services) CloseIdleConnections() {
	for _, m := range s.index.Load().names {
		if t := m.transport.Load(); t != nil {
			t.CloseIdleConnections()
		}
	}
}

// Shutdown refuses new calls, waits until those under way at all services have ended, their response
// bodies included, and closes the services. If ctx ends first, it closes them all the same. As Close
// does, it waits for [ServicesConfig.Find] to return. The error joins those of [Transport.Shutdown],
// each with the name of its service.
func (s *Services) Shutdown(ctx context.Context) error {
	return s.end(func(t *Transport) error { return t.Shutdown(ctx) })
}

// Close closes all services as [Transport.Close] does, those that are being made included. Whoever waits
// for [ServicesConfig.Find] gets [ErrClosed] at once, and Close waits until it has returned. It always returns
// nil, may be called more than once, and must not be called from a hook or from Find.
func (s *Services) Close() error { return s.end((*Transport).Close) }

// end ends all that was made, and makes nothing any more.
func (s *Services) end(do func(*Transport) error) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	err := s.each(func(m *member) error {
		if t := m.transport.Load(); t != nil { // none comes any more
			return do(t)
		}
		return nil
	})
	s.makers.Wait()
	return err
}

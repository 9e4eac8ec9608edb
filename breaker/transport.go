package breaker

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Transport is an [http.RoundTripper] that sends requests through circuit breakers. A
// request that a breaker refuses ends with an [*OpenError]; anything else comes from
// the transport below. Inside a retry.Transport it guards each attempt, around one it
// guards whole calls. It is safe for concurrent use.
type Transport struct {
	layer     //nolint:unused // makes it join attempts
	next      http.RoundTripper
	breakerOf func(*http.Request) *Breaker
	group     *Group // nil if there is one breaker for all
	own       bool   // the group is of no use to others
	cfg       *call.Config
}

type layer = call.Layer //nolint:unused // embedded, for its unexported method

// NewTransport returns a transport with a breaker for each host, or for each key as
// Config.Key says, in front of next. The error says all that is wrong with them.
func NewTransport(next http.RoundTripper, cfg Config) (*Transport, error) {
	if err := checkTransport(next, cfg.Validate()); err != nil {
		return nil, err
	}
	g, err := NewGroup(cfg)
	if err != nil {
		return nil, err
	}
	t := g.Transport(next)
	t.own = true
	return t, nil
}

// checkTransport adds a missing transport to what is wrong with a configuration.
func checkTransport(next http.RoundTripper, config error) error {
	var errs field.Errors
	errs.Check(next != nil, "next", nil, "must be set")
	errs.Under("", config)
	return errs.Err()
}

// Transport returns a transport that sends requests through the breakers of the group.
func (g *Group) Transport(next http.RoundTripper) *Transport {
	t := newTransport(next, &g.settings)
	t.group = g
	t.breakerOf = func(req *http.Request) *Breaker {
		if key := g.settings.Load().Key; key != nil {
			return g.Breaker(key(req))
		}
		return g.Breaker(hostOf(req.URL))
	}
	return t
}

// Transport returns a transport that sends all requests through this breaker.
func (b *Breaker) Transport(next http.RoundTripper) *Transport {
	t := newTransport(next, &b.settings)
	t.breakerOf = func(*http.Request) *Breaker { return b }
	return t
}

func newTransport(next http.RoundTripper, set *atomic.Pointer[settings]) *Transport {
	cfg := call.Config{
		Clock:    set.Load().Clock,
		Classify: func(a outcome.Attempt) outcome.Outcome { return set.Load().Classifier(a) },
		Plain:    true,
	}
	return &Transport{next: next, cfg: cfg.Resolve()}
}

// Group returns the breakers, nil for the transport of a single one.
func (t *Transport) Group() *Group { return t.group }

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if a := call.Joinable(req.Context()); a != nil {
		return t.guardAttempt(a) //nolint:contextcheck // the attempt is the context
	}
	if r := call.Join(req); r != nil {
		return t.guardCall(r, req)
	}
	return call.Once(req, t.cfg, t.guardAttempt) //nolint:contextcheck // the record is the context
}

// guardAttempt sends an attempt through its breaker.
func (t *Transport) guardAttempt(a *call.Attempt) (*http.Response, error) {
	permit, err := t.breakerOf(a.Request()).Allow()
	if err != nil {
		return nil, err
	}
	defer permit.Done(outcome.Failure) // if there is a panic: after settle it does nothing
	resp, err := a.Through(t.next)
	if a.Sent() {
		permit.settle(a, a.Served)
	} else {
		permit.Done(outcome.Refused)
	}
	return resp, err
}

// guardCall sends a whole call, of any number of attempts, through its breaker. What the
// last attempt meant is what the call meant.
func (t *Transport) guardCall(r *call.Record, req *http.Request) (*http.Response, error) {
	permit, err := t.breakerOf(req).Allow()
	if err != nil {
		r.Reason = outcome.ReasonOf(err)
		r.Finish(nil)
		return nil, err
	}
	defer permit.Done(outcome.Failure)
	began := r.Clock().Now()
	resp, err := t.next.RoundTrip(req)
	switch last := r.Final(); {
	case err != nil && r.CallerErr() != nil:
		permit.Done(outcome.Canceled)
	case last == nil: // whatever it was, it was not the target
		permit.Done(outcome.Refused)
	default:
		permit.settle(last, last.Ended().Sub(began))
	}
	return resp, err
}

// settle gives the permit back as an attempt went.
func (p *Permit) settle(a *call.Attempt, took time.Duration) {
	ph := p.phase
	if ph == nil {
		return
	}
	p.phase = nil
	answer := a.Answer()
	answer.Took, answer.Now = took, time.Time{} // the breaker has a clock of its own
	if ph.Answered(p.probe, answer) {
		a.Watch(watcher{ph, answer})
	}
}

// watcher is told how the body of a good answer ended.
type watcher struct {
	phase  *phase
	answer outcome.Answer
}

// Whole implements [call.Watcher].
func (w watcher) Whole() { w.phase.Whole() }

// Broke implements [call.Watcher].
func (w watcher) Broke() { w.phase.Broke(w.answer) }

// CloseIdleConnections passes the call on.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Close drops the breakers that [NewTransport] has made, as [Group.Close] does. A group or a
// breaker from elsewhere is left alone.
func (t *Transport) Close() error {
	if t.own {
		t.group.Close()
	}
	return nil
}

// hostOf returns host and port of a URL in one spelling.
func hostOf(u *url.URL) string {
	if u.Port() != "" {
		return strings.ToLower(u.Host)
	}
	port := "80"
	if u.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

package breaker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// ThrottleTransport is an [http.RoundTripper] that sends requests through throttles. A
// request that is refused ends with a [*ThrottledError]; anything else comes from the
// transport below. Inside a retry.Transport it counts each attempt. It is safe for
// concurrent use.
type ThrottleTransport struct {
	layer      //nolint:unused // makes it join attempts
	next       http.RoundTripper
	throttleOf func(*http.Request) *Throttle
	keyed      *keyed[*Throttle] // nil if there is one throttle for all
	cfg        *call.Config
}

// NewThrottleTransport returns a transport with a throttle for each host, or for each key
// as ThrottleConfig.Key says, in front of next. The error says all that is wrong with them.
func NewThrottleTransport(next http.RoundTripper, cfg ThrottleConfig) (*ThrottleTransport, error) {
	if err := checkTransport(next, cfg.Validate()); err != nil {
		return nil, err
	}
	set, err := newThrottleSettings(cfg)
	if err != nil {
		return nil, err
	}
	k := &keyed[*Throttle]{
		build:   func(key string) *Throttle { return newThrottle(key, set) },
		keep:    func(*Throttle) bool { return false },
		clock:   set.Clock,
		most:    set.MaxKeys,
		idleFor: set.IdleFor,
	}
	t := newThrottleTransport(next, set.Clock, set.Classifier)
	t.keyed = k
	t.throttleOf = func(req *http.Request) *Throttle {
		if set.Key != nil {
			return k.get(set.Key(req))
		}
		return k.get(hostOf(req.URL))
	}
	return t, nil
}

// Transport returns a transport that sends all requests through this throttle.
func (t *Throttle) Transport(next http.RoundTripper) *ThrottleTransport {
	transport := newThrottleTransport(next, t.settings.Load().Clock, func(a outcome.Attempt) outcome.Outcome {
		return t.settings.Load().Classifier(a)
	})
	transport.throttleOf = func(*http.Request) *Throttle { return t }
	return transport
}

func newThrottleTransport(next http.RoundTripper, c clock.Clock, classify outcome.Classifier) *ThrottleTransport {
	return &ThrottleTransport{next: next, cfg: call.Config{Clock: c, Classify: classify, Plain: true}.Resolve()}
}

// RoundTrip implements [http.RoundTripper].
func (t *ThrottleTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if a := call.Joinable(req.Context()); a != nil {
		return t.throttle(a) //nolint:contextcheck // the attempt is the context
	}
	return call.Once(req, t.cfg, t.throttle) //nolint:contextcheck // the record is the context
}

// throttle sends an attempt if it may go.
func (t *ThrottleTransport) throttle(a *call.Attempt) (*http.Response, error) {
	permit, err := t.throttleOf(a.Request()).Allow()
	if err != nil {
		return nil, err
	}
	defer permit.Done(outcome.Outcome{Class: outcome.Failure}) // if there is a panic: otherwise it is done before
	resp, err := a.Through(t.next)
	permit.Done(a.Outcome)
	return resp, err
}

// Status returns what the throttles that [NewThrottleTransport] has made have counted, sorted
// by name.
func (t *ThrottleTransport) Status() []ThrottleStatus {
	if t.keyed == nil {
		return nil
	}
	all := t.keyed.all()
	list := make([]ThrottleStatus, len(all))
	for i, throttle := range all {
		list[i] = throttle.Status()
	}
	slices.SortFunc(list, func(a, b ThrottleStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// CloseIdleConnections passes the call on.
func (t *ThrottleTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Close drops the throttles.
func (t *ThrottleTransport) Close() error {
	if t.keyed != nil {
		t.keyed.close()
	}
	return nil
}

package call

import (
	"context"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// Light is a call of which nothing needs to be watched, in its first attempt: it has no body,
// no time limit, no endpoint and no observer. It takes a third of the memory of a [Record],
// which it becomes if that attempt fails.
type Light struct {
	context.Context // the caller's

	caller *http.Request
	cfg    *Config
	limit  Limit
	start  time.Time
	became *Record // if the first attempt was not good
	req    http.Request
}

type (
	lightKey struct{}
	limitKey struct{}
)

// NewLight makes a light call of at most so many attempts.
func NewLight(req *http.Request, cfg *Config, attempts int) *Light {
	l := &Light{Context: req.Context(), caller: req, cfg: cfg}
	if outer := limitOf(req.Context()); outer != nil {
		l.limit.inside(outer)
	}
	l.limit.set(attempts)
	l.req = *req.WithContext(l) //nolint:contextcheck // a light call is the caller's context and more
	if req.Header == nil {
		l.req.Header = make(http.Header)
	}
	return l
}

// Value implements [context.Context].
func (l *Light) Value(key any) any {
	switch key {
	case lightKey{}, limitKey{}:
		return l
	case recordKey{}, attemptKey{}:
		return nil // what is around it is not joined
	}
	return l.Context.Value(key)
}

// Send sends the first attempt.
func (l *Light) Send(next http.RoundTripper) (*http.Response, error) {
	l.start = l.cfg.now()
	return next.RoundTrip(&l.req)
}

// Started returns when the attempt was sent.
func (l *Light) Started() time.Time { return l.start }

// Now returns the present instant.
func (l *Light) Now() time.Time { return l.cfg.now() }

// Answer completes the answer of a good first attempt, which nobody else looks at.
func (l *Light) Answer(resp *http.Response) *http.Response {
	if resp.Request == nil {
		resp.Request = &l.req
	}
	if resp.Body == nil {
		resp.Body = http.NoBody // against the contract of RoundTripper, but harmless
	}
	return resp
}

// Record makes the record of the call, whose first attempt has had this answer, or failed. What
// it meant is o, if that is known.
func (l *Light) Record(resp *http.Response, err error, o outcome.Outcome) (*Record, *Attempt) {
	r := New(l.caller, l.cfg)
	r.limit, r.untraced = &l.limit, true
	a := r.NewAttempt(0, Paid{})
	a.start = l.start
	a.sent.Store(true)
	r.sent.Add(1)
	a.Outcome = o
	l.became = r
	a.settle(resp, err)
	return r, a
}

// LightOf returns the light call of the context, nil if it is that of another call, and what
// became of it, nil if its first attempt was good.
func LightOf(ctx context.Context) (*Light, *Record) {
	l, _ := ctx.Value(lightKey{}).(*Light)
	if l == nil {
		return nil, nil
	}
	return l, l.became
}

// limitOf returns the bound of the call that the context belongs to, or nil.
func limitOf(ctx context.Context) *Limit {
	switch c := ctx.Value(limitKey{}).(type) {
	case *Record:
		return c.limit
	case *Light:
		return &c.limit
	case *Scope:
		return &c.Limit
	}
	return nil
}

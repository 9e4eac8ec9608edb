package call

import (
	"context"
	"net/http"
	"time"
)

// Light is a call of which nothing needs to be watched, in its first attempt: it has no body,
// no time limit, no endpoint and no observer. It is a tenth of a [Record], which it becomes if
// that attempt fails.
type Light struct {
	context.Context // the caller's

	caller *http.Request
	cfg    *Config
	limit  Limit
	start  time.Time
	req    http.Request
}

type (
	lightKey struct{}
	limitKey struct{}
)

// NewLight makes a light call of at most so many attempts.
func NewLight(req *http.Request, cfg *Config, attempts int) *Light {
	l := &Light{Context: req.Context(), caller: req, cfg: cfg}
	if outer := limitOf(l.Context); outer != nil {
		l.limit.inside(outer)
	}
	l.limit.set(attempts)
	l.req = *req.WithContext(l)
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
	l.limit.Spend()
	l.start = l.cfg.now()
	return next.RoundTrip(&l.req)
}

// Started returns when the attempt was sent.
func (l *Light) Started() time.Time { return l.start }

// Record makes the record of the call, whose first attempt has had this answer, or failed.
func (l *Light) Record(resp *http.Response, err error) (*Record, *Attempt) {
	r := New(l.caller, l.cfg)
	r.limit, r.untraced = &l.limit, true
	a := r.NewAttempt(0, 0)
	a.start = l.start
	a.sent.Store(true)
	r.sent.Add(1)
	a.settle(resp, err)
	return r, a
}

// IsLight reports whether the context is that of a light call, and of no other inside it.
func IsLight(ctx context.Context) bool {
	_, ok := ctx.Value(lightKey{}).(*Light)
	return ok
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

package session

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Policy says how the requests of one caller are kept at one endpoint. Only By has no default.
type Policy struct {
	// By is how a caller is known again: a [Cookie], [Learn], [Route], [Key] or [Hash].
	By Kind

	// Strict makes a call fail with [ErrUnavailable] where its endpoint cannot take it, for state
	// that exists nowhere else: also if the endpoint has left for good, until the caller comes
	// without its cookie or with another key, or somebody makes the Store forget it. Without Strict, the session moves: another endpoint is picked, the
	// session belongs there from now on, and is not moved back. Retries and hedges of a strict
	// session stay at its endpoint; only one that has just begun may go elsewhere, if its endpoint
	// could not be reached at all. It must not be set with [Hash], which does not know where a
	// session was.
	Strict bool

	// DrainFor is how long an endpoint that is draining keeps its sessions. Zero means as long as
	// discovery lists it. New sessions go elsewhere at once.
	DrainFor time.Duration

	// StoreTimeout bounds how long one call waits for the Store, over all that it asks there. It should
	// be longer than the store's own limit, if that has one, so that it learns that it is slow.
	// Zero means 100ms. A [Table] is not bounded by it: it does not wait.
	StoreTimeout time.Duration
}

const defaultStoreTimeout = 100 * time.Millisecond

// WithDefaults returns the policy as it is applied.
func (p Policy) WithDefaults() Policy {
	switch p.By.(type) {
	case Cookie, Learn, Route, Key, Hash:
		p.By = p.By.withDefaults()
	}
	field.Default(&p.StoreTimeout, defaultStoreTimeout)
	return p
}

// Validate returns nil, or all that is wrong with the policy: field errors (evenkeel.FieldError)
// joined.
func (p Policy) Validate() error {
	var errs field.Errors
	switch p.By.(type) {
	case Cookie, Learn, Route, Key, Hash:
		errs.Under("By", p.By.validate())
	case nil:
		errs.Add("By", nil, "must be a Cookie, Learn, Route, Key or Hash")
	default:
		errs.Add("By", reflect.TypeOf(p.By).String(), "must be a Cookie, Learn, Route, Key or Hash, and no pointer")
	}
	_, hash := p.By.(Hash)
	errs.Check(!p.Strict || !hash, "Strict", p.Strict, "must not be set with Hash, which remembers no endpoint")
	errs.Check(p.DrainFor >= 0, "DrainFor", p.DrainFor, "must not be negative")
	errs.Check(p.StoreTimeout >= 0, "StoreTimeout", p.StoreTimeout, "must not be negative")
	return errs.Err()
}

type contextKey struct{}

// WithKey returns a context whose requests belong to the session with this key, for [Key] and
// [Hash]: the way for Go clients that have no cookies. An empty key means none. The key may be long
// or binary.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, contextKey{}, key)
}

// KeyOf returns the key that [WithKey] put into the context of a request, "" if there is none.
func KeyOf(req *http.Request) string {
	key, _ := req.Context().Value(contextKey{}).(string)
	return key
}

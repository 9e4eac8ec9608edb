package breaker

import (
	"context"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Do calls fn if the breaker allows it, and tells the breaker how it went. It returns
// what fn returned, or an [*OpenError]. Whether an error speaks against what was called is
// for Config.Classifier to say: by default each does, unless ctx has ended. If fn panics,
// that counts as failed, and the panic goes on.
func (b *Breaker) Do(ctx context.Context, fn func(context.Context) error) error {
	if fn == nil {
		return errNoFunction
	}
	_, _, err := guarded(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// Do is [Breaker.Do] for functions that return something.
func Do[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (T, error) {
	if fn == nil {
		var zero T
		return zero, errNoFunction
	}
	result, _, err := guarded(ctx, b, fn)
	return result, err
}

// DoOr is [Do] with a fallback, which answers when the call was refused or has failed. It
// gets the error of that. It is not asked if the caller has given up, or if the error
// does not speak against what was called.
func DoOr[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error), fallback func(context.Context, error) (T, error)) (T, error) {
	if fn == nil || fallback == nil {
		var zero T
		return zero, errNoFunction
	}
	result, class, err := guarded(ctx, b, fn)
	if err != nil && (class.Avoid() || class == outcome.Refused) && ctx.Err() == nil {
		return fallback(ctx, err)
	}
	return result, err
}

var errNoFunction error = &field.Error{Field: "fn", Value: nil, Problem: "must be set"}

// guarded calls fn under a permit and tells what the call meant.
func guarded[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (result T, class outcome.Class, err error) {
	permit, err := b.Allow()
	if err != nil {
		return result, outcome.Refused, err
	}
	class = outcome.Failure // should it panic
	defer func() { permit.Done(class) }()
	if result, err = fn(ctx); err == nil {
		class = outcome.Success
	} else {
		class = b.settings.Load().Classifier(outcome.Attempt{Err: err, CallerErr: ctx.Err()}).Class
	}
	return result, class, err
}

// Package field is how a configuration says what is wrong with it: one error
// per problem, each with the path of the field and the value it got, and all of
// them at once.
package field

import (
	"errors"
	"fmt"
	"strings"
)

// Error is one problem with one field of a configuration.
type Error struct {
	Field   string // path of the field, such as "Retry.MaxAttempts" or "Endpoints[3].Address"
	Value   any    // what it was set to
	Problem string // what is wrong, such as "must not be negative"
}

// Error implements error.
func (e *Error) Error() string {
	if s, ok := e.Value.(fmt.Stringer); ok {
		return fmt.Sprintf("%s: %s (got %v)", e.Field, e.Problem, s)
	}
	return fmt.Sprintf("%s: %s (got %#v)", e.Field, e.Problem, e.Value)
}

// Errors collects problems. The zero value is ready to use.
type Errors struct{ list []error }

// Add notes a problem with a field.
func (e *Errors) Add(name string, value any, problem string) {
	e.list = append(e.list, &Error{Field: name, Value: value, Problem: problem})
}

// Check notes the problem unless ok.
func (e *Errors) Check(ok bool, name string, value any, problem string) {
	if !ok {
		e.Add(name, value, problem)
	}
}

// CheckPart notes a problem unless the value is a part of a whole: from 0 to most, or Off (-1) where
// that is allowed. NaN is none.
func (e *Errors) CheckPart(name string, part, most float64, canBeOff bool) {
	switch {
	case part >= 0 && part <= most, canBeOff && part == -1:
	case canBeOff:
		e.Add(name, part, fmt.Sprintf("must be from 0 to %g, or Off", most))
	default:
		e.Add(name, part, fmt.Sprintf("must be from 0 to %g", most))
	}
}

// Of takes over the field errors that err holds, without the name of the enclosing field.
func (e *Errors) Of(name string, err error) {
	var part Errors
	part.Under("", err)
	for _, err := range part.list {
		if f, ok := err.(*Error); ok { //nolint:errorlint // made by Under
			f.Field = strings.TrimPrefix(f.Field, name+".")
		}
		e.list = append(e.list, err)
	}
}

// Under takes over the problems that err holds, with the name of the
// enclosing field put before theirs, unless it is empty. Errors of other types
// are kept; nil is ignored.
func (e *Errors) Under(name string, err error) {
	switch err := err.(type) { //nolint:errorlint // takes apart what Err joined, on purpose
	case nil:
	case *Error:
		e.list = append(e.list, &Error{Field: join(name, err.Field), Value: err.Value, Problem: err.Problem})
	case interface{ Unwrap() []error }:
		for _, part := range err.Unwrap() {
			e.Under(name, part)
		}
	default:
		if name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		e.list = append(e.list, err)
	}
}

// Err returns all problems joined, or nil if there are none.
func (e *Errors) Err() error { return errors.Join(e.list...) }

func join(outer, inner string) string {
	if outer == "" || strings.HasPrefix(inner, "[") {
		return outer + inner
	}
	return outer + "." + inner
}

// Default replaces a value that was left out by its default.
func Default[T comparable](value *T, byDefault T) {
	var zero T
	if *value == zero {
		*value = byDefault
	}
}

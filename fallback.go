package evenkeel

import (
	"errors"
	"net/http"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// fallback asks the user for an answer when a call has failed. It is outside of
// everything else, so what it does is no part of the call.
type fallback struct {
	answer    Fallback
	transport *Transport
	next      http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (f *fallback) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f.next.RoundTrip(req)
	if !wantsFallback(resp, err) {
		return resp, err
	}
	answer, failure := f.answer(req, resp, err)
	if resp != nil && answer != resp {
		_ = resp.Body.Close()
	}
	switch {
	case failure != nil:
		return nil, f.wrap(failure, resp, err)
	case answer == nil:
		return nil, f.wrap(errNoFallback, resp, err)
	}
	return answer, nil
}

var errNoFallback = errors.New("evenkeel: the fallback returned neither a response nor an error")

func wantsFallback(resp *http.Response, err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason != outcome.Caller
	}
	a := call.FromAttempt(resp.Request.Context())
	return a != nil && !a.Outcome.Class.Good()
}

// wrap makes the fallback's error an [*Error] unless it holds one: with what is
// known of the call, whose response or error the fallback got.
func (f *fallback) wrap(failure error, resp *http.Response, err error) error {
	var e *Error
	if errors.As(failure, &e) {
		return failure
	}
	wrapped := Error{Target: f.transport.target.String()}
	if errors.As(err, &e) {
		wrapped = *e
	} else if info, ok := InfoOf(resp); ok {
		wrapped.Reason, wrapped.Attempts, wrapped.Endpoint = info.Reason, info.Attempts, info.Endpoint.Address
	}
	wrapped.Err = failure
	return &wrapped
}

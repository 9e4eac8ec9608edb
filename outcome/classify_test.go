package outcome

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestClassify_Status(t *testing.T) {
	retryAfter := http.Header{"Retry-After": {"1"}}
	for _, row := range []struct {
		code   int
		header http.Header
		want   Outcome
	}{
		{101, nil, Outcome{Class: Success}},
		{200, nil, Outcome{Class: Success}},
		{304, nil, Outcome{Class: Success}},
		{400, nil, Outcome{Class: ClientError}},
		{404, retryAfter, Outcome{Class: ClientError}},
		{429, nil, Outcome{Class: Overload, Again: Anywhere}},
		{500, nil, Outcome{Class: Failure}},
		{501, nil, Outcome{Class: ClientError}},
		{502, nil, Outcome{Class: Failure, Again: Anywhere}},
		{503, nil, Outcome{Class: Failure, Again: Anywhere}},
		{503, retryAfter, Outcome{Class: Overload, Again: Anywhere}},
		{504, nil, Outcome{Class: Failure, Again: Anywhere}},
		{505, nil, Outcome{Class: ClientError}},
		{599, nil, Outcome{Class: Failure}},
	} {
		t.Run(fmt.Sprint(row.code, row.header), func(t *testing.T) {
			resp := &http.Response{StatusCode: row.code, Header: row.header}
			assert.Equal(t, row.want, Classify(Attempt{Response: resp}))
		})
	}
}

func TestClassify_Errors(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	slow := &net.OpError{Op: "dial", Net: "tcp", Err: timeoutError{}}
	certificate := &tls.CertificateVerificationError{Err: x509.HostnameError{}}
	for _, row := range []struct {
		name string
		a    Attempt
		want Outcome
	}{
		{"connection lost", Attempt{Err: io.ErrUnexpectedEOF}, Outcome{Class: Failure, Again: Anywhere}},
		{"refused dial", Attempt{Err: refused, NeverSent: true}, Outcome{Class: NeverSent, Again: Anywhere}},
		{"dial timeout", Attempt{Err: slow, NeverSent: true}, Outcome{Class: NeverSent, Again: Anywhere, Timeout: true}},
		{"certificate", Attempt{Err: fmt.Errorf("wrapped: %w", certificate), NeverSent: true}, Outcome{Class: NeverSent, Again: Elsewhere}},
		{"attempt timeout", Attempt{Err: context.Canceled, TimedOut: true}, Outcome{Class: Failure, Again: Anywhere, Timeout: true}},
		{"attempt timeout in the dial", Attempt{Err: context.Canceled, TimedOut: true, NeverSent: true}, Outcome{Class: NeverSent, Again: Anywhere, Timeout: true}},
		// Only the caller's context says who gave up, T-09.
		{"caller gave up, any error", Attempt{Err: errors.New("my cause"), CallerErr: context.Canceled}, Outcome{Class: Canceled}},
		{"caller's deadline", Attempt{Err: context.DeadlineExceeded, CallerErr: context.DeadlineExceeded, TimedOut: true}, Outcome{Class: Canceled}},
		{"a canceled error of a living caller", Attempt{Err: context.Canceled}, Outcome{Class: Failure, Again: Anywhere}},
		{"invalid request", Attempt{Err: fmt.Errorf("%w: bad", ErrInvalidRequest)}, Outcome{Class: Refused}},
	} {
		t.Run(row.name, func(t *testing.T) { assert.Equal(t, row.want, Classify(row.a)) })
	}
}

type timeoutError struct{}

func (timeoutError) Error() string { return "too slow" }
func (timeoutError) Timeout() bool { return true }

// h2StreamError looks like the stream error of net/http's HTTP/2, and offers
// itself to errors.As in the same way.
type h2StreamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e h2StreamError) Error() string { return "stream error" }

func (e h2StreamError) As(target any) bool {
	s, ok := target.(*streamError)
	if ok {
		*s = streamError(e)
	}
	return ok
}

func TestUnsent_ByTypeOnly_R02(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want bool
	}{
		{"dial", fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), true},
		{"read", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		{"text of a dial error", errors.New("dial tcp 127.0.0.1:1: connect: connection refused"), false},
		{"refused stream", h2StreamError{Code: 7}, true},
		{"cancelled stream", h2StreamError{Code: 8}, false},
		{"protocol error", h2StreamError{Code: 1}, false},
		{"declared by the transport", fmt.Errorf("mine: %w", ErrNeverSent), true},
		{"end of file", io.EOF, false},
	} {
		t.Run(row.name, func(t *testing.T) { assert.Equal(t, row.want, Unsent(row.err)) })
	}
}

func TestReasonOf(t *testing.T) {
	assert.Equal(t, Quota, ReasonOf(fmt.Errorf("wrapped: %w", reasonError{})))
	assert.Equal(t, Reason(""), ReasonOf(io.EOF))
	assert.Equal(t, Reason(""), ReasonOf(nil))
}

type reasonError struct{}

func (reasonError) Error() string  { return "no" }
func (reasonError) Reason() Reason { return Quota }

func TestClass_Names(t *testing.T) {
	assert.Equal(t, "success", Success.String())
	assert.Equal(t, "superseded", Superseded.String())
	assert.Equal(t, "invalid", Class(99).String())
	for _, c := range []Class{Unknown, Overload, Refused, Canceled, Superseded} {
		assert.False(t, c.Good() || c.Bad(), "%v speaks neither for nor against the endpoint", c)
	}
}

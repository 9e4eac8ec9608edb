package outcome

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
)

// Attempt is what a [Classifier] is shown. It must not be kept, and the
// response's body must not be read.
type Attempt struct {
	// Request is the request as the caller gave it.
	Request *http.Request
	// Response is the answer, or nil.
	Response *http.Response
	// Err is why there is no answer.
	Err error
	// NeverSent says that the request provably reached no server.
	NeverSent bool
	// TimedOut says that a time limit of evenkeel ended the attempt.
	TimedOut bool
	// CallerErr is the error of the caller's own context. The error of the
	// attempt cannot tell who gave up: net/http returns the cause of the
	// context on HTTP/1 and its plain error on HTTP/2. It is also set, to the
	// attempt's error, if reading the caller's body has failed.
	CallerErr error
}

// A Classifier says what an attempt meant. It is called once per attempt, when
// the response's headers have arrived or the attempt has failed. It must be
// safe for concurrent use, must not block, and may call [Classify] for all that
// it has no opinion on.
type Classifier func(Attempt) Outcome

// ErrNeverSent may be wrapped by the errors of a user's http.RoundTripper: the
// request was not sent, and sending it elsewhere is safe whatever its method.
var ErrNeverSent = errors.New("outcome: the request was never sent")

// ErrInvalidRequest may be wrapped by the errors of a user's http.RoundTripper:
// the request cannot be sent as it is, by nobody and to nobody.
var ErrInvalidRequest = errors.New("outcome: the request cannot be sent")

// Classify is the default [Classifier].
func Classify(a Attempt) Outcome {
	switch {
	case a.Response != nil:
		return classifyStatus(a.Response)
	case a.CallerErr != nil:
		return Outcome{Class: Canceled}
	case a.TimedOut && a.NeverSent: // no connection was had in time
		return Outcome{Class: NeverSent, Again: Anywhere, Timeout: true}
	case a.TimedOut:
		return Outcome{Class: Failure, Again: Anywhere, Timeout: true}
	default:
		return classifyError(a)
	}
}

func classifyStatus(resp *http.Response) Outcome {
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		return Outcome{Class: Overload, Again: Anywhere}
	case code == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return Outcome{Class: Overload, Again: Anywhere}
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return Outcome{Class: Failure, Again: Anywhere}
	case code == http.StatusNotImplemented, code == http.StatusHTTPVersionNotSupported:
		return Outcome{Class: ClientError}
	case code >= 500:
		return Outcome{Class: Failure} // a 500 is mostly deterministic: repeating it is an option, not the default
	case code >= 400:
		return Outcome{Class: ClientError}
	default:
		return Outcome{Class: Success}
	}
}

func classifyError(a Attempt) Outcome {
	if errors.Is(a.Err, ErrInvalidRequest) {
		return Outcome{Class: Refused}
	}
	o := Outcome{Class: Failure, Again: Anywhere, Timeout: isTimeout(a.Err)}
	if a.NeverSent {
		o.Class = NeverSent
	}
	if badCertificate(a.Err) {
		o.Again = Elsewhere
	}
	return o
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func badCertificate(err error) bool {
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}

// Unsent reports whether the type of the error alone proves that the request
// was not processed: a dial that failed, an HTTP/2 stream that the server
// refused, or an error that wraps [ErrNeverSent]. An error that tells of several attempts, such
// as those of evenkeel's own calls, says so by a method NeverSent() bool: one attempt that was
// never sent proves nothing about the others.
func Unsent(err error) bool {
	if unsent, known := wholeCall(err); known {
		return unsent
	}
	if errors.Is(err, ErrNeverSent) {
		return true
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	return RefusedStream(err)
}

// wholeCall returns what an error says of a call with all its attempts, if it tells of one.
func wholeCall(err error) (unsent, known bool) {
	var whole interface{ NeverSent() bool }
	if errors.As(err, &whole) {
		return whole.NeverSent(), true
	}
	return false, false
}

// RefusedStream reports whether the server closed the HTTP/2 stream before any
// processing.
func RefusedStream(err error) bool {
	if _, known := wholeCall(err); known {
		return false
	}
	var stream streamError
	return errors.As(err, &stream) && stream.Code == refusedStream
}

// refusedStream is REFUSED_STREAM of RFC 9113, section 7: the stream was closed
// before any processing.
const refusedStream = 0x7

// streamError has the fields of the HTTP/2 stream error of net/http, which is
// unexported but converts itself, in errors.As, to any struct with its fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "stream error" }

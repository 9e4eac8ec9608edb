package evenkeel_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// refusal is a request that never gets an answer, and why.
type refusal struct {
	name    string
	applies applies
	// prepare makes the stack, with one server that answers 200.
	prepare func(s *stackUnderTest)
	// spoil changes the request; nil leaves it as it is.
	spoil  func(req *http.Request) *http.Request
	reason outcome.Reason // as the whole stack says it
	// bodyless says that the request is only wrong without a body.
	bodyless bool
	is       error // what errors.Is must find, if not nil
}

func refusals() []refusal {
	// net/http has a case in which it dials for ever, so dials are bounded.
	usual := func(s *stackUnderTest) { s.use(config{dial: atMost(20)}) }
	invalid := func(name string, spoil func(*http.Request)) refusal {
		return refusal{name: name, applies: everywhere, prepare: usual, reason: outcome.Invalid, spoil: func(req *http.Request) *http.Request {
			spoil(req)
			return req
		}}
	}
	badHost := invalid("bad Host", func(r *http.Request) { r.Host = "a\tb" })
	badHost.applies = everywhere.over("HTTP/1.1 sends no Host instead", http2, h2c)
	noSlash := invalid("path without a slash", func(r *http.Request) { r.URL.Path = "users" })
	noSlash.applies = everywhere.over("HTTP/1.1 sends it as it is, and the server complains", http2, h2c)
	noBody := invalid("length without a body", func(r *http.Request) { r.Method, r.ContentLength = http.MethodPut, 10 })
	noBody.bodyless = true
	noBody.applies = everywhere.over("HTTP/2 announces the length all the same", http1)
	return []refusal{
		{name: "no endpoints", applies: whereBalanced, reason: outcome.NoEndpoints, is: balancer.ErrNoEndpoints, prepare: func(s *stackUnderTest) {
			r := newPushed()
			s.use(config{resolver: r})
			r.push()
		}},
		{name: "endpoints not known in time", applies: whereBalanced, reason: outcome.Caller, is: context.DeadlineExceeded, prepare: func(s *stackUnderTest) {
			s.use(config{resolver: hungResolver()})
		}, spoil: func(req *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(req.Context(), time.Second)
			context.AfterFunc(ctx, cancel)
			return req.WithContext(ctx)
		}},
		{name: "closed", applies: whereBalanced, reason: outcome.Closed, is: balancer.ErrClosed, prepare: func(s *stackUnderTest) {
			s.use(config{})
			s.close()
		}},
		{name: "wrong target", applies: wholeOnly, reason: outcome.WrongTarget, is: evenkeel.ErrWrongTarget, prepare: usual, spoil: func(req *http.Request) *http.Request {
			req.URL.Host = "other.example"
			return req
		}},
		{name: "dead context", applies: everywhere, reason: outcome.Caller, is: context.Canceled, prepare: usual, spoil: func(req *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(req.Context())
			cancel()
			return req.WithContext(ctx)
		}},
		{name: "refused dial", applies: everywhere, reason: outcome.Attempts, prepare: func(s *stackUnderTest) {
			usual(s)
			s.network.Refuse("a:80")
		}},
		invalid("nil URL", func(r *http.Request) { r.URL = nil }),
		invalid("no host", func(r *http.Request) { r.URL.Host = "" }),
		invalid("unsupported scheme", func(r *http.Request) { r.URL.Scheme = "ftp" }),
		invalid("bad method", func(r *http.Request) { r.Method = "PO ST" }),
		invalid("bad header name", func(r *http.Request) { r.Header["a b"] = []string{"x"} }),
		invalid("bad header value", func(r *http.Request) { r.Header.Set("X", "a\nb") }),
		invalid("bad trailer", func(r *http.Request) { r.Trailer = http.Header{"a b": {"x"}} }),
		invalid("trailer that must not be one", func(r *http.Request) {
			r.Trailer, r.ContentLength = http.Header{"Content-Length": {"1"}}, -1
			if r.Body == nil {
				r.Method, r.Body = http.MethodPut, io.NopCloser(strings.NewReader("x"))
			}
		}),
		badHost, noSlash, noBody,
		invalid("control character in the URL", func(r *http.Request) { r.URL = withQuery(r.URL, "a\nb") }),
	}
}

func withQuery(u *url.URL, query string) *url.URL {
	changed := *u
	changed.RawQuery = query
	return &changed
}

// refusalRows are T-06, with what R-16 and O-04 say of the same requests: the
// body is closed once, nothing is sent twice, nothing is held against an
// endpoint, and the error says why.
func refusalRows() []row {
	var rows []row
	for _, r := range refusals() {
		if !r.bodyless {
			rows = append(rows, row{"T-06", "the body is closed after " + r.name, r.applies, false, r.closesTheBody})
		}
		rows = append(rows, row{"O-04", "the reason of " + r.name, r.applies, false, r.hasItsReason})
		if r.reason == outcome.Invalid {
			rows = append(rows, row{"R-16", "no second attempt after " + r.name, r.applies, false, r.isNotTriedAgain})
		}
	}
	return append(rows,
		row{"T-06", "the body of an answered request is closed", everywhere, false, theBodyOfAnAnsweredRequestIsClosed},
		row{"T-06", "the body is closed after a panic", everywhere, false, theBodyIsClosedAfterAPanic})
}

func (r refusal) request(s *stackUnderTest, req *http.Request) *http.Request {
	if r.spoil != nil {
		return r.spoil(req)
	}
	return req
}

func (r refusal) closesTheBody(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	r.prepare(s)
	stream, replayable := evenkeeltest.NewBody("never sent"), evenkeeltest.NewBody("never sent")

	err := s.fail(r.request(s, s.stream(http.MethodPost, stream)))
	if r.is != nil {
		assert.ErrorIs(t, err, r.is)
	}
	_ = s.fail(r.request(s, s.replayable(http.MethodPut, replayable)))

	synctest.Wait() // net/http may close a body just after it has returned
	assert.Equal(t, 1, stream.Account().Closes)
	assert.Equal(t, 1, replayable.Account().Closes)
}

func (r refusal) hasItsReason(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	r.prepare(s)

	err := s.fail(r.request(s, s.request(http.MethodGet)))

	switch s.kind {
	case full, retryAlone:
		assert.Equal(t, r.reason, reason(err), "%v", err)
	case balancerAlone, breakerAlone, throttleAlone: // each has a reason where it refuses itself
		if slices.Contains([]outcome.Reason{outcome.NoEndpoints, outcome.Closed, outcome.Invalid}, r.reason) {
			assert.Equal(t, r.reason, outcome.ReasonOf(err), "%v", err)
		}
	}
}

func (r refusal) isNotTriedAgain(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	b := s.serve("b")
	r.prepare(s)

	err := s.fail(r.request(s, s.request(http.MethodGet)))

	assert.LessOrEqual(t, sent(err), 1, "attempts: %v", err)
	assert.Zero(t, s.failures(a)+s.failures(b), "an endpoint is blamed for a request that cannot be sent")
	assert.Zero(t, s.totalRequests())
	assert.LessOrEqual(t, a.Dials()+b.Dials(), 1, "dials")
}

// Given answers of every kind, then the body of each request is closed once, also
// when the server has not read it.
func theBodyOfAnAnsweredRequestIsClosed(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("a"), evenkeeltest.Status(404), evenkeeltest.EarlyStatus(413), evenkeeltest.Status(500), evenkeeltest.Status(503))
	s.use(config{})
	for _, want := range []int{200, 404, 413, 500, 503} {
		body := evenkeeltest.NewBodySize(1 << 10)
		status, _ := s.answer(s.stream(http.MethodPost, body))
		assert.Equal(t, want, status)
		synctest.Wait()
		assert.Equal(t, 1, body.Account().Closes, "after %d", want)
	}
}

// Given a transport that panics, then the panic reaches the caller, and the body
// is closed nevertheless, because nobody else will.
func theBodyIsClosedAfterAPanic(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.use(config{attempt: func(http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(*http.Request) (*http.Response, error) { panic("ordered") })
	}})
	body := evenkeeltest.NewBody("never sent")

	assert.PanicsWithValue(t, "ordered", func() { _, _ = s.do(s.stream(http.MethodPost, body)) })

	assert.Equal(t, 1, body.Account().Closes)
}

// requestRows are T-07 and T-17: the caller's request and its trace hooks.
func requestRows() []row {
	return []row{
		{"T-07", "the caller's request is not changed", everywhere, false, theCallersRequestIsNotChanged},
		{"T-07", "a request without a header map is fine", everywhere, false, aRequestWithoutHeaderIsFine},
		{"T-07", "the caller's body field is not replaced", everywhere, false, theCallersBodyFieldIsNotReplaced},
		{"T-17", "the caller's trace sees every attempt", whereRetried, false, theCallersTraceSeesEveryAttempt},
		{"T-17", "late hooks share nothing with the next attempt", whereRetried, false, lateHooksShareNothing},
	}
}

// Given one request that is used for 1000 calls, each retried and with a policy
// that adds a header, then it is as it was, and no header has piled up.
func theCallersRequestIsNotChanged(t *testing.T, s *stackUnderTest) {
	calls := 1000
	var steps []http.Handler
	for range calls {
		if s.retries() {
			steps = append(steps, evenkeeltest.Status(503))
		}
		steps = append(steps, evenkeeltest.OK("a"))
	}
	a := s.serve("a", steps...)
	s.use(config{
		retry: retry.Policy{Backoff: retry.Backoff{Base: soon}, Budget: retry.Quota{Size: -1}},
		attempt: func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				signed := req.Clone(req.Context())
				signed.Header.Add("X-Signature", "s")
				return next.RoundTrip(signed)
			})
		},
	})
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "the caller's")
	req := s.request(http.MethodGet).WithContext(ctx)
	req.Header.Set("X-Mine", "1")
	req.Host = "virtual.example"
	before, header := req.Clone(ctx), req.Header

	for range calls {
		status, _ := s.answer(req)
		require.Equal(t, http.StatusOK, status)
	}

	assert.Equal(t, before.Header, req.Header)
	header.Set("X-Probe", "1")
	assert.Equal(t, "1", req.Header.Get("X-Probe"), "the header map itself was replaced")
	assert.Equal(t, before.URL, req.URL)
	assert.Equal(t, before.Host, req.Host)
	assert.Equal(t, before.Method, req.Method)
	assert.Equal(t, ctx, req.Context())
	received := a.Received()
	assert.Len(t, received[len(received)-1].Header["X-Signature"], 1)
}

func aRequestWithoutHeaderIsFine(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503), evenkeeltest.OK("a"))
	s.use(config{
		retry: retry.Policy{Backoff: retry.Backoff{Base: soon}},
		attempt: func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				assert.NotNil(t, req.Header, "policies may write to the header of a clone")
				return next.RoundTrip(req)
			})
		},
	})
	req := (&http.Request{Method: http.MethodGet, URL: s.request(http.MethodGet).URL}).WithContext(t.Context())
	require.Nil(t, req.Header)

	_, _ = s.answer(req)

	assert.Nil(t, req.Header)
	assert.Positive(t, a.Requests())
}

func theCallersBodyFieldIsNotReplaced(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Status(503), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	body := evenkeeltest.NewBody("mine")
	req := s.replayable(http.MethodPut, body)

	_, _ = s.answer(req)

	assert.Same(t, body, req.Body)
	copied, err := req.GetBody()
	require.NoError(t, err, "the caller's GetBody is not replaced either")
	copied.Close()
}

// Given a caller's trace, when there are three attempts, then its hooks run for
// each of them, and a hook of the library runs beside them.
func theCallersTraceSeesEveryAttempt(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Repeat(2, evenkeeltest.Status(503)), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	var seen counter
	trace := &httptrace.ClientTrace{
		GetConn:              func(string) { seen.add("GetConn") },
		GotConn:              func(httptrace.GotConnInfo) { seen.add("GotConn") },
		WroteHeaders:         func() { seen.add("WroteHeaders") },
		WroteRequest:         func(httptrace.WroteRequestInfo) { seen.add("WroteRequest") },
		GotFirstResponseByte: func() { seen.add("GotFirstResponseByte") },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { seen.add("TLSHandshakeDone") },
	}
	req := s.request(http.MethodGet)

	status, _ := s.answer(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))

	assert.Equal(t, http.StatusOK, status)
	synctest.Wait()                                  // on HTTP/2 a hook may come later than the answer
	assert.GreaterOrEqual(t, seen.get("GetConn"), 3) // the HTTP/2 half of net/http asks once more
	for _, hook := range []string{"GotConn", "WroteHeaders", "GotFirstResponseByte"} {
		assert.Equal(t, 3, seen.get(hook), hook)
	}
	assert.GreaterOrEqual(t, seen.get("WroteRequest"), 3)
}

// Given an upload that goes on after its 503, so that hooks of attempt 1 fire
// while attempt 2 runs, then nothing is shared: the race detector is the judge.
func lateHooksShareNothing(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Repeat(4, evenkeeltest.EarlyStatus(503)), evenkeeltest.OK("a"))
	var wrote atomic.Int32
	s.use(config{
		retry: retry.Policy{MaxAttempts: 5, Backoff: retry.Backoff{Base: soon}},
		hooks: evenkeel.Hooks{Attempt: func(a evenkeel.Attempt) { _ = a.Connections }},
	})
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { wrote.Add(1) }}
	body := evenkeeltest.NewBodySize(40<<10).Drip(1<<10, time.Millisecond)
	req := s.replayable(http.MethodPut, body)

	status, _ := s.answer(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))

	assert.Equal(t, http.StatusOK, status)
	synctest.Wait()
	assert.GreaterOrEqual(t, wrote.Load(), int32(1))
}

package retry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

const ms = time.Millisecond

// tripper is a transport of the test's own.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// sent is one request that a script got.
type sent struct {
	at     time.Duration // since the script was made
	req    *http.Request
	ctx    context.Context
	body   []byte
	answer *answerBody
	over   atomic.Bool // RoundTrip has returned, or panicked
}

// step is what a script does with one request.
type step func(*sent) (*http.Response, error)

// script is a transport that takes one step for each request, and the last one for the rest. As
// real ones do, it reads the request's body, and closes it.
type script struct {
	steps []step
	start time.Time

	mu    sync.Mutex // guards what follows
	sends []*sent
}

func scripted(steps ...step) *script { return &script{steps: steps, start: time.Now()} }

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	one := &sent{at: time.Since(s.start), req: req, ctx: req.Context()}
	defer one.over.Store(true)
	s.mu.Lock()
	do := s.steps[min(len(s.sends), len(s.steps)-1)]
	s.sends = append(s.sends, one)
	s.mu.Unlock()
	if req.Body != nil {
		one.body, _ = io.ReadAll(req.Body)
		_ = req.Body.Close()
	}
	return do(one)
}

func (s *script) all() []*sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*sent(nil), s.sends...)
}

// times returns when the requests came.
func (s *script) times() (at []time.Duration) {
	for _, one := range s.all() {
		at = append(at, one.at)
	}
	return at
}

// assertClean fails the test unless nothing is left of any request: it has returned, and its
// answer was closed. With hedges, each has a context of its own, which has ended with a cause.
func (s *script) assertClean(t *testing.T, hedged bool) {
	t.Helper()
	synctest.Wait()
	for i, one := range s.all() {
		assert.True(t, one.over.Load(), "attempt %d still runs", i+1)
		if one.answer != nil {
			assert.Positive(t, one.answer.closes.Load(), "the answer to attempt %d is open", i+1)
		}
		if hedged {
			assert.Error(t, one.ctx.Err(), "the context of attempt %d lives", i+1)
		}
	}
}

// answerBody is a response's body. As with real ones, it breaks when its context ends.
type answerBody struct {
	io.Reader
	ctx    context.Context
	closes atomic.Int32
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.Reader.Read(p)
}

func (b *answerBody) Close() error {
	b.closes.Add(1)
	return nil
}

// answer answers with a status and header fields. The body tells the status and which attempt it
// was by the time at which that began.
func answer(status int, header ...string) step {
	return func(s *sent) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		text := fmt.Sprintf("%d at %v", status, s.at)
		s.answer = &answerBody{Reader: strings.NewReader(text), ctx: s.ctx}
		return &http.Response{
			StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h, Body: s.answer, ContentLength: int64(len(text)), Request: s.req,
		}, nil
	}
}

// fail fails with an error.
func fail(err error) step { return func(*sent) (*http.Response, error) { return nil, err } }

// hang waits for the end of its context.
func hang(s *sent) (*http.Response, error) {
	<-s.ctx.Done()
	return nil, context.Cause(s.ctx)
}

// in takes so long for a step, unless its context ends before.
func in(d time.Duration, do step) step {
	return func(s *sent) (*http.Response, error) {
		select {
		case <-time.After(d):
			return do(s)
		case <-s.ctx.Done():
			return hang(s)
		}
	}
}

// deaf takes so long for a step, and does not look at its context.
func deaf(d time.Duration, do step) step {
	return func(s *sent) (*http.Response, error) {
		time.Sleep(d)
		return do(s)
	}
}

// burst panics.
func burst(v any) step { return func(*sent) (*http.Response, error) { panic(v) } }

// exit ends its goroutine.
func exit(*sent) (*http.Response, error) {
	runtime.Goexit()
	return nil, nil
}

// around returns a transport with a policy.
func around(t *testing.T, next http.RoundTripper, p retry.Policy) *retry.Transport {
	t.Helper()
	tr, err := retry.NewTransport(next, p)
	require.NoError(t, err)
	return tr
}

// retrier returns what applies a policy.
func retrier(t *testing.T, p retry.Policy) *retry.Retrier {
	t.Helper()
	r, err := retry.NewRetrier(p)
	require.NoError(t, err)
	return r
}

// hedging is a policy that hedges after 100 ms without a bound, and waits 10 ms before a retry.
func hedging(attempts int) retry.Policy {
	return retry.Policy{
		MaxAttempts: attempts, Hedge: &retry.Hedge{After: 100 * ms, Budget: -1}, Backoff: waits(10 * ms),
	}
}

// waits are always the same.
func waits(d time.Duration) retry.Backoff { return retry.Backoff{Kind: retry.Constant, Base: d} }

// get returns a request without a body.
func get(ctx context.Context) *http.Request { return request(ctx, http.MethodGet, nil) }

func request(ctx context.Context, method string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, "http://users/", body)
	if err != nil {
		panic(err)
	}
	return req
}

// streamed hides what a reader is, so that its request gets no GetBody.
func streamed(content string) io.Reader { return io.MultiReader(strings.NewReader(content)) }

// read returns the status and body of an answer, which is closed.
func read(t *testing.T, resp *http.Response) (int, string) {
	t.Helper()
	require.NotNil(t, resp)
	var b bytes.Buffer
	_, err := b.ReadFrom(resp.Body)
	assert.NoError(t, err)
	assert.NoError(t, resp.Body.Close())
	return resp.StatusCode, b.String()
}

// told is what hooks were told, in order. Nothing guards it: they are called by the goroutine of
// the call, which the race detector sees to.
type told struct {
	attempts  []string // as "1 failure"
	decisions []retry.Decision
}

func (h *told) hooks() retry.Hooks {
	return retry.Hooks{
		Attempt: func(a retry.Attempt) {
			h.attempts = append(h.attempts, fmt.Sprintf("%d %v", a.Number, a.Outcome.Class))
		},
		Decided: func(d retry.Decision) { h.decisions = append(h.decisions, d) },
	}
}

// classes returns attempts in the words of told.
func classes(attempts []retry.Attempt) (list []string) {
	for _, a := range attempts {
		list = append(list, fmt.Sprintf("%d %v", a.Number, a.Outcome.Class))
	}
	return list
}

// failure returns the *retry.Error that an error is.
func failure(t *testing.T, err error) *retry.Error {
	t.Helper()
	var e *retry.Error
	require.ErrorAs(t, err, &e)
	return e
}

// online runs a test in a bubble, with a server of the protocol and a transport to it.
func online(t *testing.T, p evenkeeltest.Protocol, h http.Handler, f func(*testing.T, *evenkeeltest.Server, http.RoundTripper, string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		server := network.Start(evenkeeltest.ServerConfig{Address: "users:80", Handler: h, Protocol: p})
		base, address := network.Transport(), "http://users:80/"
		switch p {
		case evenkeeltest.H2C:
			base = network.TransportH2C()
		case evenkeeltest.HTTPS, evenkeeltest.HTTPS1:
			address = "https://users:80/"
		case evenkeeltest.HTTP1:
		}
		f(t, server, base, address)
		synctest.Wait()
		base.CloseIdleConnections()
		synctest.Wait()
		network.AssertNoConns(t)
	})
}

// to sends a request to another address.
func to(req *http.Request, address string) *http.Request {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	req.URL, req.Host = u, u.Host
	return req
}

// protocols are those over which what net/http does differs.
var protocols = map[string]evenkeeltest.Protocol{
	"http1": evenkeeltest.HTTP1, "http2": evenkeeltest.HTTPS, "h2c": evenkeeltest.H2C,
}

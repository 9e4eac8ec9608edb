package retry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// ending1 is how the first attempt ends. What it says of it is what a reader of BEHAVIOURS
// knows, not what the code finds out.
type ending1 struct {
	name      string
	status    int               // of the answer, or
	err       error             // why there is none
	asks      bool              // the transport tells that it looks for a connection,
	gets      bool              // and that it has one
	hangs     bool              // until the attempt times out
	leaves    bool              // the caller does
	unsent    bool              // provably not processed
	permanent bool              // no second attempt at this endpoint
	final     bool              // repeating it is no use, unless the policy says so
	header    map[string]string // of the answer
}

// h2StreamError is like the stream error of net/http's HTTP/2, which lends itself to any struct
// that has its fields.
type h2StreamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (h2StreamError) Error() string { return "stream error" }

func (e h2StreamError) As(target any) bool {
	to := reflect.ValueOf(target).Elem()
	if to.Kind() != reflect.Struct || !reflect.TypeFor[h2StreamError]().ConvertibleTo(to.Type()) {
		return false
	}
	to.Set(reflect.ValueOf(e).Convert(to.Type()))
	return true
}

// slow is an error of a limit in net.
type slow struct{}

func (slow) Error() string { return "i/o timeout" }
func (slow) Timeout() bool { return true }

func endings() []ending1 {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	all := []ending1{
		{name: "reset", err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, asks: true, gets: true},
		{name: "reset, untraced", err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		{name: "EOF", err: io.EOF, asks: true, gets: true},
		{name: "EOF in the answer", err: io.ErrUnexpectedEOF, asks: true, gets: true},
		{name: "text of a dial error", err: errors.New("dial tcp: connect: connection refused"), asks: true, gets: true},
		{name: "dial refused", err: dial(syscall.ECONNREFUSED), asks: true, unsent: true},
		{name: "dial refused, untraced", err: dial(syscall.ECONNREFUSED), unsent: true},
		{name: "dial timeout", err: dial(slow{}), asks: true, unsent: true},
		{name: "dial timeout, untraced", err: dial(slow{}), unsent: true},
		{name: "name not found", err: dial(&net.DNSError{IsNotFound: true}), asks: true, unsent: true},
		{name: "TLS handshake", err: tls.AlertError(40), asks: true, unsent: true},
		{name: "TLS handshake timeout", err: slow{}, asks: true, unsent: true},
		{name: "bad certificate", err: &tls.CertificateVerificationError{Err: x509.HostnameError{}}, asks: true, permanent: true},
		{name: "refused stream", err: h2StreamError{Code: 7}, asks: true, gets: true, unsent: true},
		{name: "declared by the transport", err: fmt.Errorf("mine: %w", outcome.ErrNeverSent), asks: true, gets: true, unsent: true},
		{name: "cancelled stream", err: h2StreamError{Code: 8}, asks: true, gets: true},
		{name: "attempt timeout", hangs: true, asks: true, gets: true},
		{name: "attempt timeout in the dial", hangs: true, asks: true, unsent: true},
		{name: "caller gone", leaves: true, asks: true, gets: true},
		{name: "caller gone in the dial", leaves: true, asks: true, unsent: true},
	}
	for _, status := range []int{200, 301, 404, 409, 425, 500, 501, 505} {
		all = append(all, ending1{name: fmt.Sprint(status), status: status, final: true})
	}
	for _, status := range []int{429, 502, 503, 504} {
		all = append(all, ending1{name: fmt.Sprint(status), status: status})
	}
	return append(all,
		ending1{name: "429 with Retry-After", status: 429, header: map[string]string{"Retry-After": "1"}},
		ending1{name: "503 with Retry-After", status: 503, header: map[string]string{"Retry-After": "1"}},
		ending1{name: "404 with Retry-After", status: 404, header: map[string]string{"Retry-After": "1"}, final: true},
	)
}

// promise is what the caller or the policy says of the request.
type promise struct {
	name     string
	header   string
	mark     Mark
	policy   bool // Policy.Idempotent has the method
	statuses []int
}

var promises = []promise{
	{name: "none"},
	{name: "Idempotency-Key", header: "Idempotency-Key"},
	{name: "X-Idempotency-Key", header: "X-Idempotency-Key"},
	{name: "marked idempotent", mark: Idempotent},
	{name: "marked not idempotent", mark: NotIdempotent},
	{name: "marked both", mark: Idempotent | NotIdempotent},
	{name: "key, but marked not idempotent", header: "Idempotency-Key", mark: NotIdempotent},
	{name: "policy, but marked not idempotent", policy: true, mark: NotIdempotent},
	{name: "once", mark: Once},
	{name: "idempotent, once", mark: Idempotent | Once},
	{name: "no hedge", mark: NoHedge},
	{name: "policy", policy: true},
	{name: "statuses", statuses: []int{404, 500}},
	{name: "idempotent, statuses", mark: Idempotent, statuses: []int{404, 500}},
}

const (
	noBody        = "no body"
	emptyBody     = "http.NoBody"
	getBody       = "GetBody"
	streamStays   = "stream, untouched"
	streamIsRead  = "stream, read"
	streamSpooled = "stream, read and spooled"
)

// sentAgain is the rule as BEHAVIOURS has it, for a lone endpoint.
func sentAgain(method, body string, e ending1, p promise) bool {
	switch {
	case e.leaves, e.permanent, p.mark&Once != 0:
		return false
	case body == streamIsRead: // it cannot be had again
		return false
	case e.final && !slices.Contains(p.statuses, e.status):
		return false
	case e.unsent: // whatever the method
		return true
	case p.mark&NotIdempotent != 0:
		return false
	case p.header != "", p.mark&Idempotent != 0, p.policy:
		return true
	}
	return slices.Contains([]string{"", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}, method) // RFC 9110
}

const payload = "an order"

var mustURL = &url.URL{Scheme: "http", Host: "users", Path: "/"}

// firstEnds is a transport whose first attempt ends in some way, and the second is good.
type firstEnds struct {
	t     *testing.T
	how   ending1
	body  string
	key   string // of the header that all attempts must have, or empty
	leave context.CancelFunc
	sent  int
}

func (f *firstEnds) RoundTrip(req *http.Request) (*http.Response, error) {
	f.sent++
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if name == f.key {
			assert.Equal(f.t, []string{"k1"}, req.Header[name], "R-03: every attempt has the caller's key")
		} else {
			assert.NotContains(f.t, req.Header, name, "R-03: never added unasked")
		}
	}
	reads := f.body == getBody || f.body == streamIsRead || f.body == streamSpooled || f.sent > 1
	if req.Body != nil {
		if reads && req.Body != http.NoBody {
			got, err := io.ReadAll(req.Body)
			assert.NoError(f.t, err)
			assert.Equal(f.t, payload, string(got), "attempt %d sends all of it", f.sent)
		}
		_ = req.Body.Close()
	}
	if f.sent > 1 {
		return answer(req, 200, nil), nil
	}
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
		if f.how.asks {
			trace.GetConn("users:80")
		}
		if f.how.gets {
			trace.GotConn(httptrace.GotConnInfo{})
		}
	}
	if f.how.leaves {
		f.leave()
	}
	if f.how.leaves || f.how.hangs {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if f.how.err != nil {
		return nil, f.how.err
	}
	return answer(req, f.how.status, f.how.header), nil
}

func answer(req *http.Request, status int, header map[string]string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}
	for name, value := range header {
		resp.Header.Set(name, value)
	}
	return resp
}

// request returns a request with a body of that kind.
func request(ctx context.Context, method, body string) *http.Request {
	req := (&http.Request{Method: method, Header: http.Header{}}).WithContext(ctx)
	req.URL = mustURL
	payloads := func() io.ReadCloser { return io.NopCloser(bytes.NewReader([]byte(payload))) }
	switch body {
	case noBody:
	case emptyBody:
		req.Body = http.NoBody
	case getBody:
		req.Body, req.GetBody = payloads(), func() (io.ReadCloser, error) { return payloads(), nil }
		req.ContentLength = int64(len(payload))
	default:
		req.Body, req.ContentLength = payloads(), -1
	}
	return req
}

// Whether a request is sent again, for all that it depends on together.
func TestClassification_R01_R02_R03_R16(t *testing.T) {
	methods := []string{"", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "LOCK", "get"}
	bodies := []string{noBody, emptyBody, getBody, streamStays, streamIsRead, streamSpooled}
	cases, again := 0, 0
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, method := range methods {
					for _, body := range bodies {
						for _, e := range endings() {
							cases++
							want := 1
							if sentAgain(method, body, e, p) {
								want, again = 2, again+1
							}
							if got := sends(t, method, body, e, p); got != want {
								t.Errorf("%q, %s, %s, %s: sent %d times, not %d", method, body, e.name, p.name, got, want)
							}
						}
					}
				}
			})
		})
	}
	t.Logf("%d cases, sent again in %d", cases, again)
	assert.Greater(t, cases, 20000)
}

// sends makes the call and returns how often it was sent.
func sends(t *testing.T, method, body string, e ending1, p promise) int {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	policy := Policy{MaxAttempts: 2, Budget: Quota{Size: -1}, Statuses: p.statuses}
	if p.policy {
		policy.Idempotent = []string{"LINK", method}
		if method == "" {
			policy.Idempotent = nil
		}
	}
	if e.hangs {
		policy.PerAttemptTimeout = time.Second
	}
	if body == streamSpooled {
		policy.Spool = 100
	}
	base := &firstEnds{t: t, how: e, body: body, key: p.header, leave: leave}
	tr, err := NewTransport(base, policy)
	require.NoError(t, err)
	if p.mark != 0 {
		ctx = WithMark(ctx, p.mark)
	}
	req := request(ctx, method, body)
	if p.header != "" {
		req.Header.Set(p.header, "k1")
	}
	resp, err := tr.RoundTrip(req)
	if (resp == nil) == (err == nil) {
		t.Fatalf("both or neither of %v and %v", resp, err)
	}
	if resp != nil {
		_ = resp.Body.Close()
	}
	return base.sent
}

// The rule lets it be sent again, but then the body cannot be had: what the first attempt brought
// is the caller's.
func TestClassification_BodyCannotBeHadAgain_R13_R14(t *testing.T) {
	gone := errors.New("the file has gone")
	for _, e := range endings() {
		if !sentAgain("PUT", getBody, e, promise{}) || e.hangs {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &firstEnds{t: t, how: e, body: getBody}
				r := retrier(t, Policy{})
				req := request(t.Context(), "PUT", getBody)
				req.GetBody = func() (io.ReadCloser, error) { return nil, gone }
				resp, err := r.Transport(base).RoundTrip(req)
				if e.err != nil {
					require.ErrorIs(t, err, e.err)
					var failed *Error
					require.ErrorAs(t, err, &failed)
					assert.Equal(t, outcome.NotReplayable, failed.Reason)
					assert.Len(t, failed.Attempts, 1)
				} else {
					require.NoError(t, err)
					assert.Equal(t, e.status, resp.StatusCode)
					info, _ := InfoOf(resp)
					assert.Equal(t, outcome.NotReplayable, info.Reason)
					_ = resp.Body.Close()
				}
				assert.Equal(t, 1, base.sent)
				assert.Equal(t, defaultQuotaSize, r.Tokens(), "an attempt that was not made costs nothing")
			})
		})
	}
}

// A call inside a call was never sent only if none of its attempts was: its error holds them all.
func TestClassification_NestedCall_R01_R02(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	for _, e := range endings() {
		if !e.unsent || e.hangs || e.leaves {
			continue
		}
		for _, body := range []string{noBody, getBody, streamStays} {
			t.Run(e.name+", "+body, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reached := 0
					first := &firstEnds{t: t, how: e, body: streamStays}
					base := transportFunc(func(req *http.Request) (*http.Response, error) {
						if first.sent == 0 {
							return first.RoundTrip(req)
						}
						reached++ // bytes have left
						if trace := httptrace.ContextClientTrace(req.Context()); trace != nil && e.asks {
							trace.GetConn("users:80")
							trace.GotConn(httptrace.GotConnInfo{})
						}
						return nil, reset
					})
					inner, err := NewTransport(base, Policy{})
					require.NoError(t, err)
					outer, err := NewTransport(inner, Policy{})
					require.NoError(t, err)
					_, err = outer.RoundTrip(request(t.Context(), "POST", body))
					require.ErrorIs(t, err, reset)
					assert.Equal(t, 1, reached)
				})
			})
		}
	}
}

// The call inside knows that it cannot have the body again, and leaves the repetition to the one
// around it, without a wait of its own.
func TestClassification_NestedBody_R05(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		base := transportFunc(func(req *http.Request) (*http.Response, error) {
			sent++
			got, err := io.ReadAll(req.Body)
			assert.NoError(t, err)
			assert.Equal(t, payload, string(got))
			_ = req.Body.Close()
			return answer(req, 503, nil), nil
		})
		inner, err := NewTransport(base, Policy{Backoff: Backoff{Kind: Constant, Base: time.Hour}})
		require.NoError(t, err)
		outer, err := NewTransport(inner, Policy{Backoff: Backoff{Kind: Constant, Base: time.Second}})
		require.NoError(t, err)
		start := time.Now()
		resp, err := outer.RoundTrip(request(t.Context(), "PUT", getBody))
		require.NoError(t, err)
		assert.Equal(t, 503, resp.StatusCode)
		_ = resp.Body.Close()
		assert.Equal(t, 3, sent, "the bound of the call around, not the product")
		assert.Equal(t, 2*time.Second, time.Since(start))
	})
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

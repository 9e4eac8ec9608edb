package evenkeel_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// connectionRows are T-12 to T-16 and what B-12, B-14 and R-16 say of
// connections.
func connectionRows() []row {
	const noTLS = "there is no TLS"
	overTLS := func(a applies) applies { return a.over(noTLS, http2) }
	return []row{
		{"T-12", "CloseIdleConnections reaches every endpoint", everywhere, false, closeIdleReachesEveryEndpoint},
		{"T-12", "CloseIdleConnections reaches custom transports", everywhere, false, closeIdleReachesCustomTransports},
		{"T-12", "CloseIdleConnections needs no support", everywhere, false, closeIdleNeedsNoSupport},
		{"T-13", "Host and server name are the target's", everywhere, false, hostAndServerNameAreTheTargets},
		{"T-13", "Host can be overridden", everywhere, false, hostCanBeOverridden},
		{"T-13", "only the target's certificate is accepted", overTLS(wherePicked), false, onlyTheTargetsCertificate},
		{"T-13", "connections are not shared between endpoints", whereBalanced, false, connectionsAreNotShared},
		{"R-16", "a bad certificate gets one other endpoint at most", overTLS(wherePicked), false, aBadCertificateGetsOneOther},
		{"R-16", "a bad certificate is not tried again", overTLS(whereRetried), false, aBadCertificateIsNotTriedAgain},
		{"T-14", "a dead HTTP/2 connection is replaced", whereBalanced.over("HTTP/1.1 has no pings", http2, h2c), false, aDeadConnectionIsReplaced},
		{"T-15", "a bounded pool does not deadlock itself", whereRetried, false, aBoundedPoolDoesNotDeadlock},
		{"T-14", "a call on a dead HTTP/2 connection is repeated on a new one", wherePicked.over("HTTP/1.1 has no pings", http2, h2c), false, aCallOnADeadConnectionIsRepeated},
		{"T-16", "an idle endpoint keeps nothing and is usable again", whereBalanced, false, anIdleEndpointKeepsNothing},
		{"T-16", "churn leaks nothing", whereBalanced, true, churnLeaksNothing},
		{"B-12", "removal drains", whereBalanced, false, removalDrains},
		{"B-12", "a drain has an end", whereBalanced, false, aDrainHasAnEnd},
		{"B-14", "an address under another identity is new", whereBalanced, false, anotherIdentityIsNew},
	}
}

func closeIdleReachesEveryEndpoint(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	others := []*evenkeeltest.Server{a}
	if s.kind != retryAlone {
		others = append(others, s.serve("b"), s.serve("c"))
	}
	s.use(config{})
	for range 2 * len(others) {
		s.get()
	}
	for _, server := range others {
		require.Equal(t, 1, server.OpenConns(), server.Addr())
	}
	synctest.Wait() // net/http finishes with a stream of HTTP/2 after its last byte was read

	(&http.Client{Transport: s.rt}).CloseIdleConnections()

	synctest.Wait()
	for _, server := range others {
		assert.Zero(t, server.OpenConns(), server.Addr())
	}
	s.get() // and it is usable afterwards
}

// idleCloser is a custom transport that counts the calls.
type idleCloser struct {
	http.RoundTripper
	calls *counter
	name  string
}

func (c idleCloser) CloseIdleConnections() { c.calls.add(c.name) }

func closeIdleReachesCustomTransports(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.serve("b")
	var calls counter
	s.use(config{endpoint: func(e discovery.Endpoint) http.RoundTripper {
		return idleCloser{roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answerTo(req, 200, textBody("x")), nil
		}), &calls, e.Address}
	}})
	s.get()
	s.get()

	(&http.Client{Transport: s.rt}).CloseIdleConnections()

	if s.kind == retryAlone {
		assert.Positive(t, calls.get(""))
		return
	}
	assert.Positive(t, calls.get("a:80"))
	assert.Positive(t, calls.get("b:80"))
}

func closeIdleNeedsNoSupport(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.use(config{endpoint: func(discovery.Endpoint) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answerTo(req, 200, textBody("x")), nil
		})
	}})
	client := &http.Client{Transport: s.rt}
	client.CloseIdleConnections()
	s.get()
	client.CloseIdleConnections()
	s.get()
}

// Given a target with a name and an endpoint with an address, then the server is
// told the name, in Host and, over TLS, in the handshake.
func hostAndServerNameAreTheTargets(t *testing.T, s *stackUnderTest) {
	a := s.serve("10.0.0.5")
	s.use(config{})
	s.get()

	got := a.Received()[0]
	assert.Equal(t, host, got.Host)
	if s.protocol == http2 {
		assert.Equal(t, host, got.ServerName)
	}
}

func hostCanBeOverridden(t *testing.T, s *stackUnderTest) {
	a := s.serve("10.0.0.5")
	s.use(config{})
	req := s.request(http.MethodGet)
	req.Host = "virtual.example"
	_, _ = s.answer(req)

	got := a.Received()[0]
	assert.Equal(t, "virtual.example", got.Host)
	if s.protocol == http2 {
		assert.Equal(t, host, got.ServerName)
	}
}

// Given one endpoint with the target's certificate and one with a certificate for
// its own address, then all calls are answered by the first, and the second was
// asked for the target's name.
func onlyTheTargetsCertificate(t *testing.T, s *stackUnderTest) {
	var asked counter
	good := s.serveConfig(evenkeeltest.ServerConfig{Address: "good:80", Certificate: host})
	bad := s.serveConfig(evenkeeltest.ServerConfig{Address: "bad:80", Certificate: "bad", Configure: func(srv *http.Server) {
		srv.TLSConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked.add(hello.ServerName)
			return nil, nil
		}
	}})
	s.use(config{})

	for range 10 {
		assert.Equal(t, "good:80", s.get())
	}

	good.AssertRequests(t, 10)
	bad.AssertRequests(t, 0)
	assert.Positive(t, asked.get(host))
	assert.Positive(t, s.failures(bad))
}

// Given two endpoints behind one URL, then what is picked for one never travels on
// a connection of the other, although scheme, host and port are the same.
func connectionsAreNotShared(t *testing.T, s *stackUnderTest) {
	a, b := s.serve("a"), s.serve("b")
	s.use(config{})
	answers := map[string]int{}
	for range 10 {
		answers[s.get()]++
		s.settle()
	}

	assert.Equal(t, map[string]int{"a": 5, "b": 5}, answers)
	for _, server := range []*evenkeeltest.Server{a, b} {
		server.AssertRequests(t, 5)
		assert.Equal(t, 1, server.Dials())
	}
}

// Given four endpoints with a wrong certificate, then a call tries two of them:
// what is wrong with the second is wrong with the target.
func aBadCertificateGetsOneOther(t *testing.T, s *stackUnderTest) {
	dials := 0
	for _, name := range []string{"a", "b", "c", "d"} {
		s.serveConfig(evenkeeltest.ServerConfig{Address: name + ":80", Certificate: "wrong.example"})
	}
	s.use(config{})

	err := s.fail(s.replayable(http.MethodPost, evenkeeltest.NewBody("secret")))

	for _, server := range s.servers {
		assert.LessOrEqual(t, server.Dials(), 1, server.Addr())
		dials += server.Dials()
	}
	assert.Equal(t, 2, dials)
	assert.Equal(t, outcome.Permanent, reason(err))
	assert.NotNil(t, as[*tls.CertificateVerificationError](err), "%v", err)
}

func aBadCertificateIsNotTriedAgain(t *testing.T, s *stackUnderTest) {
	a := s.serveConfig(evenkeeltest.ServerConfig{Address: "a:80", Certificate: "wrong.example"})
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	err := s.fail(s.request(http.MethodGet))

	assert.Equal(t, 1, a.Dials())
	assert.Equal(t, outcome.Permanent, reason(err))
}

// Given a connection on which nothing arrives any more, then it is closed after
// 20 s (15 s of silence and 5 s for the ping's answer), and the next request
// succeeds on a new one.
func aDeadConnectionIsReplaced(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{})
	s.get()
	s.settle()
	a.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_ = s.fail(s.request(http.MethodGet).WithContext(ctx))
	require.Equal(t, 1, a.OpenConns(), "nobody can know yet")

	time.Sleep(16 * time.Second)
	synctest.Wait()
	assert.Zero(t, a.OpenConns(), "the connection is still there")
	a.Thaw()
	s.get()

	assert.Equal(t, 2, a.Dials())
	require.Len(t, s.status().Endpoints, 1)
	assert.Equal(t, 1, s.status().Endpoints[0].Connections)
}

// Given a call without any time limit that was sent into the void, then it ends
// when the connection is found dead, and is repeated elsewhere.
func aCallOnADeadConnectionIsRepeated(t *testing.T, s *stackUnderTest) {
	a, b := s.serve("a"), s.serve("b")
	s.use(config{})
	first := s.get()
	s.get()
	s.settle()
	next := map[string]*evenkeeltest.Server{"a": a, "b": b}[first] // it is the turn of the first again
	next.Freeze()
	start := time.Now()

	assert.NotEqual(t, first, s.get())

	assert.Equal(t, 20*time.Second, time.Since(start))
	assert.Equal(t, 1, s.failures(next))
	synctest.Wait() // the call ends before net/http has closed the connection
	assert.Zero(t, next.OpenConns())
	next.Thaw()
}

// Given an endpoint without requests for a while, then neither a connection nor
// its transport is kept, and the next request makes both anew.
func anIdleEndpointKeepsNothing(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{})
	for round := range 3 {
		s.get()
		time.Sleep(11 * time.Minute)
		assert.Zero(t, a.OpenConns())
		assert.Equal(t, round+1, a.Dials())
	}
}

// Given one connection per host and a 503 whose body nobody has read, then the
// retry does not wait for the connection that its own answer holds.
func aBoundedPoolDoesNotDeadlock(t *testing.T, s *stackUnderTest) {
	for _, size := range []int{100, 100 << 10} {
		a := s.serve(fmt.Sprintf("a%d", size), evenkeeltest.Status(503).Body(strings.Repeat("x", size)), evenkeeltest.OK("a"))
		s.servers = s.servers[len(s.servers)-1:]
		s.use(config{template: func(tr *http.Transport) { tr.MaxConnsPerHost = 1 }, retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		status, _ := s.answer(s.request(http.MethodGet).WithContext(ctx))
		cancel()
		assert.Equal(t, http.StatusOK, status)
		a.AssertRequests(t, 2)
		synctest.Wait() // net/http finishes with a stream of HTTP/2 after its last byte was read
		s.close()
	}
}

// Given 1000 endpoints that come and go in waves of ten, each with a request, then
// connections and goroutines are afterwards what they were after the first wave.
func churnLeaksNothing(t *testing.T, s *stackUnderTest) {
	const waves, size = 100, 10
	names := func(wave int) (list []discovery.Endpoint) {
		for i := range size { // 20 servers, each wave with identities of its own
			list = append(list, discovery.Endpoint{
				ID:      fmt.Sprintf("pod-%d-%d", wave, i),
				Address: fmt.Sprintf("s%d:80", (wave%2)*size+i),
			})
		}
		return list
	}
	for i := range 2 * size {
		s.serve(fmt.Sprintf("s%d", i))
	}
	r := newPushed()
	s.use(config{resolver: r})
	var goroutines, conns int
	for wave := range waves {
		r.push(names(wave)...)
		for range size {
			s.get()
		}
		synctest.Wait()
		if wave == 0 {
			goroutines, conns = runtime.NumGoroutine(), s.openConns()
		}
	}

	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2) // of a test before, some may have ended since
	assert.InDelta(t, conns, s.openConns(), 2, "connections")
	assert.Len(t, s.status().Endpoints, size)
	assert.Zero(t, s.status().Draining)
	dials := 0
	for _, server := range s.servers {
		dials += server.Dials()
	}
	assert.Equal(t, waves*size, dials, "every endpoint was new, and used")
}

func (s *stackUnderTest) openConns() int {
	n := 0
	for _, server := range s.servers {
		n += server.OpenConns()
	}
	return n
}

// Given an endpoint that leaves with five requests in flight and idle connections
// beside them, then it gets nothing new from that moment, the five end well, and
// then its connections are closed.
func removalDrains(t *testing.T, s *stackUnderTest) {
	const inFlight = 5
	slow := evenkeeltest.OK("a").Delay(10 * time.Second)
	a := s.serve("a", evenkeeltest.Repeat(inFlight, slow), evenkeeltest.OK("a"))
	b := s.serve("b")
	r := newPushed()
	s.use(config{resolver: r})
	r.pushServers(a)
	var calls sync.WaitGroup
	for range inFlight {
		calls.Go(func() { assert.Equal(t, "a", s.get()) })
	}
	time.Sleep(time.Second)
	require.Equal(t, "a", s.get(), "leaves an idle connection on HTTP/1.1")

	r.pushServers(b)

	assert.Equal(t, 1, s.status().Draining)
	for range 20 {
		assert.Equal(t, "b", s.get())
	}
	a.AssertRequests(t, inFlight+1)
	calls.Wait()
	synctest.Wait()
	assert.Zero(t, a.OpenConns())
	assert.Zero(t, s.status().Draining)
	s.assertNoFailures()
}

// Given a response that an endpoint does not end, when the endpoint has left for
// 30 s, then its connection is closed under it.
func aDrainHasAnEnd(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK(strings.Repeat("x", 1000)).Drip(1, time.Second))
	b := s.serve("b")
	r := newPushed()
	s.use(config{resolver: r})
	r.pushServers(a)
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	r.pushServers(b)

	time.Sleep(29 * time.Second)
	require.Equal(t, 1, a.OpenConns())
	time.Sleep(2 * time.Second)
	synctest.Wait()
	assert.Zero(t, a.OpenConns())
	_, err = resp.Body.Read(make([]byte, 2000))
	for err == nil {
		_, err = resp.Body.Read(make([]byte, 2000))
	}
	resp.Body.Close()
	assert.Zero(t, s.status().Draining)
}

// Given an address that comes back under another identity, then no connection and
// no count of the old one is used.
func anotherIdentityIsNew(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(500), evenkeeltest.OK("a"))
	r := newPushed()
	s.use(config{resolver: r})
	r.push(discovery.Endpoint{ID: "pod-1", Address: a.Addr()})
	_, _ = s.answer(s.request(http.MethodGet))
	require.Equal(t, 1, s.failures(a))
	require.Equal(t, 1, a.Received()[0].Conn)

	r.push(discovery.Endpoint{ID: "pod-2", Address: a.Addr()})

	synctest.Wait()
	assert.Zero(t, a.OpenConns(), "the idle connection of the old one")
	assert.Zero(t, s.failures(a))
	s.get()
	assert.Equal(t, 2, a.Received()[1].Conn)
	status := s.status().Endpoints[0]
	assert.Equal(t, "pod-2", status.Endpoint.ID)
	assert.EqualValues(t, 1, status.Attempts)
}

package evenkeel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// endpointRows are B-01: what counts as in flight.
func endpointRows() []row {
	const noNetwork = "the transports are the test's own, and know no protocol"
	return []row{
		{"B-01", "in-flight counts return to zero after 10000 calls", whereBalanced.over(noNetwork, http1), false, countsReturnToZero},
		{"B-01", "in-flight counts return to zero on the wire", whereBalanced, false, countsReturnToZeroOnTheWire},
		{"B-01", "a request counts to the end of its body", whereBalanced, false, aRequestCountsToTheEndOfItsBody},
		{"B-01", "a body that breaks is one failure", whereBalanced, false, aBodyThatBreaksIsAFailure},
		{"B-01", "a hook that panics leaves nothing in flight", wholeOnly.over(noNetwork, http1), false, aPanickingHookLeavesNothing},
	}
}

var errOrdered = errors.New("ordered failure")

// scripted is a transport that ends a request as its header X-End says.
func scripted(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	switch req.Header.Get("X-End") {
	case "error":
		return nil, errOrdered
	case "panic":
		panic(errOrdered)
	case "neither":
		return nil, nil
	case "wait":
		<-req.Context().Done()
		return nil, req.Context().Err()
	case "status":
		return answerTo(req, 503, textBody("sorry")), nil
	case "empty":
		return answerTo(req, 204, http.NoBody), nil
	case "nil body":
		return answerTo(req, 200, nil), nil
	case "break":
		return answerTo(req, 200, io.NopCloser(io.MultiReader(bytes.NewReader([]byte("half")), brokenReader{}))), nil
	case "upgrade":
		return answerTo(req, 101, upgraded{new(bytes.Buffer)}), nil
	}
	return answerTo(req, 200, textBody("all of it")), nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errOrdered }

type upgraded struct{ io.ReadWriter }

func (upgraded) Close() error { return nil }

// ends are the ways in which a call ends: what the transport does, and what the
// caller does with the answer.
var ends = []struct {
	transport string
	caller    func(body io.ReadCloser)
}{
	{"error", nil},
	{"panic", nil},
	{"neither", nil},
	{"wait", nil}, // for the caller, who cancels
	{"empty", nil},
	{"nil body", nil},
	{"", func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) }},                          // EOF without Close
	{"", func(b io.ReadCloser) { b.Close() }},                                              // Close without read
	{"", func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b); b.Close(); b.Close() }},    // double Close
	{"", func(b io.ReadCloser) { go b.Close(); go b.Close() }},                             // Close from anywhere
	{"status", func(b io.ReadCloser) { b.Close(); _, _ = b.Read(make([]byte, 1)) }},        // read after Close
	{"break", func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) }},                     // error without Close
	{"break", func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b); b.Close() }},          // error and Close
	{"upgrade", func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b); b.Close() }},        // EOF is not the end of 101
	{"upgrade", func(b io.ReadCloser) { b.Close(); _, _ = b.(io.Writer).Write([]byte{}) }}, // write after Close
}

// Given 10 000 calls with all endings at random, while endpoints come and go, then
// every count is zero afterwards and was never below it.
func countsReturnToZero(t *testing.T, s *stackUnderTest) {
	const workers, calls, names = 20, 500, 6
	r := newPushed()
	s.use(config{
		resolver: r, balancer: balancer.LeastRequest{},
		retry:    retry.Policy{Backoff: retry.Backoff{Base: soon}},
		endpoint: func(discovery.Endpoint) http.RoundTripper { return roundTripFunc(scripted) },
	})
	random := rand.New(seeded(t, 1))
	all := make([]discovery.Endpoint, names)
	for i := range all {
		all[i].Address = fmt.Sprintf("e%d:80", i)
	}
	r.push(all...)
	var over atomic.Bool
	var watch, calling sync.WaitGroup
	watch.Go(func() { // churn, and a look at the counts
		for !over.Load() {
			keep := append([]discovery.Endpoint(nil), all[:1+random.IntN(names)]...)
			r.push(keep...)
			for _, e := range s.status().Endpoints {
				assert.GreaterOrEqual(t, e.InFlight, int64(0), "%s", e.Endpoint)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for w := range workers {
		random := rand.New(rand.NewPCG(1, uint64(w)))
		calling.Go(func() {
			for range calls {
				s.callAtRandom(random.IntN(len(ends)))
				time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond / 10)
			}
		})
	}
	calling.Wait()
	over.Store(true)
	watch.Wait()
	synctest.Wait()

	r.push(all...)
	for _, e := range s.status().Endpoints {
		assert.Zero(t, e.InFlight, "%s", e.Endpoint)
	}
	assert.Zero(t, s.status().Draining)
}

// callAtRandom makes one call that ends in the given way.
func (s *stackUnderTest) callAtRandom(way int) {
	end := ends[way]
	defer func() {
		if v := recover(); v != nil && v != errOrdered {
			panic(v)
		}
	}()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	req := s.request(http.MethodGet).WithContext(ctx)
	req.Header.Set("X-End", end.transport)
	if end.transport == "wait" {
		time.AfterFunc(time.Millisecond, cancel)
	}
	resp, err := s.rt.RoundTrip(req)
	if err == nil && end.caller != nil {
		end.caller(resp.Body)
	}
}

// Given real servers and every way to end, then the same holds.
func countsReturnToZeroOnTheWire(t *testing.T, s *stackUnderTest) {
	steps := []http.Handler{
		evenkeeltest.OK("all of it"), evenkeeltest.Status(503), evenkeeltest.Status(204), evenkeeltest.Hang(),
		evenkeeltest.ResetAfter(0), evenkeeltest.CloseAfter(0), evenkeeltest.OK("all of it").CloseMidBody(3), evenkeeltest.EarlyStatus(413),
		evenkeeltest.Upgrade(),
	}
	random := rand.New(seeded(t, 2))
	anyStep := func() http.Handler {
		var order []http.Handler
		for range 200 {
			order = append(order, steps[random.IntN(len(steps))])
		}
		return evenkeeltest.Script(order...)
	}
	for _, name := range []string{"a", "b", "c"} {
		s.serve(name, anyStep())
	}
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}, PerAttemptTimeout: time.Second}})
	var calling sync.WaitGroup
	for w := range 8 {
		random := rand.New(rand.NewPCG(2, uint64(w)))
		calling.Go(func() {
			for range 25 {
				s.callOnTheWire(random)
			}
		})
	}
	calling.Wait()
	synctest.Wait()
	for _, e := range s.status().Endpoints {
		assert.Zero(t, e.InFlight, "%s", e.Endpoint)
		assert.Positive(t, e.Attempts)
	}
}

func (s *stackUnderTest) callOnTheWire(random *rand.Rand) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Duration(1+random.IntN(3000))*time.Millisecond)
	defer cancel()
	req := s.request(http.MethodPut).WithContext(ctx)
	evenkeeltest.NewBody("a body").Replayable(req)
	if random.IntN(5) == 0 && s.protocol == http1 {
		req = s.upgradeRequest().WithContext(ctx)
	}
	resp, err := s.rt.RoundTrip(req)
	if err != nil {
		return
	}
	way := random.IntN(3)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		way = 1 // nothing to read until something is written
	}
	switch way {
	case 0:
		_, _ = io.Copy(io.Discard, resp.Body)
	case 1:
		resp.Body.Close()
	default:
		_, _ = resp.Body.Read(make([]byte, 1))
		resp.Body.Close()
		resp.Body.Close()
	}
}

func aRequestCountsToTheEndOfItsBody(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("all of it").Drip(1, time.Second))
	s.use(config{})
	inFlight := func() int64 { return s.status().Endpoints[0].InFlight }
	for _, end := range []func(io.ReadCloser){
		func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) },
		func(b io.ReadCloser) { b.Close() },
	} {
		resp, err := s.do(s.request(http.MethodGet))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		assert.EqualValues(t, 1, inFlight())
		end(resp.Body)
		assert.Zero(t, inFlight())
		resp.Body.Close()
		assert.Zero(t, inFlight())
	}
}

// Given a 200 whose body breaks off, then the endpoint has failed (K-16), once,
// however often the body is asked again.
func aBodyThatBreaksIsAFailure(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("all of it").CloseMidBody(3))
	s.use(config{})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	for range 3 { // some readers ask again
		_, _ = resp.Body.Read(make([]byte, 1))
	}
	resp.Body.Close()
	_, _ = resp.Body.Read(make([]byte, 1))
	assert.Equal(t, 1, s.failures(a))
	status := s.status().Endpoints[0]
	assert.EqualValues(t, 1, status.Attempts)
}

// Given a hook of the user's that panics, then the panic reaches the caller, and
// nothing stays in flight: a server that recovers panics would otherwise lose the
// endpoint for ever.
func aPanickingHookLeavesNothing(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.use(config{
		endpoint: func(discovery.Endpoint) http.RoundTripper { return roundTripFunc(scripted) },
		hooks:    evenkeel.Hooks{Attempt: func(evenkeel.Attempt) { panic(errOrdered) }},
	})
	assert.Panics(t, func() { _, _ = s.do(s.request(http.MethodGet)) })
	s.settle() // an attempt on a goroutine of its own ends a moment later
	assert.Zero(t, s.status().Endpoints[0].InFlight)
	assert.Zero(t, s.whole.Stats().Active)
}

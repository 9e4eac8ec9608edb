package evenkeel_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// discardRows are R-15: what becomes of answers that nobody wants.
func discardRows() []row {
	const streams = "HTTP/2 has one connection anyway"
	return []row{
		{"R-15", "a dribbling body does not delay the next attempt", whereRetried, false, aDribblingBodyDelaysNobody},
		{"R-15", "a silent body does not delay the next attempt", whereRetried, false, aSilentBodyDelaysNobody},
		{"R-15", "a small error body keeps the connection", whereRetried.over(streams, http1), false, aSmallErrorBodyKeepsTheConnection},
		{"R-15", "a chunked error body keeps the connection", whereRetried.over(streams, http1), false, aChunkedErrorBodyKeepsTheConnection},
		{"R-15", "a large error body is not read", whereRetried, false, aLargeErrorBodyIsNotRead},
		{"R-15", "bodies are closed attempt by attempt", whereRetried, false, bodiesAreClosedAttemptByAttempt},
	}
}

// assertSecondWithin checks when the second attempt came.
func (s *stackUnderTest) assertSecondWithin(limit time.Duration, server *evenkeeltest.Server) {
	s.t.Helper()
	got := server.Received()
	require.Len(s.t, got, 2)
	assert.LessOrEqual(s.t, got[1].At.Sub(got[0].At), limit+soon)
}

// Given a 503 that sends a byte per second, of known length or not, then the next
// attempt starts within 50 ms, and the server is told to stop.
func aDribblingBodyDelaysNobody(t *testing.T, s *stackUnderTest) {
	endless := evenkeeltest.Status(503).Body(strings.Repeat("x", 1000)).Drip(1, time.Second)
	for i, step := range []http.Handler{endless, endless.Trailer("X", "y")} { // a trailer needs chunks
		a := s.serve(fmt.Sprintf("a%d", i), step, evenkeeltest.OK("a"))
		s.servers = []*evenkeeltest.Server{a}
		s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

		s.get()

		s.assertSecondWithin(50*time.Millisecond, a)
		time.Sleep(2 * time.Second) // the server notices at its next byte
		assert.Zero(t, a.ActiveRequests())
		if s.protocol == http1 {
			assert.Equal(t, 1, a.OpenConns(), "the connection of the endless body")
		}
		s.close()
	}
}

// Given a 503 whose body does not come at all.
func aSilentBodyDelaysNobody(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	s.get()

	s.assertSecondWithin(50*time.Millisecond, a)
	synctest.Wait()
	assert.Zero(t, a.ActiveRequests())
}

func aSmallErrorBodyKeepsTheConnection(t *testing.T, s *stackUnderTest) {
	s.keepsTheConnection(evenkeeltest.Status(503).Body(strings.Repeat("x", 500)))
}

func aChunkedErrorBodyKeepsTheConnection(t *testing.T, s *stackUnderTest) {
	s.keepsTheConnection(evenkeeltest.Status(503).Body(strings.Repeat("x", 500)).Trailer("X", "y"))
}

// Given 500 bytes with each error, then three calls of three attempts use one
// connection.
func (s *stackUnderTest) keepsTheConnection(step http.Handler) {
	s.t.Helper()
	a := s.serve("a", step)
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	for range 3 {
		status, _ := s.answer(s.request(http.MethodGet))
		assert.Equal(s.t, 503, status)
	}
	a.AssertRequests(s.t, 9)
	assert.Equal(s.t, 1, a.Dials())
}

// Given an error page of 10 MiB, then it is not waited for.
func aLargeErrorBodyIsNotRead(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body(strings.Repeat("x", 10<<20)).Drip(64<<10, 10*time.Millisecond), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	s.get()

	s.assertSecondWithin(0, a)
	time.Sleep(2 * time.Second)
	assert.Zero(t, a.ActiveRequests())
}

// Given three attempts, then the body of each answer is closed before the next
// attempt is sent: a defer in the loop would hold all of them to the end.
func bodiesAreClosedAttemptByAttempt(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Repeat(3, evenkeeltest.Status(503).Body(strings.Repeat("x", 8<<10))), evenkeeltest.OK("a"))
	var open []*closeNoted
	s.use(config{
		retry: retry.Policy{MaxAttempts: 4, Backoff: retry.Backoff{Base: soon}},
		attempt: func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(req *http.Request) (*http.Response, error) {
				for i, before := range open {
					assert.True(t, before.closed, "answer %d is open while attempt %d is sent", i+1, len(open)+1)
				}
				resp, err := next.RoundTrip(req)
				if err == nil {
					open = append(open, &closeNoted{ReadCloser: resp.Body})
					resp.Body = open[len(open)-1]
				}
				return resp, err
			})
		},
	})
	s.get()
	assert.Len(t, open, 4)
}

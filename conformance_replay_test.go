package evenkeel_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// replayRows are about what net/http repeats by itself: with a body it must not,
// without one it must be counted.
func replayRows() []row {
	h2cOnly := func(a applies) applies {
		return a.over("the server is made by hand, and speaks HTTP/2 without TLS", h2c)
	}
	h1Only := func(a applies) applies { return a.over("HTTP/2 has other rules, which have rows of their own", http1) }
	return []row{
		{"R-03", "net/http does not repeat a request with a key", h1Only(everywhere), false, netHTTPDoesNotRepeatAKey},
		{"R-03", "the retry of a request with a key is ours", h1Only(whereRetried), false, theRetryOfAKeyIsOurs},
		{"R-01", "a repetition by net/http is told", h1Only(wholeOnly), false, aRepetitionByNetHTTPIsTold},
		{"R-02", "a refused stream is sent again", h2cOnly(whereRetried), false, aRefusedStreamIsSentAgain},
		{"R-02", "a stream after GOAWAY is sent again", h2cOnly(whereRetried), false, aStreamAfterGoAwayIsSentAgain},
		{"R-02", "net/http does not send it again by itself", h2cOnly(everywhere), false, netHTTPDoesNotSendItAgain},
		{"R-01", "PROTOCOL_ERROR is the exception which net/http makes", h2cOnly(everywhere), false, aProtocolErrorCountsAsRefused},
		{"R-01", "a bodyless PROTOCOL_ERROR is the exception which net/http makes", h2cOnly(everywhere), false, netHTTPRepeatsAProtocolError},
		{"R-01", "a server that always says GOAWAY does not keep a call busy", h2cOnly(everywhere), false, goAwayForEverEnds},
		{"R-01", "a POST reset with CANCEL is not sent again", h2cOnly(everywhere), false, aCancelledStreamIsNotSentAgain},
	}
}

// keyed is a POST that net/http would repeat on a connection that it had before.
func (s *stackUnderTest) keyed() (*http.Request, *evenkeeltest.Body) {
	body := evenkeeltest.NewBody("order 1")
	req := s.replayable(http.MethodPost, body)
	req.Header.Set("Idempotency-Key", "k")
	return req, body
}

// Given a connection that was used before and that the server closes under a
// request with body and key, when one attempt is allowed, then the server gets it
// once: GetBody was not called by net/http.
func netHTTPDoesNotRepeatAKey(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("a"), evenkeeltest.CloseAfter(0), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{MaxAttempts: 1}})
	s.get()
	req, body := s.keyed()

	_ = s.fail(req)

	a.AssertRequests(t, 2)
	assert.Empty(t, body.Copies())
	assert.Equal(t, a.Received()[0].Conn, a.Received()[1].Conn, "the connection was not used again, so nothing was tested")
}

func theRetryOfAKeyIsOurs(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("a"), evenkeeltest.CloseAfter(0), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	s.get()
	req, body := s.keyed()

	resp, err := s.do(req)
	require.NoError(t, err)
	readBody(t, resp)

	a.AssertRequests(t, 3)
	assert.Len(t, body.Copies(), 1)
	s.assertInfo(resp, 2, "")
	for _, r := range a.Received()[1:] {
		assert.Equal(t, []string{"k"}, r.Header["Idempotency-Key"])
	}
	assert.Equal(t, "order 1", string(a.Received()[2].Body))
}

// Given a GET on such a connection, then net/http repeats it, and the attempt says
// that it took two connections.
func aRepetitionByNetHTTPIsTold(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("a"), evenkeeltest.CloseAfter(0), evenkeeltest.OK("a"))
	var told []int
	s.use(config{hooks: evenkeel.Hooks{Attempt: func(a evenkeel.Attempt) { told = append(told, a.Connections) }}})
	s.get()
	s.get()

	a.AssertRequests(t, 3)
	assert.Equal(t, []int{1, 2}, told)
}

func (s *stackUnderTest) order() (*http.Request, *evenkeeltest.Body) {
	body := evenkeeltest.NewBody("order 1")
	return s.replayable(http.MethodPost, body), body
}

// useRaw makes a stack whose one endpoint is the server made by hand.
func (s *stackUnderTest) useRaw(raw *rawHTTP2, p retry.Policy) {
	s.serve("a") // takes no part: its address is what the stack knows
	s.use(config{dial: raw.dial, retry: p})
	s.t.Cleanup(func() {
		synctest.Wait()
		assert.Zero(s.t, raw.network.OpenConns(rawAddress))
	})
}

// Given REFUSED_STREAM, then a POST is sent again, as our attempt and with a body
// of its own.
func aRefusedStreamIsSentAgain(t *testing.T, s *stackUnderTest) {
	s.unprocessedIsSentAgain(serveRaw(t, resetStream(codeRefusedStream), answer200))
}

func aStreamAfterGoAwayIsSentAgain(t *testing.T, s *stackUnderTest) {
	s.unprocessedIsSentAgain(serveRaw(t, goAway, answer200))
}

func (s *stackUnderTest) unprocessedIsSentAgain(raw *rawHTTP2) {
	s.t.Helper()
	s.useRaw(raw, retry.Policy{Backoff: retry.Backoff{Base: soon}})
	req, body := s.order()

	resp, err := s.do(req)
	require.NoError(s.t, err)
	readBody(s.t, resp)

	assert.Equal(s.t, http.StatusOK, resp.StatusCode)
	assert.Equal(s.t, 2, raw.received())
	assert.Len(s.t, body.Copies(), 1)
	s.assertInfo(resp, 2, "")
}

// Given one attempt, then what the server did not process comes back as an error:
// the decision to send it again is not net/http's.
func netHTTPDoesNotSendItAgain(t *testing.T, s *stackUnderTest) {
	raw := serveRaw(t, resetStream(codeRefusedStream), answer200)
	s.useRaw(raw, retry.Policy{MaxAttempts: 1})
	req, body := s.order()

	_ = s.fail(req)

	assert.Equal(t, 1, raw.received())
	assert.Empty(t, body.Copies())
}

// Given PROTOCOL_ERROR, of which net/http assumes that nothing was processed, then
// so do we, because it cannot be told from a refused stream. The decision comes to
// us, and each attempt has a body of its own. Should net/http change its mind, this
// says so, and the promise can be made without an exception.
func aProtocolErrorCountsAsRefused(t *testing.T, s *stackUnderTest) {
	raw := serveRaw(t, resetStream(codeProtocolError), answer200)
	s.useRaw(raw, retry.Policy{Backoff: retry.Backoff{Base: soon}})
	req, body := s.order()
	if !s.retries() {
		_ = s.fail(req)
		assert.Equal(t, 1, raw.received())
		return
	}
	resp, err := s.do(req)
	require.NoError(t, err)
	readBody(t, resp)
	assert.Equal(t, 2, raw.received())
	assert.Len(t, body.Copies(), 1)
	s.assertInfo(resp, 2, "")
}

// Without a body, net/http asks nobody: it repeats the request inside the attempt.
func netHTTPRepeatsAProtocolError(t *testing.T, s *stackUnderTest) {
	raw := serveRaw(t, resetStream(codeProtocolError), answer200)
	s.useRaw(raw, retry.Policy{Backoff: retry.Backoff{Base: soon}})
	resp, err := s.do(s.request(http.MethodPost))
	require.NoError(t, err)
	readBody(t, resp)
	assert.Equal(t, 2, raw.received())
	s.assertInfo(resp, 1, "")
}

// Given a server that turns every connection away after it has the request, as one
// does that drains or is broken, then a GET ends: net/http by itself would dial
// and send without pause for as long as the caller waits.
func goAwayForEverEnds(t *testing.T, s *stackUnderTest) {
	raw := serveRaw(t, goAway)
	raw.most = 50
	s.useRaw(raw, retry.Policy{Backoff: retry.Backoff{Base: soon}})

	_ = s.fail(s.request(http.MethodGet))

	assert.LessOrEqual(t, raw.received(), 10, "requests for one call of three attempts")
}

func aCancelledStreamIsNotSentAgain(t *testing.T, s *stackUnderTest) {
	raw := serveRaw(t, resetStream(codeCancel), answer200)
	s.useRaw(raw, retry.Policy{Backoff: retry.Backoff{Base: soon}})
	req, _ := s.order()

	_ = s.fail(req)

	assert.Equal(t, 1, raw.received())
}

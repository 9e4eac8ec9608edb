package evenkeel_test

import (
	"context"
	"errors"
	"io"
	"net/http"
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

// contextRows are T-09 and T-18: who gave up, and the end of everything.
func contextRows() []row {
	return []row{
		{"T-09", "a caller who cancels with a cause is no failure", everywhere, false, aCallerWhoCancelsIsNoFailure},
		{"T-09", "a caller whose deadline has a cause is no failure", everywhere, false, aCallersDeadlineIsNoFailure},
		{"T-09", "a caller who cancels while reading is no failure", everywhere, false, aCallerWhoStopsReadingIsNoFailure},
		{"T-09", "a caller who closes the body is no failure", everywhere, false, aCallerWhoClosesTheBodyIsNoFailure},
		{"T-09", "a caller who closes the body is no failure even at once", everywhere, false, aReadMayEndBeforeTheClose},
		{"T-09", "a caller who cancels during the backoff gets no attempt", whereRetried, false, aCallerWhoCancelsWaiting},
		{"T-09", "a caller who cancels an upload is no failure", everywhere, false, aCallerWhoCancelsAnUpload},
		{"T-09", "the attempt's time limit is the endpoint's failure", whereRetried, false, theAttemptsTimeLimitIsAFailure},
		{"T-09", "the attempt's time limit does not repeat a POST", whereRetried, false, theAttemptsTimeLimitDoesNotRepeatAPost},
		{"T-09", "the call's time limit is a deadline", wholeOnly, false, theCallsTimeLimitIsADeadline},
		{"T-18", "nothing runs after Close", whereBalanced, false, nothingRunsAfterClose},
		{"T-18", "responses stay readable after Close", whereBalanced, false, responsesStayReadableAfterClose},
		{"T-18", "a call that waits for endpoints ends with Close", whereBalanced, false, aWaitingCallEndsWithClose},
		{"T-18", "a call in its backoff ends after Close", wholeOnly, false, aCallInItsBackoffEndsAfterClose},
		{"T-18", "Shutdown waits for the last body", wholeOnly, false, shutdownWaitsForTheLastBody},
	}
}

// gaveUp is the cause of callers who give up. It is no context error.
var errGaveUp = errors.New("the user has left the page")

func (s *stackUnderTest) assertNoFailures() {
	s.t.Helper()
	for _, e := range s.status().Endpoints {
		assert.Zero(s.t, e.Failures, "failures counted for %s", e.Endpoint)
	}
}

// Given a caller who cancels with a cause of their own while the server thinks,
// then nobody is blamed and nothing is repeated, whatever the protocol makes of it.
func aCallerWhoCancelsIsNoFailure(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Hang())
	s.serve("b", evenkeeltest.Hang())
	s.use(config{timeout: time.Hour, retry: retry.Policy{PerAttemptTimeout: time.Minute}})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(errGaveUp) })

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, 1, s.totalRequests())
	s.assertNoFailures()
	if s.retries() {
		assert.Equal(t, outcome.Caller, reason(err))
		assert.ErrorIs(t, err, context.Canceled, "what the protocol returns differs, this does not")
	}
}

func aCallersDeadlineIsNoFailure(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Hang())
	s.serve("b", evenkeeltest.Hang())
	s.use(config{timeout: time.Hour, retry: retry.Policy{PerAttemptTimeout: time.Minute}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGaveUp)
	defer cancel()
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, time.Second, time.Since(start))
	assert.Equal(t, 1, s.totalRequests())
	s.assertNoFailures()
	if s.retries() {
		assert.Equal(t, outcome.Caller, reason(err))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

// Given a body that its caller stops reading by cancelling, then the read fails,
// and the endpoint is not blamed.
func aCallerWhoStopsReadingIsNoFailure(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("0123456789").Drip(1, time.Second))
	s.use(config{})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(2500*time.Millisecond, func() { cancel(errGaveUp) })

	resp, err := s.do(s.request(http.MethodGet).WithContext(ctx))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	resp.Body.Close()

	s.assertNoFailures()
}

// Given a body that its caller closes while it is read, which is how streams are
// given up, or that is read after its Close, then the errors of these Reads are
// the caller's doing.
func aCallerWhoClosesTheBodyIsNoFailure(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("0123456789").Drip(1, time.Second))
	s.use(config{})
	for _, after := range []time.Duration{0, 2500 * time.Millisecond} {
		resp, err := s.do(s.request(http.MethodGet))
		require.NoError(t, err)
		if after == 0 {
			resp.Body.Close()
		} else {
			time.AfterFunc(after, func() { resp.Body.Close() })
		}
		_, err = io.ReadAll(resp.Body)
		require.Error(t, err)
		_, _ = resp.Body.Read(make([]byte, 1))
	}
	s.assertNoFailures()
}

// The same where the Read is back before Close is, which is a matter of luck on
// a network.
func aReadMayEndBeforeTheClose(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.use(config{endpoint: func(discovery.Endpoint) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answerTo(req, 200, &slowToClose{closed: make(chan struct{})}), nil
		})
	}})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	time.AfterFunc(time.Second, func() { resp.Body.Close() })

	_, err = io.ReadAll(resp.Body)

	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
	synctest.Wait()
	s.assertNoFailures()
	time.Sleep(time.Second) // until Close has returned
}

// slowToClose is a body whose Read ends as soon as Close begins.
type slowToClose struct{ closed chan struct{} }

func (b *slowToClose) Read([]byte) (int, error) {
	<-b.closed
	return 0, http.ErrBodyReadAfterClose
}

func (b *slowToClose) Close() error {
	close(b.closed)
	time.Sleep(time.Millisecond)
	return nil
}

func aCallerWhoCancelsWaiting(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503))
	s.use(config{rand: longest{}, retry: retry.Policy{Backoff: retry.Backoff{Base: time.Hour, Max: time.Hour}}})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(errGaveUp) })
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, time.Second, time.Since(start), "the wait ends with the caller")
	assert.Equal(t, outcome.Caller, reason(err))
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, errGaveUp)
	time.Sleep(time.Hour)
	a.AssertRequests(t, 1)
}

func aCallerWhoCancelsAnUpload(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.serve("b")
	s.use(config{})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(2500*time.Millisecond, func() { cancel(errGaveUp) })
	body := evenkeeltest.NewBodySize(10).Drip(1, time.Second)

	_ = s.fail(s.replayable(http.MethodPut, body).WithContext(ctx))

	assert.Equal(t, 1, s.totalRequests())
	s.assertNoFailures()
	assert.Empty(t, body.Copies())
}

// Given the library's own limit on an attempt while the caller waits on, then the
// endpoint has failed, and a request that may be repeated is.
func theAttemptsTimeLimitIsAFailure(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Hang(), evenkeeltest.OK("a"))
	s.use(config{rand: longest{}, retry: retry.Policy{PerAttemptTimeout: time.Second, Backoff: retry.Backoff{Base: soon}}})
	start := time.Now()

	assert.Equal(t, "a", s.get())

	assert.Equal(t, time.Second+soon, time.Since(start))
	a.AssertRequests(t, 2)
	if s.kind == full {
		assert.Equal(t, 1, s.failures(a))
	}
}

func theAttemptsTimeLimitDoesNotRepeatAPost(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Hang(), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second, Backoff: retry.Backoff{Base: soon}}})

	err := s.fail(s.replayable(http.MethodPost, evenkeeltest.NewBody("once")))

	a.AssertRequests(t, 1)
	assert.Equal(t, outcome.NotIdempotent, reason(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	timeout := as[interface {
		error
		Timeout() bool
	}](err)
	require.NotNil(t, timeout)
	assert.True(t, timeout.Timeout())
	if s.kind == full {
		assert.Equal(t, 1, s.failures(a))
	}
}

// Given the limit on the whole call, when it ends an attempt, then the reason is
// the deadline, the caller's context is alive, and the endpoint had its chance.
func theCallsTimeLimitIsADeadline(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Hang())
	s.use(config{timeout: 3 * time.Second})
	start := time.Now()

	err := s.fail(s.request(http.MethodGet))

	assert.Equal(t, 3*time.Second, time.Since(start))
	assert.Equal(t, outcome.Deadline, reason(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	s.settle() // an attempt on a goroutine of its own ends a moment later
	a.AssertRequests(t, 1)
	assert.Equal(t, 1, s.failures(a))
}

// Given a stack with a running watch and connections, when Close has returned,
// then calls are refused, nothing is told any more, and Close may come again. The
// bubble sees to the goroutines.
func nothingRunsAfterClose(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	r := newPushed()
	s.use(config{resolver: r})
	r.pushServers(s.servers...)
	s.get()

	s.close()
	synctest.Wait()
	s.network.AssertNoConns(t)
	err := s.fail(s.stream(http.MethodPost, evenkeeltest.NewBody("too late")))
	assert.Equal(t, outcome.Closed, reason(err))
	s.close()
	select {
	case r.answers <- nil:
		assert.Fail(t, "the watch goes on")
	default:
	}
}

// Given a response whose body is not read yet, when the stack is closed, then the
// body can be read to its end, which closes its connection.
func responsesStayReadableAfterClose(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("0123456789").Drip(1, time.Second))
	s.use(config{})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	s.close()

	time.Sleep(time.Hour)
	assert.Equal(t, "0123456789", readBody(t, resp))
	synctest.Wait()
	assert.Zero(t, a.OpenConns())
}

func aWaitingCallEndsWithClose(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: hungResolver()})
	time.AfterFunc(time.Second, s.close)
	start := time.Now()

	err := s.fail(s.stream(http.MethodPost, evenkeeltest.NewBody("never sent")))

	assert.Equal(t, time.Second, time.Since(start))
	assert.Equal(t, outcome.Closed, reason(err))
}

// Given a call that waits for its second attempt, when the transport is closed,
// then the attempt is refused and the caller gets the answer that there was.
func aCallInItsBackoffEndsAfterClose(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body("sorry"))
	s.use(config{rand: longest{}, retry: retry.Policy{Backoff: retry.Backoff{Base: 10 * time.Second, Max: 10 * time.Second}}})
	time.AfterFunc(time.Millisecond, s.close)

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "sorry", readBody(t, resp))
	a.AssertRequests(t, 1)
	s.assertInfo(resp, 1, outcome.Closed)
}

// Given a body that takes 10 s, then Shutdown takes as long, unless its context
// ends before; new calls are refused at once.
func shutdownWaitsForTheLastBody(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("0123456789").Drip(1, time.Second))
	s.use(config{})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	start := time.Now()
	over := make(chan error, 1)
	var took time.Duration
	go func() {
		err := s.whole.Shutdown(t.Context())
		took = time.Since(start)
		over <- err
	}()
	synctest.Wait()

	assert.Equal(t, outcome.Closed, reason(s.fail(s.request(http.MethodGet))))
	assert.Equal(t, "0123456789", readBody(t, resp))

	require.NoError(t, <-over)
	assert.Equal(t, 9*time.Second, took)
}

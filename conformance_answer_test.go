package evenkeel_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

const noUpgrades = "HTTP/2 has no upgrades"

// answerRows are T-08, T-10, T-11 and R-13: the response belongs to the caller,
// whole.
func answerRows() []row {
	upgrades := everywhere.over(noUpgrades, http1)
	return []row{
		{"T-08", "a slow body outlives the time limits", everywhere, false, aSlowBodyOutlivesTheTimeLimits},
		{"T-08", "the context of the attempt ends with the body", whereRetried, false, theContextEndsWithTheBody},
		{"T-10", "an upgraded connection is read and written", upgrades, false, anUpgradeIsReadAndWritten},
		{"T-10", "an upgrade is not cut by the attempt's time limit", whereRetried.over(noUpgrades, http1), false, anUpgradeIsNotCut},
		{"T-10", "an upgrade is not replayed", upgrades, false, anUpgradeIsNotReplayed},
		{"T-11", "an unannounced trailer survives", everywhere, false, anUnannouncedTrailerSurvives},
		{"T-11", "a trailer survives a retry", whereRetried, false, aTrailerSurvivesARetry},
		{"T-11", "a trailer of the request survives", everywhere, false, aTrailerOfTheRequestSurvives},
		{"R-13", "the last response survives", whereRetried, false, theLastResponseSurvives},
		{"R-13", "the response survives an empty quota", whereRetried, false, theResponseSurvivesAnEmptyQuota},
		{"R-13", "the response survives a deadline that forbids the wait", whereRetried, false, theResponseSurvivesTheDeadline},
		{"R-13", "the response survives when no endpoint is left", wholeOnly, false, theResponseSurvivesTheLastEndpoint},
		{"R-13", "a response beside an error of the transport is closed", everywhere, false, aResponseBesideAnErrorIsClosed},
	}
}

// Given limits on attempt and call that are shorter than reading takes, when the
// headers arrive in time, then every byte of 10 MiB can be read.
func aSlowBodyOutlivesTheTimeLimits(t *testing.T, s *stackUnderTest) {
	const size = 10 << 20
	s.serve("a", evenkeeltest.Status(200).Body(strings.Repeat("x", size)))
	s.use(config{timeout: 3 * time.Second, retry: retry.Policy{PerAttemptTimeout: 2 * time.Second}})

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	read := 0
	for piece := make([]byte, 1<<20); ; {
		n, err := io.ReadFull(resp.Body, piece)
		if read += n; err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		time.Sleep(time.Second)
	}
	require.NoError(t, resp.Body.Close())

	assert.Equal(t, size, read)
}

// Given an attempt with a time limit, then its context is alive until the body is
// at its end or closed, and cancelled then, so that nothing is left of it.
func theContextEndsWithTheBody(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("to be read"))
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second}})
	for _, end := range []func(*http.Response){
		func(r *http.Response) { _, _ = io.Copy(io.Discard, r.Body) },
		func(r *http.Response) { r.Body.Close() },
	} {
		resp, err := s.do(s.request(http.MethodGet))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		ctx := resp.Request.Context()
		assert.NoError(t, ctx.Err())
		end(resp)
		assert.Error(t, ctx.Err())
		resp.Body.Close()
	}
}

func (s *stackUnderTest) upgradeRequest() *http.Request {
	req := s.request(http.MethodGet)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	return req
}

// Given 101, then the body is an io.ReadWriteCloser on which an echo works, and
// the request is in flight until its Close.
func anUpgradeIsReadAndWritten(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Upgrade())
	s.use(config{})

	resp, err := s.do(s.upgradeRequest())
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok, "the body is a %T", resp.Body)
	lines := bufio.NewReader(conn)
	for range 3 {
		_, err = io.WriteString(conn, "ahoy\n")
		require.NoError(t, err)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "ahoy\n", line)
	}
	for _, e := range s.status().Endpoints {
		assert.EqualValues(t, 1, e.InFlight)
	}
	require.NoError(t, conn.Close())
	for _, e := range s.status().Endpoints {
		assert.Zero(t, e.InFlight)
	}
}

// Given a limit on attempts and a server that takes longer to agree, then the
// upgrade happens, and lives as long as it is wanted.
func anUpgradeIsNotCut(t *testing.T, s *stackUnderTest) {
	s.serve("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Second)
		evenkeeltest.Upgrade().ServeHTTP(w, r)
	}))
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second}})

	resp, err := s.do(s.upgradeRequest())
	require.NoError(t, err)
	time.Sleep(time.Hour)
	conn := resp.Body.(io.ReadWriteCloser)
	_, err = io.WriteString(conn, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

// Given an upgrade that a server may have seen, when it fails, then it is not
// sent again although its method is GET.
func anUpgradeIsNotReplayed(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.CloseAfter(0), evenkeeltest.Upgrade())
	b := s.serve("b", evenkeeltest.CloseAfter(0), evenkeeltest.Upgrade())
	s.use(config{})

	_ = s.fail(s.upgradeRequest())

	assert.Equal(t, 1, a.Requests()+b.Requests())
}

// Given a trailer that the headers did not announce, when the body was read to
// its end, then the response that the caller holds has it.
func anUnannouncedTrailerSurvives(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.OK("body").Trailer("X-Sum", "42"))
	s.use(config{})

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	assert.Equal(t, "body", readBody(t, resp))

	assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
}

func aTrailerSurvivesARetry(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Status(503), evenkeeltest.OK("body").Trailer("X-Sum", "42"))
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second}, timeout: time.Minute})

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	assert.Equal(t, "body", readBody(t, resp))

	assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
}

// Given a trailer of which the value is known only at the end of the body, then
// the server gets it: the attempt's request shares the map.
func aTrailerOfTheRequestSurvives(t *testing.T, s *stackUnderTest) {
	s.serve("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
	}))
	s.use(config{})
	req := s.request(http.MethodPost)
	req.Trailer = http.Header{"X-Sum": nil}
	req.Body, req.ContentLength = &atEnd{Reader: strings.NewReader("body"), do: func() { req.Trailer.Set("X-Sum", "42") }}, -1

	_, body := s.answer(req)

	assert.Equal(t, "42", body)
}

// atEnd is a body that does something at its end.
type atEnd struct {
	io.Reader
	do func()
}

func (b *atEnd) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.do()
	}
	return n, err
}

func (b *atEnd) Close() error { return nil }

// Given 503 on each attempt, when the attempts run out, then the caller has the
// last response with its whole body and no error.
func theLastResponseSurvives(t *testing.T, s *stackUnderTest) {
	big := strings.Repeat("sorry ", 20<<10)
	a := s.serve("a",
		evenkeeltest.Status(503).Body("1st"), evenkeeltest.Status(503).Body("2nd"),
		evenkeeltest.Status(503).Header("X-Attempt", "3").Body(big))
	s.use(config{retry: retry.Policy{PerAttemptTimeout: time.Second}, timeout: time.Minute})

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	time.Sleep(time.Hour) // no limit of the past reaches it

	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "3", resp.Header.Get("X-Attempt"))
	assert.Equal(t, big, readBody(t, resp))
	a.AssertRequests(t, 3)
	s.assertInfo(resp, 3, outcome.Attempts)
}

// assertInfo checks what the whole stack tells of a call that has a response.
func (s *stackUnderTest) assertInfo(resp *http.Response, attempts int, reason outcome.Reason) {
	s.t.Helper()
	if s.kind != full {
		return
	}
	info, ok := evenkeel.InfoOf(resp)
	require.True(s.t, ok)
	assert.Len(s.t, info.Attempts, attempts)
	assert.Equal(s.t, reason, info.Reason)
}

func theResponseSurvivesAnEmptyQuota(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body("sorry"))
	s.use(config{retry: retry.Policy{Budget: retry.Quota{Size: 1}}}) // a retry costs 5

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "sorry", readBody(t, resp))
	a.AssertRequests(t, 1)
	s.assertInfo(resp, 1, outcome.Quota)
}

// Given a deadline before the next attempt could be, then the answer comes at
// once, and is the one that was had.
func theResponseSurvivesTheDeadline(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body("sorry"))
	s.use(config{rand: longest{}, retry: retry.Policy{Backoff: retry.Backoff{Base: time.Hour, Max: time.Hour}}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()

	resp, err := s.do(s.request(http.MethodGet).WithContext(ctx))
	require.NoError(t, err)

	assert.Zero(t, time.Since(start))
	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "sorry", readBody(t, resp))
	a.AssertRequests(t, 1)
	s.assertInfo(resp, 1, outcome.Deadline)
}

// Given 503 from the only endpoint, when it leaves before the next attempt, then
// the caller gets the 503, not "no endpoints".
func theResponseSurvivesTheLastEndpoint(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body("sorry"))
	r := newPushed()
	s.use(config{
		resolver: discovery.LastGood{Resolver: r, EmptyGrace: -1}, rand: longest{},
		retry: retry.Policy{Backoff: retry.Backoff{Base: 10 * time.Second, Max: 10 * time.Second}},
	})
	r.pushServers(a)
	go func() {
		time.Sleep(time.Millisecond)
		r.push()
	}()

	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)

	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "sorry", readBody(t, resp))
	s.assertInfo(resp, 1, outcome.NoEndpoints)
}

// Given a transport that breaks the contract by an error beside a response, then
// the caller gets the error alone, and the response is closed.
func aResponseBesideAnErrorIsClosed(t *testing.T, s *stackUnderTest) {
	broken := errors.New("half a response")
	body := evenkeeltest.NewBody("half")
	s.serve("a")
	s.use(config{retry: retry.Policy{MaxAttempts: 1}, endpoint: func(discovery.Endpoint) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answerTo(req, 200, body), broken
		})
	}})

	err := s.fail(s.request(http.MethodGet))

	require.ErrorIs(t, err, broken)
	synctest.Wait()
	assert.Equal(t, 1, body.Account().Closes)
}

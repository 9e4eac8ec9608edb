package evenkeel_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// bodyRows are the promises about the body of the caller's request: T-01 to T-05.
func bodyRows() []row {
	return []row{
		{"T-01", "every attempt has the whole body", whereRetried, false, everyAttemptHasTheWholeBody},
		{"T-01", "no reader is given to two attempts", whereRetried, false, noReaderIsGivenToTwoAttempts},
		{"T-02", "a consumed body is not replayed", everywhere, false, aConsumedBodyIsNotReplayed},
		{"T-02", "an empty body is no body", whereRetried, false, anEmptyBodyIsNoBody},
		{"T-02", "a failing GetBody ends the retries", whereRetried, false, aFailingGetBodyEndsTheRetries},
		{"T-03", "an untouched stream fails over", wherePicked, false, anUntouchedStreamFailsOver},
		{"T-03", "an untouched stream is tried again", whereRetried, false, anUntouchedStreamIsTriedAgain},
		{"T-04", "a stream takes no memory", everywhere, true, aStreamTakesNoMemory},
		{"T-04", "a stream arrives before its end", everywhere, false, aStreamArrivesBeforeItsEnd},
		{"T-05", "a retry waits for the reader of the upload", whereRetried, false, aRetryWaitsForTheReader},
		{"T-05", "a reader that hangs ends the retries", whereRetried.over("the RoundTrip of HTTP/2 may itself wait for such a reader", http1), false, aReaderThatHangsEndsTheRetries},
	}
}

// Given a PUT with GetBody of which the first server reads a part and breaks,
// when it is sent again, then the second attempt has all of it, and the length.
func everyAttemptHasTheWholeBody(t *testing.T, s *stackUnderTest) {
	const size = 100 << 10
	a := s.serve("a", evenkeeltest.CloseAfter(10<<10), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	status, _ := s.answer(s.replayable(http.MethodPut, evenkeeltest.NewBodySize(size)))

	assert.Equal(t, http.StatusOK, status)
	a.AssertRequests(t, 2)
	for _, r := range a.Received() {
		assert.EqualValues(t, size, r.ContentLength)
	}
	assert.EqualValues(t, size, a.Received()[1].BodyRead)
	assert.True(t, a.Received()[1].BodyEnd)
}

// Given three attempts with bodies, then each of the three readers is read by one
// attempt, never after its Close by the next, and closed once.
func noReaderIsGivenToTwoAttempts(t *testing.T, s *stackUnderTest) {
	const content = "the whole of it"
	a := s.serve("a", evenkeeltest.Repeat(2, evenkeeltest.Status(503)), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	body := evenkeeltest.NewBody(content)

	status, _ := s.answer(s.replayable(http.MethodPut, body))

	assert.Equal(t, http.StatusOK, status)
	for _, r := range a.Received() {
		assert.Equal(t, content, string(r.Body))
	}
	synctest.Wait() // HTTP/2 closes bodies a little later
	require.Len(t, body.Copies(), 2, "one GetBody for each attempt after the first")
	for _, b := range append(body.Copies(), body) {
		assert.EqualValues(t, len(content), b.Account().Bytes)
	}
}

// Given a stream of which at least a byte was read, when the attempt fails, then
// there is no other and the caller gets what happened.
func aConsumedBodyIsNotReplayed(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.CloseAfter(1), evenkeeltest.OK("a"))
	b := s.serve("b", evenkeeltest.CloseAfter(1), evenkeeltest.OK("b"))
	s.use(config{})

	err := s.fail(s.stream(http.MethodPut, evenkeeltest.NewBody("read once")))

	assert.Equal(t, 1, a.Requests()+b.Requests())
	assert.Equal(t, 1, sent(err))
	if s.retries() {
		assert.Equal(t, outcome.NotReplayable, reason(err))
	}
}

// Given no body, http.NoBody, or a reader that is at its end, then the request is
// retried as one without a body.
func anEmptyBodyIsNoBody(t *testing.T, s *stackUnderTest) {
	a := s.serve("a",
		evenkeeltest.Status(503), evenkeeltest.OK("a"),
		evenkeeltest.Status(503), evenkeeltest.OK("a"),
		evenkeeltest.Status(503), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	for i, body := range []io.ReadCloser{nil, http.NoBody, io.NopCloser(strings.NewReader(""))} {
		req := s.request(http.MethodPut)
		req.Body, req.ContentLength = body, 0
		status, _ := s.answer(req)
		assert.Equal(t, http.StatusOK, status, "body %d", i)
	}
	a.AssertRequests(t, 6)
}

// Given a GetBody that fails, when the first answer was 503, then that answer is
// the caller's; there is no attempt without a body.
func aFailingGetBodyEndsTheRetries(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body("try later"), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	req := s.replayable(http.MethodPut, evenkeeltest.NewBody("x"))
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }

	status, body := s.answer(req)

	assert.Equal(t, 503, status)
	assert.Equal(t, "try later", body)
	a.AssertRequests(t, 1)
}

// Given a POST of a stream and two endpoints that refuse, then the third gets it
// whole, and the caller's body is closed once, at the end.
func anUntouchedStreamFailsOver(t *testing.T, s *stackUnderTest) {
	const content = "only once"
	for _, name := range []string{"a", "b", "c"} {
		s.serve(name)
	}
	for _, refusing := range []string{"a:80", "b:80"} {
		s.network.Refuse(refusing)
	}
	s.use(config{})
	for range 6 { // every first pick has its turn
		body := evenkeeltest.NewBody(content)
		status, answer := s.answer(s.stream(http.MethodPost, body))

		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, "c", answer)
		synctest.Wait()
		assert.Equal(t, 1, body.Account().Closes)
		assert.EqualValues(t, len(content), body.Account().Bytes)
	}
	for _, r := range s.servers[2].Received() {
		assert.Equal(t, content, string(r.Body))
	}
}

// Given a POST of a stream and one endpoint that refuses the first dial, then the
// second attempt there gets the body whole.
func anUntouchedStreamIsTriedAgain(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{dial: refuseFirst(1), retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})

	status, _ := s.answer(s.stream(http.MethodPost, evenkeeltest.NewBody("only once")))

	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "only once", string(a.Received()[0].Body))
}

// Given a stream of 64 MiB, when it is sent, then at no time is 1 MiB more in
// memory than before.
func aStreamTakesNoMemory(t *testing.T, s *stackUnderTest) {
	const size = 64 << 20
	a := s.serveConfig(evenkeeltest.ServerConfig{Address: "a:80", Configure: func(srv *http.Server) {
		// What the server has not read yet is in the same heap, and by
		// default may be more than the bound.
		const least = 64 << 10
		srv.HTTP2 = &http.HTTP2Config{
			MaxReceiveBufferPerConnection: least, MaxReceiveBufferPerStream: least, MaxReadFrameSize: least,
		}
	}})
	s.use(config{})
	s.get() // what every connection costs is not the stream's
	probe := &heapProbe{Body: evenkeeltest.NewBodySize(size), every: size / 8}
	req := s.stream(http.MethodPost, probe.Body)
	req.Body, probe.start = probe, liveHeap()

	status, _ := s.answer(req)

	assert.Equal(t, http.StatusOK, status)
	assert.EqualValues(t, size, a.Received()[1].BodyRead)
	assert.GreaterOrEqual(t, probe.samples, 7)
	t.Logf("at most %d KiB", probe.peak>>10)
	assert.Less(t, probe.peak, int64(1<<20), "bytes of heap beyond those before the call")
}

// heapProbe looks at the heap while it is read.
type heapProbe struct {
	*evenkeeltest.Body
	every, next int64
	read        int64
	start, peak int64
	samples     int
}

func (p *heapProbe) Read(b []byte) (int, error) {
	n, err := p.Body.Read(b)
	if p.read += int64(n); p.read >= p.next+p.every {
		p.next = p.read
		p.samples++
		p.peak = max(p.peak, liveHeap()-p.start)
	}
	return n, err
}

// liveHeap is what is reachable, without the garbage.
func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Given a stream that waits for the answer to its first half, then the server has
// that half before the stream ends.
func aStreamArrivesBeforeItsEnd(t *testing.T, s *stackUnderTest) {
	const half = "first half"
	arrived := make(chan string, 1)
	s.serve("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, len(half))
		_, _ = io.ReadFull(r.Body, first)
		arrived <- string(first)
		_, _ = io.Copy(w, r.Body)
	}))
	s.use(config{})
	reader, writer := io.Pipe()
	go func() {
		_, _ = io.WriteString(writer, half)
		_, _ = io.WriteString(writer, <-arrived)
		_ = writer.Close()
	}()
	req := s.request(http.MethodPost)
	req.Body, req.ContentLength = reader, -1

	_, body := s.answer(req)

	assert.Equal(t, half, body)
}

// file is a source of which every reader has the same offset, as those of a file
// have that GetBody seeks. It notices what must not happen at the same time.
type file struct {
	t    *testing.T
	uses int // not guarded: for the race detector, to which overlapping uses are a race
	busy sync.Mutex
	data *bytes.Reader
}

func (f *file) exclusively(what string, do func()) {
	f.uses++
	if !f.busy.TryLock() {
		assert.Fail(f.t, "the source is used twice at a time", what)
		return
	}
	defer f.busy.Unlock()
	do()
}

func (f *file) Read(p []byte) (n int, err error) {
	f.exclusively("Read", func() {
		time.Sleep(time.Millisecond) // so that the answer overtakes the upload
		n, err = f.data.Read(p[:min(len(p), 512)])
	})
	return n, err
}

func (f *file) rewind() (io.ReadCloser, error) {
	f.exclusively("Seek", func() { _, _ = f.data.Seek(0, io.SeekStart) })
	return io.NopCloser(f), nil
}

// Given a server that answers 503 while the upload is under way, and a GetBody
// that seeks the same file, then no Seek and no Read of the second attempt
// overlaps a Read of the first, and what arrives is the file.
func aRetryWaitsForTheReader(t *testing.T, s *stackUnderTest) {
	const size = 20 << 10
	content := bytes.Repeat([]byte("evenkeel!!"), size/10)
	a := s.serve("a", evenkeeltest.EarlyStatus(503), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	source := &file{t: t, data: bytes.NewReader(content)}
	req := s.request(http.MethodPut)
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(source), size, source.rewind

	status, _ := s.answer(req)

	assert.Equal(t, http.StatusOK, status)
	a.AssertRequests(t, 2)
	assert.Equal(t, content, a.Received()[1].Body)
}

// Given a Read of the upload that does not return, then the retry that would have
// to seek under it is given up soon, and the caller gets the answer that is there.
func aReaderThatHangsEndsTheRetries(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.EarlyStatus(503).Body("busy"), evenkeeltest.OK("a"))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	reader, writer := io.Pipe()
	var asked int
	req := s.request(http.MethodPut)
	req.Body, req.ContentLength = io.NopCloser(reader), -1
	req.GetBody = func() (io.ReadCloser, error) { asked++; return io.NopCloser(reader), nil }
	start := time.Now()

	resp, err := s.do(req)

	require.NoError(t, err)
	assert.Equal(t, 503, resp.StatusCode)
	assert.LessOrEqual(t, time.Since(start), 100*time.Millisecond)
	assert.Zero(t, asked, "GetBody while the body is read")
	a.AssertRequests(t, 1)
	_ = writer.Close() // at last
	resp.Body.Close()
}

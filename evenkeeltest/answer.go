package evenkeeltest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Answer is a step that gives one answer: it reads the request's body to the
// end, waits, and writes status, header, body and trailer. Start with [OK],
// [Status] or [EarlyStatus]. An Answer is a value: its methods return changed
// copies, so that one may be the beginning of several.
type Answer struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	early   bool
	delay   time.Duration
	piece   int           // bytes per write; zero means all at once
	pause   time.Duration // between pieces
	cut     int           // break off after so many bytes of the body
	isCut   bool
}

// OK answers 200 with the name in the body, so that a test can see who answered.
func OK(name string) Answer { return Status(http.StatusOK).Body(name) }

// Status answers with the status code and an empty body.
func Status(code int) Answer { return Answer{status: code} }

// EarlyStatus answers with the status code before the request's body was read,
// like a server that refuses an upload. What is left of the body is then
// treated as net/http does after any handler: HTTP/1.1 reads a little more and
// closes the connection if that was not all, HTTP/2 resets the stream.
func EarlyStatus(code int) Answer { return Answer{status: code, early: true} }

// Header adds a header field.
func (a Answer) Header(key, value string) Answer {
	a.header = withField(a.header, key, value)
	return a
}

// Body sets the body.
func (a Answer) Body(body string) Answer {
	a.body = body
	return a
}

// Trailer adds a trailer field. It is sent without being announced, which is the
// harder case for a client; to announce it, add a header field "Trailer".
func (a Answer) Trailer(key, value string) Answer {
	a.trailer = withField(a.trailer, key, value)
	return a
}

// Delay waits before the headers are sent, at most until the client goes away.
func (a Answer) Delay(d time.Duration) Answer {
	a.delay = d
	return a
}

// Drip sends n bytes of the body at a time and waits in between. The first
// piece goes with the headers.
func (a Answer) Drip(n int, every time.Duration) Answer {
	a.piece, a.pause = n, every
	return a
}

// CloseMidBody breaks off after n bytes of the body: HTTP/1.1 closes the
// connection before its time, HTTP/2 resets the stream.
func (a Answer) CloseMidBody(n int) Answer {
	a.cut, a.isCut = n, true
	return a
}

func withField(h http.Header, key, value string) http.Header {
	h = h.Clone()
	if h == nil {
		h = make(http.Header)
	}
	h.Add(key, value)
	return h
}

// ServeHTTP implements [http.Handler].
func (a Answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if a.early {
		// Otherwise HTTP/1.1 reads up to 256 KiB of the body before it sends
		// the headers. HTTP/2 knows nothing of the kind, hence no error check.
		_ = control.EnableFullDuplex()
	} else {
		// Besides being polite, this lets HTTP/1.1 notice when the client
		// goes away. An error is the same news.
		_, _ = io.Copy(io.Discard, r.Body)
	}
	if !sleep(r.Context(), a.delay) {
		panic(http.ErrAbortHandler)
	}
	a.writeHeader(w)
	if a.early {
		_ = control.Flush()
	}
	if !a.writeBody(r.Context(), w, control) {
		panic(http.ErrAbortHandler)
	}
	a.writeTrailer(w, control)
	if a.early && r.ProtoMajor == 1 {
		_ = control.Flush()
		readRest(r)
	}
}

// readRest reads what is left of a body after the answer, as much as net/http would do after the
// handler. When net/http does it and comes to the end, it panics, then or in the next request on that
// connection: https://go.dev/issue/68560.
func readRest(r *http.Request) {
	const most = 256 << 10
	body := r.Body
	if recorded, ok := body.(*recordedBody); ok {
		body = recorded.ReadCloser // the handler has not read it
	}
	if r.ContentLength <= most {
		_, _ = io.CopyN(io.Discard, body, most)
	}
}

func (a Answer) writeHeader(w http.ResponseWriter) {
	for key, values := range a.header {
		w.Header()[key] = append([]string(nil), values...)
	}
	// HTTP/1.1 has trailers only with chunks, and so without a length.
	if a.mayHaveBody() && len(a.trailer) == 0 && a.header.Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
}

func (a Answer) mayHaveBody() bool {
	return a.status >= 200 && a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

// writeBody reports whether the body was written to its end.
func (a Answer) writeBody(ctx context.Context, w io.Writer, control *http.ResponseController) bool {
	rest := a.body
	if a.isCut {
		rest = rest[:min(a.cut, len(rest))]
	}
	for a.piece > 0 && len(rest) > a.piece {
		if _, err := io.WriteString(w, rest[:a.piece]); err != nil {
			return false
		}
		rest = rest[a.piece:]
		_ = control.Flush()
		if !sleep(ctx, a.pause) {
			return false
		}
	}
	if _, err := io.WriteString(w, rest); err != nil && len(rest) > 0 && a.mayHaveBody() {
		return false
	}
	if a.isCut {
		_ = control.Flush()
	}
	return !a.isCut
}

func (a Answer) writeTrailer(w http.ResponseWriter, control *http.ResponseController) {
	if len(a.trailer) == 0 {
		return
	}
	_ = control.Flush() // a short body would be sent with its length instead
	for key, values := range a.trailer {
		w.Header()[http.TrailerPrefix+key] = append([]string(nil), values...)
	}
}

// sleep reports whether it slept to the end; false means that ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

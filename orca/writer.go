package orca

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// responseWriter adds the report to the header of a response when that is about
// to be written. What it does not have itself, [http.ResponseController] finds
// through Unwrap.
type responseWriter struct {
	http.ResponseWriter
	handler  *Handler
	req      *http.Request
	status   int // of the response; 0 until its header is written, and if it never is
	returned bool
	hijacked bool
	value    [1]string // of the header, kept here to save an allocation
}

// WriteHeader implements [http.ResponseWriter]. After an informational code the
// response is still to come, or, after 101, no response at all.
func (w *responseWriter) WriteHeader(code int) {
	if code >= 200 {
		w.begin(code)
	}
	w.ResponseWriter.WriteHeader(code)
}

// begin is called before the header is written with that status.
func (w *responseWriter) begin(status int) {
	if w.status == 0 {
		w.status = status
		w.report()
	}
}

// report puts the report of this instant into the header.
func (w *responseWriter) report() {
	report := w.handler.Report()
	header := w.Header()
	var buf [256]byte
	w.value[0] = string(report.Append(buf[:0]))
	header[Header] = w.value[:]
	if report.Draining && w.req.ProtoMajor == 1 {
		header.Set("Connection", "close")
	}
}

// Write implements [http.ResponseWriter].
func (w *responseWriter) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// WriteString implements [io.StringWriter], and does not copy s if the writer
// below does not.
func (w *responseWriter) WriteString(s string) (int, error) {
	w.begin(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom implements [io.ReaderFrom], by which a file goes out without passing
// through the program. A source without a byte writes no header, so its handler
// may still answer with an error.
func (w *responseWriter) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.report()
	}
	n, err := io.Copy(w.ResponseWriter, src)
	if n > 0 && w.status == 0 {
		w.status = http.StatusOK
	}
	return n, err
}

// Flush implements [http.Flusher].
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController.Flush] calls. It returns
// [http.ErrNotSupported] if the writer below cannot be flushed.
func (w *responseWriter) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements [http.Hijacker]. It returns [http.ErrNotSupported] if the
// writer below cannot be hijacked, as on HTTP/2.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, buffer, err
}

// Unwrap is for [http.ResponseController].
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// end is called when the handler has returned. If it has written nothing, the
// server will write the header. A hijacked connection has none to write.
func (w *responseWriter) end() {
	w.returned = true
	if w.status == 0 {
		w.report()
	}
}

// failed reports whether the handler has panicked, or answered with an error of
// the server.
func (w *responseWriter) failed() bool { return !w.returned || w.status >= 500 }

// upgraded reports whether the connection went over to another protocol: it was
// hijacked, or a request that asked for that got no response.
func (w *responseWriter) upgraded() bool {
	return w.hijacked || (w.status == 0 && w.req.Header["Upgrade"] != nil)
}

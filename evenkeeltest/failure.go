package evenkeeltest

import (
	"io"
	"net/http"
	"strings"
)

// Hang is a step that reads the request and never answers. It ends when the
// client goes away.
func Hang() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // HTTP/1.1 notices who goes away only after the body
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

// ResetAfter is a step that reads n bytes of the request's body, less if there
// are less, and resets the connection: the client gets ECONNRESET, and so do the
// other streams of an HTTP/2 connection.
func ResetAfter(n int64) http.Handler {
	return breakAfter(n, func(c connection) { c.mem.Reset() })
}

// CloseAfter is a step that reads n bytes of the request's body, less if there
// are less, and closes the connection without an answer: the client gets an EOF,
// and so do the other streams of an HTTP/2 connection. CloseAfter(0) is what a
// keep-alive connection meets that its server has just given up.
func CloseAfter(n int64) http.Handler {
	return breakAfter(n, func(c connection) { _ = c.mem.Close() })
}

func breakAfter(n int64, end func(connection)) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		// Without a connection of ours, this is the nearest thing that
		// net/http offers.
		if c := connectionOf(r); c.mem != nil {
			end(c)
		}
		panic(http.ErrAbortHandler)
	})
}

// Upgrade is a step that agrees to whatever protocol the request asks for, by
// 101 Switching Protocols, and from then on sends back what it receives until
// the client closes. A request that asks for none gets 400, one on HTTP/2, which
// has no upgrades, 501.
func Upgrade() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol := r.Header.Get("Upgrade")
		if protocol == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		defer conn.Close()
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
		_, _ = io.Copy(conn, io.MultiReader(strings.NewReader(head), rw)) // until the client closes
	})
}

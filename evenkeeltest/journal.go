package evenkeeltest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

// BodyBound is how much of a request's body is recorded.
const BodyBound = 64 << 10

// Request is what a server knows of a request that it received.
type Request struct {
	At         time.Time   // when the headers were read
	Method     string      // as it was sent
	Path       string      // with the query, as it was sent
	Host       string      // of the Host header or the :authority
	ServerName string      // what the client asked for in the TLS handshake
	Proto      string      // "HTTP/1.1" or "HTTP/2.0"
	Header     http.Header // a copy

	// ContentLength is what the client announced; -1 means that it did not.
	ContentLength int64
	// Body is what the handler has read of the body so far, up to BodyBound.
	Body []byte
	// BodyRead is how many bytes that were, without the bound.
	BodyRead int64
	// BodyEnd says that the handler has read the body to its end.
	BodyEnd bool

	// Conn numbers the server's connections, from 1. Equal numbers mean that
	// a connection was used again.
	Conn int
}

// String returns the request on one line.
func (r Request) String() string {
	return fmt.Sprintf("%s %s %s%s %s on connection %d, %d bytes of body read",
		r.At.UTC().Format("15:04:05.000"), r.Method, r.Host, r.Path, r.Proto, r.Conn, r.BodyRead)
}

// journal is what a server remembers.
type journal struct {
	mu       sync.Mutex // guards what follows
	ended    *sync.Cond // on mu; told when a handler or a connection ends
	conns    int        // so far, for their numbers
	open     int        // connections whose goroutine net/http has not ended
	active   int        // handlers
	requests []*Request
}

func newJournal() *journal {
	j := new(journal)
	j.ended = sync.NewCond(&j.mu)
	return j
}

// connection is what a request's context knows of the connection it came on.
type connection struct {
	number int
	mem    *memnet.Conn
}

type connectionKey struct{}

// watch hooks the journal into a server, beside the hooks that are there.
func (j *journal) watch(srv *http.Server) {
	connState, connContext := srv.ConnState, srv.ConnContext
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		j.connState(c, state)
		if connState != nil {
			connState(c, state)
		}
	}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return j.connContext(ctx, c)
	}
}

// connContext implements [http.Server.ConnContext].
func (j *journal) connContext(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	mem, _ := c.(*memnet.Conn)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.conns++
	return context.WithValue(ctx, connectionKey{}, connection{number: j.conns, mem: mem})
}

func connectionOf(r *http.Request) connection {
	c, _ := r.Context().Value(connectionKey{}).(connection)
	return c
}

// begin records a request and returns it as the handler shall see it. It is a
// copy, because net/http looks at the body of its own one after the handler, to
// find out what is left of it on the connection.
func (j *journal) begin(r *http.Request) *http.Request {
	record := &Request{
		At: time.Now(), Method: r.Method, Path: r.RequestURI, Host: r.Host, Proto: r.Proto,
		Header: r.Header.Clone(), ContentLength: r.ContentLength, Conn: connectionOf(r).number,
	}
	if r.TLS != nil {
		record.ServerName = r.TLS.ServerName
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.active++
	j.requests = append(j.requests, record)
	if r.Body == http.NoBody {
		record.BodyEnd = true
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = &recordedBody{ReadCloser: r.Body, journal: j, record: record}
	return r
}

func (j *journal) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.active--
	j.ended.Broadcast()
}

// connState implements [http.Server.ConnState].
func (j *journal) connState(_ net.Conn, state http.ConnState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch state {
	case http.StateNew:
		j.open++
	case http.StateClosed, http.StateHijacked:
		j.open--
		j.ended.Broadcast()
	default: // active or idle: it is still there
	}
}

// waitIdle waits for all handlers and connections. A connection may outlive its
// handlers, because net/http lets some rest for half a second before it closes
// them; at the end of a bubble such a sleep would never end.
func (j *journal) waitIdle() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.active > 0 || j.open > 0 {
		j.ended.Wait()
	}
}

// recordedBody writes down what passes through it.
type recordedBody struct {
	io.ReadCloser
	journal *journal
	record  *Request
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.journal.mu.Lock()
	defer b.journal.mu.Unlock()
	rec := b.record
	rec.Body = append(rec.Body, p[:min(n, BodyBound-len(rec.Body))]...)
	rec.BodyRead += int64(n)
	rec.BodyEnd = rec.BodyEnd || err == io.EOF
	return n, err
}

// serveHTTP is the handler of the server around that of the user.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	r = s.journal.begin(r)
	defer s.journal.end()
	defer s.reportPanic()
	s.config.Handler.ServeHTTP(w, r)
}

// reportPanic fails the test for a panic that is not an ordered one. net/http
// would write it to the log, and the test would see no more than a broken
// connection.
func (s *Server) reportPanic() {
	switch v := recover(); v {
	case nil:
	case http.ErrAbortHandler:
		panic(http.ErrAbortHandler) // the way to break off an answer
	default:
		s.network.tb.Errorf("the handler of %s panicked: %v\n%s", s.Addr(), v, debug.Stack())
		panic(http.ErrAbortHandler)
	}
}

// Requests returns how many requests the server has received.
func (s *Server) Requests() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return len(s.journal.requests)
}

// ActiveRequests returns how many requests have not been answered to the end.
func (s *Server) ActiveRequests() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.active
}

// Received returns the requests in the order in which they came, as they are
// known now: the body of one in progress may still grow.
func (s *Server) Received() []Request {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	received := make([]Request, 0, len(s.journal.requests))
	for _, r := range s.journal.requests {
		received = append(received, *r) // what a slice shows of Body is never written again
	}
	return received
}

// AssertRequests fails the test unless the server has received n requests, and
// lists them if so.
func (s *Server) AssertRequests(tb testing.TB, n int) {
	tb.Helper()
	received := s.Received()
	if len(received) == n {
		return
	}
	var list strings.Builder
	for _, r := range received {
		list.WriteString("\n\t" + r.String())
	}
	tb.Errorf("%s received %d requests, want %d:%s", s.Addr(), len(received), n, list.String())
}

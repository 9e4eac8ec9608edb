package evenkeeltest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Body is a request body that keeps account of how it is used. Make one with
// [NewBody] or [NewBodySize], and put it into a request with [Body.Stream] or
// [Body.Replayable].
type Body struct {
	data  io.ReaderAt
	size  int64
	piece int
	pause time.Duration

	mu      sync.Mutex // guards what follows
	offset  int64
	reading int // Reads in progress
	account BodyAccount
	copies  []*Body
	closed  chan struct{}
}

// BodyAccount is what happened to a [Body].
type BodyAccount struct {
	Reads  int   // calls of Read
	Bytes  int64 // bytes given out
	EOF    bool  // a Read has told that there is no more
	Closes int   // calls of Close

	// Overlaps counts the Reads that began while another one was in progress.
	Overlaps int

	// ReadsAfterClose counts the Reads that began after Close. They get
	// [http.ErrBodyReadAfterClose]. The HTTP/2 transport of net/http may do
	// one when it gives an upload up.
	ReadsAfterClose int
}

// NewBody returns a body of the content.
func NewBody(content string) *Body {
	return newBody(strings.NewReader(content), int64(len(content)))
}

// NewBodySize returns a body of size zero bytes, which take no memory.
func NewBodySize(size int64) *Body { return newBody(zeros{}, size) }

func newBody(data io.ReaderAt, size int64) *Body {
	return &Body{data: data, size: size, closed: make(chan struct{})}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// Drip makes each Read take so long and give out n bytes at most. Close ends a
// Read that waits. It returns b, and must be called before b is used.
func (b *Body) Drip(n int, every time.Duration) *Body {
	b.piece, b.pause = n, every
	return b
}

// Stream makes b the body of the request, of unknown length and without GetBody:
// it can be sent once.
func (b *Body) Stream(req *http.Request) {
	req.Body, req.GetBody, req.ContentLength = b, nil, -1
}

// Replayable makes b the body of the request, with its length, and with a
// GetBody that makes a new Body each time: see [Body.Copies].
func (b *Body) Replayable(req *http.Request) {
	req.Body, req.ContentLength = b, b.size
	req.GetBody = func() (io.ReadCloser, error) { return b.newCopy(), nil }
}

func (b *Body) newCopy() *Body {
	c := newBody(b.data, b.size).Drip(b.piece, b.pause)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.copies = append(b.copies, c)
	return c
}

// Copies returns what GetBody has returned so far, in that order.
func (b *Body) Copies() []*Body {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*Body(nil), b.copies...)
}

// Account returns what has happened to the body so far; its copies have
// accounts of their own.
func (b *Body) Account() BodyAccount {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.account
}

// Read implements [io.Reader].
func (b *Body) Read(p []byte) (int, error) {
	if !b.beginRead() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.pause > 0 {
		t := time.NewTimer(b.pause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.closed:
		}
	}
	return b.endRead(p)
}

// beginRead reports whether the body is still open.
func (b *Body) beginRead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account.Reads++
	if b.account.Closes > 0 {
		b.account.ReadsAfterClose++
		return false
	}
	if b.reading > 0 {
		b.account.Overlaps++
	}
	b.reading++
	return true
}

func (b *Body) endRead(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading--
	switch {
	case b.account.Closes > 0:
		return 0, http.ErrBodyReadAfterClose
	case b.offset == b.size:
		b.account.EOF = true
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.size-b.offset)
	if b.piece > 0 {
		n = min(n, int64(b.piece))
	}
	_, err := b.data.ReadAt(p[:n], b.offset)
	b.offset += n
	b.account.Bytes += n
	return int(n), err
}

// Close implements [io.Closer].
func (b *Body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account.Closes++
	if b.account.Closes == 1 {
		close(b.closed)
	}
	return nil
}

// AssertClosed fails the test unless the body and all its copies were closed,
// exactly once each, and no two Reads of one overlapped.
func (b *Body) AssertClosed(tb testing.TB) {
	tb.Helper()
	b.assertClosed(tb, "the body")
	for i, c := range b.Copies() {
		c.assertClosed(tb, fmt.Sprintf("copy %d of the body", i+1))
	}
}

func (b *Body) assertClosed(tb testing.TB, what string) {
	tb.Helper()
	if a := b.Account(); a.Closes != 1 || a.Overlaps > 0 {
		tb.Errorf("%s was closed %d times, want once, with %d overlapping Reads, want none: %+v",
			what, a.Closes, a.Overlaps, a)
	}
}

package call

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/wait"
)

// Who owns a request's body. A transport closes the body that it is given, also
// when it read nothing, and it may go on reading after RoundTrip has returned.
// So each attempt gets a requestBody of its own around the source: the caller's
// body for the first attempt, what GetBody returns for the later ones, or the
// same source again if it was not touched. The source is closed exactly once:
// when the transport has closed the attempt's body, or can no longer reach it,
// and the call has no more use for it.

// errRewind is what GetBody of an attempt's request returns. net/http asks for
// it when it wants to send a request again by itself; the error brings that
// decision back to us, typed.
var errRewind = errors.New("evenkeel: the connection was lost and net/http would have sent the request again")

func refuseToRewind() (io.ReadCloser, error) { return nil, errRewind }

// replayedByNetHTTP is the rule by which net/http repeats a request although a
// server may have processed it.
func replayedByNetHTTP(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return HasIdempotencyKey(req.Header)
}

// HasIdempotencyKey reports whether the caller promises, by the header that
// net/http knows in both spellings, that the request may be repeated.
func HasIdempotencyKey(h http.Header) bool {
	_, key := h["Idempotency-Key"]
	_, xKey := h["X-Idempotency-Key"]
	return key || xKey
}

// requestBody is the body of one attempt.
type requestBody struct {
	source   io.ReadCloser
	mu       sync.Mutex // guards what follows; not held while reading
	reading  bool
	consumed bool          // a byte was read, or reading failed
	broke    bool          // reading failed
	closed   bool          // by the transport
	detached bool          // the transport can read no more
	released bool          // the call has no more use for the source
	shut     bool          // the source was closed, or belongs to a later attempt
	sealed   bool          // GetBody of its request says no; not guarded, it never changes
	idle     chan struct{} // closed when the Read in flight returns; made by detach
}

// Read implements [io.Reader].
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed || b.detached {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.reading = true
	b.mu.Unlock()

	n, err := b.source.Read(p)

	b.mu.Lock()
	b.reading = false
	b.broke = b.broke || (err != nil && err != io.EOF)
	b.consumed = b.consumed || n > 0 || b.broke
	if b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
	_ = b.unlockAndClose() // whoever reads is told the error of reading
	return n, err
}

// Close implements [io.Closer]. The source may outlive it.
func (b *requestBody) Close() error {
	b.mu.Lock()
	b.closed = true
	return b.unlockAndClose()
}

// unlockAndClose closes the source if nobody can read it and the call has no more use for it.
func (b *requestBody) unlockAndClose() error {
	unreachable := b.closed || (b.detached && !b.reading)
	ready := b.released && unreachable && !b.shut
	b.shut = b.shut || ready
	b.mu.Unlock()
	if ready {
		return b.source.Close()
	}
	return nil
}

// unreadable reports whether reading has failed, so that nobody can be blamed but the caller.
func (b *requestBody) unreadable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broke
}

// untouched reports whether the source can be sent again as it is.
func (b *requestBody) untouched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.reading && !b.consumed
}

// release says that the call has no more use for the source.
func (b *requestBody) release() {
	b.mu.Lock()
	b.released = true
	_ = b.unlockAndClose() // nobody is left who could be told
}

// detach keeps the transport from reading and returns the channel to wait on if
// a Read is under way.
func (b *requestBody) detach() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
	if !b.reading {
		return nil
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	return b.idle
}

// rewindWait is how long a Read of the attempt before may take to return before
// the request counts as one that cannot be sent again.
const rewindWait = 50 * time.Millisecond

// Replayable reports whether the body could be sent again after the last attempt.
func (r *Record) Replayable() bool {
	if r.Rewindable() {
		return true
	}
	a := r.lastWithBody()
	return a == nil || a.body.untouched() || r.spooled()
}

// spooled reports whether all that was read of the body is kept. A Read that is under way may
// still change that.
func (r *Record) spooled() bool { return r.spool != nil && !r.spool.lost.Load() }

// rewind gives the attempt its body and reports whether that was possible. It
// touches nothing that may still be read: a transport that has not finished with
// the body of the attempt before is waited for, but not long.
func (r *Record) rewind(a *Attempt) bool {
	if r.source == nil {
		return true
	}
	if before := r.lastWithBody(); before != nil && !r.takeBack(&before.body) {
		return false
	}
	r.give(a, r.source)
	return true
}

// give makes the attempt send a body.
func (r *Record) give(a *Attempt, source io.ReadCloser) {
	a.body.source = source
	a.req.Body, a.req.GetBody = &a.body, r.getBody
	if !r.cfg.Plain {
		a.req.GetBody, a.body.sealed = refuseToRewind, true
	}
}

// lastWithBody returns the latest attempt that was given a body, or nil.
func (r *Record) lastWithBody() *Attempt {
	a := r.last
	for a != nil && a.body.source == nil {
		a = a.prev
	}
	return a
}

// detachAll sees to it that the body of no attempt is read any more, and reports whether it
// could: one that is in the middle of a Read is waited for, but not long.
func (r *Record) detachAll() bool {
	for a := r.last; a != nil; a = a.prev {
		if a.body.source != nil && !r.detach(&a.body) {
			return false
		}
	}
	return true
}

// detach does that for one body.
func (r *Record) detach(b *requestBody) bool {
	busy := b.detach()
	return busy == nil || (wait.SleepOr(r, r.cfg.Clock, rewindWait, busy) == nil && !b.busy())
}

// takeBack makes r.source the body of the next attempt.
func (r *Record) takeBack(b *requestBody) bool {
	if r.getBody == nil && !b.untouched() && !r.spooled() {
		return false
	}
	if !r.detach(b) {
		return false
	}
	if r.getBody == nil {
		return b.handOver(r.spool != nil && r.spool.rewind())
	}
	next, err := r.getBody()
	if err != nil {
		return false
	}
	b.release()
	r.source = next
	return true
}

// abandon is detach for a body that was never given to a transport, or that nobody will read.
func (b *requestBody) abandon() {
	if b.source != nil {
		b.detach()
		b.mu.Lock()
		_ = b.unlockAndClose() // nobody is left who could be told
	}
}

func (b *requestBody) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading
}

// handOver leaves the source to the next attempt, if it is untouched or can be read again.
func (b *requestBody) handOver(again bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.consumed && !again {
		return false
	}
	b.shut = true
	return true
}

// releaseBody lets go of the body for good.
func (r *Record) releaseBody() {
	if r.source == nil {
		return
	}
	given := false
	for a := r.last; a != nil; a = a.prev {
		if a.body.source != nil {
			a.body.release()
			given = true
		}
	}
	if !given {
		_ = r.source.Close()
	}
}

package call

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// responseBody is the body of an attempt's response: its end is the end of the
// attempt.
type responseBody struct {
	io.ReadCloser
	attempt *Attempt
	closed  atomic.Bool // by the caller: what reading brings from now on is no news
}

// Read implements [io.Reader].
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !b.closed.Load() {
		b.attempt.bodyEnded(err)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *responseBody) Close() error {
	b.closed.Store(true)
	err := b.ReadCloser.Close()
	b.attempt.end(false)
	return err
}

// upgradedBody is the body of a response that is a connection, after 101. Its
// end is its Close only: one direction that ends leaves the other.
type upgradedBody struct {
	io.ReadWriteCloser
	attempt *Attempt
}

// CloseWrite closes one direction, where the connection can do that.
func (b *upgradedBody) CloseWrite() error {
	if c, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("CloseWrite: %w", http.ErrNotSupported)
}

// Close implements [io.Closer].
func (b *upgradedBody) Close() error {
	err := b.ReadWriteCloser.Close()
	b.attempt.end(false)
	return err
}

// wrap arranges for the end of the response to be seen. The response itself
// stays the one that the transport returned, because the transport puts the
// trailers into it at the end of the body.
func (a *Attempt) wrap(resp *http.Response) {
	if resp.Request == nil {
		resp.Request = &a.req
	}
	switch body := resp.Body.(type) {
	case nil:
		resp.Body = http.NoBody // against the contract of RoundTripper, but harmless
		a.end(false)
	case io.ReadWriteCloser:
		resp.Body = &upgradedBody{body, a}
	default:
		if body == http.NoBody {
			a.end(false)
			return
		}
		a.answer.ReadCloser, a.answer.attempt = body, a
		resp.Body = &a.answer
	}
}

// bodyEnded takes the error with which reading the body ended. A body that
// breaks while its caller is still there is the endpoint's failure, whatever its
// headers said.
func (a *Attempt) bodyEnded(err error) {
	a.end(!errors.Is(err, io.EOF) && a.record.CallerErr() == nil)
}

const (
	// drainBytes and drainFor bound what is read of an answer that nobody
	// wants, so that its connection can be used again.
	drainBytes = 4 << 10
	drainFor   = 50 * time.Millisecond
)

// Discard ends an attempt whose answer nobody wants. Enough of it is read for
// its connection to be used again, if there is not much. A nil attempt is none.
func (a *Attempt) Discard() {
	if a == nil || a.Response == nil {
		return
	}
	if a.ended.Load() != open {
		_ = a.Response.Body.Close()
		return
	}
	Drain(a.Response, drainBytes, a.record.cfg.Clock)
}

// Drain closes the body of a response that nobody wants. Enough of it is read for its connection
// to be used again, if there are no more bytes than most, and they come at once.
func Drain(resp *http.Response, most int64, c clock.Clock) {
	if body := resp.Body; resp.ContentLength <= most {
		// The timer closes the body under a Read that takes too long, which
		// the bodies of net/http allow.
		t := c.AfterFunc(drainFor, func() { _ = body.Close() })
		_, _ = io.CopyN(io.Discard, body, most+1)
		t.Stop()
	}
	_ = resp.Body.Close()
}

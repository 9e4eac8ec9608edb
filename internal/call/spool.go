package call

import (
	"io"
	"sync/atomic"
)

// spool keeps what is read of a request's body, so that it can be read again from the
// beginning, up to a number of bytes. It may be read by one goroutine at a time; the bodies of
// attempts see to that.
type spool struct {
	io.ReadCloser // the caller's body

	kept  []byte
	at    int // what is read next is kept[at:], and then the body
	limit int
	lost  atomic.Bool // the body was longer, or broke
}

// Spool makes the record keep up to so many bytes of a body that could not be had again. It must
// be called before the first attempt.
func (r *Record) Spool(limit int) {
	if r.source == nil || r.getBody != nil {
		return
	}
	if length := r.caller.ContentLength; length > int64(limit) {
		return // it will not fit
	}
	r.spool = &spool{ReadCloser: r.source, limit: limit}
	if length := r.caller.ContentLength; length > 0 {
		r.spool.kept = make([]byte, 0, length)
	}
	r.source = r.spool
}

// Read implements [io.Reader].
func (s *spool) Read(p []byte) (int, error) {
	if s.at < len(s.kept) {
		n := copy(p, s.kept[s.at:])
		s.at += n
		return n, nil
	}
	n, err := s.ReadCloser.Read(p)
	switch {
	case s.lost.Load():
	case len(s.kept)+n > s.limit, err != nil && err != io.EOF:
		s.kept, s.at = nil, 0
		s.lost.Store(true)
	default:
		s.kept = append(s.kept, p[:n]...)
		s.at += n
	}
	return n, err
}

// rewind makes the next Read begin anew, if that can be.
func (s *spool) rewind() bool {
	s.at = 0
	return !s.lost.Load()
}

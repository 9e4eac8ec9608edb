package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Conn is one end of a connection. It implements [net.Conn], and has CloseWrite
// like [net.TCPConn]. It is safe for concurrent use.
type Conn struct {
	link          *link
	local, remote Addr
	in, out       *stream

	// Guarded by the link's mutex.
	closed      bool
	closedWrite bool
	readBy      time.Time
	writeBy     time.Time
}

// Read implements [net.Conn]. It returns [io.EOF] when the other end has closed
// and everything before was read.
func (c *Conn) Read(p []byte) (int, error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		if err := c.unusableLocked("read", c.readBy, now); err != nil {
			return 0, err
		}
		next := c.in.arrive(now, l.silent)
		switch {
		case len(p) == 0:
			return 0, nil
		case c.in.arrived.Len() > 0:
			n := c.in.read(p)
			l.changed.Broadcast() // there is space for a writer
			return n, nil
		case c.in.ended:
			return 0, io.EOF
		}
		l.waitLocked(c.readBy, next)
	}
}

// Write implements [net.Conn]. It waits while the buffer is full, and fails with
// EPIPE once the news that the other end has closed has arrived.
func (c *Conn) Write(p []byte) (n int, err error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	writing := false
	defer func() {
		if writing {
			c.out.writing = false
			l.changed.Broadcast()
		}
	}()
	for {
		next, err := c.writableLocked()
		if err != nil {
			return n, err
		}
		if !c.out.writing || writing {
			k := min(len(p)-n, c.out.space())
			if k > 0 {
				l.sendLocked(c.out, segment{data: p[n : n+k]})
			}
			if n += k; n == len(p) {
				return n, nil
			}
			writing, c.out.writing = true, true
		}
		l.waitLocked(c.writeBy, next)
	}
}

// writableLocked returns what forbids to write, or when to look again.
func (c *Conn) writableLocked() (next time.Time, err error) {
	now := time.Now()
	if err := c.unusableLocked("write", c.writeBy, now); err != nil {
		return next, err
	}
	next = c.in.arrive(now, c.link.silent)
	if c.closedWrite || c.in.gone {
		return next, c.opError("write", os.NewSyscallError("write", syscall.EPIPE))
	}
	return next, nil
}

// unusableLocked returns the error of an end that can neither read nor write.
func (c *Conn) unusableLocked(op string, by, now time.Time) error {
	switch {
	case c.closed:
		return c.opError(op, net.ErrClosed)
	case c.link.wasReset:
		return c.opError(op, os.NewSyscallError(op, syscall.ECONNRESET))
	case !by.IsZero() && !by.After(now):
		return c.opError(op, os.ErrDeadlineExceeded)
	}
	return nil
}

func (c *Conn) opError(op string, err error) error { return opError(op, c.local, c.remote, err) }

// Close implements [net.Conn]. The other end reads what was written, then EOF.
// Unlike in a kernel that holds whether or not this end has read everything; for
// the other case there is [Conn.Reset].
func (c *Conn) Close() error {
	over, err := c.close()
	if over {
		c.link.network.forget(c.link)
	}
	return err
}

// close reports whether neither end is in use any more.
func (c *Conn) close() (over bool, err error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return false, c.opError("close", net.ErrClosed)
	}
	c.closed = true
	l.sendLocked(c.out, segment{end: closedAll})
	return l.client.closed && l.server.closed, nil
}

// CloseWrite ends this direction: the other end reads what was written, then
// EOF, and can go on writing.
func (c *Conn) CloseWrite() error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := c.unusableLocked("close", time.Time{}, time.Time{}); err != nil {
		return err
	}
	if !c.closedWrite {
		c.closedWrite = true
		l.sendLocked(c.out, segment{end: closedWrite})
	}
	return nil
}

// Reset ends the connection by RST: both ends fail with ECONNRESET at once, and
// what was not read is lost.
func (c *Conn) Reset() { c.link.reset() }

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *Conn) setDeadlines(read, write *time.Time) error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	l.changed.Broadcast()
	return nil
}

package memnet

import (
	"bytes"
	"time"
)

// BufferSize is how many bytes a direction of a connection holds that were
// written and not yet read, on the way and at the reader: the size of a usual
// socket buffer. A write that fits does not wait for a reader.
const BufferSize = 64 << 10

// stream is one direction of a link, and guarded by the link's mutex.
type stream struct {
	arrived bytes.Buffer // what the reader can have
	transit []segment    // what is under way, in the order of sending
	size    int          // bytes in both
	ended   bool         // the reader has got all that will ever come
	gone    bool         // the writer will not read any more either
	writing bool         // a Write waits in its middle: others must not cut in
}

// segment is something that arrives at an instant.
type segment struct {
	data []byte
	end  ending
	at   time.Time // for what was sent into a black hole, set anew when it heals
}

type ending uint8

const (
	notEnded ending = iota
	closedWrite
	closedAll
)

func (s *stream) space() int { return BufferSize - s.size }

// send puts a segment on its way. The data is copied. What is under way is a
// queue: a segment that is due waits for those before it.
func (s *stream) send(seg segment, now time.Time, silent bool) {
	s.size += len(seg.data)
	if !silent && len(s.transit) == 0 && !seg.at.After(now) {
		s.take(seg)
		return
	}
	seg.data = bytes.Clone(seg.data)
	s.transit = append(s.transit, seg)
}

// take hands a segment to the reader's side.
func (s *stream) take(seg segment) {
	s.arrived.Write(seg.data)
	s.ended = s.ended || seg.end != notEnded
	s.gone = s.gone || seg.end == closedAll
}

// arrive takes what is due and returns when to look again, or the zero time.
func (s *stream) arrive(now time.Time, silent bool) (next time.Time) {
	if silent {
		return time.Time{}
	}
	for len(s.transit) > 0 {
		if s.transit[0].at.After(now) {
			return s.transit[0].at
		}
		s.take(s.transit[0])
		s.transit = s.transit[1:]
	}
	return time.Time{}
}

// resend gives everything that is under way a new instant of arrival.
func (s *stream) resend(at time.Time) {
	for i := range s.transit {
		s.transit[i].at = at
	}
}

func (s *stream) read(p []byte) int {
	n, _ := s.arrived.Read(p) // its only error is EOF on empty, which the caller rules out
	s.size -= n
	return n
}

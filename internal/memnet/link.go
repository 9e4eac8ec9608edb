package memnet

import (
	"sync"
	"time"
)

// link is one connection: two ends and a stream in each direction.
type link struct {
	network *Network
	place   *place
	client  *Conn
	server  *Conn

	// mu guards what follows, both streams, and the state of both ends.
	mu       sync.Mutex
	changed  *sync.Cond // on mu; told of everything, as there are few to hear it
	up, down stream
	latency  time.Duration
	silent   bool // in a black hole
	wasReset bool
}

// newLink is called with the network's mutex held.
func newLink(n *Network, p *place, client Addr) *link {
	l := &link{network: n, place: p, latency: p.latency}
	l.changed = sync.NewCond(&l.mu)
	l.client = &Conn{link: l, local: client, remote: p.addr, in: &l.down, out: &l.up}
	l.server = &Conn{link: l, local: p.addr, remote: client, in: &l.up, out: &l.down}
	return l
}

func (l *link) reset() {
	l.mu.Lock()
	l.wasReset = true
	l.changed.Broadcast()
	l.mu.Unlock()
	l.network.forget(l)
}

func (l *link) setSilent(silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == silent {
		return
	}
	now := time.Now()
	if silent {
		// What is due has arrived, although nobody looked.
		l.up.arrive(now, false)
		l.down.arrive(now, false)
	} else {
		l.up.resend(now.Add(l.latency))
		l.down.resend(now.Add(l.latency))
	}
	l.silent = silent
	l.changed.Broadcast()
}

func (l *link) setLatency(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latency = d
}

func (l *link) clientOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.client.closed && !l.wasReset
}

// send puts a segment on its way through s, which is one of the link's streams.
func (l *link) sendLocked(s *stream, seg segment) {
	now := time.Now()
	seg.at = now.Add(l.latency)
	s.send(seg, now, l.silent)
	l.changed.Broadcast()
}

// waitLocked waits until something changes, at most until the earliest of the
// instants given; zero instants do not count.
func (l *link) waitLocked(instants ...time.Time) {
	var first time.Time
	for _, t := range instants {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		t := time.AfterFunc(time.Until(first), l.wake)
		defer t.Stop()
	}
	l.changed.Wait()
}

// wake takes the mutex so that it cannot come between the look of a waiter at
// the state and its wait.
func (l *link) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

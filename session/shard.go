package session

import (
	"sync"
	"time"
)

// shard is a part of a table. Its sessions are in a hash table with open addressing, and in a ring in the
// order of their last use; as all live equally long, that is also the order in which they expire. To look a key
// up reads one place in memory, and mostly nothing else that is not at hand.
type shard struct {
	mu       sync.Mutex // guards what follows; nothing is called under it
	most     int
	sessions int
	moved    bool    // there are other shards now
	entries  []entry // the root of the ring, and then the hash table, whose length is a power of two
	names    []name  // the first one is none
	byName   map[string]uint32
	unused   []uint32 // names

	_ [64]byte // no two shards share a cache line
}

// entry is a session: half a cache line, without a pointer, so that the garbage collector has nothing to
// follow.
type entry struct {
	key          fingerprint
	used         time.Duration // when it was last seen to be used, give or take
	newer, older uint32        // its neighbours in the ring
	name         uint32        // of its endpoint, 0 if there is no session here
}

// name is the identity of an endpoint that has sessions.
type name struct {
	text     string
	sessions int
}

const (
	// root is the place of the ring's root, and so stands for no place. What is older than the root is the
	// newest session, what is newer the oldest.
	root = 0
	// fewest is how many places a shard begins with.
	fewest = 8
)

// home returns the place where a key belongs. Its lowest bits have chosen the shard.
func (s *shard) home(f fingerprint) uint32 { return 1 + uint32(f>>6)&s.mask() }

func (s *shard) mask() uint32 { return uint32(len(s.entries) - 2) }

// after returns the place that follows in the hash table.
func (s *shard) after(at uint32) uint32 { return 1 + at&s.mask() }

// find returns the place of a key, or root.
func (s *shard) find(f fingerprint) uint32 {
	at := s.home(f)
	for ; s.entries[at].name != 0; at = s.after(at) {
		if s.entries[at].key == f {
			return at
		}
	}
	return root
}

// live returns the place of a session that has not expired, or root, and notes its use.
func (s *shard) live(f fingerprint, now, ttl time.Duration) uint32 {
	at := s.find(f)
	if at == root {
		return root
	}
	e := &s.entries[at]
	age := now - e.used
	if age >= ttl {
		s.drop(at)
		return root
	}
	if age > ttl/touches || age < 0 { // a clock that has jumped back must not make anything older
		e.used = now
		s.unlink(at)
		s.link(at)
	}
	return at
}

// touches is how often, in its lifetime, the use of a session is noted: more often would cost two
// cache lines of other sessions each time, for an order that is exact to less than a hundredth as it is.
const touches = 128

// expire drops the oldest sessions if they have expired: more of them than are added.
func (s *shard) expire(now, ttl time.Duration) {
	for range 2 {
		oldest := s.oldest()
		if oldest == root || now-s.entries[oldest].used < ttl {
			return
		}
		s.drop(oldest)
	}
}

// add makes a session, in place of the oldest one if there are too many.
func (s *shard) add(f fingerprint, endpoint string, now time.Duration) {
	if s.most == 0 {
		return
	}
	if s.sessions >= s.most {
		s.drop(s.oldest())
	}
	s.sessions++
	if places := len(s.entries) - 1; 4*s.sessions > 3*places {
		s.grow(2 * places)
	}
	s.put(entry{key: f, used: now, name: s.nameOf(endpoint)})
}

// put puts a session where there is room for it, as the newest.
func (s *shard) put(e entry) {
	at := s.home(e.key)
	for s.entries[at].name != 0 {
		at = s.after(at)
	}
	s.entries[at] = e
	s.link(at)
}

// grow makes a larger hash table.
func (s *shard) grow(places int) {
	old := s.entries
	s.entries = make([]entry, 1+places)
	for at := old[root].newer; at != root; at = old[at].newer {
		s.put(old[at])
	}
}

// drop forgets a session. Those that would be behind a gap then, where nobody looks, are moved back (Knuth, The
// Art of Computer Programming, volume 3, algorithm 6.4 R).
func (s *shard) drop(gap uint32) {
	s.sessions--
	s.unname(s.entries[gap].name)
	s.unlink(gap)
	for at := s.after(gap); s.entries[at].name != 0; at = s.after(at) {
		e := &s.entries[at]
		if home := s.home(e.key); (at-home)&s.mask() >= (at-gap)&s.mask() { // so home is not behind the gap
			s.entries[gap] = *e
			s.entries[e.newer].older, s.entries[e.older].newer = gap, gap
			gap = at
		}
	}
	s.entries[gap] = entry{}
}

// rename pins a session to another endpoint.
func (s *shard) rename(at uint32, endpoint string) {
	old := s.entries[at].name
	s.entries[at].name = s.nameOf(endpoint)
	s.unname(old)
}

// oldest returns the place of the session that was used longest ago, root if there is none.
func (s *shard) oldest() uint32 { return s.entries[root].newer }

// link makes a session the newest.
func (s *shard) link(at uint32) {
	newest := s.entries[root].older
	s.entries[at].older, s.entries[at].newer = newest, root
	s.entries[newest].newer = at
	s.entries[root].older = at
}

func (s *shard) unlink(at uint32) {
	e := &s.entries[at]
	s.entries[e.older].newer = e.newer
	s.entries[e.newer].older = e.older
}

// nameOf returns the number of an endpoint's name, for one session more.
func (s *shard) nameOf(endpoint string) uint32 {
	i, ok := s.byName[endpoint]
	switch {
	case ok:
	case len(s.unused) > 0:
		i = s.unused[len(s.unused)-1]
		s.unused = s.unused[:len(s.unused)-1]
	default:
		i = uint32(len(s.names))
		s.names = append(s.names, name{})
	}
	if !ok {
		s.names[i].text, s.byName[endpoint] = endpoint, i
	}
	s.names[i].sessions++
	return i
}

// unname forgets a name that no session has any more.
func (s *shard) unname(i uint32) {
	n := &s.names[i]
	if n.sessions--; n.sessions == 0 {
		delete(s.byName, n.text)
		n.text = ""
		s.unused = append(s.unused, i)
	}
}

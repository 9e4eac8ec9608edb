package session

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// TableConfig says how much a [Table] remembers. The zero TableConfig has the defaults.
type TableConfig struct {
	// TTL is how long a key is remembered after it was last looked up or pinned. Zero means 10m.
	// What is older is never returned, and makes room as keys are added.
	TTL time.Duration
	// MaxSessions is how many keys are remembered at most; the one that was used longest ago
	// makes room. Zero means 65536. A session takes about 100 bytes, whatever the length of its
	// key.
	MaxSessions int
	// Clock is the clock to use; nil means the system's.
	Clock clock.Clock
}

const (
	defaultTTL         = 10 * time.Minute
	defaultMaxSessions = 65536
	// maxSessions keeps places within 32 bits.
	maxSessions = 1 << 30
)

func (c TableConfig) withDefaults() TableConfig {
	field.Default(&c.TTL, defaultTTL)
	field.Default(&c.MaxSessions, defaultMaxSessions)
	c.Clock = clock.Or(c.Clock)
	return c
}

// Validate returns nil, or all that is wrong with the configuration.
func (c TableConfig) Validate() error {
	var errs field.Errors
	errs.Check(c.TTL >= 0, "TTL", c.TTL, "must not be negative")
	errs.Check(c.MaxSessions >= 0 && c.MaxSessions <= maxSessions, "MaxSessions", c.MaxSessions, "must be from 0 to 2^30")
	return errs.Err()
}

// Table is a [Store] in memory. Keys are divided among shards, each with a lock and an order of use
// of its own, so with many shards "the one that was used longest ago" is that of its shard; below
// 2048 sessions there is one. Keys are not kept: what stands for one is a hash of 128 bits, whose
// seeds are secret and new in each process. It needs no goroutine and no end, and is safe for
// concurrent use.
type Table struct {
	seeds   [2]maphash.Seed
	elapsed func() time.Duration
	ttl     atomic.Int64            // nanoseconds
	shards  atomic.Pointer[[]shard] // a power of two

	resizing sync.Mutex // held by resize; taken before the locks of shards
}

// NewTable returns an empty table, or all that is wrong with the configuration.
func NewTable(c TableConfig) (*Table, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	t := &Table{
		seeds:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		elapsed: clock.Elapsed(c.Clock, c.Clock.Now()),
	}
	t.ttl.Store(int64(c.TTL))
	t.shards.Store(newShards(c.MaxSessions))
	return t, nil
}

// sessionsPerShard is from where on shards are so large that chance fills them evenly.
const (
	sessionsPerShard = 1024
	maxShards        = 64
)

func shardsFor(sessions int) int {
	n := 1
	for n < maxShards && sessions >= 2*n*sessionsPerShard {
		n *= 2
	}
	return n
}

// newShards returns as many empty shards as go with a number of sessions.
func newShards(most int) *[]shard {
	shards := make([]shard, shardsFor(most))
	for i := range shards {
		shards[i].places, shards[i].byName, shards[i].entries = map[fingerprint]uint32{}, map[string]uint32{}, make([]entry, 1)
	}
	divide(shards, most)
	return &shards
}

// divide gives each shard its part of the number of sessions.
func divide(shards []shard, most int) {
	n := len(shards)
	for i := range shards {
		shards[i].most = most / n
		if i < most%n {
			shards[i].most++
		}
	}
}

// resize changes the limits. Sessions that are too many go, those that were used longest ago first.
// Everybody else waits meanwhile, for as long as a sort of the sessions takes if there are to be more
// or fewer shards.
func (t *Table) resize(ttl time.Duration, most int) {
	t.resizing.Lock()
	defer t.resizing.Unlock()
	t.ttl.Store(int64(ttl))
	shards := *t.shards.Load()
	for i := range shards {
		shards[i].mu.Lock()
		defer shards[i].mu.Unlock()
	}
	if shardsFor(most) == len(shards) {
		divide(shards, most)
		for i := range shards {
			for s := &shards[i]; len(s.places) > s.most; {
				s.drop(s.oldest())
			}
		}
		return
	}
	next := newShards(most)
	moveTo(*next, shards)
	t.shards.Store(next)
}

// moveTo moves all sessions to other shards, in the order of their use. Whoever has found its way to
// an old shard finds that it has moved.
func moveTo(next, shards []shard) {
	type resident struct {
		entry
		endpoint string
	}
	var all []resident
	for i := range shards {
		s := &shards[i]
		for at := s.oldest(); at != root; at = s.entries[at].newer {
			e := s.entries[at]
			all = append(all, resident{e, s.names[e.name].text})
		}
		s.moved = true
	}
	slices.SortStableFunc(all, func(x, y resident) int { return cmp.Compare(x.used, y.used) })
	for _, r := range all {
		next[r.key.in(len(next))].add(r.key, r.endpoint, r.used)
	}
}

// fingerprint stands for a key.
type fingerprint struct{ shard, rest uint64 }

// in returns which of so many shards a key is in.
func (f fingerprint) in(shards int) int { return int(f.shard & uint64(shards-1)) }

// lock returns the shard of a key, which must be unlocked.
func (t *Table) lock(key string) (*shard, fingerprint) {
	f := fingerprint{maphash.String(t.seeds[0], key), maphash.String(t.seeds[1], key)}
	for {
		shards := *t.shards.Load()
		s := &shards[f.in(len(shards))]
		s.mu.Lock()
		if !s.moved {
			return s, f
		}
		s.mu.Unlock()
	}
}

// Lookup implements [Store]. It never fails, and allocates nothing.
func (t *Table) Lookup(_ context.Context, key string) (string, error) {
	now := t.elapsed()
	s, f := t.lock(key)
	defer s.mu.Unlock()
	if at := s.live(f, now, time.Duration(t.ttl.Load())); at != root {
		return s.names[s.entries[at].name].text, nil
	}
	return "", nil
}

// Pin implements [Store]. It never fails.
func (t *Table) Pin(_ context.Context, key, from, to string) (string, error) {
	now, _ := t.pin(key, from, to)
	return now, nil
}

// pin also reports whether it has changed anything.
func (t *Table) pin(key, from, to string) (endpoint string, changed bool) {
	now := t.elapsed()
	s, f := t.lock(key)
	defer s.mu.Unlock()
	ttl := time.Duration(t.ttl.Load())
	at := s.live(f, now, ttl)
	if at != root {
		pinned := s.names[s.entries[at].name].text
		switch {
		case pinned != from || pinned == to:
			return pinned, false
		case to == "":
			s.drop(at)
		default:
			s.rename(at, to)
		}
		return to, true
	}
	if to == "" {
		return "", false
	}
	s.expire(now, ttl)
	s.add(f, to, now)
	return to, true
}

// Len returns how many keys are remembered, those included that are too old to be returned and have not
// made room yet.
func (t *Table) Len() int {
	n := 0
	shards := *t.shards.Load()
	for i := range shards {
		s := &shards[i]
		s.mu.Lock()
		n += len(s.places)
		s.mu.Unlock()
	}
	return n
}

// shard is a part of a table: a map into a slice of entries, which are a list in the order of
// their last use. As all live equally long, that is also the order in which they expire.
type shard struct {
	mu      sync.Mutex // guards what follows; nothing is called under it
	most    int
	moved   bool // there are other shards now
	places  map[fingerprint]uint32
	entries []entry // the first one is the root of the list, and not a session
	free    uint32  // the first of those that are not used, linked by older; root if there is none
	names   []name
	byName  map[string]uint32
	unused  []uint32 // names

	_ [64]byte // no two shards share a cache line
}

// entry is a session. It holds no pointer, so that the garbage collector has nothing to follow.
type entry struct {
	key          fingerprint
	used         time.Duration // when it was last seen to be used, give or take
	newer, older uint32        // its neighbours in the list
	name         uint32        // of its endpoint
}

// name is the identity of an endpoint that has sessions.
type name struct {
	text     string
	sessions int
}

// root is the place of the list's root, and so stands for no place. The list is a ring: what is older
// than the root is the newest entry, what is newer the oldest.
const root = 0

// live returns the place of a session that has not expired, or root, and notes its use.
func (s *shard) live(f fingerprint, now, ttl time.Duration) uint32 {
	at, ok := s.places[f]
	if !ok {
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
	if len(s.places) >= s.most {
		s.drop(s.oldest())
	}
	at := s.free
	if at != root {
		s.free = s.entries[at].older
	} else {
		at = uint32(len(s.entries))
		s.entries = append(s.entries, entry{})
	}
	s.entries[at] = entry{key: f, used: now, name: s.nameOf(endpoint)}
	s.places[f] = at
	s.link(at)
}

// drop forgets a session.
func (s *shard) drop(at uint32) {
	e := &s.entries[at]
	delete(s.places, e.key)
	s.unname(e.name)
	s.unlink(at)
	*e = entry{older: s.free}
	s.free = at
}

// rename pins a session to another endpoint.
func (s *shard) rename(at uint32, endpoint string) {
	old := s.entries[at].name
	s.entries[at].name = s.nameOf(endpoint)
	s.unname(old)
}

// oldest returns the place of the entry that was used longest ago, root if there is none.
func (s *shard) oldest() uint32 { return s.entries[root].newer }

// link makes an entry the newest.
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

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
	// makes room. Zero means 65536. A session takes 45 to 75 bytes, whatever the length of its
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
// 2048 sessions there is one. Keys are not kept: what stands for one is a hash of 64 bits, whose
// seed is secret and new in each process. (That two of a million keys have the same, and so share an
// endpoint, happens in one of 37 million tables.) It needs no goroutine and no end, and is safe for
// concurrent use.
type Table struct {
	seed    maphash.Seed
	elapsed func() time.Duration
	ttl     atomic.Int64            // nanoseconds
	shards  atomic.Pointer[[]shard] // a power of two

	resizing sync.Mutex // held by resize, guards most; taken before the locks of shards
	most     int
}

// NewTable returns an empty table, or all that is wrong with the configuration.
func NewTable(c TableConfig) (*Table, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	t := &Table{
		seed:    maphash.MakeSeed(),
		elapsed: clock.Elapsed(c.Clock, c.Clock.Now()),
	}
	t.most = c.MaxSessions
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
		shards[i].byName, shards[i].names, shards[i].entries = map[string]uint32{}, make([]name, 1), make([]entry, 1+fewest)
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
	if most == t.most {
		return
	}
	t.most = most
	shards := *t.shards.Load()
	for i := range shards {
		shards[i].mu.Lock()
		defer shards[i].mu.Unlock()
	}
	if shardsFor(most) == len(shards) {
		divide(shards, most)
		for i := range shards {
			for s := &shards[i]; s.sessions > s.most; {
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
type fingerprint uint64

// in returns which of so many shards a key is in.
func (f fingerprint) in(shards int) int { return int(f & fingerprint(shards-1)) }

// lock returns the shard of a key, which must be unlocked.
func (t *Table) lock(key string) (*shard, fingerprint) {
	f := fingerprint(maphash.String(t.seed, key))
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
		n += s.sessions
		s.mu.Unlock()
	}
	return n
}

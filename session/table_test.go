package session

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
)

// wandering is a clock that goes back, too.
type wandering struct {
	clock.Clock
	mu  sync.Mutex
	now time.Time
}

func newWandering() *wandering { return &wandering{Clock: clock.NewFake(dawn), now: dawn} }

func (w *wandering) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *wandering) move(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newTestTable(t testing.TB, c TableConfig) *Table {
	t.Helper()
	table, err := NewTable(c)
	require.NoError(t, err)
	return table
}

// where returns what Lookup does, which must not be an error.
func (t *Table) where(tb testing.TB, key string) string {
	tb.Helper()
	endpoint, err := t.Lookup(tb.Context(), key)
	require.NoError(tb, err)
	return endpoint
}

// pinned returns what Pin does, which must not be an error. An empty to forgets the key.
func (t *Table) pinned(tb testing.TB, key, from, to string) string {
	tb.Helper()
	endpoint, err := t.Pin(tb.Context(), key, from, to)
	require.NoError(tb, err)
	return endpoint
}

// ledger is what a table of one shard should be: a list in the order of use.
type ledger struct {
	ttl   time.Duration
	most  int
	lines []line // the oldest first
}

type line struct {
	key, endpoint string
	used          time.Time
}

// lookup returns the place of a key, -1 if there is none.
func (l *ledger) lookup(key string, now time.Time) int {
	i := slices.IndexFunc(l.lines, func(e line) bool { return e.key == key })
	if i < 0 {
		return -1
	}
	age := now.Sub(l.lines[i].used)
	if age >= l.ttl {
		l.lines = slices.Delete(l.lines, i, i+1)
		return -1
	}
	if age > l.ttl/touches || age < 0 {
		e := l.lines[i]
		e.used = now
		l.lines = append(slices.Delete(l.lines, i, i+1), e)
		return len(l.lines) - 1
	}
	return i
}

// pin also reports whether it has changed anything.
func (l *ledger) pin(key, from, to string, now time.Time) (endpoint string, changed bool) {
	if i := l.lookup(key, now); i >= 0 {
		switch endpoint = l.lines[i].endpoint; {
		case endpoint != from || from == to:
			return endpoint, false
		case to == "":
			l.lines = slices.Delete(l.lines, i, i+1)
		default:
			l.lines[i].endpoint = to
		}
		return to, true
	}
	if to == "" {
		return "", false
	}
	for range 2 {
		if len(l.lines) > 0 && now.Sub(l.lines[0].used) >= l.ttl {
			l.lines = l.lines[1:]
		}
	}
	if len(l.lines) >= l.most {
		l.lines = l.lines[1:]
	}
	l.lines = append(l.lines, line{key, to, now})
	return to, true
}

func (l *ledger) resize(ttl time.Duration, most int) {
	l.ttl, l.most = ttl, most
	l.lines = l.lines[max(len(l.lines)-most, 0):]
}

// A table does what a list does, in 50,000 steps, whatever the clock does.
func TestTable_Model(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2, 7, 40} {
		random, now := seeded(t, uint64(most)), newWandering()
		want := ledger{ttl: 1000 * time.Second, most: most}
		table := newTestTable(t, TableConfig{TTL: want.ttl, MaxSessions: most, Clock: now})
		require.Len(t, *table.shards.Load(), 1)
		hits, moves, forgotten := 0, 0, 0
		for step := range 12_500 {
			about := fmt.Sprintf("at most %d, step %d", most, step)
			key := fmt.Sprint("key ", random.IntN(50))
			switch random.IntN(20) {
			case 0:
				now.move(-time.Duration(random.IntN(400)) * time.Second)
			case 1:
				now.move(time.Duration(random.IntN(1200)) * time.Second)
			case 2, 3, 4:
				now.move(time.Duration(random.IntN(20)) * time.Second)
			case 5:
				if random.IntN(50) == 0 {
					want.resize(time.Duration(500+random.IntN(1000))*time.Second, 1+random.IntN(most))
					table.resize(want.ttl, want.most)
				}
			case 6, 7, 8, 9, 10, 11:
				at, expected := want.lookup(key, now.now), ""
				if at >= 0 {
					expected = want.lines[at].endpoint
					hits++
				}
				require.Equal(t, expected, table.where(t, key), about)
			default:
				from, to := "", fmt.Sprint("endpoint ", random.IntN(5))
				if random.IntN(2) == 0 {
					from = fmt.Sprint("endpoint ", random.IntN(5))
				}
				if random.IntN(5) == 0 {
					to = ""
				}
				pin := func(from, to string) (changed bool) {
					endpoint, changed := want.pin(key, from, to, now.now)
					got, gotChanged := table.pin(key, from, to)
					require.Equal(t, endpoint, got, about)
					require.Equal(t, changed, gotChanged, about)
					return changed
				}
				if from != "" && from != to {
					pin("nowhere", from)
				}
				switch changed := pin(from, to); {
				case changed && to == "":
					forgotten++
				case changed && from != "":
					moves++
				}
			}
			require.Equal(t, len(want.lines), table.Len(), about)
			if step%500 == 0 {
				consistent(t, table)
			}
		}
		assert.Greater(t, hits, 50)
		assert.Greater(t, moves, 50)
		assert.Greater(t, forgotten, 50)
	}
}

// consistent fails the test if the parts of a table do not agree with each other.
func consistent(t *testing.T, table *Table) {
	t.Helper()
	for i := range *table.shards.Load() {
		s := &(*table.shards.Load())[i]
		require.LessOrEqual(t, s.sessions, s.most)
		sessions, listed := map[uint32]int{}, 0
		for at := s.oldest(); at != root; at = s.entries[at].newer {
			require.Equal(t, at, s.find(s.entries[at].key))
			require.Equal(t, at, s.entries[s.entries[at].newer].older)
			sessions[s.entries[at].name]++
			listed++
		}
		require.Equal(t, listed, s.sessions)
		taken := 0
		for _, e := range s.entries[1:] {
			if e.name != 0 {
				taken++
			}
		}
		require.Equal(t, listed, taken)
		require.LessOrEqual(t, 4*taken, 3*(len(s.entries)-1))
		require.Len(t, s.byName, len(sessions))
		for text, n := range s.byName {
			require.Equal(t, name{text, sessions[n]}, s.names[n])
		}
		require.Len(t, s.names, 1+len(s.byName)+len(s.unused))
	}
}

// The life of a key begins anew with each use, exact to a hundredth, and ends TTL after the last.
func TestTable_TTLSlides(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		about string
		waits []time.Duration // before each lookup
		want  string
	}{
		{"at once", []time.Duration{0}, "a:80"},
		{"just in time", []time.Duration{100*time.Second - 1}, "a:80"},
		{"too late", []time.Duration{100 * time.Second}, ""},
		{"much too late", []time.Duration{1000 * hour}, ""},
		{"twice just in time", []time.Duration{99 * time.Second, 99 * time.Second}, "a:80"},
		{"the second too late", []time.Duration{99 * time.Second, 100 * time.Second}, ""},
		{"many times", slices.Repeat([]time.Duration{50 * time.Second}, 100), "a:80"},
		{"back, and as long again", []time.Duration{-1000 * time.Second, 99 * time.Second}, "a:80"},
		{"back, and too long", []time.Duration{-1000 * time.Second, 100 * time.Second}, ""},
		{"far back", []time.Duration{-1000 * hour, 0}, "a:80"},
	} {
		now := newWandering()
		table := newTestTable(t, TableConfig{TTL: 100 * time.Second, Clock: now})
		table.pinned(t, "k", "", "a:80")
		var got string
		for _, wait := range row.waits {
			now.move(wait)
			got = table.where(t, "k")
		}
		assert.Equal(t, row.want, got, row.about)
	}

	now := newWandering()
	table := newTestTable(t, TableConfig{TTL: 100 * time.Second, Clock: now})
	table.pinned(t, "k", "", "a:80")
	now.move(90 * time.Second)
	assert.Equal(t, "a:80", table.pinned(t, "k", "b:80", "c:80"), "a pin that is not made is a use, too")
	now.move(90 * time.Second)
	assert.Equal(t, "b:80", table.pinned(t, "k", "a:80", "b:80"))
	now.move(100 * time.Second)
	assert.Equal(t, "c:80", table.pinned(t, "k", "x:80", "c:80"), "what is too old does not stand in the way")
}

func TestTable_AnyKey(t *testing.T) {
	t.Parallel()
	table := newTestTable(t, TableConfig{})
	keys := []string{"", "\x00", "\x00\x00", "\xff\xfe", "k", "K", "k ", "ключ", strings.Repeat("k", 1<<20), strings.Repeat("k", 1<<20-1)}
	for i, key := range keys {
		assert.Empty(t, table.where(t, key))
		table.pinned(t, key, "", fmt.Sprint(i))
	}
	for i, key := range keys {
		assert.Equal(t, fmt.Sprint(i), table.where(t, strings.Clone(key)))
	}
	assert.Equal(t, len(keys), table.Len())
}

// Of many who pin one key at once, all learn the same, and so do those who move it.
func TestTable_ConcurrentPinsAgree(t *testing.T) {
	t.Parallel()
	table := newTestTable(t, TableConfig{})
	for round := range 200 {
		key := fmt.Sprint(round)
		for _, from := range []string{"", "moves"} {
			if from != "" {
				table.pinned(t, key, table.where(t, key), from)
			}
			got := make([]string, 8)
			var group sync.WaitGroup
			for i := range got {
				group.Go(func() { got[i], _ = table.Pin(t.Context(), key, from, fmt.Sprint(i)) })
			}
			group.Wait()
			for _, endpoint := range got {
				assert.Equal(t, table.where(t, key), endpoint)
			}
		}
	}
}

func TestTable_BadInput_P02(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fields []string
		cfg    TableConfig
	}{
		{[]string{"TTL"}, TableConfig{TTL: -1}},
		{[]string{"MaxSessions"}, TableConfig{MaxSessions: -1}},
		{[]string{"MaxSessions"}, TableConfig{MaxSessions: 1<<30 + 1}},
		{[]string{"TTL", "MaxSessions"}, TableConfig{TTL: math.MinInt64, MaxSessions: math.MinInt}},
	} {
		table, err := NewTable(row.cfg)
		assert.Nil(t, table)
		assert.Equal(t, row.fields, problems(t, err))
		for _, by := range []Kind{
			Key{TTL: row.cfg.TTL, MaxSessions: row.cfg.MaxSessions}, Learn{Cookie: "a", TTL: row.cfg.TTL, MaxSessions: row.cfg.MaxSessions},
		} {
			for i, f := range problems(t, Policy{By: by}.Validate()) {
				assert.Equal(t, "By."+row.fields[i], f)
			}
		}
	}
	for _, cfg := range []TableConfig{{}, {TTL: 1, MaxSessions: 1}, {TTL: math.MaxInt64}} {
		table := newTestTable(t, cfg)
		assert.Equal(t, "a:80", table.pinned(t, "k", "", "a:80"))
	}
}

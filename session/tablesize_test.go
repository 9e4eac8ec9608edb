package session

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// namesKept returns how many names of endpoints a table keeps, and for how many it has room.
func (t *Table) namesKept() (kept, room int) {
	for i := range *t.shards.Load() {
		s := &(*t.shards.Load())[i]
		kept, room = kept+len(s.byName), room+len(s.names)-1
	}
	return kept, room
}

// Endpoints that are gone leave no names behind.
func TestTable_ChurnOfEndpoints(t *testing.T) {
	t.Parallel()
	now := newWandering()
	table := newTestTable(t, TableConfig{TTL: time.Minute, MaxSessions: 100, Clock: now})
	const keys = 5
	for i := range 10_000 { // each session moves to it from the last one
		for k := range keys {
			at := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)
			table.pinned(t, fmt.Sprint(k), table.where(t, fmt.Sprint(k)), at)
		}
		if kept, room := table.namesKept(); kept != 1 || room > 2 {
			t.Fatalf("%d names are kept, with room for %d", kept, room)
		}
	}
	for i := range 10_000 { // each session is new, and makes an old one go
		now.move(100 * time.Millisecond)
		table.pinned(t, fmt.Sprint("new ", i), "", fmt.Sprint("endpoint ", i))
	}
	kept, room := table.namesKept()
	assert.Equal(t, 100, kept)
	assert.LessOrEqual(t, room, 102)
	consistent(t, table)
	now.move(hour)
	for i := range 10_000 {
		assert.Empty(t, table.where(t, fmt.Sprint("new ", i)))
	}
	kept, _ = table.namesKept()
	assert.Zero(t, kept)
	assert.Zero(t, table.Len())
	for i := range *table.shards.Load() {
		assert.Empty(t, (*table.shards.Load())[i].byName)
		for _, n := range (*table.shards.Load())[i].names {
			assert.Empty(t, n)
		}
	}
}

// Given more keys than there is room for, then the table is full and not more, whatever the number of
// shards, and what was used last is there.
func TestTable_Full(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2, 1023, 1024, 1025, 2048, 5000, 70_000} {
		table := newTestTable(t, TableConfig{MaxSessions: most})
		if most <= 1024 {
			assert.Len(t, *table.shards.Load(), 1)
		}
		for i := range 3 * most {
			table.pinned(t, fmt.Sprint(i), "", "a:80")
			if table.where(t, fmt.Sprint(i)) == "" {
				t.Fatal("it was pinned a moment ago")
			}
		}
		room := 0
		for i := range *table.shards.Load() {
			room += (*table.shards.Load())[i].most
		}
		assert.Equal(t, most, room)
		assert.LessOrEqual(t, table.Len(), most)
		assert.GreaterOrEqual(t, table.Len(), most*9/10)
		found := 0
		for i := 2 * most; i < 3*most; i++ {
			if table.where(t, fmt.Sprint(i)) != "" {
				found++
			}
		}
		t.Logf("%d of the last %d are there, in %d shards", found, most, len(*table.shards.Load()))
		assert.GreaterOrEqual(t, found, most*9/10)
		if len(*table.shards.Load()) == 1 {
			assert.Equal(t, most, found, "exactly the last ones")
		}
		consistent(t, table)
	}
}

// What has expired makes room for what comes, so that a table does not grow to its limit for no reason.
func TestTable_ExpiredMakeRoom(t *testing.T) {
	t.Parallel()
	now := newWandering()
	table := newTestTable(t, TableConfig{TTL: time.Minute, MaxSessions: 1000, Clock: now})
	for i := range 100_000 {
		now.move(time.Second)
		table.pinned(t, fmt.Sprint(i), "", "a:80")
	}
	assert.LessOrEqual(t, table.Len(), 61)
	assert.LessOrEqual(t, len((*table.shards.Load())[0].entries), 129)
}

// A table is used by all goroutines at once, while it is resized.
func TestTable_Concurrent(t *testing.T) {
	t.Parallel()
	table := newTestTable(t, TableConfig{MaxSessions: 4096})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint(i % 500)
				at, _ := table.Lookup(t.Context(), key)
				if now, _ := table.Pin(t.Context(), key, at, fmt.Sprint("endpoint ", worker)); now == "" {
					t.Error("it is pinned somewhere")
				}
				switch {
				case worker == 0 && i%100 == 0:
					table.resize(time.Minute, 1000+i)
				case worker == 1:
					table.Len()
				}
			}
		})
	}
	group.Wait()
	consistent(t, table)
}

// Given other limits, with more or fewer shards, then those that were used last stay, with where they are pinned and since when.
func TestTable_ResizedKeepsTheLast_P01(t *testing.T) {
	t.Parallel()
	now := newWandering()
	table := newTestTable(t, TableConfig{TTL: hour, MaxSessions: 10_000, Clock: now})
	home := func(i int) string { return fmt.Sprint("endpoint ", i%7) }
	for i := range 5000 {
		now.move(time.Millisecond)
		table.pinned(t, fmt.Sprint(i), "", home(i))
	}
	now.move(30 * time.Minute)
	for i := range 100 { // the first ones are the last ones now
		now.move(time.Millisecond)
		assert.Equal(t, home(i), table.where(t, fmt.Sprint(i)))
	}
	for _, most := range []int{100_000, 5000, 2047, 1_000_000, 500, 100_000, 10_000} {
		table.resize(hour, most)
		consistent(t, table)
	}
	assert.Equal(t, 500, table.Len())
	for i := range 5000 {
		if want := home(i); i < 100 || i >= 4600 {
			assert.Equal(t, want, table.where(t, fmt.Sprint(i)), i)
		} else {
			assert.Empty(t, table.where(t, fmt.Sprint(i)), i)
		}
	}
	table.resize(20*time.Minute, 10_000)
	now.move(20 * time.Minute)
	assert.Empty(t, table.where(t, "0"))
	kept, _ := table.namesKept()
	assert.LessOrEqual(t, kept, 7*len(*table.shards.Load()))
}

// What is pinned while the shards change is pinned.
func TestTable_PinnedDuringAResize(t *testing.T) {
	t.Parallel()
	const workers, keys = 4, 5000
	table := newTestTable(t, TableConfig{MaxSessions: 100_000})
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range keys {
				_, _ = table.Pin(t.Context(), fmt.Sprint(worker, " ", i), "", "a:80")
				if worker == 0 && i%250 == 0 { // 32 shards, then 64, with room for all in each
					table.resize(hour, 50_000*(1+i/250%2))
				}
			}
		})
	}
	group.Wait()
	lost := 0
	for worker := range workers {
		for i := range keys {
			if table.where(t, fmt.Sprint(worker, " ", i)) == "" {
				lost++
			}
		}
	}
	assert.Zero(t, lost)
	consistent(t, table)
}

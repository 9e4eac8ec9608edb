package session

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Pin compares and sets, or forgets, and knows whether it has changed anything.
func TestTable_Pin(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		before, from, to, want string
		changed                bool
	}{
		{"", "", "a:80", "a:80", true},
		{"", "b:80", "a:80", "a:80", true}, // it was forgotten meanwhile
		{"a:80", "", "b:80", "a:80", false},
		{"a:80", "a:80", "b:80", "b:80", true},
		{"a:80", "c:80", "b:80", "a:80", false},
		{"a:80", "a:80", "a:80", "a:80", false},
		{"a:80", "b:80", "a:80", "a:80", false},
		{"a:80", "", "a:80", "a:80", false},
		{"a:80", "A:80", "b:80", "a:80", false},
		{"a:80", "a:80", "", "", true},
		{"a:80", "b:80", "", "a:80", false},
		{"a:80", "A:80", "", "a:80", false},
		{"a:80", "", "", "a:80", false},
		{"", "", "", "", false},
		{"", "a:80", "", "", false},
	} {
		for _, exported := range []bool{false, true} {
			table, sessions := newTestTable(t, TableConfig{}), 1
			table.pinned(t, "another", "", "a:80")
			if row.before != "" {
				table.pinned(t, "k", "", row.before)
			}
			if row.want != "" {
				sessions = 2
			}
			if exported {
				assert.Equal(t, row.want, table.pinned(t, "k", row.from, row.to), "%+v", row)
			} else {
				got, changed := table.pin("k", row.from, row.to)
				assert.Equal(t, row.want, got, "%+v", row)
				assert.Equal(t, row.changed, changed, "%+v", row)
			}
			assert.Equal(t, row.want, table.where(t, "k"), "%+v", row)
			assert.Equal(t, "a:80", table.where(t, "another"), "%+v", row)
			assert.Equal(t, sessions, table.Len(), "%+v", row)
			consistent(t, table)
		}
	}
}

// Of many who pin one key at once, one has changed something, and so it is of those who move it, and those who
// forget it.
func TestTable_OneHasChangedIt(t *testing.T) {
	t.Parallel()
	table := newTestTable(t, TableConfig{})
	for round := range 200 {
		key := fmt.Sprint(round)
		for _, step := range []struct{ from, to string }{{"", "a:80"}, {"a:80", "b:80"}, {"b:80", ""}} {
			var changes atomic.Int32
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					endpoint, changed := table.pin(key, step.from, step.to)
					assert.Equal(t, step.to, endpoint)
					if changed {
						changes.Add(1)
					}
				})
			}
			group.Wait()
			assert.Equal(t, int32(1), changes.Load(), "%+v", step)
		}
	}
	assert.Zero(t, table.Len())
}

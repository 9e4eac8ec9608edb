package session

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A table that was made smaller remembers as many keys as it may.
func TestTable_Shrunk(t *testing.T) {
	table := newTestTable(t, TableConfig{}) // 65536 sessions, in 64 shards
	table.resize(hour, 10)
	lost := 0
	for i := range 1000 {
		table.pinned(t, fmt.Sprint(i), "", "a:80")
		if table.where(t, fmt.Sprint(i)) == "" { // pinned a moment ago
			lost++
		}
	}
	assert.Zero(t, lost)
	assert.Equal(t, 10, table.Len())
}

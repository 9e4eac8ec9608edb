//go:build !race

package session

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
)

// inUse returns how many bytes of the heap are.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A session takes about 90 bytes, and never more than 120, keys and all.
func TestAlloc_AMillionSessions_S06(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	const n = 1_000_000
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("10.0.0.%d:8080", i)
	}
	before := inUse()
	table := newTestTable(t, TableConfig{MaxSessions: n})
	for _, part := range []int{n / 4, n / 2, n * 3 / 4, n, 2 * n} {
		for i := range part {
			table.pinned(t, "a key of a usual length "+strconv.Itoa(i), "", names[i%len(names)])
		}
		used, sessions := inUse()-before, table.Len()
		t.Logf("%d sessions, %d bytes each", sessions, int(used)/sessions)
		assert.LessOrEqual(t, int(used)/sessions, 120)
	}
	assert.Greater(t, table.Len(), n*9/10)
	runtime.KeepAlive(table)
}

// To look a key up, to pin one that is pinned, and to move it between endpoints that have sessions, allocate
// nothing.
func TestAlloc_Table(t *testing.T) {
	table := newTestTable(t, TableConfig{})
	table.pinned(t, "a", "", "a:80")
	table.pinned(t, "b", "", "b:80")
	table.pinned(t, "k", "", "a:80")
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = table.Lookup(ctx, "k") }), "known")
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = table.Lookup(ctx, "nobody's") }), "unknown")
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = table.Pin(ctx, "k", "", "b:80") }), "pinned")
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		_, _ = table.Pin(ctx, "k", "a:80", "b:80")
		_, _ = table.Pin(ctx, "k", "b:80", "a:80")
	}), "moved")
}

// To verify a cookie allocates nothing.
func TestAlloc_Cookie(t *testing.T) {
	n := newNoted(t, Cookie{Secret: secretNo(2), Previous: secretNo(1)})
	way := n.work.Load().way.(*cookieWay)
	v := &visit{keeper: n.Keeper, work: n.work.Load()}
	for _, by := range way.known {
		req := with(t, "a=1; evenkeel="+sealed(by.signer, "b:80", dawn))
		assert.Zero(t, testing.AllocsPerRun(1000, func() { way.begin(v, req) }))
		assert.Equal(t, "b:80", v.home())
	}
	bad := with(t, "evenkeel="+sealed(newSigner(secretNo(3), target, "evenkeel"), "b:80", dawn))
	var r reading
	refused := bad.Header.Get("Cookie")[len("evenkeel="):]
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if way.read(&r, refused, dawn) == nil {
			t.Fatal("it is not ours")
		}
	}), "forged")
}

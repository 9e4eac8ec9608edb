package health

import (
	"math/rand/v2"
	"sync/atomic"
)

// tally counts what nearly every request adds to. It has several counters, each on a cache line of
// its own, and adds to one by chance, so that processors seldom want the same one.
type tally [8]struct {
	n atomic.Uint64
	_ [56]byte
}

func (t *tally) add() { t[rand.Uint32()%uint32(len(t))].n.Add(1) }

// takeBack undoes an add.
func (t *tally) takeBack() { t[0].n.Add(^uint64(0)) }

// sum returns how many there were. It is meant for differences: it may wrap around.
func (t *tally) sum() (n uint64) {
	for i := range t {
		n += t[i].n.Load()
	}
	return n
}

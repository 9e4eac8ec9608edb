package breaker

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// keyed holds values that are made when their key is first asked for. It holds a
// bounded number, and drops what is not used.
type keyed[V any] struct {
	build func(key string) V
	clock clock.Clock

	mu      sync.RWMutex // guards what follows; build is called under it
	most    int
	idleFor time.Duration
	byKey   map[string]*entry[V]
	ring    []*entry[V]
	hand    int // where in the ring the search for room goes on
	sweep   clock.Timer
	closed  bool
}

type entry[V any] struct {
	key   string
	value V
	used  atomic.Bool // since somebody last looked
	at    int         // its place in the ring
}

// get returns the value of a key.
func (k *keyed[V]) get(key string) V {
	k.mu.RLock()
	e := k.byKey[key]
	k.mu.RUnlock()
	if e == nil {
		return k.add(key)
	}
	if !e.used.Load() { // a store costs more than a look
		e.used.Store(true)
	}
	return e.value
}

func (k *keyed[V]) add(key string) V {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.byKey[key]; e != nil {
		return e.value
	}
	e := &entry[V]{key: key, value: k.build(key), at: len(k.ring)}
	if k.closed {
		return e.value
	}
	k.makeRoomLocked(k.most - 1)
	e.at = len(k.ring)
	e.used.Store(true)
	if k.byKey == nil {
		k.byKey = map[string]*entry[V]{}
	}
	k.byKey[key] = e
	k.ring = append(k.ring, e)
	k.armLocked()
	return e.value
}

// makeRoomLocked drops values until there are at most so many: those that were not used
// since the hand last came by, as the second-chance algorithm of paging does.
func (k *keyed[V]) makeRoomLocked(most int) {
	for len(k.ring) > most {
		k.hand %= len(k.ring)
		if k.ring[k.hand].used.Swap(false) {
			k.hand++
		} else {
			k.dropLocked(k.ring[k.hand])
		}
	}
}

func (k *keyed[V]) dropLocked(e *entry[V]) {
	last := k.ring[len(k.ring)-1]
	k.ring[e.at], last.at = last, e.at
	k.ring[len(k.ring)-1] = nil
	k.ring = k.ring[:len(k.ring)-1]
	delete(k.byKey, e.key)
}

func (k *keyed[V]) armLocked() {
	if k.sweep == nil && len(k.ring) > 0 && !k.closed {
		k.sweep = k.clock.AfterFunc(k.idleFor, k.dropIdle)
	}
}

// dropIdle drops what was not used since it was last called.
func (k *keyed[V]) dropIdle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep = nil
	for _, e := range slices.Backward(k.ring) { // dropping moves the last one
		if !e.used.Swap(false) {
			k.dropLocked(e)
		}
	}
	if len(k.ring) == 0 { // a map keeps the room that it once needed
		k.byKey, k.ring = nil, nil
	}
	k.armLocked()
}

// remove drops the value of a key.
func (k *keyed[V]) remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.byKey[key]; e != nil {
		k.dropLocked(e)
	}
}

// all returns the values.
func (k *keyed[V]) all() []V {
	k.mu.RLock()
	defer k.mu.RUnlock()
	values := make([]V, len(k.ring))
	for i, e := range k.ring {
		values[i] = e.value
	}
	return values
}

// bound sets other limits.
func (k *keyed[V]) bound(most int, idleFor time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sweep != nil && idleFor != k.idleFor {
		k.sweep.Stop()
		k.sweep = nil
	}
	k.most, k.idleFor = most, idleFor
	k.makeRoomLocked(most)
	k.armLocked()
}

// close drops everything. What is asked for from now on is made and not kept.
func (k *keyed[V]) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed, k.byKey, k.ring = true, nil, nil
	if k.sweep != nil {
		k.sweep.Stop()
	}
}

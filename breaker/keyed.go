package breaker

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// keyed holds values that are made when their key is first asked for. It holds a
// bounded number, and drops what is not used.
//
// Which was used when is known by turns: one begins with each use of another value than
// before, and with each look for idle ones.
type keyed[V any] struct {
	build func(key string) V
	keep  func(V) bool // says that it would be a loss
	clock clock.Clock
	turn  atomic.Uint64

	mu       sync.RWMutex // guards what follows; build is called under it
	most     int
	idleFor  time.Duration
	byKey    map[string]*entry[V]
	lastLook uint64 // the turn that ended with it
	timer    clock.Timer
	timers   int // how many there were
	closed   bool
}

type entry[V any] struct {
	value V
	used  atomic.Uint64 // the turn of its last use
}

// get returns the value of a key.
func (k *keyed[V]) get(key string) V {
	k.mu.RLock()
	e := k.byKey[key]
	k.mu.RUnlock()
	if e == nil {
		return k.add(key)
	}
	if e.used.Load() != k.turn.Load() { // a store costs more than a look
		e.used.Store(k.turn.Add(1))
	}
	return e.value
}

func (k *keyed[V]) add(key string) V {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.byKey[key]; e != nil {
		return e.value
	}
	e := &entry[V]{value: k.build(key)}
	if k.closed {
		return e.value
	}
	k.makeRoomLocked(k.most - 1)
	e.used.Store(k.turn.Add(1))
	if k.byKey == nil {
		k.byKey = map[string]*entry[V]{}
	}
	k.byKey[key] = e
	k.armLocked()
	return e.value
}

// makeRoomLocked drops values until there are at most so many: those that would be no loss,
// and of these, those that were not used for the longest time. If there are many, it drops
// several at once, because it takes a look at all.
func (k *keyed[V]) makeRoomLocked(most int) {
	if len(k.byKey) <= most {
		return
	}
	type use struct {
		key  string
		keep bool
		turn uint64 // may change meanwhile
	}
	uses := make([]use, 0, len(k.byKey))
	for key, e := range k.byKey {
		uses = append(uses, use{key, k.keep(e.value), e.used.Load()})
	}
	slices.SortFunc(uses, func(a, b use) int {
		switch {
		case a.keep == b.keep:
			return cmp.Compare(a.turn, b.turn)
		case a.keep:
			return 1
		default:
			return -1
		}
	})
	for _, u := range uses[:max(len(uses)-most, len(uses)/16)] {
		delete(k.byKey, u.key)
	}
}

func (k *keyed[V]) armLocked() {
	if k.timer == nil && len(k.byKey) > 0 && !k.closed {
		k.timers++
		which := k.timers
		k.timer = k.clock.AfterFunc(k.idleFor, func() { k.dropIdle(which) })
	}
}

func (k *keyed[V]) disarmLocked() {
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// dropIdle drops what was not used since it was last called, and would be no loss.
func (k *keyed[V]) dropIdle(timer int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer == nil || timer != k.timers {
		return // it was too late to stop it
	}
	k.timer = nil
	for key, e := range k.byKey {
		if e.used.Load() <= k.lastLook && !k.keep(e.value) {
			delete(k.byKey, key)
		}
	}
	k.lastLook = k.turn.Add(1) - 1
	if len(k.byKey) == 0 {
		k.byKey = nil // a map keeps the room that it once needed
	}
	k.armLocked()
}

// remove drops the value of a key.
func (k *keyed[V]) remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byKey, key)
}

// all returns the values.
func (k *keyed[V]) all() []V {
	k.mu.RLock()
	defer k.mu.RUnlock()
	values := make([]V, 0, len(k.byKey))
	for _, e := range k.byKey {
		values = append(values, e.value)
	}
	return values
}

// bound sets other limits.
func (k *keyed[V]) bound(most int, idleFor time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if idleFor != k.idleFor {
		k.disarmLocked()
	}
	k.most, k.idleFor = most, idleFor
	k.makeRoomLocked(most)
	k.armLocked()
}

// close drops everything. What is asked for from now on is made and not kept.
func (k *keyed[V]) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed, k.byKey = true, nil
	k.disarmLocked()
}

package balancer

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// hotColdEntry is what an endpoint said of itself, good for one pick.
type hotColdEntry struct {
	slot    int
	number  uint64 // in order of arrival from 1; 0 for no entry
	id      uint32 // of the endpoint
	at      uint32 // ticks
	rif     float32
	latency float32 // seconds
}

// before reports whether an entry is to be used before another: cold before hot,
// of two cold ones the faster, of two hot ones the less busy. Of equals, the newer
// one is.
func (e *hotColdEntry) before(o hotColdEntry, hottest uint32) bool {
	hot, otherHot := rifBucket(e.rif) > hottest, rifBucket(o.rif) > hottest
	switch {
	case hot != otherHot:
		return otherHot
	case hot && e.rif != o.rif:
		return e.rif < o.rif
	case !hot && e.latency != o.latency:
		return e.latency < o.latency
	}
	return e.number > o.number
}

// hotColdPool holds the entries of all endpoints of a pool, whatever their groups.
type hotColdPool struct {
	arrived atomic.Uint64
	slots   []hotColdSlot
}

// hotColdSlot is the place of an entry. Whoever changes it first swaps its
// number, which no other entry ever has, for slotBusy or for 0. So what was read
// after a number belongs to it if the number can be swapped afterwards: an entry
// is used once, and never a mixture of two.
type hotColdSlot struct {
	number atomic.Uint64
	origin atomic.Uint64 // id and ticks
	load   atomic.Uint64 // requests in flight and latency
}

// slotBusy is the number of a slot that is being written. All others are less.
const slotBusy = math.MaxUint64

// read returns the entry in a slot. It is certain only when it could be taken.
func (p *hotColdPool) read(slot int) hotColdEntry {
	s := &p.slots[slot]
	number := s.number.Load()
	if number == 0 || number == slotBusy {
		return hotColdEntry{}
	}
	origin, load := s.origin.Load(), s.load.Load()
	return hotColdEntry{
		slot: slot, number: number, id: uint32(origin >> 32), at: uint32(origin),
		rif: math.Float32frombits(uint32(load >> 32)), latency: math.Float32frombits(uint32(load)),
	}
}

// take takes an entry out of the pool, unless it is no longer there.
func (p *hotColdPool) take(e hotColdEntry) bool {
	return p.slots[e.slot].number.CompareAndSwap(e.number, 0)
}

// add puts an entry into a free slot, or else into that of the oldest. One that
// gets no place, because others are faster, is not missed among theirs.
func (p *hotColdPool) add(e hotColdEntry) {
	for range hotColdTries {
		slot, number := p.oldest()
		if number != slotBusy && slot.number.CompareAndSwap(number, slotBusy) {
			slot.origin.Store(uint64(e.id)<<32 | uint64(e.at))
			slot.load.Store(uint64(math.Float32bits(e.rif))<<32 | uint64(math.Float32bits(e.latency)))
			slot.number.Store(p.arrived.Add(1))
			return
		}
	}
}

// oldest returns a slot that is free, or else the one with the oldest entry.
func (p *hotColdPool) oldest() (oldest *hotColdSlot, number uint64) {
	number = slotBusy
	for i := range p.slots {
		if n := p.slots[i].number.Load(); n < number {
			oldest, number = &p.slots[i], n
		}
		if number == 0 {
			break
		}
	}
	return oldest, number
}

// forget removes the entries of an endpoint.
func (p *hotColdPool) forget(id uint32) {
	for i := range p.slots {
		if e := p.read(i); e.number != 0 && e.id == id {
			p.take(e)
		}
	}
}

// rifWindow knows what is hot: it is a histogram of the requests in flight that
// the last reports of all endpoints told. While reports are added at the same
// time, it may be off by these.
type rifWindow struct {
	quantile float64
	added    atomic.Uint64
	hottest  atomic.Uint32 // the last bucket that is not hot
	last     [256]atomic.Uint32
	buckets  [642]atomic.Int32
}

const (
	// mostInFlight is the number from which on all are the same.
	mostInFlight = 1 << 20
	// belowOne is the bucket, in the bits of a float, that comes to be the first.
	belowOne = 127<<5 - 1
)

// rifBucket orders numbers by their first six binary digits: each integer up to
// 64 has a bucket of its own, and one above is with those up to 3 % away.
func rifBucket(rif float32) uint32 { return max(math.Float32bits(rif)>>18, belowOne) - belowOne }

func (w *rifWindow) add(rif float32) {
	bucket, n := rifBucket(rif), w.added.Add(1)
	w.buckets[bucket].Add(1)
	if old := w.last[n%uint64(len(w.last))].Swap(bucket + 1); old != 0 { // 0 is none
		w.buckets[old-1].Add(-1)
	}
	if n%8 == 0 || n < 8 {
		w.hottest.Store(w.bound(min(n, uint64(len(w.last)))))
	}
}

// bound returns the bucket at the quantile of the last n numbers.
func (w *rifWindow) bound(n uint64) uint32 {
	rest := int32(math.Ceil(w.quantile * float64(n)))
	for i := range w.buckets {
		if rest -= w.buckets[i].Load(); rest <= 0 {
			return uint32(i)
		}
	}
	return uint32(len(w.buckets))
}

// idIndex finds candidates by the id of their endpoints: a hash table with open
// addressing that is at most half full.
type idIndex struct {
	cells []uint64 // id and candidate, 0 for none
	shift int
}

func newIDIndex(n int) idIndex {
	size := bits.Len(uint(n)) + 1
	return idIndex{make([]uint64, 1<<size), 32 - size}
}

// place returns where the search for an id begins. The ids of a group often
// follow each other; the golden ratio spreads them.
func (x *idIndex) place(id uint32) int { return int(id * 0x9e3779b9 >> x.shift) }

func (x *idIndex) add(id uint32, candidate int) {
	i := x.place(id)
	for x.cells[i] != 0 {
		i = (i + 1) & (len(x.cells) - 1)
	}
	x.cells[i] = uint64(id)<<32 | uint64(candidate)
}

// find returns the index of the candidate, or -1.
func (x *idIndex) find(id uint32) int {
	for i := x.place(id); x.cells[i] != 0; i = (i + 1) & (len(x.cells) - 1) {
		if uint32(x.cells[i]>>32) == id {
			return int(uint32(x.cells[i]))
		}
	}
	return -1
}

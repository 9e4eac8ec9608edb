package balancer

import (
	"math"
	"math/bits"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// hashing is the settings that the three algorithms have in common.
type hashing struct {
	keys       []HashKey
	fallback   Algorithm
	loadFactor float64
}

// maxLoadFactor is far above what bounds anything.
const maxLoadFactor = 10

// newBuilder returns what the builders of the three begin with, and adds what is
// wrong with the settings.
func (h hashing) newBuilder(env Env, errs *field.Errors) *hashBuilder {
	errs.Check(len(h.keys) > 0, "Keys", len(h.keys), "must not be empty")
	errs.Under("Keys", sources(h.keys).Validate())
	errs.Check(h.loadFactor == 0 || h.loadFactor > 1 && h.loadFactor <= maxLoadFactor,
		"LoadFactor", h.loadFactor, "must be above 1 and at most 10, or 0 for no bound")
	b := &hashBuilder{
		keys:       sources(h.keys).Compile(),
		loadFactor: h.loadFactor,
		rand:       env.Rand,
	}
	if h.fallback != nil {
		fallback, err := h.fallback.NewBuilder(env)
		errs.Under("Fallback", err)
		b.fallback = fallback
	}
	return b
}

// A loadCounter is a [Builder] that may want to know how many attempts the pool
// has in flight. The pool tells it how to ask, once, before the first Build, and
// counts if the answer is true.
type loadCounter interface {
	useInFlight(total func() int64) bool
}

// hashBuilder is the builder of all three.
type hashBuilder struct {
	keys       hashkey.Extractor
	loadFactor float64
	rand       func() uint64
	fallback   Builder      // may be nil
	total      func() int64 // may be nil

	// build makes the picker of what it has in common with others.
	build func(p hashPicker, previous Picker) Picker
}

// builder returns b, as a [Refresher] if its fallback is one.
func (b *hashBuilder) builder() Builder {
	if r, ok := b.fallback.(Refresher); ok {
		return &refreshedHashBuilder{b, r}
	}
	return b
}

type refreshedHashBuilder struct {
	*hashBuilder
	fallback Refresher
}

// RefreshInterval implements [Refresher].
func (b *refreshedHashBuilder) RefreshInterval() time.Duration { return b.fallback.RefreshInterval() }

// Key implements [Keyer].
func (b *hashBuilder) Key(req *http.Request) uint64 {
	if key, ok := b.keys.Hash(req); ok {
		return key
	}
	return b.rand()
}

func (b *hashBuilder) useInFlight(total func() int64) bool {
	b.total = total
	wanted := b.loadFactor > 0
	if c, ok := b.fallback.(loadCounter); ok {
		wanted = c.useInFlight(total) || wanted
	}
	return wanted
}

// Observer implements [Builder] with the state that the fallback keeps.
func (b *hashBuilder) Observer(e discovery.Endpoint, previous Observer) Observer {
	if b.fallback == nil {
		return nil
	}
	return b.fallback.Observer(e, previous)
}

// Build implements [Builder].
func (b *hashBuilder) Build(g Group) Picker {
	var before *hashPicker
	if h, ok := g.Previous.(interface{ common() *hashPicker }); ok {
		before = h.common()
	}
	p := hashPicker{shared: b, candidates: g.Candidates, limited: g.limited, placing: newPlacing(g, before)}
	if b.loadFactor > 0 {
		p.weight = totalWeight(g.Candidates)
	}
	if b.fallback != nil {
		f := Group{Candidates: g.Candidates, Now: g.Now, limited: g.limited, pins: g.pins, born: g.born}
		if before != nil {
			f.Previous = before.without
		}
		p.without = b.fallback.Build(f)
	}
	return b.build(p, g.Previous)
}

// hashPicker is what the pickers of all three begin with.
type hashPicker struct {
	placing
	shared     *hashBuilder
	candidates []Candidate
	limited    bool    // Rules.MaxInFlight is set
	weight     float64 // of all candidates, where load is bounded
	without    Picker  // picks for requests without a key; may be nil
}

func (p *hashPicker) common() *hashPicker { return p }

// key returns the key of the request. If it has none, that is a random one, or
// false where another picker picks without.
func (p *hashPicker) key(req *http.Request) (key uint64, ok bool) {
	if key, ok = p.shared.keys.Hash(req); ok || p.without != nil {
		return key, ok
	}
	return p.shared.rand(), true
}

// A demand is what a candidate must fulfil. If none does, the next is tried.
type demand int

const (
	belowBound demand = iota // and usable
	usable
	available
)

// demands returns the first demand, and what goes with it: how many attempts an
// endpoint that had all of the weight could take.
func (p *hashPicker) demands() (first demand, room float64) {
	if p.shared.loadFactor == 0 {
		return usable, 0
	}
	return belowBound, p.shared.loadFactor * float64(p.inFlight()+1)
}

// inFlight returns what the pool has counted, or where nobody counts, what the
// candidates have together.
func (p *hashPicker) inFlight() int64 {
	if p.shared.total != nil {
		return p.shared.total()
	}
	sum := int64(0)
	for i := range p.candidates {
		sum += p.candidates[i].InFlight()
	}
	return sum
}

// fulfils reports whether a candidate may be picked. The bound of load is that of
// consistent hashing with bounded loads (arXiv 1608.01350): with q attempts in
// flight, at most ceil(c·(q+1)·w/Σw) at an endpoint.
func (p *hashPicker) fulfils(i int, info Info, d demand, room float64) bool {
	if d == available || d == usable && len(info.Tried) == 0 && !p.limited {
		return true // as mostly; a look at the node would cost more than all the rest
	}
	c := &p.candidates[i]
	if d == belowBound && float64(c.InFlight()) >= math.Ceil(room*c.weight/p.weight) {
		return false
	}
	return c.Usable(info)
}

// choose returns the candidate to pick at a place, or -1 if there is none that
// fulfils the demand.
func (p *hashPicker) choose(seat int32, key uint64, info Info, d demand, room float64) int {
	if seat >= 0 {
		if p.fulfils(int(seat), info, d, room) {
			return int(seat)
		}
		return -1
	}
	if seat == nobody {
		return -1
	}
	best, most := -1, uint64(0)
	for _, t := range p.twins[sharedBy-seat] {
		h := hashkey.Mix(key, t.hash)
		if (best < 0 || h > most) && p.fulfils(t.candidate, info, d, room) {
			best, most = t.candidate, h
		}
	}
	return best
}

// hashTable is a [RingHash] or [Maglev] table: it says where a hash belongs.
type hashTable interface{ find(hash uint64) uint32 }

// tablePicker looks keys up in a table.
type tablePicker struct {
	hashPicker
	table hashTable
	seats []int32 // who sits where the table points to, see place
}

// Pick takes the candidate where the key belongs if it can be had.
func (p *tablePicker) Pick(info Info) int {
	key, ok := p.key(info.Request)
	if !ok {
		return p.without.Pick(info)
	}
	first, room := p.demands()
	if i := p.choose(p.seats[p.table.find(key)], key, info, first, room); i >= 0 {
		return i
	}
	return p.search(key, info, first, room)
}

// jumps is how often a key that cannot be served where it belongs is sent
// elsewhere in the table. Unless nearly all endpoints are unavailable, one jump or
// two are enough.
const jumps = 32

// search goes on from where the key belongs. It does not take the neighbour, who
// would inherit all of the keys, but jumps at random, in a sequence that depends
// on the key only (random jump, arXiv 1908.08762). Where that finds nothing, it
// passes over all endpoints, once for each demand: where nobody has room, a pick
// takes as long as that.
func (p *tablePicker) search(key uint64, info Info, first demand, room float64) int {
	for d := first; d <= available; d++ {
		for jump := range uint64(jumps + 1) {
			at := key
			if jump > 0 {
				at = hashkey.Mix(key, jump)
			}
			if i := p.choose(p.seats[p.table.find(at)], key, info, d, room); i >= 0 {
				return i
			}
		}
		start, _ := bits.Mul64(key, uint64(len(p.places)))
		for k := range p.places {
			at := &p.places[(int(start)+k)%len(p.places)]
			if i := p.choose(at.seat, key, info, d, room); i >= 0 {
				return i
			}
		}
	}
	return 0 // there is a candidate, so this is not reached
}

package balancer

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// Maglev sends equal keys to the same endpoint by the look-up table of Google's
// load balancer (Eisenbud et al., NSDI 2016). The load is as even as the keys are,
// and a pick costs the same however many endpoints there are. Use it above about
// 100 endpoints; below, [Rendezvous] moves fewer keys.
//
// When an endpoint comes or goes, a few keys of others move as well. They are the
// more, the nearer the number of endpoints comes to the size of the table: take a
// hundred times as many entries as endpoints, or more. An endpoint that is only
// unavailable for a while moves nobody's keys but its own.
//
// The table is the one that Envoy makes with the same size and weights.
type Maglev struct {
	// Keys says where a request carries its key, see [HashKey]. There must be
	// at least one.
	Keys []HashKey

	// Fallback picks for requests without a key. Nil means any endpoint, by
	// weight.
	Fallback Algorithm

	// LoadFactor bounds the attempts in flight at an endpoint to its share, by
	// weight, of all that the pool has, times this: above 1, at most 10. Zero
	// means no bound; 1.25 is a good one. What is too much goes to the key's
	// next choice. Only this client's attempts count, so with few of them the
	// bound is loose, and attempts that begin at the same instant may exceed it
	// together.
	LoadFactor float64

	// TableSize is how many entries the table has, a prime number up to
	// 5000011. Zero means 65537. To make the table anew, which every change of
	// the endpoints or of their weights does, takes some 50 ns per entry. If
	// there are fewer entries than endpoints, those that get none are picked
	// only when nearly all others cannot be.
	TableSize int
}

const (
	defaultTableSize = 65537
	maxTableSize     = 5000011 // Envoy's
)

// NewBuilder implements [Algorithm].
func (a Maglev) NewBuilder(env Env) (Builder, error) {
	var errs field.Errors
	size := cmp.Or(a.TableSize, defaultTableSize)
	errs.Check(size <= maxTableSize && isPrime(size), "TableSize", a.TableSize,
		"must be a prime number of at most 5000011, or 0 for 65537")
	b := hashing{a.Keys, a.Fallback, a.LoadFactor}.newBuilder(env, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	b.build = func(p hashPicker, previous Picker) Picker {
		seats := make([]int32, len(p.places))
		for i := range p.places {
			seats[i] = p.places[i].seat
		}
		before, _ := previous.(*tablePicker)
		return &tablePicker{hashPicker: p, table: newMaglevTable(p.places, size, before), seats: seats}
	}
	return b.builder(), nil
}

func isPrime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

// maglevTable holds the index of a place in each entry.
type maglevTable []uint32

func (t maglevTable) find(hash uint64) uint32 { return t[hash%uint64(len(t))] }

// newMaglevTable returns the table of the picker before, which may be nil, if it is
// the same.
func newMaglevTable(places []place, size int, before *tablePicker) maglevTable {
	if before != nil {
		t, ok := before.table.(maglevTable)
		if ok && len(t) == size && slices.EqualFunc(before.places, places, samePlace) {
			return t
		}
	}
	m := maglev{
		entries: make(maglevTable, size),
		taken:   make([]uint64, size/64+1),
		turns:   newMaglevTurns(places, size),
	}
	lightest := places[0].weight
	for i := range places {
		m.heaviest = max(m.heaviest, places[i].weight)
		lightest = min(lightest, places[i].weight)
	}
	if lightest < m.heaviest {
		m.due = make([]int32, size+1)
		m.marks = make([]uint64, len(places)/64+1)
	}
	m.fill()
	return m.entries
}

func samePlace(a, b place) bool { return a.identity == b.identity && a.weight == b.weight }

// maglev is a table that is being made.
type maglev struct {
	heaviest float64
	turns    []maglevTurns // of each place
	entries  maglevTable
	taken    []uint64 // a bit for each entry: many more are looked at than are free
	due      []int32  // one above the index of a place with its turn in the round; nil if all have one in each
	marks    []uint64 // a bit for each place, see begin
}

// maglevTurns is what a place has done so far. It wants the entries offset,
// offset+skip, offset+2·skip, … in this order.
type maglevTurns struct {
	at, skip uint32
	count    uint32 // entries that it has
	next     int32  // one above the index of another with its turn in the same round
	weight   float64
}

func newMaglevTurns(places []place, size int) []maglevTurns {
	turns := make([]maglevTurns, len(places))
	for i := range places {
		p := &places[i]
		turns[i] = maglevTurns{
			at:     uint32(p.hash % uint64(size)),
			skip:   uint32(hashkey.StringSeed(p.identity, 1)%uint64(size-1)) + 1,
			weight: p.weight,
		}
	}
	return turns
}

// fill lets the places take their next free entry in turns, in the order of their
// identities. All take part in the first round, and the heaviest in every one;
// another does again when its weight times the rounds reaches that of the heaviest
// times the entries that it has. The round of each one's next turn is computed, for
// to pass over all in each round takes very long if one is heavier than the rest.
func (m *maglev) fill() {
	turns := make([]int32, len(m.turns))
	for i := range turns {
		turns[i] = int32(i)
	}
	for round, free := 1, len(m.entries); ; round++ {
		for _, i := range turns {
			m.take(i)
			if free--; free == 0 {
				return
			}
			if m.due != nil {
				m.schedule(i, round)
			}
		}
		if m.due != nil {
			turns = m.begin(round+1, turns[:0])
		}
	}
}

// take gives a place the first entry it wants that is free. There is one.
func (m *maglev) take(i int32) {
	t, size := &m.turns[i], uint32(len(m.entries))
	for m.taken[t.at/64]&(1<<(t.at%64)) != 0 {
		if t.at += t.skip; t.at >= size {
			t.at -= size
		}
	}
	m.taken[t.at/64] |= 1 << (t.at % 64)
	m.entries[t.at] = uint32(i)
	t.count++
}

// schedule notes the place's next turn. There are at most as many rounds as
// entries, so a later turn does not count.
func (m *maglev) schedule(i int32, round int) {
	t := &m.turns[i]
	next := max(math.Ceil(float64(t.count)*m.heaviest/t.weight), float64(round+1))
	if next < float64(len(m.due)) {
		t.next, m.due[int(next)] = m.due[int(next)], i+1
	}
}

// begin returns the places that have a turn in the round, in their order. Where
// they are many, marks bring them into it faster than sorting does.
func (m *maglev) begin(round int, turns []int32) []int32 {
	for i := m.due[round]; i > 0; i = m.turns[i-1].next {
		turns = append(turns, i-1)
	}
	if len(turns) < len(m.turns)/64 {
		slices.Sort(turns)
		return turns
	}
	for _, i := range turns {
		m.marks[i/64] |= 1 << (i % 64)
	}
	turns = turns[:0]
	for k, word := range m.marks {
		for ; word != 0; word &= word - 1 {
			turns = append(turns, int32(k*64+bits.TrailingZeros64(word)))
		}
		m.marks[k] = 0
	}
	return turns
}

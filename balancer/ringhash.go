package balancer

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// RingHash sends equal keys to the same endpoint by a ring of hashes (Karger et
// al., 1997): each endpoint has points on it, and a key belongs to the first point
// at or after its own hash. Use it to agree with clients that have such a ring
// already; else [Rendezvous] and [Maglev] are better. With r points per endpoint,
// the load of one differs from the mean by about 1/√r. When endpoints come or go,
// and the others have fewer or more points for it, keys move that need not: with a
// ring much larger than the number of endpoints, twice as many as needed.
//
// The ring is that of Envoy and gRPC (gRFC A42): the points are the XXH64 of
// identity, underscore and number, and there are as many as MinSize, MaxSize and
// the weights make there. An endpoint's part of the points may not be a whole
// number, if weights are not multiples of the least or MaxSize is reached. Then
// the fraction is carried on to the next endpoint, in the order of identities as in
// grpc-go. Envoy goes by the order of its list, so there some may have a point more
// or less. And Envoy takes hosts that are not healthy off the ring: while there are
// any, their keys go elsewhere than here.
type RingHash struct {
	// Keys says where a request carries its key, see [HashKey]. There must be
	// at least one.
	Keys []HashKey

	// Fallback picks for requests without a key. Nil means any endpoint, by
	// weight.
	Fallback Algorithm

	// LoadFactor bounds the attempts in flight at an endpoint to its share, by
	// weight, of all that the pool has, times this: above 1, at most 10. Zero
	// means no bound; 1.25 is a good one. What is too much goes to the key's
	// next choice, which is not the neighbour on the ring. Only this client's
	// attempts count, so with few of them the bound is loose, and attempts that
	// begin at the same instant may exceed it together.
	LoadFactor float64

	// MinSize is how many points the ring has at least, and each endpoint has at
	// least one. Zero means 1024, or MaxSize if that is less; at most 8388608.
	// For an even load take a hundred times the number of endpoints. A point
	// takes 16 bytes, and to make it some 60 ns. A change of one endpoint makes
	// only its own points, as long as the others keep the number of theirs.
	MinSize int

	// MaxSize is how many points the ring has at most. Zero means 8388608, which
	// is the limit. Very unequal weights make many points, for the least weight
	// has one. If there are fewer points than endpoints, those that get none are
	// picked only when nearly all others cannot be.
	MaxSize int
}

const (
	defaultRingSize = 1024
	maxRingSize     = 8 << 20 // Envoy's
)

// NewBuilder implements [Algorithm].
func (a RingHash) NewBuilder(env Env) (Builder, error) {
	var errs field.Errors
	const sizes = "must be between 1 and 8388608, or 0 for the default"
	errs.Check(a.MinSize >= 0 && a.MinSize <= maxRingSize, "MinSize", a.MinSize, sizes)
	errs.Check(a.MaxSize >= 0 && a.MaxSize <= maxRingSize, "MaxSize", a.MaxSize, sizes)
	errs.Check(a.MaxSize <= 0 || a.MinSize <= a.MaxSize, "MinSize", a.MinSize, "must not be above MaxSize")
	b := hashing{a.Keys, a.Fallback, a.LoadFactor}.newBuilder(env, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	most := cmp.Or(a.MaxSize, maxRingSize)
	least := cmp.Or(a.MinSize, min(defaultRingSize, most))
	b.build = func(p hashPicker, previous Picker) Picker {
		counts := ringCounts(p.places, float64(least), float64(most))
		before, _ := previous.(*tablePicker)
		r := newRing(p.places, counts, before)
		return &tablePicker{hashPicker: p, table: r, seats: r.seats(p.places)}
	}
	return b.builder(), nil
}

// ringCounts returns how many points each place has. It does the same as the loop
// of Envoy that adds up how many points there should be so far, but adds weights,
// which are mostly whole numbers: sums of fractions are a little off, and with one
// point for each that makes two for one endpoint and none for another.
func ringCounts(places []place, least, most float64) []int32 {
	lightest, total := places[0].weight, 0.0
	for i := range places {
		lightest = min(lightest, places[i].weight)
		total += places[i].weight
	}
	share := lightest / total
	scale := min(max(math.Ceil(share*least), 1)/share, most)
	counts := make([]int32, len(places))
	weight, before := 0.0, 0.0
	for i := range places {
		weight += places[i].weight
		const off = 1e-6 // more than rounding makes, less than any real fraction matters
		sum := math.Ceil(scale*weight/total - off)
		counts[i], before = int32(sum-before), sum
	}
	return counts
}

// ring is a ring of points. It is never changed; one for the next set of endpoints
// shares with it what is the same.
//
// The points are in buckets by their upper bits. Hashes are spread evenly, so all
// buckets have about the same number, and where in its bucket a point is can be
// guessed. To find one takes two or three accesses to memory, however many there
// are: some 25 ns in a ring of a million.
type ring struct {
	buckets [][]point // each sorted, see compare
	shift   int       // what is left of a hash is the index of its bucket
	size    int       // points in all

	counts []int32  // points of each place
	slots  []int32  // what each place is called in the points, for as long as it is there
	owners []string // the identity of each slot, also of one that is free
	free   []int32  // slots to use again
}

type point struct {
	hash uint64
	slot int32
}

// find returns the slot of the first point at or after the hash. Within a bucket it
// starts where that should be.
func (r *ring) find(hash uint64) uint32 {
	b := hash >> r.shift
	bucket := r.buckets[b]
	n, _ := bits.Mul64(hash<<(64-r.shift), uint64(len(bucket)))
	i := int(n)
	for i > 0 && bucket[i-1].hash >= hash {
		i--
	}
	for i < len(bucket) && bucket[i].hash < hash {
		i++
	}
	for i == len(bucket) {
		i = 0
		if b++; b == uint64(len(r.buckets)) {
			b = 0
		}
		bucket = r.buckets[b]
	}
	return uint32(bucket[i].slot)
}

// compare orders points. Two of different endpoints are next to never equal.
func (r *ring) compare(a, b point) int {
	if c := cmp.Compare(a.hash, b.hash); c != 0 {
		return c
	}
	return strings.Compare(r.owners[a.slot], r.owners[b.slot])
}

// seats returns who sits in each slot.
func (r *ring) seats(places []place) []int32 {
	seats := make([]int32, len(r.owners))
	for i := range seats {
		seats[i] = nobody
	}
	for i, slot := range r.slots {
		seats[slot] = places[i].seat
	}
	return seats
}

// perBucket is how many points a bucket of a new ring has on average, or up to
// twice as many. While a ring changes, that may double or halve. With fewer, the
// list of the buckets does not fit into the cache; with more, guesses are worse.
const perBucket = 16

// newRing returns a ring with the points that the counts say. It begins with those
// of the picker before, which may be nil, if most of them stay.
func newRing(places []place, counts []int32, before *tablePicker) *ring {
	r := &ring{counts: counts}
	for _, n := range counts {
		r.size += int(n)
	}
	if before != nil {
		if old, ok := before.table.(*ring); ok && r.follow(places, old, before.places) {
			return r
		}
	}
	r.slots, r.owners, r.free = make([]int32, len(places)), make([]string, len(places)), nil
	for i := range places {
		r.slots[i], r.owners[i] = int32(i), places[i].identity
	}
	r.fill()
	return r
}

// fill makes all points: it puts each into its bucket, and sorts the buckets.
func (r *ring) fill() {
	n := max(bits.Len(uint(r.size/perBucket))-1, 0)
	r.shift = 64 - n
	points := make([]point, 0, r.size)
	ends := make([]int32, 1<<n)
	for slot, count := range r.counts {
		name := newPointName(r.owners[slot])
		for k := range count {
			p := point{name.hash(k), int32(slot)}
			points = append(points, p)
			ends[p.hash>>r.shift]++
		}
	}
	sorted := make([]point, r.size)
	r.buckets = make([][]point, len(ends))
	end := int32(0)
	for b, count := range ends {
		r.buckets[b] = sorted[end : end+count : end+count]
		end += count
		ends[b] = end
	}
	for _, p := range points {
		end := &ends[p.hash>>r.shift]
		*end--
		sorted[*end] = p
	}
	for _, bucket := range r.buckets {
		slices.SortFunc(bucket, r.compare)
	}
}

// pointName is what the hashes of a place's points are made of.
type pointName struct {
	text   []byte
	prefix int
}

func newPointName(identity string) pointName {
	text := append(make([]byte, 0, len(identity)+12), identity...)
	text = append(text, '_')
	return pointName{text, len(text)}
}

func (n *pointName) hash(k int32) uint64 {
	n.text = strconv.AppendInt(n.text[:n.prefix], int64(k), 10)
	return hashkey.Sum64(n.text)
}

// follow makes r of the old ring and returns true, unless so much is different
// that to begin anew is faster: one point costs several times as much here.
func (r *ring) follow(places []place, old *ring, oldPlaces []place) bool {
	if n := len(old.buckets); r.size >= 4*perBucket*n || 2*r.size < perBucket*n {
		return false
	}
	changes := r.match(places, old, oldPlaces)
	work := 0
	for _, c := range changes {
		work += int(max(c.from, c.to) - min(c.from, c.to))
	}
	if 4*work > r.size {
		return false
	}
	r.shift, r.buckets = old.shift, old.buckets
	if work > 0 {
		r.buckets = slices.Clone(old.buckets)
	}
	for _, c := range changes {
		name := newPointName(r.owners[c.slot])
		for k := c.to; k < c.from; k++ {
			r.remove(point{name.hash(k), c.slot})
		}
		for k := c.from; k < c.to; k++ {
			r.insert(point{name.hash(k), c.slot})
		}
	}
	return true
}

// ringChange says that a slot has another number of points than before.
type ringChange struct{ slot, from, to int32 }

// match gives the places the slots that they had, or other ones, and returns what
// has changed. Both lists are in the order of identities. What leaves its slot is
// not followed by another before the next change, so that until then the name in
// owners fits both the points that go and those that come.
func (r *ring) match(places []place, old *ring, oldPlaces []place) (changes []ringChange) {
	r.slots = make([]int32, len(places))
	r.owners, r.free = slices.Clone(old.owners), slices.Clone(old.free)
	var left []int32
	for i, k := 0, 0; i < len(places) || k < len(oldPlaces); {
		var order int
		switch {
		case i == len(places):
			order = 1
		case k == len(oldPlaces):
			order = -1
		default:
			order = strings.Compare(places[i].identity, oldPlaces[k].identity)
		}
		var c ringChange
		if order >= 0 {
			c.slot, c.from = old.slots[k], old.counts[k]
			k++
		} else {
			c.slot = r.newSlot(places[i].identity)
		}
		if order <= 0 {
			r.slots[i], c.to = c.slot, r.counts[i]
			i++
		} else {
			left = append(left, c.slot)
		}
		if c.from != c.to {
			changes = append(changes, c)
		}
	}
	r.free = append(r.free, left...)
	return changes
}

func (r *ring) newSlot(owner string) int32 {
	n := len(r.free)
	if n == 0 {
		r.owners = append(r.owners, owner)
		return int32(len(r.owners) - 1)
	}
	slot := r.free[n-1]
	r.free, r.owners[slot] = r.free[:n-1], owner
	return slot
}

// insert and remove leave the bucket as it is, for others to use, and put another
// in its place.

func (r *ring) insert(p point) {
	bucket := &r.buckets[p.hash>>r.shift]
	at, _ := slices.BinarySearchFunc(*bucket, p, r.compare)
	*bucket = slices.Concat((*bucket)[:at], []point{p}, (*bucket)[at:])
}

func (r *ring) remove(p point) {
	bucket := &r.buckets[p.hash>>r.shift]
	at := slices.Index(*bucket, p)
	*bucket = slices.Concat((*bucket)[:at], (*bucket)[at+1:])
}

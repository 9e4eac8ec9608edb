package balancer

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// orderMembers gives each member its place in this client's order, of which it
// will use the first size. seed is the client's. zoned says that a part of each zone
// is used.
func (s Subset) orderMembers(members []*member, seed uint64, size int, zoned bool) {
	if s.Clients > 0 {
		for _, of := range byPlace(members, zoned) {
			rocksteadier(of, s.Ordinal, size)
		}
		return
	}
	for _, m := range members {
		if m.order == 0 { // it depends on nothing else
			m.order = hashkey.StringSeed(m.identity(), seed) | 1
		}
	}
}

// byPlace divides members by what a part of is used: priority, and perhaps zone.
func byPlace(members []*member, zoned bool) map[groupKey][]*member {
	places := map[groupKey][]*member{}
	for _, m := range members {
		key := groupKey{rank: m.rank}
		if zoned {
			key.zone = m.zone
		}
		places[key] = append(places[key], m)
	}
	return places
}

// lotSize is the number of endpoints, and of clients, that are matched with each
// other one by one.
const lotSize = 10

// rocksteadier sorts the endpoints and orders them as Google's "Rocksteadier" subsetting does:
// endpoints and clients are cut into lots of ten; a lot of clients goes from one
// lot of endpoints to the next, and in each, every client takes another endpoint.
// The next lot of clients begins where this one has what it needs. So all endpoints
// have the same number of clients, give or take one, if both come in tens; else some
// have up to twice the mean. The order within a lot is a hash; still, a change moves
// the border of all lots behind it.
func rocksteadier(members []*member, ordinal, size int) {
	slices.SortFunc(members, func(a, b *member) int { // web-2 before web-10
		x, y := a.identity(), b.identity()
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
	})
	clientLot, place := ordinal/lotSize, ordinal%lotSize
	lots := (len(members) + lotSize - 1) / lotSize
	step := max(size%lots, 1) // what gaps in the last lot displace is spread too
	for visit, lot := range vanDerCorput(lots) {
		visit = (visit - clientLot*step%lots + lots) % lots
		in := members[lot*lotSize : min((lot+1)*lotSize, len(members))]
		slices.SortFunc(in, func(a, b *member) int {
			seed := uint64(clientLot)
			return cmp.Compare(hashkey.StringSeed(a.identity(), seed), hashkey.StringSeed(b.identity(), seed))
		})
		for i, m := range in {
			// This client's own endpoint of each lot comes first, then those of
			// its neighbours.
			distance := (i - place + lotSize) % lotSize
			m.order = uint64(distance)<<32 | uint64(visit)<<1 | 1
		}
	}
}

// vanDerCorput returns 0 to n-1 in an order of which every beginning is spread
// evenly: by the bits of the number, reversed.
func vanDerCorput(n int) []int {
	width := bits.Len(uint(max(n-1, 0)))
	order := make([]int, 0, n)
	for i := range 1 << width {
		if r := int(bits.Reverse64(uint64(i)) >> (64 - width)); r < n {
			order = append(order, r)
		}
	}
	return order
}

// first returns the k members that come first in the client's order, in the order
// of the list.
func first(members []*member, k int) []*member {
	if k >= len(members) {
		return members
	}
	orders := make([]uint64, len(members))
	for i, m := range members {
		orders[i] = m.order
	}
	last := nth(orders, k-1)
	chosen := make([]*member, 0, k)
	for _, m := range members {
		if m.order <= last && len(chosen) < k {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// nth returns the value that would be at index n if they were sorted: Hoare's
// quickselect. It changes their order.
func nth(values []uint64, n int) uint64 {
	for len(values) > 1 {
		pivot := values[len(values)/2]
		i, k := 0, len(values)-1
		for i <= k {
			for values[i] < pivot {
				i++
			}
			for values[k] > pivot {
				k--
			}
			if i <= k {
				values[i], values[k] = values[k], values[i]
				i++
				k--
			}
		}
		switch {
		case n <= k:
			values = values[:k+1]
		case n >= i:
			values, n = values[i:], n-i
		default:
			return values[n]
		}
	}
	return values[0]
}

// subsetSizer decides how many endpoints this client's traffic is enough for. It
// grows as soon as the traffic does, and shrinks slowly.
type subsetSizer struct {
	size     int // 0 is all
	looking  bool
	looked   time.Time // last
	since    time.Time // since when attempts are counted, for the next time to shrink
	attempts uint64
	pause    time.Duration // until then
}

const (
	// minSubset protects against failures that come together.
	minSubset = 12
	// lookEvery is how often the traffic is looked at, to grow. To shrink, a
	// whole pause must be over; pauses grow from the first to the longest.
	lookEvery    = 2 * time.Second
	firstPause   = 2 * time.Second
	longestPause = time.Minute
)

// next returns when to look again.
func (s *subsetSizer) next() time.Time { return s.looked.Add(lookEvery) }

// start begins to look at the traffic.
func (s *subsetSizer) start(now time.Time) {
	*s = subsetSizer{looking: true, looked: now, since: now, pause: firstPause}
}

// look takes the number of attempts since the last look, among n endpoints.
func (s *subsetSizer) look(now time.Time, attempts uint64, n int) {
	size := s.size
	if size == 0 || size > n {
		size = n
	}
	want := enoughFor(attempts, now.Sub(s.looked), n)
	s.looked, s.attempts = now, s.attempts+attempts
	if want > size && (want >= 2*size || want == n) {
		size = want
		s.since, s.attempts = now, 0 // what was before says nothing about now
	}
	if period := now.Sub(s.since); period >= s.pause {
		if want = enoughFor(s.attempts, period, n); 2*want <= size {
			size = want
		}
		s.since, s.attempts, s.pause = now, 0, min(2*s.pause, longestPause)
	}
	if s.size = size; size >= n {
		s.size = 0
	}
}

// enoughFor returns for how many endpoints attempts are enough: one per second for
// each.
func enoughFor(attempts uint64, in time.Duration, n int) int {
	rate := float64(attempts) / max(in, time.Millisecond).Seconds()
	return min(max(int(math.Ceil(rate)), minSubset), n)
}

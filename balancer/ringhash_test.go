package balancer

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

func ringOf(p Picker) *ring { return p.(*tablePicker).table.(*ring) }

// portsAt returns endpoints at 127.0.0.1 whose ports begin with first.
func portsAt(first int, weights ...float64) []discovery.Endpoint {
	endpoints := make([]discovery.Endpoint, len(weights))
	for i, w := range weights {
		endpoints[i] = discovery.Endpoint{Address: "127.0.0.1:" + strconv.Itoa(first+i), Weight: w}
	}
	return endpoints
}

// points returns the points of a ring in order, each as its owner's port and hash.
func (r *ring) points() []string {
	var all []string
	for _, bucket := range r.buckets {
		for _, p := range bucket {
			owner := r.owners[p.slot]
			all = append(all, fmt.Sprintf("%s %d", owner[max(len(owner)-3, 0):], p.hash))
		}
	}
	return all
}

// The positions are those that the tests of Envoy print for the same endpoints.
func TestRingHash_IsEnvoysRing(t *testing.T) {
	for _, row := range []struct {
		ring      RingHash
		endpoints []discovery.Endpoint
		want      []string
	}{
		{
			RingHash{MinSize: 12},
			portsAt(90, 1, 1, 1, 1, 1, 1),
			[]string{
				":94 833437586790550860", ":92 928266305478181108", ":90 1033482794131418490",
				":95 3551244743356806947", ":93 3851675632748031481", ":91 5583722120771150861",
				":91 6311230543546372928", ":93 7700377290971790572", ":95 13144177310400110813",
				":92 13444792449719432967", ":94 15516499411664133160", ":90 16117243373044804889",
			},
		},
		{ // two points each, though three in all would be enough
			RingHash{MinSize: 3},
			portsAt(80, 1, 1),
			[]string{
				":80 5454692015285649509", ":81 7859399908942313493",
				":80 13838424394637650569", ":81 16064866803292627174",
			},
		},
		{ // one, two and three points
			RingHash{MinSize: 6, MaxSize: 6},
			portsAt(90, 1, 2, 3),
			[]string{
				":92 928266305478181108", ":92 4443673547860492590", ":91 5583722120771150861",
				":91 6311230543546372928", ":92 13444792449719432967", ":90 16117243373044804889",
			},
		},
	} {
		row.ring.Keys = byUser()
		c := newHashCluster(t, row.ring, row.endpoints...)
		assert.Equal(t, row.want, ringOf(c.build()).points())
	}
}

// A hash belongs to the first point at or after it, as in Envoy's test.
func TestRingHash_TakesTheNextPoint(t *testing.T) {
	c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: 12}, portsAt(90, 1, 1, 1, 1, 1, 1)...)
	r := ringOf(c.build())
	for hash, want := range map[uint64]string{
		0: ":94", math.MaxUint64: ":94", 3551244743356806947: ":95", 3551244743356806948: ":93",
		16117243373044804880: ":90", 16117243373044804890: ":94",
	} {
		owner := r.owners[r.find(hash)]
		assert.Equal(t, want, owner[len(owner)-3:], "%d", hash)
	}
}

// Rings of all sizes find what a search through a sorted list does.
func TestRingHash_FindsWhatASortedListDoes(t *testing.T) {
	for _, row := range []struct{ endpoints, least int }{{1, 1}, {2, 2}, {3, 31}, {7, 100}, {100, 1024}, {3, 50_000}, {2000, 1}} {
		c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: row.least}, manyEndpoints(row.endpoints)...)
		r := ringOf(c.build())
		sorted := slices.Concat(r.buckets...)
		require.Len(t, sorted, r.size)
		require.True(t, slices.IsSortedFunc(sorted, r.compare))
		check := func(hash uint64) {
			i, _ := slices.BinarySearchFunc(sorted, hash, func(p point, h uint64) int { return int(min(max(float64(p.hash)-float64(h), -1), 1)) })
			for i > 0 && sorted[i-1].hash >= hash {
				i--
			}
			for i < len(sorted) && sorted[i].hash < hash {
				i++
			}
			want := sorted[i%len(sorted)].slot
			require.Equal(t, uint32(want), r.find(hash), "%+v: %d", row, hash)
		}
		for k := range uint64(2000) {
			check(hashkey.Mix(k, 9))
		}
		for k := range r.buckets[:min(len(r.buckets), 500)] {
			check(uint64(k) << (r.shift & 63))
			check(uint64(k)<<(r.shift&63) - 1)
		}
		for _, p := range sorted[:min(len(sorted), 500)] {
			check(p.hash - 1)
			check(p.hash)
			check(p.hash + 1)
		}
	}
}

func TestRingHash_PointsPerEndpoint(t *testing.T) {
	for _, row := range []struct {
		least, most float64
		weights     []float64
		want        []int32
	}{
		{1024, maxRingSize, []float64{1}, []int32{1024}},
		{1024, maxRingSize, []float64{1, 1, 1}, []int32{342, 342, 342}},
		{6144, maxRingSize, []float64{1, 2, 3}, []int32{1024, 2048, 3072}}, // from Envoy's test
		{10, maxRingSize, []float64{2, 3, 3, 2}, []int32{2, 3, 3, 2}},
		{8, maxRingSize, []float64{2, 3, 3, 2}, []int32{2, 3, 3, 2}},
		{1, maxRingSize, []float64{2, 3, 3, 2}, []int32{1, 2, 1, 1}}, // 1, 1.5, 1.5 and 1: what is missing is carried on
		{6, 6, []float64{1, 1, 1, 1}, []int32{2, 1, 2, 1}},           // the example in Envoy's source
		{1, 4, []float64{1, 9, 1}, []int32{1, 3, 0}},                 // who comes too late gets none
		{1, 100, []float64{1, 1e6}, []int32{1, 99}},
		{1, 1, []float64{1, 1, 1}, []int32{1, 0, 0}},
	} {
		places := make([]place, len(row.weights))
		for i, w := range row.weights {
			places[i].weight = w
		}
		assert.Equal(t, row.want, ringCounts(places, row.least, row.most), "%+v", row)
	}
}

// Sums of fractions are a little off, and must not take the point of one endpoint
// for another.
func TestRingHash_EqualWeightsHaveEqualPoints(t *testing.T) {
	for n := 1; n < 3000; n++ {
		places := make([]place, n)
		for i := range places {
			places[i].weight = 0.1
		}
		counts := ringCounts(places, 1024, maxRingSize)
		require.Equal(t, slices.Min(counts), slices.Max(counts), "%d endpoints", n)
		require.GreaterOrEqual(t, int(counts[0])*n, 1024)
	}
}

// With r points each, shares differ from the mean by about 1/√r.
func TestRingHash_Balance(t *testing.T) {
	const n = 100
	for _, points := range []int{100, 1000} {
		c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: n * points}, manyEndpoints(n)...)
		r := ringOf(c.build())
		share := make([]float64, n)
		last := uint64(0)
		all := slices.Concat(r.buckets...)
		for _, p := range append(all, point{math.MaxUint64, all[0].slot}) {
			share[p.slot] += float64(p.hash-last) / math.MaxUint64 * n
			last = p.hash
		}
		variance := 0.0
		for _, s := range share {
			variance += (s - 1) * (s - 1) / n
		}
		assert.InEpsilon(t, 1/math.Sqrt(float64(points)), math.Sqrt(variance), 0.2, "%d points", points)
		assert.Less(t, slices.Max(share), 1+4/math.Sqrt(float64(points)))
		assert.Greater(t, slices.Min(share), 1-4/math.Sqrt(float64(points)))
	}
}

// When n+1 endpoints have fewer points each than n had, the keys of those that are
// gone move as well. That is how Envoy's ring is, and a reason to use another.
func TestRingHash_MovesMoreKeysWhenPointsChange(t *testing.T) {
	keys := users(20_000)
	for _, row := range []struct{ n, size int }{{2, 1024}, {5, 1024}, {10, 10_000}, {50, 1024}, {100, 100_000}} {
		a := RingHash{Keys: byUser(), MinSize: row.size}
		before := newHashCluster(t, a, manyEndpoints(row.n)...)
		after := newHashCluster(t, a, manyEndpoints(row.n+1)...)
		old, now := ringOf(before.build()).counts[0], ringOf(after.build()).counts[0]
		got := float64(moved(before.owners(keys), after.owners(keys))) / float64(len(keys))
		assert.LessOrEqual(t, got, 1/float64(row.n+1)+float64(old-now)/float64(old)+0.02, "%+v: %d points each, then %d", row, old, now)
	}
}

// Rings that were made of others have the same points as those made from nothing,
// whatever has changed: who is there, weights, and so the points of each.
func TestRingHash_FollowsChanges(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 6))
		a := RingHash{Keys: byUser(), MinSize: 3000, MaxSize: 3000 + 3000*int(seed%2)}
		c := newHashCluster(t, a, manyEndpoints(200)...)
		shared, last := 0, ringOf(c.build())
		for step := range 60 {
			for range 1 + random.IntN(3) {
				c.change(random)
			}
			r := ringOf(c.build())
			if i := slices.IndexFunc(r.buckets, func(b []point) bool { return len(b) > 0 }); &r.buckets[i][0] == &last.buckets[i][0] {
				shared++
			}
			last = r
			whole := c.divide(c.all)
			whole.Previous = nil
			require.Equal(t, ringOf(c.builder.Build(whole)).points(), r.points(), "seed %d, step %d", seed, step)
		}
		t.Logf("seed %d: %d of 60 shared", seed, shared)
		assert.Greater(t, shared, 10, "seed %d: most are not made anew", seed)
	}
}

// A change of one endpoint makes only its own points anew, and one that is away for
// a moment none at all.
func TestRingHash_SharesWhatStays(t *testing.T) {
	c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: 10_000}, manyEndpoints(100)...)
	first := ringOf(c.build())
	c.away[c.all[3].Endpoint().Address] = true
	flap := ringOf(c.build())
	assert.Same(t, &first.buckets[0], &flap.buckets[0])

	c.remove(7)
	c.add(discovery.Endpoint{Address: "192.168.0.1:80"})
	replaced := ringOf(c.build())
	same := 0
	for b := range first.buckets {
		if len(first.buckets[b]) > 0 && len(replaced.buckets[b]) > 0 && &first.buckets[b][0] == &replaced.buckets[b][0] {
			same++
		}
	}
	assert.Len(t, replaced.buckets, len(first.buckets))
	assert.GreaterOrEqual(t, same, len(first.buckets)-200)
	assert.Less(t, same, len(first.buckets))
	assert.Equal(t, first.size, replaced.size)
}

// Two rings may be made of the same one, and know nothing of each other.
func TestRingHash_Branches(t *testing.T) {
	c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: 1000}, manyEndpoints(50)...)
	c.build()
	c.remove(0)
	c.build() // leaves a slot
	root, stem := c.all, c.group.Previous
	branch := func(previous Picker, all []Candidate) Picker {
		c.all, c.group.Previous = all, previous
		return c.build()
	}
	c.add(c.fresh())
	one, left := c.all, branch(stem, c.all)
	c.all = slices.Clone(root)
	c.add(c.fresh())
	two, right := c.all, branch(stem, c.all)
	again := ringOf(branch(stem, root)).points()
	assert.Equal(t, ringOf(stem).points(), again)
	assert.Equal(t, again, ringOf(branch(left, root)).points())
	assert.Equal(t, again, ringOf(branch(right, root)).points())
	assert.Equal(t, ringOf(branch(nil, one)).points(), ringOf(left).points())
	assert.Equal(t, ringOf(branch(nil, two)).points(), ringOf(right).points())
}

// However long endpoints come and go, slots are used again, and buckets stay small.
func TestRingHash_DoesNotGrow(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 4))
	c := newHashCluster(t, RingHash{Keys: byUser(), MinSize: 1}, manyEndpoints(40)...)
	most := len(c.all)
	for step := range 1500 {
		c.remove(random.IntN(len(c.all)))
		if step < 600 || len(c.all) < 10 || random.IntN(5) == 0 {
			c.add(c.fresh(), c.fresh())
		}
		r := ringOf(c.build())
		most = max(most, len(c.all))
		require.LessOrEqual(t, len(r.owners), most+3)
		require.Less(t, r.size, 4*perBucket*len(r.buckets))
		require.True(t, len(r.buckets) == 1 || 2*r.size >= perBucket*len(r.buckets))
		require.Len(t, r.buckets, 1<<(64-r.shift))
		require.Equal(t, 1, bits.OnesCount(uint(len(r.buckets))))
	}
}

// fresh returns an endpoint that was not there before.
func (c *hashCluster) fresh() discovery.Endpoint {
	c.serial++
	return discovery.Endpoint{Address: fmt.Sprintf("172.17.%d.%d:80", c.serial>>8, c.serial&255)}
}

// Two endpoints may have the same point: then it belongs to the one whose identity
// is first, whoever came first.
func TestRing_EqualPoints(t *testing.T) {
	for _, order := range [][]int32{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		r := &ring{owners: []string{"b", "a", "c"}, buckets: [][]point{nil}, shift: 64}
		for _, slot := range order {
			r.insert(point{7, slot})
		}
		assert.Equal(t, []point{{7, 1}, {7, 0}, {7, 2}}, r.buckets[0])
		assert.Equal(t, uint32(1), r.find(7))
		r.remove(point{7, 1})
		assert.Equal(t, uint32(0), r.find(7))
		assert.Equal(t, uint32(0), r.find(8))
	}
}

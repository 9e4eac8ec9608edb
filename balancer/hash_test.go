package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// byUser is the key of the tests.
func byUser() []HashKey { return []HashKey{{Header: "X-User"}} }

// hashAlgorithms are those that must all do the same. The ring is one that spreads
// the load well over a hundred endpoints.
func hashAlgorithms() map[string]func(hashing) Algorithm {
	return map[string]func(hashing) Algorithm{
		"RingHash": func(h hashing) Algorithm {
			return RingHash{Keys: h.keys, Fallback: h.fallback, LoadFactor: h.loadFactor, MinSize: 20_000, MaxSize: 200_000}
		},
		"Maglev": func(h hashing) Algorithm {
			return Maglev{Keys: h.keys, Fallback: h.fallback, LoadFactor: h.loadFactor}
		},
		"Rendezvous": func(h hashing) Algorithm {
			return Rendezvous{Keys: h.keys, Fallback: h.fallback, LoadFactor: h.loadFactor}
		},
	}
}

// forAll runs a test for each of the three.
func forAll(t *testing.T, h hashing, test func(t *testing.T, a Algorithm)) {
	t.Helper()
	if h.keys == nil {
		h.keys = byUser()
	}
	for name, algorithm := range hashAlgorithms() {
		t.Run(name, func(t *testing.T) { test(t, algorithm(h)) })
	}
}

// cluster holds endpoints that come, go and are away for a while.
type hashCluster struct {
	builder Builder
	all     []Candidate
	away    map[string]bool // addresses of those that are not available
	group   Group           // as it was built last
	limited bool
	serial  uint64
}

func newHashCluster(tb testing.TB, a Algorithm, endpoints ...discovery.Endpoint) *hashCluster {
	tb.Helper()
	b, err := a.NewBuilder(Env{Rand: seeded(tb, 1), Now: epoch})
	require.NoError(tb, err)
	c := &hashCluster{builder: b, away: map[string]bool{}}
	c.add(endpoints...)
	return c
}

func (c *hashCluster) add(endpoints ...discovery.Endpoint) {
	for _, e := range endpoints {
		c.serial++
		one := Candidate{node: node.New(e, c.serial, nil, nil), weight: e.EffectiveWeight()}
		if o := c.builder.Observer(e, nil); o != nil {
			one.observer = o
		}
		c.all = append(c.all, one)
	}
}

func (c *hashCluster) remove(i int) { c.all = slices.Delete(slices.Clone(c.all), i, i+1) }

// build makes the next picker.
func (c *hashCluster) build() Picker {
	c.group = c.divide(c.all)
	c.group.Previous = c.builder.Build(c.group)
	return c.group.Previous
}

func (c *hashCluster) divide(all []Candidate) Group {
	g := Group{Previous: c.group.Previous, Now: epoch, limited: c.limited}
	for _, one := range all {
		if c.away[one.Endpoint().Address] {
			g.Unavailable = append(g.Unavailable, one)
		} else {
			g.Candidates = append(g.Candidates, one)
		}
	}
	return g
}

// address returns who is picked.
func (c *hashCluster) address(info Info) string {
	return c.group.Candidates[c.group.Previous.Pick(info)].Endpoint().Address
}

// owners returns who is picked for each key.
func (c *hashCluster) owners(keys []string) []string {
	owners := make([]string, len(keys))
	for i, key := range keys {
		owners[i] = c.address(keyed(key))
	}
	return owners
}

// serialOf returns what stands for an endpoint in Info.Tried.
func (c *hashCluster) serialOf(address string) uint64 {
	for _, one := range c.all {
		if one.Endpoint().Address == address {
			return one.node.Serial()
		}
	}
	return 0
}

// keyed is a request with a key.
func keyed(key string, tried ...uint64) Info {
	return Info{Request: &http.Request{Header: http.Header{"X-User": {key}}}, Tried: tried}
}

// users returns keys of sixteen bytes.
func users(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%016x", hashkey.Mix(1, uint64(i)))
	}
	return all
}

// moved returns how many keys have another owner.
func moved(before, after []string) int {
	n := 0
	for i := range before {
		if before[i] != after[i] {
			n++
		}
	}
	return n
}

// tally returns how many keys each owner has.
func tally(owners []string) map[string]int {
	counts := map[string]int{}
	for _, o := range owners {
		counts[o]++
	}
	return counts
}

func TestHash_SettingsAreChecked(t *testing.T) {
	type problems []string
	for _, row := range []struct {
		algorithm Algorithm
		want      problems
	}{
		{RingHash{Keys: byUser()}, nil},
		{RingHash{Keys: byUser(), MinSize: 1, MaxSize: 1, LoadFactor: 10}, nil},
		{RingHash{Keys: byUser(), MaxSize: 512}, nil},
		{RingHash{Keys: byUser(), MinSize: 8388608}, nil},
		{Maglev{Keys: byUser()}, nil},
		{Maglev{Keys: byUser(), TableSize: 2, LoadFactor: 1.25}, nil},
		{Maglev{Keys: byUser(), TableSize: 5000011}, nil},
		{Rendezvous{Keys: byUser(), Fallback: LeastRequest{}}, nil},
		{RingHash{}, problems{"Keys: "}},
		{Maglev{}, problems{"Keys: "}},
		{Rendezvous{}, problems{"Keys: "}},
		{
			RingHash{Keys: []HashKey{{Path: true}, {Header: "a b"}}, MinSize: -1, MaxSize: 8388609, LoadFactor: 1, Fallback: LeastRequest{Choices: 1}},
			problems{"MinSize: ", "MaxSize: ", "Keys[1].Header: ", "LoadFactor: ", "Fallback.Choices: "},
		},
		{RingHash{Keys: byUser(), MinSize: 3, MaxSize: 2}, problems{"MinSize: "}},
		{RingHash{Keys: byUser(), MinSize: 8388609}, problems{"MinSize: "}},
		{RingHash{Keys: byUser(), MaxSize: -1}, problems{"MaxSize: "}},
		{Maglev{Keys: []HashKey{{}}, TableSize: 8, LoadFactor: -1}, problems{"TableSize: ", "Keys[0].Header: ", "LoadFactor: "}},
		{Maglev{Keys: byUser(), TableSize: 1}, problems{"TableSize: "}},
		{Maglev{Keys: byUser(), TableSize: -7}, problems{"TableSize: "}},
		{Maglev{Keys: byUser(), TableSize: 65536}, problems{"TableSize: "}},
		{Maglev{Keys: byUser(), TableSize: 5000077}, problems{"TableSize: "}}, // a prime
		{Rendezvous{Keys: byUser(), LoadFactor: math.NaN()}, problems{"LoadFactor: "}},
		{Rendezvous{Keys: byUser(), LoadFactor: math.Inf(1)}, problems{"LoadFactor: "}},
		{Rendezvous{Keys: byUser(), LoadFactor: 10.5}, problems{"LoadFactor: "}},
		{Rendezvous{Keys: byUser(), Fallback: Maglev{}}, problems{"Fallback.Keys: "}},
	} {
		err := Validate(row.algorithm)
		if row.want == nil {
			assert.NoError(t, err, "%+v", row.algorithm)
			continue
		}
		if !assert.Error(t, err, "%+v", row.algorithm) {
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if assert.Len(t, lines, len(row.want), "%+v: %v", row.algorithm, err) {
			for i, line := range lines {
				assert.True(t, strings.HasPrefix(line, row.want[i]), "%q should begin with %q", line, row.want[i])
			}
		}
	}
}

func TestHash_KeyOfARequest(t *testing.T) {
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		k, ok := newHashCluster(t, a).builder.(Keyer)
		require.True(t, ok)
		assert.Equal(t, hashkey.String("ann"), k.Key(keyed("ann").Request))
		seen := map[uint64]bool{}
		for range 100 {
			seen[k.Key(keyed("").Request)] = true
			seen[k.Key(nil)] = true
		}
		assert.Len(t, seen, 200, "no value: at random")
	})
}

// The algorithms are pinned: another version, process, machine or order of the list
// must not send a key elsewhere, defect 30. One endpoint is hashed by its
// attribute, one by its ID, the others by their addresses. The table has the first
// and the second choice of each key, and was also computed by a naive program in
// another language.
func TestHash_IsTheSameEverywhere_Defect30_B16(t *testing.T) {
	endpoints := []discovery.Endpoint{
		{Zone: "1", Address: "10.0.0.1:8080"},
		{Zone: "2", Address: "10.0.0.2:8080"},
		{Zone: "3", Address: "10.0.0.3:8080", ID: "pod-3"},
		{Zone: "4", Address: "10.0.0.4:8080", ID: "uid-4", Attributes: map[string]string{"hash_key": "web-4"}},
		{Zone: "5", Address: "[2001:db8::5]:8080", Attributes: map[string]string{"hash_key": ""}},
		{Zone: "6", Address: "unix:/run/six.sock", Weight: 2},
		{Zone: "7", Address: "10.0.0.7:8080", Weight: 0.5},
	}
	keys := []string{"a", "alice", "bob", "carol", "dave", "eve", "mallory", "trent", "/cart/17", "user-000000000001", "Ünï", strings.Repeat("long ", 20)}
	pinned := map[string]string{
		"RingHash":   "36 61 64 41 35 65 46 53 42 34 56 27 ",
		"Maglev":     "75 56 31 17 26 62 51 76 61 17 46 41 ",
		"Rendezvous": "64 17 24 63 54 15 64 41 61 25 35 23 ",
	}
	for name, algorithm := range hashAlgorithms() {
		for seed := range uint64(5) {
			rand.New(rand.NewPCG(seed, 0)).Shuffle(len(endpoints), func(i, k int) {
				endpoints[i], endpoints[k] = endpoints[k], endpoints[i]
			})
			c := newHashCluster(t, algorithm(hashing{keys: byUser()}), endpoints...)
			c.build()
			got := ""
			for _, key := range keys {
				i := c.group.Previous.Pick(keyed(key))
				info := keyed(key, c.group.Candidates[i].node.Serial())
				k := c.group.Previous.Pick(info) // the second choice
				got += c.group.Candidates[i].Endpoint().Zone + c.group.Candidates[k].Endpoint().Zone + " "
			}
			assert.Equal(t, pinned[name], got, "%s, order %d", name, seed)
		}
	}
}

func TestHash_OneEndpoint(t *testing.T) {
	forAll(t, hashing{loadFactor: 1.1}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(1)...)
		p := c.build()
		for _, key := range users(100) {
			hold(c.group.Candidates[0], 1)
			assert.Zero(t, p.Pick(keyed(key)))
		}
		assert.Zero(t, p.Pick(Info{}))
		assert.Zero(t, p.Pick(keyed("ann", 1)))
	})
}

// Weights are kept to by keys and by requests without one.
func TestHash_HonoursWeights_B07(t *testing.T) {
	keys := users(40_000)
	forAll(t, hashing{}, func(t *testing.T, a Algorithm) {
		for _, weights := range [][]float64{{1, 1, 1, 1}, {1, 2, 3, 4}, {0.25, 0.5, 0.25}, {5, 1, 1}, {100, 1}} {
			endpoints := manyEndpoints(len(weights))
			total := 0.0
			for i, w := range weights {
				endpoints[i].Weight = w
				total += w
			}
			c := newHashCluster(t, a, endpoints...)
			c.build()
			owners := tally(c.owners(keys))
			random := map[string]int{}
			for range keys {
				random[c.address(Info{})]++
			}
			for i, w := range weights {
				n := float64(len(keys)) * w / total
				tolerance := 0.04*n + 4*math.Sqrt(n) // 4 %: the ring has some thousand points for each
				assert.InDelta(t, n, owners[endpoints[i].Address], tolerance, "%v, keys", weights)
				assert.InDelta(t, n, random[endpoints[i].Address], tolerance, "%v, without a key", weights)
			}
		}
	})
}

// However unequal or extreme weights are, who has nearly all of the weight has
// nearly all of the keys, and all can be picked, defect 31.
func TestHash_ExtremeWeights_Defect31(t *testing.T) {
	keys := users(500)
	forAll(t, hashing{loadFactor: 1.25}, func(t *testing.T, a Algorithm) {
		for _, weights := range [][]float64{
			{1e6, 1, 1},
			{math.MaxFloat64, math.SmallestNonzeroFloat64},
			{1e-300, 1},
			{1e300, 1, 1e-300},
			{math.MaxFloat64, math.MaxFloat64, math.MaxFloat64},
			{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64},
		} {
			endpoints := manyEndpoints(len(weights))
			heaviest := 0
			for i, w := range weights {
				endpoints[i].Weight = w
				if w > weights[heaviest] {
					heaviest = i
				}
			}
			c := newHashCluster(t, a, endpoints...)
			c.build()
			owners := tally(c.owners(keys))
			if slices.Max(weights) > slices.Min(weights) {
				assert.GreaterOrEqual(t, owners[endpoints[heaviest].Address], len(keys)-5, "%v", weights)
			} else {
				assert.Len(t, owners, len(weights), "%v", weights)
			}
			tried := []uint64{}
			for range weights {
				tried = append(tried, c.serialOf(c.address(keyed("ann", tried...))))
			}
			slices.Sort(tried)
			assert.Len(t, slices.Compact(tried), len(weights), "%v: each was picked once", weights)
		}
	})
}

// Pickers do not change when others are made of them.
func TestHash_PickersAreImmutable(t *testing.T) {
	keys := users(300)
	forAll(t, hashing{loadFactor: 1.25}, func(t *testing.T, a Algorithm) {
		random := rand.New(rand.NewPCG(3, 3))
		c := newHashCluster(t, a, manyEndpoints(50)...)
		var wg sync.WaitGroup
		for range 15 {
			p := c.build()
			want := make([]int, len(keys))
			for i, key := range keys {
				want[i] = p.Pick(keyed(key))
			}
			wg.Go(func() {
				for range 3 {
					for i, key := range keys {
						if got := p.Pick(keyed(key)); got != want[i] {
							t.Errorf("key %s went to %d, now to %d", key, want[i], got)
						}
					}
				}
			})
			c.change(random)
		}
		wg.Wait()
	})
}

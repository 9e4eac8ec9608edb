package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	bounded "github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-rendezvous"
	"github.com/golang/groupcache/consistenthash"
	"github.com/kkdai/maglev"
	"github.com/lafikl/consistent"
	"github.com/serialx/hashring"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// perEndpoint is how many points each endpoint has on a ring: rings with the same
// number have about the same evenness. Where it cannot be set, the row says so.
const perEndpoint = 20

var byUser = []balancer.HashKey{{Header: "X-User"}}

// hashRows are the rows of both benchmarks on hashing.
//
// They do not do the same. The pool of evenkeel reads the key from a header of the
// request, keeps its rules, and counts what is in flight. It may change while it is
// used. The others are handed the key, only return a name, and must be locked
// against changes by who uses them, but for those that say that they lock. Only
// lafikl counts as well.
var hashRows = []struct {
	name string
	most int // endpoints, where making or using it takes too long with more
	make func(testing.TB, []string) hashed
}{
	{"balancer.RingHash", math.MaxInt, func(tb testing.TB, names []string) hashed {
		tb.Helper()
		return newHashPool(tb, balancer.RingHash{Keys: byUser, MinSize: perEndpoint * len(names)}, names)
	}},
	{"balancer.RingHash-bounded", math.MaxInt, func(tb testing.TB, names []string) hashed {
		tb.Helper()
		return newHashPool(tb, balancer.RingHash{Keys: byUser, MinSize: perEndpoint * len(names), LoadFactor: 1.25}, names)
	}},
	{"balancer.Maglev", math.MaxInt, func(tb testing.TB, names []string) hashed {
		tb.Helper()
		return newHashPool(tb, balancer.Maglev{Keys: byUser}, names)
	}},
	{"balancer.Rendezvous", 100, func(tb testing.TB, names []string) hashed {
		tb.Helper()
		return newHashPool(tb, balancer.Rendezvous{Keys: byUser}, names)
	}},
	{"groupcache-ring", math.MaxInt, newGroupcache},
	{"serialx-ring", math.MaxInt, newSerialx},
	{"dgryski-rendezvous", math.MaxInt, newDgryski},
	{"lafikl-bounded", 1000, newLafikl},
	{"buraksezer-bounded", 1000, newBuraksezer},
	{"kkdai-maglev", 100, newKkdai},
}

// hashed is something that finds the endpoint of a key.
type hashed struct {
	// lookup returns what looks up a key, for one goroutine.
	lookup func() func(key string)
	// change adds an endpoint and takes it away again.
	change func(name string)
}

// BenchmarkHash measures the look-up of a key of sixteen bytes, out of thousands.
func BenchmarkHash(b *testing.B) {
	keys := make([]string, 1<<12)
	for i := range keys {
		keys[i] = fmt.Sprintf("%016x", rand.Uint64())
	}
	for _, n := range []int{10, 100, 1000, 10000} {
		for _, row := range hashRows {
			if n > row.most {
				continue
			}
			h := row.make(b, names(n))
			each(b, fmt.Sprintf("%s/endpoints=%d", row.name, n), func() func() {
				lookup, i := h.lookup(), 0
				return func() {
					lookup(keys[i%len(keys)])
					i++
				}
			})
		}
	}
}

// BenchmarkHashChange measures that an endpoint comes and goes again: two changes.
// With evenkeel that is two complete sets through the resolver, until the pool says
// that it uses each, transport and drain of the endpoint included. The others are
// told only the name.
func BenchmarkHashChange(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		for _, row := range hashRows {
			if n > row.most {
				continue
			}
			h := row.make(b, names(n))
			b.Run(fmt.Sprintf("%s/endpoints=%d", row.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					h.change("192.168.0.1:8080")
				}
			})
		}
	}
}

// feed is a resolver that tells what is sent to it.
type feed chan []discovery.Endpoint

func (f feed) Watch(ctx context.Context, sink discovery.Sink) error {
	for {
		select {
		case set := <-f:
			sink.Update(set, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func newHashPool(tb testing.TB, a balancer.Algorithm, names []string) hashed {
	tb.Helper()
	set, sets, changed := make([]discovery.Endpoint, len(names)), make(feed), make(chan int, 1)
	for i, name := range names {
		set[i].Address = name
	}
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: sets, Algorithm: a, OnChange: func(c balancer.Change) { changed <- c.Size },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	tell := func(set []discovery.Endpoint) {
		sets <- set
		if size := <-changed; size != len(set) {
			panic(fmt.Sprintf("%d endpoints, want %d", size, len(set)))
		}
	}
	tell(set)
	var more []discovery.Endpoint
	return hashed{
		lookup: func() func(string) {
			value := []string{""}
			info := balancer.Info{Request: &http.Request{Header: http.Header{"X-User": value}}}
			return func(key string) {
				value[0] = key
				p, err := pool.Pick(info)
				if err != nil {
					panic(err)
				}
				p.Answered(outcome.Answer{Class: outcome.Success})
				p.Done()
			}
		},
		change: func(name string) {
			if more == nil {
				more = append(slices.Clone(set), discovery.Endpoint{Address: name})
			}
			tell(more)
			tell(set)
		},
	}
}

// newGroupcache is the ring of groupcache, by CRC-32, which finds the owner of a
// point in a map. Nothing can be taken off it, so that is done by making a new one,
// as groupcache does for every change.
func newGroupcache(_ testing.TB, names []string) hashed {
	build := func(names ...string) *consistenthash.Map {
		m := consistenthash.New(perEndpoint, nil)
		m.Add(names...)
		return m
	}
	m := build(names...)
	return hashed{
		lookup: func() func(string) { return func(key string) { m.Get(key) } },
		change: func(name string) {
			m.Add(name)
			m = build(names...)
		},
	}
}

// newSerialx is a ring by MD5, which is never changed: a change returns a new one.
// An endpoint has as many points as its weight.
func newSerialx(_ testing.TB, names []string) hashed {
	weights := make(map[string]int, len(names))
	for _, name := range names {
		weights[name] = perEndpoint
	}
	r := hashring.NewWithWeights(weights)
	return hashed{
		lookup: func() func(string) { return func(key string) { r.GetNode(key) } },
		change: func(name string) { r = r.AddWeightedNode(name, perEndpoint).RemoveNode(name) },
	}
}

// newDgryski looks at all endpoints, with the cheapest of scores and without
// weights. Its Remove panics, so it is made anew instead.
func newDgryski(_ testing.TB, names []string) hashed {
	r := rendezvous.New(names, xxhash.Sum64String)
	return hashed{
		lookup: func() func(string) { return func(key string) { r.Lookup(key) } },
		change: func(name string) {
			r.Add(name)
			r = rendezvous.New(names, xxhash.Sum64String)
		},
	}
}

// newLafikl is a ring by BLAKE2b with bounded load, behind a lock, with ten points
// for each endpoint. It counts what is in flight, as the pool does. To make it, it
// sorts all points once for each endpoint.
func newLafikl(_ testing.TB, names []string) hashed {
	c := consistent.New()
	for _, name := range names {
		c.Add(name)
	}
	return hashed{
		lookup: func() func(string) {
			return func(key string) {
				name, err := c.GetLeast(key)
				if err != nil {
					panic(err)
				}
				c.Inc(name)
				c.Done(name)
			}
		},
		change: func(name string) {
			c.Add(name)
			c.Remove(name)
		},
	}
}

// member is an endpoint for buraksezer.
type member string

func (m member) String() string { return string(m) }

type xxh64 struct{}

func (xxh64) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

// newBuraksezer has a table of partitions, as many as a Maglev table has entries,
// behind a lock. The load that it bounds is that of partitions, not of requests. To
// make it, it sorts all points once for each endpoint.
func newBuraksezer(_ testing.TB, names []string) hashed {
	members := make([]bounded.Member, len(names))
	for i, name := range names {
		members[i] = member(name)
	}
	c := bounded.New(members, bounded.Config{Hasher: xxh64{}, PartitionCount: 65537, ReplicationFactor: perEndpoint})
	return hashed{
		lookup: func() func(string) { return func(key string) { c.LocateKey([]byte(key)) } },
		change: func(name string) {
			c.Add(member(name))
			c.Remove(name)
		},
	}
}

// newKkdai is a Maglev table of the same size, by SipHash, behind a lock. While it
// is made, it takes half a megabyte for each endpoint, and it keeps that.
func newKkdai(tb testing.TB, names []string) hashed {
	tb.Helper()
	m, err := maglev.NewMaglev(names, 65537)
	if err != nil {
		tb.Fatal(err)
	}
	return hashed{
		lookup: func() func(string) {
			return func(key string) {
				if _, err := m.Get(key); err != nil {
					panic(err)
				}
			}
		},
	}
}

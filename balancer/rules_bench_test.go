package balancer

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// ruled are endpoints of which every rule has something to say, and the rules.
func ruled(n int) ([]discovery.Endpoint, Rules) {
	endpoints := manyEndpoints(n)
	for i := range endpoints {
		endpoints[i].Zone = fmt.Sprintf("zone-%d", i%3)
		endpoints[i].Priority = i % 2
		endpoints[i].Weight = float64(i%3 + 1)
	}
	return endpoints, Rules{
		Zones:  Zones{Local: "zone-0"},
		Subset: Subset{Size: n / 4},
	}
}

// BenchmarkRules measures what tiers with spill-over, zones with spill-over, a
// subset and endpoints in slow start add to a pick among weighted endpoints.
func BenchmarkRules(b *testing.B) {
	const n = 1000
	for _, a := range benchAlgorithms {
		endpoints, rules := ruled(n)
		weighted := manyEndpoints(n)
		for i := range weighted {
			weighted[i].Weight = endpoints[i].Weight
		}
		plain := testPool(b, Config{Algorithm: a.algorithm}, weighted...)
		all := testPool(b, Config{Algorithm: a.algorithm, Rules: rules}, endpoints[n/4:]...)
		all.update(endpoints) // a quarter is new
		for i := 0; i < n; i += 4 {
			all.SetHealthy(endpoints[i].Key(), false) // half of the first priority
		}
		if s := all.snapshot.Load(); len(s.main.leaves) < 5 {
			b.Fatal("some rule has nothing to decide")
		}
		for _, p := range []struct {
			name string
			pool *Pool
		}{{"plain", plain}, {"all", all}} {
			for range 4 * n {
				pickOnce(p.pool, a.timed)
			}
			b.Run(a.name+"/"+p.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					pickOnce(p.pool, a.timed)
				}
			})
		}
	}
}

// BenchmarkMemory reports the memory of an endpoint without connections.
func BenchmarkMemory(b *testing.B) {
	const n = 10000
	for _, a := range benchAlgorithms {
		b.Run(a.name, func(b *testing.B) {
			endpoints := manyEndpoints(n)
			for b.Loop() {
				before := heapInUse()
				p := testPool(b, Config{Algorithm: a.algorithm}, endpoints...)
				b.ReportMetric(float64(heapInUse()-before)/n, "B/endpoint")
				p.Close()
			}
		})
	}
}

// heapInUse returns how many bytes are in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

package balancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// benchAlgorithms are compared by every benchmark, the clock-less ones first.
var benchAlgorithms = []struct {
	name      string
	algorithm Algorithm
	timed     bool // learns from time: its cost includes reading the clock
}{
	{"RoundRobin", RoundRobin{}, false},
	{"Random", Random{}, false},
	{"LeastRequest", LeastRequest{}, false},
	{"PeakEWMA", PeakEWMA{}, true},
}

func manyEndpoints(n int) []discovery.Endpoint {
	endpoints := make([]discovery.Endpoint, n)
	for i := range endpoints {
		endpoints[i] = discovery.Endpoint{Address: fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255)}
	}
	return endpoints
}

// pickOnce is what an attempt does to a pool: pick, report, end. A timed
// algorithm reads the clock before and after, as the transport does.
func pickOnce(p *Pool, timed bool) {
	var info Info
	answer := outcome.Answer{Took: time.Millisecond, Class: outcome.Success}
	if timed {
		info.Now = p.now()
	}
	pick, err := p.Pick(info)
	if err != nil {
		panic(err)
	}
	if timed {
		answer.Now = p.now()
	}
	pick.Answered(answer)
	pick.Done()
}

// BenchmarkPick measures one pick with its report and its end.
func BenchmarkPick(b *testing.B) {
	for _, a := range benchAlgorithms {
		for _, n := range []int{10, 1000, 10000} {
			p := testPool(b, Config{Algorithm: a.algorithm}, manyEndpoints(n)...)
			for range 2 * n { // so that every endpoint is known
				pickOnce(p, a.timed)
			}
			b.Run(fmt.Sprintf("%s/endpoints=%d/single", a.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					pickOnce(p, a.timed)
				}
			})
			b.Run(fmt.Sprintf("%s/endpoints=%d/parallel", a.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						pickOnce(p, a.timed)
					}
				})
			})
		}
	}
}

// BenchmarkPickWeighted is BenchmarkPick where the endpoints have weights.
func BenchmarkPickWeighted(b *testing.B) {
	for _, a := range benchAlgorithms {
		endpoints := manyEndpoints(10000)
		for i := range endpoints {
			endpoints[i].Weight = float64(i%7 + 1)
		}
		p := testPool(b, Config{Algorithm: a.algorithm}, endpoints...)
		for range 2 * len(endpoints) {
			pickOnce(p, a.timed)
		}
		b.Run(a.name+"/endpoints=10000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pickOnce(p, a.timed)
			}
		})
	}
}

// BenchmarkUpdate measures an update that replaces one endpoint of many.
func BenchmarkUpdate(b *testing.B) {
	const n = 10000
	base := manyEndpoints(n)
	weighted := slices.Clone(base)
	for i := range weighted {
		weighted[i].Weight = float64(i%7 + 1)
	}
	for _, a := range benchAlgorithms {
		for name, endpoints := range map[string][]discovery.Endpoint{"equal": base, "weighted": weighted} {
			b.Run(fmt.Sprintf("%s/endpoints=%d/%s", a.name, n, name), func(b *testing.B) {
				p := testPool(b, Config{Algorithm: a.algorithm}, endpoints...)
				var sets [8][]discovery.Endpoint // every other is as at first
				for i := range sets {
					sets[i] = slices.Clone(endpoints)
					if i%2 == 1 {
						sets[i][i*n/len(sets)].ID = "another"
					}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					p.update(sets[i%len(sets)])
				}
			})
		}
	}
}

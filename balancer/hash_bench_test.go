package balancer

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

var hashBenchmarks = []struct {
	name      string
	algorithm Algorithm
}{
	{"RingHash", RingHash{Keys: byUser()}},
	{"RingHash1M", RingHash{Keys: byUser(), MinSize: 1_000_000}},
	{"Maglev", Maglev{Keys: byUser()}},
	{"Rendezvous", Rendezvous{Keys: byUser()}},
}

// BenchmarkHashPick measures one pick, with a key of sixteen bytes in a header.
// There are thousands of keys, so that each pick looks at another part of the
// table, but one request: that of a pick is in the processor's cache.
func BenchmarkHashPick(b *testing.B) {
	keys := users(1 << 12)
	for _, a := range hashBenchmarks {
		for _, n := range []int{10, 1000, 10000} {
			p := newHashCluster(b, a.algorithm, manyEndpoints(n)...).build()
			b.Run(fmt.Sprintf("%s/endpoints=%d/single", a.name, n), func(b *testing.B) {
				value := []string{""}
				info := Info{Request: &http.Request{Header: http.Header{"X-User": value}}}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					value[0] = keys[i%len(keys)]
					p.Pick(info)
				}
			})
			b.Run(fmt.Sprintf("%s/endpoints=%d/parallel", a.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					value := []string{""}
					info := Info{Request: &http.Request{Header: http.Header{"X-User": value}}}
					for i := 0; pb.Next(); i++ {
						value[0] = keys[i%len(keys)]
						p.Pick(info)
					}
				})
			})
		}
	}
}

// BenchmarkHashBuild measures what it costs that one endpoint of many is replaced
// by another, is unavailable for a moment, or that all are new.
func BenchmarkHashBuild(b *testing.B) {
	const n = 10000
	for _, a := range hashBenchmarks {
		c := newHashCluster(b, a.algorithm, manyEndpoints(n)...)
		c.build()
		g := c.group
		next := func() { g.Previous = c.builder.Build(g) }
		i := 0
		b.Run(a.name+"/replaced", func(b *testing.B) {
			b.ReportAllocs()
			for ; b.Loop(); i++ {
				e := discovery.Endpoint{Address: fmt.Sprintf("192.%d.%d.%d:80", i>>16, i>>8&255, i&255)}
				g.Candidates[i%n].node = node.New(e, uint64(n+i), nil, nil)
				next()
			}
		})
		b.Run(a.name+"/flap", func(b *testing.B) {
			all := g.Candidates
			defer func() { g.Candidates, g.Unavailable = all, nil }()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				g.Candidates, g.Unavailable = all, nil
				if i%2 == 0 {
					g.Candidates, g.Unavailable = all[:n-1], all[n-1:]
				}
				next()
			}
		})
		b.Run(a.name+"/new", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g.Previous = nil
				next()
			}
		})
	}
}

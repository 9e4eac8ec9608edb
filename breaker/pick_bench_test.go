package breaker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// BenchmarkPick measures what breakers add to a pick with its report and its end.
func BenchmarkPick(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		endpoints := make(discovery.Static, 1000)
		for i := range endpoints {
			endpoints[i] = fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255)
		}
		cfg := balancer.Config{Resolver: endpoints, Algorithm: balancer.RoundRobin{}}
		if guarded {
			group, err := breaker.NewGroup(breaker.Config{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(group.Close)
			cfg.Breakers = group
		}
		pool, err := balancer.NewPool(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		if err := pool.Ready(b.Context()); err != nil {
			b.Fatal(err)
		}
		info, answer := balancer.Info{Now: time.Now()}, outcome.Answer{Now: time.Now(), Class: outcome.Success}
		b.Run(fmt.Sprintf("breakers=%t", guarded), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pick, err := pool.Pick(info)
				if err != nil {
					b.Fatal(err)
				}
				pick.Answered(answer)
				pick.Done()
			}
		})
	}
}

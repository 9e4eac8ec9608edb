package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// BenchmarkPick measures one pick with its report and its end, next to the least
// code that picks at all: a random index and two atomic additions.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		counts := make([]struct {
			inFlight atomic.Int64
			_        [120]byte
		}, n)
		both(b, fmt.Sprintf("floor/endpoints=%d", n), func() {
			c := &counts[rand.IntN(n)]
			c.inFlight.Add(1)
			c.inFlight.Add(-1)
		})
		for _, a := range []balancer.Algorithm{balancer.RoundRobin{}, balancer.Random{}, balancer.LeastRequest{}, balancer.PeakEWMA{}} {
			pool := newPool(b, a, n)
			_, timed := a.(balancer.PeakEWMA)
			for range 2 * n { // so that every endpoint is known
				pick(pool, timed)
			}
			both(b, fmt.Sprintf("%T/endpoints=%d", a, n), func() { pick(pool, timed) })
		}
	}
}

// both runs a benchmark on one core, and on all at once.
func both(b *testing.B, name string, f func()) {
	b.Helper()
	b.Run(name+"/single", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f()
			}
		})
	})
}

// pick does what an attempt does to a pool. A timed algorithm needs two looks at
// the clock.
func pick(pool *balancer.Pool, timed bool) {
	var info balancer.Info
	answer := outcome.Answer{Took: time.Millisecond, Class: outcome.Success}
	if timed {
		info.Now = time.Now()
	}
	p, err := pool.Pick(info)
	if err != nil {
		panic(err) // it is measured, so it takes no testing.TB
	}
	if timed {
		answer.Now = time.Now()
	}
	p.Answered(answer)
	p.Done()
}

func newPool(tb testing.TB, a balancer.Algorithm, n int) *balancer.Pool {
	tb.Helper()
	endpoints := make(discovery.Static, n)
	for i := range endpoints {
		endpoints[i] = fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255)
	}
	pool, err := balancer.NewPool(balancer.Config{Resolver: endpoints, Algorithm: a})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	if err := pool.Ready(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return pool
}

package breaker

import (
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// benchConfigs are the ways of counting, each of which has its price.
var benchConfigs = []struct {
	name string
	cfg  Config
}{
	{"consecutive", Config{FailureRate: Off}},
	{"count", Config{WindowCalls: 100}},
	{"time", Config{}},
	{"slow", Config{SlowAfter: time.Second}},
}

func benchBreaker(tb testing.TB, cfg Config) *Breaker {
	tb.Helper()
	b, err := New("bench", cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// guard is one guarded call that does nothing.
func guard(b *Breaker, c outcome.Class) {
	if p, err := b.Allow(); err == nil {
		p.Done(c)
	}
}

// BenchmarkBreaker measures Allow with Done, or Allow alone where it refuses.
func BenchmarkBreaker(b *testing.B) {
	for _, row := range benchConfigs {
		br := benchBreaker(b, row.cfg)
		run(b, "closed/"+row.name, func(i int) { guard(br, outcome.Success) })
	}
	for _, row := range benchConfigs {
		br := benchBreaker(b, row.cfg)
		run(b, "failing/"+row.name, func(i int) { // one in a hundred
			if i%100 == 0 {
				guard(br, outcome.Failure)
			} else {
				guard(br, outcome.Success)
			}
		})
	}
	open := benchBreaker(b, Config{OpenFor: time.Hour})
	for range 5 {
		guard(open, outcome.Failure)
	}
	run(b, "open", func(int) { guard(open, outcome.Success) })
}

func run(b *testing.B, name string, call func(i int)) {
	b.Helper()
	b.Run(name+"/single", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			call(i)
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			i := 0
			for pb.Next() {
				i++
				call(i)
			}
		})
	})
}

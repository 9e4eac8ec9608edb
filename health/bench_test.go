package health

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Recording is measured beside an atomic addition, which is the least that counting could cost.
func BenchmarkAnswered(b *testing.B) {
	b.Run("atomic addition", func(b *testing.B) {
		var n atomic.Uint64
		for b.Loop() {
			n.Add(1)
		}
	})
	b.Run("atomic addition/parallel", func(b *testing.B) {
		var n atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				n.Add(1)
			}
		})
	})
	good := outcome.Answer{Class: outcome.Success, Status: 200, Took: time.Millisecond, Now: time.Now(), Connected: true}
	bad := good
	bad.Class, bad.Status = outcome.Failure, 500
	for _, run := range []struct {
		name   string
		answer outcome.Answer
		o      Outlier
	}{
		{"success", good, Outlier{}},
		{"success/latencies", good, Outlier{SlowerBy: 3}},
		{"failure", bad, Outlier{ConsecutiveFailures: Off}},
	} {
		b.Run(run.name, func(b *testing.B) {
			m := newMonitor(b, Config{Outlier: run.o})
			e, err := m.Add(discovery.Endpoint{Address: "a:1"})
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				e.Answered(run.answer)
			}
		})
		b.Run(run.name+"/parallel", func(b *testing.B) {
			m := newMonitor(b, Config{Outlier: run.o})
			e, err := m.Add(discovery.Endpoint{Address: "a:1"})
			require.NoError(b, err)
			for range 100_000 {
				e.Answered(run.answer)
			}
			m.sweep() // it looks at the latencies of some answers now
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					e.Answered(run.answer)
				}
			})
		})
	}
}

// A sweep over 10,000 endpoints, with traffic at all of them.
func BenchmarkSweep(b *testing.B) {
	for _, run := range []struct {
		name   string
		broken int // one of so many fails
		o      Outlier
	}{
		{"healthy", 1 << 30, Outlier{Shadow: true}},
		{"a third broken", 3, Outlier{Shadow: true, ConsecutiveFailures: Off}},
		{"with latencies", 1 << 30, Outlier{Shadow: true, SlowerBy: 3}},
	} {
		b.Run(run.name, func(b *testing.B) {
			fake := clock.NewFake(time.Now())
			m := newMonitor(b, Config{Outlier: run.o, Clock: fake})
			members := make([]*Member, 10_000)
			for i := range members {
				var err error
				members[i], err = m.Add(discovery.Endpoint{Address: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255)})
				require.NoError(b, err)
			}
			for b.Loop() {
				b.StopTimer()
				for i, e := range members {
					a := outcome.Answer{Class: outcome.Success, Took: time.Millisecond, Now: fake.Now()}
					if i%run.broken == 1 {
						a.Class, a.Status = outcome.Failure, 500
					}
					for range 40 {
						e.Answered(a)
					}
				}
				b.StartTimer()
				m.sweep()
			}
		})
	}
}

func newMonitor(tb testing.TB, cfg Config) *Monitor {
	tb.Helper()
	m, err := NewMonitor(cfg)
	require.NoError(tb, err)
	tb.Cleanup(m.Close)
	return m
}

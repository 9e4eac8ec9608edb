package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bufbuild/httplb/conn"
	"github.com/bufbuild/httplb/picker"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/selector/p2c"
	"github.com/go-kratos/kratos/v2/selector/wrr"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// pickRows are the algorithms of BenchmarkPick.
var pickRows = []struct {
	name      string
	algorithm balancer.Algorithm
	weighted  bool
	// timed algorithms need two looks at the clock for an attempt, and reported
	// ones a response with a load report besides, which they parse.
	timed, reported bool
}{
	{name: "balancer.RoundRobin", algorithm: balancer.RoundRobin{}},
	{name: "balancer.RoundRobin-weighted", algorithm: balancer.RoundRobin{}, weighted: true},
	{name: "balancer.Random", algorithm: balancer.Random{}},
	{name: "balancer.LeastRequest", algorithm: balancer.LeastRequest{}},
	{name: "balancer.PeakEWMA", algorithm: balancer.PeakEWMA{}, timed: true},
	{name: "balancer.LoadWeighted", algorithm: balancer.LoadWeighted{Blackout: -1}, timed: true, reported: true},
	{name: "balancer.HotCold", algorithm: balancer.HotCold{}, timed: true, reported: true},
}

// otherRows are pickers of other libraries, with what is nearest to each. That of
// go-zero is internal, and those of gRPC pick only from connections of gRPC's own.
var otherRows = []struct {
	name string
	make func(names []string) func()
}{
	// Two at random, by requests in flight: LeastRequest.
	{"httplb-PowerOfTwo", func(names []string) func() { return httplb(picker.NewPowerOfTwo(nil, newConns(names))) }},
	// The least of all, in a heap behind a lock. LeastRequest compares a few.
	{"httplb-LeastLoaded", func(names []string) func() { return httplb(picker.NewLeastLoadedRoundRobin(nil, newConns(names))) }},
	// Two at random, by latency, requests in flight and success: PeakEWMA. It
	// looks at the clock itself, and computes a load at most every 5ms.
	{"kratos-p2c", func(names []string) func() {
		attempt := kratos(p2c.New(), names)
		for range 2 * len(names) { // so that most endpoints are known
			attempt()
		}
		return attempt
	}},
	// Smooth weighted round robin over all endpoints, behind a lock: the weighted
	// RoundRobin.
	{"kratos-wrr", func(names []string) func() { return kratos(wrr.New(), names) }},
}

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
		for _, row := range pickRows {
			pool := newPool(b, row.algorithm, n, row.weighted)
			attempt := func() { pick(pool, row.timed) }
			if row.reported {
				headers := loadReports()
				attempt = func() { pickReported(pool, headers[rand.IntN(len(headers))]) }
			}
			for range 2 * n { // so that the endpoints are known
				attempt()
			}
			// So that the weights that were reported are used at once.
			if err := pool.Use(row.algorithm, balancer.Rules{}); err != nil {
				b.Fatal(err)
			}
			both(b, fmt.Sprintf("%s/endpoints=%d", row.name, n), attempt)
		}
		for _, row := range otherRows {
			both(b, fmt.Sprintf("%s/endpoints=%d", row.name, n), row.make(names(n)))
		}
	}
}

// both runs a benchmark on one core, and on all at once.
func both(b *testing.B, name string, f func()) {
	b.Helper()
	each(b, name, func() func() { return f })
}

// each is both with a function for every goroutine.
func each(b *testing.B, name string, newFunc func() func()) {
	b.Helper()
	b.Run(name+"/single", func(b *testing.B) {
		f := newFunc()
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			f := newFunc()
			for pb.Next() {
				f()
			}
		})
	})
}

// pick does what an attempt does to a pool.
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

// pickReported is pick with a load report in the response.
func pickReported(pool *balancer.Pool, header http.Header) {
	p, err := pool.Pick(balancer.Info{Now: time.Now()})
	if err != nil {
		panic(err)
	}
	p.Answered(outcome.Answer{Now: time.Now(), Took: time.Millisecond, Class: outcome.Success, Header: header})
	p.Done()
}

// loadReports are headers of responses with all that the algorithms look at.
func loadReports() []http.Header {
	headers := make([]http.Header, 64)
	for i := range headers {
		headers[i] = http.Header{orca.Header: {fmt.Sprintf(
			"TEXT cpu_utilization=0.%02d,rps_fractional=%d.5,eps=0.25,named_metrics.rif=%d,named_metrics.latency_ms=%d.125",
			10+i, 1000+i, i%20, 5+i*7%30)}}
	}
	return headers
}

// names are the addresses of n endpoints.
func names(n int) []string {
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255)
	}
	return addresses
}

// weight is that of endpoint i where they have weights.
func weight(i int) int { return i%7 + 1 }

func newPool(tb testing.TB, a balancer.Algorithm, n int, weighted bool) *balancer.Pool {
	tb.Helper()
	endpoints := make(discovery.List, n)
	for i, name := range names(n) {
		endpoints[i].Address = name
		if weighted {
			endpoints[i].Weight = float64(weight(i))
		}
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

// conns are endpoints for httplb, whose pickers look at nothing in them.
type conns []*connection

type connection struct{ conn.Conn }

func (c conns) Len() int            { return len(c) }
func (c conns) Get(i int) conn.Conn { return c[i] }

func newConns(names []string) conns {
	c := make(conns, len(names))
	for i := range c {
		c[i] = &connection{}
	}
	return c
}

func httplb(p picker.Picker) func() {
	req := &http.Request{}
	return func() {
		_, done, err := p.Pick(req)
		if err != nil {
			panic(err)
		}
		done()
	}
}

// kratos makes the attempts of a selector, whose endpoints have weights.
func kratos(s selector.Selector, names []string) func() {
	nodes := make([]selector.Node, len(names))
	for i, name := range names {
		metadata := map[string]string{"weight": strconv.Itoa(weight(i))}
		nodes[i] = selector.NewNode("http", name, &registry.ServiceInstance{Metadata: metadata})
	}
	s.Apply(nodes)
	ctx := context.Background()
	return func() {
		_, done, err := s.Select(ctx)
		if err != nil {
			panic(err)
		}
		done(ctx, selector.DoneInfo{})
	}
}

package balancer_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// reporting returns a function that sends a request a second, whose response
// carries what that endpoint reports, and returns where it went.
func reporting(a balancer.Algorithm, reports map[string]orca.Report) (send func() string, end func()) {
	addresses := slices.Sorted(maps.Keys(reports))
	now := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: discovery.Static(addresses), Algorithm: a, Clock: now, Rand: rand.NewPCG(1, 2),
	})
	if err != nil {
		panic(err)
	}
	if err := pool.Ready(context.Background()); err != nil {
		panic(err)
	}
	return func() string {
		now.Advance(time.Second)
		pick, err := pool.Pick(balancer.Info{Now: now.Now()})
		if err != nil {
			panic(err)
		}
		defer pick.Done()
		address := pick.Endpoint().Address
		pick.Answered(outcome.Answer{
			Now: now.Now(), Took: 10 * time.Millisecond, Class: outcome.Success,
			Header: http.Header{orca.Header: {reports[address].String()}},
		})
		return address
	}, pool.Close
}

// An endpoint that does more with less of its processor gets more.
func ExampleLoadWeighted() {
	send, end := reporting(balancer.LoadWeighted{}, map[string]orca.Report{
		"small:80": {Fields: orca.CPU | orca.RPS, CPU: 0.8, RPS: 200}, // can bear 250
		"large:80": {Fields: orca.CPU | orca.RPS, CPU: 0.4, RPS: 300}, // can bear 750
	})
	defer end()
	count := func(sent int) map[string]int {
		counts := map[string]int{}
		for range sent {
			counts[send()]++
		}
		return counts
	}
	fmt.Println(count(8), "in the blackout")
	count(20)
	fmt.Println(count(20), "after it")
	// Output:
	// map[large:80:4 small:80:4] in the blackout
	// map[large:80:15 small:80:5] after it
}

// An endpoint that says that it is busy is left alone, although it is fast.
func ExampleHotCold() {
	send, end := reporting(balancer.HotCold{MaxAge: time.Minute, Quantile: 0.5}, map[string]orca.Report{
		"busy:80": {Fields: orca.InFlight | orca.Latency, InFlight: 250, Latency: 5 * time.Millisecond},
		"calm:80": {Fields: orca.InFlight | orca.Latency, InFlight: 12, Latency: 8 * time.Millisecond},
	})
	defer end()
	counts := map[string]int{}
	for range 50 {
		counts[send()]++
	}
	fmt.Println(counts)
	// Output: map[busy:80:1 calm:80:49]
}

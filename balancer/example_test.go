package balancer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// newPool returns a pool whose choices are the same in every run.
func newPool(a balancer.Algorithm, r balancer.Rules, endpoints ...discovery.Endpoint) *balancer.Pool {
	pool, err := balancer.NewPool(balancer.Config{
		Resolver:  discovery.List(endpoints),
		Algorithm: a,
		Rules:     r,
		Rand:      rand.NewPCG(1, 2),
	})
	if err != nil {
		panic(err)
	}
	if err := pool.Ready(context.Background()); err != nil {
		panic(err)
	}
	return pool
}

// count picks many times, with nothing else going on.
func count(pool *balancer.Pool, picks int, req *http.Request) map[string]int {
	counts := map[string]int{}
	for range picks {
		pick, err := pool.Pick(balancer.Info{Now: time.Now(), Request: req})
		if err != nil {
			panic(err)
		}
		counts[pick.Endpoint().Address]++
		pick.Answered(outcome.Answer{Now: time.Now(), Took: time.Millisecond, Class: outcome.Success})
		pick.Done()
	}
	return counts
}

func ExampleRoundRobin() {
	pool := newPool(balancer.RoundRobin{}, balancer.Rules{},
		discovery.Endpoint{Address: "big:80", Weight: 2}, discovery.Endpoint{Address: "small:80"})
	defer pool.Close()
	fmt.Println(count(pool, 300, nil))
	// Output: map[big:80:200 small:80:100]
}

func ExampleRandom() {
	pool := newPool(balancer.Random{}, balancer.Rules{},
		discovery.Endpoint{Address: "big:80", Weight: 2}, discovery.Endpoint{Address: "small:80"})
	defer pool.Close()
	counts := count(pool, 30000, nil)
	fmt.Printf("%.1f\n", float64(counts["big:80"])/float64(counts["small:80"]))
	// Output: 2.0
}

func ExampleLeastRequest() {
	pool := newPool(balancer.LeastRequest{}, balancer.Rules{},
		discovery.Endpoint{Address: "a:80"}, discovery.Endpoint{Address: "b:80"})
	defer pool.Close()
	busy, _ := pool.Pick(balancer.Info{Now: time.Now()}) // and not done
	defer busy.Done()
	idle, _ := pool.Pick(balancer.Info{Now: time.Now()})
	defer idle.Done()
	fmt.Println(busy.Endpoint().Address != idle.Endpoint().Address)
	// Output: true
}

func ExamplePeakEWMA() {
	pool := newPool(balancer.PeakEWMA{}, balancer.Rules{},
		discovery.Endpoint{Address: "slow:80"}, discovery.Endpoint{Address: "fast:80"})
	defer pool.Close()
	time := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	takes := map[string]int{"slow:80": 400, "fast:80": 10}
	counts := map[string]int{}
	for range 100 {
		pick, _ := pool.Pick(balancer.Info{Now: time.Now()})
		address := pick.Endpoint().Address
		took := millis(takes[address])
		time.Advance(took)
		pick.Answered(outcome.Answer{Now: time.Now(), Took: took, Class: outcome.Success})
		pick.Done()
		counts[address]++
	}
	fmt.Println(counts)
	// Output: map[fast:80:99 slow:80:1]
}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// The first priority takes all traffic as long as enough of it is healthy. Below
// 1/1.4 it gives away what it cannot carry.
func ExamplePriorities() {
	var endpoints []discovery.Endpoint
	for i := range 10 {
		endpoints = append(endpoints,
			discovery.Endpoint{Address: fmt.Sprintf("here-%d:80", i)},
			discovery.Endpoint{Address: fmt.Sprintf("there-%d:80", i), Priority: 1})
	}
	pool := newPool(balancer.Random{}, balancer.Rules{}, endpoints...)
	defer pool.Close()
	for down := range 11 {
		here := 0
		for address, n := range count(pool, 10000, nil) {
			if address < "there" {
				here += n
			}
		}
		if down%2 == 0 {
			fmt.Printf("%2d of 10 down: %3.0f %% stay\n", down, float64(here)/100)
		}
		if down < 10 {
			pool.SetHealthy(endpoints[2*down].Key(), false)
		}
	}
	// Output:
	//  0 of 10 down: 100 % stay
	//  2 of 10 down: 100 % stay
	//  4 of 10 down:  84 % stay
	//  6 of 10 down:  56 % stay
	//  8 of 10 down:  28 % stay
	// 10 of 10 down:   0 % stay
}

// Requests that ask for it go to the canary; all others do not.
func ExampleRoute() {
	pool := newPool(balancer.RoundRobin{}, balancer.Rules{
		Routes: []balancer.Route{{
			Attribute: "version",
			From:      []balancer.HashKey{{Header: "X-Version"}},
			Default:   "stable",
			Fallback:  balancer.FallbackDefault,
		}},
	},
		discovery.Endpoint{Address: "old:80", Attributes: map[string]string{"version": "stable"}},
		discovery.Endpoint{Address: "new:80", Attributes: map[string]string{"version": "canary"}})
	defer pool.Close()

	req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://users/", nil)
	fmt.Println(count(pool, 10, req))
	req.Header.Set("X-Version", "canary")
	fmt.Println(count(pool, 10, req))
	req.Header.Set("X-Version", "no such")
	fmt.Println(count(pool, 10, req))
	// Output:
	// map[old:80:10]
	// map[new:80:10]
	// map[old:80:10]
}

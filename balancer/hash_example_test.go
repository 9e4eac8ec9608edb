package balancer_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// ownersOf prints which endpoint serves each user.
func ownersOf(a balancer.Algorithm, users ...string) {
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: discovery.List{
			{Address: "10.0.0.1:8080"},
			{Address: "10.0.0.2:8080"},
			// A pod with a name keeps its keys when it returns at another address.
			{Address: "10.0.0.3:8080", ID: "4711", Attributes: map[string]string{"hash_key": "cache-2"}},
		},
		Algorithm: a,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ready(context.Background()); err != nil {
		log.Fatal(err)
	}
	for _, user := range users {
		req, err := http.NewRequest(http.MethodGet, "http://cache.internal/", http.NoBody)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("X-User", user)
		pick, err := pool.Pick(balancer.Info{Request: req})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(user, pick.Endpoint().Address)
		pick.Done()
	}
}

// Each user has an endpoint of its own, the same from every client. At most a
// quarter more than its share of all requests in flight goes there.
func ExampleRendezvous() {
	ownersOf(balancer.Rendezvous{
		Keys:       []balancer.HashKey{{Header: "X-User"}},
		LoadFactor: 1.25,
	}, "ann", "bob", "eve")
	// Output:
	// ann 10.0.0.3:8080
	// bob 10.0.0.3:8080
	// eve 10.0.0.1:8080
}

// For hundreds of endpoints. The key is a header or, where that is missing, the
// address of the client; requests with neither go where few are in flight.
func ExampleMaglev() {
	ownersOf(balancer.Maglev{
		Keys:     []balancer.HashKey{{Header: "X-User", Terminal: true}, {ClientAddress: true}},
		Fallback: balancer.LeastRequest{},
	}, "ann", "bob", "eve")
	// Output:
	// ann 10.0.0.2:8080
	// bob 10.0.0.2:8080
	// eve 10.0.0.3:8080
}

// To agree with a ring that others have: here that of an Envoy with a
// minimum_ring_size of 4096.
func ExampleRingHash() {
	ownersOf(balancer.RingHash{
		Keys:    []balancer.HashKey{{Header: "X-User"}},
		MinSize: 4096,
	}, "ann", "bob", "eve")
	// Output:
	// ann 10.0.0.1:8080
	// bob 10.0.0.3:8080
	// eve 10.0.0.1:8080
}

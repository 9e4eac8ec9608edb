package redis_test

import (
	"context"
	"log"
	"net/http"

	goredis "github.com/redis/go-redis/v9"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/contrib/redis"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// All replicas of a service send the requests of a session to the same endpoint.
func Example() {
	store, err := redis.New(redis.Config{
		Options: goredis.UniversalOptions{Addrs: []string{"redis.internal:6379"}},
		Prefix:  "shop:session:",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	t, err := evenkeel.New("http://carts.internal",
		evenkeel.WithResolver(discovery.Static{"10.0.0.1:8080", "10.0.0.2:8080"}),
		evenkeel.WithSession(session.Policy{By: session.Key{Store: store}}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()

	client := &http.Client{Transport: t}
	ctx := session.WithKey(context.Background(), "customer 4711")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://carts.internal/items", nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
}

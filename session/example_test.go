package session_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// A Go program that calls a service on behalf of its users, each of whom is to stay at one server.
func ExampleWithKey() {
	servers, endpoints := threeServers()
	defer servers.close()

	keeper, err := session.NewKeeper(session.Config{Policy: &session.Policy{By: session.Key{}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: endpoints, Algorithm: balancer.RoundRobin{}, Sessions: keeper,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	transport, err := session.NewTransport(balancer.NewTransport(pool, nil), keeper)
	if err != nil {
		fmt.Println(err)
		return
	}

	seen := map[string]bool{}
	for range 5 {
		ctx := session.WithKey(context.Background(), "user 42")
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/", http.NoBody)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = resp.Body.Close()
		seen[resp.Header.Get("Server")] = true
	}
	fmt.Println("servers:", len(seen))
	fmt.Println("calls that went where they belong:", keeper.Status().Kept)
	// Output:
	// servers: 1
	// calls that went where they belong: 4
}

type running []*httptest.Server

func (r running) close() {
	for _, s := range r {
		s.Close()
	}
}

// threeServers starts servers that tell their names.
func threeServers() (servers running, endpoints discovery.Static) {
	for _, name := range []string{"one", "two", "three"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", name)
		}))
		servers = append(servers, s)
		endpoints = append(endpoints, strings.TrimPrefix(s.URL, "http://"))
	}
	return servers, endpoints
}

// What is wrong with a policy is told all at once, by the names of its fields, and no secret is in it.
func ExamplePolicy_Validate() {
	p := session.Policy{
		By:       session.Cookie{Secret: session.NewSecret([]byte("hunter2")), SameSite: http.SameSiteNoneMode},
		DrainFor: -1,
	}
	fmt.Println(p.Validate())
	// Output:
	// By.Secret: must have at least 32 bytes (got (7 secret bytes))
	// By.SameSite: must not be None without SecureAlways: browsers refuse that (got 4)
	// DrainFor: must not be negative (got -1ns)
}

// A table of one's own can be looked at, and serves more than one keeper.
func ExampleTable() {
	table, err := session.NewTable(session.TableConfig{MaxSessions: 1_000_000})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	first, _ := table.Pin(ctx, "user 42", "", "10.0.0.1:80")
	second, _ := table.Pin(ctx, "user 42", "", "10.0.0.2:80") // somebody else was faster
	moved, _ := table.Pin(ctx, "user 42", "10.0.0.1:80", "10.0.0.2:80")
	fmt.Println(first, second, moved, table.Len())
	// Output: 10.0.0.1:80 10.0.0.1:80 10.0.0.2:80 1
}

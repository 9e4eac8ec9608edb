package evenkeel_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/retry"
)

// backend starts a server that says hello, and returns its address.
func backend() (address string, stop func()) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello from ", r.Host)
	}))
	return strings.TrimPrefix(s.URL, "http://"), s.Close
}

// refusing is an address at which nobody listens.
const refusing = "127.0.0.1:1"

// The endpoints are two addresses, of which one is dead. The call does not notice.
func ExampleNew() {
	address, stop := backend()
	defer stop()
	t, err := evenkeel.New("http://users.internal",
		evenkeel.WithResolver(discovery.Static{refusing, address}),
		evenkeel.WithBalancer(balancer.RoundRobin{}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: 3, PerAttemptTimeout: 5 * time.Second}),
		evenkeel.WithTimeout(10*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()

	client := &http.Client{Transport: t}
	for range 2 {
		resp, err := client.Get("http://users.internal/api/users/42")
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Println(string(body))
	}
	// Output:
	// hello from users.internal
	// hello from users.internal
}

// One client for many services: defaults for all, options for some, and names in place of addresses.
func ExampleNewServices() {
	users, stopUsers := backend()
	defer stopUsers()
	orders, stopOrders := backend()
	defer stopOrders()
	services, err := evenkeel.NewServices(evenkeel.ServicesConfig{
		Defaults: []evenkeel.Option{evenkeel.WithTimeout(10 * time.Second)},
		Services: map[string]evenkeel.Service{
			"users": {
				Target:  "http://users.internal",
				Options: []evenkeel.Option{evenkeel.WithResolver(discovery.Static{users})},
			},
			"orders": {
				Target: "http://orders.internal:8080",
				Options: []evenkeel.Option{
					evenkeel.WithResolver(discovery.Static{orders}),
					evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
				},
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer services.Close()

	client := &http.Client{Transport: services}
	for _, url := range []string{"http://users/api/users/42", "lb://orders/api/orders/7"} {
		resp, err := client.Get(url)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fmt.Println(string(body))
	}
	_, err = client.Get("http://nobody/")
	fmt.Println(errors.Is(err, evenkeel.ErrUnknownService))
	// Output:
	// hello from users.internal
	// hello from orders.internal:8080
	// true
}

// New reports all that is wrong at once.
func ExampleNew_badInput() {
	_, err := evenkeel.New("users:8080",
		evenkeel.WithResolver(discovery.List{{Address: "10.0.0.1:8443", Weight: -1}}),
		evenkeel.WithTimeout(-time.Second),
	)
	var problem *evenkeel.FieldError
	fmt.Println(errors.As(err, &problem), problem.Field)
	fmt.Println(strings.Count(err.Error(), "\n") >= 2)
	// Output:
	// true Target
	// true
}

// An error says what happened and why there was no further attempt.
func ExampleError() {
	t, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{refusing}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	_, err = (&http.Client{Transport: t}).Get("http://users/")

	var failed *evenkeel.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Target, failed.Reason, len(failed.Attempts), failed.Endpoint)
	}
	// Output:
	// http://users:80 attempts 1 127.0.0.1:1
}

// The fallback answers when all else has failed.
func ExampleWithFallback() {
	t, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{refusing}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
		evenkeel.WithFallback(func(req *http.Request, _ *http.Response, _ error) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{}, Request: req,
				Body: io.NopCloser(strings.NewReader("a cached answer")),
			}, nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	resp, err := (&http.Client{Transport: t}).Get("http://users/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output:
	// a cached answer
}

// A response tells what it took to get it, whatever its status.
func ExampleInfoOf() {
	address, stop := backend()
	defer stop()
	t, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.List{
		{Address: refusing, Priority: 0},
		{Address: address, Priority: 1, Zone: "spare"},
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	resp, err := (&http.Client{Transport: t}).Get("http://users/")
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	info, _ := evenkeel.InfoOf(resp)
	fmt.Println(len(info.Attempts), info.Endpoint.Zone)
	// Output:
	// 2 spare
}

// The policy can be replaced while calls are under way. A bad one changes nothing.
func ExampleTransport_Update() {
	t, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{refusing}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	config := t.Config()
	config.Retry.MaxAttempts = -1
	fmt.Println(t.Update(config))
	config.Retry.MaxAttempts = 5
	fmt.Println(t.Update(config), t.Config().Retry.MaxAttempts)
	// Output:
	// Retry.MaxAttempts: must be between 0 and 1048576 (got -1)
	// <nil> 5
}

// Hooks see each attempt, each decision and each call.
func ExampleWithHooks() {
	address, stop := backend()
	defer stop()
	t, err := evenkeel.New("http://users",
		evenkeel.WithResolver(discovery.List{{Address: refusing}, {Address: address, Priority: 1}}),
		evenkeel.WithHooks(evenkeel.Hooks{
			Attempt: func(a evenkeel.Attempt) { fmt.Println("attempt", a.Number, a.Outcome.Class) },
			Decided: func(d retry.Decision) { fmt.Println("again:", d.Action.Again) },
			Called:  func(c evenkeel.Call) { fmt.Println("call", c.StatusCode) },
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	resp, err := (&http.Client{Transport: t}).Get("http://users/")
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	// Output:
	// attempt 1 never sent
	// again: true
	// attempt 2 success
	// again: false
	// call 200
}

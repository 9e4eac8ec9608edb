package health_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// A monitor alone, for those who have a balancer of their own: here, an endpoint is ejected after
// five failures in a row, and comes back.
func ExampleMonitor_Add() {
	fake := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	m, err := health.NewMonitor(health.Config{
		Outlier:  health.Outlier{EjectFor: 30 * time.Second, Jitter: health.Off},
		Clock:    fake,
		OnChange: func(c health.Change) { fmt.Println(c.Kind, c.Endpoint, c.Cause) },
	})
	if err != nil {
		panic(err)
	}
	defer m.Close()
	a, err := m.Add(discovery.Endpoint{Address: "10.0.0.1:80"})
	if err != nil {
		panic(err)
	}
	if _, err := m.Add(discovery.Endpoint{Address: "10.0.0.2:80"}); err != nil {
		panic(err)
	}
	for range 5 {
		a.Answered(outcome.Answer{Class: outcome.Failure, Status: http.StatusInternalServerError})
	}
	fmt.Println(a.Available())
	fake.Advance(30 * time.Second)
	fmt.Println(a.Available())
	// Output:
	// eject 10.0.0.1:80 consecutive failures
	// false
	// return 10.0.0.1:80 consecutive failures
	// true
}

// A pool that picks only endpoints which can serve.
func ExampleNewMonitor() {
	m, err := health.NewMonitor(health.Config{
		Target: "http://users.internal:8080",
		Check:  &health.Check{Probe: health.HTTP{Path: "/health/ready", Report: true}, Interval: 5 * time.Second},
	})
	if err != nil {
		panic(err)
	}
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: discovery.Static{"10.0.0.1:8080", "10.0.0.2:8080"},
		Health:   m,
	})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: balancer.NewTransport(pool, nil)}
	// client.Get("http://users.internal:8080/api/users/42")
	client.CloseIdleConnections()
	pool.Close()
	m.Close()
}

// What nginx calls max_fails=3 and fail_timeout=10s.
func ExampleOutlier_maxFails() {
	o := health.Outlier{
		LocalFailures: 3, GatewayFailures: 3, ConsecutiveFailures: health.Off, Deviation: health.Off,
		EjectFor: 10 * time.Second, MaxEjectFor: 10 * time.Second, Jitter: health.Off,
		MaxEjected: 1,
	}
	fmt.Println(o.Validate())
	// Output: <nil>
}

// A probe of your own: servers that share a volume and leave a file there when they go.
func ExampleFunc() {
	check := health.Check{
		Probe: health.Func(func(_ context.Context, e discovery.Endpoint) error {
			switch _, err := os.Stat("/mnt/leaving/" + e.ID); {
			case err == nil:
				return health.ErrDraining
			case errors.Is(err, os.ErrNotExist):
				return nil
			default:
				return err
			}
		}),
		Interval: time.Second,
	}
	fmt.Println(check.Validate())
	// Output: <nil>
}

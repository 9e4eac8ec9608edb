package health_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/health"
)

// exampleNow is a clock that stands still, so that the output is always the same. A program
// leaves HandlerConfig.Clock out.
func exampleNow() *clock.Fake {
	return clock.NewFake(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))
}

// exampleDB stands for a *sql.DB.
type exampleDB struct{}

func (exampleDB) PingContext(context.Context) error { return nil }

// exampleRedis stands for a *redis.Client of go-redis.
type exampleRedis struct{}

type exampleStatus struct{ err error }

func (s exampleStatus) Err() error { return s.err }

func (exampleRedis) Ping(context.Context) exampleStatus {
	return exampleStatus{errors.New("dial tcp 10.0.0.7:6379: connection refused")}
}

// A server with a database that it needs, and a cache that it can do without.
func ExampleHandler() {
	db, cache := exampleDB{}, exampleRedis{}
	handler, err := health.NewHandler(health.HandlerConfig{
		Clock: exampleNow(),
		Components: []health.Component{
			{Name: "db", Check: health.Ping(db)},
			{Name: "cache", Optional: true, Check: func(ctx context.Context) error { return cache.Ping(ctx).Err() }},
		},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/health", handler)  // all
	mux.Handle("/health/", handler) // /health/live, /health/ready
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, path := range []string{"/health/live", "/health/ready"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%d %s", resp.StatusCode, body)
	}
	// Output:
	// 200 {"status":"UP","timestamp":"2026-01-02T15:04:05Z","details":{}}
	// 200 {"status":"DEGRADED","timestamp":"2026-01-02T15:04:05Z","details":{"cache":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},"db":{"status":"UP","latencyMs":0}}}
}

// The paths that Kubernetes' own servers have, and a program that looks for itself.
func ExampleHandler_Report() {
	handler, err := health.NewHandler(health.HandlerConfig{StartDown: true})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/livez", handler.Live())
	mux.Handle("/readyz", handler.Ready())

	fmt.Println(handler.Report(context.Background()).Status)
	handler.Started() // caches are warm, queues are connected
	fmt.Println(handler.Report(context.Background()).Status)
	// Output:
	// DOWN
	// UP
}

// A server that ends without losing a request. A program calls Shutdown when it gets SIGTERM,
// and leaves DrainFor out.
func ExampleHandler_Shutdown() {
	handler, err := health.NewHandler(health.HandlerConfig{DrainFor: 10 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // more than DrainFor
	defer cancel()
	fmt.Println(handler.Shutdown(ctx, server.Config))
	fmt.Println(handler.Report(ctx).Details["server"].Error)
	// Output:
	// <nil>
	// draining
}

// Messages that wait on a disk need room: below a tenth, it is time to send no more.
func ExampleDisk() {
	spool, err := health.Disk("/var/spool", 0.1)
	if errors.Is(err, errors.ErrUnsupported) {
		spool = func(context.Context) error { return nil } // on Windows, say
	} else if err != nil {
		panic(err)
	}
	handler, err := health.NewHandler(health.HandlerConfig{
		Components: []health.Component{{Name: "spool", CacheFor: time.Minute, Check: spool}},
		// Only those who come from this machine may read why the disk is not well.
		Insider: func(req *http.Request) bool { return strings.HasPrefix(req.RemoteAddr, "127.") },
	})
	if err != nil {
		panic(err)
	}
	http.NewServeMux().Handle("/health", handler)
}

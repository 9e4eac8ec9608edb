// Command health shows the server side of health checks: two servers, one with net/http's own
// router and one with chi, tell whether they live and whether they had better get requests,
// and end without losing any.
//
//	cd examples/health && go run .               until Ctrl-C or SIGTERM
//	cd examples/health && go run . -seconds 10
//
// While it runs, and while it ends:
//
//	curl -i localhost:8081/health/ready
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
)

// newHealth says what a server depends on. The users service is gone all the time, and as the server
// can do without, it is only degraded.
func newHealth(users *evenkeel.Transport, drainFor time.Duration) (*health.Handler, error) {
	disk, err := health.Disk(os.TempDir(), 0.001)
	if errors.Is(err, errors.ErrUnsupported) {
		disk = func(context.Context) error { return nil }
	} else if err != nil {
		return nil, err
	}
	return health.NewHandler(health.HandlerConfig{
		StartDown: true,
		DrainFor:  drainFor,
		Components: []health.Component{
			{Name: "db", Check: health.Ping(database{})},
			{Name: "disk", Check: disk, CacheFor: time.Minute},
			{Name: "users", Check: users.Check, Optional: true}, // what evenkeel knows of a service behind
		},
	})
}

// database stands for a *sql.DB.
type database struct{}

func (database) PingContext(context.Context) error { return nil }

// withServeMux is how the handler goes into net/http's own router.
func withServeMux(h *health.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/health", h)
	mux.Handle("/health/", h) // live, ready
	mux.HandleFunc("/", hello)
	return mux
}

// withChi is how it goes into chi's, here under the paths that Kubernetes has.
func withChi(h *health.Handler) http.Handler {
	router := chi.NewRouter()
	router.Handle("/livez", h.Live())
	router.Handle("/readyz", h.Ready())
	router.Get("/", hello)
	return router
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }

// serve runs one server until ctx ends, and then ends it in order: readiness turns DOWN, the
// clients go elsewhere meanwhile, then the server takes no more connections, and finishes the
// requests that it has.
func serve(ctx context.Context, name, address string, users *evenkeel.Transport, drainFor time.Duration, router func(*health.Handler) http.Handler) error {
	checks, err := newHealth(users, drainFor)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: router(checks), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	checks.Started() // here, there is nothing to warm up
	fmt.Printf("%s is at http://%s\n", name, listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Printf("%s drains for %v\n", name, drainFor)
	ctx, cancel := context.WithTimeout(context.Background(), drainFor+10*time.Second)
	defer cancel()
	err = checks.Shutdown(ctx, server)
	fmt.Printf("%s has ended\n", name)
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "health:", err)
		os.Exit(1)
	}
}

func run() error {
	seconds := flag.Int("seconds", 0, "how long to run before the servers end, 0 for until a signal comes")
	drainFor := flag.Duration("drain", 3*time.Second, "how long to serve after readiness is DOWN; the library's default is 15s")
	plain := flag.String("http", "127.0.0.1:8081", "`address` of the server with net/http's router")
	withchi := flag.String("chi", "127.0.0.1:8082", "`address` of the server with chi's")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	if *seconds > 0 {
		time.AfterFunc(time.Duration(*seconds)*time.Second, stop)
	}
	users, err := evenkeel.New("http://users.internal", evenkeel.WithResolver(discovery.Static{"127.0.0.1:1"}),
		evenkeel.WithHealthCheck(health.Check{Probe: health.TCP{}, Interval: 100 * time.Millisecond}))
	if err != nil {
		return err
	}
	defer users.Close()
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() { defer stop(); errs[0] = serve(ctx, "net/http", *plain, users, *drainFor, withServeMux) })
	both.Go(func() { defer stop(); errs[1] = serve(ctx, "chi", *withchi, users, *drainFor, withChi) })
	both.Wait()
	return errors.Join(errs[:]...)
}

// Command quickstart shows evenkeel at work: steady traffic through one
// http.Client, while the servers behind it are killed, restarted, added and taken
// away. No call fails.
//
//	go run ./examples/quickstart               for 10 seconds, with servers of its own
//	go run ./examples/quickstart -seconds 60
//	go run ./examples/quickstart -targets 10.0.0.1:8080,10.0.0.2:8080
//
// It ends with status 1 if a call failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// newClient is all that evenkeel takes: a transport for the service "users", in
// an ordinary http.Client. Picking a server, noticing that one has died, trying
// another: that is on unless it is switched off. The options are for this show.
func newClient(servers discovery.Resolver, attempt func(evenkeel.Attempt)) (*http.Client, *evenkeel.Transport, error) {
	transport, err := evenkeel.New("http://users",
		evenkeel.WithResolver(servers),                       // without it, DNS says where the servers are
		evenkeel.WithHooks(evenkeel.Hooks{Attempt: attempt}), // for the table at the end
	)
	if err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: transport}, transport, nil
}

// run sends traffic, lets the story take its course meanwhile, and prints what
// came of it. It returns an error if a call failed.
func run(ctx context.Context, length time.Duration, servers discovery.Resolver, story story) error {
	report := newReport(os.Stdout)
	client, transport, err := newClient(servers, report.attempt)
	if err != nil {
		return err
	}
	defer transport.Close()

	traffic := &traffic{client: client, failure: report.failure}
	stop := traffic.start()
	watch := report.watch(traffic, transport)
	problem := story(ctx, length, transport, report.note)
	stop()
	watch()

	report.finish(traffic, transport)
	if problem == nil && traffic.failed.Load() > 0 {
		problem = errors.New("not every call succeeded")
	}
	return problem
}

// A story is what happens to the servers while traffic flows. It takes as long as
// it is told to, less if ctx ends.
type story func(ctx context.Context, length time.Duration, t *evenkeel.Transport, note func(string)) error

func main() {
	if isBackend() {
		exit(runBackend())
	}
	seconds := flag.Int("seconds", 10, "how long to send traffic")
	targets := flag.String("targets", "", "host:port,... of `servers` to send traffic to, in place of own ones")
	flag.Parse()
	if *seconds < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	length := time.Duration(*seconds) * time.Second

	if *targets != "" {
		exit(run(ctx, length, discovery.Static(strings.Split(*targets, ",")), nothingHappens))
	}
	exit(runWithFleet(ctx, length))
}

// runWithFleet runs with servers of its own.
func runWithFleet(ctx context.Context, length time.Duration) error {
	fleet, err := newFleet("a", "b", "c")
	if err != nil {
		return err
	}
	defer fleet.close()
	// A file with the addresses stands for whatever knows them in real life. A
	// second is how often it is looked at by default; stories are short.
	servers := discovery.File{Path: fleet.file, Interval: 100 * time.Millisecond}
	return run(ctx, length, servers, fleet.story)
}

// nothingHappens is the story of servers that are not ours.
func nothingHappens(ctx context.Context, length time.Duration, _ *evenkeel.Transport, _ func(string)) error {
	pause(ctx, length)
	return nil
}

// pause reports whether it lasted until its end.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// exit is called when everything deferred is done.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

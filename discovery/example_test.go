package discovery_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// first watches a resolver until it says something, and prints that. In a program
// the pool of a client does the watching.
func first(r discovery.Resolver) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = r.Watch(ctx, discovery.Sink{
		Update: func(endpoints []discovery.Endpoint, skipped error) {
			for _, e := range endpoints {
				fmt.Printf("%v weight %v priority %d standby %v\n", e, e.EffectiveWeight(), e.Priority, e.Standby)
			}
			if skipped != nil {
				fmt.Println("skipped:", skipped)
			}
			cancel()
		},
		Fail: func(err error) {
			fmt.Println("failed:", err)
			cancel()
		},
		Clock: clock.System,
		Rand:  func() float64 { return 0.5 },
	})
}

func ExampleStatic() {
	r := discovery.Static{"10.0.0.1:8443", "10.0.0.2"}
	fmt.Println(r.Validate())
	first(r[:1])
	// Output:
	// Static[1]: must be host:port or unix:path (got "10.0.0.2")
	// 10.0.0.1:8443 weight 1 priority 0 standby false
}

func ExampleList() {
	first(discovery.List{
		{Address: "10.0.0.1:8443", Weight: 3},
		{Address: "10.0.0.2:8443", ID: "spare", Standby: true},
	})
	// Output:
	// 10.0.0.1:8443 weight 3 priority 0 standby false
	// spare@10.0.0.2:8443 weight 1 priority 0 standby true
}

func ExampleDNS() {
	first(discovery.DNS{
		Host: "users.internal.",
		Port: 8080,
		// Left out in a program: the resolver of the machine is the default.
		Lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network == "ip6" {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil
		},
	})
	// Output:
	// 10.0.0.1:8080 weight 1 priority 0 standby false
	// 10.0.0.2:8080 weight 1 priority 0 standby false
}

func ExampleSRV() {
	first(discovery.SRV{
		Service: "http", Proto: "tcp", Name: "shop.internal.",
		// Both left out in a program.
		LookupSRV: func(context.Context, string, string, string) (string, []*net.SRV, error) {
			return "", []*net.SRV{
				{Target: "a.shop.internal.", Port: 8001, Priority: 10, Weight: 60},
				{Target: "b.shop.internal.", Port: 8002, Priority: 10, Weight: 0},
				{Target: "c.shop.internal.", Port: 8003, Priority: 20, Weight: 0},
			}, nil
		},
		Lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, host[0] - 'a' + 1})}, nil
		},
	})
	// Output:
	// 10.0.0.1:8001 weight 60 priority 10 standby false
	// 10.0.0.2:8002 weight 0.6 priority 10 standby false
	// 10.0.0.3:8003 weight 1 priority 20 standby false
}

func ExampleFile() {
	dir, err := os.MkdirTemp("", "discovery")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "endpoints.json")
	content := `{"endpoints": [
		{"address": "10.0.0.1:8080", "weight": 5},
		{"address": "10.0.0.2:8080", "weight": 0},
		{"address": "10.0.0.3:8080", "wieght": 5}
	]}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	first(discovery.File{Path: path})
	// Output:
	// 10.0.0.1:8080 weight 5 priority 0 standby false
	// 10.0.0.2:8080 weight 1 priority 0 standby true
	// skipped: 1 left out: endpoints[2]: json: unknown field "wieght"
}

func ExampleMerge() {
	r := discovery.Merge{
		discovery.List{{Address: "10.0.0.1:8080", Weight: 0.5}}, // corrects what the other says
		discovery.Static{"10.0.0.1:8080", "10.0.0.2:8080"},
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = r.Watch(ctx, discovery.Sink{
		Update: func(endpoints []discovery.Endpoint, _ error) {
			if len(endpoints) < 2 || endpoints[0].Weight == 0 {
				return // one of the two has not answered yet
			}
			for _, e := range endpoints {
				fmt.Println(e, "weight", e.EffectiveWeight())
			}
			cancel()
		},
		Fail:  func(err error) { fmt.Println(err) },
		Clock: clock.System,
		Rand:  func() float64 { return 0.5 },
	})
	// Output:
	// 10.0.0.1:8080 weight 0.5
	// 10.0.0.2:8080 weight 1
}

func ExampleLastGood() {
	source := script(func(ctx context.Context, sink discovery.Sink) error {
		sink.Update([]discovery.Endpoint{{Address: "10.0.0.1:80"}, {Address: "10.0.0.2:80"}}, nil)
		sink.Fail(fmt.Errorf("SERVFAIL"))
		sink.Update(nil, nil) // believed only if it stays like this for 30s
		sink.Update([]discovery.Endpoint{{Address: "10.0.0.2:80"}, {Address: "10.0.0.1:80"}}, nil)
		return stay(ctx)
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := discovery.LastGood{Resolver: source, OnEvent: func(e discovery.Event) {
		fmt.Println(e.Kind, e.Size)
		if e.Kind == discovery.Unchanged {
			cancel()
		}
	}}
	_ = r.Watch(ctx, discovery.Sink{
		Update: func(endpoints []discovery.Endpoint, _ error) { fmt.Println("use", endpoints) },
		Fail:   func(err error) { fmt.Println("know of", err) },
		Clock:  clock.NewFake(time.Unix(0, 0)),
		Rand:   func() float64 { return 0.5 },
	})
	// Output:
	// use [10.0.0.1:80 10.0.0.2:80]
	// updated 2
	// know of SERVFAIL
	// failed 2
	// held 2
	// unchanged 2
}

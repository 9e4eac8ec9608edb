// Command gateway is a reverse proxy in front of four services, each of which has several servers. It
// keeps browsers at the servers that keep their state, passes WebSockets on, checks tokens, lets scripts
// of chosen sites in, joins the answers of three services into one, tells how it does, and ends in
// order.
//
//	go run ./examples/gateway                                   with servers of its own
//	go run ./examples/gateway -web 10.0.0.1:8080,10.0.0.2:8080  with others
//
// It prints what to open and to try. One server for it, as a process that can be killed:
//
//	go run ./examples/gateway -backend web -listen 127.0.0.1:8081 -name web-1
//
// GATEWAY_SECRET holds what signs its cookies, at least 32 bytes in hex or base64:
//
//	GATEWAY_SECRET=$(openssl rand -hex 32) go run ./examples/gateway
//
// gateway.go is the gateway. token.go and dashboard.go are what it does by itself, and demo.go is
// what stands for the services.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to listen at")
	drainFor := flag.Duration("drain", 3*time.Second, "how long to serve after /health says that it ends")
	origins := flag.String("origins", "https://app.example.com", "other sites whose scripts may call, as `origin,...`")
	backend := flag.String("backend", "", "be one server of this `service`, and no gateway")
	name := flag.String("name", "", "what that server calls itself")
	addresses := map[string]*string{}
	for _, r := range routes {
		addresses[r.service] = flag.String(r.service, "", "`host:port,...` of servers, in place of own ones")
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *backend != "" {
		return runBackend(ctx, *backend, *listen, cmp.Or(*name, *backend))
	}

	secret, err := secretFrom(os.Getenv("GATEWAY_SECRET"))
	if err != nil {
		return err
	}
	cfg := config{servers: map[string][]string{}, secret: secret, origins: list(*origins), drainFor: *drainFor}
	for service, given := range addresses {
		if *given != "" {
			cfg.servers[service] = list(*given)
			continue
		}
		fleet, err := newFleet(service, 3)
		if err != nil {
			return err
		}
		defer fleet.close()
		cfg.servers[service] = fleet.addresses
	}
	g, err := newGateway(cfg)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return errors.Join(err, g.services.Close())
	}
	fmt.Printf(manual, listener.Addr())
	return g.serve(ctx, listener)
}

// manual is what to do with it.
const manual = `the gateway is at http://%[1]s: open it, log in, reload

	curl -c jar -d user=ada http://%[1]s/login
	curl -b jar -c jar      http://%[1]s/users/ada
	curl -b jar -c jar      http://%[1]s/api/dashboard
	curl                    http://%[1]s/health

`

// list splits what was given with commas.
func list(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' })
}

// secretFrom reads a secret, or makes one.
func secretFrom(text string) ([]byte, error) {
	const least = 32
	if text == "" {
		slog.Warn("GATEWAY_SECRET is not set: sessions and tokens end with this process")
		secret := make([]byte, least)
		_, _ = rand.Read(secret) // never fails
		return secret, nil
	}
	secret, err := hex.DecodeString(text)
	if err != nil {
		secret, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil || len(secret) < least { // the error would tell a part of it
		return nil, fmt.Errorf("GATEWAY_SECRET must be at least %d bytes in hex or base64", least)
	}
	return secret, nil
}

// serve serves until ctx ends, and then ends in order: say so, let requests end, and then the rest.
func (g *gateway) serve(ctx context.Context, listener net.Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{
		Handler: g,
		// Bodies, and answers, may take as long as they need.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return errors.Join(err, g.services.Close())
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.drainFor+10*time.Second)
	defer cancel()
	err := g.health.Shutdown(limit, server)
	// The server neither ends WebSockets nor waits for them: they end with their context. Their
	// clients come back, to another gateway.
	cut()
	return errors.Join(err, g.services.Shutdown(limit), server.Close())
}

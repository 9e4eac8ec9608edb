package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/evenkeel-go/evenkeel/health"
)

// The servers that stand for the services. They know nothing of the gateway, except that it tells
// them in a header who asks.

//go:embed page.html
var pageText string

// page is the only page of the service web.
var page = template.Must(template.New("page").Parse(pageText))

// server is a server of one of the services. What it knows is in its memory, and nowhere else.
type server struct {
	name string

	mu     sync.Mutex
	visits map[string]int // by session, or by user

	connections atomic.Int64
}

// mostVisitors bounds what a server remembers: it is a demonstration, and forgets all at once.
const mostVisitors = 10_000

func (s *server) visit(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.visits) >= mostVisitors {
		clear(s.visits)
	}
	s.visits[key]++
	return s.visits[key]
}

// newBackend returns what a server of a service answers with.
func newBackend(kind, name string) (http.Handler, error) {
	s := &server{name: name, visits: map[string]int{}}
	mux := http.NewServeMux()
	switch kind {
	case "users":
		mux.HandleFunc("GET /users/{name}", s.user)
	case "orders":
		mux.HandleFunc("GET /orders/{$}", s.orders)
		mux.HandleFunc("POST /orders/{$}", s.order)
	case "chat":
		mux.HandleFunc("GET /chat", s.chat)
	case "web":
		mux.HandleFunc("GET /{$}", s.page)
	default:
		return nil, fmt.Errorf("there is no service %q", kind)
	}
	checks, err := health.NewHandler(health.HandlerConfig{})
	mux.Handle("/health", checks)
	return mux, err
}

// page shows how often a browser was here, by a session of the server's own.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	id, err := r.Cookie("visitor")
	if err != nil {
		id = &http.Cookie{Name: "visitor", Value: rand.Text(), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
		http.SetCookie(w, id)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, map[string]any{ // an error means that the browser has gone
		"Server": s.name, "Visits": s.visit(id.Value), "User": r.Header.Get(userHeader),
	})
}

func (s *server) user(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "me" {
		name = r.Header.Get(userHeader)
	}
	answer(w, map[string]any{"server": s.name, "name": name, "visits": s.visit(name)})
}

func (s *server) orders(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"server": s.name, "orders": []string{"a sextant", "two charts"}})
}

// order tells how long an order is, which may be any length.
func (s *server) order(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	answer(w, map[string]any{"server": s.name, "bytes": n})
}

// chat sends back what it hears. Without an upgrade, it tells how many it hears.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		answer(w, map[string]any{"server": s.name, "connections": s.connections.Load()})
		return
	}
	conn, err := websocket.Accept(w, r, nil) // which refuses the pages of other sites
	if err != nil {
		return // it has answered
	}
	defer func() { _ = conn.CloseNow() }()
	s.connections.Add(1)
	defer s.connections.Add(-1)
	ctx := r.Context()
	for {
		kind, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, kind, fmt.Appendf(nil, "%s: %s", s.name, text)); err != nil {
			return
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error means that the client has gone
}

// runBackend is one server as a process of its own.
func runBackend(ctx context.Context, kind, address, name string) error {
	b, err := startBackend(ctx, kind, address, name)
	if err != nil {
		return err
	}
	fmt.Printf("%s is at %s\n", name, b.address)
	select {
	case <-ctx.Done():
		b.close()
		return nil
	case <-b.done:
		return b.err
	}
}

// backend is a server that runs.
type backend struct {
	address string
	server  *http.Server
	cut     context.CancelFunc
	done    chan struct{}
	err     error // after done
}

func startBackend(ctx context.Context, kind, address, name string) (*backend, error) {
	handler, err := newBackend(kind, name)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	b := &backend{address: listener.Addr().String(), cut: cut, done: make(chan struct{})}
	b.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	go func() {
		defer close(b.done)
		b.err = b.server.Serve(listener)
	}()
	return b, nil
}

// close ends the server and its WebSockets.
func (b *backend) close() {
	b.cut()
	b.server.Close()
	<-b.done
}

// fleet is the servers of a service, in this process.
type fleet struct {
	backends  []*backend
	addresses []string
}

func newFleet(kind string, n int) (*fleet, error) {
	f := &fleet{}
	for i := range n {
		b, err := startBackend(context.Background(), kind, "127.0.0.1:0", fmt.Sprintf("%s-%d", kind, i+1))
		if err != nil {
			f.close()
			return nil, err
		}
		f.backends, f.addresses = append(f.backends, b), append(f.addresses, b.address)
	}
	slog.Info("servers are there", "service", kind, "addresses", f.addresses)
	return f, nil
}

func (f *fleet) close() {
	for _, b := range f.backends {
		b.close()
	}
}

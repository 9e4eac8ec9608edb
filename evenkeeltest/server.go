package evenkeeltest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// Protocol is what a server speaks.
type Protocol int

const (
	// HTTP1 is HTTP/1.1 without TLS.
	HTTP1 Protocol = iota
	// HTTPS is HTTP/2 over TLS, or HTTP/1.1 with clients that do not offer it.
	HTTPS
	// HTTPS1 is HTTP/1.1 over TLS.
	HTTPS1
	// H2C is HTTP/2 without TLS, with prior knowledge.
	H2C
)

func (p Protocol) tls() bool   { return p == HTTPS || p == HTTPS1 }
func (p Protocol) http2() bool { return p == HTTPS || p == H2C }

func (p Protocol) protocols() *http.Protocols {
	ps := new(http.Protocols)
	ps.SetHTTP1(p != H2C)
	ps.SetHTTP2(p == HTTPS)
	ps.SetUnencryptedHTTP2(p == H2C)
	return ps
}

// ServerConfig says what is served where. Only Address is required.
type ServerConfig struct {
	// Address is "host:port", or "unix:path" for a Unix socket. The host can
	// be any name.
	Address string

	// Handler answers the requests. Nil means [OK] with the address.
	Handler http.Handler

	// Protocol is what the server speaks. Zero is [HTTP1].
	Protocol Protocol

	// Certificate is the only host name or IP address for which the server has a
	// certificate. Empty means whichever name the client asks for.
	Certificate string

	// Configure changes the server before it starts, for what has no field
	// here. It is called again by each [Server.Restart].
	Configure func(*http.Server)
}

// Server is an HTTP server on a [Network]. Make one with [Network.Serve] or
// [Network.Start]. It counts and records what it receives, across restarts.
type Server struct {
	network *Network
	config  ServerConfig

	journal *journal

	mu      sync.Mutex   // guards what follows
	running *incarnation // nil while down
}

// incarnation is the server between a start and its end.
type incarnation struct {
	http     *http.Server
	listener net.Listener
	served   chan struct{} // closed when it accepts no more
}

// Serve starts a server that speaks HTTP/1.1 without TLS. A nil handler means
// [OK] with the address.
func (n *Network) Serve(address string, handler http.Handler) *Server {
	n.tb.Helper()
	return n.Start(ServerConfig{Address: address, Handler: handler})
}

// Start starts a server. It ends the test if the address is already served.
func (n *Network) Start(config ServerConfig) *Server {
	n.tb.Helper()
	if config.Handler == nil {
		config.Handler = OK(config.Address)
	}
	s := &Server{network: n, config: config, journal: newJournal()}
	n.mu.Lock()
	n.servers = append(n.servers, s)
	n.mu.Unlock()
	s.start()
	return s
}

func (s *Server) start() {
	tb := s.network.tb
	tb.Helper()
	if s.config.Protocol.http2() {
		emptyPools()
	}
	listener, err := s.network.mem.Listen(s.config.Address)
	if err != nil {
		tb.Fatalf("evenkeeltest: %v", err)
	}
	run := &incarnation{http: s.newHTTP(), listener: listener, served: make(chan struct{})}
	s.mu.Lock()
	s.running = run
	s.mu.Unlock()
	go func() {
		defer close(run.served)
		if s.config.Protocol.tls() {
			_ = run.http.ServeTLS(listener, "", "") // ends with the listener, by design
			return
		}
		_ = run.http.Serve(listener)
	}()
}

func (s *Server) newHTTP() *http.Server {
	srv := &http.Server{
		Handler:   http.HandlerFunc(s.serveHTTP),
		Protocols: s.config.Protocol.protocols(),
		ErrorLog:  log.New(io.Discard, "", 0), // it tells of the failures that the test ordered
	}
	if s.config.Protocol.tls() {
		srv.TLSConfig = s.network.ca().serverTLS(s.host(), s.config.Certificate)
	}
	if s.config.Configure != nil {
		s.config.Configure(srv)
	}
	s.journal.watch(srv)
	return srv
}

func (s *Server) host() string {
	if host, _, err := net.SplitHostPort(s.config.Address); err == nil {
		return host
	}
	return s.config.Address
}

// Addr returns the address as it was given.
func (s *Server) Addr() string { return s.config.Address }

// Endpoint returns the server as a resolver would find it: by its address only.
func (s *Server) Endpoint() discovery.Endpoint { return discovery.Endpoint{Address: s.config.Address} }

// Kill ends the server as SIGKILL does: from now on dials are refused, and all
// connections are reset. It does not wait for the handlers, whose contexts are
// cancelled as soon as net/http notices.
func (s *Server) Kill() {
	s.mu.Lock()
	run := s.running
	s.running = nil
	s.mu.Unlock()
	if run == nil {
		return
	}
	_ = run.listener.Close() // before the reset, so that nobody slips in between
	s.network.mem.ResetConnections(s.config.Address)
	_ = run.http.Close()
	<-run.served
}

// Restart starts the server again at the same address, after a [Server.Kill] if
// it still runs. A fault of the network, as by [Server.Freeze], stays.
func (s *Server) Restart() {
	s.network.tb.Helper()
	s.Kill()
	s.start()
}

// Shutdown ends the server as a polite deployment does: dials are refused, idle
// connections closed, requests in progress finished. When ctx ends before them,
// it kills the server and returns the context's error. Upgraded connections are
// not waited for, and live on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	run := s.running
	s.mu.Unlock()
	if run == nil {
		return nil
	}
	if err := run.http.Shutdown(ctx); err != nil {
		s.Kill()
		return err
	}
	<-run.served
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == run {
		s.running = nil
	}
	return nil
}

// Freeze makes the server silent, as a machine that hangs or a firewall that
// drops: see [Network.BlackHole].
func (s *Server) Freeze() { s.network.BlackHole(s.config.Address) }

// Thaw ends a [Server.Freeze]: what was sent meanwhile arrives now.
func (s *Server) Thaw() { s.network.Heal(s.config.Address) }

// Dials returns how often the server's address was dialled, with or without
// success.
func (s *Server) Dials() int { return s.network.Dials(s.config.Address) }

// OpenConns returns how many connections to the server clients hold open.
func (s *Server) OpenConns() int { return s.network.OpenConns(s.config.Address) }

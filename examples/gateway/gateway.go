package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"time"

	"github.com/rs/cors"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/session"
)

// routes say which service a path belongs to. The longest path counts, and one that ends in a slash
// stands for all below it. Services that keep state in memory keep their callers at one server.
var routes = []struct {
	path, service    string
	public, stateful bool
}{
	{path: "/users/", service: "users", stateful: true},
	{path: "/orders/", service: "orders"},
	{path: "/chat", service: "chat", stateful: true}, // a WebSocket
	{path: "/", service: "web", stateful: true, public: true},
}

// config is what differs from one gateway to the next.
type config struct {
	servers  map[string][]string // addresses by service
	secret   []byte              // at least 32 random bytes, the same for all replicas
	origins  []string            // other sites whose scripts may call: https://app.example.com
	drainFor time.Duration       // how long it serves after it has said that it will end
}

// gateway is the whole of it: ServeHTTP in front, services behind.
type gateway struct {
	http.Handler
	services *evenkeel.Services
	health   *health.Handler
	tokens   tokens
	drainFor time.Duration
}

func newGateway(cfg config) (*gateway, error) {
	// A key that signs two kinds of things may be talked into signing one for the other.
	affinity, err := hkdf.Key(sha256.New, cfg.secret, nil, "affinity", 32)
	if err != nil {
		return nil, err
	}
	token, err := hkdf.Key(sha256.New, cfg.secret, nil, "token", 32)
	if err != nil {
		return nil, err
	}
	services := map[string]evenkeel.Service{}
	for _, r := range routes {
		options := []evenkeel.Option{evenkeel.WithResolver(discovery.Static(cfg.servers[r.service]))}
		if r.stateful {
			// Where something in front ends TLS, this needs Secure: session.SecureAlways, as does the
			// cookie in token.go.
			by := session.Cookie{Name: r.service + "_at", Secret: session.NewSecret(affinity)}
			options = append(options, evenkeel.WithSession(session.Policy{By: by}))
		}
		services[r.service] = evenkeel.Service{Options: options} // called as http://users
	}
	g := &gateway{tokens: token, drainFor: cfg.drainFor}
	g.services, err = evenkeel.NewServices(evenkeel.ServicesConfig{
		Services: services,
		Defaults: []evenkeel.Option{
			// Until the headers of the answer, a request's body included: services that
			// get large uploads need more.
			evenkeel.WithTimeout(10 * time.Second),
			evenkeel.WithHealthCheck(health.Check{Probe: health.TCP{}}),
		},
	})
	if err != nil {
		return nil, err
	}
	if err := g.assemble(cfg); err != nil {
		return nil, errors.Join(err, g.services.Close())
	}
	return g, nil
}

// assemble puts together what answers requests.
func (g *gateway) assemble(cfg config) error {
	checks := health.HandlerConfig{DrainFor: cfg.drainFor, Insider: isInsider}
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.Handle(r.path, g.tokens.check(g.proxy(r.service), r.public))
		service, err := g.services.Transport(r.service)
		if err != nil {
			return err
		}
		// Optional: if one service is down, the gateway is still what the others are behind.
		checks.Components = append(checks.Components, health.Component{Name: r.service, Check: service.Check, Optional: true})
	}
	mux.HandleFunc("POST /login", g.tokens.login)
	mux.Handle("GET /api/dashboard", g.tokens.check(http.HandlerFunc(g.dashboard), false))
	var err error
	if g.health, err = health.NewHandler(checks); err != nil {
		return err
	}
	mux.Handle("/health", g.health)
	mux.Handle("/health/", g.health) // live, ready

	// CORS lets scripts of other sites read answers, those in the list and no others. It does not
	// keep their forms from being sent with the user's cookies: that is the second.
	policy := cors.New(cors.Options{
		AllowOriginFunc:  func(origin string) bool { return slices.Contains(cfg.origins, origin) },
		AllowedMethods:   []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete},
		AllowedHeaders:   []string{"Authorization", "Content-Type"},
		AllowCredentials: true,
	})
	forms := http.NewCrossOriginProtection()
	for _, origin := range cfg.origins {
		if err := forms.AddTrustedOrigin(origin); err != nil { // "*", for one
			return err
		}
	}
	g.Handler = policy.Handler(forms.Handler(mux))
	return nil
}

// proxy passes requests on to a service: bodies as they come, WebSockets included. Host stays what
// the client asked for, since servers compare it with Origin; the URL says where to.
func (g *gateway) proxy(service string) http.Handler {
	return &httputil.ReverseProxy{
		Transport: g.services,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", service
			r.SetXForwarded() // what the client claims there is gone already
			keepUser(r)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			status := statusOf(err)
			if r.Context().Err() == nil { // else the client has gone, which is no news
				slog.Warn("no answer", "service", service, "status", status, "error", err)
			}
			http.Error(w, http.StatusText(status), status) // the error tells addresses, so it is for the log
		},
	}
}

// statusOf returns how to say that there is no answer.
func statusOf(err error) int {
	var e *evenkeel.Error
	switch {
	case !errors.As(err, &e):
		return http.StatusBadGateway
	case e.Timeout():
		return http.StatusGatewayTimeout
	}
	switch e.Reason {
	case outcome.NoEndpoints, outcome.Open, outcome.Limiter, outcome.Closed:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadGateway
	}
}

// isInsider reports whether a request comes from this machine, and not by way of a proxy on it. An
// empty X-Forwarded-For is the client's, and the proxy's may be the next.
func isInsider(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback() && len(r.Header.Values("X-Forwarded-For")) == 0
}

package health_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
)

// grpcServer is the health service of grpc-go on loopback.
type grpcServer struct {
	*grpchealth.Server
	address string
}

func serveGRPC(t *testing.T, options ...grpc.ServerOption) *grpcServer {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &grpcServer{grpchealth.NewServer(), listener.Addr().String()}
	server := grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(server, s.Server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-done)
	})
	return s
}

// probed is what a monitor tells of one endpoint.
type probed struct {
	*health.Member
	changes chan health.Change
}

func probeGRPC(t *testing.T, address string, cfg health.Config, p health.GRPC) *probed {
	t.Helper()
	changes := make(chan health.Change, 100)
	cfg.Check = &health.Check{Probe: p, Interval: 500 * time.Millisecond, FastInterval: 50 * time.Millisecond, DownInterval: 50 * time.Millisecond}
	cfg.OnChange = func(c health.Change) { changes <- c }
	m, err := health.NewMonitor(cfg)
	require.NoError(t, err)
	t.Cleanup(m.Close)
	e, err := m.Add(discovery.Endpoint{Address: address})
	require.NoError(t, err)
	return &probed{e, changes}
}

// next returns the next change.
func (p *probed) next(t *testing.T) health.Change {
	t.Helper()
	select {
	case c := <-p.changes:
		return c
	case <-time.After(patience):
		require.Fail(t, "nothing has changed", "%v", p.Status())
		return health.Change{}
	}
}

// Given grpc-go's own health service, then probes follow what it says, of the server and of a service.
func TestGRPC_FollowsTheHealthService(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"", "users.v1.Users"} {
		server := serveGRPC(t)
		server.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
		p := probeGRPC(t, server.address, health.Config{}, health.GRPC{Service: service})
		assert.Equal(t, health.TurnedHealthy, p.next(t).Kind)
		server.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		c := p.next(t)
		assert.Equal(t, health.TurnedUnhealthy, c.Kind)
		assert.ErrorIs(t, c.Err, health.ErrDown)
		server.Resume()
		assert.Equal(t, health.TurnedHealthy, p.next(t).Kind)
		server.Shutdown()
		assert.ErrorIs(t, p.next(t).Err, health.ErrDown)
	}
}

// A service that nobody knows has failed, three times in a row.
func TestGRPC_UnknownService(t *testing.T) {
	t.Parallel()
	p := probeGRPC(t, serveGRPC(t).address, health.Config{}, health.GRPC{Service: "nobody.v1.Knows"})
	c := p.next(t)
	assert.Equal(t, health.TurnedUnhealthy, c.Kind)
	assert.ErrorContains(t, c.Err, `"5": "unknown service"`)
	assert.NotErrorIs(t, c.Err, health.ErrDown)
}

// A server without the health service does not implement it.
func TestGRPC_Unimplemented(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	p := probeGRPC(t, listener.Addr().String(), health.Config{}, health.GRPC{})
	assert.ErrorContains(t, p.next(t).Err, `"12"`)
}

// With TLS, under the name of the target.
func TestGRPC_TLS(t *testing.T) {
	t.Parallel()
	certificate, pool := newCertificate(t, "users.internal")
	server := serveGRPC(t, grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}})))
	for target, kind := range map[string]health.Kind{"https://users.internal": health.TurnedHealthy, "https://other.internal": health.TurnedUnhealthy} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}
		p := probeGRPC(t, server.address, health.Config{Target: target, Transport: transport}, health.GRPC{})
		assert.Equal(t, kind, p.next(t).Kind)
	}
}

// newCertificate returns a certificate for a name, and who trusts it.
func newCertificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

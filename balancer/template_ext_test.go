package balancer_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// Given a template without settings of TLS and dialling, for which net/http speaks
// HTTP/2 by itself, then every endpoint gets a clone that does. The first clone
// changes the template: one that was made after it once offered HTTP/2 and spoke
// HTTP/1.1. The dialer must be net/http's, so this is no test for a bubble.
func TestTemplateServesEveryEndpoint(t *testing.T) {
	t.Parallel()
	trusted := x509.NewCertPool()
	var addresses discovery.Static
	for range 3 {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Proto)
		}))
		server.EnableHTTP2 = true
		server.StartTLS()
		t.Cleanup(server.Close)
		trusted.AddCert(server.Certificate())
		addresses = append(addresses, server.Listener.Addr().String())
	}
	pool, err := balancer.NewPool(balancer.Config{
		Resolver: addresses, Algorithm: balancer.RoundRobin{}, Template: &http.Transport{},
		Wrap: func(rt http.RoundTripper) http.RoundTripper {
			tr := rt.(*http.Transport) // before its first use it may be changed
			if tr.TLSClientConfig == nil {
				tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			tr.TLSClientConfig.RootCAs = trusted
			return tr
		},
	})
	require.NoError(t, err)
	defer pool.Close()
	rt := balancer.NewTransport(pool, nil)
	for range 2 * len(addresses) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/", http.NoBody)
		require.NoError(t, err)
		resp, err := rt.RoundTrip(req)
		if !assert.NoError(t, err) {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		assert.NoError(t, err)
		assert.Equal(t, "HTTP/2.0", string(body))
		resp.Body.Close()
	}
}

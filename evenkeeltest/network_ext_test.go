package evenkeeltest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestFaults(t *testing.T) {
	for _, row := range []struct {
		name  string
		order func(n *evenkeeltest.Network)
		is    error
		takes time.Duration
	}{
		{"refuse", func(n *evenkeeltest.Network) { n.Refuse("a:80") }, syscall.ECONNREFUSED, 0},
		{"unreachable", func(n *evenkeeltest.Network) { n.Unreachable("a:80") }, syscall.ENETUNREACH, 0},
		{"black hole", func(n *evenkeeltest.Network) { n.BlackHole("a:80") }, context.DeadlineExceeded, time.Minute},
		{"heal", func(n *evenkeeltest.Network) { n.Refuse("a:80"); n.Heal("a:80") }, nil, 0},
		{"latency", func(n *evenkeeltest.Network) { n.SetLatency("a:80", time.Second) }, nil, 4 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				network.Serve("a:80", nil)
				tr := network.Transport()
				row.order(network)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, err := tr.RoundTrip(request(ctx, t, http.MethodGet, "http://a:80", ""))
				require.ErrorIs(t, err, row.is)
				if resp != nil {
					readAll(t, resp)
				}
				assert.Equal(t, row.takes, time.Since(start))
				assert.Equal(t, 1, network.Dials("a:80"))
				tr.CloseIdleConnections()
				network.AssertNoConns(t)
			})
		})
	}
}

func TestReset(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		t.getBody()
		t.network.Reset("a:80")
		assert.Zero(t, t.network.OpenConns("a:80"))
		synctest.Wait()
		t.getBody()
		assert.Equal(t, 2, t.network.Dials("a:80"))
	})
}

func TestAssertNoConns(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		t.getBody()
		j := &judge{TB: t}
		t.network.AssertNoConns(j)
		assert.Equal(t, []string{"connections are still open, by address: map[a:80:1]"}, j.errors)
	})
}

func TestCertificates(t *testing.T) {
	for _, row := range []struct {
		name        string
		address     string
		url         string
		certificate string
		serverName  string // what the server is asked for
		trusted     bool
	}{
		{"any name", "10.0.0.5:8443", "https://svc.example/", "", "svc.example", true},
		{"any address", "10.0.0.5:8443", "https://10.0.0.5:8443/", "", "", true},
		{"the right name", "10.0.0.5:8443", "https://svc.example/", "svc.example", "svc.example", true},
		{"another name", "10.0.0.5:8443", "https://svc.example/", "other.example", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				server := network.Start(evenkeeltest.ServerConfig{
					Address: row.address, Protocol: evenkeeltest.HTTPS, Certificate: row.certificate,
				})
				tr := network.Transport()
				tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					return network.DialContext(ctx, "tcp", row.address)
				}
				defer tr.CloseIdleConnections()
				resp, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, row.url, ""))
				if !row.trusted {
					var wrong x509.HostnameError
					require.ErrorAs(t, err, &wrong)
					return
				}
				require.NoError(t, err)
				readAll(t, resp)
				assert.Equal(t, row.serverName, server.Received()[0].ServerName)
			})
		})
	}
}

func TestCertificateOfAnotherNetworkIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, other := evenkeeltest.NewNetwork(t), evenkeeltest.NewNetwork(t)
		network.Start(evenkeeltest.ServerConfig{Address: "a:443", Protocol: evenkeeltest.HTTPS})
		tr := network.Transport()
		tr.TLSClientConfig = other.ClientTLS()
		_, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, "https://a:443", ""))
		var untrusted *tls.CertificateVerificationError
		require.ErrorAs(t, err, &untrusted)
	})
}

// Outside of a bubble everything works the same, in real time.
func TestOutsideOfBubbles(t *testing.T) {
	t.Parallel()
	network := evenkeeltest.NewNetwork(t)
	server := network.Serve("a:80", evenkeeltest.Script(evenkeeltest.OK("1"), evenkeeltest.Hang()))
	client := &http.Client{Transport: network.Transport()}
	resp, err := client.Do(request(t.Context(), t, http.MethodGet, "http://a", ""))
	require.NoError(t, err)
	assert.Equal(t, "1", readAll(t, resp))

	ended := make(chan error)
	req := request(t.Context(), t, http.MethodPost, "http://a", "not sent again by net/http")
	go func() {
		_, err := client.Do(req)
		ended <- err
	}()
	assert.Eventually(t, func() bool { return server.ActiveRequests() == 1 }, 10*time.Second, time.Millisecond)
	network.Close()
	network.Close()
	require.ErrorIs(t, <-ended, syscall.ECONNRESET)
	assert.Zero(t, server.ActiveRequests(), "Close waits for the handlers")
}

func TestManyServersOfOneNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		a, b := network.Serve("a:80", nil), network.Serve("b:80", nil)
		a.Kill()
		tr := network.Transport()
		defer tr.CloseIdleConnections()
		resp, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, "http://b:80", ""))
		require.NoError(t, err)
		assert.Equal(t, "b:80", readAll(t, resp))
		a.AssertRequests(t, 0)
		b.AssertRequests(t, 1)
	})
}

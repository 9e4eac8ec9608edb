package evenkeeltest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

// rig is a test with a server at "a:80" and a plain client for its protocol.
type rig struct {
	*testing.T
	network *evenkeeltest.Network
	server  *evenkeeltest.Server
	tr      *http.Transport
	url     string
	proto   string // what requests and responses call the protocol
}

func (r *rig) http2() bool { return r.proto == "HTTP/2.0" }

// everyProtocol runs f once for each protocol, each time in a bubble that must
// be left with no connection open.
func everyProtocol(t *testing.T, handler func() http.Handler, f func(t *rig)) {
	t.Helper()
	for _, row := range []struct {
		name     string
		protocol evenkeeltest.Protocol
		url      string
		proto    string
	}{
		{"HTTP/1.1", evenkeeltest.HTTP1, "http://a:80/", "HTTP/1.1"},
		{"HTTP/1.1 over TLS", evenkeeltest.HTTPS1, "https://a:80/", "HTTP/1.1"},
		{"HTTP/2 over TLS", evenkeeltest.HTTPS, "https://a:80/", "HTTP/2.0"},
		{"h2c", evenkeeltest.H2C, "http://a:80/", "HTTP/2.0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				config := evenkeeltest.ServerConfig{Address: "a:80", Protocol: row.protocol, Handler: handler()}
				r := &rig{T: t, network: network, server: network.Start(config), url: row.url, proto: row.proto}
				r.tr = network.Transport()
				if row.protocol == evenkeeltest.H2C {
					r.tr = network.TransportH2C()
				}
				f(r)
				r.tr.CloseIdleConnections()
				synctest.Wait()
				network.AssertNoConns(t)
				assert.Zero(t, r.server.ActiveRequests())
			})
		})
	}
}

// steps returns a maker of scripts; without any steps, of the default handler.
func steps(steps ...http.Handler) func() http.Handler {
	return func() http.Handler {
		if len(steps) == 0 {
			return nil
		}
		return evenkeeltest.Script(steps...)
	}
}

func request(ctx context.Context, tb testing.TB, method, url, body string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(tb, err)
	return req
}

func (r *rig) get() (*http.Response, error) {
	r.Helper()
	return r.tr.RoundTrip(request(r.Context(), r, http.MethodGet, r.url, ""))
}

// getBody gets the server's answer and reads it to the end.
func (r *rig) getBody() string {
	r.Helper()
	resp, err := r.get()
	require.NoError(r, err)
	body := readAll(r, resp)
	synctest.Wait() // net/http may be about to make the connection available
	return body
}

func readAll(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	body, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	require.NoError(tb, resp.Body.Close())
	return string(body)
}

// judge is a testing.TB that keeps what is reported to it.
type judge struct {
	testing.TB
	errors []string
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, args ...any) {
	j.errors = append(j.errors, fmt.Sprintf(format, args...))
}

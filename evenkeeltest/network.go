package evenkeeltest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

// Network is a network inside the process, with the servers on it. Addresses
// are names: "users-1:80" and "10.0.0.1:8080" are whatever is served there.
// Make one with [NewNetwork].
type Network struct {
	tb  testing.TB
	mem *memnet.Network
	ca  func() *authority // made by the first call: most tests need no TLS

	mu      sync.Mutex // guards what follows
	servers []*Server
}

// NewNetwork returns an empty network, which is closed when the test ends.
// Inside a testing/synctest bubble it must be made with the bubble's own tb.
func NewNetwork(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{tb: tb, mem: memnet.New()}
	n.ca = sync.OnceValue(func() *authority { return newAuthority(tb) })
	tb.Cleanup(n.Close)
	return n
}

// Close resets all connections, kills all servers, and waits for their handlers
// to end. The test's cleanup calls it too; a second call does nothing.
func (n *Network) Close() {
	n.mem.Close()
	n.mu.Lock()
	servers := slices.Clone(n.servers)
	n.mu.Unlock()
	for _, s := range servers {
		s.Kill()
		s.journal.waitIdle()
	}
}

// DialContext connects to what is served at an address. It has the form of
// [http.Transport.DialContext] and the errors of a [net.Dialer], but no timeout
// of its own: a dial into a black hole ends with its context.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return n.mem.DialContext(ctx, network, address)
}

// Transport returns a new transport on this network, with no timeouts set. It
// speaks HTTP/1.1 to http URLs and, to https URLs, what the server prefers out
// of HTTP/2 and HTTP/1.1. It trusts the certificates of this network's servers.
// The caller closes its idle connections.
func (n *Network) Transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext:     n.DialContext,
		TLSClientConfig: n.ClientTLS(),
		Protocols:       protocols,
	}
}

// TransportH2C is [Network.Transport] for servers of the protocol [H2C]: it
// speaks HTTP/2 to http URLs, without asking first.
func (n *Network) TransportH2C() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{DialContext: n.DialContext, Protocols: protocols}
}

// ClientTLS returns a new configuration that trusts the certificates of this
// network's servers, and no others.
func (n *Network) ClientTLS() *tls.Config {
	return &tls.Config{RootCAs: n.ca().pool, MinVersion: tls.VersionTLS12}
}

// Refuse makes dials to the address fail with ECONNREFUSED. Connections that
// exist are left alone, and so is the server.
func (n *Network) Refuse(address string) { n.mem.Refuse(address) }

// Unreachable makes dials to the address fail with ENETUNREACH. Connections that
// exist are left alone, and so is the server.
func (n *Network) Unreachable(address string) { n.mem.Unreachable(address) }

// BlackHole makes the address silent, whether or not it is served: dials hang
// until their context ends, and on connections that exist nothing arrives any
// more, in both directions.
func (n *Network) BlackHole(address string) { n.mem.BlackHole(address) }

// Heal ends what [Network.Refuse], [Network.Unreachable] or [Network.BlackHole]
// began. What was sent into a black hole arrives now, as TCP sends it again.
func (n *Network) Heal(address string) { n.mem.Heal(address) }

// Reset resets all connections to the address: both ends fail with ECONNRESET
// at once.
func (n *Network) Reset(address string) { n.mem.ResetConnections(address) }

// SetLatency sets how long a byte travels to and from the address, one way. A
// dial takes twice as long.
func (n *Network) SetLatency(address string, oneWay time.Duration) {
	n.mem.SetLatency(address, oneWay)
}

// Dials returns how often the address was dialled, with or without success.
func (n *Network) Dials(address string) int { return n.mem.Dials(address) }

// OpenConns returns how many connections to the address clients hold open.
func (n *Network) OpenConns(address string) int { return n.mem.OpenConns(address) }

// AssertNoConns fails the test if a client holds a connection open, to any
// address. In a bubble call synctest.Wait before, so that whoever is about to
// close one has done it.
func (n *Network) AssertNoConns(tb testing.TB) {
	tb.Helper()
	if open := n.mem.AllOpenConns(); len(open) > 0 {
		tb.Errorf("connections are still open, by address: %v", open)
	}
}

package memnet_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

func TestDialFailures(t *testing.T) {
	for _, row := range []struct {
		name    string
		order   func(*memnet.Network)
		op      string
		is      error
		timeout bool
		takes   time.Duration
	}{
		{"nobody listens", func(n *memnet.Network) { n.Heal(address) }, "dial", syscall.ECONNREFUSED, false, 0},
		{"refused", func(n *memnet.Network) { n.Refuse(address) }, "dial", syscall.ECONNREFUSED, false, 0},
		{"no route", func(n *memnet.Network) { n.Unreachable(address) }, "dial", syscall.ENETUNREACH, false, 0},
		{"black hole", func(n *memnet.Network) { n.BlackHole(address) }, "dial", context.DeadlineExceeded, true, time.Minute},
		{"refused from afar", func(n *memnet.Network) { n.SetLatency(address, time.Second) }, "dial", syscall.ECONNREFUSED, false, 2 * time.Second},
		{"too far", func(n *memnet.Network) { n.SetLatency(address, time.Hour) }, "dial", context.DeadlineExceeded, true, time.Minute},
		{"network closed", (*memnet.Network).Close, "dial", net.ErrClosed, false, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				if row.name != "nobody listens" && row.name != "refused from afar" {
					listen(t, n, address)
				}
				row.order(n)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := dial(ctx, n)
				opError(t, err, row.op, row.is)
				assert.Contains(t, err.Error(), "dial tcp users:80: ")
				var netErr net.Error
				require.ErrorAs(t, err, &netErr)
				assert.Equal(t, row.timeout, netErr.Timeout())
				assert.Equal(t, row.takes, time.Since(start))
				assert.Equal(t, 1, n.Dials(address))
				assert.Zero(t, n.OpenConns(address))
			})
		})
	}
}

func TestDialCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.BlackHole(address)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := dial(ctx, n)
		opError(t, err, "dial", context.Canceled)
	})
}

func TestDialUnknownNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		_, err := n.DialContext(t.Context(), "udp", address)
		var unknown net.UnknownNetworkError
		require.ErrorAs(t, err, &unknown)
	})
}

func TestHealLetsHangingDialsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		listen(t, n, address)
		n.BlackHole(address)
		n.SetLatency(address, time.Second)
		start := time.Now()
		time.AfterFunc(time.Minute, func() { n.Heal(address) })
		conn, err := dial(t.Context(), n)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		assert.Equal(t, time.Minute+2*time.Second, time.Since(start))
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		queued, err := dial(t.Context(), n)
		require.NoError(t, err)
		ln := listen(t, n, "other:80")
		n.BlackHole("hole:80")
		errs := make(chan error, 5)
		go func() { errs <- read(client) }()
		go func() { errs <- read(server) }()
		go func() { errs <- read(queued) }()
		go func() {
			_, err := n.DialContext(t.Context(), "tcp", "hole:80")
			errs <- err
		}()
		go func() { errs <- second(ln.Accept()) }()
		synctest.Wait()
		n.Close()
		n.Close() // does nothing
		for range 5 {
			var oe *net.OpError
			require.ErrorAs(t, <-errs, &oe)
		}
		assert.Empty(t, n.AllOpenConns())
		_, err = n.Listen(address)
		opError(t, err, "listen", net.ErrClosed)
	})
}

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ln := listen(t, n, address)
		assert.Equal(t, address, ln.Addr().String())
		_, err := n.Listen(address)
		opError(t, err, "listen", syscall.EADDRINUSE)

		accepted, err := dial(t.Context(), n)
		require.NoError(t, err)
		require.NoError(t, second(ln.Accept()))
		queued, err := dial(t.Context(), n)
		require.NoError(t, err)

		require.NoError(t, ln.Close())
		opError(t, ln.Close(), "close", net.ErrClosed)
		opError(t, second(ln.Accept()), "accept", net.ErrClosed)
		opError(t, read(queued), "read", syscall.ECONNRESET)
		write(t, accepted, "lives on")
		_, err = dial(t.Context(), n)
		opError(t, err, "dial", syscall.ECONNREFUSED)

		listen(t, n, address)
		_, err = dial(t.Context(), n)
		require.NoError(t, err)
	})
}

func TestUnixSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ln := listen(t, n, "unix:/run/users.sock")
		conn, err := n.DialContext(t.Context(), "unix", "/run/users.sock")
		require.NoError(t, err)
		assert.Equal(t, "unix", conn.RemoteAddr().Network())
		assert.Equal(t, "/run/users.sock", conn.RemoteAddr().String())
		assert.Equal(t, "/run/users.sock", ln.Addr().String())
		assert.Equal(t, map[string]int{"unix:/run/users.sock": 1}, n.AllOpenConns())
		_, err = n.DialContext(t.Context(), "tcp", "/run/users.sock")
		opError(t, err, "dial", syscall.ECONNREFUSED)
	})
}

func TestClientAddressesDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		listen(t, n, address)
		seen := make(map[string]bool)
		for range 20_000 { // more than there are ports of one host
			conn, err := dial(t.Context(), n)
			require.NoError(t, err)
			require.False(t, seen[conn.LocalAddr().String()])
			seen[conn.LocalAddr().String()] = true
			_, _, err = net.SplitHostPort(conn.LocalAddr().String())
			require.NoError(t, err)
			conn.(*memnet.Conn).Reset()
		}
		assert.Equal(t, 20_000, n.Dials(address))
		assert.Zero(t, n.OpenConns(address))
	})
}

func second[T any](_ T, err error) error { return err }

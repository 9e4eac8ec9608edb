package memnet_test

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

func TestBlackHoleIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		write(t, server, "before")
		n.BlackHole(address)
		expect(t, client, "before") // it had arrived

		write(t, client, "up")
		write(t, server, "down")
		require.NoError(t, server.Close())
		require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Hour)))
		opError(t, read(client), "read", os.ErrDeadlineExceeded)
		write(t, client, " again") // nothing tells that the other end has closed

		start := time.Now()
		require.NoError(t, client.SetReadDeadline(time.Time{}))
		time.AfterFunc(time.Second, func() { n.Heal(address) })
		expect(t, client, "down")
		assert.Equal(t, io.EOF, read(client))
		assert.Equal(t, time.Second, time.Since(start))
		opError(t, second(client.Write([]byte("x"))), "write", syscall.EPIPE)
	})
}

func TestBlackHoleTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.SetLatency(address, time.Second)
		write(t, client, "up")
		write(t, server, "down")
		time.Sleep(time.Second)
		n.BlackHole(address)
		expect(t, server, "up")
		expect(t, client, "down")
	})
}

func TestHealingTakesTheTripAgain(t *testing.T) {
	for _, row := range []struct {
		name string
		ends func(client, server *memnet.Conn) (from, to *memnet.Conn)
	}{
		{"up", func(c, s *memnet.Conn) (from, to *memnet.Conn) { return c, s }},
		{"down", func(c, s *memnet.Conn) (from, to *memnet.Conn) { return s, c }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				from, to := row.ends(connect(t, n))
				n.SetLatency(address, time.Second)
				n.BlackHole(address)
				write(t, from, "x")
				time.Sleep(time.Hour)
				n.Heal(address)
				start := time.Now()
				expect(t, to, "x")
				assert.Equal(t, time.Second, time.Since(start))
			})
		})
	}
}

func TestBlackHoleKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.SetLatency(address, time.Second)
		write(t, client, "1")
		n.BlackHole(address)
		write(t, client, "2")
		n.Heal(address)
		write(t, client, "3")
		start := time.Now()
		expect(t, server, "123")
		assert.Equal(t, time.Second, time.Since(start))
	})
}

func TestBlackHoleFillsTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.BlackHole(address)
		write(t, client, strings.Repeat("x", memnet.BufferSize))
		done := make(chan struct{})
		go func() {
			assert.NoError(t, second(io.WriteString(client, "tail")))
			close(done)
		}()
		time.Sleep(time.Hour)
		select {
		case <-done:
			assert.Fail(t, "more was swallowed than the buffer holds")
		default:
		}
		n.Heal(address)
		expect(t, server, strings.Repeat("x", memnet.BufferSize)+"tail")
		<-done
	})
}

func TestResetReachesIntoABlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.BlackHole(address)
		server.Reset()
		opError(t, read(client), "read", syscall.ECONNRESET)
	})
}

func TestOtherFaultsLeaveConnectionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.Refuse(address)
		n.Unreachable(address)
		n.BlackHole("elsewhere:80")
		write(t, client, "x")
		expect(t, server, "x")
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.SetLatency(address, time.Second)
		start := time.Now()
		client, server := connect(t, n)
		assert.Equal(t, 2*time.Second, time.Since(start), "a round trip to connect")

		write(t, client, "a")
		time.Sleep(500 * time.Millisecond)
		write(t, client, "b")
		require.NoError(t, client.Close())
		n.SetLatency(address, 0) // must not overtake
		expect(t, server, "a")
		assert.Equal(t, 3*time.Second, time.Since(start))
		expect(t, server, "b")
		assert.Equal(t, io.EOF, read(server))
		assert.Equal(t, 3500*time.Millisecond, time.Since(start))
	})
}

func TestLatencyLowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.SetLatency(address, time.Second)
		start := time.Now()
		write(t, client, "slow ")
		n.SetLatency(address, 0)
		write(t, client, "fast")
		expect(t, server, "slow fast")
		assert.Equal(t, time.Second, time.Since(start))
	})
}

func TestLatencyAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.SetLatency(address, time.Second)
		write(t, client, "x")
		require.NoError(t, server.SetReadDeadline(time.Now().Add(time.Second-1)))
		opError(t, read(server), "read", os.ErrDeadlineExceeded)
		require.NoError(t, server.SetReadDeadline(time.Time{}))
		expect(t, server, "x")
	})
}

// A writer that waits for space must hear of the close although nobody reads.
func TestLatencyOfAClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		n.SetLatency(address, time.Second)
		start := time.Now()
		errs := make(chan error)
		go func() { errs <- second(client.Write(make([]byte, memnet.BufferSize+1))) }()
		synctest.Wait()
		require.NoError(t, server.Close())
		opError(t, <-errs, "write", syscall.EPIPE)
		assert.Equal(t, time.Second, time.Since(start))
	})
}

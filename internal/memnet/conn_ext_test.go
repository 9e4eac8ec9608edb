package memnet_test

import (
	"io"
	"net"
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

func TestBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		write(t, client, "ping") // needs no reader
		write(t, server, "pong")
		expect(t, server, "pi")
		expect(t, server, "ng")
		expect(t, client, "pong")
		assert.Equal(t, client.LocalAddr(), server.RemoteAddr())
		assert.Equal(t, server.LocalAddr(), client.RemoteAddr())
		k, err := client.Read(nil)
		assert.Zero(t, k)
		require.NoError(t, err)
	})
}

func TestWriteWaitsForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		text := strings.Repeat("x", memnet.BufferSize) + "tail"
		written := make(chan struct{})
		go func() {
			assert.NoError(t, second(io.WriteString(client, text)))
			close(written)
		}()
		synctest.Wait()
		select {
		case <-written:
			assert.Fail(t, "the write did not wait")
		default:
		}
		expect(t, server, text)
		<-written
	})
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		const size = memnet.BufferSize + 1
		for _, letter := range []string{"a", "b"} {
			go func() { assert.NoError(t, second(io.WriteString(client, strings.Repeat(letter, size)))) }()
		}
		all := make([]byte, 2*size)
		_, err := io.ReadFull(server, all)
		require.NoError(t, err)
		first, other := string(all[:1]), "b"
		if first == other {
			other = "a"
		}
		assert.Equal(t, strings.Repeat(first, size), string(all[:size]))
		assert.Equal(t, strings.Repeat(other, size), string(all[size:]))
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		write(t, server, "last words")
		assert.Equal(t, 1, n.OpenConns(address))
		require.NoError(t, server.Close())
		opError(t, server.Close(), "close", net.ErrClosed)
		opError(t, read(server), "read", net.ErrClosed)
		opError(t, second(server.Write([]byte("x"))), "write", net.ErrClosed)
		opError(t, server.SetDeadline(time.Now()), "set", net.ErrClosed)

		opError(t, second(client.Write([]byte("x"))), "write", syscall.EPIPE)
		expect(t, client, "last words")
		assert.Equal(t, io.EOF, read(client))
		assert.Equal(t, 1, n.OpenConns(address), "the client still holds it")
		require.NoError(t, client.Close())
		assert.Zero(t, n.OpenConns(address))
	})
}

func TestCloseWakesReaderAndWriter(t *testing.T) {
	for _, row := range []struct {
		name        string
		end         func(client, server *memnet.Conn)
		read, write error
	}{
		{"own end", func(c, _ *memnet.Conn) { _ = c.Close() }, net.ErrClosed, net.ErrClosed},
		{"other end", func(_, s *memnet.Conn) { _ = s.Close() }, io.EOF, syscall.EPIPE},
		{"reset", func(_, s *memnet.Conn) { s.Reset() }, syscall.ECONNRESET, syscall.ECONNRESET},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				client, server := connect(t, n)
				reads, writes := make(chan error), make(chan error)
				go func() { reads <- read(client) }()
				go func() { writes <- second(client.Write(make([]byte, memnet.BufferSize+1))) }()
				synctest.Wait()
				row.end(client, server)
				require.ErrorIs(t, <-reads, row.read)
				opError(t, <-writes, "write", row.write)
			})
		})
	}
}

func TestCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		write(t, client, "request")
		require.NoError(t, client.CloseWrite())
		require.NoError(t, client.CloseWrite())
		opError(t, second(client.Write([]byte("x"))), "write", syscall.EPIPE)
		request, err := io.ReadAll(server)
		require.NoError(t, err)
		assert.Equal(t, "request", string(request))
		write(t, server, "answer")
		expect(t, client, "answer")
		require.NoError(t, client.Close())
		opError(t, client.CloseWrite(), "close", net.ErrClosed)
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		write(t, client, "lost")
		write(t, server, "lost")
		n.ResetConnections(address)
		for _, c := range []net.Conn{client, server} {
			opError(t, read(c), "read", syscall.ECONNRESET)
			opError(t, second(c.Write([]byte("x"))), "write", syscall.ECONNRESET)
		}
		assert.Zero(t, n.OpenConns(address))
		require.NoError(t, client.Close())
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, server := connect(t, n)
		start := time.Now()
		require.NoError(t, client.SetDeadline(start.Add(time.Second)))
		err := read(client)
		opError(t, err, "read", os.ErrDeadlineExceeded)
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		assert.True(t, netErr.Timeout())
		assert.Equal(t, time.Second, time.Since(start))
		opError(t, second(client.Write([]byte("x"))), "write", os.ErrDeadlineExceeded)

		require.NoError(t, client.SetReadDeadline(time.Time{}))
		require.NoError(t, client.SetWriteDeadline(start.Add(time.Minute)))
		k, err := client.Write(make([]byte, memnet.BufferSize+1))
		opError(t, err, "write", os.ErrDeadlineExceeded)
		assert.Equal(t, memnet.BufferSize, k, "what fits was sent")
		assert.Equal(t, time.Minute, time.Since(start))

		write(t, server, "x")
		expect(t, client, "x")
	})
}

func TestDeadlineMovesUnderARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		client, _ := connect(t, n)
		start := time.Now()
		require.NoError(t, client.SetReadDeadline(start.Add(time.Hour)))
		time.AfterFunc(time.Second, func() { _ = client.SetReadDeadline(time.Now().Add(time.Second)) })
		opError(t, read(client), "read", os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(start))
	})
}

package memnet_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

const address = "users:80"

// newNetwork returns a network that is closed when the bubble of t ends.
func newNetwork(t *testing.T) *memnet.Network {
	t.Helper()
	n := memnet.New()
	t.Cleanup(n.Close)
	return n
}

func listen(t *testing.T, n *memnet.Network, address string) net.Listener {
	t.Helper()
	ln, err := n.Listen(address)
	require.NoError(t, err)
	return ln
}

func dial(ctx context.Context, n *memnet.Network) (net.Conn, error) {
	return n.DialContext(ctx, "tcp", address)
}

// connect returns both ends of a new connection.
func connect(t *testing.T, n *memnet.Network) (client, server *memnet.Conn) {
	t.Helper()
	ln := listen(t, n, address)
	c, err := dial(t.Context(), n)
	require.NoError(t, err)
	s, err := ln.Accept()
	require.NoError(t, err)
	return c.(*memnet.Conn), s.(*memnet.Conn)
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	n, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.Equal(t, len(text), n)
}

func expect(t *testing.T, r io.Reader, text string) {
	t.Helper()
	p := make([]byte, len(text))
	_, err := io.ReadFull(r, p)
	require.NoError(t, err)
	assert.Equal(t, text, string(p))
}

// read returns the error of a Read of one byte.
func read(r io.Reader) error {
	_, err := r.Read(make([]byte, 1))
	return err
}

// opError asserts what every error of this network but EOF has to be.
func opError(t *testing.T, err error, op string, is error) {
	t.Helper()
	var oe *net.OpError
	require.ErrorAs(t, err, &oe)
	assert.Equal(t, op, oe.Op)
	assert.Equal(t, "tcp", oe.Net)
	require.ErrorIs(t, err, is)
}

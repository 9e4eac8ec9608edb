package memnet

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pair returns both ends of a new connection.
func pair(t *testing.T, n *Network) (client, server *Conn) {
	t.Helper()
	ln, err := n.Listen("users:80")
	require.NoError(t, err)
	c, err := n.DialContext(t.Context(), "tcp", "users:80")
	require.NoError(t, err)
	s, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return c.(*Conn), s.(*Conn)
}

func TestLinksAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		defer n.Close()
		links := n.placeLocked(parseAddr("users:80")).links

		client, server := pair(t, n)
		require.NoError(t, client.Close())
		assert.Len(t, links, 1, "the other end is open")
		require.NoError(t, server.Close())
		assert.Empty(t, links)

		client, _ = pair(t, n)
		client.Reset()
		assert.Empty(t, links)
	})
}

// A Write that waits for space must not be cut in two by another one.
func TestWriteWaitsForTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		defer n.Close()
		client, _ := pair(t, n)
		l := client.link
		l.mu.Lock()
		client.out.writing = true
		l.mu.Unlock()
		go func() {
			_, err := client.Write([]byte("later"))
			assert.NoError(t, err)
		}()
		synctest.Wait()
		assert.Zero(t, client.out.size)
		l.mu.Lock()
		client.out.writing = false
		l.mu.Unlock()
		l.wake()
		synctest.Wait()
		assert.Equal(t, 5, client.out.size)
	})
}

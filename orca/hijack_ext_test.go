package orca_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/orca"
)

// Packages for WebSockets ask for an [http.Hijacker], not for what Unwrap finds.
func TestHandler_IsAHijacker(t *testing.T) {
	ended := make(chan struct{})
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		hijacker, ok := w.(http.Hijacker)
		if !assert.True(t, ok) {
			return
		}
		conn, buf, err := hijacker.Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		_, err = buf.WriteString("hello")
		assert.NoError(t, err)
		assert.NoError(t, buf.Flush())
		_, _, err = hijacker.Hijack()
		assert.ErrorIs(t, err, http.ErrHijacked)
	}, orca.Config{})
	srv := serve(t, h, false)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	<-ended
	assert.True(t, bytes.Equal(all, []byte("hello")), "%q", all)
}

// On HTTP/2 there is no connection to take over. The handler can still answer.
func TestHandler_HijackThatIsNotSupported(t *testing.T) {
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		if hijacker, ok := w.(http.Hijacker); assert.True(t, ok) {
			conn, buf, err := hijacker.Hijack()
			assert.ErrorIs(t, err, http.ErrNotSupported)
			assert.Nil(t, conn)
			assert.Nil(t, buf)
		}
		w.WriteHeader(http.StatusUpgradeRequired)
	}, orca.Config{})
	resp, _ := fetch(t, serve(t, h, true), http.MethodGet, "/")
	assert.Equal(t, 2, resp.ProtoMajor)
	assert.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
	assert.True(t, parse(t, resp.Header).Has(orca.InFlight), "it is a response like any other")
}

package evenkeel_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/memnet"
)

// rawHTTP2 is a server of HTTP/2 without TLS that can be made to end a stream in
// ways in which the one of net/http cannot. It knows just enough of RFC 9113 for
// that: it decodes no headers.
type rawHTTP2 struct {
	network *memnet.Network
	// steps answer one request after the other, the last one again and
	// again. A request is complete when its answer is made.
	steps []func(stream uint32) []byte

	// most bounds the connections, so that a test of endless ones has an end.
	// Zero means no bound.
	most int

	mu       sync.Mutex // guards what follows
	requests int
	dials    int
}

const (
	frameData      = 0x0
	frameHeaders   = 0x1
	frameRSTStream = 0x3
	frameSettings  = 0x4
	framePing      = 0x6
	frameGoAway    = 0x7

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4

	codeProtocolError = 0x1
	codeRefusedStream = 0x7
	codeCancel        = 0x8
)

const rawAddress = "raw:80"

// serveRaw starts a server to which every dial of the stack goes.
func serveRaw(t *testing.T, steps ...func(stream uint32) []byte) *rawHTTP2 {
	t.Helper()
	r := &rawHTTP2{network: memnet.New(), steps: steps}
	listener, err := r.network.Listen(rawAddress)
	require.NoError(t, err)
	t.Cleanup(r.network.Close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(conn)
		}
	}()
	return r
}

// dial is for config.dial.
func (r *rawHTTP2) dial(dialFunc) dialFunc {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		r.mu.Lock()
		r.dials++
		tooMany := r.most > 0 && r.dials > r.most
		r.mu.Unlock()
		if tooMany {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: net.ErrClosed}
		}
		return r.network.DialContext(ctx, "tcp", rawAddress)
	}
}

func (r *rawHTTP2) serve(conn net.Conn) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	_, _ = conn.Write(frame(frameSettings, 0, 0))
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case (kind == frameSettings || kind == framePing) && flags&flagAck == 0:
			if kind == frameSettings {
				payload = nil
			}
			_, _ = conn.Write(frame(kind, flagAck, 0, payload...))
		case (kind == frameHeaders || kind == frameData) && flags&flagEndStream != 0:
			_, _ = conn.Write(r.next()(stream))
		}
	}
}

func (r *rawHTTP2) next() func(uint32) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	return r.steps[min(r.requests, len(r.steps))-1]
}

// received returns how many requests have come to their end.
func (r *rawHTTP2) received() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	n := len(payload)
	f := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(f, stream), payload...)
}

// answer200 answers with an empty body. 0x88 is the field ":status: 200" in HPACK.
func answer200(stream uint32) []byte {
	return frame(frameHeaders, flagEndHeaders|flagEndStream, stream, 0x88)
}

// resetStream ends the stream by RST_STREAM.
func resetStream(code uint32) func(uint32) []byte {
	return func(stream uint32) []byte {
		return frame(frameRSTStream, 0, stream, binary.BigEndian.AppendUint32(nil, code)...)
	}
}

// goAway says that no stream of the connection was or will be processed.
func goAway(uint32) []byte {
	return frame(frameGoAway, 0, 0, make([]byte, 8)...)
}

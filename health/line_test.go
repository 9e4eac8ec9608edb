package health

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

func TestLine_Address_H05(t *testing.T) {
	for _, row := range []struct {
		endpoint string
		port     int
		network  string
		address  string
	}{
		{"a:80", 0, "tcp", "a:80"},
		{"a:80", 9000, "tcp", "a:9000"},
		{"10.0.0.1:80", 65535, "tcp", "10.0.0.1:65535"},
		{"[::1]:80", 0, "tcp", "[::1]:80"},
		{"[::1]:80", 9000, "tcp", "[::1]:9000"},
		{"[fe80::1%eth0]:80", 9000, "tcp", "[fe80::1%eth0]:9000"},
		{"unix:/run/a.sock", 0, "unix", "/run/a.sock"},
		{"unix:/run/a.sock:80", 9000, "unix", "/run/a.sock:80"},
	} {
		l := &line{endpoint: discovery.Endpoint{Address: row.endpoint}}
		network, address := l.address(row.port)
		assert.Equal(t, row.network+" "+row.address, network+" "+address)
	}
}

// The transports of probes are as the template, except for what is theirs.
func TestLines_Transport_H05(t *testing.T) {
	template := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConns: 3, MaxConnsPerHost: 1, MaxIdleConnsPerHost: 7, IdleConnTimeout: time.Second,
		ResponseHeaderTimeout: time.Minute, TLSHandshakeTimeout: time.Second, DisableKeepAlives: true,
	}
	ls := newLines(nil, node.Ways{Template: template}, clock.System)
	for _, tr := range []*http.Transport{ls.web, ls.h2} {
		assert.Nil(t, tr.Proxy)
		assert.True(t, tr.DisableCompression)
		assert.Zero(t, tr.MaxConnsPerHost)
		assert.Zero(t, tr.MaxIdleConns)
		assert.Equal(t, 1, tr.MaxIdleConnsPerHost)
		assert.Zero(t, tr.IdleConnTimeout)
		assert.Positive(t, tr.MaxResponseHeaderBytes)
		assert.LessOrEqual(t, tr.MaxResponseHeaderBytes, int64(64<<10))
		assert.Equal(t, time.Second, tr.TLSHandshakeTimeout)
	}
	assert.Equal(t, 1, template.MaxConnsPerHost, "the template is left alone")
	assert.NotNil(t, template.Proxy)
}

// A connection that is made after the endpoint has left is closed, and refused.
func TestLine_CloseBeforeTheConnection_H06(t *testing.T) {
	l := &line{}
	l.close()
	here, there := net.Pipe()
	_, err := l.track(t.Context(), here)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = there.Read(make([]byte, 1))
	assert.Error(t, err, "it is closed")
}

// Connections that are closed are forgotten.
func TestLine_ForgetsConnections_H06(t *testing.T) {
	l := &line{}
	for range 10 {
		here, _ := net.Pipe()
		nc, err := l.track(t.Context(), here)
		require.NoError(t, err)
		assert.Len(t, l.open, 1)
		require.NoError(t, nc.Close())
		assert.Empty(t, l.open)
	}
}

// nosy is an error of the user's that looks whether a lock is held while it is looked at.
type nosy struct {
	m     *Monitor
	under *bool
}

func (nosy) Error() string { return "nosy" }

func (n nosy) Is(error) bool {
	if !n.m.mu.TryLock() {
		*n.under = true
		return false
	}
	n.m.mu.Unlock()
	return false
}

// The errors of a Func are the user's own, methods included: they are called under no lock, so that
// they may use the monitor.
func TestFunc_ErrorsAreLookedAtUnderNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *Monitor
		under := false
		check := Check{Probe: Func(func(context.Context, discovery.Endpoint) error {
			time.Sleep(time.Millisecond) // nobody else is at work then
			return nosy{m, &under}
		})}
		m, err := NewMonitor(Config{Check: &check})
		require.NoError(t, err)
		_, err = m.Add(discovery.Endpoint{Address: "a:80"})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		m.Close()
		assert.False(t, under)
	})
}

// broken is an error whose pointer is nil, the most common mistake with errors of one's own.
type broken struct{ cause error }

func (b *broken) Error() string { return "broken" }

func (b *broken) Unwrap() error { return b.cause }

// A Func that returns a nil pointer as an error has failed; nobody else may suffer from it.
func TestFunc_TypedNilError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMonitor(Config{Check: &Check{Fall: 1, Probe: Func(func(context.Context, discovery.Endpoint) error {
			var none *broken
			return none
		})}})
		require.NoError(t, err)
		defer m.Close()
		e, err := m.Add(discovery.Endpoint{Address: "a:80"})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		assert.Equal(t, Unhealthy, e.Status().State)
		var panicked *PanicError
		assert.ErrorAs(t, e.Status().Err, &panicked)
	})
}

// What the user has made is closed under no lock.
type nosyTransport struct {
	http.RoundTripper
	closed func()
}

func (n nosyTransport) CloseIdleConnections() { n.closed() }

func TestRemove_ClosesTransportsUnderNoLock_H06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMonitor(Config{Check: &Check{}})
		require.NoError(t, err)
		defer m.Close()
		calls, under := 0, false
		require.NoError(t, m.Attach(node.Ways{Template: &http.Transport{}, Custom: func(discovery.Endpoint) http.RoundTripper { return nil }}))
		w := m.watch(node.New(discovery.Endpoint{Address: "a:80"}, 1, noConnections{}, nil))
		w.line.own = nosyTransport{closed: func() {
			calls++
			if !m.mu.TryLock() {
				under = true
				return
			}
			m.mu.Unlock()
		}}
		synctest.Wait() // nobody else is at work
		w.Gone()
		assert.Equal(t, 1, calls)
		assert.False(t, under)
	})
}

// A timer that could not be stopped any more does nothing: neither one that was replaced, nor that of an
// endpoint that has left or of a monitor that is closed.
func TestEnqueue_TooLate_H06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		check := Check{Probe: Func(func(context.Context, discovery.Endpoint) error { calls++; return nil }), Interval: time.Hour}
		m, err := NewMonitor(Config{Check: &check})
		require.NoError(t, err)
		w := m.watch(node.New(discovery.Endpoint{Address: "a:80"}, 1, noConnections{}, nil))
		m.enqueue(w, w.timers-1)
		synctest.Wait()
		assert.Zero(t, calls, "it was replaced")
		m.enqueue(w, w.timers)
		synctest.Wait()
		assert.Equal(t, 1, calls)
		w.Gone()
		m.enqueue(w, w.timers)
		synctest.Wait()
		assert.Equal(t, 1, calls, "it has left")
		w = m.watch(node.New(discovery.Endpoint{Address: "a:80"}, 2, noConnections{}, nil))
		m.Close()
		m.enqueue(w, w.timers)
		assert.Empty(t, m.queue, "it is closed")
	})
}

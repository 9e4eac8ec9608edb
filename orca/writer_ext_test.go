package orca_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/orca"
)

// Whatever the handler does first, the report is in the header, once.
func TestHandler_EveryWayToWrite(t *testing.T) {
	for _, row := range []struct {
		name   string
		handle http.HandlerFunc
		status int
		body   string
		failed bool
	}{
		{"nothing", func(http.ResponseWriter, *http.Request) {}, 200, "", false},
		{"WriteHeader", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }, 201, "", false},
		{"no content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 204, "", false},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }, 503, "down\n", true},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, 500, "", true},
		{"499", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(499) }, 499, "", false},
		{"Write", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("a"))
			_, _ = w.Write([]byte("b"))
		}, 200, "ab", false},
		{"Write of nothing", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) }, 200, "", false},
		{"WriteString", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ab") }, 200, "ab", false},
		{"ReadFrom", func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.Copy(w, onlyReader{strings.NewReader("ab")})
			assert.NoError(t, err)
		}, 200, "ab", false},
		{"ReadFrom an empty source, then an error", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, onlyReader{strings.NewReader("")})
			w.WriteHeader(http.StatusBadGateway)
		}, 502, "", true},
		{"Flush", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "ab")
		}, 200, "ab", false},
		{"a ResponseController", func(w http.ResponseWriter, _ *http.Request) {
			rc := http.NewResponseController(w)
			assert.NoError(t, rc.SetWriteDeadline(time.Time{}), "found by Unwrap")
			assert.NoError(t, rc.Flush())
		}, 200, "", false},
		{"its own report", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(orca.Header, "TEXT eps=99")
			w.WriteHeader(http.StatusOK)
		}, 200, "", false},
	} {
		for _, h2 := range []bool{false, true} {
			name := fmt.Sprintf("%s, HTTP/2 %v", row.name, h2)
			h := newHandler(t, row.handle, orca.Config{})
			srv := serve(t, h, h2)
			resp, body := fetch(t, srv, http.MethodGet, "/") // its end is after that of the handler
			assert.Equal(t, row.status, resp.StatusCode, name)
			assert.Equal(t, row.body, body, name)
			assert.Equal(t, h2, resp.ProtoMajor == 2, name)
			got := parse(t, resp.Header)
			assert.True(t, got.Has(orca.RPS|orca.EPS|orca.InFlight), name)
			assert.InDelta(t, 1, got.InFlight, 0, name)
			assert.Zero(t, got.EPS, name)
			assert.Equal(t, row.failed, h.Report().EPS > 0, name)
		}
	}
}

// onlyReader hides what else a reader has, as a file in a pipe would.
type onlyReader struct{ io.Reader }

// serve starts a server that is closed with the test.
func serve(t *testing.T, h http.Handler, h2 bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = h2
	if h2 {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

// fetch sends a request and returns the response with its body.
func fetch(t *testing.T, srv *httptest.Server, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
	require.NoError(t, err)
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func TestHandler_InformationalResponsesHaveNoReport(t *testing.T) {
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusTeapot)
	}, orca.Config{})
	for _, h2 := range []bool{false, true} {
		srv := serve(t, h, h2)
		var codes []int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				codes = append(codes, code)
				assert.Equal(t, "</style.css>", header.Get("Link"))
				assert.Empty(t, header.Get(orca.Header))
				return nil
			},
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
		require.NoError(t, err)
		resp, err := srv.Client().Do(req)
		require.NoError(t, err)
		_ = resp.Body.Close()
		assert.Equal(t, []int{103, 102}, codes)
		assert.Equal(t, http.StatusTeapot, resp.StatusCode)
		assert.True(t, parse(t, resp.Header).Has(orca.InFlight))
	}
}

func TestHandler_HijackedConnectionsGetNoReport(t *testing.T) {
	for _, row := range []struct {
		name   string
		before func(http.ResponseWriter)
	}{
		{"hijacked", func(http.ResponseWriter) {}},
		{"after a 101", func(w http.ResponseWriter) { w.WriteHeader(http.StatusSwitchingProtocols) }},
	} {
		c := clock.NewFake(start)
		h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
			row.before(w)
			conn, buf, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err, row.name) {
				return
			}
			defer conn.Close()
			c.Advance(time.Hour)
			_, _ = buf.WriteString("hello")
			_ = buf.Flush()
		}, orca.Config{Clock: c})
		ended := make(chan struct{})
		srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			close(ended)
		}), false)
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		require.NoError(t, err)
		all, err := io.ReadAll(conn)
		require.NoError(t, err)
		_ = conn.Close()
		assert.True(t, bytes.HasSuffix(all, []byte("hello")), "%s: %q", row.name, all)
		assert.NotContains(t, string(all), orca.Header, row.name)
		<-ended
		assert.Equal(t, "TEXT rps_fractional=0.1,eps=0,named_metrics.rif=0", h.Report().String(), "%s: an hour is no latency", row.name)
	}
}

// Clients offer protocols, h2c for one, that a server need not take up.
func TestHandler_AnUpgradeThatIsIgnoredIsTimed(t *testing.T) {
	c := clock.NewFake(start)
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		c.Advance(time.Second)
		w.WriteHeader(http.StatusOK)
	}, orca.Config{Clock: c})
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Upgrade", "h2c")
	h.ServeHTTP(httptest.NewRecorder(), req)
	assert.Equal(t, time.Second, h.Report().Latency)
}

// A handler that asks whether it may flush gets an honest answer.
func TestHandler_FlushThatIsNotSupported(t *testing.T) {
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		assert.ErrorIs(t, http.NewResponseController(w).Flush(), http.ErrNotSupported)
		w.(http.Flusher).Flush() // does nothing
	}, orca.Config{})
	rec := httptest.NewRecorder()
	h.ServeHTTP(struct{ http.ResponseWriter }{rec}, httptest.NewRequest(http.MethodGet, "/", nil))
}

// The writer below gets the source itself, and may use sendfile.
func TestHandler_ReadFromReachesTheWriterBelow(t *testing.T) {
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		n, err := io.Copy(w, onlyReader{strings.NewReader("file")})
		assert.NoError(t, err)
		assert.Equal(t, int64(4), n)
	}, orca.Config{})
	below := &readerFrom{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(below, httptest.NewRequest(http.MethodGet, "/", nil))
	assert.IsType(t, onlyReader{}, below.src)
	assert.True(t, parse(t, below.Header()).Has(orca.InFlight))
}

type readerFrom struct {
	*httptest.ResponseRecorder
	src io.Reader
}

func (w *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	w.src = src
	return io.Copy(w.ResponseRecorder, src)
}

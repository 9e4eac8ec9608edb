package health_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
)

// healthServer speaks grpc.health.v1 byte by byte.
type healthServer struct {
	body    string // of the answer, its prefix included
	status  string // of the call; empty means none
	message string
	kind    string // the Content-Type; empty means application/grpc
	code    int    // of the answer; zero means 200
	only    bool   // trailers only
	delay   time.Duration
	drip    time.Duration // between two bytes
}

// grpcFrame puts the prefix before a message.
func grpcFrame(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

func (h healthServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-time.After(h.delay):
	case <-r.Context().Done():
		return
	}
	kind := h.kind
	if kind == "" {
		kind = "application/grpc"
	}
	w.Header().Set("Content-Type", kind)
	set := func(name, value string) {
		switch {
		case value == "":
		case h.only:
			w.Header().Set(name, value)
		default:
			w.Header().Set(http.TrailerPrefix+name, value)
		}
	}
	if h.only {
		set("Grpc-Status", h.status)
		set("Grpc-Message", h.message)
	}
	w.WriteHeader(max(h.code, 200))
	if h.only {
		return
	}
	if h.drip == 0 {
		_, _ = io.WriteString(w, h.body)
	}
	for i := 0; h.drip > 0 && i < len(h.body); i++ {
		_, _ = io.WriteString(w, h.body[i:i+1])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(h.drip):
		case <-r.Context().Done():
			return
		}
	}
	set("Grpc-Status", h.status)
	set("Grpc-Message", h.message)
}

// Given each answer that there is, then SERVING is good, NOT_SERVING is down at once, and everything
// else has failed.
func TestGRPC_Verdicts(t *testing.T) {
	serves := grpcFrame("\x08\x01")
	for _, row := range []struct {
		name    string
		handler http.Handler
		want    health.State
		says    string
	}{
		{"SERVING", healthServer{body: serves, status: "0"}, health.Healthy, ""},
		{"SERVING, with unknown fields", healthServer{body: grpcFrame("\x12\x03abc\x08\x01\x98\x06\x07"), status: "0"}, health.Healthy, ""},
		{"SERVING, in pieces", healthServer{body: serves, status: "0", drip: 50 * time.Millisecond}, health.Healthy, ""},
		{"NOT_SERVING", healthServer{body: grpcFrame("\x08\x02"), status: "0"}, health.Unhealthy, "NOT_SERVING"},
		{"UNKNOWN", healthServer{body: grpcFrame(""), status: "0"}, health.Unknown, "serving status was 0"},
		{"SERVICE_UNKNOWN", healthServer{body: grpcFrame("\x08\x03"), status: "0"}, health.Unknown, "serving status was 3"},
		{"UNIMPLEMENTED", healthServer{only: true, status: "12", message: "unknown service grpc.health.v1.Health"}, health.Unknown, `"12": "unknown service`},
		{"NOT_FOUND", healthServer{status: "5", message: "unknown%20service"}, health.Unknown, `"5"`},
		{"an error after the message", healthServer{body: serves, status: "13"}, health.Unknown, `"13"`},
		{"no status", healthServer{body: serves}, health.Unknown, `status was ""`},
		{"no message", healthServer{status: "0"}, health.Unknown, "cannot be read"},
		{"a compressed message", healthServer{body: "\x01" + serves[1:], status: "0"}, health.Unknown, "cannot be read"},
		{"a bad frame", healthServer{body: "\x00\x00\x00", status: "0"}, health.Unknown, "cannot be read"},
		{"a message that is cut off", healthServer{body: serves[:6], status: "0"}, health.Unknown, "cannot be read"},
		{"a message without end", healthServer{body: grpcFrame(strings.Repeat("\x12\x01a", 100_000)), status: "0"}, health.Unknown, ""},
		{"another type", healthServer{body: serves, status: "0", kind: "text/plain"}, health.Unknown, "is not gRPC"},
		{"gRPC-Web", healthServer{body: serves, status: "0", kind: "application/json"}, health.Unknown, "is not gRPC"},
		{"503", healthServer{body: serves, status: "0", code: 503}, health.Unknown, "503"},
		{"nothing at all", evenkeeltest.Hang(), health.Unknown, "took too long"},
		{"too slow", healthServer{body: serves, status: "0", drip: time.Second}, health.Unknown, "took too long"},
		{"a broken body", evenkeeltest.OK(serves).Header("Content-Type", "application/grpc").CloseMidBody(3), health.Unknown, "broke"},
		{"a redirect", evenkeeltest.Status(307).Header("Location", "/"), health.Unknown, "307"},
	} {
		for _, protocol := range []evenkeeltest.Protocol{evenkeeltest.H2C, evenkeeltest.HTTPS} {
			t.Run(row.name, func(t *testing.T) {
				inScene(t, func(t *testing.T, s *scene) {
					target := "http://users.internal:9000"
					if protocol == evenkeeltest.HTTPS {
						target = "https://users.internal:9000"
					}
					server := s.network.Start(evenkeeltest.ServerConfig{
						Address: "a:80", Protocol: protocol, Handler: row.handler, Certificate: "users.internal",
					})
					check := oneByOne(health.GRPC{Service: "users.v1.Users"})
					check.Fall = 1000
					s.watch(health.Config{Check: &check, Target: target})
					e := s.add("a:80")
					s.settle(10 * time.Second)
					st := e.Status()
					assert.Equal(t, row.want, st.State, "%v", st.Err)
					if row.want == health.Healthy {
						assert.NoError(t, st.Err)
					} else if assert.Error(t, st.Err) {
						assert.ErrorContains(t, st.Err, row.says)
					}
					for _, r := range server.Received() {
						assert.Equal(t, "POST /grpc.health.v1.Health/Check HTTP/2.0 users.internal:9000", r.Method+" "+r.Path+" "+r.Proto+" "+r.Host)
						assert.Equal(t, []string{"application/grpc"}, r.Header["Content-Type"])
						assert.Equal(t, []string{"trailers"}, r.Header["Te"])
						assert.Equal(t, grpcFrame("\x0a\x0eusers.v1.Users"), string(r.Body), "the name, to the letter")
						if protocol == evenkeeltest.HTTPS {
							assert.Equal(t, "users.internal", r.ServerName)
						}
					}
					s.monitor.Close()
					s.settle(time.Second)
					s.network.AssertNoConns(t)
				})
			})
		}
	}
}

// One connection is enough for many probes, and NOT_SERVING comes and goes.
func TestGRPC_OneConnection_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		down := atomic.Bool{}
		server := s.network.Start(evenkeeltest.ServerConfig{Address: "a:80", Protocol: evenkeeltest.H2C, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				h := healthServer{body: grpcFrame("\x08\x01"), status: "0"}
				if down.Load() {
					h.body = grpcFrame("\x08\x02")
				}
				h.ServeHTTP(w, r)
			})})
		s.check(oneByOne(health.GRPC{}))
		e := s.add("a:80")
		s.settle(150 * time.Second)
		down.Store(true)
		s.settle(50 * time.Second)
		assert.Equal(t, health.Unhealthy, e.Status().State)
		down.Store(false)
		s.settle(50 * time.Second)
		assert.Equal(t, health.Healthy, e.Status().State)
		assert.Equal(t, []string{"a:80 healthy", "a:80 unhealthy", "a:80 healthy"}, s.journal.kinds())
		assert.Equal(t, 1, server.Dials())
		assert.Greater(t, server.Requests(), 40)
		assert.Equal(t, "\x00\x00\x00\x00\x00", string(server.Received()[0].Body), "the server as a whole")
	})
}

// A server that speaks HTTP/1.1 only is no gRPC server, with TLS and without.
func TestGRPC_HTTP1Server(t *testing.T) {
	for _, protocol := range []evenkeeltest.Protocol{evenkeeltest.HTTP1, evenkeeltest.HTTPS1} {
		inScene(t, func(t *testing.T, s *scene) {
			target := "http://users.internal"
			if protocol == evenkeeltest.HTTPS1 {
				target = "https://users.internal"
			}
			s.network.Start(evenkeeltest.ServerConfig{Address: "a:80", Protocol: protocol})
			check := oneByOne(health.GRPC{})
			s.watch(health.Config{Check: &check, Target: target})
			e := s.add("a:80")
			s.settle(20 * time.Second)
			assert.Equal(t, health.Unhealthy, e.Status().State)
			assert.Error(t, e.Status().Err)
			s.monitor.Close()
			s.settle(time.Second)
			s.network.AssertNoConns(t)
		})
	}
}

// Whatever the traffic speaks, probes of gRPC speak HTTP/2: here the template switches it off, or
// speaks it in clear text only.
func TestGRPC_WhateverTheTrafficSpeaks_H05(t *testing.T) {
	for name, change := range map[string]func(*http.Transport){
		"as it is":      func(*http.Transport) {},
		"HTTP/1.1 only": func(tr *http.Transport) { tr.Protocols = new(http.Protocols); tr.Protocols.SetHTTP1(true) },
		"switched off by TLSNextProto": func(tr *http.Transport) {
			tr.Protocols, tr.TLSNextProto = nil, map[string]func(string, *tls.Conn) http.RoundTripper{}
		},
		"ALPN of HTTP/1.1": func(tr *http.Transport) {
			tr.Protocols = nil
			tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				s.network.Start(evenkeeltest.ServerConfig{
					Address: "a:80", Protocol: evenkeeltest.HTTPS, Handler: healthServer{body: grpcFrame("\x08\x01"), status: "0"},
				})
				check := oneByOne(health.GRPC{})
				s.watch(health.Config{Check: &check, Target: "https://users.internal"})
				template := s.network.Transport()
				change(template)
				s.balance(balancer.Config{Template: template}, "a:80")
				s.settle(20 * time.Second)
				assert.Equal(t, health.Healthy, s.status("a:80").State, "%v", s.status("a:80").Err)
			})
		})
	}
}

// Another port.
func TestGRPC_Port_H05(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		s.network.Start(evenkeeltest.ServerConfig{Address: "a:9000", Protocol: evenkeeltest.H2C, Handler: healthServer{body: grpcFrame("\x08\x01"), status: "0"}})
		s.check(oneByOne(health.GRPC{Port: 9000}))
		e := s.add("a:80")
		s.settle(10 * time.Second)
		assert.Equal(t, health.Healthy, e.Status().State, "%v", e.Status().Err)
		require.Equal(t, discovery.Endpoint{Address: "a:80"}, e.Status().Endpoint)
	})
}

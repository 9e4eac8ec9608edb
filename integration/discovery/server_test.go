package discovery_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// server is a DNS server on loopback, over UDP and TCP, whose records a test
// changes while it is asked.
type server struct {
	address string
	tcp     atomic.Int64 // questions that came over TCP
	asked   atomic.Int64

	mu      sync.Mutex
	records map[string][]dns.RR // by "TYPE name."; an entry without records is "no data"
	rcodes  map[string]int      // answered instead
	silent  map[string]bool     // never answered
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{records: map[string][]dns.RR{}, rcodes: map[string]int{}, silent: map[string]bool{}}
	packets, streams := listen(t)
	s.address = packets.LocalAddr().String()
	for _, d := range []*dns.Server{
		{PacketConn: packets, Handler: s},
		{Listener: streams, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			s.tcp.Add(1)
			s.ServeDNS(w, q)
		})},
	} {
		started, ended := make(chan struct{}), make(chan error, 1)
		d.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- d.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			require.NoError(t, d.Shutdown())
			require.NoError(t, <-ended)
		})
	}
	return s
}

// listen returns a UDP and a TCP socket of the same number.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var config net.ListenConfig
	for range 20 { // the number may be taken for TCP
		packets, err := config.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		require.NoError(t, err)
		streams, err := config.Listen(t.Context(), "tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, streams
		}
		require.NoError(t, packets.Close())
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// dial is the Dial func of a net.Resolver that asks this server only.
func (s *server) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, s.address)
}

// resolver is package net's own, asking this server only.
func (s *server) resolver() *net.Resolver { return &net.Resolver{PreferGo: true, Dial: s.dial} }

// ServeDNS implements dns.Handler.
func (s *server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.asked.Add(1)
	question := q.Question[0]
	what := dns.TypeToString[question.Qtype] + " " + strings.ToLower(question.Name)
	s.mu.Lock()
	records, known := s.records[what]
	rcode, special := s.rcodes[what]
	silent := s.silent[what]
	s.mu.Unlock()
	if silent {
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	switch {
	case special:
		m.Rcode = rcode
	case !known:
		m.Rcode = dns.RcodeNameError
	default:
		m.Answer = records
	}
	if w.LocalAddr().Network() == "udp" {
		m.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(m) // the client may be gone
}

// set replaces the records of one type and name, each given as in a zone file.
// Without any, the name exists but has no such records.
func (s *server) set(t *testing.T, what string, zone ...string) {
	t.Helper()
	var list []dns.RR
	for _, line := range zone {
		rr, err := dns.NewRR(line)
		require.NoError(t, err)
		list = append(list, rr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[what] = list
	delete(s.rcodes, what)
	delete(s.silent, what)
}

func (s *server) answer(what string, rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcodes[what] = rcode
}

func (s *server) hush(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[what] = true
}

// The times of these tests: short enough to be quick, and far enough from each
// other for a busy machine.
const (
	interval = 50 * time.Millisecond
	soon     = 10 * time.Second
	poll     = 5 * time.Millisecond
)

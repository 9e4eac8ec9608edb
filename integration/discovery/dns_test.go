package discovery_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

const (
	a    = "A users.test."
	aaaa = "AAAA users.test."
)

func users(s *server) discovery.DNS {
	return discovery.DNS{
		Host: "users.test.", Port: 80, Interval: interval, MinInterval: interval / 5, Timeout: 2 * time.Second,
		Lookup: s.resolver().LookupNetIP,
	}
}

func TestDNS_RecordsChange_D05(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.set(t, a, "users.test. 0 IN A 10.0.0.1")
	s.set(t, aaaa)
	w := start(t, users(s))
	w.eventually(t, "10.0.0.1:80")
	s.set(t, a, "users.test. 0 IN A 10.0.0.2", "users.test. 0 IN A 10.0.0.1")
	w.eventually(t, "10.0.0.1:80", "10.0.0.2:80")
	s.set(t, a, "users.test. 0 IN CNAME other.test.", "other.test. 0 IN A 10.0.0.3")
	w.eventually(t, "10.0.0.3:80")
	s.set(t, aaaa, "users.test. 0 IN AAAA 2001:db8::1")
	s.set(t, a)
	w.eventually(t, "[2001:db8::1]:80")
	_, fails := w.counts()
	assert.Zero(t, fails)
}

// TestDNS_ErrorKeepsLastGood_D01 takes the answers of a server that is in trouble
// through package net: none of them may look like an empty answer.
func TestDNS_ErrorKeepsLastGood_D01(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*server, string){
		"SERVFAIL":        func(s *server, what string) { s.answer(what, dns.RcodeServerFailure) },
		"REFUSED":         func(s *server, what string) { s.answer(what, dns.RcodeRefused) },
		"not implemented": func(s *server, what string) { s.answer(what, dns.RcodeNotImplemented) },
		"silence":         (*server).hush,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			s.set(t, a, "users.test. 0 IN A 10.0.0.1")
			s.set(t, aaaa)
			d := users(s)
			d.Timeout = 300 * time.Millisecond
			w := start(t, discovery.LastGood{Resolver: d, EmptyGrace: -1})
			w.eventually(t, "10.0.0.1:80")
			trouble(s, a)
			w.more(t, 0, 3)
			w.eventually(t, "10.0.0.1:80")
			updates, _ := w.counts()
			assert.Equal(t, 1, updates)
			s.mu.Lock()
			delete(s.rcodes, a)
			s.mu.Unlock()
			s.set(t, a, "users.test. 0 IN A 10.0.0.2")
			w.eventually(t, "10.0.0.2:80")
		})
	}
}

func TestDNS_EmptyAnswers_D02(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(*testing.T, *server){
		"NXDOMAIN": func(_ *testing.T, s *server) {
			s.answer(a, dns.RcodeNameError)
			s.answer(aaaa, dns.RcodeNameError)
		},
		"no data": func(t *testing.T, s *server) { t.Helper(); s.set(t, a); s.set(t, aaaa) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			s.set(t, a, "users.test. 0 IN A 10.0.0.1")
			s.set(t, aaaa)
			w := start(t, users(s))
			w.eventually(t, "10.0.0.1:80")
			empty(t, s)
			w.eventually(t)
			s.set(t, a, "users.test. 0 IN A 10.0.0.2") // back, elsewhere (D-03)
			w.eventually(t, "10.0.0.2:80")
			_, fails := w.counts()
			assert.Zero(t, fails)
		})
	}
}

func TestDNS_OneBadRecord_D06(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.set(t, a, "users.test. 0 IN A 10.0.0.1", "users.test. 0 IN A 0.0.0.0", "users.test. 0 IN A 10.0.0.2")
	s.set(t, aaaa)
	w := start(t, users(s))
	w.eventually(t, "10.0.0.1:80", "10.0.0.2:80")
	_, skipped, _ := w.latest()
	var counted *discovery.SkippedError
	require.ErrorAs(t, skipped, &counted)
	assert.Equal(t, 1, counted.Count)
}

// TestDNS_TruncatedAnswer: 250 records do not fit into a datagram.
func TestDNS_TruncatedAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var zone, want []string
	for i := range 250 {
		zone = append(zone, fmt.Sprintf("users.test. 0 IN A 10.0.1.%d", i))
		want = append(want, fmt.Sprintf("10.0.1.%d:80", i))
	}
	s.set(t, a, zone...)
	s.set(t, aaaa)
	w := start(t, users(s))
	w.eventually(t, want...)
	assert.Positive(t, s.tcp.Load())
}

// TestDNS_OneFamilyFails_D01, with the default and with both families in use.
func TestDNS_OneFamilyFails_D01(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.set(t, a, "users.test. 0 IN A 10.0.0.1")
	s.set(t, aaaa, "users.test. 0 IN AAAA 2001:db8::1")
	d := users(s)
	preferred := start(t, d)
	d.Family = discovery.IPv4AndIPv6
	both := start(t, d)
	preferred.eventually(t, "10.0.0.1:80")
	both.eventually(t, "10.0.0.1:80", "[2001:db8::1]:80")
	s.answer(aaaa, dns.RcodeServerFailure)
	both.more(t, 3, 0)
	preferred.more(t, 3, 0)
	s.set(t, a, "users.test. 0 IN A 10.0.0.2")
	preferred.eventually(t, "10.0.0.2:80")
	both.eventually(t, "10.0.0.2:80", "[2001:db8::1]:80")
	_, skipped, _ := both.latest()
	require.ErrorContains(t, skipped, "ip6")
	_, skipped, _ = preferred.latest()
	require.NoError(t, skipped)
}

// TestDNS_DefaultResolver is not parallel, because it stands in for the name
// servers of the machine, as a program does that has its own.
func TestDNS_DefaultResolver(t *testing.T) {
	s := serve(t)
	var dialled atomic.Int64
	silent := serve(t)
	silent.hush(a)
	silent.hush(aaaa)
	silent.hush("SRV _http._tcp.users.test.")
	first := dialFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		if dialled.Add(1) <= 2 { // one for each family
			return silent.dial(ctx, network, address)
		}
		return s.dial(ctx, network, address)
	})
	nameServers.Store(&first)
	s.set(t, a, "users.test. 0 IN A 10.0.0.1")
	s.set(t, aaaa)

	t.Run("a name server that is dead leaves time for another", func(t *testing.T) {
		d := users(s)
		d.Lookup = nil
		d.Timeout = 3 * time.Second
		w := start(t, d)
		w.eventually(t, "10.0.0.1:80")
		_, fails := w.counts()
		assert.Zero(t, fails, "the first look-up got through")
	})

	t.Run("records of services", func(t *testing.T) {
		s.set(t, "SRV _http._tcp.users.test.", "_http._tcp.users.test. 0 IN SRV 0 0 8080 users.test.")
		w := start(t, discovery.SRV{Service: "http", Proto: "tcp", Name: "users.test."})
		w.eventually(t, "10.0.0.1:8080")
	})

	t.Run("a watch ends while nobody answers", func(t *testing.T) {
		nobody := dialFunc(silent.dial)
		nameServers.Store(&nobody)
		before := silent.asked.Load()
		w := start(t, discovery.SRV{Service: "http", Proto: "tcp", Name: "users.test.", Timeout: time.Minute})
		d := users(s)
		d.Lookup, d.Timeout = nil, time.Minute
		v := start(t, d)
		require.Eventually(t, func() bool { return silent.asked.Load() >= before+2 }, soon, poll)
		ended := make(chan struct{})
		go func() {
			w.stop()
			v.stop()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(4 * time.Second): // package net alone takes 5s
			t.Error("the watch outlives its context")
			<-ended
		}
	})
}

// nameServers is the Dial func of net.DefaultResolver in this process.
var nameServers atomic.Pointer[dialFunc]

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// TestMain sets net.DefaultResolver once for all: to change it while others look
// names up would be a race.
func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return (*nameServers.Load())(ctx, network, address)
	}}
	m.Run()
}

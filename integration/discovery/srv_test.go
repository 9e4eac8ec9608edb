package discovery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

const srv = "SRV _http._tcp.shop.test."

func shop(s *server) discovery.SRV {
	return discovery.SRV{
		Service: "http", Proto: "tcp", Name: "shop.test.",
		Interval: interval, MinInterval: interval / 5, Timeout: 5 * time.Second,
		LookupSRV: s.resolver().LookupSRV, Lookup: s.resolver().LookupNetIP,
	}
}

// services sets the SRV records, each "priority weight port target".
func services(t *testing.T, s *server, records ...string) {
	t.Helper()
	var zone []string
	for _, r := range records {
		zone = append(zone, "_http._tcp.shop.test. 0 IN SRV "+r)
	}
	s.set(t, srv, zone...)
}

// TestSRV_RecordsMeanWhatTheySay_D07: mixed ports, two priorities, a weight of 0,
// a target that does not exist, one with two addresses; then the target ".".
func TestSRV_RecordsMeanWhatTheySay_D07(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for i, host := range []string{"a", "b", "c"} {
		s.set(t, "A "+host+".shop.test.", fmt.Sprintf("%s.shop.test. 0 IN A 10.0.0.%d", host, i+1))
		s.set(t, "AAAA "+host+".shop.test.")
	}
	s.set(t, "A d.shop.test.", "d.shop.test. 0 IN A 10.0.0.4", "d.shop.test. 0 IN A 10.0.0.5")
	services(t, s,
		"20 0 9000 c.shop.test.", "10 20 8001 A.shop.test.", "10 0 8002 b.shop.test.",
		"10 5 8003 gone.shop.test.", "10 60 8004 d.shop.test.")
	w := start(t, shop(s))
	w.eventually(t, "10.0.0.1:8001/10/20", "10.0.0.2:8002/10/0.05", "10.0.0.3:9000/20/1",
		"10.0.0.4:8004/10/30", "10.0.0.5:8004/10/30")
	_, skipped, _ := w.latest()
	require.ErrorContains(t, skipped, "1 left out: gone.shop.test. has no addresses")

	services(t, s, "0 0 0 .")
	w.eventually(t)
	services(t, s, "0 0 8080 a.shop.test.")
	w.eventually(t, "10.0.0.1:8080")
	s.answer(srv, dns.RcodeNameError)
	w.eventually(t)
	_, fails := w.counts()
	assert.Zero(t, fails, "all of these are answers")
}

// TestSRV_ErrorsKeepLastGood_D01: of the records, and of one target.
func TestSRV_ErrorsKeepLastGood_D01(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for i, host := range []string{"a", "b"} {
		s.set(t, "A "+host+".shop.test.", fmt.Sprintf("%s.shop.test. 0 IN A 10.0.0.%d", host, i+1))
	}
	services(t, s, "0 0 80 a.shop.test.", "0 0 80 b.shop.test.")
	w := start(t, shop(s))
	w.eventually(t, "10.0.0.1:80", "10.0.0.2:80")
	s.answer("A b.shop.test.", dns.RcodeServerFailure)
	s.set(t, "A a.shop.test.", "a.shop.test. 0 IN A 10.0.0.9")
	w.eventually(t, "10.0.0.2:80", "10.0.0.9:80")
	_, skipped, _ := w.latest()
	require.ErrorContains(t, skipped, "b.shop.test.")

	s.answer(srv, dns.RcodeRefused)
	w.more(t, 0, 3)
	w.eventually(t, "10.0.0.2:80", "10.0.0.9:80")
}

// TestSRV_OneBadRecord_D06: package net returns 249 records and an error.
func TestSRV_OneBadRecord_D06(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var records, want []string
	for i := range 249 {
		s.set(t, fmt.Sprintf("A h%d.shop.test.", i), fmt.Sprintf("h%d.shop.test. 0 IN A 10.0.1.%d", i, i))
		records = append(records, fmt.Sprintf("0 0 80 h%d.shop.test.", i))
		want = append(want, fmt.Sprintf("10.0.1.%d:80", i))
	}
	records = append(records, `0 0 80 not\032a\032name.shop.test.`)
	services(t, s, records...)
	slow := shop(s)
	slow.Interval = time.Second // 500 queries each time
	w := start(t, slow)
	w.eventually(t, want...)
	_, skipped, _ := w.latest()
	var counted *discovery.SkippedError
	require.ErrorAs(t, skipped, &counted)
	assert.Equal(t, 1, counted.Count)
	require.ErrorContains(t, skipped, "invalid names")
	assert.Positive(t, s.tcp.Load(), "so many records come over TCP")
}

package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// services answers LookupSRV; a test changes it while it is asked.
type services struct {
	mu      sync.Mutex
	records []*net.SRV
	err     error
	hangs   bool
	asked   string
}

func (s *services) set(err error, records ...*net.SRV) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records, s.err = records, err
}

func (s *services) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	s.mu.Lock()
	s.asked = fmt.Sprintf("%q %q %q", service, proto, name)
	records, err, hangs := s.records, s.err, s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return "", nil, ctx.Err()
	}
	return name, records, err
}

// record is "TARGET PORT PRIORITY WEIGHT" as package net gives it.
func record(target string, port, priority, weight uint16) *net.SRV {
	return &net.SRV{Target: target, Port: port, Priority: priority, Weight: weight}
}

func shop(s *services, n *names) discovery.SRV {
	return discovery.SRV{Service: "http", Proto: "tcp", Name: "shop.", LookupSRV: s.LookupSRV, Lookup: n.Lookup}
}

// tiers returns the endpoints as "priority address weight".
func tiers(set []discovery.Endpoint) []string {
	var list []string
	for _, e := range set {
		list = append(list, fmt.Sprintf("%d %s %.3g", e.Priority, e.Address, e.EffectiveWeight()))
	}
	slices.Sort(list)
	return list
}

// TestSRV_RecordsMeanWhatTheySay_D07: ports of their own, two priorities, a
// weight of 0, trailing dots, upper case, and a target that does not exist.
func TestSRV_RecordsMeanWhatTheySay_D07(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := &services{}, newNames()
		n.set("ip4 a.shop.", "10.0.0.1")
		n.set("ip4 b.shop.", "10.0.0.2", "10.0.0.3")
		n.set("ip4 c.shop.", "10.0.0.4")
		s.set(nil,
			record("c.shop.", 9000, 20, 0),
			record("a.shop.", 8001, 10, 20),
			record("B.shop", 8002, 10, 60),
			record("a.shop.", 8003, 10, 0),
			record("gone.shop.", 8004, 10, 5),
		)
		w := start(t, shop(s, n))
		synctest.Wait()
		all := w.stop()
		require.Len(t, all, 1)
		assert.Equal(t, []string{
			"10 10.0.0.1:8001 20",
			"10 10.0.0.1:8003 0.05", // a hundredth of the smallest, 5
			"10 10.0.0.2:8002 30",
			"10 10.0.0.3:8002 30",
			"20 10.0.0.4:9000 1",
		}, tiers(all[0].set))
		var skipped *discovery.SkippedError
		require.ErrorAs(t, all[0].skipped, &skipped)
		assert.Equal(t, 1, skipped.Count)
		require.ErrorContains(t, skipped, "gone.shop. has no addresses")
		assert.Equal(t, `"http" "tcp" "shop."`, s.asked)
	})
}

func TestSRV_Answers_D07(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		err     error
		records []*net.SRV
		want    []string // nil: failed
		skipped int
	}{
		{"decidedly absent", nil, []*net.SRV{record(".", 0, 0, 0)}, []string{}, 0},
		{"decidedly absent, twice", nil, []*net.SRV{record(".", 0, 0, 0), record(".", 80, 1, 0)}, []string{}, 0},
		{"no such name", notFound("shop."), nil, []string{}, 0},
		{"no records", nil, nil, []string{}, 0},
		{"SERVFAIL", servfail("shop."), nil, nil, 0},
		{"only bad records", &net.DNSError{Err: "malformed"}, []*net.SRV{}, nil, 0},
		{"only targets that do not exist", nil, []*net.SRV{record("gone.shop.", 80, 0, 0)}, nil, 0},
		{"no target beside others", nil, []*net.SRV{record(".", 0, 0, 0), record("a.shop.", 80, 0, 0)}, []string{"0 10.0.0.1:80 1"}, 1},
		{"no port", nil, []*net.SRV{record("b.shop.", 0, 0, 7), record("a.shop.", 80, 0, 0), nil}, []string{"0 10.0.0.1:80 0.07"}, 2},
		{"all of weight 0", nil, []*net.SRV{record("a.shop.", 80, 0, 0), record("b.shop.", 80, 0, 0)}, []string{"0 10.0.0.1:80 1", "0 10.0.0.2:80 1"}, 0},
		{"one place twice", nil, []*net.SRV{record("a.shop.", 80, 1, 2), record("same.shop.", 80, 1, 3)}, []string{"1 10.0.0.1:80 5"}, 0},
		{"one place in two priorities", nil, []*net.SRV{record("same.shop.", 80, 2, 3), record("a.shop.", 80, 1, 2)}, []string{"1 10.0.0.1:80 2"}, 0},
		{"a literal target", nil, []*net.SRV{record("10.0.0.7.", 80, 0, 0)}, []string{"0 10.0.0.7:80 1"}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, n := &services{}, newNames()
				n.set("ip4 a.shop.", "10.0.0.1")
				n.set("ip4 same.shop.", "10.0.0.1")
				n.set("ip4 b.shop.", "10.0.0.2")
				s.set(row.err, row.records...)
				w := start(t, shop(s, n))
				synctest.Wait()
				all := w.stop()
				require.Len(t, all, 1)
				require.Equal(t, row.want == nil, all[0].failed != nil, "%v", all[0].failed)
				assert.Len(t, all[0].set, len(row.want))
				if len(row.want) > 0 {
					assert.Equal(t, row.want, tiers(all[0].set))
				}
				var skipped *discovery.SkippedError
				if errors.As(all[0].skipped, &skipped) {
					assert.Equal(t, row.skipped, skipped.Count)
				} else {
					assert.Zero(t, row.skipped)
				}
			})
		})
	}
}

// TestSRV_OneBadRecord_D06: package net returns the good records together with
// an error about the others.
func TestSRV_OneBadRecord_D06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := &services{}, newNames()
		var list []*net.SRV
		for i := range 249 {
			host := fmt.Sprintf("h%d.shop.", i)
			n.set("ip4 "+host, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}).String())
			list = append(list, record(host, 80, 0, 1))
		}
		s.set(&net.DNSError{Err: "DNS response contained records which contain invalid names", Name: "shop."}, list...)
		w := start(t, shop(s, n))
		synctest.Wait()
		all := w.stop()
		require.Len(t, all, 1)
		assert.Len(t, all[0].set, 249)
		var skipped *discovery.SkippedError
		require.ErrorAs(t, all[0].skipped, &skipped)
		assert.Equal(t, 1, skipped.Count)
		assert.LessOrEqual(t, n.most, 2*16, "look-ups at the same time")
	})
}

// TestSRV_ErrorOfATargetKeepsItsAddresses_D01, while "no such name" does not.
func TestSRV_ErrorOfATargetKeepsItsAddresses_D01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := &services{}, newNames()
		n.set("ip4 a.shop.", "10.0.0.1")
		n.set("ip4 b.shop.", "10.0.0.2")
		s.set(nil, record("a.shop.", 80, 0, 0), record("b.shop.", 80, 0, 0))
		w := start(t, shop(s, n))
		time.Sleep(time.Second)

		n.set("ip4 a.shop.", "10.0.0.9")
		n.fail("ip4 b.shop.", servfail("b.shop."))
		time.Sleep(30 * time.Second)

		n.fail("ip4 b.shop.", notFound("b.shop."))
		time.Sleep(30 * time.Second)

		n.fail("ip4 b.shop.", servfail("b.shop."))
		time.Sleep(30 * time.Second)
		all := w.stop()
		assert.Equal(t, []string{
			"0s [10.0.0.1:80 10.0.0.2:80]", "30s [10.0.0.2:80 10.0.0.9:80]", "1m0s [10.0.0.9:80]", "1m30s [10.0.0.9:80]",
		}, lines(all))
		require.ErrorContains(t, all[1].skipped, "server misbehaving")
		require.ErrorContains(t, all[2].skipped, "b.shop. has no addresses")
		require.ErrorContains(t, all[3].skipped, "server misbehaving")
	})
}

// TestSRV_TargetThatLeavesIsForgotten: should it come back, what it resolved to
// long ago must not be used.
func TestSRV_TargetThatLeavesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := &services{}, newNames()
		n.set("ip4 a.shop.", "10.0.0.1")
		n.set("ip4 b.shop.", "10.0.0.2")
		s.set(nil, record("a.shop.", 80, 0, 0), record("b.shop.", 80, 0, 0))
		w := start(t, shop(s, n))
		time.Sleep(time.Second)
		s.set(nil, record("a.shop.", 80, 0, 0))
		time.Sleep(30 * time.Second)
		n.fail("ip4 b.shop.", servfail("b.shop."))
		s.set(nil, record("a.shop.", 80, 0, 0), record("b.shop.", 80, 0, 0))
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"0s [10.0.0.1:80 10.0.0.2:80]", "30s [10.0.0.1:80]", "1m0s [10.0.0.1:80]"}, lines(w.stop()))
	})
}

// TestSRV_HungTargets_D04: forty targets that never answer cost the time of one
// look-up, and the targets that do answer are used.
func TestSRV_HungTargets_D04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := &services{}, newNames()
		n.set("ip4 z.shop.", "10.0.0.1")
		n.set("ip4 a.shop.", "10.0.0.2")
		list := []*net.SRV{record("a.shop.", 80, 0, 0)}
		for i := range 40 {
			host := fmt.Sprintf("h%d.shop.", i)
			n.put("ip4 "+host, records{hangs: true})
			n.put("ip6 "+host, records{hangs: true})
			list = append(list, record(host, 80, 0, 1))
		}
		s.set(nil, list...)
		w := start(t, shop(s, n))
		time.Sleep(9 * time.Second)
		all := w.stop()
		require.NotEmpty(t, all)
		assert.Equal(t, "5s [10.0.0.2:80]", all[0].String())
		assert.LessOrEqual(t, n.most, 2*16)
	})
}

func TestSRV_HungRecords_D04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{hangs: true}
		w := start(t, shop(s, newNames()))
		time.Sleep(6 * time.Second)
		all := w.stop()
		assert.Equal(t, []string{"5s failed"}, lines(all))
		require.ErrorContains(t, all[0].failed, "discovery: look-up of _http._tcp.shop. (SRV): no answer within 5s")
	})
}

// TestSRV_OrderOfRecordsDoesNotMatter_D15: package net shuffles them each time.
func TestSRV_OrderOfRecordsDoesNotMatter_D15(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	list := []*net.SRV{
		record("a.shop.", 80, 0, 1), record("same.shop.", 80, 0, 3), record("b.shop.", 81, 0, 0),
		record("b.shop.", 80, 1, 0), record("a.shop.", 80, 1, 9),
	}
	var first []discovery.Endpoint
	for range 30 {
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		synctest.Test(t, func(t *testing.T) {
			s, n := &services{}, newNames()
			n.set("ip4 a.shop.", "10.0.0.1")
			n.set("ip4 same.shop.", "10.0.0.1")
			n.set("ip4 b.shop.", "10.0.0.2", "10.0.0.3")
			s.set(nil, list...)
			w := start(t, shop(s, n))
			synctest.Wait()
			w.stop()
			if first == nil {
				first = w.last()
			}
			assert.Equal(t, first, w.last())
		})
	}
}

package discovery_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// users is the service of these tests: the name users. on port 80.
func users(n *names) discovery.DNS {
	return discovery.DNS{Host: "users.", Port: 80, Lookup: n.Lookup}
}

func TestDNS_TellsItsAddressesSortedAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.set("ip4 users.", "10.0.0.2", "10.0.0.1", "::ffff:10.0.0.2", "::ffff:10.0.0.3", "10.0.0.2")
		w := start(t, users(n))
		synctest.Wait()
		assert.Equal(t, set("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"), w.last())
		all := w.stop()
		assert.Len(t, all, 1)
		require.NoError(t, all[0].skipped)
	})
}

func TestDNS_Families(t *testing.T) {
	t.Parallel()
	const a, aaaa = "ip4 users.", "ip6 users."
	broken := servfail("users.")
	both := func(n *names) { n.set(a, "10.0.0.1"); n.set(aaaa, "2001:db8::1") }
	for _, row := range []struct {
		name    string
		family  discovery.Family
		records func(*names)
		want    string
		beside  bool // an error is told beside the set
	}{
		{"prefer IPv4, both there", discovery.PreferIPv4, both, "0s [10.0.0.1:80]", false},
		{"prefer IPv4, only IPv6 there", discovery.PreferIPv4, func(n *names) { n.set(aaaa, "2001:db8::1") }, "0s [[2001:db8::1]:80]", false},
		{"prefer IPv4, IPv6 fails", discovery.PreferIPv4, func(n *names) { n.set(a, "10.0.0.1"); n.fail(aaaa, broken) }, "0s [10.0.0.1:80]", false},
		{"prefer IPv4, IPv6 hangs", discovery.PreferIPv4, func(n *names) { n.set(a, "10.0.0.1"); n.put(aaaa, records{hangs: true}) }, "0s [10.0.0.1:80]", false},
		{"prefer IPv4, which fails", discovery.PreferIPv4, func(n *names) { n.fail(a, broken); n.set(aaaa, "2001:db8::1") }, "0s [[2001:db8::1]:80]", true},
		{"prefer IPv4, which fails beside nothing", discovery.PreferIPv4, func(n *names) { n.fail(a, broken) }, "0s failed", false},
		{"prefer IPv4, nothing beside failure", discovery.PreferIPv4, func(n *names) { n.fail(aaaa, broken) }, "0s failed", false},
		{"prefer IPv4, nothing there", discovery.PreferIPv4, func(*names) {}, "0s []", false},
		{"prefer IPv4, nothing believable there", discovery.PreferIPv4, func(n *names) { n.set(a, "0.0.0.0") }, "0s failed", false},
		{"prefer IPv6, both there", discovery.PreferIPv6, both, "0s [[2001:db8::1]:80]", false},
		{"prefer IPv6, only IPv4 there", discovery.PreferIPv6, func(n *names) { n.set(a, "10.0.0.1") }, "0s [10.0.0.1:80]", false},
		{"both", discovery.IPv4AndIPv6, both, "0s [10.0.0.1:80 [2001:db8::1]:80]", false},
		{"both, one empty", discovery.IPv4AndIPv6, func(n *names) { n.set(a, "10.0.0.1") }, "0s [10.0.0.1:80]", false},
		{"both, one fails", discovery.IPv4AndIPv6, func(n *names) { n.set(a, "10.0.0.1"); n.fail(aaaa, broken) }, "0s [10.0.0.1:80]", true},
		{"both, one fails beside nothing", discovery.IPv4AndIPv6, func(n *names) { n.fail(aaaa, broken) }, "0s failed", false},
		{"only IPv4", discovery.IPv4Only, both, "0s [10.0.0.1:80]", false},
		{"only IPv4, none there", discovery.IPv4Only, func(n *names) { n.set(aaaa, "2001:db8::1") }, "0s []", false},
		{"only IPv6", discovery.IPv6Only, both, "0s [[2001:db8::1]:80]", false},
		{"only IPv6, which fails", discovery.IPv6Only, func(n *names) { n.set(a, "10.0.0.1"); n.fail(aaaa, broken) }, "0s failed", false},
		{
			"a look-up func that does not care for the family", discovery.IPv4Only,
			func(n *names) { n.set(a, "10.0.0.1", "2001:db8::1") }, "0s [10.0.0.1:80]", false,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNames()
				row.records(n)
				d := users(n)
				d.Family = row.family
				w := start(t, d)
				synctest.Wait()
				all := w.stop()
				assert.Equal(t, []string{row.want}, lines(all))
				assert.Equal(t, row.beside, all[0].skipped != nil, "%v", all[0].skipped)
			})
		})
	}
}

// TestDNS_LiteralAddressNeedsNoLookup also covers what package net does not: a
// literal that ends in a dot.
func TestDNS_LiteralAddressNeedsNoLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		w := start(t, discovery.DNS{Host: "10.0.0.1", Port: 80, Lookup: n.Lookup})
		v := start(t, discovery.DNS{Host: "::1", Port: 80, Lookup: n.Lookup})
		synctest.Wait()
		assert.Equal(t, []string{"0s [10.0.0.1:80]"}, lines(w.stop()))
		assert.Equal(t, []string{"0s [[::1]:80]"}, lines(v.stop()))
		assert.Empty(t, n.asked)
	})
}

// TestDNS_ErrorKeepsLastGood_D01: whatever the error, the five endpoints stay,
// and both the error and the age of the set can be seen.
func TestDNS_ErrorKeepsLastGood_D01(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		records records
		message string
	}{
		{"SERVFAIL", records{err: servfail("users.")}, "server misbehaving"},
		{"time-out of the resolver", records{err: &net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}}, "i/o timeout"},
		{"a resolver that hangs", records{hangs: true}, "no answer within 5s"},
		{"REFUSED", records{err: &net.DNSError{Err: "server misbehaving"}}, "server misbehaving"},
		{"not found, but only for now", records{err: &net.DNSError{Err: "try again", IsNotFound: true, IsTemporary: true}}, "try again"},
		{"some other error", records{err: errors.New("no route to host")}, "no route to host"},
		{"nothing that makes sense", records{addrs: []netip.Addr{{}, netip.IPv4Unspecified()}}, "2 left out"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n, seen := newNames(), &events{}
				n.set("ip4 users.", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
				w := start(t, discovery.LastGood{Resolver: users(n), OnEvent: seen.add})
				time.Sleep(29 * time.Second)
				n.put("ip4 users.", row.records)
				n.put("ip6 users.", row.records)
				time.Sleep(time.Hour)
				all := w.stop()
				assert.Len(t, w.last(), 5)
				assert.Len(t, failures(all), len(all)-1, "one update, and then only errors")
				failed := seen.of(discovery.Failed)
				require.NotEmpty(t, failed)
				latest := failed[len(failed)-1]
				assert.ErrorContains(t, latest.Err, row.message)
				assert.Equal(t, 5, latest.Size)
				assert.Greater(t, latest.Time.Sub(latest.Answered), 59*time.Minute, "the age of the set")
			})
		})
	}
}

// TestDNS_FailingFamilyTakesNothingAway_D01: with both families in use, the one
// that fails keeps its addresses while the other changes.
func TestDNS_FailingFamilyTakesNothingAway_D01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.set("ip4 users.", "10.0.0.1")
		n.set("ip6 users.", "2001:db8::1")
		d := users(n)
		d.Family = discovery.IPv4AndIPv6
		w := start(t, d)
		time.Sleep(time.Second)
		n.set("ip4 users.", "10.0.0.2")
		n.fail("ip6 users.", servfail("users."))
		time.Sleep(30 * time.Second)
		n.set("ip4 users.")
		time.Sleep(30 * time.Second)
		n.set("ip6 users.", "2001:db8::2")
		time.Sleep(30 * time.Second)
		all := w.stop()
		assert.Equal(t, []string{
			"0s [10.0.0.1:80 [2001:db8::1]:80]",
			"30s [10.0.0.2:80 [2001:db8::1]:80]",
			"1m0s [[2001:db8::1]:80]",
			"1m30s [[2001:db8::2]:80]",
		}, lines(all))
		require.ErrorContains(t, all[1].skipped, "ip6")
		require.NoError(t, all[3].skipped)
	})
}

// TestDNS_PreferredFamilyFails_D01: a preferred family that fails for a while
// must not send all traffic to the other one.
func TestDNS_PreferredFamilyFails_D01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.set("ip4 users.", "10.0.0.1")
		n.set("ip6 users.", "2001:db8::1")
		w := start(t, users(n))
		time.Sleep(time.Second)
		n.fail("ip4 users.", servfail("users."))
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"0s [10.0.0.1:80]", "30s failed"}, lines(w.stop()))
	})
}

func TestDNS_NotFoundIsAnEmptyAnswer_D02(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		records records
	}{
		{"no such name", records{err: notFound("users.")}},
		{"wrapped", records{err: errors.Join(notFound("users."))}},
		{"no records", records{}},
		{"of the other family only", records{err: &net.AddrError{Err: "no suitable address found"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNames()
				n.put("ip4 users.", row.records)
				n.put("ip6 users.", row.records)
				w := start(t, users(n))
				synctest.Wait()
				assert.Equal(t, []string{"0s []"}, lines(w.stop()))
			})
		})
	}
}

// TestDNS_MovedServiceIsFoundWithin5s_D03: all servers are gone, for long or for
// a moment, and are back under other addresses.
func TestDNS_MovedServiceIsFoundWithin5s_D03(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		away    records
		refresh bool // failing endpoints ask for a fresh look
	}{
		{"gone", records{}, false},
		{"gone, with refreshes", records{}, true},
		{"failing", records{err: servfail("users.")}, false},
		{"failing, with refreshes", records{err: servfail("users.")}, true},
		{"dead addresses, with refreshes", records{addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, away := range []time.Duration{time.Second, 32 * time.Second, 10 * time.Minute} {
				for _, random := range []float64{0, 0.5, 0.999} {
					synctest.Test(t, func(t *testing.T) {
						assertFoundAgain(t, row.away, away, row.refresh, random)
					})
				}
			}
		})
	}
}

func assertFoundAgain(t *testing.T, while records, away time.Duration, refresh bool, random float64) {
	t.Helper()
	n := newNames()
	n.set("ip4 users.", "10.0.0.1")
	w := startOn(t, users(n), clock.System, func() float64 { return random })
	time.Sleep(10 * time.Second)
	n.put("ip4 users.", while)
	n.put("ip6 users.", while)
	if !refresh {
		time.Sleep(30 * time.Second) // until the loss is noticed
	}
	stop := make(chan struct{})
	go func() {
		for refresh {
			select {
			case <-time.After(100 * time.Millisecond):
				w.ask()
			case <-stop:
				return
			}
		}
	}()
	time.Sleep(away)
	n.set("ip4 users.", "10.0.0.9")
	n.set("ip6 users.")
	time.Sleep(5 * time.Second)
	assert.Equal(t, "[10.0.0.9:80]", addresses(w.last()), "away for %v, random %v", away, random)
	close(stop)
	w.stop()
}

// TestDNS_StormOfRefreshes_D04: ten thousand failing connections a second, for
// five minutes.
func TestDNS_StormOfRefreshes_D04(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		records records
	}{
		{"all well", records{addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		{"slow", records{addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, takes: 4 * time.Second}},
		{"empty", records{}},
		{"failing", records{err: servfail("users.")}},
		{"hanging", records{hangs: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNames()
				n.put("ip4 users.", row.records)
				d := users(n)
				d.Family = discovery.IPv4Only
				w := start(t, d)
				for range 300 * 10 { // 10 bursts of 1000 each second
					for range 1000 {
						w.ask()
					}
					time.Sleep(100 * time.Millisecond)
				}
				w.stop()
				times := n.times("ip4 users.")
				assertGaps(t, times, 3*time.Second, 6*time.Second)
				assert.LessOrEqual(t, len(times), 300/3+1)
				assert.Equal(t, 1, n.most, "look-ups at the same time")
			})
		})
	}
}

// TestDNS_HungResolver_D04: it neither blocks the watch for ever nor gets a
// second question while it has not answered the first.
func TestDNS_HungResolver_D04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.put("ip4 users.", records{hangs: true})
		n.put("ip6 users.", records{hangs: true})
		d := users(n)
		d.Timeout = 7 * time.Second
		w := start(t, d)
		time.Sleep(time.Minute)
		all := w.stop()
		assert.Equal(t, "7s failed", all[0].String())
		require.ErrorIs(t, all[0].failed, context.DeadlineExceeded)
		require.ErrorContains(t, all[0].failed, "no answer within 7s")
		assert.Equal(t, 2, n.most, "one look-up per family")
		assertGaps(t, n.times("ip4 users."), 7*time.Second, 7*time.Second)
	})
}

// TestDNS_WatchEndsInTheMiddleOfALookup: an error that our own leaving caused is
// nobody's business.
func TestDNS_WatchEndsInTheMiddleOfALookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.put("ip4 users.", records{hangs: true})
		w := start(t, users(n))
		time.Sleep(time.Second)
		assert.Empty(t, w.stop())
	})
}

// TestDNS_ErrorsBackOffWithJitter_D04: clients that fail together do not ask
// together, and none asks sooner than MinInterval.
func TestDNS_ErrorsBackOffWithJitter_D04(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	different := map[time.Duration]bool{}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := newNames()
			n.fail("ip4 users.", servfail("users."))
			w := startOn(t, users(n), clock.System, random.Float64)
			time.Sleep(time.Minute)
			w.stop()
			times := n.times("ip4 users.")
			assertGaps(t, times, 3*time.Second, 5*time.Second)
			different[times[1]] = true
		})
	}
	assert.Greater(t, len(different), 15, "of 20 clients")
}

func TestDNS_BackoffGrowsFromTheMinInterval_D04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames()
		n.fail("ip4 users.", servfail("users."))
		d := users(n)
		d.MinInterval = 100 * time.Millisecond
		w := start(t, d)
		time.Sleep(20 * time.Second)
		assert.Equal(t, []string{
			"0s failed", "150ms failed", "400ms failed", "850ms failed", "1.7s failed", "3.35s failed",
			"5.9s failed", "8.45s failed", "11s failed", "13.55s failed", "16.1s failed", "18.65s failed",
		}, lines(w.stop()))
	})
}

// TestDNS_NewRecordIsSeenWithinTheInterval_D05: nothing fails, so nothing but
// the interval makes the new server known.
func TestDNS_NewRecordIsSeenWithinTheInterval_D05(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := newNames()
			n.set("ip4 users.", "10.0.0.1")
			at := time.Duration(random.Int64N(int64(time.Hour)))
			w := startOn(t, users(n), clock.System, random.Float64)
			time.Sleep(at)
			n.set("ip4 users.", "10.0.0.1", "10.0.0.2")
			time.Sleep(33 * time.Second)
			assert.Equal(t, "[10.0.0.1:80 10.0.0.2:80]", addresses(w.last()))
			w.stop()
			assertGaps(t, n.times("ip4 users."), 27*time.Second, 33*time.Second)
		})
	}
}

// TestDNS_OneBadRecord_D06: of 250 records one cannot be connected to.
func TestDNS_OneBadRecord_D06(t *testing.T) {
	t.Parallel()
	for _, bad := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("224.0.0.1")} {
		synctest.Test(t, func(t *testing.T) {
			n, seen := newNames(), &events{}
			r := records{}
			for i := range 250 {
				r.addrs = append(r.addrs, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
			}
			r.addrs[100] = bad
			n.put("ip4 users.", r)
			w := start(t, discovery.LastGood{Resolver: users(n), OnEvent: seen.add})
			synctest.Wait()
			all := w.stop()
			require.Len(t, all, 1)
			assert.Len(t, all[0].set, 249)
			var skipped *discovery.SkippedError
			require.ErrorAs(t, all[0].skipped, &skipped)
			assert.Equal(t, 1, skipped.Count)
			require.Len(t, seen.of(discovery.Skipped), 1)
			assert.Equal(t, 1, seen.of(discovery.Skipped)[0].Skipped)
		})
	}
}

// TestDNS_FollowsAnyClock: a fake clock decides alone, time-outs included.
func TestDNS_FollowsAnyClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(time.Unix(1_000_000, 0))
		n := newNames()
		n.set("ip4 users.", "10.0.0.1")
		w := startOn(t, users(n), fake, func() float64 { return 0.5 })
		advance := func(d time.Duration) {
			synctest.Wait()
			fake.Advance(d)
			synctest.Wait()
		}
		advance(29 * time.Second)
		n.put("ip4 users.", records{hangs: true})
		advance(time.Second)
		advance(5 * time.Second)
		assert.Equal(t, []string{"0s [10.0.0.1:80]", "35s failed"}, lines(w.stop()))
		assert.Zero(t, fake.Pending(), "timers left behind")
	})
}

package session

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// BenchmarkLookup measures how long it takes to find out where a call belongs.
func BenchmarkLookup(b *testing.B) {
	endpoints := make([]discovery.Endpoint, 100)
	for i := range endpoints {
		endpoints[i].Address = fmt.Sprintf("10.0.0.%d:8080", i)
	}
	b.Run("Cookie", func(b *testing.B) {
		secret := secretNo(1)
		s := newSigner(secret, target, "evenkeel")
		benchBegin(b, Cookie{Name: "evenkeel", Secret: secret}, endpoints, "evenkeel="+s.seal(s.tag("10.0.0.7:8080"), dawn))
	})
	b.Run("Route", func(b *testing.B) {
		by := Route{From: []Property{{Cookie: "JSESSIONID"}}, Separator: "~"}
		benchBegin(b, by, endpoints, "JSESSIONID=0123456789abcdef~10.0.0.7:8080")
	})
	b.Run("Table", benchTable)
}

// benchBegin measures the beginning of a call whose cookie belongs to an endpoint.
func benchBegin(b *testing.B, by Kind, endpoints []discovery.Endpoint, cookie string) {
	b.Helper()
	n := newNoted(b, by)
	n.Endpoints(endpoints)
	work := n.work.Load()
	req := with(b, "lang=en; "+cookie)
	begin := func() {
		v := &visit{keeper: n.Keeper, work: work}
		work.way.begin(v, req)
		if v.home() != "10.0.0.7:8080" {
			b.Error("it belongs there")
		}
	}
	b.Run("single", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			begin()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				begin()
			}
		})
	})
}

// benchTable measures lookups of random keys in a table of a million sessions.
func benchTable(b *testing.B) {
	const sessions = 1_000_000
	table := newTestTable(b, TableConfig{MaxSessions: 2 * sessions})
	keys := make([]string, sessions)
	for i := range keys {
		keys[i] = "a key of a usual length " + strconv.Itoa(i)
		table.pinned(b, keys[i], "", "10.0.0.7:8080")
	}
	var seed atomic.Uint64
	lookup := func(b *testing.B, next func() bool) {
		b.Helper()
		random, ctx := rand.New(rand.NewPCG(seed.Add(1), 0)), b.Context()
		for next() {
			if endpoint, _ := table.Lookup(ctx, keys[random.IntN(sessions)]); endpoint == "" {
				b.Error("it is there")
			}
		}
	}
	b.Run("single", func(b *testing.B) {
		b.ReportAllocs()
		lookup(b, b.Loop)
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) { lookup(b, pb.Next) })
	})
}

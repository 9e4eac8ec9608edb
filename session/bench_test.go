package session

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"unsafe"

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

// benchTable measures lookups of random keys in a table of a million sessions. A key is at hand, as that of a
// request is; what it takes to make it up is measured beside.
func benchTable(b *testing.B) {
	const sessions = 1_000_000
	table := newTestTable(b, TableConfig{MaxSessions: 2 * sessions})
	key := func(buf []byte, i int) []byte {
		return strconv.AppendInt(append(buf[:0], "a key of a usual length "...), int64(i), 10)
	}
	for i := range sessions {
		table.pinned(b, string(key(nil, i)), "", "10.0.0.7:8080")
	}
	var seed atomic.Uint64
	each := func(look func(key string)) func(*testing.B, func() bool) {
		return func(b *testing.B, next func() bool) {
			b.Helper()
			random, buf := rand.New(rand.NewPCG(seed.Add(1), 0)), make([]byte, 0, 64)
			for next() {
				buf = key(buf, random.IntN(sessions))
				look(unsafe.String(&buf[0], len(buf)))
			}
		}
	}
	ctx := b.Context()
	for _, row := range []struct {
		name string
		look func(string)
	}{
		{"the key alone", func(key string) { runtime.KeepAlive(key) }},
		{"lookup", func(key string) {
			if endpoint, _ := table.Lookup(ctx, key); endpoint == "" {
				b.Error("it is there")
			}
		}},
	} {
		look := each(row.look)
		b.Run(row.name+"/single", func(b *testing.B) {
			b.ReportAllocs()
			look(b, b.Loop)
		})
		b.Run(row.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) { look(b, pb.Next) })
		})
	}
}

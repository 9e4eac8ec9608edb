//go:build unix

package session_test

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/contrib/redis"
)

// BenchmarkLookup compares what a store does with a plain GET: both commands of a store in one round
// trip, a time limit, a breaker and a memory of its own.
func BenchmarkLookup(b *testing.B) {
	server := startRedis(b)
	store := newStore(b, server, redis.Config{})
	_, err := store.Pin(b.Context(), "key", "", "10.0.0.1:8080")
	require.NoError(b, err)
	require.NoError(b, server.admin.Set(b.Context(), "plain", "10.0.0.1:8080", time.Hour).Err())
	bare := goredis.NewClient(&goredis.Options{Addr: server.Address})
	b.Cleanup(func() { bare.Close() })

	for _, row := range []struct {
		name string
		get  func() error
	}{
		{"GET", func() error { return bare.Get(b.Context(), "plain").Err() }},
		{"Lookup", func() error { _, err := store.Lookup(b.Context(), "key"); return err }},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := row.get(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(row.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := row.get(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

package session

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mapStore is a store of a user's own; a lock is left out, as the test is of one goroutine.
type mapStore struct{ at map[string]string }

func (s *mapStore) Lookup(_ context.Context, key string) (string, error) { return s.at[key], nil }
func (s *mapStore) Pin(_ context.Context, key, _, to string) (string, error) {
	s.at[key] = to
	return to, nil
}

// Another store is used also if it is like the one before.
func TestUse_AnotherStoreThatLooksTheSame(t *testing.T) {
	t.Parallel()
	first, second := &mapStore{map[string]string{}}, &mapStore{map[string]string{}}
	n := newNoted(t, Key{Store: first})
	require.NoError(t, n.Use(&Policy{By: Key{Store: second}}))
	assert.Same(t, second, n.work.Load().way.(*keyWay).store)
}

// The memory of stores is not looked at by Use, as the race detector sees.
func TestUse_ReadsNoStore(t *testing.T) {
	t.Parallel()
	first, second := &mapStore{map[string]string{"k": "a"}}, &mapStore{map[string]string{"k": "a"}}
	n := newNoted(t, Key{Store: first})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			_, _ = first.Pin(t.Context(), "k", "", "a") // a call under way
		}
	}()
	for range 100 {
		require.NoError(t, n.Use(&Policy{By: Key{Store: second}}))
		require.NoError(t, n.Use(&Policy{By: Key{Store: first}}))
	}
	<-done
}

package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/session"
)

// A caller that gives up while the store is asked to pin has not been refused.
func TestStore_StrictAndTheCallerGivesUpPinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		store.does(onlyPin(takes(time.Hour)))
		h := newHouse(t, session.Policy{By: session.Key{Store: store}, Strict: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		_, err := h.RoundTrip(keyed(t, "k").WithContext(session.WithKey(ctx, "k")))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, session.Status{}, h.keeper.Status())
		assert.Empty(t, h.events)
		assert.Empty(t, h.seen)
		h.assertClean(t)
	})
}

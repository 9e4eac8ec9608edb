package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/session"
)

// Without a deadline the wait is as long as without sessions.
func TestKeeper_TheWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for about, sessionOf := range early(t) {
			for _, strict := range []bool{false, true} {
				p, req := sessionOf(strict)
				h := newUnresolved(t, p)
				start := time.Now()
				sent, ended := h.waiting(t, req)
				err := (<-ended).err
				require.ErrorIs(t, err, balancer.ErrNoEndpoints, about)
				assert.Equal(t, 10*time.Second, time.Since(start), about)
				assert.Equal(t, int32(1), sent.closes.Load(), about)
				assert.Empty(t, h.seen)
			}
		}
	})
}

// A request that waited for the first endpoints goes to the one that it names.
func TestRoute_WaitsForTheFirstEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 6 {
			for _, strict := range []bool{false, true} {
				h := newUnresolved(t, session.Policy{By: session.Route{From: []session.Property{{Header: "X-Route"}}}, Strict: strict})
				_, ended := h.waiting(t, get(t, "X-Route: b:80"))
				time.Sleep(time.Second)
				h.push(all...)
				require.NoError(t, (<-ended).err)
				assert.Equal(t, []string{"b:80"}, h.seen)
				assert.Equal(t, session.Status{Kept: 1}, h.keeper.Status())
			}
		}
	})
}

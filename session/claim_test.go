package session

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/node"
)

// claims makes the claims of visits that have all begun, at once, each for an endpoint of its own, and returns where
// all of them go.
func claims(t *testing.T, visits []*visit, prefix, cause string) (where string) {
	t.Helper()
	got := make([]string, len(visits))
	var group sync.WaitGroup
	for i, v := range visits {
		group.Go(func() {
			endpoint, err := v.Claim(t.Context(), fmt.Sprint(prefix, i), cause)
			assert.NoError(t, err)
			got[i] = endpoint
		})
	}
	group.Wait()
	for i, v := range visits {
		require.Equal(t, got[0], got[i])
		require.Equal(t, got[0], v.home())
	}
	require.Contains(t, got[0], prefix)
	return got[0]
}

// begunTogether returns visits of many requests that are alike.
func (n *noted) begunTogether(req *http.Request) []*visit {
	visits := make([]*visit, 50)
	for i := range visits {
		visits[i] = n.begun(req)
	}
	return visits
}

// Of many calls with one key whose lookups come before all claims, one pins it, one moves it, and each counts once and
// is told once.
func TestKey_ClaimsAreExact(t *testing.T) {
	t.Parallel()
	for range 20 {
		n := newNoted(t, Key{})
		req := with(t)
		req = req.WithContext(WithKey(req.Context(), "k"))
		first := claims(t, n.begunTogether(req), "first ", "")
		assert.Equal(t, Status{New: 1, Sessions: 1}, n.Status())
		assert.Empty(t, n.events)

		visits := n.begunTogether(req)
		require.Equal(t, first, visits[0].home())
		second := claims(t, visits, "second ", "open")
		assert.Equal(t, Status{New: 1, Moved: 1, Sessions: 1}, n.Status())
		assert.Equal(t, []Event{{Time: dawn, Kind: Moved, From: first, To: second, Cause: "open"}}, n.events)
	}
}

// Calls with a cookie whose endpoint is gone agree, for 10 s; those with another cookie, of the same endpoint and the
// same second, do so for themselves; and those without one have nothing to claim.
func TestCookie_Claims(t *testing.T) {
	t.Parallel()
	n := newNoted(t, Cookie{Secret: secretNo(1)})
	way := n.work.Load().way.(*cookieWay)
	one := with(t, "evenkeel="+way.issued("z:80", dawn))
	two := with(t, "evenkeel="+way.issued("z:80", dawn))
	require.Equal(t, &node.Pin{ID: gone}, n.begun(one).Pin())
	first := claims(t, n.begunTogether(one), "first ", "removed")
	claims(t, n.begunTogether(two), "second ", "removed")

	claim := func(req *http.Request) string {
		v := n.begun(req)
		if home := v.home(); home != gone {
			return home // it is sent there, and claims nothing
		}
		endpoint, err := v.Claim(t.Context(), "late", "removed")
		require.NoError(t, err)
		return endpoint
	}
	n.fake.Advance(10*time.Second - 1)
	assert.Equal(t, first, claim(one))
	n.fake.Advance(1)
	assert.Equal(t, first, claim(one), "the call before has renewed it")
	assert.Equal(t, "late", claim(two), "this one's is over")
	n.fake.Advance(10 * time.Second)
	assert.Equal(t, "late", claim(one))

	fresh := n.begun(with(t))
	endpoint, err := fresh.Claim(t.Context(), "a:80", "")
	require.NoError(t, err)
	assert.Empty(t, endpoint)
	assert.Nil(t, fresh.Pin())
	assert.Zero(t, n.Status(), "a claim is no move yet")
}

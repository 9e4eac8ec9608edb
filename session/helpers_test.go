package session

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// dawn is when the clocks of these tests begin.
var dawn = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)

const hour = time.Hour

// secretNo returns one of many secrets.
func secretNo(n byte) Secret { return NewSecret(keyNo(n)) }

func keyNo(n byte) []byte {
	key := make([]byte, minSecret)
	for i := range key {
		key[i] = n*37 + byte(i)*11
	}
	return key
}

// short returns one that is too short by a byte.
func short(n byte) Secret { return NewSecret(keyNo(n)[1:]) }

// listed returns endpoints with these addresses.
func listed(addresses ...string) []discovery.Endpoint {
	all := make([]discovery.Endpoint, len(addresses))
	for i, a := range addresses {
		all[i].Address = a
	}
	return all
}

// noted is a keeper of the endpoints a:80, b:80 and c:80 whose events are kept.
type noted struct {
	*Keeper
	fake   *clock.Fake
	events []Event
}

func newNoted(t testing.TB, by Kind) *noted {
	t.Helper()
	if c, ok := by.(Cookie); ok {
		by = named(c)
	}
	n := &noted{fake: clock.NewFake(dawn)}
	k, err := NewKeeper(Config{
		Policy: &Policy{By: by}, Target: "http://users:80", Clock: n.fake,
		OnEvent: func(e Event) { n.events = append(n.events, e) },
	})
	require.NoError(t, err)
	k.Endpoints(listed("a:80", "b:80", "c:80"))
	n.Keeper = k
	return n
}

// named returns a cookie with a name that is easy to write.
func named(c Cookie) Cookie {
	if c.Name == "" {
		c.Name = "evenkeel"
	}
	return c
}

// begun returns what the way knows of a request's call before it is made.
func (n *noted) begun(req *http.Request) *visit {
	work := n.work.Load()
	v := &visit{keeper: n.Keeper, work: work}
	work.way.begin(v, req)
	return v
}

// with returns a request with these lines of cookies.
func with(t testing.TB, cookies ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/", http.NoBody)
	require.NoError(t, err)
	if len(cookies) > 0 {
		req.Header["Cookie"] = cookies
	}
	return req
}

// seeded returns a source of random numbers, and prints its seed.
func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// problems returns the names of the fields that an error speaks of, in order. It fails if the error
// says anything else.
func problems(t testing.TB, err error) []string {
	t.Helper()
	list := []string{}
	parts := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		parts = joined.Unwrap()
	}
	for _, part := range parts {
		var problem *field.Error
		require.ErrorAs(t, part, &problem)
		assert.NotEmpty(t, problem.Problem)
		list = append(list, problem.Field)
	}
	return list
}

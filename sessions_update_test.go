package evenkeel_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/session"
)

// use replaces the policy of sessions; nil means none.
func (h *theatre) use(t *testing.T, p *session.Policy) {
	t.Helper()
	c := h.tr.Config()
	c.Session = p
	require.NoError(t, h.tr.Update(c))
}

// Given a policy that is replaced again and again under load, then no call fails, nothing is left over, and
// each kind works from the moment on at which it is in force.
func TestSession_UpdateUnderLoad_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Key{}}, []string{"a:80", "b:80", "c:80"})
		h.take(time.Millisecond, "a:80", "b:80", "c:80")
		policies := []*session.Policy{
			nil,
			{By: session.Cookie{Secret: secret}},
			{By: session.Key{}},
			{By: session.Hash{}},
			nil,
			{By: session.Learn{Cookie: "SID"}, Strict: true},
			{By: session.Key{TTL: time.Hour, MaxSessions: 50_000}},
			{By: session.Cookie{Secret: secret, Name: "other"}, Strict: true},
			{By: session.Route{From: []session.Property{{Header: "X-Route"}}}},
			{By: session.Hash{From: []session.Property{{Header: "X-User"}}}},
		}
		var over atomic.Bool
		var all sync.WaitGroup
		for i := range 8 {
			v := h.visitor(t)
			all.Go(func() {
				for !over.Load() {
					req := getRequest(t, "http://users/").WithContext(session.WithKey(t.Context(), v.key))
					req.Header.Set("X-Route", []string{"a:80", "gone:80"}[i%2])
					resp, err := v.Do(req)
					if !assert.NoError(t, err) {
						return
					}
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		for range 10 {
			for _, p := range policies {
				h.use(t, p)
				time.Sleep(3 * time.Millisecond)
			}
		}
		over.Store(true)
		all.Wait()
		stats := h.tr.Stats()
		assert.Zero(t, stats.Active)
		assert.Zero(t, stats.Failed)
		assert.Zero(t, stats.Session.Refused)
		for _, e := range stats.Pool.Endpoints {
			assert.Zero(t, e.InFlight)
		}

		for i, p := range policies {
			h.use(t, p)
			kept := p != nil
			if kept {
				switch p.By.(type) {
				case session.Route, session.Learn: // ask for what he does not send
					kept = false
				}
			}
			v, got := h.visitor(t), map[string]int{}
			for range 300 { // more than what those who had sessions are passed over
				got[v.visit(t)]++
			}
			assert.Equal(t, kept, len(got) == 1, "policy %d", i)
		}
	})
}

// Given another policy in any other respect, then nobody moves.
func TestSession_UpdateOfOthersMovesNobody_P01(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"})
		all, at := h.seated(t, 30)
		for i, change := range []func(*evenkeel.Config){
			func(c *evenkeel.Config) { c.Timeout = time.Minute },
			func(c *evenkeel.Config) { c.Balancer = nil },
			func(c *evenkeel.Config) { c.Rules.MaxInFlight = 10 },
			func(c *evenkeel.Config) { c.Session.DrainFor = time.Minute },
			func(c *evenkeel.Config) { c.Session.Strict = true },
			func(c *evenkeel.Config) { c.Session.Strict = false },
			func(c *evenkeel.Config) {
				if key, ok := c.Session.By.(session.Key); ok {
					key.TTL, key.MaxSessions = time.Hour, 50_000
					c.Session.By = key
				}
			},
		} {
			c := h.tr.Config()
			change(&c)
			require.NoError(t, h.tr.Update(c))
			assert.Zero(t, moved(t, all, at), "change %d", i)
		}
		sessions := h.tr.Stats().Session.Sessions
		assert.Equal(t, k.cookies() == 0, sessions == 30, "%d in the table", sessions)

		h.use(t, nil)
		for range 3 {
			assert.NotZero(t, moved(t, all[:5], at[:5]), "nobody is kept")
		}
		h.use(t, &session.Policy{By: k.by})
		assert.Zero(t, moved(t, all, at), "and all are where they were")
		assert.Empty(t, h.told())
	})
}

// Given an invalid policy, then the one in force stays.
func TestSession_UpdateRefused_P02(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"})
		all, at := h.seated(t, 9)
		before := h.tr.Config()
		for _, p := range []session.Policy{
			{}, {By: session.Cookie{}}, {By: session.Hash{}, Strict: true}, {By: session.Key{}, DrainFor: -1}, {By: session.Learn{}},
		} {
			c := h.tr.Config()
			c.Session = &p
			err := h.tr.Update(c)
			require.Error(t, err)
			assert.Contains(t, err.Error(), "Session.")
		}
		assert.Equal(t, before, h.tr.Config())
		assert.Zero(t, moved(t, all, at))
	})
}

// Given secrets that are changed in the way that is documented, then no session moves, and each gets one
// new cookie.
func TestSession_SecretsRotate_S03_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := session.NewSecret([]byte(strings.Repeat("next secret ", 4)))
		cookie := func(c session.Cookie) *session.Policy { return &session.Policy{By: c} }
		h := newTheatre(t, *cookie(session.Cookie{Secret: secret}), []string{"a:80", "b:80", "c:80"})
		all, at := h.seated(t, 12)
		issued := func() (n int) {
			for i, v := range all {
				assert.Equal(t, at[i], v.visit(t))
				n += len(v.issued)
			}
			return n
		}
		h.use(t, cookie(session.Cookie{Secret: secret, Previous: next}))
		assert.Zero(t, issued())
		h.use(t, cookie(session.Cookie{Secret: next, Previous: secret}))
		assert.Equal(t, 12, issued(), "each gets a new one")
		assert.Zero(t, issued(), "once")
		h.use(t, cookie(session.Cookie{Secret: next}))
		assert.Zero(t, issued())
		assert.Empty(t, h.told())
		assert.Zero(t, h.tr.Stats().Session.Moved)
		h.use(t, cookie(session.Cookie{Secret: secret}))
		for _, v := range all {
			v.visit(t)
			assert.Len(t, v.issued, 1, "those of a secret that was dropped are not good")
		}
		assert.EqualValues(t, 12, h.tr.Stats().Session.Rejected)
	})
}

package evenkeel_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/session"
)

// seated makes so many begin, and returns where they are.
func (h *theatre) seated(t *testing.T, n int) (all []*visitor, at []string) {
	t.Helper()
	for range n {
		v := h.visitor(t)
		all, at = append(all, v), append(at, v.visit(t))
	}
	return all, at
}

// moved returns how many are elsewhere now.
func moved(t *testing.T, all []*visitor, at []string) (n int) {
	t.Helper()
	for i, v := range all {
		if v.visit(t) != at[i] {
			n++
		}
	}
	return n
}

// Given an endpoint that drains, or is a standby now, then it keeps its sessions and gets no new ones.
func TestSession_LeavingKeepsSessions_S05(t *testing.T) {
	for _, state := range []string{"draining", "standby", "second"} {
		forKinds(t, state, func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"})
			all, at := h.seated(t, 12)
			assert.Contains(t, at, "a:80")
			h.set("a:80 "+state, "b:80", "c:80")
			assert.Zero(t, moved(t, all, at))
			_, late := h.seated(t, 30)
			assert.NotContains(t, late, "a:80", "new ones go elsewhere")
			time.Sleep(5 * time.Minute)
			assert.Zero(t, moved(t, all, at))
			h.set("b:80", "c:80")
			assert.Equal(t, strings.Count(strings.Join(at, " "), "a:80"), moved(t, all, at), "those go when it is gone")
			assert.Len(t, h.told(), strings.Count(strings.Join(at, " "), "a:80"))
		})
	}
}

// Given DrainFor, then sessions leave a draining endpoint after exactly that time, each once.
func TestSession_DrainFor_S05(t *testing.T) {
	const limit = time.Minute
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by, DrainFor: limit}, []string{"a:80", "b:80", "c:80"})
		all, at := h.seated(t, 9)
		time.Sleep(time.Hour / 12)
		require.Zero(t, moved(t, all, at))
		h.set("a:80 draining", "b:80", "c:80")
		time.Sleep(limit - time.Nanosecond)
		assert.Zero(t, moved(t, all, at))
		h.told()
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 3, moved(t, all, at))
		for _, e := range h.told() {
			assert.Equal(t, session.Moved, e.Kind)
			assert.Equal(t, "a:80", e.From)
			assert.Equal(t, "drained", e.Cause)
		}
		assert.EqualValues(t, 3, h.tr.Stats().Session.Moved)
		for i, v := range all {
			at[i] = v.visit(t)
		}
		h.set("a:80", "b:80", "c:80") // it stays after all
		assert.Zero(t, moved(t, all, at))
		assert.NotContains(t, at, "a:80")
	})
}

// Given endpoints that are added, then no session moves, whatever the algorithm.
func TestSession_ScalingOutMovesNobody_S06(t *testing.T) {
	for name, algorithm := range pickers() {
		forKinds(t, name, func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"}, evenkeel.WithBalancer(algorithm))
			all, at := h.seated(t, 200)
			addresses := []string{"c:80", "a:80", "b:80"} // in another order
			for i := range 10 {
				addresses = append(addresses, fmt.Sprintf("new%d:80", i))
				h.set(addresses...)
			}
			assert.Zero(t, moved(t, all, at))
			for _, v := range all {
				assert.Empty(t, v.issued)
			}
			assert.Empty(t, h.told())
			stats := h.tr.Stats().Session
			assert.EqualValues(t, 200, stats.New)
			assert.EqualValues(t, 200, stats.Kept)
			assert.Zero(t, stats.Moved)
		})
	}
}

// Given a higher priority that was down, then its recovery moves nobody who began elsewhere meanwhile.
func TestSession_RecoveryMovesNobody_S06(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "s:80 second"}, broken)
		h.fail(500, "a:80", "b:80")
		h.crowd(t, "a:80", "open")
		h.crowd(t, "b:80", "open")
		h.fail(0, "a:80", "b:80")
		all, at := h.seated(t, 20)
		assert.Equal(t, strings.Repeat("s:80", 20), strings.Join(at, ""))
		time.Sleep(10 * time.Second)
		for _, a := range []string{"a:80", "b:80"} {
			h.crowd(t, a, "")
		}
		assert.Zero(t, moved(t, all, at))
		_, late := h.seated(t, 20)
		assert.NotContains(t, late, "s:80", "new ones are where they would be")
	})
}

// Given MaxInFlight, then a session whose endpoint has no room for it moves, which is said.
func TestSession_Saturated_S01(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80"}, evenkeel.WithRules(balancer.Rules{MaxInFlight: 1}))
		all, at := h.seated(t, 3) // the third one is where the first one is
		require.Equal(t, at[0], at[2])
		resp, err := all[0].do(t, "/")
		require.NoError(t, err)
		assert.Equal(t, at[1], all[2].visit(t))
		assert.Len(t, all[2].issued, k.cookies())
		resp.Body.Close()
		assert.Equal(t, []session.Event{{Kind: session.Moved, From: at[0], To: at[1], Cause: "saturated"}}, h.told())
		all[0].stays(t, at[0])
		all[2].stays(t, at[1])
	})
}

// Given that health is ignored, because too few are healthy, then sessions stay where they are.
func TestSession_PanicMovesNobody_S01(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"}, broken, probed)
		all, at := h.seated(t, 9)
		h.sick(true, "a:80", "b:80", "c:80") // the probe is wrong
		for _, a := range []string{"a:80", "b:80", "c:80"} {
			h.crowd(t, a, "unhealthy")
		}
		require.True(t, h.tr.Stats().Pool.Panic)
		assert.Zero(t, moved(t, all, at))
		for _, b := range h.tr.Breakers() {
			if b.Name() == "a:80" {
				require.NoError(t, b.SetMode(breaker.ForcedOpen))
			}
		}
		assert.Equal(t, 3, moved(t, all, at), "nothing overrules that")
	})
}

// Given cookies of another secret, name, or none at all in place of a header, then a Learn session that
// the servers name in a header is kept, and a new value is where it was set.
func TestSession_LearnByHeader_S02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Learn{Header: "X-Session"}}, []string{"a:80", "b:80", "c:80"},
			evenkeel.WithAttempt(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(req *http.Request) (*http.Response, error) {
					resp, err := next.RoundTrip(req)
					if name := req.Header.Get("X-Login"); err == nil && name != "" {
						resp.Header.Set("X-Session", name)
					}
					return resp, err
				})
			}))
		send := func(header, value string) string {
			req := getRequest(t, "http://users/")
			req.Header.Set(header, value)
			_, body := fetch(t, h.tr, req)
			return body
		}
		for i := range 10 {
			name := fmt.Sprint("s", i)
			at := send("X-Login", name)
			for range 5 {
				assert.Equal(t, at, send("X-Session", name))
			}
			again := send("X-Login", name) // wherever that goes: who set it last has it
			for range 5 {
				assert.Equal(t, again, send("X-Session", name))
			}
		}
		before := h.tr.Stats().Session.Sessions
		went := map[string]bool{}
		for range 30 {
			went[send("X-Session", "made up")] = true
		}
		assert.Len(t, went, 3, "what no server has set belongs nowhere")
		assert.Equal(t, before, h.tr.Stats().Session.Sessions)
	})
}

// Given a caller whose endpoint has had too many requests of it, then it is asked again, after a wait, and nobody
// else is: another one would not know the session.
func TestSession_TooManyRequestsMoveNobody_S06(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		all := []string{"a:80", "b:80", "c:80"}
		h := newTheatre(t, session.Policy{By: k.by}, all)
		v := h.visitor(t)
		at := v.visit(t)
		before := h.requests("a:80") + h.requests("b:80") + h.requests("c:80") - h.requests(at)
		h.fail(http.StatusTooManyRequests, at)
		start := time.Now()
		resp, err := v.do(t, "/")
		require.NoError(t, err)
		assert.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
		assert.Positive(t, time.Since(start), "there is a pause")
		assert.Equal(t, before, h.requests("a:80")+h.requests("b:80")+h.requests("c:80")-h.requests(at))
		h.fail(0, at)
		v.stays(t, at)
		assert.Zero(t, h.tr.Stats().Session.Moved)
	})
}

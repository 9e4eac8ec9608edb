package evenkeel_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// Given a strict session whose endpoint cannot take its call, then the call fails with an error that says
// so, its body is closed once, and nobody else is asked; when the endpoint is back, it works again.
func TestSession_StrictRefuses_S01_T06(t *testing.T) {
	all := []string{"a:80", "b:80", "c:80", "d:80"}
	setMode := func(t *testing.T, h *theatre, m breaker.Mode) {
		t.Helper()
		for _, b := range h.tr.Breakers() {
			if b.Name() == "a:80" {
				require.NoError(t, b.SetMode(m))
			}
		}
	}
	for _, row := range []struct {
		name     string
		reason   outcome.Reason
		says     string
		down, up func(t *testing.T, h *theatre)
		option   evenkeel.Option
	}{
		{
			"removed", outcome.NoEndpoints, "removed", func(_ *testing.T, h *theatre) { h.set(all[1:]...) },
			func(_ *testing.T, h *theatre) { h.set(all...) }, noBreaker,
		},
		{"open", outcome.Open, "open", func(t *testing.T, h *theatre) {
			t.Helper()
			h.fail(500, "a:80")
			h.crowd(t, "a:80", "open")
			h.fail(0, "a:80")
		}, func(*testing.T, *theatre) { time.Sleep(10 * time.Second) }, broken},
		{
			"forced open", outcome.Open, "open", func(t *testing.T, h *theatre) { t.Helper(); setMode(t, h, breaker.ForcedOpen) },
			func(t *testing.T, h *theatre) { t.Helper(); setMode(t, h, breaker.Auto) }, broken,
		},
		{"ejected", outcome.NoEndpoints, "ejected", func(t *testing.T, h *theatre) {
			t.Helper()
			h.fail(500, "a:80")
			h.crowd(t, "a:80", "ejected")
			h.fail(0, "a:80")
		}, func(*testing.T, *theatre) { time.Sleep(time.Minute) }, judged},
		{"unhealthy", outcome.NoEndpoints, "unhealthy", func(t *testing.T, h *theatre) {
			t.Helper()
			h.sick(true, "a:80")
			h.crowd(t, "a:80", "unhealthy")
		}, func(t *testing.T, h *theatre) { t.Helper(); h.sick(false, "a:80"); h.crowd(t, "a:80", "") }, probed},
		{"drained", outcome.NoEndpoints, "drained", func(_ *testing.T, h *theatre) {
			h.set("a:80 draining", "b:80", "c:80", "d:80")
			time.Sleep(time.Minute)
		}, func(_ *testing.T, h *theatre) { h.set(all...) }, noBreaker},
		{"saturated", outcome.Limiter, "MaxInFlight", func(t *testing.T, h *theatre) {
			t.Helper()
			for h.tr.Stats().Pool.Endpoints[0].InFlight == 0 {
				_, err := h.visitor(t).do(t, "/") // its body stays open
				require.NoError(t, err)
			}
		}, nil, evenkeel.WithRules(balancer.Rules{MaxInFlight: 1, Queue: balancer.Queue{Size: -1}})},
	} {
		forKinds(t, row.name, func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by, Strict: true, DrainFor: time.Minute}, all, row.option)
			v := h.visitor(t)
			for v.visit(t) != "a:80" {
				v = h.visitor(t)
			}
			row.down(t, h)
			h.told()
			seen := map[string]int{}
			for _, a := range all {
				seen[a] = h.requests(a)
			}
			body := evenkeeltest.NewBody("state")
			req := getRequest(t, "http://users/").WithContext(session.WithKey(t.Context(), v.key))
			req.Method = http.MethodPost
			body.Replayable(req)
			for _, c := range v.Jar.Cookies(req.URL) {
				req.AddCookie(c)
			}
			start := time.Now()
			resp, err := h.tr.RoundTrip(req)
			assert.Nil(t, resp)
			assert.Zero(t, time.Since(start), "nobody waits for nothing")
			e := as[*evenkeel.Error](err)
			require.NotNil(t, e)
			assert.Equal(t, row.reason, e.Reason)
			assert.Contains(t, err.Error(), row.says)
			assert.Empty(t, e.Attempts)
			body.AssertClosed(t)
			for _, a := range all {
				assert.Equal(t, seen[a], h.requests(a), "nobody else will do")
			}
			if row.reason == outcome.Limiter {
				assert.ErrorIs(t, err, balancer.ErrSaturated, "it is there, and busy")
				return
			}
			require.ErrorIs(t, err, session.ErrUnavailable)
			events := h.told()
			require.Len(t, events, 1)
			assert.Equal(t, session.Refused, events[0].Kind)
			assert.ErrorIs(t, events[0].Err, session.ErrUnavailable)
			assert.EqualValues(t, 1, h.tr.Stats().Session.Refused)
			assert.NotEqual(t, "a:80", h.visitor(t).visit(t), "others are served")
			row.up(t, h)
			v.stays(t, "a:80")
			assert.Zero(t, h.tr.Stats().Session.Moved)
		})
	}
}

// Given a strict session whose endpoint fails, then retries stay there, with pauses between them, and the
// last answer or error is that of the endpoint.
func TestSession_StrictRetriesStay_R17(t *testing.T) {
	for _, status := range []int{503, breaks, refuses} {
		forKinds(t, fmt.Sprint(status), func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by, Strict: true}, []string{"a:80", "b:80", "c:80"},
				evenkeel.WithRetry(retry.Policy{MaxAttempts: 2}))
			v := h.visitor(t)
			at := v.visit(t)
			h.told()
			before := h.requests("a:80") + h.requests("b:80") + h.requests("c:80")
			own := h.requests(at)
			h.fail(status, at)
			start := time.Now()
			resp, err := v.do(t, "/")
			if status > 0 {
				require.NoError(t, err)
				assert.Equal(t, status, resp.StatusCode)
				assert.Empty(t, v.issued)
			} else {
				require.Error(t, err)
				assert.NotErrorIs(t, err, session.ErrUnavailable, "it was asked")
			}
			assert.Equal(t, 2, h.requests(at)-own)
			assert.Equal(t, 2, h.requests("a:80")+h.requests("b:80")+h.requests("c:80")-before)
			assert.Positive(t, time.Since(start), "there is a pause")
			assert.Empty(t, h.told())
			go func() {
				time.Sleep(time.Millisecond)
				h.fail(0, at)
			}()
			assert.Equal(t, at, v.visit(t), "a retry finds it well")
			v.stays(t, at)
		})
	}
}

// Given a strict session whose endpoint is slow, then nobody else is asked beside it.
func TestSession_StrictHedgesStay_R20(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by, Strict: true}, []string{"a:80", "b:80", "c:80"}, evenkeel.WithRetry(hedging))
		v := h.visitor(t)
		at := v.visit(t)
		all := h.requests("a:80") + h.requests("b:80") + h.requests("c:80")
		h.take(time.Second, at)
		start := time.Now()
		assert.Equal(t, at, v.visit(t))
		assert.Equal(t, time.Second, time.Since(start))
		assert.Equal(t, all+1, h.requests("a:80")+h.requests("b:80")+h.requests("c:80"))
		assert.Empty(t, h.told())
	})
}

// Given a strict session that begins, then nothing is lost yet: a retry may go elsewhere, and the session
// is there. One with a key belongs where it is sent first, unless that cannot be reached at all.
func TestSession_StrictBeginsElsewhere_R17(t *testing.T) {
	for _, status := range []int{503, breaks, refuses} {
		forKinds(t, fmt.Sprint(status), func(t *testing.T, k seating) {
			if _, early := k.by.(session.Key); early && status != refuses {
				strictKeyStays(t, k, status)
				return
			}
			h := newTheatre(t, session.Policy{By: k.by, Strict: true}, []string{"a:80", "b:80", "c:80"})
			h.fail(status, "a:80", "b:80")
			for range 6 {
				v := h.visitor(t)
				require.Equal(t, "c:80", v.visit(t))
				require.Len(t, v.issued, k.cookies())
				v.stays(t, "c:80")
			}
			assert.Positive(t, h.requests("a:80")+h.requests("b:80"))
		})
	}
}

// strictKeyStays tries a server that fails for everybody but the first call's retry.
func strictKeyStays(t *testing.T, k seating, status int) {
	t.Helper()
	h := newTheatre(t, session.Policy{By: k.by, Strict: true}, []string{"a:80", "b:80", "c:80"},
		evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}), evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
	h.fail(status, "a:80", "b:80", "c:80")
	v := h.visitor(t)
	_, _ = v.do(t, "/")
	var asked []string
	for _, address := range []string{"a:80", "b:80", "c:80"} {
		if h.requests(address) > 0 {
			asked = append(asked, address)
		}
	}
	require.Len(t, asked, 1)
	h.fail(0, "a:80", "b:80", "c:80")
	v.stays(t, asked[0])
}

// Given the queue, then a call of a strict session waits there for its endpoint, and not for another.
func TestSession_StrictWaitsForItsEndpoint(t *testing.T) {
	forKinds(t, "", func(t *testing.T, k seating) {
		h := newTheatre(t, session.Policy{By: k.by, Strict: true}, []string{"a:80", "b:80"},
			evenkeel.WithRules(balancer.Rules{MaxInFlight: 1, Queue: balancer.Queue{Timeout: time.Minute}}))
		v := h.visitor(t)
		at := v.visit(t)
		resp, err := v.do(t, "/")
		require.NoError(t, err)
		before, start := h.requests(at), time.Now()
		time.AfterFunc(10*time.Second, func() {
			assert.Equal(t, before, h.requests(at))
			resp.Body.Close()
		})
		assert.Equal(t, at, v.visit(t))
		assert.Equal(t, 10*time.Second, time.Since(start))
		assert.Zero(t, h.tr.Stats().Session.Moved)
	})
}

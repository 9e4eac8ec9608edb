package evenkeel_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/session"
)

// Given that the first pick does not answer, then the session is that of who does, with one cookie,
// however it came about; for those who begin and for those who had a session.
func TestSession_BelongsWhereItWasAnswered_S02(t *testing.T) {
	hedged := evenkeel.WithRetry(hedging)
	for _, row := range []struct {
		name, path, cause string
		fail              func(h *theatre, at string)
		option            evenkeel.Option
	}{
		{"retry after a broken connection", "/", "attempt failed", func(h *theatre, at string) { h.fail(breaks, at) }, noBreaker},
		{"retry after 503", "/", "attempt failed", func(h *theatre, at string) { h.fail(503, at) }, noBreaker},
		{"hedge", "/", "another attempt was faster", func(h *theatre, at string) { h.take(time.Second, at) }, hedged},
		{"hedge, and the first one fails", "/", "attempt failed", func(h *theatre, at string) {
			h.take(50*time.Millisecond, "a:80", "b:80", "c:80")
			h.take(110*time.Millisecond, at)
			h.fail(breaks, at)
		}, hedged},
		{"upgrade", "/upgrade", "attempt failed", func(h *theatre, at string) { h.fail(refuses, at) }, noBreaker},
		{"redirect", "/elsewhere", "attempt failed", func(h *theatre, at string) { h.fail(breaks, at) }, noBreaker},
	} {
		for _, begins := range []bool{false, true} {
			forKinds(t, fmt.Sprintf("%s/begins=%v", row.name, begins), func(t *testing.T, k seating) {
				h := newTheatre(t, session.Policy{By: k.by}, []string{"a:80", "b:80", "c:80"}, row.option)
				v, other := h.visitor(t), h.visitor(t)
				var down string
				if begins { // in turn: who comes after two others is where the first one was
					down = other.visit(t)
					for range 2 {
						h.visitor(t).visit(t)
					}
				} else {
					down = v.visit(t)
				}
				row.fail(h, down)
				h.told()
				before := h.requests(down)
				resp, err := v.do(t, row.path)
				require.NoError(t, err)
				require.Less(t, resp.StatusCode, 400)
				assert.Equal(t, before+1, h.requests(down), "it was asked first")
				info, ok := evenkeel.InfoOf(resp)
				require.True(t, ok)
				at := info.Endpoint.Address
				assert.NotEqual(t, down, at)
				switch row.path {
				case "/elsewhere": // the answer with the redirection had it: what follows is pinned
					assert.Empty(t, v.issued)
				default:
					assert.Len(t, v.issued, k.cookies())
				}
				resp.Body.Close()
				if events := h.told(); !begins {
					assert.Equal(t, []session.Event{{Kind: session.Moved, From: down, To: at, Cause: row.cause}}, events)
				}
				v.stays(t, at)
				assert.Empty(t, h.told())
			})
		}
	}
}

// Given calls that fail everywhere, then no cookie is set, and nobody moves.
func TestSession_FailuresMoveNobody_S02(t *testing.T) {
	all := []string{"a:80", "b:80", "c:80"}
	for _, status := range []int{500, 503, breaks, refuses} {
		forKinds(t, fmt.Sprint(status), func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by}, all)
			v, late := h.visitor(t), h.visitor(t)
			at := v.visit(t)
			h.fail(status, all...)
			for _, who := range []*visitor{v, late, v} {
				resp, err := who.do(t, "/")
				if status < 0 {
					require.Error(t, err)
					continue
				}
				require.NoError(t, err)
				assert.Equal(t, status, resp.StatusCode)
				assert.Empty(t, resp.Cookies())
			}
			assert.Empty(t, h.told())
			h.fail(0, all...)
			time.Sleep(time.Second)
			v.stays(t, at)
			name := late.visit(t)
			assert.Len(t, late.issued, k.cookies())
			late.stays(t, name)
			assert.Zero(t, h.tr.Stats().Session.Moved)
		})
	}
}

// An answer that speaks of the caller's mistake is the endpoint's own, and begins a session.
func TestSession_ClientErrorsAreAnswers_S02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Cookie{Secret: secret}}, []string{"a:80", "b:80", "c:80"})
		h.fail(404, "a:80", "b:80", "c:80")
		v := h.visitor(t)
		resp, err := v.do(t, "/")
		require.NoError(t, err)
		require.Len(t, v.issued, 1)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		h.fail(0, "a:80", "b:80", "c:80")
		v.stays(t, string(body))
	})
}

// Given a cookie that is not good, then the call is served as if there were none, gets a new one, and
// learns nothing.
func TestSession_BadCookies_S03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addresses := []string{"10.1.2.3:80", "10.1.2.4:80"}
		policy := func(c session.Cookie) session.Policy { return session.Policy{By: c} }
		issue := func(h *theatre) *http.Cookie {
			v := h.visitor(t)
			v.visit(t)
			require.Len(t, v.issued, 1)
			return v.issued[0]
		}
		h := newTheatre(t, policy(session.Cookie{Secret: secret, MaxAge: time.Minute}), addresses)
		good := issue(h)
		foreignKey := issue(newTheatre(t, policy(session.Cookie{Secret: session.NewSecret([]byte(strings.Repeat("other secret", 4)))}), addresses))
		other := newTheatre(t, policy(session.Cookie{Secret: secret, Name: "other"}), addresses)
		v := other.visitor(t)
		resp, err := v.do(t, "/")
		require.NoError(t, err)
		foreignName := resp.Cookies()[0]

		raw, err := base64.RawURLEncoding.DecodeString(good.Value)
		require.NoError(t, err)
		flipped := func(at int) string {
			b := append([]byte(nil), raw...)
			b[at] ^= 1
			return base64.RawURLEncoding.EncodeToString(b)
		}
		send := func(value string) (*http.Response, []session.Event) {
			req := getRequest(t, "http://users/")
			req.Header.Set("Cookie", good.Name+"="+value)
			resp, err := h.tr.RoundTrip(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			return resp, h.told()
		}
		bad := map[string]string{
			"truncated": good.Value[:len(good.Value)-1], "longer": good.Value + "A", "no base64": strings.Repeat("!", len(good.Value)),
			"an address": "MTAuMS4yLjM6ODA", "another key": foreignKey.Value, "another name": foreignName.Value, "quoted": `"x"`,
		}
		for i := range raw {
			bad[fmt.Sprint("bit in byte ", i)] = flipped(i)
		}
		for name, value := range bad {
			resp, events := send(value)
			require.Len(t, events, 1, name)
			assert.Equal(t, session.Rejected, events[0].Kind, name)
			assert.NotEmpty(t, events[0].Cause, name)
			require.Len(t, resp.Cookies(), 1, name)
			for field, values := range resp.Header {
				assert.NotContains(t, strings.Join(values, " "), "10.1", "%s: %s", name, field)
			}
			_, events = send(resp.Cookies()[0].Value)
			assert.Empty(t, events, "%s: the new one is good", name)
		}
		resp, events := send(good.Value)
		assert.Empty(t, events)
		assert.Empty(t, resp.Cookies())
		assert.NotContains(t, string(raw), "10.1")
		assert.EqualValues(t, len(bad), h.tr.Stats().Session.Rejected)
		time.Sleep(time.Minute + time.Second)
		resp, events = send(good.Value)
		assert.Equal(t, []session.Event{{Kind: session.Rejected, Cause: "expired"}}, events)
		assert.Len(t, resp.Cookies(), 1)
	})
}

// Errors because of a session tell no address either.
func TestSession_ErrorsTellNoAddress_S03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Cookie{Secret: secret}, Strict: true}, []string{"10.1.2.3:80", "10.1.2.4:80"})
		v := h.visitor(t)
		at := v.visit(t)
		for _, a := range []string{"10.1.2.3:80", "10.1.2.4:80"} {
			if a != at {
				h.set(a)
			}
		}
		_, err := v.do(t, "/")
		require.ErrorIs(t, err, session.ErrUnavailable)
		assert.NotContains(t, err.Error(), "10.1")
		assert.Equal(t, outcome.NoEndpoints, outcome.ReasonOf(err))
	})
}

// The cookie says what is safe: for a target over TLS, over TLS only; and nothing to scripts.
func TestSession_CookieIsSafe_S04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Cookie{Secret: secret}}, []string{"a:80"})
		v := h.visitor(t)
		v.visit(t)
		require.Len(t, v.issued, 1)
		assert.False(t, v.issued[0].Secure, "it would not come back")
		list := newPushed()
		tr := h.transport(t, list, evenkeel.WithSession(session.Policy{By: session.Cookie{Secret: secret}}))
		list.push(listed("a:80")...)
		passedOn := getRequest(t, "http://users/")
		passedOn.RemoteAddr = "192.0.2.1:1234"
		passedOn.Header.Set("X-Forwarded-Proto", "https")
		resp, err := tr.RoundTrip(passedOn)
		require.NoError(t, err)
		resp.Body.Close()
		require.Len(t, resp.Cookies(), 1)
		c := resp.Cookies()[0]
		assert.True(t, c.Secure)
		for _, c := range []*http.Cookie{c, v.issued[0]} {
			assert.True(t, c.HttpOnly)
			assert.Equal(t, "/", c.Path)
			assert.Equal(t, http.SameSiteLaxMode, c.SameSite)
			assert.Empty(t, c.Domain)
		}
	})
}

package session_test

import (
	"crypto/tls"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/session"
)

var secret = session.NewSecret([]byte("0123456789abcdef0123456789abcdef"))

// cookieOf returns the only cookie that an answer sets.
func cookieOf(t testing.TB, resp *http.Response) *http.Cookie {
	t.Helper()
	require.Len(t, resp.Header["Set-Cookie"], 1)
	c, err := http.ParseSetCookie(resp.Header.Get("Set-Cookie"))
	require.NoError(t, err)
	return c
}

// with returns a request that brings a cookie back.
func with(t testing.TB, c *http.Cookie) *http.Request {
	t.Helper()
	return get(t, "Cookie: "+c.Name+"="+c.Value)
}

func TestCookie_Attributes_S04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about string
			by    session.Cookie
			want  http.Cookie
		}{
			{"defaults", session.Cookie{}, http.Cookie{Name: "evenkeel-10a53bd2", Path: "/", SameSite: http.SameSiteLaxMode}},
			{
				"all",
				session.Cookie{
					Name: "seat", Path: "/shop", Domain: "example.com", MaxAge: 90 * time.Minute, Secure: session.SecureAlways,
					SameSite: http.SameSiteStrictMode,
				},
				http.Cookie{
					Name: "seat", Path: "/shop", Domain: "example.com", MaxAge: 5400, Secure: true, SameSite: http.SameSiteStrictMode,
					Expires: time.Now().Add(90 * time.Minute).UTC(), RawExpires: time.Now().Add(90 * time.Minute).UTC().Format(http.TimeFormat),
				},
			},
			{
				"None",
				session.Cookie{Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode},
				http.Cookie{Name: "evenkeel-10a53bd2", Path: "/", Secure: true, SameSite: http.SameSiteNoneMode},
			},
			{
				"__Host-",
				session.Cookie{Name: "__Host-seat", Secure: session.SecureAlways},
				http.Cookie{Name: "__Host-seat", Path: "/", Secure: true, SameSite: http.SameSiteLaxMode},
			},
			{
				"Partitioned",
				session.Cookie{Name: "__Host-seat", Secure: session.SecureAlways, Partitioned: true},
				http.Cookie{Name: "__Host-seat", Path: "/", Secure: true, SameSite: http.SameSiteLaxMode, Partitioned: true},
			},
		} {
			row.by.Secret = secret
			h := newHouse(t, session.Policy{By: row.by})
			_, resp := h.ask(t, get(t))
			got := *cookieOf(t, resp)
			assert.NotEmpty(t, got.Value)
			row.want.HttpOnly = true
			got.Value, got.Raw = "", ""
			assert.Equal(t, row.want, got, row.about)
		}
	})
}

// Secure is for callers that came over TLS, as a server saw it, or what is before that, or as the URL says where
// no server passes the request on.
func TestCookie_Secure_S04(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			about  string
			change func(*http.Request)
			auto   bool
		}{
			{"http", func(*http.Request) {}, false},
			{"https", func(r *http.Request) { r.URL.Scheme = "https" }, true},
			{"a client's own header", func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, false},
			{"http to a gateway, https behind", func(r *http.Request) { r.RemoteAddr, r.URL.Scheme = "192.0.2.1:1", "https" }, false},
			{"https to a gateway", func(r *http.Request) { r.RemoteAddr, r.TLS = "192.0.2.1:1", &tls.ConnectionState{} }, true},
			{"https before a gateway", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"https"}}
			}, true},
			{"in capitals", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"HTTPS"}}
			}, true},
			{"http before a gateway", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"http"}}
			}, false},
			{"https, then http between two gateways", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"https, http"}}
			}, true},
			{"with spaces, in capitals", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {" HTTPS ,http,http"}}
			}, true},
			{"http, then https between two gateways", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"http, https"}}
			}, false},
			{"on two lines", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {"http", "https"}}
			}, false},
			{"a list that begins with nothing", func(r *http.Request) {
				r.RemoteAddr, r.Header = "192.0.2.1:1", http.Header{"X-Forwarded-Proto": {", https"}}
			}, false},
		} {
			for _, secure := range []session.Secure{session.SecureAuto, session.SecureAlways, session.SecureNever} {
				h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret, Secure: secure}})
				req := get(t)
				row.change(req)
				_, resp := h.ask(t, req)
				want := (row.auto || secure == session.SecureAlways) && secure != session.SecureNever
				assert.Equal(t, want, cookieOf(t, resp).Secure, "%s, %d", row.about, secure)
				assert.True(t, cookieOf(t, resp).HttpOnly)
			}
		}
	})
}

// A cookie is renewed with the first request in the last three quarters of its time, and so lives on.
func TestCookie_Renewal_S03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret, MaxAge: time.Hour}})
		time.Sleep(10 * time.Second) // the seconds of a cookie begin with whole ones
		first, resp := h.ask(t, get(t))
		c := cookieOf(t, resp)
		for range 5 {
			time.Sleep(15 * time.Minute)
			address, resp := h.ask(t, with(t, c))
			assert.Equal(t, first, address)
			assert.Empty(t, resp.Header["Set-Cookie"], "not before a quarter")

			time.Sleep(time.Second)
			h.let(answers(http.StatusInternalServerError), all...)
			_, resp = h.ask(t, with(t, c))
			assert.Empty(t, resp.Header["Set-Cookie"], "not with a failure")
			h.let(answers(http.StatusNotFound), all...)
			address, resp = h.ask(t, with(t, c))
			assert.Equal(t, first, address)
			renewed := cookieOf(t, resp)
			assert.NotEqual(t, c.Value, renewed.Value)
			c = renewed
		}
		assert.Equal(t, session.Status{New: 1, Kept: 15}, h.keeper.Status())
		time.Sleep(time.Hour + time.Second)
		_, resp = h.ask(t, with(t, c))
		assert.NotEqual(t, c.Value, cookieOf(t, resp).Value)
		assert.Equal(t, session.Status{New: 2, Kept: 15, Rejected: 1}, h.keeper.Status())
		h.assertClean(t)
	})
}

// What is not valid costs nothing but a new cookie; during a rotation, an old one is replaced at its endpoint.
func TestCookie_IsReplaced_S03(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Name: "evenkeel", Secret: secret}})
		first, resp := h.ask(t, get(t))
		c := cookieOf(t, resp)
		_, resp = h.ask(t, get(t, "Cookie: evenkeel=forged"))
		assert.NotEmpty(t, cookieOf(t, resp).Value)

		fresh := session.NewSecret([]byte("fedcba9876543210fedcba9876543210"))
		require.NoError(t, h.keeper.Use(&session.Policy{By: session.Cookie{Name: "evenkeel", Secret: fresh, Previous: secret}}))
		address, resp := h.ask(t, with(t, c))
		assert.Equal(t, first, address)
		renewed := cookieOf(t, resp)
		require.NoError(t, h.keeper.Use(&session.Policy{By: session.Cookie{Name: "evenkeel", Secret: fresh}}))
		address, resp = h.ask(t, with(t, renewed))
		assert.Equal(t, first, address)
		assert.Empty(t, resp.Header["Set-Cookie"])
		_, resp = h.ask(t, with(t, c))
		assert.NotEmpty(t, cookieOf(t, resp).Value)
		assert.Equal(t, session.Status{New: 3, Kept: 2, Rejected: 2}, h.keeper.Status())
		assert.Equal(t, []session.EventKind{session.Rejected, session.Rejected}, h.kinds())
	})
}

// A cookie of the same name that the server sets is the one.
func TestCookie_TheServersWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for line, ours := range map[string]bool{
			"evenkeel=x":                     false,
			"evenkeel=; Max-Age=0":           false,
			"evenkeel =x; Path=/":            false,
			"Evenkeel=x":                     true,
			"evenkeel2=x":                    true,
			"other=evenkeel=x":               true,
			"other=x; Path=/; evenkeel=nope": true,
		} {
			h := newHouse(t, session.Policy{By: session.Cookie{Name: "evenkeel", Secret: secret}})
			h.let(answers(http.StatusOK, "Set-Cookie: a=b", "Set-Cookie: "+line), all...)
			_, resp := h.ask(t, get(t))
			want := []string{"a=b", line}
			got := resp.Header["Set-Cookie"]
			require.GreaterOrEqual(t, len(got), 2)
			assert.Equal(t, want, got[:2])
			assert.Equal(t, ours, len(got) == 3, line)
		}
	})
}

// Given A fails and the retry at B answers, then the cookie names B, once.
func TestCookie_NamesWhoAnswered_S02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}}).retrying(t)
		first, resp := h.ask(t, get(t))
		c := cookieOf(t, resp)
		h.let(breaks, first)
		second, resp := h.ask(t, with(t, c))
		assert.NotEqual(t, first, second)
		moved := cookieOf(t, resp)
		h.let(nil, first)
		address, resp := h.ask(t, with(t, moved))
		assert.Equal(t, second, address)
		assert.Empty(t, resp.Header["Set-Cookie"])
		require.Len(t, h.events, 1)
		assert.Equal(t, session.Event{Time: h.events[0].Time, Kind: session.Moved, From: first, To: second, Cause: "attempt failed"}, h.events[0])

		h.let(breaks, all...)
		_, err := h.RoundTrip(with(t, moved))
		assert.ErrorIs(t, err, errBroken)
		h.assertClean(t)
	})
}

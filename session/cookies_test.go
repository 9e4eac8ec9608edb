package session

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// permuted calls f with all orders of these lines.
func permuted(lines []string, f func([]string)) {
	var rest func(n int)
	rest = func(n int) {
		if n == len(lines) {
			f(slices.Clone(lines))
			return
		}
		for i := n; i < len(lines); i++ {
			lines[n], lines[i] = lines[i], lines[n]
			rest(n + 1)
			lines[n], lines[i] = lines[i], lines[n]
		}
	}
	rest(0)
}

// Of up to 16 cookies with the name, the one that was issued last counts, of those whose endpoint is known if there
// are such. Those that are not valid are not worth telling then.
func TestCookie_SeveralOfTheName(t *testing.T) {
	t.Parallel()
	w := newTestWay(Cookie{Secret: secretNo(1)})
	line := func(endpoint string, at time.Time) string { return "evenkeel=" + w.issued(endpoint, at) }
	b, c := line("b:80", dawn.Add(-hour)), line("c:80", dawn)
	left, leftLater := line("y:80", dawn.Add(time.Second)), line("z:80", dawn.Add(2*time.Second))
	junk := func(n int) string { return strings.Repeat("evenkeel=x; ", n) }
	for _, row := range []struct {
		about    string
		lines    []string
		home     string
		key      string // that of the cookie, if it matters
		rejected uint64
	}{
		{"none", nil, "", "", 0},
		{"others only", []string{"evenkeel2=x; xevenkeel=y; Evenkeel=z; evenkeel.x=1"}, "", "", 0},
		{"alone", []string{b}, "b:80", b, 0},
		{"among others", []string{"a=1; " + b + "; c=2"}, "b:80", b, 0},
		{"the newer one last", []string{b + "; " + c}, "c:80", c, 0},
		{"the newer one first", []string{c + "; " + b}, "c:80", c, 0},
		{"on two lines", []string{b, c}, "c:80", c, 0},
		{"on two lines, the other way round", []string{c, b}, "c:80", c, 0},
		{"the same one twice", []string{b + "; " + b}, "b:80", b, 0},
		{"gone, alone", []string{left}, gone, left, 0},
		{"gone, and older", []string{left + "; " + leftLater}, gone, leftLater, 0},
		{"gone, and newer", []string{leftLater + "; " + left}, gone, leftLater, 0},
		{"gone, but newer than a known one", []string{left + "; " + b}, "b:80", b, 0},
		{"gone, but newer than the known one before", []string{b + "; " + left}, "b:80", b, 0},
		{"after a bad one", []string{"evenkeel=x; " + b}, "b:80", b, 0},
		{"before a bad one", []string{b + "; evenkeel=x"}, "b:80", b, 0},
		{"gone, and bad ones", []string{"evenkeel=x; " + left + "; evenkeel=x"}, gone, left, 0},
		{"the sixteenth", []string{junk(7), junk(8) + b}, "b:80", b, 0},
		{"the seventeenth", []string{junk(8), junk(8) + b}, "", "", 1},
		{"the newer one is the sixteenth", []string{strings.Repeat(b+"; ", 15) + c}, "c:80", c, 0},
		{"the newer one is the seventeenth", []string{strings.Repeat(b+"; ", 16) + c}, "b:80", b, 0},
		{"what net/http drops", []string{strings.Repeat(`evenkeel="; evenkeel=a\b; `, 100) + c}, "c:80", c, 0},
		{"in quotes", []string{`evenkeel="` + strings.TrimPrefix(b, "evenkeel=") + `"`}, "b:80", b, 0},
		{"10,000 bad ones", []string{junk(10_000)}, "", "", 1},
	} {
		n := newNoted(t, Cookie{Secret: secretNo(1)})
		v := n.begun(with(t, row.lines...))
		assert.Equal(t, row.home, v.home(), row.about)
		assert.Equal(t, strings.TrimPrefix(row.key, "evenkeel="), v.key, row.about)
		assert.Equal(t, row.rejected, n.Status().Rejected, row.about)
		assert.Len(t, n.events, int(row.rejected), row.about)
	}
	n := newNoted(t, Cookie{Secret: secretNo(1)})
	assert.Empty(t, n.begun(&http.Request{URL: with(t).URL}).home(), "no headers at all")
}

// The order in which cookies come does not matter.
func TestCookie_SeveralInEveryOrder(t *testing.T) {
	t.Parallel()
	const maxAge = 4 * hour
	w := newTestWay(Cookie{Secret: secretNo(1), MaxAge: maxAge})
	before := newTestWay(Cookie{Secret: secretNo(2), MaxAge: maxAge})
	n := newNoted(t, Cookie{Secret: secretNo(1), Previous: secretNo(2), MaxAge: maxAge})
	orders := 0
	for _, row := range []struct {
		others []string // than the one that counts
		want   string
		home   string
		renew  bool
	}{
		{[]string{w.issued("a:80", dawn.Add(-time.Minute)), before.issued("b:80", dawn.Add(-2*time.Second))}, w.issued("c:80", dawn.Add(-time.Second)), "c:80", false},
		{[]string{w.issued("a:80", dawn.Add(-time.Minute)), w.issued("b:80", dawn.Add(-2*time.Second))}, before.issued("c:80", dawn.Add(-time.Second)), "c:80", true},
		{[]string{w.issued("a:80", dawn.Add(-3*hour)), before.issued("b:80", dawn.Add(-3*hour))}, w.issued("b:80", dawn.Add(-2*hour)), "b:80", true},
		{[]string{before.issued("y:80", dawn.Add(-2*hour)), w.issued("y:80", dawn.Add(-hour))}, w.issued("z:80", dawn), gone, false},
	} {
		junk := []string{"x", w.issued("a:80", dawn.Add(-5*hour)), w.issued("a:80", dawn.Add(25*hour))}
		if row.home != gone {
			junk = append(junk, w.issued("z:80", dawn.Add(time.Minute)))
		}
		var lines []string
		for _, value := range append(append(junk, row.others...), row.want) {
			lines = append(lines, "evenkeel="+value)
		}
		permuted(lines, func(lines []string) {
			v := n.begun(with(t, lines...))
			if v.home() != row.home || v.key != row.want || v.renew != row.renew {
				t.Errorf("%q: at %q, by %q, renewed %v", lines, v.home(), v.key, v.renew)
			}
			orders++
		})
	}
	assert.Equal(t, 3*5040+720, orders)
	assert.Equal(t, Status{}, n.Status())
	assert.Empty(t, n.events)
}

// Each target has a name of its own, so that services behind one site do not take each other's cookies away.
func TestCookie_DefaultName(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, row := range []struct{ target, want string }{
		{"", "evenkeel"},
		{"http://users:80", "evenkeel-10a53bd2"},
		{"http://orders:80", ""},
		{"https://users:80", ""},
		{"http://users:8080", ""},
		{"http://USERS:80", ""},
	} {
		k, err := NewKeeper(Config{Target: row.target, Policy: &Policy{By: Cookie{Secret: secretNo(1)}}})
		require.NoError(t, err)
		name := func() string { return k.work.Load().way.(*cookieWay).Name }
		got := name()
		if row.target != "" {
			assert.Regexp(t, "^evenkeel-[0-9a-f]{8}$", got)
		}
		if row.want != "" {
			assert.Equal(t, row.want, got)
		}
		assert.Empty(t, names[got], row.target)
		names[got] = "of " + row.target

		k.Endpoints(listed("a:80"))
		require.NoError(t, k.Use(&Policy{By: Cookie{Secret: secretNo(2), Previous: secretNo(1)}}))
		assert.Equal(t, got, name(), "another secret makes no other name")
		require.NoError(t, k.Use(&Policy{By: Cookie{Name: "seat", Secret: secretNo(1)}}))
		assert.Equal(t, "seat", name())
	}
}

// A map of headers that a transport gives to several answers is not changed, nor are its lists.
func TestCookie_SharedHeaders(t *testing.T) {
	t.Parallel()
	room := make([]string, 1, 8)
	room[0] = "a=b"
	control := make([]string, 1, 8)
	control[0] = "max-age=60"
	shared := http.Header{"Set-Cookie": room, "Cache-Control": control, "X-Other": {"x"}}
	before := shared.Clone()
	c := Cookie{Name: "seat", Secret: secretNo(1), Path: "/", Private: true}
	var answers []*http.Response
	for _, value := range []string{"one", "two"} {
		resp := &http.Response{Header: shared}
		c.issue(resp, value, dawn, false)
		answers = append(answers, resp)
	}
	assert.Equal(t, before, shared)
	assert.Equal(t, make([]string, 7), room[1:8], "nor the room behind them")
	assert.Equal(t, make([]string, 7), control[1:8])
	for i, value := range []string{"one", "two"} {
		assert.Equal(t, http.Header{
			"Set-Cookie":    {"a=b", "seat=" + value + "; Path=/; HttpOnly"},
			"Cache-Control": {"max-age=60", "private"},
			"X-Other":       {"x"},
		}, answers[i].Header)
	}
}

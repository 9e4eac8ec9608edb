package session

import (
	"bytes"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

func TestCookie_NamesTheField_P02(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		field  string
		change func(*Cookie)
	}{
		{"Secret", func(c *Cookie) { c.Secret = NewSecret(nil) }},
		{"Secret", func(c *Cookie) { c.Secret = Secret{} }},
		{"Secret", func(c *Cookie) { c.Secret = short(1) }},
		{"Secret", func(c *Cookie) { c.Secret = NewSecret(make([]byte, 32)) }},
		{"Secret", func(c *Cookie) { c.Secret = NewSecret(bytes.Repeat([]byte{0xff}, 64)) }},
		{"Secret", func(c *Cookie) { c.Secret = NewSecret([]byte(strings.Repeat("x", 32))) }},
		{"Previous", func(c *Cookie) { c.Previous = secretNo(1) }},
		{"Previous", func(c *Cookie) { c.Previous = short(2) }},
		{"Previous", func(c *Cookie) { c.Previous = NewSecret([]byte{1}) }},
		{"Previous", func(c *Cookie) { c.Previous = NewSecret(make([]byte, 32)) }},
		{"Name", func(c *Cookie) { c.Name = " " }},
		{"Name", func(c *Cookie) { c.Name = "a b" }},
		{"Name", func(c *Cookie) { c.Name = "a;b" }},
		{"Name", func(c *Cookie) { c.Name = "a=b" }},
		{"Name", func(c *Cookie) { c.Name = "a,b" }},
		{"Name", func(c *Cookie) { c.Name = "a\r\nb" }},
		{"Name", func(c *Cookie) { c.Name = "\"a\"" }},
		{"Name", func(c *Cookie) { c.Name = "ä" }},
		{"Name", func(c *Cookie) { c.Name, c.Secure, c.Path = "__Host-a", SecureAlways, "/x" }},
		{"Name", func(c *Cookie) { c.Name, c.Secure, c.Domain = "__Host-a", SecureAlways, "example.com" }},
		{"Secure", func(c *Cookie) { c.Name = "__Host-a" }},
		{"Secure", func(c *Cookie) { c.Name, c.Secure = "__Host-a", SecureNever }},
		{"Secure", func(c *Cookie) { c.Name = "__Secure-a" }},
		{"Secure", func(c *Cookie) { c.Secure = 3 }},
		{"Secure", func(c *Cookie) { c.Secure = 255 }},
		{"SameSite", func(c *Cookie) { c.SameSite = http.SameSiteNoneMode }},
		{"SameSite", func(c *Cookie) { c.SameSite, c.Secure = http.SameSiteNoneMode, SecureNever }},
		{"SameSite", func(c *Cookie) { c.SameSite = http.SameSiteDefaultMode }},
		{"SameSite", func(c *Cookie) { c.SameSite = 5 }},
		{"SameSite", func(c *Cookie) { c.SameSite = -1 }},
		{"Partitioned", func(c *Cookie) { c.Partitioned = true }},
		{"Partitioned", func(c *Cookie) { c.Partitioned, c.Secure = true, SecureNever }},
		{"Path", func(c *Cookie) { c.Path = "x" }},
		{"Path", func(c *Cookie) { c.Path = "x/" }},
		{"Path", func(c *Cookie) { c.Path = " /" }},
		{"Path", func(c *Cookie) { c.Path = "/;Domain=evil.example" }},
		{"Path", func(c *Cookie) { c.Path = "/\r\nX: y" }},
		{"Path", func(c *Cookie) { c.Path = "/\x00" }},
		{"Path", func(c *Cookie) { c.Path = "/\x7f" }},
		{"Path", func(c *Cookie) { c.Path = "/ä" }},
		{"Domain", func(c *Cookie) { c.Domain = "." }},
		{"Domain", func(c *Cookie) { c.Domain = "..com" }},
		{"Domain", func(c *Cookie) { c.Domain = "a..com" }},
		{"Domain", func(c *Cookie) { c.Domain = "example.com." }},
		{"Domain", func(c *Cookie) { c.Domain = "example com" }},
		{"Domain", func(c *Cookie) { c.Domain = "example.com;Secure" }},
		{"Domain", func(c *Cookie) { c.Domain = "example.com:80" }},
		{"Domain", func(c *Cookie) { c.Domain = "http://example.com" }},
		{"Domain", func(c *Cookie) { c.Domain = "exämple.com" }},
		{"Domain", func(c *Cookie) { c.Domain = "example.com\r\nX: y" }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = -1 }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = -hour }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = 1 }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = 500 * time.Millisecond }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = time.Second - 1 }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = 400*24*hour + 1 }},
		{"MaxAge", func(c *Cookie) { c.MaxAge = 500 * 24 * hour }},
	} {
		c := Cookie{Secret: secretNo(1)}
		row.change(&c)
		p := Policy{By: c}
		err := p.Validate()
		require.Error(t, err, "%s: %+v", row.field, c)
		assert.Equal(t, []string{"By." + row.field}, problems(t, err), "%v", err)
		assert.Equal(t, []string{"By." + row.field}, problems(t, p.WithDefaults().Validate()), "with defaults: %v", err)
		assert.Equal(t, []string{"Policy.By." + row.field}, problems(t, Config{Policy: &p}.Validate()))
		k, made := NewKeeper(Config{Policy: &p})
		assert.Nil(t, k)
		assert.Equal(t, []string{"Policy.By." + row.field}, problems(t, made))

		n := newNoted(t, Cookie{Secret: secretNo(1)})
		before := n.work.Load()
		assert.Equal(t, err, n.Use(&p))
		assert.Same(t, before, n.work.Load(), "nothing has changed")
	}
}

func TestCookie_AllProblemsAtOnce_P02(t *testing.T) {
	t.Parallel()
	err := Policy{
		By: Cookie{
			Name: "a b", Secret: short(1), Previous: NewSecret(make([]byte, 40)), Path: "x", Domain: "a..b", MaxAge: -1, Secure: 7, SameSite: 9,
			Partitioned: true,
		},
		DrainFor: -1, StoreTimeout: -1,
	}.Validate()
	assert.Equal(t, []string{
		"By.Name", "By.Secret", "By.Previous", "By.Path", "By.Domain", "By.MaxAge", "By.Secure", "By.SameSite", "By.Partitioned", "DrainFor", "StoreTimeout",
	}, problems(t, err))
	assert.ElementsMatch(t, []string{"By.Name", "By.Secure", "By.SameSite"}, problems(t, Policy{By: Cookie{
		Name: "__Host-a", Secret: secretNo(1), Domain: "example.com", SameSite: http.SameSiteNoneMode,
	}}.Validate()))
	var problem *field.Error
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, "a b", problem.Value)
}

var goodCookies = []Cookie{
	{},
	{Name: "!#$%&'*+-.^_`|~09azAZ"},
	{Name: "__Host-a", Secure: SecureAlways},
	{Name: "__Host-a", Secure: SecureAlways, Path: "/"},
	{Name: "__Secure-a", Secure: SecureAlways, Path: "/x", Domain: "example.com"},
	{Previous: secretNo(2)},
	{Previous: Secret{}},
	{Path: "/a b,c=d~"},
	{Domain: ".example.com"},
	{Domain: "localhost"},
	{Domain: "a-b.EXAMPLE.co.uk"},
	{MaxAge: time.Second},
	{MaxAge: 1500 * time.Millisecond},
	{MaxAge: 400 * 24 * hour},
	{Secure: SecureNever, SameSite: http.SameSiteStrictMode},
	{Secure: SecureAlways, SameSite: http.SameSiteNoneMode},
	{Secure: SecureAlways, Partitioned: true},
	{Private: true},
}

// What is allowed can be written into an answer as it is: net/http drops nothing of it, and does not
// log anything.
func TestCookie_Allowed(t *testing.T) { //nolint:paralleltest // it looks at what the program logs
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(log.Default().Writer())
	for _, c := range goodCookies {
		c.Secret = secretNo(1)
		p := Policy{By: c}
		require.NoError(t, p.Validate(), "%+v", c)
		filled := p.WithDefaults()
		require.NoError(t, filled.Validate(), "with its defaults: %+v", c)
		assert.Equal(t, filled, filled.WithDefaults(), "a second time")

		named := c.Name
		c = newCookieWay(filled.By.(Cookie), target, nil, nil, nil).Cookie
		if named == "" {
			named = "evenkeel-10a53bd2"
		}
		resp := &http.Response{}
		c.issue(resp, "value", dawn, true)
		got, err := http.ParseSetCookie(resp.Header.Get("Set-Cookie"))
		require.NoError(t, err)
		assert.Equal(t, named, got.Name)
		assert.Equal(t, "value", got.Value)
		assert.Equal(t, c.Path, got.Path)
		assert.Equal(t, strings.TrimPrefix(c.Domain, "."), got.Domain)
		assert.Equal(t, int(c.MaxAge/time.Second), got.MaxAge)
		assert.Equal(t, c.SameSite, got.SameSite)
		assert.True(t, got.HttpOnly)
		assert.True(t, got.Secure)
		assert.Equal(t, c.Partitioned, got.Partitioned)
		assert.Equal(t, c.Private, resp.Header.Get("Cache-Control") == "private")
		assert.Empty(t, got.Unparsed)
		if c.MaxAge == 0 {
			assert.True(t, got.Expires.IsZero())
		} else {
			assert.Equal(t, dawn.Add(c.MaxAge).Truncate(time.Second), got.Expires)
		}
	}
	assert.Empty(t, logged.String())
}

func TestPolicy_DocumentedDefaults(t *testing.T) {
	t.Parallel()
	assert.Equal(t, Policy{
		By: Cookie{
			Name: "", Secret: secretNo(1), Path: "/", MaxAge: 0, Secure: SecureAuto, SameSite: http.SameSiteLaxMode,
		},
		StoreTimeout: 100 * time.Millisecond,
	}, Policy{By: Cookie{Secret: secretNo(1)}}.WithDefaults())
	assert.Equal(t, Policy{By: Key{TTL: 10 * time.Minute, MaxSessions: 65536}, StoreTimeout: time.Hour},
		Policy{By: Key{}, StoreTimeout: time.Hour}.WithDefaults())
	assert.Equal(t, Policy{By: Learn{Cookie: "a", TTL: time.Second, MaxSessions: 65536}, StoreTimeout: 100 * time.Millisecond},
		Policy{By: Learn{Cookie: "a", TTL: time.Second}}.WithDefaults())
}

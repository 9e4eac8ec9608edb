package session

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A Domain that net/http drops (and logs a line about, for each answer) is refused.
func TestCookie_DomainThatNetHTTPDrops(t *testing.T) {
	for _, domain := range []string{"-a.example", "a-.example", "123.456", "1", strings.Repeat("x", 64) + ".example", strings.Repeat("abcd.", 60) + "com", "a.-b"} {
		c := Cookie{Secret: secretNo(1), Domain: domain}
		if (Policy{By: c}).Validate() != nil {
			continue
		}
		resp := &http.Response{}
		c, _ = c.withDefaults().(Cookie)
		c.issue(resp, "v", dawn, true)
		got, err := http.ParseSetCookie(resp.Header.Get("Set-Cookie"))
		require.NoError(t, err)
		assert.Equal(t, domain, got.Domain)
	}
}

// Browsers compare the prefixes without regard to case (draft-ietf-httpbis-rfc6265bis, section 5.7).
func TestCookie_PrefixInAnyCase(t *testing.T) {
	for _, name := range []string{"__host-a", "__HOST-a", "__secure-a"} {
		assert.Error(t, Policy{By: Cookie{Secret: secretNo(1), Name: name}}.Validate(), name)
	}
}

// A cookie is good for as long as its Max-Age says, also if it was issued late in a second.
func TestCookie_GoodForMaxAge(t *testing.T) {
	w := newTestWay(Cookie{Secret: secretNo(1), MaxAge: 1e9})
	at := dawn.Add(900e6)
	_, _, err := w.opened(w.issued("a:80", at), at.Add(200e6))
	assert.NoError(t, err, "it is 0.2s old")
}

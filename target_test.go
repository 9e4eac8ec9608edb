package evenkeel

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

func TestParseTarget(t *testing.T) {
	for _, row := range []struct {
		text string
		want string // empty: an error
	}{
		{"http://users", "http://users:80"},
		{"https://Users.Internal.", "https://users.internal:443"},
		{"http://users:8080/", "http://users:8080"},
		{"https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"},
		{"http://10.0.0.1", "http://10.0.0.1:80"},
		{"", ""},
		{"users:8080", ""},
		{"http://", ""},
		{"http://:8080", ""},
		{"http://users:0", ""},
		{"http://users:65536", ""},
		{"http://users:http", ""},
		{"ftp://users", ""},
		{"http://users/api", ""},
		{"http://users?x=1", ""},
		{"http://users#x", ""},
		{"http://joe:secret@users", ""},
		{"http://us ers", ""},
		{"http://%zz", ""},
	} {
		got, err := parseTarget(row.text)
		if row.want == "" {
			var problem *FieldError
			require.ErrorAs(t, err, &problem, "%q", row.text)
			assert.Equal(t, "Target", problem.Field)
			assert.NotContains(t, err.Error(), "secret")
			continue
		}
		require.NoError(t, err, "%q", row.text)
		assert.Equal(t, row.want, got.String())
	}
}

func TestTarget_Serves(t *testing.T) {
	for _, row := range []struct {
		target, url string
		want        bool
	}{
		{"http://users", "http://users/x", true},
		{"http://users", "http://USERS:80/x", true},
		{"http://users", "http://users./x", true},
		{"http://users:8080", "http://users:8080", true},
		{"https://[::1]:443", "https://[::1]/", true},
		{"http://users", "https://users/x", false},
		{"http://users", "http://users:8080/x", false},
		{"http://users:8080", "http://users/x", false},
		{"http://users", "http://orders/x", false},
		{"http://users", "http://users:x/", false},
	} {
		target, err := parseTarget(row.target)
		require.NoError(t, err)
		u := &url.URL{}
		if parsed, err := url.Parse(row.url); err == nil {
			u = parsed
		}
		assert.Equal(t, row.want, target.serves(u), "%s for %s", row.url, row.target)
	}
}

func TestTarget_Resolver(t *testing.T) {
	for text, want := range map[string]discovery.Resolver{
		"http://10.0.0.1:81": discovery.Static{"10.0.0.1:81"},
		"https://[::1]":      discovery.Static{"[::1]:443"},
		"http://users":       discovery.DNS{Host: "users", Port: 80},
	} {
		target, err := parseTarget(text)
		require.NoError(t, err)
		assert.Equal(t, want, target.resolver(), text)
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"http://users:8080", "https://[::1]:1", "http://a:b@c?d#e", "http://%41", "://", "http://[::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := parseTarget(text)
		if err != nil {
			return
		}
		again, err := parseTarget(target.String())
		require.NoError(t, err, "%q became %q", text, target)
		assert.Equal(t, target, again)
	})
}

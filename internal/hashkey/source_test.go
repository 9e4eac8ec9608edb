package hashkey

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

func noValue(*http.Request) string { return "" }

func TestSource_Validate(t *testing.T) {
	t.Parallel()
	const (
		none  = "Header: must be set, or else Cookie, Query, Path, ClientAddress or Func (got \"\")"
		token = ": must be a token (RFC 9110, section 5.6.2) "
	)
	for _, row := range []struct {
		name   string
		source Source
		want   string // "" is valid
	}{
		{"header", Source{Header: "x-User_1"}, ""},
		{"host", Source{Header: "host"}, ""},
		{"cookie", Source{Cookie: "__Host-id!"}, ""},
		{"query", Source{Query: "any thing;&=%"}, ""},
		{"path", Source{Path: true}, ""},
		{"address", Source{ClientAddress: true, Terminal: true}, ""},
		{"func", Source{Func: noValue}, ""},

		{"none", Source{}, none},
		{"only terminal", Source{Terminal: true}, none},
		{"space", Source{Header: "X User"}, "Header" + token + `(got "X User")`},
		{"colon", Source{Header: "X-User:"}, "Header" + token + `(got "X-User:")`},
		{"not ASCII", Source{Header: "Ä"}, "Header" + token + `(got "Ä")`},
		{"bad cookie", Source{Cookie: "a=b"}, "Cookie" + token + `(got "a=b")`},
		{
			"two",
			Source{Path: true, Func: noValue},
			`Func: must not be set together with Path (got "set")`,
		},
		{
			"all, and wrong",
			Source{Header: " ", Cookie: ";", Query: "q", Path: true, ClientAddress: true, Func: noValue},
			"Header" + token + `(got " ")` + "\n" +
				"Cookie" + token + `(got ";")` + "\n" +
				`Cookie: must not be set together with Header (got ";")` + "\n" +
				`Query: must not be set together with Header (got "q")` + "\n" +
				`Path: must not be set together with Header (got true)` + "\n" +
				`ClientAddress: must not be set together with Header (got true)` + "\n" +
				`Func: must not be set together with Header (got "set")`,
		},
	} {
		err := row.source.Validate()
		if row.want == "" {
			assert.NoError(t, err, row.name)
			continue
		}
		assert.EqualError(t, err, row.want, row.name)
	}
}

func TestSources_Validate(t *testing.T) {
	t.Parallel()
	require.NoError(t, Sources(nil).Validate())
	require.NoError(t, Sources{{Path: true}, {Header: "A", Terminal: true}}.Validate())

	err := Sources{{Path: true}, {Header: "a b"}, {}, {Cookie: "c", Path: true}}.Validate()
	require.Error(t, err)
	var problem *field.Error
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, "[1].Header", problem.Field)
	assert.Equal(t, "a b", problem.Value)
	assert.ErrorContains(t, err, "\n[2].Header: must be set")
	assert.ErrorContains(t, err, "\n[3].Path: must not be set together with Cookie")
}

func TestIsToken(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a", "X-User", "AZaz09", "!#$%&'*+-.^_`|~"} {
		assert.True(t, isToken(s), s)
	}
	for _, s := range []string{"", " ", "a ", "a\x00", "\x7f", "ä", `"`, "(", ")", ",", "/", ":", ";", "<", "=", ">", "?", "@", "[", `\`, "]", "{", "}"} {
		assert.False(t, isToken(s), s)
	}
}

// What has no source finds nothing, and what changes after Compile does not
// matter.
func TestSources_Compile(t *testing.T) {
	t.Parallel()
	req := request(t, "http://users/a?b=c")
	for name, e := range map[string]Extractor{
		"zero":         {},
		"nil":          Sources(nil).Compile(),
		"empty source": Sources{{}}.Compile(),
	} {
		_, ok := e.Hash(req)
		assert.False(t, ok, name)
		_, ok = e.Value(req)
		assert.False(t, ok, name)
	}

	sources := Sources{{Path: true}}
	e := sources.Compile()
	sources[0] = Source{Query: "b"}
	v, _ := e.Value(req)
	assert.Equal(t, "/a", v)
}

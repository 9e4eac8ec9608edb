package discovery

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseFile(t *testing.T) {
	t.Parallel()
	const good = `{"address":"a:1"}`
	for _, row := range []struct {
		name, content string
		want          []Endpoint
		skipped       string // in the error beside the endpoints
		failed        string // in the error instead of them
	}{
		{"empty list", `{"endpoints":[]}`, nil, "", ""},
		{
			"all fields",
			`{"endpoints":[{"address":"10.0.0.1:8080","id":"a","weight":5,"priority":1,"zone":"z","draining":true,"standby":true,"attributes":{"version":"1"}}]}`,
			[]Endpoint{{
				Address: "10.0.0.1:8080", ID: "a", Weight: 5, Priority: 1, Zone: "z",
				Draining: true, Standby: true, Attributes: map[string]string{"version": "1"},
			}},
			"", "",
		},
		{"no weight", `{"endpoints":[{"address":"a:1"}]}`, []Endpoint{{Address: "a:1"}}, "", ""},
		{"weight 0", `{"endpoints":[{"address":"a:1","weight":0}]}`, []Endpoint{{Address: "a:1", Standby: true}}, "", ""},
		{"weight null", `{"endpoints":[{"address":"a:1","weight":null}]}`, []Endpoint{{Address: "a:1"}}, "", ""},
		{"weight below 0", `{"endpoints":[{"address":"b:1","weight":-1},` + good + `]}`, []Endpoint{{Address: "a:1"}}, "must not be negative", ""},
		{"no address", `{"endpoints":[{"id":"b"},` + good + `]}`, []Endpoint{{Address: "a:1"}}, "endpoints[0]: Address", ""},
		{"typing error", `{"endpoints":[` + good + `,{"address":"b:1","wieght":5}]}`, []Endpoint{{Address: "a:1"}}, `unknown field "wieght"`, ""},
		{"wrong type", `{"endpoints":[` + good + `,{"address":5}, 7, null]}`, []Endpoint{{Address: "a:1"}}, "3 left out", ""},
		{"all wrong", `{"endpoints":[{"address":"a"}]}`, nil, "", "none is valid"},
		{"typing error at the top", `{"endpoint":[]}`, nil, "", `unknown field "endpoint"`},
		{"more than a list", `{"endpoints":[],"version":1}`, nil, "", `unknown field "version"`},
		{"no list", `{}`, nil, "", `no "endpoints"`},
		{"null for a list", `{"endpoints":null}`, nil, "", `no "endpoints"`},
		{"a list at the top", `[` + good + `]`, nil, "", "cannot unmarshal array"},
		{"nothing", "", nil, "", "unexpected EOF"},
		{"only space", "\n", nil, "", "unexpected EOF"},
		{"cut off", `{"endpoints":[` + good, nil, "", "unexpected EOF"},
		{"twice", `{"endpoints":[]}{"endpoints":[]}`, nil, "", "more data after the end"},
		{"space around", "\n {\"endpoints\":[" + good + "]}\n\n", []Endpoint{{Address: "a:1"}}, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			endpoints, skipped, err := parseFile([]byte(row.content))
			assertError(t, row.failed, err)
			assertError(t, row.skipped, skipped)
			assert.Len(t, endpoints, len(row.want))
			for i := range row.want {
				assert.True(t, row.want[i].Equal(endpoints[i]), "%+v", endpoints[i])
			}
		})
	}
}

func assertError(t *testing.T, part string, err error) {
	t.Helper()
	if part == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, part)
}

// TestParseFile_ManyBadEntries: the error must not grow with the file.
func TestParseFile_ManyBadEntries(t *testing.T) {
	t.Parallel()
	_, skipped, err := parseFile([]byte(`{"endpoints":[{"address":"a:1"}` + strings.Repeat(",{}", 10_000) + `]}`))
	require.NoError(t, err)
	assert.Equal(t, 10_000, countSkipped(skipped))
	assert.Less(t, len(skipped.Error()), 1000)
	assert.Contains(t, skipped.Error(), "and 9995 more")
}

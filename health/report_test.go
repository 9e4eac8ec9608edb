package health

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReportIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	const text = `{"status":"DOWN","timestamp":"2026-01-02T15:04:05Z","details":{` +
		`"cache":{"status":"DOWN","latencyMs":2000,"error":"timeout"},"db":{"status":"UP","latencyMs":3}}}`
	want := Report{
		Status:    Down,
		Timestamp: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		Details: map[string]ComponentReport{
			"db":    {Status: Up, LatencyMs: 3},
			"cache": {Status: Down, LatencyMs: 2000, Error: "timeout"},
		},
	}
	var got Report
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	assert.Equal(t, want, got)
	written, err := json.Marshal(want)
	require.NoError(t, err)
	assert.Equal(t, text, string(written)) //nolint:testifylint // to the letter, and in this order
}

func TestReportOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Report{
		`{}`:                               {},
		`null`:                             {},
		`{"status":"pass"}`:                {Status: "pass"},
		`{"status":"DOWN","details":null}`: {Status: Down},
		`{"status":"UP","components":{"db":{"status":"UP"}},"groups":["ready"]}`: {Status: Up},
		`{"status":"UP","details":{"db":null}}`:                                  {Status: Up, Details: map[string]ComponentReport{"db": {}}},
	} {
		var got Report
		require.NoError(t, json.Unmarshal([]byte(text), &got), text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{`[]`, `"UP"`, `{"status":1}`, `{"timestamp":"yesterday"}`, `{"details":[]}`, `{"details":{"db":{"latencyMs":1e99}}}`, `{`} {
		assert.Error(t, json.Unmarshal([]byte(text), new(Report)), text)
	}
}

func FuzzReport(f *testing.F) {
	for _, seed := range []string{
		`{"status":"UP","timestamp":"2026-01-02T15:04:05.123+01:00","details":{"db":{"status":"UP","latencyMs":3}}}`,
		`{"status":"DOWN","details":{"":{"latencyMs":-1,"error":"\ud800"}}}`,
		`{"timestamp":"9999-12-31T23:59:59.999999999-23:59"}`,
		`[[[[[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r, again Report
		if json.Unmarshal(data, &r) != nil {
			return
		}
		text, err := json.Marshal(r)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &again))
		assert.True(t, r.Timestamp.Equal(again.Timestamp))
		r.Timestamp = again.Timestamp // it has another *Location
		assert.Equal(t, r, again)
	})
}

func FuzzErrorText(f *testing.F) {
	f.Add("no route")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := errorText(s + s + s + s)
		assert.NotEmpty(t, got)
		assert.LessOrEqual(t, len(got), maxErrorText)
		assert.True(t, utf8.ValidString(got))
	})
}

package evenkeel_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

func TestFallback(t *testing.T) {
	errMine := errors.New("no cached answer either")
	status := func(code int) roundTripper {
		return func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
		}
	}
	for _, row := range []struct {
		name     string
		base     roundTripper
		fallback evenkeel.Fallback
		want     int // status, 0 is an error
		asked    bool
	}{
		{"a good answer is left alone", status(200), nil, 200, false},
		{"so is the caller's own mistake", status(404), nil, 404, false},
		{"a failure can be passed on", status(500), func(_ *http.Request, resp *http.Response, _ error) (*http.Response, error) { return resp, nil }, 500, true},
		{"or replaced", unavailable, func(req *http.Request, _ *http.Response, _ error) (*http.Response, error) { return status(203)(req) }, 203, true},
		{"or explained", unavailable, func(*http.Request, *http.Response, error) (*http.Response, error) { return nil, errMine }, 0, true},
		{"an error can be replaced", func(*http.Request) (*http.Response, error) { return nil, errMine }, func(req *http.Request, _ *http.Response, _ error) (*http.Response, error) { return status(203)(req) }, 203, true},
		{"nothing is an error", unavailable, func(*http.Request, *http.Response, error) (*http.Response, error) { return nil, nil }, 0, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := false
			tr := over(t, row.base, evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}),
				evenkeel.WithFallback(func(req *http.Request, resp *http.Response, err error) (*http.Response, error) {
					asked = true
					assert.NotEqual(t, resp == nil, err == nil, "it gets one of the two")
					return row.fallback(req, resp, err)
				}))
			resp, err := tr.RoundTrip(getRequest(t, "http://users/"))
			assert.Equal(t, row.asked, asked)
			if row.want != 0 {
				require.NoError(t, err)
				assert.Equal(t, row.want, resp.StatusCode)
				require.NoError(t, resp.Body.Close())
				return
			}
			var failed *evenkeel.Error
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, outcome.Attempts, failed.Reason, "why the call failed, whatever the fallback says")
			assert.Len(t, failed.Attempts, 1)
		})
	}
}

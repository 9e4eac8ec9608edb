package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/health"
)

// A component that answers at once.
func component(name string, err error) health.Component {
	return health.Component{Name: name, Check: func(context.Context) error { return err }}
}

func optional(c health.Component) health.Component {
	c.Optional = true
	return c
}

// after makes the check of a component take its time.
func after(d time.Duration, c health.Component) health.Component {
	check := c.Check
	c.Check = func(ctx context.Context) error {
		time.Sleep(d)
		return check(ctx)
	}
	return c
}

func newHandler(t *testing.T, cfg health.HandlerConfig) *health.Handler {
	t.Helper()
	h, err := health.NewHandler(cfg)
	require.NoError(t, err)
	return h
}

// visit returns what a handler answers to a GET.
func visit(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return w
}

// assertBody compares the body of an answer to the letter.
func assertBody(t *testing.T, want string, w *httptest.ResponseRecorder) {
	t.Helper()
	assert.Equal(t, want+"\n", w.Body.String())
}

// reportOf reads the body of an answer.
func reportOf(t *testing.T, w *httptest.ResponseRecorder) health.Report {
	t.Helper()
	var r health.Report
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &r), w.Body)
	return r
}

// In a bubble, it is the first second of the year 2000.
func TestHandlerAnswersWithAReport(t *testing.T) {
	t.Parallel()
	refused := errors.New("dial tcp 10.0.0.7:6379: connection refused")
	for name, row := range map[string]struct {
		components []health.Component
		code       int
		body       string
	}{
		"no components": {
			code: 200, body: `{"status":"UP","timestamp":"2000-01-01T00:00:00Z","details":{}}`,
		},
		"all up": {
			components: []health.Component{after(3*time.Millisecond, component("db", nil)), component("cache", nil)},
			code:       200,
			body: `{"status":"UP","timestamp":"2000-01-01T00:00:00Z","details":{` +
				`"cache":{"status":"UP","latencyMs":0},"db":{"status":"UP","latencyMs":3}}}`,
		},
		"one down": {
			components: []health.Component{component("db", nil), component("cache", refused)},
			code:       503,
			body: `{"status":"DOWN","timestamp":"2000-01-01T00:00:00Z","details":{` +
				`"cache":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},` +
				`"db":{"status":"UP","latencyMs":0}}}`,
		},
		"an optional one down": {
			components: []health.Component{component("db", nil), optional(component("cache", refused))},
			code:       200,
			body: `{"status":"DEGRADED","timestamp":"2000-01-01T00:00:00Z","details":{` +
				`"cache":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},` +
				`"db":{"status":"UP","latencyMs":0}}}`,
		},
		"down is worse than degraded": {
			components: []health.Component{component("db", refused), optional(component("cache", refused))},
			code:       503,
			body: `{"status":"DOWN","timestamp":"2000-01-01T00:00:00Z","details":{` +
				`"cache":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},` +
				`"db":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"}}}`,
		},
		"in any order": {
			components: []health.Component{optional(component("cache", refused)), component("db", refused), component("x", nil)},
			code:       503,
			body: `{"status":"DOWN","timestamp":"2000-01-01T00:00:00Z","details":{` +
				`"cache":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},` +
				`"db":{"status":"DOWN","latencyMs":0,"error":"dial tcp 10.0.0.7:6379: connection refused"},` +
				`"x":{"status":"UP","latencyMs":0}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := visit(newHandler(t, health.HandlerConfig{Components: row.components}), "/health")
				assert.Equal(t, row.code, w.Code)
				assertBody(t, row.body, w)
				assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Empty(t, w.Header().Get("Connection"))
			})
		})
	}
}

func TestHandlerLooksAtTheEndOfThePath(t *testing.T) {
	t.Parallel()
	down := component("db", errors.New("gone"))
	h := newHandler(t, health.HandlerConfig{Components: []health.Component{down}})
	mux := http.NewServeMux()
	mux.Handle("/health", h)
	mux.Handle("/health/", h)
	mux.Handle("/stripped/", http.StripPrefix("/stripped/", h))
	mux.Handle("/livez", h.Live())
	mux.Handle("/readyz", h.Ready())
	for path, code := range map[string]int{
		"/health":         503,
		"/health/":        503,
		"/health/ready":   503,
		"/health/db":      503,
		"/health/live":    200,
		"/health/live/":   200,
		"/health/live/db": 503,
		"/health/alive":   503,
		"/stripped/live":  200,
		"/stripped/ready": 503,
		"/livez":          200,
		"/readyz":         503,
	} {
		assert.Equal(t, code, visit(mux, path).Code, path)
	}
}

func TestLivenessRunsNoCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.HandlerConfig{
			StartDown: true,
			Components: []health.Component{{Name: "db", Check: func(context.Context) error {
				t.Error("the check ran")
				return nil
			}}},
		})
		for _, step := range []func(){func() {}, h.Started, h.Drain} {
			step()
			w := visit(h.Live(), "/livez")
			assert.Equal(t, 200, w.Code)
			assertBody(t, `{"status":"UP","timestamp":"2000-01-01T00:00:00Z","details":{}}`, w)
		}
	})
}

func TestHandlerReads(t *testing.T) {
	t.Parallel()
	h := newHandler(t, health.HandlerConfig{Components: []health.Component{component("db", errors.New("gone"))}})
	for _, part := range []http.Handler{h, h.Live(), h.Ready()} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "get"} {
			w := httptest.NewRecorder()
			part.ServeHTTP(w, httptest.NewRequest(method, "/health", http.NoBody))
			assert.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
			assert.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		}
	}
	get, head := visit(h, "/health"), httptest.NewRecorder()
	h.ServeHTTP(head, httptest.NewRequest(http.MethodHead, "/health", http.NoBody))
	assert.Equal(t, 503, head.Code)
	assert.Empty(t, head.Body.String())
	assert.Equal(t, get.Header(), head.Header())
}

func TestErrorsAreForInsiders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := fmtError{"query of 10.0.0.7 took too long", context.DeadlineExceeded}
		h := newHandler(t, health.HandlerConfig{
			Components: []health.Component{
				component("db", errors.New("password of sa is wrong")),
				component("cache", late),
				after(time.Minute, component("queue", nil)),
				component("up", nil),
			},
			Insider: func(req *http.Request) bool { return req.Header.Get("X-Inside") != "" },
		})
		outside := reportOf(t, visit(h, "/health"))
		assert.Equal(t, map[string]health.ComponentReport{
			"db":    {Status: health.Down, Error: "failed"},
			"cache": {Status: health.Down, Error: "timeout"},
			"queue": {Status: health.Down, Error: "timeout", LatencyMs: 2000},
			"up":    {Status: health.Up},
		}, outside.Details)

		w, req := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/health", http.NoBody)
		req.Header.Set("X-Inside", "1")
		h.ServeHTTP(w, req)
		inside := reportOf(t, w)
		assert.Equal(t, "password of sa is wrong", inside.Details["db"].Error)
		assert.Equal(t, "query of 10.0.0.7 took too long", inside.Details["cache"].Error)
		assert.Equal(t, "timeout", inside.Details["queue"].Error)
		assert.Equal(t, inside, h.Report(t.Context()))

		// That the server drains is no secret.
		h.Drain()
		outside = reportOf(t, visit(h, "/health"))
		assert.Equal(t, "draining", outside.Details["server"].Error)
		time.Sleep(time.Minute)
	})
}

// fmtError is an error with a text that does not repeat its cause.
type fmtError struct {
	text  string
	cause error
}

func (e fmtError) Error() string { return e.text }
func (e fmtError) Unwrap() error { return e.cause }

func TestErrorTextsAreBounded(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ text, want string }{
		"short":            {"no route", "no route"},
		"empty":            {"", "failed"},
		"long":             {strings.Repeat("x", 1<<20), strings.Repeat("x", 256)},
		"cut inside ä":     {strings.Repeat("x", 255) + "ä", strings.Repeat("x", 255)},
		"not UTF-8":        {"a\xff\xfeb", "a?b"},
		"long, not UTF-8":  {strings.Repeat("\x80", 300), "?"},
		"markup":           {"<b>&", "<b>&"},
		"several lines":    {"one\ntwo", "one\ntwo"},
		"exactly as long":  {strings.Repeat("y", 256), strings.Repeat("y", 256)},
		"a longer cut one": {strings.Repeat("x", 254) + "€€", strings.Repeat("x", 254)},
	} {
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{component("db", errors.New(row.text))}})
		assert.Equal(t, row.want, reportOf(t, visit(h, "/")).Details["db"].Error, name)
	}
}

func TestServerStartsAndDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.HandlerConfig{StartDown: true, Components: []health.Component{component("db", nil)}})
		for _, path := range []string{"/health", "/health/ready"} {
			w := visit(h, path)
			assert.Equal(t, 503, w.Code)
			assertBody(t, `{"status":"DOWN","timestamp":"2000-01-01T00:00:00Z","details":{`+
				`"db":{"status":"UP","latencyMs":0},"server":{"status":"DOWN","latencyMs":0,"error":"starting"}}}`, w)
			assert.Empty(t, w.Header().Get("Connection"))
		}
		h.Started()
		h.Started()
		assert.Equal(t, 200, visit(h, "/health/ready").Code)

		h.Drain()
		h.Drain()
		h.Started() // too late
		w := visit(h, "/health/ready")
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, "close", w.Header().Get("Connection"))
		assert.Equal(t, "close", visit(h, "/health/live").Header().Get("Connection"))
		assert.Equal(t, health.ComponentReport{Status: health.Down, Error: "draining"}, reportOf(t, w).Details["server"])
		assert.Equal(t, health.Down, h.Report(t.Context()).Status)
	})
}

// Whoever asks while checks run is told of a drain that has begun meanwhile.
func TestDrainDuringChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{after(time.Second, component("db", nil))}})
		time.AfterFunc(time.Millisecond, h.Drain)
		assert.Equal(t, 503, visit(h, "/health").Code)
	})
}

func TestTimestampIsThatOfTheOldestResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := component("kept", nil)
		kept.CacheFor = time.Hour
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{component("db", nil), kept}})
		time.Sleep(90 * time.Minute)
		visit(h, "/")
		time.Sleep(30*time.Minute + 700*time.Millisecond)
		r := h.Report(t.Context())
		assert.Equal(t, time.Date(2000, 1, 1, 1, 30, 0, 0, time.UTC), r.Timestamp)
		assert.Contains(t, visit(h, "/").Body.String(), `"timestamp":"2000-01-01T01:30:00Z"`)
		time.Sleep(30 * time.Minute)
		assert.Contains(t, visit(h, "/").Body.String(), `"timestamp":"2000-01-01T02:30:00Z"`)
	})
}

func TestTimestampIsUTC(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("CET", 3600)
	h := newHandler(t, health.HandlerConfig{Clock: clock.NewFake(time.Date(2026, 1, 2, 0, 4, 5, 999, berlin))})
	for _, path := range []string{"/live", "/ready"} {
		assertBody(t, `{"status":"UP","timestamp":"2026-01-01T23:04:05Z","details":{}}`, visit(h, path))
	}
	h = newHandler(t, health.HandlerConfig{Clock: clock.NewFake(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC))})
	assert.Equal(t, 500, visit(h, "/live").Code)
}

func TestHandlerConfigIsValidated(t *testing.T) {
	t.Parallel()
	_, err := health.NewHandler(health.HandlerConfig{
		Timeout:  -time.Second,
		CacheFor: -1,
		DrainFor: -1,
		Components: []health.Component{
			component("db", nil),
			component("", nil),
			component("db", nil),
			{Name: "cache", Timeout: -1, CacheFor: -1},
			component("server", nil),
			component("", nil),
		},
	})
	assert.EqualError(t, err, strings.Join([]string{
		`Timeout: must not be negative (got -1s)`,
		`Components[1].Name: must not be empty (got "")`,
		`Components[2].Name: must not be there twice (got "db")`,
		`Components[3].Timeout: must not be negative (got -1ns)`,
		`Components[3].Check: must be set (got <nil>)`,
		`Components[4].Name: is the handler's own (got "server")`,
		`Components[5].Name: must not be empty (got "")`,
	}, "\n"))
}

func TestHandlerConfigDefaults(t *testing.T) {
	t.Parallel()
	given := health.HandlerConfig{Components: []health.Component{
		{Name: "db"},
		{Name: "cache", Timeout: time.Minute, CacheFor: -1},
	}}
	got := given.WithDefaults()
	assert.Equal(t, health.HandlerConfig{
		Timeout: 2 * time.Second, CacheFor: time.Second, DrainFor: 15 * time.Second,
		Components: []health.Component{
			{Name: "db", Timeout: 2 * time.Second, CacheFor: time.Second},
			{Name: "cache", Timeout: time.Minute, CacheFor: -1},
		},
	}, got)
	assert.Zero(t, given.Components[0].Timeout, "the caller's own")

	got = health.HandlerConfig{
		Timeout: time.Second, CacheFor: -1, DrainFor: -1,
		Components: []health.Component{{Name: "db"}},
	}.WithDefaults()
	assert.Equal(t, health.Component{Name: "db", Timeout: time.Second, CacheFor: -1}, got.Components[0])
	assert.Equal(t, time.Duration(-1), got.DrainFor)
	assert.Equal(t, got, got.WithDefaults())
}

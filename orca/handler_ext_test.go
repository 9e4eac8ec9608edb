package orca_test

import (
	"math"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/orca"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newHandler(t *testing.T, next http.HandlerFunc, cfg orca.Config) *orca.Handler {
	t.Helper()
	h, err := orca.NewHandler(next, cfg)
	require.NoError(t, err)
	return h
}

// get calls the handler directly and returns the response.
func get(h http.Handler, path string) *http.Response {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec.Result()
}

func parse(t *testing.T, h http.Header) orca.Report {
	t.Helper()
	r, err := orca.Parser{}.ParseHeader(h)
	require.NoError(t, err)
	return r
}

func TestNewHandler_Refuses(t *testing.T) {
	_, err := orca.NewHandler(nil, orca.Config{Limit: -1})
	assert.EqualError(t, err, "next: must be set (got <nil>)\nLimit: must not be negative (got -1)")
	assert.Error(t, orca.Config{Limit: -1}.Validate())
	assert.NoError(t, orca.Config{}.Validate())
}

// One server through its life: the report of each response, to the letter.
func TestHandler_ReportsStepByStep(t *testing.T) {
	c := clock.NewFake(start)
	took, status := time.Duration(0), 0
	h := newHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		c.Advance(took)
		w.WriteHeader(status)
	}, orca.Config{Limit: 4, Clock: c})
	for i, row := range []struct {
		pause, took time.Duration
		status      int
		want        string
	}{
		{0, 20 * time.Millisecond, 200, "application_utilization=0.25,rps_fractional=0,eps=0,named_metrics.rif=1"},
		{0, 40 * time.Millisecond, 500, "application_utilization=0.25,rps_fractional=0.1,eps=0,named_metrics.rif=1,named_metrics.latency_ms=20"},
		{0, 0, 404, "application_utilization=0.25,rps_fractional=0.2,eps=0.1,named_metrics.rif=1,named_metrics.latency_ms=30"},
		{10 * time.Second, 0, 200, "application_utilization=0.25,rps_fractional=0.11,eps=0.037,named_metrics.rif=1,named_metrics.latency_ms=20"},
		{time.Hour, 0, 200, "application_utilization=0.25,rps_fractional=0,eps=0,named_metrics.rif=1"},
	} {
		c.Advance(row.pause)
		took, status = row.took, row.status
		resp := get(h, "/")
		assert.Equal(t, []string{"TEXT " + row.want}, resp.Header.Values(orca.Header), "step %d", i)
	}
	assert.Zero(t, h.Report().InFlight, "all of them have ended")
}

func TestHandler_CountsWhatIsInFlight(t *testing.T) {
	var h *orca.Handler
	nested := 0
	h = newHandler(t, func(_ http.ResponseWriter, _ *http.Request) {
		if nested++; nested < 4 {
			_ = get(h, "/")
		}
	}, orca.Config{Limit: 2})
	resp := get(h, "/")
	assert.Equal(t, 4, nested)
	assert.InDelta(t, 1, parse(t, resp.Header).InFlight, 0, "the others ended before it")
	assert.InDelta(t, 0.5, parse(t, resp.Header).Application, 0)
	assert.Zero(t, h.Report().InFlight)
	assert.Zero(t, h.Report().Application)
}

// The latency is that of requests that came when the server was as busy as now.
func TestHandler_LatencyDependsOnWhatIsInFlight(t *testing.T) {
	c := clock.NewFake(start)
	var h *orca.Handler
	h = newHandler(t, func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/outer":
			_ = get(h, "/inner")
			c.Advance(40 * time.Millisecond)
		case "/inner":
			c.Advance(10 * time.Millisecond)
		case "/look":
			assert.Equal(t, 50*time.Millisecond, h.Report().Latency, "with one in flight")
			_ = get(h, "/deeper")
		case "/deeper":
			assert.Equal(t, 10*time.Millisecond, h.Report().Latency, "with two")
		}
	}, orca.Config{Clock: c})
	_ = get(h, "/outer")
	_ = get(h, "/look")
}

func TestHandler_Utilization(t *testing.T) {
	for _, row := range []struct {
		name  string
		limit int
		cpu   float64 // -2 is none
		want  orca.Report
	}{
		{"neither", 0, -2, orca.Report{}},
		{"the limit", 4, -2, orca.Report{Fields: orca.Application, Application: 0.25}},
		{"the processor", 0, 0.5, orca.Report{Fields: orca.Application | orca.CPU, Application: 0.5, CPU: 0.5}},
		{"the processor is busier", 4, 1.5, orca.Report{Fields: orca.Application | orca.CPU, Application: 1.5, CPU: 1.5}},
		{"the limit is nearer", 4, 0.1, orca.Report{Fields: orca.Application | orca.CPU, Application: 0.25, CPU: 0.1}},
		{"idle", 0, 0, orca.Report{Fields: orca.Application | orca.CPU}},
		{"no number", 4, math.NaN(), orca.Report{Fields: orca.Application, Application: 0.25}},
		{"infinite", 0, math.Inf(1), orca.Report{}},
		{"negative", 0, -1, orca.Report{}},
	} {
		cfg := orca.Config{Limit: row.limit}
		if row.cpu != -2 {
			cfg.CPU = func() float64 { return row.cpu }
		}
		got := parse(t, get(newHandler(t, func(http.ResponseWriter, *http.Request) {}, cfg), "/").Header)
		assert.Equal(t, orca.RPS|orca.EPS|orca.InFlight|row.want.Fields, got.Fields, row.name)
		assert.InDelta(t, row.want.Application, got.Application, 0, row.name)
		assert.InDelta(t, row.want.CPU, got.CPU, 0, row.name)
	}
}

func TestHandler_CountsPanics(t *testing.T) {
	c := clock.NewFake(start)
	h := newHandler(t, func(http.ResponseWriter, *http.Request) {
		c.Advance(time.Second)
		panic(http.ErrAbortHandler)
	}, orca.Config{Clock: c})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { _ = get(h, "/") })
	assert.Equal(t, "TEXT rps_fractional=0.1,eps=0.1,named_metrics.rif=0,named_metrics.latency_ms=1000", h.Report().String())
}

// A latency that no client would accept must not make it refuse the rest.
func TestHandler_ReportsNoLatencyOfDays(t *testing.T) {
	c := clock.NewFake(start)
	h := newHandler(t, func(http.ResponseWriter, *http.Request) { c.Advance(48 * time.Hour) }, orca.Config{Clock: c})
	_ = get(h, "/")
	got, err := orca.Parser{}.Parse(h.Report().String())
	assert.NoError(t, err)
	assert.Equal(t, 24*time.Hour-time.Millisecond, got.Latency)
}

func TestHandler_Draining(t *testing.T) {
	h := newHandler(t, func(http.ResponseWriter, *http.Request) {}, orca.Config{})
	for _, h2 := range []bool{false, true} {
		srv := serve(t, h, h2)
		for _, draining := range []bool{false, true, false} {
			h.SetDraining(draining)
			resp, _ := fetch(t, srv, http.MethodGet, "/")
			got := parse(t, resp.Header)
			assert.Equal(t, draining, got.Draining)
			assert.Equal(t, draining, got.Has(orca.Draining), "not said while it is not so")
			assert.Equal(t, draining && !h2, resp.Close, "HTTP/2 %v", h2)
			assert.Equal(t, draining, h.Report().Draining)
		}
	}
}

// On HTTP/2 the field must not be sent, and net/http would take it for the wish
// to end the connection of all other requests as well.
func TestHandler_DrainingLeavesHTTP2Alone(t *testing.T) {
	h := newHandler(t, func(http.ResponseWriter, *http.Request) {}, orca.Config{})
	h.SetDraining(true)
	for proto, want := range map[int]string{1: "close", 2: ""} {
		rec, req := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		req.ProtoMajor = proto
		h.ServeHTTP(rec, req)
		assert.Equal(t, want, rec.Header().Get("Connection"), "HTTP/%d", proto)
	}
}

func TestLoadHandler(t *testing.T) {
	c := clock.NewFake(start)
	h := newHandler(t, func(http.ResponseWriter, *http.Request) { c.Advance(5 * time.Millisecond) }, orca.Config{Limit: 2, Clock: c})
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("/.well-known/load", h.LoadHandler())
	srv := serve(t, mux, false)
	_ = get(mux, "/")
	want := "TEXT application_utilization=0,rps_fractional=0.1,eps=0,named_metrics.rif=0,named_metrics.latency_ms=5"
	for _, row := range []struct {
		method, body string
		status       int
	}{
		{http.MethodGet, want, 200},
		{http.MethodGet, want, 200}, // asking is no load
		{http.MethodHead, "", 200},
		{http.MethodPost, "GET only\n", 405},
		{http.MethodOptions, "GET only\n", 405},
	} {
		resp, body := fetch(t, srv, row.method, "/.well-known/load")
		assert.Equal(t, row.status, resp.StatusCode, row.method)
		assert.Equal(t, row.body, body, row.method)
		if row.status == 200 {
			assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			assert.Equal(t, "text/plain; charset=utf-8", resp.Header.Get("Content-Type"))
			assert.Equal(t, int64(len(want)), resp.ContentLength, row.method)
		} else {
			assert.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
		}
	}
}

// Under the race detector, with all there is at once.
func TestHandler_IsSafeForConcurrentUse(t *testing.T) {
	h := newHandler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}, orca.Config{Limit: 100, CPU: func() float64 { return 0.5 }, Clock: clock.NewFake(start)})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 200 {
				_ = get(h, [...]string{"/", "/fail"}[k%2])
				_ = get(h.LoadHandler(), "/")
				h.SetDraining(i%2 == 0)
			}
		})
	}
	wg.Wait()
	got := h.Report()
	assert.Zero(t, got.InFlight)
	assert.Zero(t, got.Latency)
	assert.InDelta(t, 160, got.RPS, 1e-9)
	assert.InDelta(t, 80, got.EPS, 1e-9)
}

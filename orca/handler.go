package orca

import (
	"errors"
	"io"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Config says what a [Handler] reports besides what it measures itself. The
// zero value reports just that.
type Config struct {
	// Limit is how many requests the server can work on at once. The share of
	// it that is in use is reported as [Application]. Zero means that this is
	// not known, and then it is what CPU says, or not reported.
	Limit int

	// CPU returns the share of the processor in use, 1 for all that the server
	// may have. It is called for every report, concurrently, so it should
	// return what a background task has measured. A result that is negative,
	// infinite or NaN is not reported. Nil means that the processor is not.
	CPU func() float64

	// Clock is the clock to use; nil means the system's.
	Clock clock.Clock
}

// Validate returns nil, or all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs field.Errors
	errs.Check(c.Limit >= 0, "Limit", c.Limit, "must not be negative")
	return errs.Err()
}

// Handler is an [http.Handler] that measures another one and adds a [Report] to
// each of its responses, in [Header]. Use [NewHandler] to make one. It is safe
// for concurrent use, and there is nothing to close.
//
// A report holds the requests in flight, the rates of requests and of errors
// (status 500 and above, and panics) as averages that decay over 10s, and the
// median latency of up to 16 requests of the last 10s that arrived when about as
// many were in flight as now. A request is in flight, and takes time, until its
// handler returns; the one whose response carries the report is among them.
//
// The header is set when the response header is about to be written, and not on
// informational ones. It replaces what the wrapped handler has set under that
// name. A connection that is hijacked, or switches protocols, gets none, and how
// long it lasts is no latency.
type Handler struct {
	next     http.Handler
	config   Config
	inflight atomic.Int64
	draining atomic.Bool
	history  history
}

// NewHandler returns a handler that measures next. It returns an error if next is
// nil, or config not valid.
func NewHandler(next http.Handler, config Config) (*Handler, error) {
	err := config.Validate()
	if next == nil {
		err = errors.Join(&field.Error{Field: "next", Problem: "must be set"}, err)
	}
	if err != nil {
		return nil, err
	}
	config.Clock = clock.Or(config.Clock)
	return &Handler{next: next, config: config, history: history{epoch: config.Clock.Now()}}, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	arrived := h.inflight.Add(1)
	rw := &responseWriter{ResponseWriter: w, handler: h, req: req}
	defer h.end(rw, arrived, h.config.Clock.Now())
	h.next.ServeHTTP(rw, req)
	rw.end()
}

// end counts a request whose handler has returned or panicked.
func (h *Handler) end(w *responseWriter, arrived int64, began time.Time) {
	now := h.config.Clock.Now()
	h.inflight.Add(-1)
	h.history.add(now, ended{
		took:    now.Sub(began),
		arrived: arrived,
		failed:  w.failed(),
		untimed: w.upgraded(),
	})
}

// SetDraining says whether the server is about to leave. Until it is taken back,
// reports say so, and on HTTP/1 a response closes its connection, so that
// clients that read no reports go elsewhere, too. Requests are still served.
func (h *Handler) SetDraining(draining bool) { h.draining.Store(draining) }

// Report returns the report of this instant.
func (h *Handler) Report() Report {
	var r Report
	now := h.config.Clock.Now()
	inflight := h.inflight.Load()
	r.set(InFlight, float64(inflight))
	rps, eps := h.history.rates(now)
	r.set(RPS, round(rps))
	r.set(EPS, round(eps))
	if took, ok := h.history.latency(now, inflight); ok {
		ms := float64(took) / float64(time.Millisecond)
		r.set(Latency, round(min(max(ms, 0), maxLatency-1)))
	}
	h.utilization(&r)
	if h.draining.Load() {
		r.set(Draining, 1)
	}
	return r
}

// utilization fills in how busy the server is: of its limit or of its processor,
// the greater.
func (h *Handler) utilization(r *Report) {
	if h.config.CPU != nil {
		if cpu := h.config.CPU(); problem(CPU, "", cpu) == "" {
			r.set(CPU, cpu)
			r.set(Application, cpu)
		}
	}
	if h.config.Limit > 0 {
		r.set(Application, max(r.Application, r.InFlight/float64(h.config.Limit)))
	}
}

// round keeps three decimals: more would only make reports longer.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// LoadHandler returns a handler that answers GET and HEAD with the report in its
// text form, for clients that ask before they send. It does no other work.
//
// Mount it outside of h, commonly at /.well-known/load, so that such questions
// do not count as load: a request that passes through h does, like any other.
func (h *Handler) LoadHandler() http.Handler { return http.HandlerFunc(h.serveLoad) }

func (h *Handler) serveLoad(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, h.Report().String())
}

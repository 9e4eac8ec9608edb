package health

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
)

// HandlerConfig says what makes a server healthy, and who may know. The zero HandlerConfig has
// no components: such a server is healthy until it ends.
type HandlerConfig struct {
	// Components are what the server depends on. They are all checked at once.
	Components []Component

	// Timeout is how long a check may take. Zero means 2s, negative is an error.
	Timeout time.Duration

	// CacheFor is how long the result of a check is good for, from when it was there. Zero
	// means 1s; negative means that none is kept. Either way, requests that come while a
	// check runs share its result: however many clients there are, a database is asked once.
	CacheFor time.Duration

	// DrainFor is how long [Handler.Shutdown] lets the server go on after readiness has turned
	// Down, so that clients go elsewhere before it refuses connections. Zero means 15s: three
	// failed checks at an interval of 5s, of which evenkeel's clients take less. Negative means
	// that it does not wait.
	DrainFor time.Duration

	// StartDown keeps readiness Down until [Handler.Started] is called.
	StartDown bool

	// Insider reports whether the sender of a request may read why a component is Down. Others
	// see "failed" or "timeout" and no more: the texts of errors tell addresses and names. Nil
	// means that all may. It must be safe for concurrent use.
	Insider func(*http.Request) bool

	// Clock is the clock to use; nil means the system's.
	Clock clock.Clock
}

const (
	defaultComponentTimeout = 2 * time.Second
	defaultCacheFor         = time.Second
	defaultDrainFor         = 15 * time.Second

	// serverEntry is under which name a report tells that the server starts or ends.
	serverEntry = "server"
)

// WithDefaults returns the configuration as it is applied, with every default filled in.
// Behaviour fields are left as they are.
func (c HandlerConfig) WithDefaults() HandlerConfig {
	c.Timeout = cmp.Or(c.Timeout, defaultComponentTimeout)
	c.CacheFor = cmp.Or(c.CacheFor, defaultCacheFor)
	c.DrainFor = cmp.Or(c.DrainFor, defaultDrainFor)
	c.Components = slices.Clone(c.Components) // the caller may change its own
	for i := range c.Components {
		part := &c.Components[i]
		part.Timeout = cmp.Or(part.Timeout, c.Timeout)
		part.CacheFor = cmp.Or(part.CacheFor, c.CacheFor)
	}
	return c
}

// Validate returns nil, or all that is wrong with the configuration.
func (c HandlerConfig) Validate() error {
	var errs field.Errors
	errs.Check(c.Timeout >= 0, "Timeout", c.Timeout, "must not be negative")
	names := map[string]bool{}
	for i, part := range c.Components {
		name := func(of string) string { return fmt.Sprintf("Components[%d].%s", i, of) }
		errs.Check(part.Name != "", name("Name"), part.Name, "must not be empty")
		errs.Check(part.Name != serverEntry, name("Name"), part.Name, "is the handler's own")
		errs.Check(part.Name == "" || !names[part.Name], name("Name"), part.Name, "must not be there twice")
		errs.Check(part.Timeout >= 0, name("Timeout"), part.Timeout, "must not be negative")
		errs.Check(part.Check != nil, name("Check"), nil, "must be set")
		names[part.Name] = true
	}
	return errs.Err()
}

// Handler is the server side of health checks: an [http.Handler] that says whether the process
// lives, and whether it had better get requests. Use [NewHandler] to make one; it needs no
// closing, and may be used concurrently.
//
// What a request asks for is the last part of its path:
//
//	live           the process: always Up, nothing is checked
//	ready          the components; Down while the server is starting or draining
//	anything else  the same as ready
//
// The answer is a [Report] as JSON, with 200 if the status is [Up] or [Degraded] and 503 if it is
// [Down]. While the server is draining, it also asks to close the connection.
type Handler struct {
	components []*componentRunner
	insider    func(*http.Request) bool
	drainFor   time.Duration
	clock      clock.Clock
	phase      atomic.Int32
}

// NewHandler returns a handler, or all that is wrong with the configuration.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	h := &Handler{insider: cfg.Insider, drainFor: cfg.DrainFor, clock: clock.Or(cfg.Clock)}
	for _, part := range cfg.Components {
		h.components = append(h.components, &componentRunner{Component: part, clock: h.clock})
	}
	if cfg.StartDown {
		h.phase.Store(phaseStarting)
	}
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if path.Base(req.URL.Path) == "live" {
		h.serveLive(w, req)
		return
	}
	h.serveReady(w, req)
}

// Live returns what answers about the process only, whatever the path: for /livez.
func (h *Handler) Live() http.Handler { return http.HandlerFunc(h.serveLive) }

// Ready returns what answers about readiness, whatever the path: for /readyz.
func (h *Handler) Ready() http.Handler { return http.HandlerFunc(h.serveReady) }

// Report returns what the handler says of readiness, to insiders. Of components whose results
// are not there when ctx ends, it says so; their checks go on for others.
func (h *Handler) Report(ctx context.Context) Report { return h.ready(ctx, true) }

func (h *Handler) serveLive(w http.ResponseWriter, req *http.Request) {
	if allowed(w, req) {
		h.write(w, req, newReport(h.clock.Now()))
	}
}

func (h *Handler) serveReady(w http.ResponseWriter, req *http.Request) {
	if allowed(w, req) {
		h.write(w, req, h.ready(req.Context(), h.insider == nil || h.insider(req)))
	}
}

// allowed reports whether the request reads, and refuses it if it does not.
func allowed(w http.ResponseWriter, req *http.Request) bool {
	w.Header().Set("Cache-Control", "no-store")
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	return false
}

func newReport(at time.Time) Report {
	return Report{Status: Up, Timestamp: at.UTC().Truncate(time.Second), Details: map[string]ComponentReport{}}
}

// ready runs all checks at once and joins their results.
func (h *Handler) ready(ctx context.Context, insider bool) Report {
	runs := make([]*componentRun, len(h.components))
	for i, c := range h.components {
		runs[i] = c.ask() //nolint:contextcheck // the result is for others as well
	}
	oldest := h.clock.Now()
	results := make([]componentResult, len(runs))
	for i, c := range h.components {
		results[i] = c.await(ctx, runs[i])
		if i == 0 || results[i].at.Before(oldest) {
			oldest = results[i].at
		}
	}
	report := newReport(oldest)
	for i, c := range h.components {
		if !insider {
			results[i].componentFailure = results[i].public()
		}
		part := results[i].report()
		if part.Status == Down {
			report.Status = report.Status.worse(c.Optional)
		}
		report.Details[c.Name] = part
	}
	// Last, because the checks may have taken a while.
	if reason := h.notServing(); reason != "" {
		report.Status = Down
		report.Details[serverEntry] = ComponentReport{Status: Down, Error: reason}
	}
	return report
}

// write sends a report.
func (h *Handler) write(w http.ResponseWriter, req *http.Request, report Report) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(report); err != nil { // a year that JSON does not know
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	if h.phase.Load() == phaseDraining {
		header.Set("Connection", "close")
	}
	status := http.StatusOK
	if report.Status == Down {
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // an error means that the client has gone
	}
}

package health_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/health"
)

// probe is a check that counts its runs and takes as long as it is told to.
type probe struct {
	runs  atomic.Int32
	takes time.Duration
	err   error
}

func (p *probe) check(context.Context) error {
	p.runs.Add(1)
	time.Sleep(p.takes) // it does not look at its context
	return p.err
}

func (p *probe) handler(t *testing.T, cacheFor time.Duration) *health.Handler {
	t.Helper()
	return newHandler(t, health.HandlerConfig{
		CacheFor:   cacheFor,
		Components: []health.Component{{Name: "db", Check: p.check}},
	})
}

func TestChecksRunAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{
			after(time.Second, component("a", nil)),
			after(1500*time.Millisecond, component("b", nil)),
			after(time.Second, component("c", nil)),
		}})
		start := time.Now()
		r := h.Report(t.Context())
		assert.Equal(t, 1500*time.Millisecond, time.Since(start))
		assert.Equal(t, health.Up, r.Status)
		assert.Equal(t, int64(1000), r.Details["c"].LatencyMs)
		assert.Equal(t, int64(1500), r.Details["b"].LatencyMs)
	})
}

func TestManyRequestsAreOneCheck(t *testing.T) {
	t.Parallel()
	for name, cacheFor := range map[string]time.Duration{"cached": 0, "not cached": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &probe{takes: time.Second}
				h := p.handler(t, cacheFor)
				var wg sync.WaitGroup
				for i := range 100 {
					wg.Go(func() {
						time.Sleep(time.Duration(i) * 5 * time.Millisecond)
						w := visit(h, "/health")
						assert.Equal(t, 200, w.Code)
						assert.Equal(t, int64(1000), reportOf(t, w).Details["db"].LatencyMs)
					})
				}
				wg.Wait()
				assert.Equal(t, int32(1), p.runs.Load())
			})
		})
	}
}

func TestResultsAreCached(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		handler, component time.Duration
		want               time.Duration // zero: not at all
	}{
		"default":                    {want: time.Second},
		"the handler's":              {handler: 3 * time.Second, want: 3 * time.Second},
		"the component's":            {handler: 3 * time.Second, component: time.Minute, want: time.Minute},
		"never":                      {handler: -1},
		"never for this component":   {component: -time.Hour},
		"the component's, not never": {handler: -1, component: time.Second, want: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &probe{takes: 500 * time.Millisecond, err: errors.New("gone")}
				h := newHandler(t, health.HandlerConfig{
					CacheFor:   row.handler,
					Components: []health.Component{{Name: "db", Check: p.check, CacheFor: row.component}},
				})
				first := h.Report(t.Context())
				if row.want > 0 {
					time.Sleep(row.want - 1) // from its end
					assert.Equal(t, first, h.Report(t.Context()))
					assert.Equal(t, int32(1), p.runs.Load())
					time.Sleep(time.Nanosecond)
				}
				p.err = nil
				assert.Equal(t, health.Up, h.Report(t.Context()).Status)
				assert.Equal(t, int32(2), p.runs.Load())
			})
		})
	}
}

func TestHungCheckIsDownAtItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probe{takes: time.Minute}
		h := p.handler(t, 0)
		start := time.Now()
		down := health.ComponentReport{Status: health.Down, LatencyMs: 2000, Error: "timeout"}

		w := visit(h, "/health")
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, down, reportOf(t, w).Details["db"])
		assert.Equal(t, 2*time.Second, time.Since(start))

		// Until it returns, nobody waits, and it is not run again.
		for range 50 {
			time.Sleep(time.Second)
			at := time.Now()
			assert.Equal(t, down, h.Report(t.Context()).Details["db"])
			assert.Zero(t, time.Since(at))
		}
		assert.Equal(t, int32(1), p.runs.Load())

		// What it says so late is dropped; the next request wants to know.
		time.Sleep(time.Until(start.Add(time.Minute)))
		synctest.Wait()
		p.takes, p.err = 0, errors.New("gone")
		assert.Equal(t, "gone", h.Report(t.Context()).Details["db"].Error)
		assert.Equal(t, int32(2), p.runs.Load())
	})
}

// A check that ends because its context does has timed out all the same, and that is good
// for as long as any result.
func TestCheckThatObeysItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{{
			Name: "db", Timeout: 300 * time.Millisecond,
			Check: func(ctx context.Context) error {
				runs++
				<-ctx.Done()
				assert.Equal(t, context.DeadlineExceeded, context.Cause(ctx))
				return nil // all is well, it says
			},
		}}})
		for range 2 {
			start := time.Now()
			assert.Equal(t, "timeout", h.Report(t.Context()).Details["db"].Error)
			assert.Equal(t, 300*time.Millisecond, time.Since(start))
			time.Sleep(time.Second - 1)
			assert.Equal(t, "timeout", h.Report(t.Context()).Details["db"].Error)
			time.Sleep(time.Nanosecond)
		}
		assert.Equal(t, 2, runs)
	})
}

// brokenError is an error that nobody can ask.
type brokenError struct{}

func (*brokenError) Error() string { panic("no text") }

func TestCheckThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		check func(context.Context) error
		want  string
	}{
		"panic":                  {func(context.Context) error { panic("no pool") }, "panic: no pool"},
		"panic with an error":    {func(context.Context) error { panic(errors.New("no pool")) }, "panic: no pool"},
		"nil pointer":            {(*probe)(nil).check, "panic: runtime error: invalid memory address or nil pointer dereference"},
		"panic while it tells":   {func(context.Context) error { return &brokenError{} }, "panic: no text"},
		"Goexit":                 {func(context.Context) error { runtime.Goexit(); return nil }, "the check ended its goroutine"},
		"Goexit after a defer":   {func(context.Context) error { defer func() { _ = recover() }(); runtime.Goexit(); return nil }, "the check ended its goroutine"},
		"Ping of nothing":        {health.Ping(nil), "panic: runtime error: invalid memory address or nil pointer dereference"},
		"panic of ErrAbort":      {func(context.Context) error { panic(http.ErrAbortHandler) }, "panic: net/http: abort Handler"},
		"it panics with its ctx": {func(ctx context.Context) error { <-ctx.Done(); panic("too late") }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, health.HandlerConfig{
					CacheFor:   -1,
					Components: []health.Component{{Name: "db", Check: row.check}},
				})
				for range 2 { // it is run again
					w := visit(h, "/health")
					assert.Equal(t, 503, w.Code)
					assert.Equal(t, row.want, reportOf(t, w).Details["db"].Error)
				}
			})
		})
	}
}

func TestClientThatGoesAwayWaitsNoLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probe{takes: time.Second}
		h := newHandler(t, health.HandlerConfig{Components: []health.Component{
			{Name: "db", Check: func(ctx context.Context) error {
				assert.NoError(t, p.check(ctx))
				return ctx.Err() // that of the check, not of the request
			}},
			component("cache", nil),
		}})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r := h.Report(ctx)
		assert.Equal(t, 100*time.Millisecond, time.Since(start))
		assert.Equal(t, health.Down, r.Status)
		assert.Equal(t, health.ComponentReport{
			Status: health.Down, LatencyMs: 100, Error: "not waited for: context deadline exceeded",
		}, r.Details["db"])
		assert.Equal(t, health.Up, r.Details["cache"].Status)

		// The check has gone on, for the others.
		r = h.Report(t.Context())
		assert.Equal(t, time.Second, time.Since(start))
		assert.Equal(t, health.ComponentReport{Status: health.Up, LatencyMs: 1000}, r.Details["db"])
		assert.Equal(t, int32(1), p.runs.Load())
	})
}

// What is known is told also to somebody whose time is over.
func TestRequestThatIsOverGetsWhatIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probe{}
		h := p.handler(t, 0)
		visit(h, "/health")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 { // whichever case is looked at first
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/health", http.NoBody))
			require.Equal(t, 200, w.Code)
		}
		assert.Equal(t, int32(1), p.runs.Load())
	})
}

func TestHandlerFollowsItsClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := clock.NewFake(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))
		var err error
		hang := make(chan struct{})
		h := newHandler(t, health.HandlerConfig{Clock: now, Components: []health.Component{{
			Name: "db", Timeout: time.Second, Check: func(context.Context) error { <-hang; return err },
		}}})
		reports := make(chan health.Report)
		ask := func() { reports <- h.Report(t.Context()) }

		go ask()
		synctest.Wait()
		now.Advance(400 * time.Millisecond)
		hang <- struct{}{}
		assert.Equal(t, health.Report{
			Status: health.Up, Timestamp: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
			Details: map[string]health.ComponentReport{"db": {Status: health.Up, LatencyMs: 400}},
		}, <-reports)
		synctest.Wait()
		assert.Zero(t, now.Pending(), "a timer is left")

		now.Advance(time.Second)
		go ask()
		synctest.Wait()
		now.Advance(time.Second)
		assert.Equal(t, "timeout", (<-reports).Details["db"].Error)
		close(hang)
	})
}

// pinger is what Ping needs of a *sql.DB.
type pinger struct{ err error }

func (p *pinger) PingContext(ctx context.Context) error { return errors.Join(p.err, ctx.Err()) }

func TestPing(t *testing.T) {
	t.Parallel()
	p := &pinger{}
	assert.NoError(t, health.Ping(p)(t.Context()))
	p.err = errors.New("gone")
	assert.ErrorIs(t, health.Ping(p)(t.Context()), p.err)
}

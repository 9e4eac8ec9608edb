package retry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// benchStub reads the body and answers at once, so that what is measured is what is around
// it. If it is failing, every first attempt of a call is a 503. It is for one goroutine then.
type benchStub struct {
	header  http.Header
	failing bool
	seen    int
}

func newBenchStub(failing bool) *benchStub {
	return &benchStub{header: http.Header{}, failing: failing}
}

func (s *benchStub) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	status := http.StatusOK
	if s.failing {
		if s.seen++; s.seen%2 == 1 {
			status = http.StatusServiceUnavailable
		}
	}
	return &http.Response{StatusCode: status, Header: s.header, Body: http.NoBody, Request: req}, nil
}

// benchInstant is the system's clock, but whoever waits before the first retry has waited
// already. The time limits, which are 50 ms and more, do not come.
type benchInstant struct{}

func (benchInstant) Now() time.Time { return time.Now() }

func (benchInstant) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d < defaultBase {
		f()
	}
	return benchTimer{}
}

type benchTimer struct{}

func (benchTimer) Stop() bool { return false }

// benchRequest is a request that can be sent again and again without making it anew.
type benchRequest struct {
	*http.Request

	source *bytes.Reader // nil if it has no body
	body   io.ReadCloser
}

// rewind makes it as it was. It allocates nothing.
func (r *benchRequest) rewind() *http.Request {
	if r.source != nil {
		_, _ = r.source.Seek(0, io.SeekStart)
		r.Body = r.body
	}
	return r.Request
}

func benchGet(tb testing.TB) *benchRequest {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://users/api/users/42", http.NoBody)
	require.NoError(tb, err)
	return &benchRequest{Request: req}
}

// benchPost has a body of 1 KiB, and a GetBody.
func benchPost(tb testing.TB) *benchRequest {
	tb.Helper()
	source := bytes.NewReader(make([]byte, 1<<10))
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://users/api/users", source)
	require.NoError(tb, err)
	require.NotNil(tb, req.GetBody)
	return &benchRequest{req, source, req.Body}
}

// benchStream has the same body, which nobody can have again.
func benchStream(tb testing.TB) *benchRequest {
	tb.Helper()
	r := benchPost(tb)
	r.GetBody, r.ContentLength = nil, -1
	return r
}

// benchSend makes a call. It is measured, so it takes no testing.TB.
func benchSend(rt http.RoundTripper, req *benchRequest) {
	resp, err := rt.RoundTrip(req.rewind())
	if err != nil || resp.StatusCode != http.StatusOK {
		panic("a call went as it should not")
	}
	_ = resp.Body.Close()
}

// benchSendTwice is what one failure and one success cost without anything around them.
func benchSendTwice(rt http.RoundTripper, req *benchRequest) {
	resp, err := rt.RoundTrip(req.rewind())
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		panic("a call went as it should not")
	}
	_ = resp.Body.Close()
	benchSend(rt, req)
}

func benchRetrier(tb testing.TB, p Policy) *Retrier {
	tb.Helper()
	r, err := NewRetrier(p)
	require.NoError(tb, err)
	return r
}

// benchEach measures a call, by one goroutine and by all, each with a function of its own.
func benchEach(b *testing.B, name string, newFunc func() func()) {
	b.Helper()
	b.Run(name+"/single", func(b *testing.B) {
		f := newFunc()
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			f := newFunc()
			for pb.Next() {
				f()
			}
		})
	})
}

// benchBoth is benchEach with one function for all goroutines.
func benchBoth(b *testing.B, name string, f func()) {
	b.Helper()
	benchEach(b, name, func() func() { return f })
}

// BenchmarkTransport measures what a Transport adds to a call: the difference to the bare
// stub with the same request. All goroutines share the Retrier, none shares its stub.
func BenchmarkTransport(b *testing.B) {
	for _, row := range []struct {
		name    string
		request func(testing.TB) *benchRequest
	}{{"GET", benchGet}, {"POST-1KiB", benchPost}, {"POST-stream", benchStream}} {
		benchTransports(b, row.name, row.request, newBenchStub(false), []benchPolicy{{"default", Policy{}}})
	}
	noAttempt, noDecided := func(Attempt) {}, func(Decision) {}
	benchTransports(b, "GET-options", benchGet, newBenchStub(false), []benchPolicy{
		{"hooks", Policy{Hooks: Hooks{Attempt: noAttempt, Decided: noDecided}}},
		{"PerAttemptTimeout", Policy{PerAttemptTimeout: time.Minute}},
		{"hedge-after-1h", Policy{Hedge: &Hedge{After: time.Hour}}},
		{"hedge-learnt", Policy{Hedge: &Hedge{}}},
	})

	// One failure, then success: nobody waits.
	benchEach(b, "GET-503-200/bare", func() func() {
		stub, req := newBenchStub(true), benchGet(b)
		return func() { benchSendTwice(stub, req) }
	})
	r := benchRetrier(b, Policy{Clock: benchInstant{}})
	benchEach(b, "GET-503-200/default", func() func() {
		t, req := r.Transport(newBenchStub(true)), benchGet(b)
		return func() { benchSend(t, req) }
	})
}

type benchPolicy struct {
	name   string
	policy Policy
}

// benchTransports measures the stub, bare and behind each policy.
func benchTransports(b *testing.B, name string, request func(testing.TB) *benchRequest, stub *benchStub, policies []benchPolicy) {
	b.Helper()
	sending := func(rt http.RoundTripper) func() func() {
		return func() func() {
			req := request(b)
			return func() { benchSend(rt, req) }
		}
	}
	benchEach(b, name+"/bare", sending(stub))
	for _, row := range policies {
		r := benchRetrier(b, row.policy)
		if r.hedges.learns() {
			benchTeach(r)
		}
		benchEach(b, name+"/"+row.name, sending(r.Transport(stub)))
	}
}

// benchTeach tells of enough slow attempts for a delay to be known from the first call on.
func benchTeach(r *Retrier) {
	now := r.policy.Clock.Now()
	h := r.hedges.learnt.of(http.MethodGet, now)
	for range 2 * minSamples {
		h.record(time.Second)
	}
	if h.delay(now, r.hedges.Quantile) == 0 {
		panic("it has not learnt")
	}
}

var errBench = errors.New("broken")

// benchFunc is a function whose every first call fails, if it is failing.
func benchFunc(failing bool) func(context.Context) (int, error) {
	n := 0
	return func(context.Context) (int, error) {
		if failing {
			if n++; n%2 == 1 {
				return 0, errBench
			}
		}
		return 1, nil
	}
}

// BenchmarkDo measures what Do adds to a function.
func BenchmarkDo(b *testing.B) {
	ctx := context.Background()
	for _, row := range []struct {
		name    string
		failing bool
	}{{"success", false}, {"failure-success", true}} {
		benchEach(b, row.name+"/bare", func() func() {
			fn := benchFunc(row.failing)
			return func() {
				_, err := fn(ctx)
				if err != nil {
					_, err = fn(ctx)
				}
				if err != nil {
					panic(err)
				}
			}
		})
		r := benchRetrier(b, Policy{Clock: benchInstant{}})
		benchEach(b, row.name+"/Do", func() func() {
			fn := benchFunc(row.failing)
			return func() {
				if _, err := Do(ctx, r, fn); err != nil {
					panic(err)
				}
			}
		})
	}
}

var (
	benchGood   = outcome.Outcome{Class: outcome.Success}
	benchFailed = outcome.Outcome{Class: outcome.Failure, Again: outcome.Anywhere}
)

// benchAccount returns an account that is full, or as full as it begins.
func benchAccount(tb testing.TB, budget Budget) Account {
	tb.Helper()
	a, err := budget.NewAccount(nil)
	require.NoError(tb, err)
	return a
}

// benchWithdraw takes out an attempt's cost, and puts it back, so that there is always enough.
func benchWithdraw(a Account, back outcome.Class) {
	cost, ok := a.Withdraw(benchFailed)
	if !ok {
		panic("it is empty")
	}
	a.Report(cost, outcome.Outcome{Class: back})
}

// BenchmarkAccount measures what each call asks and tells of a budget. All goroutines share
// the account, so the floors are one atomic load and one addition that they share as well.
func BenchmarkAccount(b *testing.B) {
	var floor atomic.Int64
	benchBoth(b, "bare/load", func() {
		if floor.Load() < 0 {
			panic("it never is")
		}
	})
	benchBoth(b, "bare/add", func() { floor.Add(1) })

	quota := benchAccount(b, Quota{})
	benchBoth(b, "Quota/report-full", func() { quota.Report(0, benchGood) })
	benchBoth(b, "Quota/withdraw-report", func() { benchWithdraw(quota, outcome.Success) })
	ratio := benchAccount(b, Ratio{Reserve: 100})
	benchBoth(b, "Ratio/begin-full", ratio.Begin)
	benchBoth(b, "Ratio/withdraw-report", func() { benchWithdraw(ratio, outcome.Refused) })
	throttle := benchAccount(b, Throttle{})
	benchBoth(b, "Throttle/report-full", func() { throttle.Report(0, benchGood) })
	benchBoth(b, "Throttle/withdraw-report", func() { benchWithdraw(throttle, outcome.Success) })
}

// BenchmarkHistogram measures what hedges with a learnt delay do in each call. The floor is
// an addition that all goroutines share; record's are to many counters.
func BenchmarkHistogram(b *testing.B) {
	var floor atomic.Uint32
	benchBoth(b, "bare/add", func() { floor.Add(1) })
	start := time.Now()
	h := newHistogram(start)
	benchEach(b, "record", func() func() {
		took := time.Duration(0)
		return func() {
			took = (took + 37*time.Microsecond) % (100 * time.Millisecond)
			h.record(took)
		}
	})
	benchBoth(b, "delay", func() {
		if h.delay(start, defaultQuantile) < 0 {
			panic("it never is")
		}
	})
}

// BenchmarkPlan measures the decisions of one call alone. The floor is the look at the
// classes that a loop written by hand has.
func BenchmarkPlan(b *testing.B) {
	now := time.Now()
	event := func(o outcome.Outcome) Event {
		return Event{Now: now, Took: time.Millisecond, Outcome: o, Idempotent: true, Replayable: true}
	}
	success, failure := event(benchGood), event(benchFailed)
	elsewhere := failure
	elsewhere.Others = true
	byHand := func(events ...*Event) {
		for _, e := range events {
			if e.Outcome.Class == outcome.Success {
				return
			}
		}
		panic("a call went as it should not")
	}
	benchBoth(b, "success/bare", func() { byHand(&success) })
	r := benchRetrier(b, Policy{})
	benchBoth(b, "success/Plan", func() {
		if p := r.Begin(); p.Next(success).Again {
			panic("it is repeated")
		}
	})
	benchBoth(b, "failure-success/bare", func() { byHand(&failure, &success) })
	for _, row := range []struct {
		name  string
		event Event
	}{{"Plan-wait", failure}, {"Plan-elsewhere", elsewhere}} {
		benchBoth(b, "failure-success/"+row.name, func() {
			p := r.Begin()
			a := p.Next(row.event)
			again := success
			again.Cost = a.Cost
			if !a.Again || p.Next(again).Again {
				panic("a call went as it should not")
			}
		})
	}
	hedged := benchRetrier(b, Policy{Hedge: &Hedge{After: time.Second, Budget: -1}})
	benchBoth(b, "hedge/Plan", func() {
		p := hedged.Begin()
		a := p.Hedge(elsewhere)
		if !a.Again {
			panic("there is no hedge")
		}
		p.Withdrawn(a, true)
	})
}

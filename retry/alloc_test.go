//go:build !race

package retry

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// A call that needs no retry allocates little on top of what is below.
func TestAlloc_NoRetry(t *testing.T) {
	for _, row := range []struct {
		name    string
		request func(testing.TB) *benchRequest
		budget  float64
	}{
		{"GET", benchGet, 2},
		{"POST of 1 KiB", benchPost, 5},
	} {
		stub, req := newBenchStub(false), row.request(t)
		transport := benchRetrier(t, Policy{}).Transport(stub)
		bare := testing.AllocsPerRun(1000, func() { benchSend(stub, req) })
		retrying := testing.AllocsPerRun(1000, func() { benchSend(transport, req) })
		t.Logf("%s: %v allocations per call, %v without", row.name, retrying, bare)
		assert.LessOrEqual(t, retrying-bare, row.budget, row.name)
	}
}

// So does one that needs a retry, of which both answers are part.
func TestAlloc_OneRetry(t *testing.T) {
	stub, req := newBenchStub(true), benchGet(t)
	transport := benchRetrier(t, Policy{Clock: benchInstant{}}).Transport(stub)
	bare := testing.AllocsPerRun(1000, func() { benchSendTwice(stub, req) })
	retrying := testing.AllocsPerRun(1000, func() { benchSend(transport, req) })
	t.Logf("GET, 503, 200: %v allocations per call, %v without", retrying, bare)
	assert.LessOrEqual(t, retrying, 10.0)
}

// What all calls do to the accounts allocates nothing, whether there is enough or not.
func TestAlloc_Accounts(t *testing.T) {
	for _, budget := range []Budget{
		Quota{}, Quota{Size: -1}, Quota{Size: 1}, Ratio{}, Ratio{Reserve: -1}, Throttle{}, Throttle{MaxTokens: 1},
	} {
		a := benchAccount(t, budget)
		for _, o := range []outcome.Outcome{benchGood, benchFailed, {Class: outcome.Refused}} {
			assert.Zero(t, testing.AllocsPerRun(1000, func() {
				a.Begin()
				a.Report(0, o)
				cost, _ := a.Withdraw(benchFailed)
				a.Report(cost, o)
				a.Tokens()
			}), "%T%+v, %v", budget, budget, o.Class)
		}
	}
}

// Neither does what is known of latencies.
func TestAlloc_Latencies(t *testing.T) {
	now := time.Now()
	var known latencies
	known.of(http.MethodGet, now)
	var usual typical
	took := time.Duration(0)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		took += time.Millisecond
		now = now.Add(100 * time.Millisecond)
		h := known.of(http.MethodGet, now)
		h.record(took)
		h.delay(now, defaultQuantile)
		usual.note(took, now)
		usual.latency()
	}))
	require.NotZero(t, known.of(http.MethodGet, now).delay(now, defaultQuantile), "it was computed")
}

// A decision allocates nothing, unless it is to wait, which makes the waits of the call.
func TestAlloc_Decisions(t *testing.T) {
	r := benchRetrier(t, Policy{Hedge: &Hedge{After: time.Second, Budget: -1}})
	success := Event{Now: time.Now(), Outcome: benchGood, Idempotent: true, Replayable: true}
	elsewhere := success
	elsewhere.Outcome, elsewhere.Others = benchFailed, true
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		p := r.Begin()
		hedge := p.Hedge(elsewhere)
		p.Withdrawn(hedge, true)
		again := success
		a := p.Next(elsewhere)
		again.Cost = a.Cost
		if !hedge.Again || !a.Again || p.Next(again).Again {
			t.Fatal("a call went as it should not")
		}
	}))
}

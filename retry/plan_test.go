package retry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var (
	good      = outcome.Outcome{Class: outcome.Success}
	failed    = outcome.Outcome{Class: outcome.Failure, Again: outcome.Anywhere}
	timedOut  = outcome.Outcome{Class: outcome.Failure, Again: outcome.Anywhere, Timeout: true}
	final     = outcome.Outcome{Class: outcome.Failure} // a 500
	noConn    = outcome.Outcome{Class: outcome.NeverSent, Again: outcome.Anywhere}
	dialSlow  = outcome.Outcome{Class: outcome.NeverSent, Again: outcome.Anywhere, Timeout: true}
	badCert   = outcome.Outcome{Class: outcome.NeverSent, Again: outcome.Elsewhere}
	overload  = outcome.Outcome{Class: outcome.Overload, Again: outcome.Anywhere}
	callerWas = outcome.Outcome{Class: outcome.Canceled}
)

// get is an event of a request that may be repeated, post of one that may not.
func get(o outcome.Outcome, others bool) Event {
	return Event{Now: epoch, Outcome: o, Idempotent: true, Replayable: true, Others: others}
}

func post(o outcome.Outcome, others bool) Event {
	return Event{Now: epoch, Outcome: o, Replayable: true, Others: others}
}

func retrier(t testing.TB, p Policy) *Retrier {
	t.Helper()
	const seed = 1
	t.Logf("seed %d", seed)
	p.Rand = rand.NewPCG(seed, 0)
	r, err := NewRetrier(p)
	require.NoError(t, err)
	return r
}

// driven is a plan that hands the cost of an action to the next event, as drivers do.
type driven struct {
	Plan
	cost int
}

func begin(r *Retrier) *driven { return &driven{Plan: r.Begin()} }

func (d *driven) Next(e Event) Action {
	e.Cost = d.cost
	a := d.Plan.Next(e)
	d.cost = a.Cost
	return a
}

func TestPlan_Decisions(t *testing.T) {
	again := Action{Again: true} // at once
	stop := func(r outcome.Reason) Action { return Action{Reason: r} }
	for _, row := range []struct {
		name   string
		policy Policy
		events []Event
		want   []Action
	}{
		{"success", Policy{}, []Event{get(good, true)}, []Action{stop("")}},
		{"final failure", Policy{}, []Event{get(final, true)}, []Action{stop("")}},
		{"idempotent, elsewhere at once", Policy{}, []Event{get(failed, true), get(good, true)}, []Action{again, stop("")}},
		{"attempts run out", Policy{}, []Event{get(failed, true), get(failed, true), get(failed, true)}, []Action{again, again, stop(outcome.Attempts)}},
		{"no retry", Policy{MaxAttempts: 1}, []Event{get(failed, true)}, []Action{stop(outcome.Attempts)}},
		{"no retry, and no free move", Policy{MaxAttempts: 1}, []Event{get(noConn, true)}, []Action{stop(outcome.Attempts)}},
		{"sent and not idempotent", Policy{}, []Event{post(failed, true)}, []Action{stop(outcome.NotIdempotent)}},
		{"sent, timed out and not idempotent", Policy{}, []Event{post(timedOut, true)}, []Action{stop(outcome.NotIdempotent)}},
		{"overloaded and not idempotent", Policy{}, []Event{post(overload, true)}, []Action{stop(outcome.NotIdempotent)}},
		{"never sent, whatever the method", Policy{}, []Event{post(noConn, true), post(good, true)}, []Action{again, stop("")}},
		{"never sent after a timeout", Policy{}, []Event{post(dialSlow, true), post(good, true)}, []Action{again, stop("")}},
		{"never sent, body gone", Policy{}, []Event{{Outcome: noConn, Others: true}}, []Action{stop(outcome.NotReplayable)}},                     // T-02
		{"idempotent, body gone", Policy{}, []Event{{Outcome: failed, Others: true, Idempotent: true}}, []Action{stop(outcome.NotReplayable)}},   // T-02
		{"certificate, elsewhere", Policy{}, []Event{get(badCert, true), get(badCert, false)}, []Action{again, stop(outcome.Permanent)}},
		{"certificate, one other endpoint", Policy{}, []Event{get(badCert, true), get(badCert, true)}, []Action{again, stop(outcome.Permanent)}},
		{"certificate, nowhere else", Policy{}, []Event{get(badCert, false)}, []Action{stop(outcome.Permanent)}},
		{"caller gave up", Policy{}, []Event{get(callerWas, true)}, []Action{stop(outcome.Caller)}},
		{"refused by ourselves", Policy{}, []Event{get(outcome.Outcome{Class: outcome.Refused}, true)}, []Action{stop(outcome.Invalid)}},
		{
			"free moves come on top of the attempts, twice",
			Policy{},
			[]Event{get(noConn, true), get(noConn, true), get(noConn, true), get(noConn, true), get(noConn, true)},
			[]Action{again, again, again, again, stop(outcome.Attempts)},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			plan := begin(retrier(t, row.policy))
			for i, e := range row.events {
				got := plan.Next(e)
				got.Cost = 0 // see TestQuota_Arithmetic
				assert.Equal(t, row.want[i], got, "after attempt %d", i+1)
			}
		})
	}
}

func TestPlan_LoneEndpointIsTriedAgainAfterBackoff_R17(t *testing.T) {
	plan := begin(retrier(t, Policy{Backoff: Backoff{Base: time.Second, Max: time.Minute}}))
	for i, o := range []outcome.Outcome{noConn, failed} {
		a := plan.Next(get(o, false))
		require.True(t, a.Again)
		assert.Positive(t, a.Wait)
		assert.LessOrEqual(t, a.Wait, time.Second<<i)
	}
}

func TestPlan_NoWaitForWhatCannotHappen_R06(t *testing.T) {
	for _, row := range []struct {
		left   time.Duration
		others bool
		want   outcome.Reason
	}{
		{time.Hour, false, ""},
		{time.Nanosecond, false, outcome.Deadline}, // the wait is a millisecond at least
		{time.Nanosecond, true, ""},                // no wait
		{0, true, outcome.Deadline},
		{-time.Second, true, outcome.Deadline},
	} {
		r := retrier(t, Policy{})
		plan := begin(r)
		e := get(failed, row.others)
		e.Deadline = epoch.Add(row.left)
		a := plan.Next(e)
		assert.Equal(t, row.want, a.Reason, "%v left", row.left)
		assert.Equal(t, row.want == "", a.Again)
		if row.want != "" {
			assert.Equal(t, defaultQuotaSize, r.Tokens(), "an attempt that is not made costs nothing")
		}
	}
}

func TestPlan_ExhaustedByACallAround_R05(t *testing.T) {
	for _, o := range []outcome.Outcome{failed, noConn} {
		plan := begin(retrier(t, Policy{}))
		e := get(o, true)
		e.Exhausted = true
		assert.Equal(t, Action{Reason: outcome.Attempts}, plan.Next(e))
	}
}

func TestQuota_Arithmetic_R04(t *testing.T) {
	r := retrier(t, Policy{})
	tokens := func() int { return defaultQuotaSize - r.Tokens() } // taken out

	plan := begin(r)
	plan.Next(get(failed, true))
	assert.Equal(t, 5, tokens(), "a retry")
	plan.Next(get(good, true))
	assert.Equal(t, 0, tokens(), "which succeeded")

	plan = begin(r)
	plan.Next(get(timedOut, true))
	assert.Equal(t, 10, tokens(), "a retry after a timeout")
	plan.Next(get(failed, true))
	assert.Equal(t, 15, tokens(), "another one")
	plan.Next(get(good, true))
	assert.Equal(t, 10, tokens(), "only the cost of the one that succeeded comes back")

	plan = begin(r)
	plan.Next(get(good, true))
	assert.Equal(t, 9, tokens(), "a first attempt that succeeds puts one in")

	plan = begin(r)
	plan.Next(get(outcome.Outcome{Class: outcome.ClientError}, true))
	assert.Equal(t, 9, tokens(), "a client error puts nothing in")

	plan = begin(r)
	plan.Next(get(noConn, true))
	assert.Equal(t, 9, tokens(), "a free move")
	plan.Next(get(dialSlow, true))
	assert.Equal(t, 19, tokens(), "a dial that timed out is no free move")
}

func TestQuota_EndsRetriesWhenAllFails_R04(t *testing.T) {
	r := retrier(t, Policy{MaxAttempts: 4})
	sent := 0
	reasons := map[outcome.Reason]int{}
	for range 10000 {
		plan := begin(r)
		for {
			sent++
			a := plan.Next(get(failed, true))
			if !a.Again {
				reasons[a.Reason]++
				break
			}
		}
	}
	assert.Equal(t, 10000+defaultQuotaSize/defaultCost, sent)
	assert.Equal(t, map[outcome.Reason]int{outcome.Attempts: 33, outcome.Quota: 9967}, reasons)
}

func TestQuota_CanBeSwitchedOff(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: -1}})
	for range 1000 {
		plan := begin(r)
		assert.True(t, plan.Next(get(failed, true)).Again)
	}
}

func TestQuota_StaysWhenThePolicyChanges_P01(t *testing.T) {
	r := retrier(t, Policy{})
	plan := begin(r)
	plan.Next(get(failed, true))
	next, err := r.With(Policy{MaxAttempts: 5})
	require.NoError(t, err)
	assert.Equal(t, defaultQuotaSize-defaultCost, next.Tokens())
	_, err = r.With(Policy{MaxAttempts: -1})
	assert.Error(t, err)
}

func TestBackoff_NeverOverflows_R08(t *testing.T) {
	for _, base := range []time.Duration{0, 1, time.Second, math.MaxInt64} {
		for _, limit := range []time.Duration{0, 1, time.Minute, math.MaxInt64} {
			for _, factor := range []float64{0, 1, 2, 1e300} {
				b := Backoff{Base: base, Max: limit, Factor: factor}
				if b.validate() != nil {
					continue
				}
				b = b.withDefaults()
				b.Kind = Exponential
				bounds := b.new(nil)
				before := time.Duration(0)
				for n := range 10000 {
					bound := bounds.NextBackOff()
					require.GreaterOrEqual(t, bound, before, "%+v, wait %d", b, n)
					require.LessOrEqual(t, bound, b.Max, "%+v, wait %d", b, n)
					before = bound
				}
			}
		}
	}
}

func TestBackoff_JitterIsKeptAtTheCeiling_R09(t *testing.T) {
	r := retrier(t, Policy{Backoff: Backoff{Base: time.Second, Max: time.Second}})
	seen := map[time.Duration]int{}
	for range 10000 {
		plan := begin(r)
		a := plan.Next(get(noConn, false))
		if a.Reason == outcome.Quota {
			r.account.(*quotaAccount).put(defaultQuotaSize, defaultQuotaSize)
			a = plan.Next(get(noConn, false))
		}
		assert.GreaterOrEqual(t, a.Wait, minWait)
		assert.LessOrEqual(t, a.Wait, time.Second)
		seen[a.Wait]++
	}
	for wait, n := range seen {
		assert.LessOrEqual(t, n, 100, "%v", wait)
	}
}

func TestPolicy_AllProblemsAtOnce(t *testing.T) {
	_, err := NewRetrier(Policy{
		MaxAttempts: -1, PerAttemptTimeout: -1,
		Backoff: Backoff{Base: -1, Max: -2, Factor: math.NaN()},
		Budget:  Quota{Cost: -1, TimeoutCost: -1},
	})
	var problem *field.Error
	require.ErrorAs(t, err, &problem)
	for _, name := range []string{"MaxAttempts", "PerAttemptTimeout", "Backoff.Base", "Backoff.Max", "Backoff.Factor", "Budget.Cost", "Budget.TimeoutCost"} {
		assert.ErrorContains(t, err, name)
	}
	assert.NoError(t, Policy{}.Validate())
}

func TestPolicy_DocumentedDefaults(t *testing.T) {
	want := Policy{
		MaxAttempts: 3,
		Backoff:     Backoff{Base: 50 * time.Millisecond, Max: 2 * time.Second, Factor: 2},
		Pushback:    Pushback{Max: 10 * time.Second},
		Budget:      Quota{Size: 500, Cost: 5, TimeoutCost: 10},
	}
	assert.Equal(t, fmt.Sprint(want), fmt.Sprint(Policy{}.WithDefaults()))
}

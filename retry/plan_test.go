package retry

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func TestPlan_Decisions_R01_R02_R16(t *testing.T) {
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

// The learnt latency is that of good answers; what failed fast says nothing of it.
func TestPlan_NoAttemptThatCannotEndInTime_R06(t *testing.T) {
	for _, row := range []struct {
		name   string
		before []Event // of calls before
		left   time.Duration
		others bool
		want   outcome.Reason
	}{
		{"nothing is known", nil, time.Millisecond, true, ""},
		{"enough time", []Event{{Outcome: good, Took: time.Second}}, time.Second, true, ""},
		{"less than an answer takes", []Event{{Outcome: good, Took: time.Second}}, time.Second - 1, true, outcome.Deadline},
		{"the wait counts too", []Event{{Outcome: good, Took: time.Second}}, 11*time.Second - 1, false, outcome.Deadline},
		{"both fit", []Event{{Outcome: good, Took: time.Second}}, 11 * time.Second, false, ""},
		{"failures do not count", []Event{{Outcome: failed, Took: time.Hour}}, time.Millisecond, true, ""},
		{"client errors do", []Event{{Outcome: outcome.Outcome{Class: outcome.ClientError}, Took: time.Second}}, time.Millisecond, true, outcome.Deadline},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, Policy{Backoff: Backoff{Kind: Constant, Base: 10 * time.Second}})
			for _, e := range row.before {
				e.Now = epoch
				begin(r).Next(e)
			}
			before := r.Tokens()
			e := get(failed, row.others)
			e.Deadline = epoch.Add(row.left)
			a := begin(r).Next(e)
			assert.Equal(t, row.want, a.Reason)
			assert.Equal(t, row.want == "", a.Again)
			if !a.Again {
				assert.Zero(t, a.Wait)
				assert.Equal(t, before, r.Tokens(), "an attempt that is not made costs nothing")
			}
		})
	}
}

// One slow answer moves what is typical by a sixteenth, and only a few times a second.
func TestPlan_TypicalLatencyIsNoOutlier_R06(t *testing.T) {
	var typ typical
	now := epoch
	for range 100 {
		typ.note(100*time.Millisecond, now)
		now = now.Add(time.Second)
	}
	assert.Equal(t, 100*time.Millisecond, typ.latency())
	typ.note(time.Hour, now)
	assert.InDelta(t, 106.25, float64(typ.latency())/1e6, 0.01)
	for range 1000 {
		typ.note(time.Hour, now)
	}
	assert.InDelta(t, 106.25, float64(typ.latency())/1e6, 0.01, "the same moment")
	for range 200 {
		now = now.Add(time.Second)
		typ.note(time.Millisecond, now)
	}
	assert.Equal(t, time.Millisecond, typ.latency(), "it follows what is new")
	typ.note(-time.Second, now.Add(time.Second))
	assert.Less(t, typ.latency(), time.Millisecond)
	assert.GreaterOrEqual(t, typ.latency(), time.Duration(0))
}

func asked(after time.Duration, others bool) Event {
	e := get(overload, others)
	e.Asked, e.Pushback = true, after
	return e
}

func TestPlan_Pushback_R10_R11(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		name     string
		pushback Pushback
		event    Event
		reason   outcome.Reason
		min, max time.Duration
	}{
		{"not asked", Pushback{}, get(overload, false), "", s, s},
		{"asked", Pushback{}, asked(5*s, false), "", 5 * s, 7500 * time.Millisecond},
		{"another endpoint, at once", Pushback{}, asked(5*s, true), "", 0, 0},
		{"another endpoint, though above Max", Pushback{}, asked(time.Hour, true), "", 0, 0},
		{"zero waits for the backoff", Pushback{}, asked(0, false), "", s, s},
		{"less than the backoff", Pushback{}, asked(time.Millisecond, false), "", s, s},
		{"Max itself", Pushback{}, asked(10*s, false), "", 10 * s, 10 * s},
		{"above Max", Pushback{}, asked(10*s+1, false), outcome.Pushback, 0, 0},
		{"an hour", Pushback{}, asked(time.Hour, false), outcome.Pushback, 0, 0},
		{"a year", Pushback{}, asked(365*24*time.Hour, false), outcome.Pushback, 0, 0},
		{"shortened", Pushback{Shorten: true}, asked(time.Hour, false), "", 10*s - 10*s/3, 10 * s},
		{"nothing to shorten", Pushback{Shorten: true}, asked(5*s, false), "", 5 * s, 7500 * time.Millisecond},
		{"Max of the user", Pushback{Max: 2 * s}, asked(3*s, false), outcome.Pushback, 0, 0},
		{"never more than Max", Pushback{Max: 6 * s}, asked(5*s, false), "", 5 * s, 6 * s},
		{"not heard", Pushback{Max: -1}, asked(time.Hour, false), "", s, s},
		{"not heard, so not shortened", Pushback{Max: -1, Shorten: true}, asked(5*s, false), "", s, s},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, Policy{Pushback: row.pushback, Backoff: Backoff{Kind: Constant, Base: s}, Budget: Quota{Size: -1}})
			for range 100 {
				a := begin(r).Next(row.event)
				assert.Equal(t, row.reason, a.Reason)
				assert.Equal(t, row.reason == "", a.Again)
				assert.GreaterOrEqual(t, a.Wait, row.min)
				assert.LessOrEqual(t, a.Wait, row.max)
			}
		})
	}
}

func TestPlan_PushbackZeroIsNoHotLoop_R11(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: -1}})
	for range 10000 {
		a := begin(r).Next(asked(0, false))
		require.True(t, a.Again)
		require.GreaterOrEqual(t, a.Wait, minWait)
	}
}

func TestPlan_PushbackJitterOnlyAdds_R12(t *testing.T) {
	const s, clients = time.Second, 10000
	for _, row := range []struct{ asked, last time.Duration }{
		{time.Second, 3 * s / 2},
		{5 * s, 15 * s / 2},
		{7 * s, 10 * s}, // Max is sooner than half as long again
		{8 * s, 10 * s},
		{9900 * time.Millisecond, 10 * s},
		{time.Hour, 10 * s}, // shortened to Max, or up to a third less
	} {
		t.Run(row.asked.String(), func(t *testing.T) {
			r := retrier(t, Policy{Budget: Quota{Size: -1}, Backoff: Backoff{Base: time.Millisecond}, Pushback: Pushback{Shorten: true}})
			first := row.asked
			if first > row.last {
				first = row.last * 2 / 3
			}
			seen, late := map[time.Duration]int{}, 0
			for range clients {
				plan := r.Begin()
				a := plan.Next(asked(row.asked, false))
				require.GreaterOrEqual(t, a.Wait, first, "never sooner")
				require.LessOrEqual(t, a.Wait, row.last)
				seen[a.Wait]++
				if a.Wait > (first+row.last)/2 {
					late++
				}
			}
			for wait, n := range seen {
				require.LessOrEqual(t, n, clients/100, "%v", wait)
			}
			assert.InDelta(t, clients/2, late, clients/20, "spread over the whole window")
		})
	}
}

func TestPlan_PushbackAndDeadline_R06(t *testing.T) {
	r := retrier(t, Policy{})
	e := asked(9*time.Second, false)
	e.Deadline = epoch.Add(5 * time.Second)
	assert.Equal(t, Action{Reason: outcome.Deadline}, begin(r).Next(e), "now, not after 5 s")
	assert.Equal(t, defaultQuotaSize, r.Tokens())
}

func TestPlan_Verdicts_R22(t *testing.T) {
	again := Action{Again: true}
	stop := func(r outcome.Reason) Action { return Action{Reason: r} }
	sentOnce := Event{Now: epoch, Outcome: failed, Others: true, Idempotent: true} // body gone
	refusedHere := outcome.Outcome{Class: outcome.Refused}
	for _, row := range []struct {
		name    string
		verdict Verdict
		event   Event
		want    Action
	}{
		{"yes to a post", Repeat, post(failed, true), again},
		{"yes to a final failure", Repeat, get(final, true), again},
		{"yes to a success", Repeat, get(good, true), again},
		{"yes to a bad certificate, nowhere else", Repeat, get(badCert, false), again},
		{"yes to a body that is gone", Repeat, sentOnce, stop(outcome.NotReplayable)},
		{"yes after the caller has gone", Repeat, get(callerWas, true), stop(outcome.Caller)},
		{"yes to what we refused", Repeat, get(refusedHere, true), stop(outcome.Invalid)},
		{"no to a failure", Decline, get(failed, true), stop(outcome.Declined)},
		{"no to a final failure", Decline, get(final, true), stop(outcome.Declined)},
		{"no to a refused connection", Decline, get(noConn, true), stop(outcome.Declined)},
		{"no to a success", Decline, get(good, true), stop("")},
		{"no after the caller has gone", Decline, get(callerWas, true), stop(outcome.Caller)},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.event.Verdict = row.verdict
			a := begin(retrier(t, Policy{Backoff: Backoff{Kind: Constant}})).Next(row.event)
			if a.Again {
				a.Cost = 0
				if !row.event.Others {
					a.Wait -= defaultBase
				}
			}
			assert.Equal(t, row.want, a)
		})
	}
	r := retrier(t, Policy{MaxAttempts: 2})
	plan := begin(r)
	e := post(failed, true)
	e.Verdict = Repeat
	assert.True(t, plan.Next(e).Again)
	assert.Equal(t, outcome.Attempts, plan.Next(e).Reason, "the limit counts")
	r = retrier(t, Policy{Budget: Quota{Size: 1}})
	assert.Equal(t, outcome.Quota, begin(r).Next(e).Reason, "and the budget")
}

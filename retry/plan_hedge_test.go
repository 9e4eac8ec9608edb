package retry

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// hedged is a policy whose hedges have no budget of their own.
var hedged = Policy{Hedge: &Hedge{After: time.Second, Budget: -1}}

// conflict is a 409 that is one of Policy.Statuses.
var conflict = outcome.Outcome{Class: outcome.ClientError, Again: outcome.Anywhere}

// running is the event while another attempt is under way.
func running(e Event) Event {
	e.Running = true
	return e
}

func TestPlan_Hedged_R19_R20(t *testing.T) {
	type step struct {
		leg   int // whose end it is, by the order in which they began; -1 asks for a hedge
		event Event
		want  Action
	}
	const hedge = -1
	again, await := Action{Again: true, Cost: 5}, Action{Await: true}
	stop := func(r outcome.Reason) Action { return Action{Reason: r} }
	verdict := func(v Verdict, e Event) Event {
		e.Verdict = v
		return e
	}
	free, waiting := Action{Again: true}, get(good, true)
	for _, row := range []struct {
		name   string
		most   int
		steps  []step
		tokens int // at the end, of 100 after 20 were taken
	}{
		{"the hedge wins and gets its cost back", 3, []step{
			{hedge, waiting, again}, {1, running(get(good, true)), stop("")},
		}, 80},
		{"the first wins", 3, []step{
			{hedge, waiting, again}, {0, running(get(good, true)), stop("")},
		}, 76},
		{"a client error wins, too", 3, []step{
			{hedge, waiting, again}, {1, running(get(blamed, true)), stop("")},
		}, 75},
		{"a failed first does not win", 3, []step{
			{hedge, waiting, again}, {0, running(get(failed, true)), await}, {1, get(good, true), stop("")},
		}, 80},
		{"a failed hedge does not win", 3, []step{
			{hedge, waiting, again}, {1, running(get(failed, true)), await}, {0, get(good, true), stop("")},
		}, 76},
		{"neither does a final failure", 3, []step{
			{hedge, waiting, again}, {1, running(get(final, true)), await}, {0, get(good, true), stop("")},
		}, 76},
		{"nor one that was never sent: it is no free move", 3, []step{
			{hedge, waiting, again}, {1, running(get(noConn, true)), await}, {0, get(failed, true), again}, {2, get(good, true), stop("")},
		}, 75},
		{"nor a bad certificate", 3, []step{
			{hedge, waiting, again}, {0, running(get(badCert, true)), await}, {1, get(good, true), stop("")},
		}, 80},
		{"nor an overload", 3, []step{
			{hedge, waiting, again}, {0, running(asked(time.Hour, false)), await}, {1, get(good, true), stop("")},
		}, 80},
		{"nor one after which time is up", 3, []step{
			{hedge, waiting, again}, {0, running(Event{Now: epoch, Outcome: failed, Deadline: epoch}), await}, {1, get(good, true), stop("")},
		}, 80},
		{"both fail, and a retry helps", 3, []step{
			{hedge, waiting, again}, {1, running(get(failed, true)), await}, {0, get(failed, true), again}, {2, get(good, true), stop("")},
		}, 75},
		{"a hedge counts for the attempts", 2, []step{
			{hedge, waiting, again}, {0, running(get(failed, true)), await}, {1, get(failed, true), stop(outcome.Attempts)},
		}, 75},
		{"no second hedge above the attempts", 2, []step{
			{hedge, waiting, again}, {0, running(get(failed, true)), await}, {hedge, waiting, stop(outcome.Attempts)},
		}, 75},
		{"a second hedge beside the first", 3, []step{
			{hedge, waiting, again}, {0, running(get(failed, true)), await}, {hedge, waiting, again}, {1, running(get(failed, true)), await}, {2, get(good, true), stop("")},
		}, 75},
		{"a retry is hedged", 3, []step{
			{0, get(failed, true), again}, {hedge, waiting, again}, {1, running(get(failed, true)), await}, {2, get(failed, true), stop(outcome.Attempts)},
		}, 70},
		{"no hedge for the last attempt", 3, []step{
			{0, get(failed, true), again}, {1, get(failed, true), again}, {hedge, waiting, stop(outcome.Attempts)},
		}, 70},
		{"a free move does not take the hedge away", 2, []step{
			{0, get(noConn, true), free}, {hedge, waiting, again}, {2, running(get(good, true)), stop("")},
		}, 80},
		{"the caller decides while another runs", 3, []step{
			{hedge, waiting, again}, {0, running(get(callerWas, true)), stop(outcome.Caller)},
		}, 75},
		{"a rule that says no does not stop the other", 3, []step{
			{hedge, waiting, again}, {0, running(verdict(Decline, get(failed, true))), await}, {1, get(good, true), stop("")},
		}, 80},
		{"a rule that says no to a good answer", 3, []step{
			{hedge, waiting, again}, {0, running(verdict(Decline, get(good, true))), stop("")},
		}, 76},
		{"a client error that the policy repeats", 3, []step{
			{hedge, waiting, again}, {0, running(get(conflict, true)), await}, {1, get(good, true), stop("")},
		}, 80},
		{"a rule that says no to it", 3, []step{
			{hedge, waiting, again}, {0, running(verdict(Decline, get(conflict, true))), stop("")},
		}, 75},
		{"a rule that wants another answer", 3, []step{
			{hedge, waiting, again}, {0, running(verdict(Repeat, get(good, true))), await}, {1, get(good, true), stop("")},
		}, 81},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := hedged
			p.MaxAttempts, p.Budget = row.most, Quota{Size: 100}
			r := retrier(t, p)
			r.account.(*quotaAccount).take(20)
			plan, costs := r.Begin(), []int{0}
			for i, s := range row.steps {
				var a Action
				if s.leg == hedge {
					a = plan.Hedge(s.event)
				} else {
					s.event.Cost = costs[s.leg]
					a = plan.Next(s.event)
				}
				require.Equal(t, s.want, a, "step %d", i+1)
				if a.Again {
					costs = append(costs, a.Cost)
				}
			}
			assert.Equal(t, row.tokens, r.Tokens())
		})
	}
}

func TestPlan_NoHedge_R20(t *testing.T) {
	able := get(good, true)
	with := func(change func(*Event)) Event {
		e := able
		change(&e)
		return e
	}
	spent := hedged
	spent.Budget = Quota{Size: 4}
	noneSaved := Policy{Hedge: &Hedge{After: time.Second, Budget: 0.5}}
	for _, row := range []struct {
		name   string
		policy Policy
		event  Event
		want   outcome.Reason
	}{
		{"nothing against it", hedged, able, ""},
		{"a post", hedged, with(func(e *Event) { e.Idempotent = false }), outcome.NotIdempotent},
		{"its body is gone", hedged, with(func(e *Event) { e.Replayable = false }), outcome.NotReplayable},
		{"a single endpoint", hedged, with(func(e *Event) { e.Others = false }), outcome.NoEndpoints},
		{"a call around has no attempts left", hedged, with(func(e *Event) { e.Exhausted = true }), outcome.Attempts},
		{"no time left", hedged, with(func(e *Event) { e.Deadline = epoch }), outcome.Deadline},
		{"less time than an answer takes", hedged, with(func(e *Event) { e.Deadline = epoch.Add(time.Second - 1) }), outcome.Deadline},
		{"time enough", hedged, with(func(e *Event) { e.Deadline = epoch.Add(time.Second) }), ""},
		{"the budget is used up", spent, able, outcome.Quota},
		{"its own budget is", noneSaved, able, outcome.Quota},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, row.policy)
			r.typical.note(time.Second, epoch)
			before := r.Tokens()
			plan := r.Begin()
			a := plan.Hedge(row.event)
			assert.Equal(t, row.want, a.Reason)
			assert.Equal(t, row.want == "", a.Again)
			assert.Zero(t, a.Wait)
			assert.Equal(t, before-a.Cost, r.Tokens())
		})
	}
}

// Hedges are a share of the calls that could be hedged: nothing to begin with, 10 saved at most.
func TestPlan_HedgeBudget_R20(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: -1}, Hedge: &Hedge{After: time.Second, Budget: 0.25}})
	hedges := func(calls int, wanted func(int) bool) (n int) {
		for i := range calls {
			assert.Equal(t, time.Second, r.hedges.begin("GET", epoch))
			plan := r.Begin()
			if wanted(i) && plan.Hedge(get(good, true)).Again {
				n++
			}
		}
		return n
	}
	always := func(int) bool { return true }
	assert.Equal(t, 0, hedges(3, always), "nothing is there to begin with")
	assert.Equal(t, 1, hedges(1, always))
	assert.Equal(t, 250, hedges(1000, always))
	assert.Equal(t, 0, hedges(1000, func(int) bool { return false }))
	n := 0
	for r.hedges.take() {
		n++
	}
	assert.Equal(t, 10, n, "saved")
}

func TestPlan_HedgeBudgetIsATwentieth_R20(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: -1}, Hedge: &Hedge{After: time.Second}})
	n := 0
	for range 10000 {
		r.hedges.begin("GET", epoch)
		plan := r.Begin()
		if plan.Hedge(get(good, true)).Again {
			n++
		}
	}
	assert.Equal(t, 500, n)
}

// A hedge for which there is no token has not used up one of the hedges.
func TestPlan_HedgeWithoutATokenIsNoHedge_R20(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: 4}, Hedge: &Hedge{After: time.Second, Budget: 1}})
	r.hedges.begin("GET", epoch)
	plan := r.Begin()
	assert.Equal(t, Action{Reason: outcome.Quota}, plan.Hedge(get(good, true)))
	assert.Equal(t, int64(perToken), r.hedges.saved.tokens.Load())
}

func TestPlan_Withdrawn(t *testing.T) {
	for _, row := range []struct {
		name   string
		budget Budget
		hedge  bool
		cost   int // taken out and given back
		saved  int64
	}{
		{"a retry", Quota{}, false, 5, 1},
		{"a hedge", Quota{}, true, 5, 2},
		{"a retry under a ratio", Ratio{}, false, 1, 1},
		{"a hedge under a ratio", Ratio{}, true, 1, 2},
		{"under a throttle", Throttle{}, true, 0, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, Policy{Budget: row.budget, Hedge: &Hedge{After: time.Second, Budget: 1}})
			plan := r.Begin()
			_, ok := r.account.Withdraw(failed) // so that it is not full
			require.True(t, ok)
			r.hedges.begin("GET", epoch)
			r.hedges.begin("GET", epoch)
			before := r.Tokens()
			a := plan.Hedge(get(good, true))
			require.True(t, a.Again)
			assert.Equal(t, row.cost, a.Cost)
			assert.Equal(t, before-row.cost, r.Tokens())
			plan.Withdrawn(a, row.hedge)
			assert.Equal(t, before, r.Tokens())
			assert.Equal(t, row.saved*perToken, r.hedges.saved.tokens.Load())
		})
	}
	r := retrier(t, hedged)
	plan := r.Begin()
	plan.Withdrawn(Action{}, true)
	assert.Equal(t, defaultQuotaSize, r.Tokens(), "hedges without a bound have nothing to give back")
}

// What hedges have saved and learnt stays when the policy changes.
func TestPlan_HedgesAreTakenOver_P01(t *testing.T) {
	r := retrier(t, Policy{Hedge: &Hedge{Budget: 1}})
	learn := r.hedges.learnt.of("GET", epoch)
	for range minSamples {
		learn.record(time.Second)
	}
	r.hedges.begin("GET", epoch)
	next, err := r.With(Policy{Hedge: &Hedge{Budget: 0.5}, MaxAttempts: 5})
	require.NoError(t, err)
	assert.Equal(t, int64(perToken), next.hedges.saved.tokens.Load())
	assert.InEpsilon(t, time.Second, next.hedges.begin("GET", epoch.Add(5*time.Second)), 1.0/32)
	next, err = r.With(Policy{})
	require.NoError(t, err)
	assert.Nil(t, next.hedges)
}

// The answer of the other attempt is the call's as soon as it comes.
func TestPlan_StatusThatIsRepeatedDoesNotDecide_R19(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		tr, err := NewTransport(transportFunc(func(req *http.Request) (*http.Response, error) {
			if n.Add(1) == 1 {
				time.Sleep(200 * time.Millisecond)
				return answer(req, 409, nil), nil
			}
			time.Sleep(150 * time.Millisecond)
			return answer(req, 200, nil), nil
		}), Policy{
			Statuses: []int{409}, Backoff: Backoff{Kind: Constant, Base: time.Second},
			Hedge: &Hedge{After: 100 * time.Millisecond, Budget: -1},
		})
		require.NoError(t, err)
		start := time.Now()
		resp, err := tr.RoundTrip(request(t.Context(), "GET", noBody))
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, 250*time.Millisecond, time.Since(start))
		_ = resp.Body.Close()
		time.Sleep(time.Minute)
		assert.EqualValues(t, 2, n.Load())
	})
}

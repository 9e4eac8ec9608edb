package evenkeel_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/retry"
	"github.com/evenkeel-go/evenkeel/session"
)

// churnDrain is how long draining endpoints keep their sessions in the test of churn.
const churnDrain = 20 * time.Second

// revue is a theatre where everything changes all the time, with what is known of it.
type revue struct {
	*testing.T
	*rand.Rand
	*theatre
	addresses []string
	listed    map[string]string    // the state of those that are listed
	drains    map[string]time.Time // since when they drain
	fail      map[string]int
	guests    []*visitor
	at        []string // where they belong, as far as they know
	open      []func() // ends calls that are under way
	moves     int
	cookies   bool
}

func newRevue(t *testing.T, seed uint64, k seating) *revue {
	t.Helper()
	r := &revue{
		T: t, Rand: rand.New(rand.NewPCG(seed, 1)), addresses: strings.Fields("a:80 b:80 c:80 d:80 e:80 f:80 g:80 h:80"),
		listed: map[string]string{}, drains: map[string]time.Time{}, fail: map[string]int{}, cookies: k.cookies() > 0,
	}
	r.theatre = newTheatre(t, session.Policy{By: k.by, DrainFor: churnDrain}, r.addresses[:5], probed,
		evenkeel.WithRules(balancer.Rules{MaxInFlight: 2, MaxPark: -1}), evenkeel.WithOutlierDetection(health.Outlier{ConsecutiveFailures: 4, LocalFailures: 3, EjectFor: 10 * time.Second}),
		evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 3}), evenkeel.WithBalancer(balancer.LeastRequest{}),
		evenkeel.WithRetry(retry.Policy{MaxAttempts: 8, Budget: retry.Quota{Size: -1}}))
	for _, a := range r.addresses[:5] {
		r.listed[a] = ""
	}
	r.relist()
	for range 50 {
		r.guests, r.at = append(r.guests, r.visitor(t)), append(r.at, "")
	}
	return r
}

// relist makes the endpoints what the model says, in any order.
func (r *revue) relist() {
	var all []string
	for a, state := range r.listed {
		all = append(all, strings.TrimSpace(a+" "+state))
		switch _, drains := r.drains[a]; {
		case state != "draining":
			delete(r.drains, a)
		case !drains:
			r.drains[a] = time.Now()
		}
	}
	slices.Sort(all)
	r.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	r.set(all...)
}

// change changes something about any endpoint but the first, which is always well.
func (r *revue) change() {
	a := r.addresses[1+r.IntN(len(r.addresses)-1)]
	_, there := r.listed[a]
	switch n := r.IntN(10); {
	case n < 3 && there && len(r.listed) > 4:
		delete(r.listed, a)
		delete(r.drains, a)
		r.relist()
	case n < 6:
		r.listed[a] = []string{"", "", "", "draining", "standby", "second"}[r.IntN(6)]
		r.relist()
	case n < 8:
		r.fail[a] = []int{0, 0, 0, 503, breaks, refuses}[r.IntN(6)]
		r.theatre.fail(r.fail[a], a)
	case n < 9:
		for _, b := range r.tr.Breakers() {
			if b.Name() == a {
				require.NoError(r, b.SetMode([]breaker.Mode{breaker.Auto, breaker.Auto, breaker.ForcedOpen}[r.IntN(3)]))
			}
		}
	default:
		r.theatre.sick(r.IntN(3) == 0, a)
	}
}

// cause returns why a session may leave an endpoint now, as far as that can be known before its call.
func (r *revue) cause(at string) string {
	state, there := r.listed[at]
	switch {
	case !there:
		return "removed"
	case state == "draining" && time.Since(r.drains[at]) >= churnDrain:
		return "drained"
	}
	for _, e := range r.tr.Stats().Pool.Endpoints {
		if e.Endpoint.Address != at {
			continue
		}
		for _, why := range []string{"open", "forced open", "ejected", "unhealthy"} {
			if slices.Contains(strings.Split(e.Unavailable, ","), why) {
				return e.Unavailable
			}
		}
		if e.InFlight >= 2 {
			return "saturated"
		}
	}
	return ""
}

// call makes a call of somebody, and compares where it went with what may be.
func (r *revue) call(step int) {
	i := r.IntN(len(r.guests))
	v, before := r.guests[i], r.at[i]
	synctest.Wait()
	cause := r.cause(before)
	resp, err := v.do(r.T, "/")
	require.NoError(r, err, "step %d", step)
	defer func() {
		if r.IntN(4) == 0 && len(r.open) < 3 && r.at[i] != "a:80" { // whom everybody may need
			r.open = append(r.open, func() { resp.Body.Close() })
			return
		}
		resp.Body.Close()
	}()
	info, ok := evenkeel.InfoOf(resp)
	require.True(r, ok)
	require.Equal(r, 200, resp.StatusCode, "step %d: %v", step, info.Attempts)
	first, last := info.Attempts[0].Endpoint.Address, info.Endpoint.Address
	if before != "" && first != before {
		require.NotEmpty(r, cause, "step %d: it belongs to %s and went to %s", step, before, first)
	}
	if before != "" && cause == "" {
		require.Equal(r, before, first, "step %d", step)
	}
	if last != first {
		require.NotZero(r, r.fail[first], "step %d: %s is well", step, first)
	}
	if r.cookies {
		require.Equal(r, before != last, len(v.issued) == 1, "step %d", step)
	}
	var moves int
	for _, e := range r.told() {
		require.Equal(r, session.Moved, e.Kind, "step %d", step)
		require.NotEmpty(r, e.Cause, "step %d", step)
		moves++
	}
	if before == last && first == last {
		require.Zero(r, moves, "step %d", step)
	}
	if before != "" && before != last {
		require.Positive(r, moves, "step %d", step)
		r.moves++
	}
	r.at[i] = last
}

// step does something.
func (r *revue) step(n int) {
	switch r.IntN(12) {
	case 0:
		r.change()
	case 1:
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
	case 2:
		for _, end := range r.open {
			end()
		}
		r.open = nil
	default:
		r.call(n)
	}
}

// Given endpoints that come, go, drain, fail, heal and change their priorities, in any order, then no call fails
// because of its session; nobody leaves an endpoint that can serve him; and whoever leaves does so once.
func TestSession_Churn_S01_S02_S05_S06(t *testing.T) {
	const seeds, steps = 20, 1500
	for seed := range uint64(seeds) {
		k := seatings[seed%uint64(len(seatings))]
		t.Run(fmt.Sprintf("seed=%d/%s", seed, k.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRevue(t, seed, k)
				for i := range steps {
					r.step(i)
				}
				for _, end := range r.open {
					end()
				}
				synctest.Wait()
				assert.Zero(t, r.tr.Stats().Active)
				assert.Greater(t, r.moves, 5, "the test is of use")
				assert.Greater(t, r.tr.Stats().Session.Kept, uint64(steps/2))
			})
		})
	}
}

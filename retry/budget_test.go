package retry

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

var (
	blamed  = outcome.Outcome{Class: outcome.ClientError}
	notMade = outcome.Outcome{Class: outcome.Refused}
	lost    = outcome.Outcome{Class: outcome.Superseded}
)

func TestQuota_Arithmetic_R04(t *testing.T) {
	r := retrier(t, Policy{})
	taken := func() int { return defaultQuotaSize - r.Tokens() }

	plan := begin(r)
	plan.Next(get(failed, true))
	assert.Equal(t, 5, taken(), "a retry")
	plan.Next(get(good, true))
	assert.Equal(t, 0, taken(), "which succeeded")

	plan = begin(r)
	plan.Next(get(timedOut, true))
	assert.Equal(t, 10, taken(), "a retry after a timeout")
	plan.Next(get(failed, true))
	assert.Equal(t, 15, taken(), "another one")
	plan.Next(get(good, true))
	assert.Equal(t, 10, taken(), "only the cost of the one that succeeded comes back")

	begin(r).Next(get(good, true))
	assert.Equal(t, 9, taken(), "a first attempt that succeeds puts one in")
	begin(r).Next(get(blamed, true))
	assert.Equal(t, 9, taken(), "a client error puts nothing in")

	plan = begin(r)
	plan.Next(get(noConn, true))
	assert.Equal(t, 9, taken(), "a free move")
	plan.Next(get(dialSlow, true))
	assert.Equal(t, 19, taken(), "a dial that timed out is no free move")
}

func TestBudget_Reports(t *testing.T) {
	for _, row := range []struct {
		name   string
		budget Budget
		spend  int // withdrawals before
		cost   int
		ended  outcome.Outcome
		want   int
	}{
		{"quota: a first success", Quota{Size: 100}, 2, 0, good, 91},
		{"quota: never above the size", Quota{Size: 100}, 0, 0, good, 100},
		{"quota: a refund is capped", Quota{Size: 100}, 1, 50, good, 100},
		{"quota: a retry that succeeded", Quota{Size: 100}, 2, 5, good, 95},
		{"quota: refused gives back", Quota{Size: 100}, 2, 5, notMade, 95},
		{"quota: refused first attempt", Quota{Size: 100}, 2, 0, notMade, 90},
		{"quota: a failure", Quota{Size: 100}, 2, 5, failed, 90},
		{"quota: a client error", Quota{Size: 100}, 2, 5, blamed, 90},
		{"quota: the caller left", Quota{Size: 100}, 2, 5, callerWas, 90},
		{"quota: a loser", Quota{Size: 100}, 2, 5, lost, 90},
		{"quota: its own cost", Quota{Size: 100, Cost: 30}, 3, 0, failed, 10},
		{"quota: off", Quota{Size: -1}, 3, 0, good, 0},
		{"throttle: a failure", Throttle{}, 0, 0, failed, 9},
		{"throttle: an overload", Throttle{}, 0, 0, overload, 9},
		{"throttle: a failed retry", Throttle{}, 3, 0, failed, 9},
		{"throttle: never above the size", Throttle{}, 0, 0, good, 10},
		{"throttle: not made", Throttle{}, 0, 0, notMade, 10},
		{"throttle: the caller left", Throttle{}, 0, 0, callerWas, 10},
		{"throttle: its own size", Throttle{MaxTokens: 1000}, 0, 0, failed, 999},
		{"ratio: a retry costs one", Ratio{}, 3, 0, failed, 7},
		{"ratio: success gives nothing back", Ratio{}, 3, 1, good, 7},
		{"ratio: refused gives back", Ratio{}, 3, 1, notMade, 8},
		{"ratio: no reserve", Ratio{Reserve: -1}, 0, 0, failed, 0},
		{"ratio: its own reserve", Ratio{Reserve: 500}, 0, 0, failed, 500},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, err := row.budget.NewAccount(nil)
			require.NoError(t, err)
			for range row.spend {
				_, ok := a.Withdraw(failed)
				assert.True(t, ok)
			}
			a.Report(row.cost, row.ended)
			assert.Equal(t, row.want, a.Tokens())
		})
	}
}

func TestQuota_EndsRetriesWhenAllFails_R04(t *testing.T) {
	sent, reasons := outage(t, Policy{MaxAttempts: 4})
	assert.Equal(t, 10000+defaultQuotaSize/defaultCost, sent)
	assert.Equal(t, map[outcome.Reason]int{outcome.Attempts: 33, outcome.Quota: 9967}, reasons)
}

// The statement of R-04: 20 % of the calls, and a floor of 10.
func TestRatio_EveryEndpointFails_R04(t *testing.T) {
	sent, reasons := outage(t, Policy{MaxAttempts: 4, Budget: Ratio{PerCall: 0.2, Reserve: 10}})
	assert.LessOrEqual(t, sent, 12010)
	assert.GreaterOrEqual(t, sent, 12009, "what it allows can be used")
	assert.Equal(t, 10000, reasons[outcome.Attempts]+reasons[outcome.Quota])
	assert.Greater(t, reasons[outcome.Quota], 7000)
}

func TestThrottle_EveryEndpointFails_R04(t *testing.T) {
	sent, reasons := outage(t, Policy{MaxAttempts: 4, Budget: Throttle{}})
	assert.Equal(t, 10003, sent, "retries end when half of the tokens are left")
	assert.Equal(t, map[outcome.Reason]int{outcome.Attempts: 1, outcome.Quota: 9999}, reasons)
}

// outage makes 10,000 calls of which every attempt fails.
func outage(t *testing.T, p Policy) (sent int, reasons map[outcome.Reason]int) {
	t.Helper()
	r := retrier(t, p)
	reasons = map[outcome.Reason]int{}
	for range 10000 {
		plan := begin(r)
		for {
			sent++
			a := plan.Next(get(failed, true))
			if !a.Again {
				require.Zero(t, a.Wait, "nobody queues")
				reasons[a.Reason]++
				break
			}
		}
		require.GreaterOrEqual(t, r.Tokens(), 0)
	}
	return sent, reasons
}

// gRFC A6: 10 tokens, retries while there are more than 5, a success puts 0.1 in.
func TestThrottle_HalfOfTheTokens(t *testing.T) {
	a, err := Throttle{}.NewAccount(nil)
	require.NoError(t, err)
	allows := func() bool {
		cost, ok := a.Withdraw(failed)
		assert.Zero(t, cost)
		return ok
	}
	for range 4 {
		a.Report(0, failed)
	}
	assert.True(t, allows(), "6 are left")
	a.Report(0, failed)
	assert.False(t, allows(), "5 are left, which is half")
	a.Report(0, good)
	assert.True(t, allows(), "5.1 are left")
	for range 100 {
		a.Report(0, failed)
	}
	assert.Equal(t, 0, a.Tokens(), "never below")
	for n := range 51 {
		assert.False(t, allows(), "after %d good ones", n)
		a.Report(0, blamed)
	}
	assert.True(t, allows(), "5.1 are left, after 51 good ones")
}

func TestRatio_CallsRefill(t *testing.T) {
	a, err := Ratio{PerCall: 0.5, Reserve: -1, Max: 3}.NewAccount(nil)
	require.NoError(t, err)
	_, ok := a.Withdraw(failed)
	assert.False(t, ok, "nothing in it")
	a.Begin()
	_, ok = a.Withdraw(failed)
	assert.False(t, ok, "half a retry is none")
	a.Begin()
	_, ok = a.Withdraw(failed)
	assert.True(t, ok)
	for range 100 {
		a.Begin()
	}
	assert.Equal(t, 3, a.Tokens(), "what it can hold")
}

func TestQuota_CanBeSwitchedOff(t *testing.T) {
	r := retrier(t, Policy{Budget: Quota{Size: -1}})
	for range 1000 {
		assert.True(t, begin(r).Next(get(failed, true)).Again)
	}
}

func TestBudget_TakenOver_P01(t *testing.T) {
	for _, row := range []struct {
		name   string
		from   Budget
		to     Budget
		before int
		after  int
	}{
		{"quota, the same", Quota{}, Quota{}, 490, 490},
		{"quota, a larger one", Quota{Size: 100}, Quota{Size: 1000}, 90, 90},
		{"quota, switched off and on", Quota{Size: -1}, Quota{}, 0, 500},
		{"throttle", Throttle{}, Throttle{Ratio: 0.5}, 8, 8},
		{"throttle, a larger one", Throttle{}, Throttle{MaxTokens: 100}, 8, 80},
		{"throttle, a smaller one", Throttle{MaxTokens: 1000}, Throttle{}, 998, 9}, // and a bit
		{"ratio", Ratio{}, Ratio{PerCall: 0.5}, 8, 8},
		{"another kind", Quota{}, Ratio{}, 490, 10},
		{"and another", Ratio{}, Throttle{}, 8, 10},
		{"the default", nil, Quota{Cost: 7}, 490, 490},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := retrier(t, Policy{Budget: row.from})
			for range 2 {
				_, ok := r.account.Withdraw(failed)
				require.True(t, ok)
				r.account.Report(0, failed)
			}
			assert.Equal(t, row.before, r.Tokens())
			next, err := r.With(Policy{Budget: row.to})
			require.NoError(t, err)
			assert.Equal(t, row.after, next.Tokens())
		})
	}
}

// A smaller quota takes effect as tokens are spent; a call of the policy before still counts.
func TestQuota_SmallerSize_P01(t *testing.T) {
	r := retrier(t, Policy{})
	old := begin(r)
	require.True(t, old.Next(get(failed, true)).Again)
	next, err := r.With(Policy{Budget: Quota{Size: 490}})
	require.NoError(t, err)
	old.Next(get(good, true))
	assert.Equal(t, 500, next.Tokens())
	for range 2 {
		begin(next).Next(get(failed, true))
	}
	begin(next).Next(get(good, true))
	assert.Equal(t, 490, next.Tokens(), "it does not grow above its size")
	_, err = r.With(Policy{MaxAttempts: -1})
	require.Error(t, err)
	assert.Equal(t, 490, r.Tokens(), "P-02: a bad policy changes nothing")
}

func TestBudget_ConcurrentUse(t *testing.T) {
	const workers, rounds = 8, 2000
	for _, row := range []struct {
		name        string
		budget      Budget
		start, each int
	}{
		{"quota", Quota{Size: 50000}, 50000, 5},
		{"ratio", Ratio{Reserve: 50000}, 50000, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, err := row.budget.NewAccount(nil)
			require.NoError(t, err)
			var wg sync.WaitGroup
			var mu sync.Mutex
			kept := 0
			for range workers {
				wg.Go(func() {
					mine := 0
					for i := range rounds {
						cost, ok := a.Withdraw(failed)
						switch {
						case !ok:
						case i%2 == 0:
							a.Report(cost, notMade)
						default:
							a.Report(cost, failed)
							mine++
						}
						_ = a.Tokens()
					}
					mu.Lock()
					defer mu.Unlock()
					kept += mine
				})
			}
			wg.Wait()
			assert.Equal(t, row.start, a.Tokens()+kept*row.each, "nothing is lost, nothing is made")
		})
	}
}

func TestBudget_Validation(t *testing.T) {
	for _, row := range []struct {
		name   string
		budget Budget
		want   []string
	}{
		{"quota, as it is", Quota{}, nil},
		{"quota, off", Quota{Size: -5}, nil},
		{"quota, all wrong", Quota{Cost: -1, TimeoutCost: -1}, []string{"Budget.Cost", "Budget.TimeoutCost"}},
		{"throttle, as it is", Throttle{}, nil},
		{"throttle, the largest", Throttle{MaxTokens: 1000}, nil},
		{"throttle, too large", Throttle{MaxTokens: 1001}, []string{"Budget.MaxTokens"}},
		{"throttle, all wrong", Throttle{MaxTokens: -1, Ratio: -0.1}, []string{"Budget.MaxTokens", "Budget.Ratio"}},
		{"throttle, no number", Throttle{Ratio: math.NaN()}, []string{"Budget.Ratio"}},
		{"throttle, infinite", Throttle{Ratio: math.Inf(1)}, []string{"Budget.Ratio"}},
		{"ratio, as it is", Ratio{}, nil},
		{"ratio, the largest", Ratio{PerCall: 10}, nil},
		{"ratio, too large", Ratio{PerCall: 10.1}, []string{"Budget.PerCall"}},
		{"ratio, no reserve", Ratio{Reserve: -1}, nil},
		{"ratio, all wrong", Ratio{PerCall: -1, Reserve: 20, Max: 10}, []string{"Budget.PerCall", "Budget.Max"}},
		{"ratio, no number", Ratio{PerCall: math.NaN()}, []string{"Budget.PerCall"}},
		{"ratio, negative", Ratio{Reserve: -5, Max: -1}, []string{"Budget.Max"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.ElementsMatch(t, row.want, wrongFields(Policy{Budget: row.budget}.Validate()))
		})
	}
}

// flat is a user's own budget: so many extra attempts, and never more.
type flat struct {
	left     int
	previous Account
	calls    int
	ended    int
	reports  []int
	classes  []outcome.Class
	wrong    error
}

func (f *flat) NewAccount(previous Account) (Account, error) {
	f.previous = previous
	return f, f.wrong
}
func (f *flat) Begin() { f.calls++ }
func (f *flat) End()   { f.ended++ }
func (f *flat) Withdraw(o outcome.Outcome) (int, bool) {
	f.classes = append(f.classes, o.Class)
	f.left--
	return 70 + f.left, f.left >= 0
}
func (f *flat) Report(cost int, _ outcome.Outcome) { f.reports = append(f.reports, cost) }
func (f *flat) Tokens() int                        { return f.left }

func TestBudget_OfTheUser(t *testing.T) {
	mine := &flat{left: 2}
	r := retrier(t, Policy{Budget: mine, MaxAttempts: 9, Hedge: &Hedge{After: 1, Budget: -1}})
	plan := begin(r)
	assert.Equal(t, Action{Again: true, Cost: 71}, plan.Next(get(failed, true)))
	hedge := plan.Hedge(get(failed, true))
	assert.Equal(t, Action{Again: true, Cost: 70}, hedge)
	e := get(failed, true)
	e.Running = true
	assert.Equal(t, Action{Await: true}, plan.Next(e))
	plan.cost = hedge.Cost
	assert.Equal(t, Action{Reason: outcome.Quota}, plan.Next(get(overload, true)))
	assert.Equal(t, 1, mine.calls)
	assert.Equal(t, []int{0, 71, 70}, mine.reports, "each attempt is told with what it took")
	assert.Equal(t, []outcome.Class{outcome.Failure, outcome.Unknown, outcome.Overload}, mine.classes, "a hedge is beside one, not after one")

	next := &flat{}
	_, err := r.With(Policy{Budget: next})
	require.NoError(t, err)
	assert.Same(t, mine, next.previous)

	broken := errors.New("no")
	_, err = NewRetrier(Policy{Budget: &flat{wrong: broken}})
	require.ErrorIs(t, err, broken)
	assert.ErrorContains(t, err, "Budget")
}

// Failures take one each, good ones a tenth back, whoever comes at the same time.
func TestThrottle_ConcurrentUse(t *testing.T) {
	const workers, each = 8, 50
	a, err := Throttle{MaxTokens: 1000}.NewAccount(nil)
	require.NoError(t, err)
	for range 500 {
		a.Report(0, failed)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				a.Report(0, failed)
				a.Withdraw(failed)
				a.Report(0, good)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 500-workers*each*9/10, a.Tokens())
}

package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// lonely is a source that notices when it is used by two at once.
type lonely struct {
	used   int // under -race, this is enough
	inside atomic.Int32
	shared atomic.Bool
}

func (l *lonely) Uint64() uint64 {
	if l.used++; l.inside.Add(1) > 1 {
		l.shared.Store(true)
	}
	runtime.Gosched()
	l.inside.Add(-1)
	return rand.Uint64()
}

// Retriers that follow each other are used at once, by calls under way and by new ones. Their source
// has one lock, not one for each.
func TestRetrier_OneLockForTheSource_P03(t *testing.T) {
	source := new(lonely)
	p := Policy{Rand: source, Budget: Quota{Size: -1}}
	before, err := NewRetrier(p)
	require.NoError(t, err)
	after, err := before.With(p)
	require.NoError(t, err)
	var working sync.WaitGroup
	for range 4 {
		for _, r := range []*Retrier{before, after} {
			working.Go(func() {
				for range 500 {
					plan := r.Begin()
					plan.Next(get(failed, false))
				}
			})
		}
	}
	working.Wait()
	assert.False(t, source.shared.Load())
	assert.Equal(t, 4000, source.used)
}

// Whoever watches decisions sees each call end: a wait that was announced and then interrupted is
// told once more, with the reason that the error has.
func TestHooks_InterruptedWaitIsTold_O04(t *testing.T) {
	for name, hedge := range map[string]*Hedge{"alone": nil, "hedged": {After: time.Minute, Budget: -1}} {
		p := Policy{Hedge: hedge, Backoff: Backoff{Kind: Constant, Base: time.Hour}}
		for what, call := range map[string]func(context.Context, Policy) error{
			"request": func(ctx context.Context, p Policy) error {
				tr, err := NewTransport(transportFunc(func(req *http.Request) (*http.Response, error) {
					return answer(req, 503, nil), nil
				}), p)
				require.NoError(t, err)
				resp, err := tr.RoundTrip(request(ctx, http.MethodGet, noBody))
				if err == nil {
					resp.Body.Close()
				}
				return err
			},
			"function": func(ctx context.Context, p Policy) error {
				r, err := NewRetrier(p)
				require.NoError(t, err)
				_, err = Do(ctx, r, func(context.Context) (int, error) { return 0, syscall.ECONNRESET })
				return err
			},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var told []Decision
					p := p
					p.Hooks.Decided = func(d Decision) { told = append(told, d) }
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
					defer cancel()
					time.AfterFunc(time.Second, cancel)
					err := call(ctx, p)
					require.ErrorIs(t, err, context.Canceled)
					require.Len(t, told, 2)
					assert.True(t, told[0].Action.Again)
					assert.Equal(t, Action{Reason: outcome.Caller}, told[1].Action)
					assert.Equal(t, 1, told[1].Attempt)
				})
			})
		}
	}
}

// A predicate such as "unless it is fatal" says yes to no error at all: a function that has
// succeeded is not called again all the same.
func TestDo_SuccessIsNotAskedAbout_R22(t *testing.T) {
	for _, hedge := range []*Hedge{nil, {After: time.Second, Budget: -1}} {
		synctest.Test(t, func(t *testing.T) {
			fatal, calls := errors.New("fatal"), 0
			r, err := NewRetrier(Policy{Hedge: hedge, RetryIf: func(c Case) bool {
				assert.Error(t, c.Err)
				return !errors.Is(c.Err, fatal)
			}})
			require.NoError(t, err)
			got, err := Do(t.Context(), r, func(context.Context) (int, error) {
				if calls++; calls == 1 {
					return 0, syscall.ECONNRESET
				}
				return calls, nil
			})
			require.NoError(t, err)
			assert.Equal(t, 2, got)
			assert.Equal(t, 2, calls)
		})
	}
}

// Every *net.OpError has a method that says whether it is a timeout. The one of an attempt before
// does not speak for the attempt that has ended the call.
func TestError_TimeoutOfTheLastAttempt_O04(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	for _, row := range []struct {
		name   string
		policy Policy
		second error // nil waits for the limit
		want   bool
	}{
		{"reset, then the attempt's limit", Policy{MaxAttempts: 2, PerAttemptTimeout: time.Second}, nil, true},
		{"reset, then the call's limit", Policy{MaxAttempts: 2, Timeout: time.Second}, nil, true},
		{"two resets", Policy{MaxAttempts: 2}, reset, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				tr, err := NewTransport(transportFunc(func(req *http.Request) (*http.Response, error) {
					if sent++; sent == 1 {
						return nil, reset
					}
					if row.second == nil {
						<-req.Context().Done()
						return nil, context.Cause(req.Context())
					}
					return nil, row.second
				}), row.policy)
				require.NoError(t, err)
				_, err = tr.RoundTrip(request(t.Context(), http.MethodGet, noBody))
				var e *Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, row.want, e.Timeout())
				assert.Len(t, e.Attempts, 2)
			})
		})
	}
}

// Transports of users' own leave out bodies, against the contract, also where an answer is thrown
// away. That is no reason to panic.
func TestTransport_AnswerWithoutBody_R15(t *testing.T) {
	own := errors.New("own")
	for _, row := range []struct {
		name   string
		policy Policy
		takes  time.Duration
		err    error
		is     error
	}{
		{"after the attempt's limit", Policy{PerAttemptTimeout: time.Second, MaxAttempts: 1}, 2 * time.Second, nil, context.DeadlineExceeded},
		{"after the call's limit", Policy{Timeout: time.Second}, 2 * time.Second, nil, context.DeadlineExceeded},
		{"beside an error", Policy{MaxAttempts: 1}, 0, own, own},
		{"beside an error, hedged", Policy{Hedge: &Hedge{After: time.Second}, Backoff: Backoff{Base: 1}}, 2 * time.Second, own, own},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, err := NewTransport(transportFunc(func(*http.Request) (*http.Response, error) {
					time.Sleep(row.takes)
					return &http.Response{StatusCode: http.StatusOK}, row.err
				}), row.policy)
				require.NoError(t, err)
				resp, err := tr.RoundTrip(request(t.Context(), http.MethodGet, noBody))
				assert.Nil(t, resp)
				require.ErrorIs(t, err, row.is)
				time.Sleep(time.Minute)
			})
		})
	}
}

// concurrent is a user's budget like Envoy's: of the calls under way, so many may be retries.
type concurrent struct {
	share float64
	least int

	mu                     sync.Mutex
	calls, retries         int
	most, refused          int
	negative               bool
	told                   map[outcome.Class]int // of those that were paid for
	withdrawn, given, ends int
}

func (c *concurrent) NewAccount(Account) (Account, error) { return c, nil }

func (c *concurrent) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
}

func (c *concurrent) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	c.ends++
	c.negative = c.negative || c.calls < 0
}

func (c *concurrent) Withdraw(outcome.Outcome) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retries >= max(c.least, int(c.share*float64(c.calls))) {
		c.refused++
		return 0, false
	}
	c.retries++
	c.withdrawn++
	c.most = max(c.most, c.retries)
	return 1, true
}

func (c *concurrent) Report(cost int, o outcome.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retries -= cost
	c.given += cost
	c.negative = c.negative || c.retries < 0
	if cost > 0 {
		c.told[o.Class]++
	}
}

func (c *concurrent) Tokens() int { return 0 }

// Given such a budget, then it is possible: each call is told at its beginning and at its end, and
// for whatever was taken out it is told what has become of it, also of attempts that lost, whose
// caller has left, or that were not made.
func TestBudget_OfRetriesUnderWay_R04(t *testing.T) {
	const seed, calls = 6, 2000
	t.Logf("seed %d", seed)
	for name, hedge := range map[string]*Hedge{"retries": nil, "hedges": {After: 20 * time.Millisecond, Budget: -1}} {
		for _, functions := range []bool{false, true} {
			t.Run(name+map[bool]string{false: " of requests", true: " of functions"}[functions], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					budget := &concurrent{share: 0.2, least: 3, told: map[outcome.Class]int{}}
					r, err := NewRetrier(Policy{Budget: budget, Hedge: hedge, Backoff: Backoff{Kind: Constant, Base: 30 * time.Millisecond}})
					require.NoError(t, err)
					var mu sync.Mutex
					random := rand.New(rand.NewPCG(seed, 0))
					n := func(n int) int {
						mu.Lock()
						defer mu.Unlock()
						return random.IntN(n)
					}
					work := func(ctx context.Context) (int, error) {
						select {
						case <-time.After(time.Duration(n(60)) * time.Millisecond):
						case <-ctx.Done():
							return 0, ctx.Err()
						}
						if n(3) == 0 {
							return 0, syscall.ECONNRESET
						}
						return 200, nil
					}
					tr := r.Transport(transportFunc(func(req *http.Request) (*http.Response, error) {
						if _, err := work(req.Context()); err != nil {
							return nil, err
						}
						return answer(req, 200, nil), nil
					}))
					var calling sync.WaitGroup
					for range calls {
						time.Sleep(time.Millisecond)
						calling.Go(func() {
							ctx, cancel := context.WithCancel(t.Context())
							defer cancel()
							if n(3) == 0 {
								time.AfterFunc(time.Duration(n(100))*time.Millisecond, cancel)
							}
							if functions {
								_, _ = Do(ctx, r, work)
							} else if resp, err := tr.RoundTrip(request(ctx, http.MethodGet, noBody)); err == nil {
								resp.Body.Close()
							}
						})
					}
					calling.Wait()
					synctest.Wait()
					budget.mu.Lock()
					defer budget.mu.Unlock()
					assert.Zero(t, budget.calls)
					assert.Equal(t, calls, budget.ends)
					assert.Zero(t, budget.retries, "withdrawn and never told: %v", budget.told)
					assert.False(t, budget.negative)
					assert.Equal(t, budget.withdrawn, budget.given)
					assert.Positive(t, budget.refused, "else nothing was bounded")
					assert.Greater(t, budget.most, budget.least)
					want := []outcome.Class{outcome.Success, outcome.Failure, outcome.Canceled}
					if hedge == nil {
						want = append(want, outcome.Refused) // the caller left in the wait
					} else {
						want = append(want, outcome.Superseded)
					}
					for _, class := range want {
						assert.Positive(t, budget.told[class], "%v", class)
					}
				})
			})
		}
	}
}

// A nil pointer in an interface is not nil. It is the policy that says so, not a panic.
func TestPolicy_NilPointerAsBudget_P02(t *testing.T) {
	for _, budget := range []Budget{(*Quota)(nil), (*Throttle)(nil), (*Ratio)(nil), (*concurrent)(nil)} {
		p := Policy{Budget: budget, MaxAttempts: -1}
		assert.Equal(t, []string{"MaxAttempts", "Budget"}, wrongFields(p.Validate()), "%T", budget)
		_, err := NewRetrier(p)
		assert.Error(t, err)
	}
}

// Calls look at the policy without a lock, so it is theirs: what the caller does to its own slices
// and values later has no effect.
func TestPolicy_OwnsItsSlices_P03(t *testing.T) {
	statuses, methods, hedge := []int{500}, []string{http.MethodPost}, &Hedge{After: time.Hour}
	sent := 0
	tr, err := NewTransport(transportFunc(func(req *http.Request) (*http.Response, error) {
		sent++
		return answer(req, 500, nil), nil
	}), Policy{Statuses: statuses, Idempotent: methods, Hedge: hedge, Backoff: Backoff{Base: 1}})
	require.NoError(t, err)
	statuses[0], methods[0], hedge.After = 599, "PATCH", 1
	resp, err := tr.RoundTrip(request(t.Context(), http.MethodPost, noBody))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, 3, sent)
	assert.Equal(t, time.Hour, tr.retrier.Policy().Hedge.After)
}

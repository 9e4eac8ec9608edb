package retry

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// books is a budget that keeps account of who told it what.
type books struct{ calls, owed, firsts atomic.Int32 }

func (b *books) NewAccount(Account) (Account, error) { return b, nil }
func (b *books) Begin()                              { b.calls.Add(1) }
func (b *books) End()                                { b.calls.Add(-1) }
func (b *books) Tokens() int                         { return 0 }

func (b *books) Withdraw(outcome.Outcome) (int, bool) {
	b.owed.Add(1)
	return 1, true
}

func (b *books) Report(cost int, _ outcome.Outcome) {
	b.owed.Add(int32(-cost))
	b.firsts.Add(int32(1 - cost))
}

type panicking func(*http.Request) (*http.Response, error)

func (p panicking) RoundTrip(req *http.Request) (*http.Response, error) { return p(req) }

// Given an attempt that panics, be it the first or a later one, then the budget is told of it, and
// of the end of the call: nothing stays withdrawn.
func TestBudget_IsToldOfPanics_R04(t *testing.T) {
	hedge := &Hedge{After: 10 * time.Millisecond, Budget: -1}
	watched := Hooks{Attempt: func(Attempt) {}}
	for name, p := range map[string]Policy{"light": {}, "watched": {Hooks: watched}, "hedged": {Hedge: hedge}} {
		for at := int32(1); at <= 3; at++ {
			for _, do := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					b := new(books)
					p.Budget = b
					r, err := NewRetrier(p)
					require.NoError(t, err)
					var n atomic.Int32
					attempt := func(ctx context.Context) {
						if n.Add(1) == at {
							panic("ordered")
						}
						if p.Hedge != nil { // so that the next one begins beside it
							<-ctx.Done()
						}
					}
					call := func() {
						req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/", http.NoBody)
						require.NoError(t, err)
						resp, err := r.Transport(panicking(func(req *http.Request) (*http.Response, error) {
							attempt(req.Context())
							return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: req}, nil
						})).RoundTrip(req)
						if err == nil {
							resp.Body.Close()
						}
					}
					if do {
						call = func() {
							_, _ = Do(t.Context(), r, func(ctx context.Context) (int, error) {
								attempt(ctx)
								return 0, assert.AnError
							})
						}
					}
					if p.Hedge == nil || at < 3 { // two at once, and none has failed
						assert.PanicsWithValue(t, "ordered", call, "%s, attempt %d", name, at)
						synctest.Wait()
						assert.Zero(t, b.owed.Load(), "%s, attempt %d, do %v: withdrawn", name, at, do)
						assert.Zero(t, b.calls.Load(), "%s, attempt %d, do %v: calls", name, at, do)
						assert.EqualValues(t, 1, b.firsts.Load(), "%s, attempt %d, do %v: first attempts", name, at, do)
					}
				})
			}
		}
	}
}

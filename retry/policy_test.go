package retry

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// wrongFields returns the names of the fields that an error is about.
func wrongFields(err error) (names []string) {
	switch err := err.(type) {
	case nil:
	case *field.Error:
		names = append(names, err.Field)
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			names = append(names, wrongFields(e)...)
		}
	default:
		names = append(names, "not a field: "+err.Error())
	}
	return names
}

func TestPolicy_Validation_P02(t *testing.T) {
	hedge := func(h Hedge) Policy { return Policy{Hedge: &h} }
	wait := func(b Backoff) Policy { return Policy{Backoff: b} }
	nan := math.NaN()
	for _, row := range []struct {
		name   string
		policy Policy
		want   []string
	}{
		{"zero", Policy{}, nil},
		{"its defaults", Policy{}.WithDefaults(), nil},
		{"one attempt", Policy{MaxAttempts: 1}, nil},
		{"attempts", Policy{MaxAttempts: -1}, []string{"MaxAttempts"}},
		{"attempts without end", Policy{MaxAttempts: math.MaxInt32}, []string{"MaxAttempts"}},
		{"time of an attempt", Policy{PerAttemptTimeout: -1}, []string{"PerAttemptTimeout"}},
		{"time of a call", Policy{Timeout: -1}, []string{"Timeout"}},
		{"kind", wait(Backoff{Kind: Exponential + 1}), []string{"Backoff.Kind"}},
		{"base", wait(Backoff{Base: -1}), []string{"Backoff.Base"}},
		{"base above the default of Max", wait(Backoff{Base: time.Hour}), nil},
		{"base above Max", wait(Backoff{Base: 2, Max: 1}), []string{"Backoff.Max"}},
		{"default base above Max", wait(Backoff{Max: time.Millisecond}), []string{"Backoff.Max"}},
		{"negative max", wait(Backoff{Max: -1}), []string{"Backoff.Max"}},
		{"factor 1", wait(Backoff{Factor: 1}), nil},
		{"factor below 1", wait(Backoff{Factor: 0.99}), []string{"Backoff.Factor"}},
		{"negative factor", wait(Backoff{Factor: -2}), []string{"Backoff.Factor"}},
		{"factor is no number", wait(Backoff{Factor: nan}), []string{"Backoff.Factor"}},
		{"hedge", hedge(Hedge{}), nil},
		{"hedge after", hedge(Hedge{After: -1}), []string{"Hedge.After"}},
		{"quantile 1", hedge(Hedge{Quantile: 1}), []string{"Hedge.Quantile"}},
		{"quantile below 1", hedge(Hedge{Quantile: 0.999}), nil},
		{"quantile above", hedge(Hedge{Quantile: 95}), []string{"Hedge.Quantile"}},
		{"quantile below", hedge(Hedge{Quantile: -0.5}), []string{"Hedge.Quantile"}},
		{"quantile is no number", hedge(Hedge{Quantile: nan}), []string{"Hedge.Quantile"}},
		{"hedge budget 1", hedge(Hedge{Budget: 1}), nil},
		{"hedge budget above", hedge(Hedge{Budget: 1.01}), []string{"Hedge.Budget"}},
		{"hedge budget off", hedge(Hedge{Budget: -1}), nil},
		{"hedge budget is no number", hedge(Hedge{Budget: nan}), []string{"Hedge.Budget"}},
		{"methods", Policy{Idempotent: []string{"POST", "", "PATCH", ""}}, []string{"Idempotent[1]", "Idempotent[3]"}},
		{"statuses", Policy{Statuses: []int{299, 300, 599, 600, 0, -1}}, []string{"Statuses[0]", "Statuses[3]", "Statuses[4]", "Statuses[5]"}},
		{"spool", Policy{Spool: -1}, []string{"Spool"}},
		{"servers are not heard", Policy{Pushback: Pushback{Max: -1}}, nil},
		{
			"everything at once",
			Policy{
				MaxAttempts: -1, PerAttemptTimeout: -1, Timeout: -1,
				Backoff: Backoff{Kind: 99, Base: -1, Max: -2, Factor: nan},
				Budget:  Quota{Cost: -1, TimeoutCost: -1},
				Hedge:   &Hedge{After: -1, Quantile: 2, Budget: 2}, Idempotent: []string{""}, Statuses: []int{200}, Spool: -1,
			},
			[]string{
				"MaxAttempts", "PerAttemptTimeout", "Timeout", "Backoff.Kind", "Backoff.Base", "Backoff.Max", "Backoff.Factor",
				"Budget.Cost", "Budget.TimeoutCost", "Hedge.After", "Hedge.Quantile", "Hedge.Budget", "Idempotent[0]", "Statuses[0]", "Spool",
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.ElementsMatch(t, row.want, wrongFields(row.policy.Validate()))
			r, err := NewRetrier(row.policy)
			assert.ElementsMatch(t, row.want, wrongFields(err))
			assert.Equal(t, row.want == nil, r != nil, "no half state")
			_, err = NewTransport(http.DefaultTransport, row.policy)
			assert.ElementsMatch(t, row.want, wrongFields(err))
		})
	}
	_, err := NewTransport(nil, Policy{MaxAttempts: -1})
	assert.ElementsMatch(t, []string{"next", "MaxAttempts"}, wrongFields(err))
}

// What the comments of the fields say.
func TestPolicy_DocumentedDefaults(t *testing.T) {
	p := Policy{Hedge: &Hedge{}}.WithDefaults()
	want := Policy{
		MaxAttempts: 3,
		Backoff:     Backoff{Kind: FullJitter, Base: 50 * time.Millisecond, Max: 2 * time.Second, Factor: 2},
		Pushback:    Pushback{Max: 10 * time.Second},
		Budget:      Quota{Size: 500, Cost: 5, TimeoutCost: 10},
		Hedge:       &Hedge{Quantile: 0.95, Budget: 0.05},
	}
	assert.Equal(t, want, p)
	assert.Nil(t, Policy{}.WithDefaults().Hedge, "no hedges unless they are asked for")
	assert.Equal(t, time.Hour, Policy{Backoff: Backoff{Base: time.Hour}}.WithDefaults().Backoff.Max)
	assert.Equal(t, Throttle{MaxTokens: 10, Ratio: 0.1}, Policy{Budget: Throttle{}}.WithDefaults().Budget)
	assert.Equal(t, Ratio{PerCall: 0.2, Reserve: 10, Max: 100}, Policy{Budget: Ratio{}}.WithDefaults().Budget)
	assert.Equal(t, Ratio{PerCall: 0.2, Reserve: 700, Max: 700}, Policy{Budget: Ratio{Reserve: 700}}.WithDefaults().Budget)
	assert.Equal(t, Quota{Size: -1, Cost: 5, TimeoutCost: 10}, Policy{Budget: Quota{Size: -1}}.WithDefaults().Budget)
	r := retrier(t, Policy{})
	assert.Equal(t, 500, r.Tokens(), "it starts full")
	assert.Equal(t, 3, r.Policy().MaxAttempts)
}

func TestPolicy_WithDefaultsTwice(t *testing.T) {
	for _, p := range []Policy{
		{},
		{Hedge: &Hedge{}, Budget: Throttle{}},
		{Budget: Ratio{Reserve: -1}, Pushback: Pushback{Max: -1, Shorten: true}},
		{MaxAttempts: 7, Backoff: Backoff{Base: time.Hour}, Budget: &flat{}},
		{Budget: Quota{Size: -1}, Hedge: &Hedge{Budget: -1, After: time.Second}, Spool: 5, Statuses: []int{500}},
	} {
		once := p.WithDefaults()
		assert.Equal(t, once, once.WithDefaults(), fmt.Sprint(p))
		require.NoError(t, once.Validate())
	}
}

// A policy is data: filling in its defaults must not change what the caller holds.
func TestPolicy_WithDefaultsLeavesTheOriginal(t *testing.T) {
	h := &Hedge{}
	p := Policy{Hedge: h}
	_ = p.WithDefaults()
	_, err := NewRetrier(p)
	require.NoError(t, err)
	assert.Equal(t, Hedge{}, *h)
	assert.Zero(t, p.MaxAttempts)
}

// Behaviour fields are left as they are.
func TestPolicy_WithDefaultsKeepsBehaviour(t *testing.T) {
	called := false
	p := Policy{
		NewBackOff: func() backoff.BackOff { called = true; return nil },
		RetryIf:    func(Case) bool { called = true; return false },
	}.WithDefaults()
	assert.NotNil(t, p.NewBackOff)
	assert.NotNil(t, p.RetryIf)
	assert.False(t, called)
	assert.Nil(t, p.Clock)
	assert.Nil(t, p.Rand)
	assert.Nil(t, p.Classifier)
}

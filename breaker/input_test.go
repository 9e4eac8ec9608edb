package breaker

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// problems returns the names of the fields that an error speaks of, in order. It fails
// if the error says anything else.
func problems(t testing.TB, err error) []string {
	t.Helper()
	list := []string{}
	parts := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		parts = joined.Unwrap()
	}
	for _, part := range parts {
		var problem *field.Error
		require.ErrorAs(t, part, &problem)
		assert.NotEmpty(t, problem.Problem)
		assert.ErrorContains(t, err, problem.Field)
		list = append(list, problem.Field)
	}
	return list
}

func TestConfig_NamesTheField(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		field string
		value any
		cfg   Config
	}{
		{"Mode", Mode(4), Config{Mode: 4}},
		{"Mode", Mode(255), Config{Mode: 255}},
		{"ConsecutiveFailures", -2, Config{ConsecutiveFailures: -2}},
		{"ConsecutiveFailures", math.MinInt, Config{ConsecutiveFailures: math.MinInt}},
		{"FailureRate", 1.1, Config{FailureRate: 1.1}},
		{"FailureRate", -0.5, Config{FailureRate: -0.5}},
		{"FailureRate", -1.5, Config{FailureRate: -1.5}},
		{"FailureRate", 50.0, Config{FailureRate: 50}},
		{"FailureRate", math.Inf(1), Config{FailureRate: math.Inf(1)}},
		{"FailureRate", math.Inf(-1), Config{FailureRate: math.Inf(-1)}},
		{"SlowAfter", time.Duration(-1), Config{SlowAfter: -1}},
		{"SlowRate", 1.0000001, Config{SlowRate: 1.0000001}},
		{"SlowRate", -1.0, Config{SlowRate: Off}}, // without SlowAfter it is off
		{"SlowRate", math.Inf(1), Config{SlowRate: math.Inf(1)}},
		{"MinCalls", -1, Config{MinCalls: -1}},
		{"MinCalls", 11, Config{MinCalls: 11, WindowCalls: 10}},
		{"Window", time.Duration(-1), Config{Window: -1}},
		{"Window", 10*time.Millisecond - 1, Config{Window: 10*time.Millisecond - 1}},
		{"WindowCalls", -1, Config{WindowCalls: -1}},
		{"WindowCalls", 1_000_001, Config{WindowCalls: 1_000_001}},
		{"WindowCalls", 10, Config{WindowCalls: 10, Window: time.Second}},
		{"OpenFor", time.Duration(-1), Config{OpenFor: -1}},
		{"MaxOpenFor", time.Duration(-1), Config{MaxOpenFor: -1}},
		{"MaxOpenFor", 4 * time.Second, Config{MaxOpenFor: 4 * time.Second}}, // the default is 5s
		{"MaxOpenFor", time.Minute - 1, Config{OpenFor: time.Minute, MaxOpenFor: time.Minute - 1}},
		{"Jitter", 1.5, Config{Jitter: 1.5}},
		{"Jitter", -0.1, Config{Jitter: -0.1}},
		{"Jitter", math.Inf(-1), Config{Jitter: math.Inf(-1)}},
		{"Probes", -1, Config{Probes: -1}},
		{"Probes", 10_001, Config{Probes: 10_001}},
		{"ProbeSuccesses", -1, Config{ProbeSuccesses: -1}},
		{"ProbeFailures", -1, Config{ProbeFailures: -1}},
		{"ProbeTimeout", time.Duration(-1), Config{ProbeTimeout: -1}},
		{"RampFor", time.Duration(-1), Config{RampFor: -1}},
		{"MaxKeys", -1, Config{MaxKeys: -1}},
		{"IdleFor", time.Duration(-1), Config{IdleFor: -1}},
	} {
		err := row.cfg.Validate()
		require.Error(t, err, "%+v", row)
		assert.Equal(t, []string{row.field}, problems(t, err), "%v", err)
		var problem *field.Error
		require.ErrorAs(t, err, &problem)
		assert.Equal(t, row.value, problem.Value)

		b, made := New("users", row.cfg)
		assert.Nil(t, b)
		assert.Equal(t, err, made)
		g, made := NewGroup(row.cfg)
		assert.Nil(t, g)
		assert.Equal(t, err, made)
		tr, made := NewTransport(nil, row.cfg)
		assert.Nil(t, tr)
		assert.Equal(t, []string{"next", row.field}, problems(t, made), "all at once")
	}
	for name, cfg := range map[string]Config{
		"FailureRate": {FailureRate: math.NaN()}, "SlowRate": {SlowRate: math.NaN()}, "Jitter": {Jitter: math.NaN()},
	} {
		assert.Equal(t, []string{name}, problems(t, cfg.Validate()))
	}
}

func TestConfig_AllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Mode: 9, ConsecutiveFailures: -7, FailureRate: math.NaN(), SlowAfter: -1, SlowRate: 2, MinCalls: -1, Window: 1,
		WindowCalls: -1, OpenFor: -1, MaxOpenFor: -1, Jitter: math.Inf(1), Probes: -1, ProbeSuccesses: -1, ProbeFailures: -1,
		ProbeTimeout: -1, RampFor: -1, MaxKeys: -1, IdleFor: -1,
	}
	got := problems(t, cfg.Validate())
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		switch f.Type.Kind() {
		case reflect.Func, reflect.Interface, reflect.Bool:
			assert.NotContains(t, got, f.Name)
		default:
			assert.Contains(t, got, f.Name, "%v", got)
		}
	}
}

func TestConfig_Allowed(t *testing.T) {
	t.Parallel()
	const longest = time.Duration(math.MaxInt64)
	for _, cfg := range []Config{
		{},
		{ConsecutiveFailures: Off, FailureRate: Off, Jitter: Off},
		{FailureRate: 1, SlowRate: 1, Jitter: 1, SlowAfter: 1},
		{FailureRate: math.SmallestNonzeroFloat64, SlowRate: math.SmallestNonzeroFloat64, Jitter: math.SmallestNonzeroFloat64},
		{Window: 10 * time.Millisecond, MinCalls: 1_000_000_000},
		{Window: longest, OpenFor: longest, MaxOpenFor: longest, ProbeTimeout: longest, RampFor: longest, IdleFor: longest, SlowAfter: longest},
		{OpenFor: 1, MaxOpenFor: 1, ProbeTimeout: 1, RampFor: 1, IdleFor: 1, SlowAfter: 1},
		{WindowCalls: 1_000_000, MinCalls: 1_000_000},
		{WindowCalls: 1}, // fewer than the default minimum
		{OpenFor: time.Hour},
		{OpenFor: 5 * time.Minute, MaxOpenFor: 5 * time.Minute},
		{MaxOpenFor: 5 * time.Second},
		{Probes: 10_000, ProbeSuccesses: 1, ProbeFailures: 10_000},
		{Probes: 1, ProbeSuccesses: 20_000},
		{MaxKeys: math.MaxInt},
		{FailureRate: math.Copysign(0, -1), Jitter: math.Copysign(0, -1)},
		{Mode: MetricsOnly, IgnoreRetryAfter: true, OverloadFails: true},
	} {
		assert.NoError(t, cfg.Validate(), "%+v", cfg)
		b, err := New("users", cfg)
		require.NoError(t, err)
		p, err := b.Allow()
		require.NoError(t, err)
		p.Done(err500)
		b.Status()
		filled := cfg.WithDefaults()
		assert.NoError(t, filled.Validate(), "with its defaults: %+v", filled)
		assert.Equal(t, filled, filled.WithDefaults(), "a second time")
	}
}

func TestConfig_DocumentedDefaults(t *testing.T) {
	t.Parallel()
	assert.Equal(t, Config{
		ConsecutiveFailures: 5,
		FailureRate:         0.5,
		MinCalls:            20,
		Window:              10 * time.Second,
		OpenFor:             5 * time.Second,
		MaxOpenFor:          5 * time.Minute,
		Jitter:              0.5,
		Probes:              3,
		ProbeSuccesses:      3,
		ProbeFailures:       1,
		ProbeTimeout:        30 * time.Second,
		MaxKeys:             10_000,
		IdleFor:             10 * time.Minute,
	}, Config{}.WithDefaults())

	assert.InDelta(t, 0.8, Config{SlowAfter: time.Second}.WithDefaults().SlowRate, 0)
	assert.InDelta(t, 0.3, Config{SlowAfter: time.Second, SlowRate: 0.3}.WithDefaults().SlowRate, 0)
	assert.Equal(t, 7, Config{Probes: 7}.WithDefaults().ProbeSuccesses)
	assert.Equal(t, 2, Config{Probes: 7, ProbeSuccesses: 2}.WithDefaults().ProbeSuccesses)
	assert.Equal(t, time.Hour, Config{OpenFor: time.Hour}.WithDefaults().MaxOpenFor)
	assert.Equal(t, 5*time.Minute, Config{OpenFor: time.Minute}.WithDefaults().MaxOpenFor)
	byNumber := Config{WindowCalls: 10}.WithDefaults()
	assert.Equal(t, 10, byNumber.MinCalls)
	assert.Zero(t, byNumber.Window)
	assert.Equal(t, 20, Config{WindowCalls: 100}.WithDefaults().MinCalls)
	assert.Equal(t, 5, Config{WindowCalls: 100, MinCalls: 5}.WithDefaults().MinCalls)
}

// What is set stays as it is, and so do functions and the like.
func TestConfig_DefaultsReplaceNothing(t *testing.T) {
	t.Parallel()
	cfg := Config{
		Mode: Disabled, ConsecutiveFailures: Off, FailureRate: Off, SlowAfter: 2, SlowRate: 0.1, MinCalls: 3, Window: time.Minute,
		OpenFor: 4, MaxOpenFor: 5, IgnoreRetryAfter: true, Jitter: Off, Probes: 6, ProbeSuccesses: 7, ProbeFailures: 8,
		ProbeTimeout: 9, RampFor: 10, OverloadFails: true, MaxKeys: 11, IdleFor: 12,
		Clock: clock.NewFake(dawn), Rand: rand.NewPCG(1, 2),
	}
	assert.Equal(t, cfg, cfg.WithDefaults())
	zero := Config{}.WithDefaults()
	assert.Nil(t, zero.TripIf)
	assert.Nil(t, zero.Key)
	assert.Nil(t, zero.Classifier)
	assert.Nil(t, zero.OnChange)
	assert.Nil(t, zero.Clock)
	assert.Nil(t, zero.Rand)
	cfg = Config{Classifier: outcome.Classify, TripIf: func(Counts) bool { return true }}.WithDefaults()
	assert.NotNil(t, cfg.Classifier)
	assert.NotNil(t, cfg.TripIf)
}

func TestDo_RefusesNilFunctions(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{})
	_, err := DoOr[int](t.Context(), r.Breaker, nil, nil)
	assert.Equal(t, []string{"fn"}, problems(t, err))
	assert.Equal(t, []string{"fn"}, problems(t, r.Do(t.Context(), nil)))
	_, err = Do[int](t.Context(), r.Breaker, nil)
	assert.Equal(t, []string{"fn"}, problems(t, err))
	assert.Zero(t, r.Counts())
}

// A breaker without anything that could open it is one that only refuses when it is told to.
func TestConfig_NothingOpensIt(t *testing.T) {
	t.Parallel()
	r := rigged(t, Config{ConsecutiveFailures: Off, FailureRate: Off})
	require.Equal(t, counted, times(1000, send(err500))(r))
	assert.Equal(t, Counts{ConsecutiveFailures: 1000}, r.Counts(), "nobody looks at a rate")
	require.NoError(t, r.SetMode(ForcedOpen))
	assert.Equal(t, refused, send(ok200)(r))
}

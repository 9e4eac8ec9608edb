package health

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// fieldsNamed returns which fields an error names.
func fieldsNamed(t *testing.T, err error) (fields []string) {
	t.Helper()
	var list field.Errors
	list.Under("", err)
	joined, _ := list.Err().(interface{ Unwrap() []error })
	if joined == nil {
		return nil
	}
	for _, e := range joined.Unwrap() {
		var f *field.Error
		require.ErrorAs(t, e, &f)
		assert.NotEmpty(t, f.Problem)
		fields = append(fields, f.Field)
	}
	return fields
}

// badOutliers is each value that is refused, with the field that is named.
var badOutliers = []struct {
	field string
	o     Outlier
}{
	{"Enforce", Outlier{Enforce: -0.1}},
	{"Enforce", Outlier{Enforce: Off}},
	{"Enforce", Outlier{Enforce: 1.01}},
	{"Enforce", Outlier{Enforce: math.NaN()}},
	{"Enforce", Outlier{Enforce: math.Inf(1)}},
	{"ConsecutiveFailures", Outlier{ConsecutiveFailures: -2}},
	{"ConsecutiveFailures", Outlier{ConsecutiveFailures: 1<<20 + 1}},
	{"GatewayFailures", Outlier{GatewayFailures: -2}},
	{"GatewayFailures", Outlier{GatewayFailures: math.MaxInt}},
	{"LocalFailures", Outlier{LocalFailures: math.MinInt}},
	{"LocalFailures", Outlier{LocalFailures: 1<<20 + 1}},
	{"FailureRate", Outlier{FailureRate: -0.5}},
	{"FailureRate", Outlier{FailureRate: 1.0001}},
	{"FailureRate", Outlier{FailureRate: 85}},
	{"FailureRate", Outlier{FailureRate: math.NaN()}},
	{"Deviation", Outlier{Deviation: -0.05}},
	{"Deviation", Outlier{Deviation: 1}}, // "Below 1"
	{"Deviation", Outlier{Deviation: 5}},
	{"Deviation", Outlier{Deviation: math.NaN()}},
	{"Deviation", Outlier{Deviation: math.Inf(-1)}},
	{"FalseAlarms", Outlier{FalseAlarms: -0.001}},
	{"FalseAlarms", Outlier{FalseAlarms: Off}},
	{"FalseAlarms", Outlier{FalseAlarms: 0.51}},
	{"FalseAlarms", Outlier{FalseAlarms: math.NaN()}},
	{"SlowerBy", Outlier{SlowerBy: 1}},
	{"SlowerBy", Outlier{SlowerBy: 0.5}},
	{"SlowerBy", Outlier{SlowerBy: -3}},
	{"SlowerBy", Outlier{SlowerBy: math.NaN()}},
	{"SlowerBy", Outlier{SlowerBy: math.Inf(1)}},
	{"SlowerByTime", Outlier{SlowerByTime: -1}},
	{"Interval", Outlier{Interval: -second}},
	{"Interval", Outlier{Interval: 100*ms - 1}},
	{"Interval", Outlier{Interval: maxInterval + 1}},
	{"EjectFor", Outlier{EjectFor: -second}},
	{"EjectFor", Outlier{EjectFor: 1}},
	{"EjectFor", Outlier{EjectFor: math.MaxInt64}},
	{"MaxEjectFor", Outlier{MaxEjectFor: -second}},
	{"MaxEjectFor", Outlier{MaxEjectFor: 29 * second}},
	{"MaxEjectFor", Outlier{EjectFor: 2 * time.Minute, MaxEjectFor: time.Minute}},
	{"MaxEjectFor", Outlier{MaxEjectFor: math.MaxInt64}},
	{"Jitter", Outlier{Jitter: -0.1}},
	{"Jitter", Outlier{Jitter: 1.1}},
	{"Jitter", Outlier{Jitter: math.NaN()}},
	{"MaxEjected", Outlier{MaxEjected: -0.5}},
	{"MaxEjected", Outlier{MaxEjected: Off}},
	{"MaxEjected", Outlier{MaxEjected: 50}},
	{"MaxEjected", Outlier{MaxEjected: math.NaN()}},
}

// Given a value that cannot be meant, then an error names its field, and nobody is made or changed.
func TestOutlier_Validate_P02(t *testing.T) {
	t.Parallel()
	for _, row := range badOutliers {
		assert.Equal(t, []string{row.field}, fieldsNamed(t, row.o.Validate()), "%+v", row.o)
		_, err := NewMonitor(Config{Outlier: row.o})
		assert.Equal(t, []string{"Outlier." + row.field}, fieldsNamed(t, err), "%+v", row.o)
	}
	several := Outlier{Enforce: 2, ConsecutiveFailures: -7, Deviation: math.NaN(), EjectFor: -1, MaxEjected: 2}
	assert.Equal(t, []string{"Enforce", "ConsecutiveFailures", "Deviation", "EjectFor", "MaxEjected"}, fieldsNamed(t, several.Validate()))
	for _, o := range []Outlier{
		{},
		Outlier{}.WithDefaults(),
		{Disabled: true},
		{Enforce: 1, FailureRate: 1, Jitter: 1, MaxEjected: 1},
		{Enforce: 1e-9, FailureRate: 1e-9, Deviation: 1e-9, FalseAlarms: 1e-300, Jitter: 1e-9, MaxEjected: 1e-9, SlowerBy: 1.0001, SlowerByTime: 1},
		{ConsecutiveFailures: Off, GatewayFailures: Off, LocalFailures: Off, Deviation: Off, Jitter: Off},
		{ConsecutiveFailures: 1, GatewayFailures: 1 << 20, LocalFailures: 1 << 20, FalseAlarms: 0.5, Deviation: 0.9999},
		{Interval: 100 * ms, EjectFor: minInterval, MaxEjectFor: minInterval},
		{Interval: maxInterval, EjectFor: maxInterval, MaxEjectFor: maxInterval},
		{EjectFor: time.Hour},
		{MaxEjectFor: 30 * second},
		{ConsecutiveFailures: 3, LocalFailures: 3, EjectFor: 10 * second, MaxEjectFor: 10 * second, Deviation: Off}, // as nginx
	} {
		assert.NoError(t, o.Validate(), "%+v", o)
		assert.NoError(t, o.WithDefaults().Validate(), "%+v", o)
		assert.Equal(t, o.WithDefaults(), o.WithDefaults().WithDefaults())
	}
}

// What is documented as the defaults is what is applied.
func TestOutlier_Defaults(t *testing.T) {
	t.Parallel()
	assert.Equal(t, Outlier{
		Enforce: 1, ConsecutiveFailures: 5, GatewayFailures: Off, LocalFailures: 5, Deviation: 0.05, FalseAlarms: 0.001,
		SlowerByTime: 50 * ms, Interval: 10 * second, EjectFor: 30 * second, MaxEjectFor: 5 * time.Minute, Jitter: 0.25, MaxEjected: 0.5,
	}, Outlier{}.WithDefaults())
	assert.Equal(t, time.Hour, Outlier{EjectFor: time.Hour}.WithDefaults().MaxEjectFor)
}

// Given other settings, then what is known stays: who is out and for how long, levels, rows, what
// was counted in this interval, latencies, what probes have found.
func TestUse_KeepsState_P01(t *testing.T) {
	t.Parallel()
	check := quietCheck(3)
	o := Outlier{SlowerBy: 3, Deviation: 0.2}
	w := newWard(t, Config{Check: &check, Outlier: o, Rand: late{}}, "a", "b", "c", "d", "e", "f", "g", "h")
	w.answers("a", 5, err500)
	w.fake.Advance(w.lasts("a"))
	w.fake.Advance(second)
	w.answers("a", 5, lostIt)
	w.answers("b", 4, err500)
	w.answers("c", 4, lostIt)
	w.some("d", 100, 12)
	for _, name := range []string{"e", "f", "g"} {
		w.some(name, 50, 0)
		w.slowly(name, 120, 10*ms)
	}
	w.slowly("h", 120, second)
	w.probed("f", 2, errProbe)
	w.probed("g", 3, errProbe)
	before := w.Status()
	told := len(w.told)

	other := quietCheck(3)
	other.Interval *= 2
	next := Outlier{SlowerBy: 2, EjectFor: time.Minute, MaxEjectFor: time.Hour, MaxEjected: 0.9, GatewayFailures: 7, Jitter: Off, FalseAlarms: 0.002}
	require.NoError(t, w.Use(Config{Check: &other, Outlier: next}))
	assert.Equal(t, before, w.Status())
	assert.Len(t, w.told, told)
	assert.Equal(t, Unhealthy, w.members["g"].Status().State)
	w.probed("f", 1, errProbe)
	assert.Equal(t, Unhealthy, w.members["f"].Status().State, "the third in a row")
	w.answers("b", 1, err500)
	assert.Equal(t, time.Minute, w.lasts("b"), "the fifth in a row, for as long as is said now")
	w.answers("c", 1, lostIt)
	assert.Equal(t, LocalFailures, w.members["c"].Status().Ejected)
	w.fake.Advance(10 * second)
	assert.Equal(t, Deviation, w.members["d"].Status().Ejected, "by what was counted before, and the new gap")
	assert.Equal(t, SlowerBy, w.members["h"].Status().Ejected)
	a := w.members["a"].Status()
	assert.Equal(t, 2, a.Level)
	w.fake.Advance(a.Until.Sub(w.fake.Now()) - 1)
	assert.Equal(t, LocalFailures, w.members["a"].Status().Ejected, "for as long as was said then")
	w.fake.Advance(1)
	assert.Empty(t, w.members["a"].Status().Ejected)
	w.checkEvents()
}

// Given settings that are not valid, then an error names the field, and nothing changes.
func TestUse_InvalidOutlierChangesNothing_P02(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off}}, "a", "b", "c", "d")
	w.answers("a", 5, err500)
	w.answers("b", 4, err500)
	settings, before, pending, told := w.settings.Load(), w.Status(), w.fake.Pending(), len(w.told)
	for _, row := range badOutliers {
		if row.o.Validate() == nil {
			continue // TestOutlier_Validate_P02 says so
		}
		require.Equal(t, []string{"Outlier." + row.field}, fieldsNamed(t, w.Use(Config{Check: &Check{}, Outlier: row.o})), "%+v", row.o)
		require.Same(t, settings, w.settings.Load())
	}
	require.Error(t, w.Use(Config{Outlier: Outlier{Disabled: true, MaxEjected: 2}}))
	require.Error(t, w.Use(Config{Check: &Check{Rise: -1}, Outlier: Outlier{Disabled: true}}))
	require.Same(t, settings, w.settings.Load())
	assert.Equal(t, before, w.Status())
	assert.Equal(t, pending, w.fake.Pending())
	assert.Len(t, w.told, told)
	w.answers("b", 1, err500)
	assert.Equal(t, "a: consecutive failures, b: consecutive failures", w.out())
}

// Given that it is switched off, then all come back; and when it is on again, it begins anew.
func TestUse_OffAndOn(t *testing.T) {
	t.Parallel()
	o := Outlier{EjectFor: 100 * second, SlowerBy: 3, GatewayFailures: 4}
	off := o
	off.Disabled = true
	switched := func(t *testing.T, names ...string) *ward {
		t.Helper()
		w := newWard(t, Config{Outlier: o}, names...)
		w.answers("a", 5, err500)
		require.Equal(t, 1, w.countOut())
		w.at(10 * second)
		use(off)(w)
		require.Empty(t, w.out())
		require.Equal(t, "10s a return (consecutive failures) until 1m40s", w.events()[1])
		assert.LessOrEqual(t, w.fake.Pending(), 1, "a sweep at most")
		w.answers("a", 100, err500)
		w.answers("a", 100, lostIt)
		w.at(time.Minute)
		require.Len(t, w.told, 2)
		require.Zero(t, w.members["a"].Status().Level)
		return w
	}
	w := switched(t, "a", "b", "c", "d")
	use(o)(w)
	w.answers("a", 5, err500)
	assert.Equal(t, byServer, w.out())
	assert.Equal(t, 100*second, w.lasts("a"), "the first")

	for name, a := range map[string]outcome.Answer{"server": err500, "gateway": err502, "local": lostIt} {
		w = switched(t, "a", "b", "c", "d")
		w.answers("b", 3, a) // while it is off
		use(o)(w)
		w.answers("b", 3, a)
		assert.Empty(t, w.out(), "%s: what came while it was off does not count", name)
		w.answers("b", 2, a)
		assert.Equal(t, 1, w.countOut(), name)
	}

	w = switched(t, "a", "b", "c", "d")
	for range 5 {
		w.some("c", 100, 60)
		w.some("d", 1000, 0)
		w.fake.Advance(10 * second)
	}
	use(o)(w)
	w.some("d", 1000, 0)
	w.some("c", 100, 0)
	w.fake.Advance(10 * second)
	assert.Empty(t, w.out(), "rates: what came while it was off does not count")
	w.some("d", 1000, 0)
	w.some("c", 100, 60)
	w.fake.Advance(10 * second)
	assert.Equal(t, "c: deviation", w.out(), "and what comes afterwards does")
}

// Given a monitor that is made disabled, then it is as one that was not, once it is on.
func TestUse_OnForTheFirstTime(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Disabled: true}}, "a", "b", "c", "d")
	w.some("b", 1000, 0)
	w.some("a", 100, 50)
	w.fake.Advance(time.Hour)
	require.Empty(t, w.told)
	require.Zero(t, w.fake.Pending(), "there is nothing to do")
	use(Outlier{ConsecutiveFailures: Off})(w)
	w.some("b", 1000, 0)
	w.some("a", 100, 50)
	w.fake.Advance(10 * second)
	assert.Equal(t, "a: deviation", w.out())
}

// Given a shorter Interval, then it is the next one's length, however long the old one would last.
func TestUse_AShorterInterval_P01(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: judged(Outlier{Interval: 24 * time.Hour})}, "a", "b")
	w.some("a", 100, 50)
	w.some("b", 1000, 0)
	w.fake.Advance(second)
	use(judged(Outlier{Interval: 10 * second}))(w)
	for range 3 {
		w.some("a", 100, 50)
		w.some("b", 1000, 0)
		w.fake.Advance(10 * second)
	}
	assert.Equal(t, "a: deviation", w.out())
}

// Given a cap that is lowered, then it holds: those come back whose time is over first, and nobody
// else is ejected until there is room.
func TestUse_ALowerCap_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off, MaxEjected: 1}}, "a", "b", "c", "d")
	w.answers("a", 5, err500)
	w.at(second)
	w.answers("b", 5, err500)
	w.answers("c", 5, err500)
	require.Equal(t, 3, w.countOut())
	use(Outlier{Deviation: Off, MaxEjected: 0.25})(w)
	assert.Equal(t, 1, w.countOut())
	w.answers("d", 50, err500)
	assert.True(t, w.members["d"].Available())
	w.at(30 * second)
	w.answers("d", 50, err500)
	assert.True(t, w.members["d"].Available())
	w.at(31 * second)
	w.answers("d", 5, err500)
	assert.Equal(t, "d: consecutive failures", w.out())
}

// A thousand swaps leave nothing behind.
func TestUse_AThousandTimes_P04(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Rand: late{}}, "a", "b", "c", "d")
	w.answers("a", 5, err500)
	w.answers("b", 1, ok200)
	most := 0
	for i := range 1000 {
		o := Outlier{SlowerBy: float64(i%2) * 3, MaxEjected: 0.5 + float64(i%5)/10, Disabled: i%7 == 6, Interval: time.Duration(1+i%9) * second}
		cfg := Config{Outlier: o}
		if i%3 == 0 {
			check := quietCheck(1 + i%4)
			cfg.Check = &check
		}
		require.NoError(t, w.Use(cfg))
		w.answers("a", 5, err500)
		w.answers("b", 1, ok200)
		w.answers("c", i%6, lostIt)
		w.fake.Advance(time.Duration(i%3) * ms)
		most = max(most, w.fake.Pending())
	}
	assert.LessOrEqual(t, most, 4+1+2, "a probe for each, a sweep, two ejections")
	w.Close()
	assert.Zero(t, w.fake.Pending())
	require.NoError(t, w.Use(Config{Check: &Check{}}))
	w.answers("a", 50, err500)
	assert.Zero(t, w.fake.Pending(), "and after the end there is none")
}

// Given settings that change while requests end, then nothing races, and each request is judged by
// the one or by the other.
func TestUse_WhileRequestsEnd_P03(t *testing.T) {
	t.Parallel()
	const never = 1 << 20 // in a row: more than there are
	m := newMonitor(t, Config{Clock: clock.NewFake(firstDay), Outlier: Outlier{ConsecutiveFailures: never, LocalFailures: never}})
	var members [4]*Member
	for i := range members {
		var err error
		members[i], err = m.Add(discovery.Endpoint{Address: fmt.Sprintf("e%d:80", i)})
		require.NoError(t, err)
	}
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for i := range 5000 {
				e := members[(i+g)%len(members)]
				e.Answered([]outcome.Answer{ok200, err500, took(second, ok200), lostIt, not404, err502}[i%6])
				if e.Status().Ejections > 0 {
					assert.Fail(t, "by neither of the settings is anybody ejected")
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 1000 {
			o := Outlier{ConsecutiveFailures: never, LocalFailures: never}
			if i%2 == 0 {
				o = Outlier{ConsecutiveFailures: 1, LocalFailures: 1, GatewayFailures: 1, Disabled: true, SlowerBy: 3}
			}
			assert.NoError(t, m.Use(Config{Outlier: o}))
		}
	})
	require.NoError(t, m.Use(Config{Outlier: Outlier{ConsecutiveFailures: never, LocalFailures: never}}))
	wg.Wait()
}

var errProbe = errors.New("no")

// late is a source of randomness by which everything comes as late as it can.
type late struct{}

func (late) Uint64() uint64 { return math.MaxUint64 }

// quietCheck is a check whose own probes come after hours, so that the test brings the findings.
func quietCheck(rise int) Check {
	const interval = 100 * time.Hour
	return Check{
		Probe: Func(func(context.Context, discovery.Endpoint) error { return nil }), Interval: interval, FastInterval: interval,
		DownInterval: interval, MaxDownInterval: interval, Rise: rise, IgnoreTraffic: true, Jitter: Off,
	}
}

// probed is so many probes of an endpoint that have ended so.
func (w *ward) probed(name string, n int, err error) {
	w.Helper()
	for range n {
		w.take(w.members[name].watch, answer{err: err}.judged(), w.fake.Now(), false)
	}
}

// found is so many probes of endpoint a that have ended so.
func found(n int, err error) event { return func(w *ward) { w.probed("a", n, err) } }

// Given an ejection, then a probe that fails or is below rise does not end it; and when rise is met,
// the settings say whether it ends early.
func TestProbes_DoNotEndEjections_H04(t *testing.T) {
	t.Parallel()
	rise := func(o Outlier) event {
		return func(w *ward) {
			check := quietCheck(3)
			o.Jitter = Off
			require.NoError(w, w.Use(Config{Check: &check, Outlier: o}))
		}
	}
	early := Outlier{ReturnOnRise: true, Deviation: Off}
	later := Outlier{Deviation: Off}
	for _, row := range []struct {
		name  string
		o     Outlier
		steps []step
	}{
		{"each fails", early, []step{
			{0, send(5, err500), byServer}, {second, found(100, errProbe), byServer}, {30*second - 1, found(100, errProbe), byServer}, {30 * second, idle, ""},
		}},
		{"each says that it is down", early, []step{{0, send(5, err500), byServer}, {second, found(100, ErrDown), byServer}, {30 * second, idle, ""}}},
		{"each says that it is leaving", early, []step{{0, send(5, err500), byServer}, {second, found(100, ErrDraining), byServer}, {30 * second, idle, ""}}},
		{"never as many as it takes", early, []step{
			{0, send(5, err500), byServer},
			{second, found(2, nil), byServer},
			{second, found(1, errProbe), byServer},
			{second, found(2, nil), byServer},
			{second, found(1, ErrDraining), byServer},
			{second, found(2, nil), byServer},
			{30*second - 1, idle, byServer},
			{30 * second, idle, ""},
		}},
		{"as many as it takes", early, []step{{0, send(5, err500), byServer}, {second, found(2, nil), byServer}, {2 * second, found(1, nil), ""}}},
		{"as many as it takes, after some that failed", early, []step{
			{0, send(5, err500), byServer}, {second, found(50, errProbe), byServer}, {second, found(2, nil), byServer}, {second, found(1, nil), ""},
		}},
		{"those before the ejection", early, []step{
			{0, found(100, nil), ""}, {0, send(5, err500), byServer}, {second, found(2, nil), byServer}, {second, found(1, nil), ""},
		}},
		{"those of an ejection before", early, []step{
			{0, send(5, err500), byServer},
			{second, found(2, nil), byServer},
			{30 * second, idle, ""},
			{31 * second, send(5, err500), byServer},
			{31 * second, found(2, nil), byServer},
			{31 * second, found(1, nil), ""},
		}},
		{"not by the settings", later, []step{{0, send(5, err500), byServer}, {second, found(100, nil), byServer}, {30*second - 1, idle, byServer}, {30 * second, idle, ""}}},
		{"the settings change", later, []step{
			{0, send(5, err500), byServer}, {0, found(1, errProbe), byServer}, {0, rise(early), byServer}, {0, found(2, nil), byServer}, {0, found(1, nil), ""},
		}},
		{"after an early return it counts anew, and the next one is longer", early, []step{
			{0, send(5, err500), byServer},
			{second, found(3, nil), ""},
			{2 * second, send(4, err500), ""},
			{2 * second, send(1, err500), byServer},
			{62*second - 1, idle, byServer},
			{62 * second, idle, ""},
		}},
		{"the timer of an ejection that has ended early ends no other", early, []step{
			{0, send(5, err500), byServer}, {second, found(3, nil), ""}, {2 * second, send(5, err500), byServer}, {30 * second, idle, byServer}, {62 * second, idle, ""},
		}},
		{"one that rises and is not ejected", early, []step{{0, found(100, nil), ""}, {second, send(5, err500), byServer}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t, Config{Rand: late{}}, "a", "b", "c", "d") // no probe comes by itself
			rise(row.o)(w)
			for i, s := range row.steps {
				w.at(s.at)
				s.event(w)
				require.Equal(t, s.want, w.out(), "step %d, at %v", i, s.at)
			}
			w.checkEvents()
		})
	}
}

// The same with probes that take place.
func TestProbes_ReturnOnRise_H04(t *testing.T) {
	for _, row := range []struct {
		name  string
		early bool
		probe func(n int) error // the n-th after the ejection
		want  time.Duration
	}{
		{"good, and it matters", true, func(int) error { return nil }, 3 * second},
		{"good, and it does not matter", false, func(int) error { return nil }, 30 * second},
		{"bad", true, func(int) error { return errProbe }, 30 * second},
		{"every third is bad", true, func(n int) error {
			if n%3 == 2 {
				return errProbe
			}
			return nil
		}, 30 * second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			ejected, n := false, 0
			var ended time.Time
			m := newMonitor(t, Config{
				Check: &Check{
					Probe: Func(func(_ context.Context, e discovery.Endpoint) error {
						mu.Lock()
						defer mu.Unlock()
						if e.Address != "a:80" || !ejected {
							return nil
						}
						n++
						return row.probe(n - 1)
					}),
					Interval: second, FastInterval: second, Rise: 3, Fall: 1000, Jitter: Off, IgnoreTraffic: true,
				},
				Outlier: Outlier{ReturnOnRise: row.early, Jitter: Off, Deviation: Off},
				OnChange: func(c Change) {
					if c.Kind == Return {
						ended = c.Time
					}
				},
			})
			a, err := m.Add(discovery.Endpoint{Address: "a:80"})
			require.NoError(t, err)
			_, err = m.Add(discovery.Endpoint{Address: "b:80"})
			require.NoError(t, err)
			time.Sleep(10 * second)
			synctest.Wait()
			mu.Lock()
			ejected = true
			mu.Unlock()
			for range 5 {
				a.Answered(err500)
			}
			began := time.Now()
			require.False(t, a.Available(), row.name)
			time.Sleep(40 * second)
			synctest.Wait()
			require.True(t, a.Available(), row.name)
			require.False(t, ended.IsZero(), row.name)
			if row.want == 30*second {
				assert.Equal(t, row.want, ended.Sub(began), row.name)
			} else {
				assert.Greater(t, ended.Sub(began), row.want-second, row.name)
				assert.LessOrEqual(t, ended.Sub(began), row.want, "%s: the third probe", row.name)
			}
		})
	}
}

package balancer

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// answeredWith answers an attempt at an endpoint with these load reports.
func answeredWith(c Candidate, at time.Duration, class outcome.Class, values ...string) {
	now := epoch.Add(at)
	var h http.Header
	if len(values) > 0 {
		h = http.Header{orca.Header: values}
	}
	c.observer.Answered(c.observer.Picked(now), outcome.Answer{Now: now, Took: time.Millisecond, Class: class, Header: h})
}

// weighs answers with a report of this weight.
func weighs(c Candidate, at time.Duration, weight float64) {
	answeredWith(c, at, outcome.Success, fmt.Sprintf("TEXT cpu_utilization=1,rps_fractional=%g", weight))
}

// loadWeighted returns endpoints of these weights, and what builds their pickers.
func loadWeighted(t testing.TB, a LoadWeighted, weights ...float64) (func(at time.Duration) Picker, []Candidate) {
	t.Helper()
	p, c := picker(t, a, seeded(t, 1), weights...)
	return func(at time.Duration) Picker {
		p = c[0].observer.(*loadState).shared.Build(Group{Candidates: c, Previous: p, Now: epoch.Add(at)})
		return p
	}, c
}

// shares returns how the picks are divided, in percent.
func shares(p Picker, n int) []float64 {
	const picks = 60000
	s := make([]float64, n)
	for i, count := range counts(p, n, picks) {
		s[i] = 100 * float64(count) / picks
	}
	return s
}

// The rows that name Envoy are those of its orca_weight_manager_test; that of gRPC
// is the rule of gRFC A58 on empty reports.
func TestLoadWeighted_Weight_A58(t *testing.T) {
	foo, both := []string{"named_metrics.foo"}, []string{"named_metrics.foo", "named_metrics.bar"}
	for _, row := range []struct {
		name    string
		metrics []string
		penalty float64
		report  string
		want    float64 // 0: changes nothing
	}{
		{"Envoy: valid", foo, -1, "rps_fractional=1000,application_utilization=0.5", 2000},
		{"Envoy: cpu", nil, -1, "rps_fractional=100,cpu_utilization=0.5", 200},
		{"Envoy: the application first", nil, -1, "rps_fractional=100,application_utilization=0.25,cpu_utilization=0.5", 400},
		{"Envoy: error penalty", foo, 2, "rps_fractional=1000,eps=100,application_utilization=0.5", 1000 / 0.7},
		{"Envoy: no requests", foo, -1, "rps_fractional=0,application_utilization=0.5", 0},
		{"Envoy: no utilisation", foo, -1, "rps_fractional=1000", 0},
		{"Envoy: bounded", foo, -1, "rps_fractional=10000000000000,application_utilization=0.0000001", math.MaxUint32},
		{"A114: a named metric before the processor", foo, -1, "rps_fractional=300,named_metrics.foo=0.3,cpu_utilization=0.6", 1000},
		{"A114: the application before a named metric", foo, -1, "rps_fractional=300,application_utilization=0.5,named_metrics.foo=0.3,cpu_utilization=0.6", 600},
		{"A114: another metric is none", foo, -1, "rps_fractional=300,named_metrics.bar=0.3,cpu_utilization=0.6", 500},
		{"A114: an application at 0 is none", foo, -1, "rps_fractional=300,application_utilization=0,named_metrics.foo=0.3", 1000},
		{"A114: the highest of several", both, -1, "rps_fractional=300,named_metrics.foo=0.3,named_metrics.bar=0.75", 400},
		{"gRPC: errors are no utilisation", nil, 1, "rps_fractional=1000,eps=1000", 0},
		{"the penalty is 1", nil, 0, "rps_fractional=1000,eps=500,cpu_utilization=0.5", 1000},
		{"the penalty is off", nil, -1, "rps_fractional=1000,eps=500,cpu_utilization=0.5", 2000},
		{"busier than full", nil, 0, "rps_fractional=1000,cpu_utilization=4", 250},
		{"never 0", nil, 0, "rps_fractional=1e-300,cpu_utilization=1e300", leastWeight},
		{"never infinite", nil, 0, "rps_fractional=1e300,cpu_utilization=1e-300", mostWeight},
		{"never a NaN", nil, -1, "rps_fractional=1e-300,eps=1e300,cpu_utilization=0.5", leastWeight},
		{"nothing but errors", nil, 0, "rps_fractional=1e-300,eps=1e300,cpu_utilization=0.5", leastWeight},
		{"an empty report", nil, 0, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, c := loadWeighted(t, LoadWeighted{Metrics: row.metrics, ErrorPenalty: row.penalty, Blackout: -1}, 1)
			answeredWith(c[0], 0, outcome.Success, "TEXT "+row.report)
			s := c[0].observer.(*loadState)
			got := s.known(s.shared.at(epoch))
			assert.InDelta(t, row.want, got, row.want*1e-6)
			assert.Zero(t, s.shared.RejectedReports())
		})
	}
}

// Given reports at some instants, then a weight is known at others.
func TestLoadWeighted_BlackoutAndExpiry(t *testing.T) {
	const s, m = time.Second, time.Minute
	type at struct {
		instant time.Duration
		reports float64 // 0: looks
		want    float64
	}
	for _, row := range []struct {
		name  string
		a     LoadWeighted
		steps []at
	}{
		{"blackout", LoadWeighted{}, []at{{0, 0, 0}, {5 * s, 100, 0}, {5 * s, 0, 0}, {15*s - 1, 0, 0}, {15 * s, 0, 100}}},
		{"it begins with the first report, not with each", LoadWeighted{}, []at{{0, 100, 0}, {9 * s, 110, 0}, {10 * s, 0, 110}, {11 * s, 120, 0}, {11 * s, 0, 120}}},
		{"no blackout", LoadWeighted{Blackout: -1}, []at{{0, 100, 0}, {0, 0, 100}}},
		{"expiry", LoadWeighted{}, []at{{0, 100, 0}, {3*m - 1, 0, 100}, {3 * m, 0, 0}}},
		{"blackout after expiry that was seen", LoadWeighted{}, []at{{0, 100, 0}, {m, 0, 100}, {4 * m, 0, 0}, {5 * m, 110, 0}, {5*m + 9*s, 0, 0}, {5*m + 10*s, 0, 110}}},
		{"blackout after expiry that nobody saw", LoadWeighted{}, []at{{0, 100, 0}, {m, 110, 0}, {m, 0, 110}, {5 * m, 120, 0}, {5*m + 9*s, 0, 0}, {5*m + 10*s, 0, 120}}},
		{"no blackout after a gap that is shorter", LoadWeighted{}, []at{{0, 100, 0}, {2 * m, 110, 0}, {2 * m, 0, 110}, {4 * m, 120, 0}, {4 * m, 0, 120}}},
		{"settings", LoadWeighted{Blackout: s, Expiry: 5 * s}, []at{{0, 100, 0}, {s - 1, 0, 0}, {s, 0, 100}, {5 * s, 0, 0}}},
		{"a clock that goes back stands still", LoadWeighted{Blackout: s}, []at{{m, 100, 0}, {0, 0, 0}, {m + s, 0, 100}, {0, 110, 0}, {m + s, 0, 110}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, c := loadWeighted(t, row.a, 1)
			state := c[0].observer.(*loadState)
			for i, step := range row.steps {
				if step.reports != 0 {
					weighs(c[0], step.instant, step.reports)
					continue
				}
				got := state.known(state.shared.at(epoch.Add(step.instant)))
				assert.InDelta(t, step.want, got, 1e-6, "step %d, at %v", i, step.instant)
			}
		})
	}
}

// Ticks wrap after five days, and a difference of more than half of that has the
// wrong sign.
func TestLoadWeighted_RunsForWeeks(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{}, 1, 1)
	state := func(i int) *loadState { return c[i].observer.(*loadState) }
	weighs(c[1], 0, 500)
	for at := time.Duration(0); at < 14*24*time.Hour; at += 2 * time.Minute {
		weighs(c[0], at, 100)
		build(at)
		if at >= 10*time.Second {
			require.InDelta(t, 100, state(0).used, 1e-6, "it reports all the time, after %v", at)
		}
		if at >= 3*time.Minute {
			require.Zero(t, state(1).used, "it fell silent, after %v", at)
		}
	}
}

func TestLoadWeighted_ScheduleFollowsReports(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{}, 1, 1, 1)
	assert.InDeltaSlice(t, []float64{33.3, 33.3, 33.3}, shares(build(0), 3), 0.5, "nothing is known")
	for i, w := range []float64{100, 200, 500} {
		weighs(c[i], 0, w)
	}
	assert.InDeltaSlice(t, []float64{33.3, 33.3, 33.3}, shares(build(9*time.Second), 3), 0.5, "blackout")
	assert.InDeltaSlice(t, []float64{12.5, 25, 62.5}, shares(build(10*time.Second), 3), 0.5)
	assert.InDeltaSlice(t, []float64{33.3, 33.3, 33.3}, shares(build(3*time.Minute), 3), 0.5, "expired")
}

func TestLoadWeighted_UnknownCountsAsTheMean(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{Blackout: -1}, 1, 1, 1, 1)
	weighs(c[0], 0, 100)
	weighs(c[2], 0, 300) // the others count as 200
	assert.InDeltaSlice(t, []float64{12.5, 25, 37.5, 25}, shares(build(0), 4), 0.5)
}

func TestLoadWeighted_FewerThanTwoKnown(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{Blackout: -1}, 1, 2, 1)
	weighs(c[0], 0, 1000)
	assert.InDeltaSlice(t, []float64{25, 50, 25}, shares(build(0), 3), 0.5, "the weights of discovery only")
}

func TestLoadWeighted_TimesTheWeightOfDiscovery(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{Blackout: -1}, 2, 1, 3)
	weighs(c[0], 0, 100)
	weighs(c[1], 0, 300)
	assert.InDeltaSlice(t, []float64{200. / 11, 300. / 11, 600. / 11}, shares(build(0), 3), 0.5, "200, 300 and 3 times the mean")
}

// One update at most doubles or halves a weight, but for the first.
func TestLoadWeighted_ClampsUpdates(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		name string
		a    LoadWeighted
		to   float64         // the weight that is reported after 100
		at   []time.Duration // of the updates
		want []float64
	}{
		{"up", LoadWeighted{}, 1000, []time.Duration{s, 2 * s, 3 * s, 4 * s, 5 * s}, []float64{200, 400, 800, 1000, 1000}},
		{"down", LoadWeighted{}, 30, []time.Duration{s, 2 * s, 3 * s}, []float64{50, 30, 30}},
		{"a change of less", LoadWeighted{}, 150, []time.Duration{s, 2 * s}, []float64{150, 150}},
		{"many updates in an interval do not add up", LoadWeighted{}, 1000, []time.Duration{s / 4, s / 2, s / 2, s * 3 / 4, s}, []float64{119, 141, 141, 168, 200}},
		{"after a pause", LoadWeighted{}, 1000, []time.Duration{10 * s}, []float64{1000}},
		{"after a long one", LoadWeighted{UpdateInterval: s / 10}, 1000, []time.Duration{170 * s}, []float64{1000}},
		{"other interval", LoadWeighted{UpdateInterval: 4 * s}, 1000, []time.Duration{4 * s, 8 * s}, []float64{200, 400}},
		{"a clock that goes back", LoadWeighted{}, 1000, []time.Duration{-s, 0}, []float64{100, 200}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.a.Blackout = -1
			build, c := loadWeighted(t, row.a, 1)
			state := c[0].observer.(*loadState)
			weighs(c[0], 0, 100)
			build(0)
			require.InDelta(t, 100, state.used, 1e-6, "the first is not clamped")
			weighs(c[0], 0, row.to)
			for i, at := range row.at {
				build(at)
				assert.InDelta(t, row.want[i], state.used, 0.5, "update %d, at %v", i, at)
			}
		})
	}
}

func TestLoadWeighted_FirstAfterExpiryIsNotClamped(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{Blackout: -1, Expiry: time.Second}, 1)
	weighs(c[0], 0, 100)
	build(0)
	build(time.Second)
	weighs(c[0], time.Second, 5000)
	build(time.Second)
	assert.InDelta(t, 5000, c[0].observer.(*loadState).used, 1e-3)
}

func TestLoadWeighted_FailedResponsesDoNotCount(t *testing.T) {
	for class := outcome.Unknown; class <= outcome.Superseded; class++ {
		_, c := loadWeighted(t, LoadWeighted{Blackout: -1}, 1)
		answeredWith(c[0], 0, class, "TEXT cpu_utilization=0.5,rps_fractional=100")
		state := c[0].observer.(*loadState)
		counts := class == outcome.Success || class == outcome.ClientError
		assert.Equal(t, counts, state.known(state.shared.at(epoch)) != 0, class)
	}
}

// hostile are headers that no report can be read from.
var hostile = map[string][]string{
	"empty":            {""},
	"no encoding":      {"cpu_utilization=0.9,rps_fractional=9"},
	"unknown encoding": {"XML <cpu_utilization>0.9</cpu_utilization>"},
	"encoding alone":   {"BIN !"},
	"not a number":     {"TEXT cpu_utilization=NaN,rps_fractional=9,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"infinite":         {"TEXT cpu_utilization=0.9,rps_fractional=Inf,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"out of range":     {"TEXT cpu_utilization=0.9,rps_fractional=1e999,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"negative":         {"TEXT cpu_utilization=0.9,rps_fractional=-9,named_metrics.rif=-1,named_metrics.latency_ms=1"},
	"hexadecimal":      {"TEXT cpu_utilization=0x1p-2,rps_fractional=9,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"words":            {"TEXT cpu_utilization=busy,rps_fractional=9,named_metrics.rif=many,named_metrics.latency_ms=1"},
	"without a value":  {"TEXT cpu_utilization,rps_fractional=9,named_metrics.rif,named_metrics.latency_ms=1"},
	"without a name":   {"TEXT =0.9,rps_fractional=9,named_metrics.=1,named_metrics.latency_ms=1"},
	"named twice":      {"TEXT cpu_utilization=0.9,cpu_utilization=0.1,rps_fractional=9,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"control bytes":    {"TEXT cpu_\x00utilization=0.9,rps_fractional=9,named_metrics.rif=1,named_metrics.latency_ms=1"},
	"too long":         {"TEXT cpu_utilization=0.9,rps_fractional=9,named_metrics.rif=1,named_metrics.latency_ms=1" + strings.Repeat(" ", 5000)},
	"too many":         {"TEXT cpu_utilization=0.9,rps_fractional=9" + manyMetrics(200)},
	"broken JSON":      {`JSON {"cpu_utilization":0.9,"rps_fractional":9`},
	"JSON of a string": {`JSON {"cpu_utilization":"x","rps_fractional":9}`},
	"nested JSON":      {"JSON " + strings.Repeat("[", 3000)},
	"broken base64":    {"BIN CQAA$$"},
	"broken protobuf":  {"BIN /////w=="},
	"two of them":      {"TEXT cpu_utilization=0.9,rps_fractional=9", "TEXT cpu_utilization=0.9,rps_fractional=9"},
}

func manyMetrics(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",named_metrics.m%d=1", i)
	}
	return b.String()
}

func TestLoadWeighted_HostileReportsChangeNothing(t *testing.T) {
	_, c := loadWeighted(t, LoadWeighted{}, 1)
	state := c[0].observer.(*loadState)
	weighs(c[0], 0, 100)
	before, began, rejected := state.latest.Load(), state.began.Load(), uint64(0)
	for name, values := range hostile {
		answeredWith(c[0], 5*time.Second, outcome.Success, values...)
		rejected++
		assert.Equal(t, before, state.latest.Load(), name)
		assert.Equal(t, began, state.began.Load(), name)
		assert.Equal(t, rejected, state.shared.RejectedReports(), "%s: it is counted", name)
	}
	answeredWith(c[0], 5*time.Second, outcome.Success)
	assert.Equal(t, rejected, state.shared.RejectedReports(), "no report is not a bad one")
}

// A new schedule goes on where the one before was: with the same weights, picks
// are the same however often it is built.
func TestLoadWeighted_KeepsTheTurn(t *testing.T) {
	for _, weights := range [][]float64{{100, 100, 100}, {100, 200, 500}} {
		sequence := func(every int) (picks []int) {
			build, c := loadWeighted(t, LoadWeighted{Blackout: -1}, 1, 1, 1)
			for i, w := range weights {
				weighs(c[i], 0, w)
			}
			p := build(0)
			for k := range 300 {
				if k%every == 0 {
					p = build(0)
				}
				picks = append(picks, p.Pick(Info{}))
			}
			return picks
		}
		assert.Equal(t, sequence(1000), sequence(1), "weights %v", weights)
		assert.Equal(t, sequence(1000), sequence(7), "weights %v", weights)
	}
}

// Given settings that change, then what is known stays, as old as it was.
func TestLoadWeighted_NewSettingsKeepWhatIsKnown(t *testing.T) {
	_, c := loadWeighted(t, LoadWeighted{}, 1)
	old := c[0].observer.(*loadState)
	weighs(c[0], 0, 100)
	const week = 7 * 24 * time.Hour // ticks have wrapped
	old.known(old.shared.at(epoch.Add(3 * time.Minute)))
	weighs(c[0], week, 200)
	start := week + 4*time.Second
	b, err := LoadWeighted{}.NewBuilder(Env{Rand: seeded(t, 1), Now: epoch.Add(start)})
	require.NoError(t, err)
	next := b.Observer(c[0].Endpoint(), old).(*loadState)
	known := func(at time.Duration) float64 { return next.known(next.shared.at(epoch.Add(at))) }
	assert.Zero(t, known(week+10*time.Second-1), "blackout goes on")
	assert.InDelta(t, 200, known(week+10*time.Second), 1e-6)
	assert.InDelta(t, 200, known(week+3*time.Minute-1), 1e-6)
	assert.Zero(t, known(week+3*time.Minute))
}

func TestLoadWeighted_Concurrently(t *testing.T) {
	build, c := loadWeighted(t, LoadWeighted{Blackout: -1, UpdateInterval: 100 * time.Millisecond}, 1, 1, 1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for k := range 2000 {
				weighs(c[k%3], time.Duration(k)*time.Millisecond, float64(100+k%2*100))
			}
		})
	}
	for k := range 100 {
		p := build(time.Duration(k) * 20 * time.Millisecond)
		for i := range c {
			used := c[i].observer.(*loadState).used
			assert.True(t, used == 0 || used >= 100 && used <= 200, "%v is between what was reported", used)
		}
		wg.Go(func() { counts(p, 3, 100) })
	}
	wg.Wait()
}

func TestLoadWeighted_Settings(t *testing.T) {
	assert.NoError(t, Validate(LoadWeighted{}))
	assert.NoError(t, Validate(LoadWeighted{
		Metrics: []string{"named_metrics.queue", "utilization.disk", "mem_utilization"}, ErrorPenalty: -1,
		Blackout: -1, Expiry: time.Second, UpdateInterval: 100 * time.Millisecond,
	}))
	err := Validate(LoadWeighted{
		Metrics: []string{"named_metrics.queue", "queue", "named_metrics.", ""}, ErrorPenalty: math.NaN(),
		Blackout: 25 * time.Hour, Expiry: -1, UpdateInterval: 99 * time.Millisecond,
	})
	for _, name := range []string{"Metrics[1]:", "Metrics[2]:", "Metrics[3]:", "ErrorPenalty:", "Blackout:", "Expiry:", "UpdateInterval:"} {
		assert.ErrorContains(t, err, name)
	}
	assert.NotContains(t, err.Error(), "Metrics[0]")
	for _, penalty := range []float64{math.Inf(1), math.Inf(-1)} {
		assert.ErrorContains(t, Validate(LoadWeighted{ErrorPenalty: penalty}), "ErrorPenalty:")
	}
	assert.ErrorContains(t, Validate(LoadWeighted{UpdateInterval: -1}), "UpdateInterval:")
	assert.ErrorContains(t, Validate(LoadWeighted{Expiry: 25 * time.Hour}), "Expiry:")

	for a, want := range map[*LoadWeighted]time.Duration{{}: time.Second, {UpdateInterval: 5 * time.Second}: 5 * time.Second} {
		b, err := a.NewBuilder(Env{})
		require.NoError(t, err)
		assert.Equal(t, want, b.(Refresher).RefreshInterval())
	}
}

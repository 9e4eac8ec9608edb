//go:build !race

package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// To tell of an answer allocates nothing, whatever it was and whatever is counted.
func TestAlloc_Answered(t *testing.T) {
	for _, row := range []struct {
		name string
		o    Outlier
	}{
		{"by default", Outlier{}},
		{"all of it", Outlier{SlowerBy: 3, FailureRate: 0.5, GatewayFailures: 1 << 20}},
		{"shadow", Outlier{Shadow: true, SlowerBy: 3}},
		{"disabled", Outlier{Disabled: true}},
	} {
		for name, a := range map[string]outcome.Answer{
			"success": ok200, "client error": not404, "failure": err500, "gateway": err502, "busy": busy503, "429": busy429,
			"no answer": lostIt, "no connection": noDial, "cancelled": gaveUp,
		} {
			a.Took = 10 * time.Millisecond
			o := row.o
			if a.Class.Bad() || a.Status == 503 {
				o.ConsecutiveFailures, o.LocalFailures = 1<<20, 1<<20
			}
			w := newWard(t, Config{Outlier: o}, "a", "b")
			w.fake.Advance(time.Second)
			e := w.members["a"]
			e.Answered(a) // wakes the sweeps
			a.Now = w.fake.Now()
			assert.Zero(t, testing.AllocsPerRun(1000, func() { e.Answered(a) }), "%s, %s", row.name, name)
			assert.Zero(t, testing.AllocsPerRun(1000, func() {
				e.watch.Answered(ok200)
				e.watch.Broke(ok200)
				e.watch.Answered(ok200)
				e.watch.Whole()
				e.Available()
			}), "%s, %s", row.name, name)
		}
		system := newMonitor(t, Config{Outlier: row.o}) // whose time is read in another way
		w := &ward{TB: t, Monitor: system, members: map[string]*Member{}}
		w.join("a")
		assert.Zero(t, testing.AllocsPerRun(1000, func() { w.members["a"].Answered(ok200) }), row.name)
	}
}

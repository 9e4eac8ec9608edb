//go:build !race

package breaker

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// Asking a throttle and telling it how the call went allocates nothing, whatever comes of it.
func TestAlloc_Throttle(t *testing.T) {
	for _, row := range []struct {
		name string
		roll float64
		o    outcome.Outcome
	}{
		{"success", rollMost, outcome.Outcome{Class: outcome.Success}},
		{"failure", rollMost, outcome.Outcome{Class: outcome.Failure}},
		{"canceled", rollMost, outcome.Outcome{Class: outcome.Canceled}},
		{"refused", rollLeast, outcome.Outcome{Class: outcome.Failure}},
	} {
		throttle, _, source := newTestThrottle(t, ThrottleConfig{})
		throttle.ended(t, 100, overloaded)
		source.roll = row.roll
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			permit, err := throttle.Allow()
			if err == nil {
				permit.Done(row.o)
			}
		}), row.name)
		assert.Zero(t, testing.AllocsPerRun(1000, func() { _ = throttle.Status() }))
	}
}

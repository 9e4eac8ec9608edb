//go:build !race

package balancer

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A pick with its answer and its end allocates nothing, the parsing of the report
// included.
func TestAlloc_Reported(t *testing.T) {
	headers := loadReports()
	for _, a := range reportedAlgorithms {
		for _, weighted := range []bool{false, true} {
			endpoints := manyEndpoints(1000)
			if weighted {
				for i := range endpoints {
					endpoints[i].Weight = float64(1 + i%7)
				}
			}
			p, k := testPool(t, Config{Algorithm: a.algorithm}, endpoints...), 0
			once := func() {
				reportOnce(p, headers[k%len(headers)])
				k++
			}
			assert.Zero(t, testing.AllocsPerRun(1000, once), "%s weighted=%v", a.name, weighted)
			p.refreshSnapshot()
			assert.Zero(t, testing.AllocsPerRun(1000, once), "%s weighted=%v, with a schedule", a.name, weighted)
		}
	}
}

//go:build !race

package balancer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A pick with its report and its end allocates nothing.
func TestAlloc_Pick(t *testing.T) {
	for _, a := range benchAlgorithms {
		for _, weighted := range []bool{false, true} {
			endpoints := manyEndpoints(1000)
			if weighted {
				for i := range endpoints {
					endpoints[i].Weight = float64(1 + i%7)
				}
			}
			p := testPool(t, Config{Algorithm: a.algorithm}, endpoints...)
			name := fmt.Sprintf("%s weighted=%v", a.name, weighted)
			assert.Zero(t, testing.AllocsPerRun(1000, func() { pickOnce(p, a.timed) }), name)
		}
	}
}

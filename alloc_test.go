//go:build !race

package evenkeel_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The budget of the full stack: what it allocates on top of the transport below.
const allocBudget = 6

func TestAlloc_FullStack(t *testing.T) {
	req := getRequest(t, "http://users/")
	header := http.Header{}
	bare := testing.AllocsPerRun(1000, func() { roundTrip(stub{header}, req) })
	for _, n := range []int{1, 3, 1000} {
		tr := stubbed(t, n)
		stack := testing.AllocsPerRun(1000, func() { roundTrip(tr, req) })
		t.Logf("%d endpoints: %v allocations per call, %v without", n, stack, bare)
		assert.LessOrEqual(t, stack-bare, float64(allocBudget), "%d endpoints", n)
	}
}

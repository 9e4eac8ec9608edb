//go:build !race

package orca

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A client reads a report with each response: the text form allocates nothing,
// also with metrics that are not known.
func TestAlloc_Parse(t *testing.T) {
	p := Parser{Utilization: []string{"named_metrics.queue", "utilization.disk"}}
	for _, value := range []string{
		exampleText,
		exampleText + ", named_metrics.queue:0.4 , utilization.disk:0.1,future=3",
	} {
		header := http.Header{Header: {value}}
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, err := p.ParseHeader(header); err != nil {
				panic(err)
			}
		}), value)
	}
}

func TestAlloc_Append(t *testing.T) {
	buf := make([]byte, 0, 512)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { buf = exampleReport.Append(buf[:0]) }))
}

// What the measured handler allocates on top of the bare one, while it drains
// and while it does not.
func TestAlloc_Handler(t *testing.T) {
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	w, req := &nullWriter{header: http.Header{}}, httptest.NewRequest(http.MethodGet, "/", nil)
	base := testing.AllocsPerRun(1000, func() { bare.ServeHTTP(w, req) })
	h, err := NewHandler(bare, Config{Limit: 10, CPU: func() float64 { return 0.5 }})
	assert.NoError(t, err)
	for _, draining := range []bool{false, true} {
		h.SetDraining(draining)
		got := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, req) }) - base
		t.Logf("draining %v: %v allocations per request", draining, got)
		assert.LessOrEqual(t, got, 3.0, "draining %v", draining)
	}
}

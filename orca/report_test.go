package orca

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReport_String(t *testing.T) {
	full := Report{
		Fields: CPU | Memory | Application | RPS | EPS | InFlight | Latency | Draining | Named,
		CPU:    0.7, Memory: 0.25, Application: 1.5, RPS: 1000.5, EPS: 2, InFlight: 12,
		Latency: 8300 * time.Microsecond, Draining: true, Named: 0.9,
	}
	for _, row := range []struct {
		name   string
		report Report
		want   string
	}{
		{"nothing", Report{}, "TEXT "},
		{"all but Named", full, "TEXT cpu_utilization=0.7,mem_utilization=0.25,application_utilization=1.5," +
			"rps_fractional=1000.5,eps=2,named_metrics.rif=12,named_metrics.latency_ms=8.3,named_metrics.draining=1"},
		{"zero is not nothing", Report{Fields: CPU | Draining}, "TEXT cpu_utilization=0,named_metrics.draining=0"},
		{"only what Fields says", Report{Fields: EPS, CPU: 1, EPS: 3}, "TEXT eps=3"},
		{"exponents", Report{Fields: RPS | EPS, RPS: 1e300, EPS: 1e-300}, "TEXT rps_fractional=1e+300,eps=1e-300"},
		{"nanoseconds", Report{Fields: Latency, Latency: 1}, "TEXT named_metrics.latency_ms=1e-06"},
		{"not a number", Report{Fields: CPU | EPS, CPU: math.NaN(), EPS: 1}, "TEXT eps=1"},
		{"infinite", Report{Fields: CPU | EPS, CPU: 1, EPS: math.Inf(1)}, "TEXT cpu_utilization=1"},
		{"negative", Report{Fields: CPU | Latency, CPU: -1, Latency: -1}, "TEXT "},
		{"too large", Report{Fields: Memory | Latency, Memory: 1.1, Latency: 24 * time.Hour}, "TEXT "},
	} {
		assert.Equal(t, row.want, row.report.String(), row.name)
	}
}

func TestReport_AppendKeepsTheBuffer(t *testing.T) {
	assert.Equal(t, "X: TEXT eps=1", string(Report{Fields: EPS, EPS: 1}.Append([]byte("X: "))))
}

func TestReport_Has(t *testing.T) {
	r := Report{Fields: CPU | EPS}
	assert.True(t, r.Has(CPU))
	assert.True(t, r.Has(CPU|EPS))
	assert.False(t, r.Has(CPU|RPS), "all of them")
	assert.False(t, Report{}.Has(CPU))
}

// Up to its limit, a latency is the same to the nanosecond after it was sent.
func TestReport_LatencyKeepsItsNanoseconds(t *testing.T) {
	for d := time.Duration(1); d < 24*time.Hour; d += d/97 + 1 {
		got, err := Parser{}.Parse(Report{Fields: Latency, Latency: d}.String())
		assert.NoError(t, err)
		assert.Equal(t, d, got.Latency)
	}
}

package orca

import (
	"encoding/base64"
	"errors"
	"math"
	"testing"
	"time"
)

// Whatever a server sends, reading it ends without a panic; what is accepted
// keeps the bounds, and says the same after it was written and read again.
func FuzzParse(f *testing.F) {
	for _, value := range []string{
		exampleText,
		"TEXT cpu_utilization:2, mem_utilization:1,,named_metrics.draining=0, rps=3",
		"TEXT named_metrics.queue=0.4,utilization.disk=1,future=1e300",
		"TEXT named_metrics.latency_ms=86399999.999999,named_metrics.rif=1e-320",
		"TEXT eps=-0,eps=1",
		`JSON {"cpuUtilization":0.7,"rps":"9","named_metrics":{"rif":12,"queue":null},"future":[{"a":1}]}`,
		`JSON {"eps":"Infinity"}`,
		bin(exampleBinary),
		bin(join(tag(3, 0, 9), entry(8, "queue", 0.4), entry(5, "disk", 1), tag(15, 2, 1, 'x'))),
		bin(entry(8, "latency_ms", math.MaxFloat64)),
		"BIN " + base64.RawStdEncoding.EncodeToString(double(9, 0.5)),
		"", "TEXT", "eps=1", "BAD x",
	} {
		f.Add(value)
	}
	p := Parser{Utilization: []string{"named_metrics.queue", "utilization.disk"}}
	f.Fuzz(func(t *testing.T, value string) {
		r, err := p.Parse(value)
		if err != nil {
			checkError(t, r, err)
			return
		}
		for _, v := range []float64{r.CPU, r.Memory, r.Application, r.RPS, r.EPS, r.InFlight, r.Named} {
			if !(v >= 0) || math.IsInf(v, 0) || math.Signbit(v) {
				t.Fatalf("%v in %+v", v, r)
			}
		}
		if r.Memory > 1 || r.Latency < 0 || r.Latency > 24*time.Hour || len(value) > 4096 {
			t.Fatalf("out of bounds: %+v", r)
		}
		again, err := p.Parse(r.String())
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		r.Fields &^= Named
		r.Named = 0
		if again != r {
			t.Fatalf("wrote %+v, read %+v", r, again)
		}
	})
}

func checkError(t *testing.T, r Report, err error) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Problem == "" {
		t.Fatalf("untyped: %v", err)
	}
	if len(syntax.Near) > 32 || len(err.Error()) > 200 {
		t.Fatalf("too long: %v", err)
	}
	if r != (Report{}) {
		t.Fatalf("half a report: %+v", r)
	}
}

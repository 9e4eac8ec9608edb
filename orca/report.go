package orca

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Header is the response header, or trailer, that carries a report.
const Header = "Endpoint-Load-Metrics"

// headerBin is the form in which gRPC first sent it: protobuf without a prefix.
const headerBin = "Endpoint-Load-Metrics-Bin"

// Report is what a server says of its load. Which of the metrics it holds is in
// Fields: one that was not reported is zero, and so may be one that was. The
// zero Report says nothing.
//
// It is a plain value. Its metrics are those that weights (gRFC A58) and probes
// (Prequal) are computed from; others are read with [Parser].
type Report struct {
	// Fields is the set of the metrics that were reported.
	Fields Fields

	// CPU is the share of the processor in use. It exceeds 1 on a server that
	// uses more than its soft limit.
	CPU float64

	// Memory is the share of the memory in use, from 0 to 1.
	Memory float64

	// Application is how busy the server is in its own measure, and may exceed
	// 1. Where it is reported it says more than CPU.
	Application float64

	// RPS is how many requests the server answers per second.
	RPS float64

	// EPS is how many of them fail per second.
	EPS float64

	// InFlight is how many requests the server works on, from named_metrics.rif.
	InFlight float64

	// Latency is how long such requests take that came when the server was as
	// busy as it is now, from named_metrics.latency_ms. It is less than a day.
	Latency time.Duration

	// Draining is true if the server is about to leave and wants nothing new,
	// from named_metrics.draining.
	Draining bool

	// Named is the maximum over the metrics that [Parser] was told to look
	// for. It is not part of what a report is written as.
	Named float64
}

// Fields is a set of metrics.
type Fields uint16

// The metrics of a [Report], named as its fields are.
const (
	CPU Fields = 1 << iota
	Memory
	Application
	RPS
	EPS
	InFlight
	Latency
	Draining
	Named
)

// keys are the names of the metrics in the text form, in the order of their
// bits. Named has none.
var keys = [...]string{
	"cpu_utilization",
	"mem_utilization",
	"application_utilization",
	"rps_fractional",
	"eps",
	"named_metrics.rif",
	"named_metrics.latency_ms",
	"named_metrics.draining",
}

// fieldOf returns the metric of that name, or zero.
func fieldOf(key string) Fields {
	if i := slices.Index(keys[:], key); i >= 0 {
		return 1 << i
	}
	return 0
}

// Has reports whether all metrics of the set were reported.
func (r Report) Has(f Fields) bool { return r.Fields&f == f }

// Append appends the report in its text form, the value of [Header], and
// returns the extended buffer. What [Parser.Parse] would refuse, such as a
// negative number, is left out, so that one bad metric does not cost the others.
func (r Report) Append(b []byte) []byte {
	b = append(b, "TEXT "...)
	first := true
	for i, key := range keys {
		f := Fields(1) << i
		v := r.metric(f)
		if !r.Has(f) || problem(f, key, v) != "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, key...)
		b = append(b, '=')
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	return b
}

// String returns the report in its text form, as [Report.Append] does.
func (r Report) String() string { return string(r.Append(nil)) }

// metric returns a metric as the number that it is on the wire.
func (r *Report) metric(f Fields) float64 {
	switch f {
	case CPU:
		return r.CPU
	case Memory:
		return r.Memory
	case Application:
		return r.Application
	case RPS:
		return r.RPS
	case EPS:
		return r.EPS
	case InFlight:
		return r.InFlight
	case Latency:
		return float64(r.Latency) / float64(time.Millisecond)
	case Draining:
		if r.Draining {
			return 1
		}
		return 0
	case Named:
		return r.Named
	}
	return 0
}

// set takes a metric from the number that it is on the wire.
func (r *Report) set(f Fields, v float64) {
	r.Fields |= f
	switch f {
	case CPU:
		r.CPU = v
	case Memory:
		r.Memory = v
	case Application:
		r.Application = v
	case RPS:
		r.RPS = v
	case EPS:
		r.EPS = v
	case InFlight:
		r.InFlight = v
	case Latency:
		r.Latency = time.Duration(math.Round(v * float64(time.Millisecond)))
	case Draining:
		r.Draining = v != 0
	case Named:
		r.Named = v
	}
}

// The groups of metrics whose names the server chooses.
const (
	groupCost        = "request_cost."
	groupUtilization = "utilization."
	groupNamed       = "named_metrics."
)

// maxLatency, in milliseconds, keeps a latency where a float64 of milliseconds
// tells every nanosecond from the next.
const maxLatency = float64(24*time.Hour) / float64(time.Millisecond)

// problem says what is wrong with the value of a metric, or returns "". The
// bounds are those that the definition of OrcaLoadReport (cncf/xds) gives; that
// named metrics and costs must not be negative either is ours.
func problem(f Fields, key string, v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "must be finite"
	case v < 0:
		return "must not be negative"
	case v > 1 && (f == Memory || strings.HasPrefix(key, groupUtilization)):
		return "must not exceed 1"
	case v >= maxLatency && f == Latency:
		return "must be less than a day"
	}
	return ""
}

package orca

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One report, in every encoding.
var (
	exampleReport = Report{
		Fields: CPU | Application | RPS | EPS | InFlight | Latency,
		CPU:    0.7, Application: 0.8, RPS: 1000, EPS: 2, InFlight: 12, Latency: 8300 * time.Microsecond,
	}
	exampleText = "TEXT cpu_utilization=0.7,application_utilization=0.8,rps_fractional=1000,eps=2," +
		"named_metrics.rif=12,named_metrics.latency_ms=8.3"
	exampleBinary = join(double(1, 0.7), double(9, 0.8), double(6, 1000), double(7, 2),
		entry(8, "rif", 12), entry(8, "latency_ms", 8.3))
)

func TestParse_Text(t *testing.T) {
	for _, row := range []struct {
		name, value string
		want        Report
	}{
		{"example", exampleText, exampleReport},
		{"colons of older senders", strings.ReplaceAll(exampleText, "=", ":"), exampleReport},
		{"spaces and tabs", "TEXT  eps = 1 ,\tcpu_utilization: 0.5 ", Report{Fields: EPS | CPU, EPS: 1, CPU: 0.5}},
		{"a colon in a name", "TEXT named_metrics.vllm:cache=0.4,eps=1", Report{Fields: EPS, EPS: 1}},
		{"empty items", "TEXT ,eps=1,,", Report{Fields: EPS, EPS: 1}},
		{"nothing", "TEXT ", Report{}},
		{"nothing, as net/http trims it", "TEXT", Report{}},
		{"zero", "TEXT eps=0", Report{Fields: EPS}},
		{"minus zero", "TEXT eps=-0", Report{Fields: EPS}},
		{"exponent", "TEXT eps=1.5e+2", Report{Fields: EPS, EPS: 150}},
		{"too small for a double", "TEXT eps=1e-999", Report{Fields: EPS}},
		{"above 1 where it may be", "TEXT cpu_utilization=2,application_utilization=3,named_metrics.x=4,request_cost.x=5", Report{Fields: CPU | Application, CPU: 2, Application: 3}},
		{"memory", "TEXT mem_utilization=1", Report{Fields: Memory, Memory: 1}},
		{"draining", "TEXT named_metrics.draining=1", Report{Fields: Draining, Draining: true}},
		{"not draining", "TEXT named_metrics.draining=0", Report{Fields: Draining}},
		{"unknown", "TEXT future=7,named_metrics.foo=1,utilization.disk=1,eps=1", Report{Fields: EPS, EPS: 1}},
		{"the deprecated rate", "TEXT rps=9", Report{Fields: RPS, RPS: 9}},
		{"the better rate, after", "TEXT rps=9,rps_fractional=8.5", Report{Fields: RPS, RPS: 8.5}},
		{"the better rate, before", "TEXT rps_fractional=8.5,rps=9", Report{Fields: RPS, RPS: 8.5}},
		{"one name in two groups", "TEXT named_metrics.a=1,utilization.a=1,request_cost.a=1", Report{}},
		{"longest latency", "TEXT named_metrics.latency_ms=86399999.999999", Report{Fields: Latency, Latency: 24*time.Hour - 1}},
	} {
		got, err := Parser{}.Parse(row.value)
		assert.NoError(t, err, row.name)
		assert.Equal(t, row.want, got, row.name)
		assert.False(t, math.Signbit(got.EPS), row.name)
	}
}

func TestParse_JSON(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       Report
	}{
		{"names of the definition", `{"cpu_utilization":0.7,"application_utilization":0.8,"rps_fractional":1e3,"eps":2,"named_metrics":{"rif":12,"latency_ms":8.3}}`, exampleReport},
		{"names of JSON", `{"cpuUtilization":0.7,"applicationUtilization":0.8,"rpsFractional":1000,"eps":2,"namedMetrics":{"rif":12,"latency_ms":8.3}}`, exampleReport},
		{"spaces", " {\t\"eps\" : 1 , \"memUtilization\" : 0.5 } ", Report{Fields: EPS | Memory, EPS: 1, Memory: 0.5}},
		{"numbers as strings", `{"rps":"9","eps":"1.5"}`, Report{Fields: RPS | EPS, RPS: 9, EPS: 1.5}},
		{"null is nothing", `{"eps":null,"named_metrics":null,"cpu_utilization":1}`, Report{Fields: CPU, CPU: 1}},
		{"empty", `{}`, Report{}},
		{"unknown", `{"future":{"a":[1,{"b":null}]},"more":"text","less":-1,"eps":1}`, Report{Fields: EPS, EPS: 1}},
		{"a dotted name is no group", `{"named_metrics.rif":3,"eps":1}`, Report{Fields: EPS, EPS: 1}},
		{"other groups", `{"request_cost":{"x":5},"requestCost2":{},"utilization":{"x":1}}`, Report{}},
	} {
		got, err := Parser{}.Parse("JSON " + row.text)
		assert.NoError(t, err, row.name)
		assert.Equal(t, row.want, got, row.name)
	}
}

func TestParse_Binary(t *testing.T) {
	for _, row := range []struct {
		name    string
		message []byte
		want    Report
	}{
		{"example", exampleBinary, exampleReport},
		{"empty", nil, Report{}},
		{"memory", double(2, 0.5), Report{Fields: Memory, Memory: 0.5}},
		{"the deprecated rate", tag(3, 0, 0xac, 0x02), Report{Fields: RPS, RPS: 300}},
		{"the better rate", join(double(6, 8.5), tag(3, 0, 9)), Report{Fields: RPS, RPS: 8.5}},
		{"other groups", join(entry(4, "x", 5), entry(5, "x", 1), entry(8, "x", 5)), Report{}},
		{"unknown fields", join(tag(15, 0, 1), tag(15, 1, 1, 2, 3, 4, 5, 6, 7, 8), tag(15, 2, 1, 'x'), tag(15, 5, 1, 2, 3, 4), double(7, 1)), Report{Fields: EPS, EPS: 1}},
		{"a value that is left out is zero", tag(8, 2, 5, 0x0a, 3, 'r', 'i', 'f'), Report{Fields: InFlight}},
		{"an unknown field in an entry", tag(8, 2, 7, 0x0a, 3, 'r', 'i', 'f', 0x18, 1), Report{Fields: InFlight}},
	} {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			got, err := Parser{}.Parse("BIN " + encoding.EncodeToString(row.message))
			assert.NoError(t, err, row.name)
			assert.Equal(t, row.want, got, row.name)
		}
	}
}

// The bytes that grpc-go and Envoy send, as their documentation shows them.
func TestParse_BinaryOfOthers(t *testing.T) {
	p := Parser{Utilization: []string{"named_metrics.foo", "named_metrics.bar"}}
	got, err := p.Parse("BIN CZqZmZmZmbk/MQAAAAAAAABAQg4KA2ZvbxGamZmZmZm5P0IOCgNiYXIRmpmZmZmZyT8=")
	require.NoError(t, err)
	assert.Equal(t, Report{Fields: CPU | RPS | Named, CPU: 0.1, RPS: 2, Named: 0.2}, got)
}

func TestParse_Refuses(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, row := range []struct{ value, near, problem string }{
		// Encodings.
		{"", "", "is not an encoding of reports"},
		{"cpu_utilization=0.7", "cpu_utilization=0.7", "is not an encoding of reports"},
		{"text cpu_utilization=0.7", "text", "is not an encoding of reports"},
		{"TEXTcpu_utilization=0.7", "TEXTcpu_utilization=0.7", "is not an encoding of reports"},
		{"TEXT named_metrics." + long + "=1", "", "is longer than 4 KiB"},
		{"TEXT named_metrics." + long[:4000] + "=x", "named_metrics.xxxxxxxxxxxxxxxxxx", "has no number"},

		// Numbers, in every encoding.
		{"TEXT eps=NaN", "eps", "has no number"},
		{"TEXT eps=inf", "eps", "has no number"},
		{"TEXT eps=1e999", "eps", "has no number"},
		{"TEXT eps=0x1p4", "eps", "has no number"},
		{"TEXT eps=1_000", "eps", "has no number"},
		{"TEXT eps=", "eps", "has no number"},
		{"TEXT eps", "eps", "has no number"},
		{"TEXT eps=1=2", "eps", "has no number"},
		{`TEXT eps="1"`, "eps", "has no number"},
		{"TEXT eps=1;cpu_utilization=2", "eps", "has no number"},
		{"TEXT eps=-1", "eps", "must not be negative"},
		{"TEXT future=-1", "future", "must not be negative"},
		{"TEXT named_metrics.foo=-1e-9", "named_metrics.foo", "must not be negative"},
		{`JSON {"eps":"NaN"}`, "eps", "has no number"},
		{`JSON {"eps":"Infinity"}`, "eps", "has no number"},
		{`JSON {"eps":1e999}`, "eps", "has no number"},
		{`JSON {"eps":true}`, "eps", "has no number"},
		{`JSON {"eps":[1]}`, "eps", "has no number"},
		{`JSON {"eps":"1\u0030"}`, "eps", "has no number"},
		{`JSON {"named_metrics":{"a":-1}}`, "named_metrics.a", "must not be negative"},
		{bin(double(7, math.NaN())), "eps", "must be finite"},
		{bin(double(7, math.Inf(1))), "eps", "must be finite"},
		{bin(double(7, -1)), "eps", "must not be negative"},
		{bin(entry(8, "a", math.Inf(-1))), "named_metrics.a", "must be finite"},

		// Bounds.
		{"TEXT mem_utilization=1.01", "mem_utilization", "must not exceed 1"},
		{"TEXT utilization.disk=1.01", "utilization.disk", "must not exceed 1"},
		{"TEXT named_metrics.latency_ms=86400000", "named_metrics.latency_ms", "must be less than a day"},
		{`JSON {"memUtilization":2}`, "mem_utilization", "must not exceed 1"},
		{bin(entry(5, "disk", 2)), "utilization.disk", "must not exceed 1"},

		// Names.
		{"TEXT =1", "", "has a metric without a name"},
		{"TEXT  = 1", "", "has a metric without a name"},
		{"TEXT named_metrics.=1", "named_metrics.", "has a metric without a name"},
		{"TEXT utilization.=1", "utilization.", "has a metric without a name"},
		{"TEXT request_cost.=1", "request_cost.", "has a metric without a name"},
		{"TEXT e ps=1", "e ps", "is not a name"},
		{"TEXT e\x00ps=1", "e\x00ps", "is not a name"},
		{"TEXT e\x7fps=1", "e\x7fps", "is not a name"},
		{`JSON {"named_metrics":{"":1}}`, "named_metrics.", "has a metric without a name"},
		{bin(entry(8, "", 1)), "named_metrics.", "has a metric without a name"},
		{bin(tag(8, 2, 0)), "named_metrics.", "has a metric without a name"},

		// Duplicates.
		{"TEXT eps=1,eps=1", "eps", "is there twice"},
		{"TEXT eps=1,cpu_utilization=1,eps:1", "eps", "is there twice"},
		{"TEXT foo=1,foo=1", "foo", "is there twice"},
		{"TEXT rps=1,rps=1", "rps", "is there twice"},
		{"TEXT named_metrics.rif=1,named_metrics.rif=1", "named_metrics.rif", "is there twice"},
		{"TEXT named_metrics.a=1,named_metrics.b=1,named_metrics.a=1", "named_metrics.a", "is there twice"},
		{`JSON {"eps":1,"eps":2}`, "eps", "is there twice"},
		{`JSON {"cpuUtilization":1,"cpu_utilization":2}`, "cpu_utilization", "is there twice"},
		{`JSON {"named_metrics":{"a":1,"a":2}}`, "named_metrics.a", "is there twice"},
		{`JSON {"named_metrics":{"a":1},"namedMetrics":{"b":2}}`, "named_metrics", "is there twice"},
		{`JSON {"future":1,"future":{}}`, "future", "is there twice"},
		{bin(join(double(7, 1), double(7, 1))), "eps", "is there twice"},
		{bin(join(entry(8, "a", 1), entry(8, "a", 1))), "named_metrics.a", "is there twice"},
		{bin(join(tag(3, 0, 1), tag(3, 0, 1))), "rps", "is there twice"},

		// JSON that is none.
		{"JSON", "", "is not a JSON object"},
		{"JSON [1]", "", "is not a JSON object"},
		{"JSON null", "", "is not a JSON object"},
		{`JSON {"eps":1`, "", "is not a JSON object"},
		{`JSON {"eps":1]`, "", "is not a JSON object"},
		{`JSON {"eps":1,}`, "", "is not a JSON object"},
		{`JSON {"eps":01}`, "", "is not a JSON object"},
		{`JSON {"eps":1} {}`, "", "is not a JSON object"},
		{`JSON {"eps":1}x`, "", "is not a JSON object"},
		{`JSON {eps:1}`, "", "is not a JSON object"},
		{`JSON {"future":[}`, "", "is not a JSON object"},
		{`JSON {"named_metrics":3}`, "", "is not a JSON object"},
		{"JSON {\"named_metrics\":{\"\xff\":1}}", "", "is not a JSON object"},
		{"JSON " + strings.Repeat(`{"a":`, 800), "", "is not a JSON object"},

		// Protobuf that is none.
		{"BIN !", "", "is not base64"},
		{"BIN not-base64", "", "is not base64"},
		{"BIN CZqZmZmZmb", "", "is not base64"}, // bits are left over
		{bin(exampleBinary[:len(exampleBinary)-1]), "", "is not a protobuf message"},
		{bin(tag(1, 0, 1)), "", "is not a protobuf message"},
		{bin(tag(3, 1, 1, 2, 3, 4, 5, 6, 7, 8)), "", "is not a protobuf message"},
		{bin(tag(8, 0, 1)), "", "is not a protobuf message"},
		{bin(tag(8, 2, 2, 0x08, 1)), "", "is not a protobuf message"},                                      // a key that is a number
		{bin(tag(8, 2, 3, 0x12, 1, 'x')), "", "is not a protobuf message"},                                 // a value that is a text
		{bin(entry(8, "\xff", 1)), "", "is not a protobuf message"},                                        // not UTF-8
		{bin(tag(15, 2, 200, 1)), "", "is not a protobuf message"},                                         // longer than what is there
		{bin(tag(15, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)), "", "is not a protobuf message"}, // 2^64-1
		{bin(tag(15, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)), "", "is not a protobuf message"},
		{bin(tag(15, 1, 1)), "", "is not a protobuf message"},
		{bin(tag(15, 5, 1)), "", "is not a protobuf message"},
		{bin(tag(15, 3)), "", "is not a protobuf message"}, // a group
		{bin(tag(15, 6)), "", "is not a protobuf message"},
		{bin(tag(0, 0, 1)), "", "is not a protobuf message"},
		{bin(tag(1<<29, 0, 1)), "", "is not a protobuf message"},
		{bin([]byte{0x80}), "", "is not a protobuf message"},
	} {
		got, err := Parser{}.Parse(row.value)
		var syntax *SyntaxError
		if assert.ErrorAs(t, err, &syntax, "%.100q", row.value) {
			assert.Equal(t, SyntaxError{truncate(row.near), row.problem}, *syntax, "%.100q", row.value)
		}
		assert.Zero(t, got, "%.100q", row.value)
	}
}

func TestParse_LimitsTheNumberOfMetrics(t *testing.T) {
	list := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ",x%d=1", i)
		}
		return "TEXT eps=1" + b.String()
	}
	got, err := Parser{}.Parse(list(64))
	require.NoError(t, err)
	assert.Equal(t, Report{Fields: EPS, EPS: 1}, got)
	_, err = Parser{}.Parse(list(65))
	assert.EqualError(t, err, "orca: the report has too many metrics")
}

// An error must not carry what a server sends into a log.
func TestSyntaxError_ShowsLittleOfWhatWasSent(t *testing.T) {
	_, err := Parser{}.Parse("TEXT " + strings.Repeat("\x1b", 4000) + "=1")
	assert.EqualError(t, err, `orca: "`+strings.Repeat(`\x1b`, 32)+`" is not a name`)
	_, err = Parser{}.Parse("BAD report")
	assert.EqualError(t, err, `orca: "BAD" is not an encoding of reports`)
}

func TestParse_Utilization(t *testing.T) {
	p := Parser{Utilization: []string{"named_metrics.queue", "utilization.disk", "mem_utilization", "named_metrics.rif"}}
	for _, row := range []struct {
		name, value string
		want        Report
	}{
		{"none of them", "TEXT named_metrics.other=9", Report{}},
		{"one", "TEXT named_metrics.other=9,named_metrics.queue=0.4", Report{Fields: Named, Named: 0.4}},
		{"the greatest, first", "TEXT named_metrics.queue=0.4,utilization.disk=0.3", Report{Fields: Named, Named: 0.4}},
		{"the greatest, last", "TEXT named_metrics.queue=0.2,utilization.disk=0.3", Report{Fields: Named, Named: 0.3}},
		{"zero is a report", "TEXT named_metrics.queue=0", Report{Fields: Named}},
		{"one with a field", "TEXT mem_utilization=0.5", Report{Fields: Memory | Named, Memory: 0.5, Named: 0.5}},
		{"the same name in another group", "TEXT utilization.queue=0.5,named_metrics.disk=0.5", Report{}},
		{"JSON", `JSON {"named_metrics":{"queue":0.4,"rif":3}}`, Report{Fields: InFlight | Named, InFlight: 3, Named: 3}},
		{"protobuf", bin(join(entry(5, "disk", 0.3), entry(8, "queue", 0.4))), Report{Fields: Named, Named: 0.4}},
	} {
		got, err := p.Parse(row.value)
		assert.NoError(t, err, row.name)
		assert.Equal(t, row.want, got, row.name)
	}
}

func TestParser_Validate(t *testing.T) {
	assert.NoError(t, Parser{}.Validate())
	assert.NoError(t, Parser{Utilization: []string{"cpu_utilization", "named_metrics.a.b", "utilization.x", "request_cost.x"}}.Validate())
	err := Parser{Utilization: []string{"named_metrics.queue", "queue", "named_metrics."}}.Validate()
	assert.EqualError(t, err,
		`Utilization[1]: must be a metric of ORCA, such as "named_metrics.queue" (got "queue")`+"\n"+
			`Utilization[2]: must be a metric of ORCA, such as "named_metrics.queue" (got "named_metrics.")`)
}

func TestParseHeader(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString(exampleBinary)
	long := strings.Repeat("A", 4097)
	for _, row := range []struct {
		name    string
		header  http.Header
		want    Report
		problem string
	}{
		{"no header", http.Header{"X": {"1"}}, Report{}, ""},
		{"nil", nil, Report{}, ""},
		{"text", http.Header{Header: {"TEXT eps=1"}}, Report{Fields: EPS, EPS: 1}, ""},
		{"the older one", http.Header{"Endpoint-Load-Metrics-Bin": {b64}}, exampleReport, ""},
		{"the older one first", http.Header{Header: {"TEXT eps=1"}, "Endpoint-Load-Metrics-Bin": {b64}}, exampleReport, ""},
		{"two", http.Header{Header: {"TEXT eps=1", "TEXT eps=1"}}, Report{}, "has more than one header"},
		{"two older ones", http.Header{"Endpoint-Load-Metrics-Bin": {b64, b64}}, Report{}, "has more than one header"},
		{"broken", http.Header{Header: {"eps=1"}}, Report{}, "is not an encoding of reports"},
		{"too long", http.Header{"Endpoint-Load-Metrics-Bin": {long}}, Report{}, "is longer than 4 KiB"},
	} {
		got, err := Parser{}.ParseHeader(row.header)
		assert.Equal(t, row.want, got, row.name)
		if row.problem == "" {
			assert.NoError(t, err, row.name)
			continue
		}
		var syntax *SyntaxError
		if assert.ErrorAs(t, err, &syntax, row.name) {
			assert.Equal(t, row.problem, syntax.Problem, row.name)
		}
	}
}

func TestHeader_IsCanonical(t *testing.T) {
	assert.Equal(t, Header, http.CanonicalHeaderKey("endpoint-load-metrics"))
	assert.Equal(t, headerBin, http.CanonicalHeaderKey("endpoint-load-metrics-bin"))
}

func truncate(s string) string { return s[:min(len(s), 32)] }

// What follows writes protobuf.

func bin(message []byte) string { return "BIN " + base64.StdEncoding.EncodeToString(message) }

func tag(number, wire uint64, rest ...byte) []byte {
	return append(binary.AppendUvarint(nil, number<<3|wire), rest...)
}

func double(number uint64, v float64) []byte {
	return binary.LittleEndian.AppendUint64(tag(number, 1), math.Float64bits(v))
}

func entry(number uint64, key string, v float64) []byte {
	m := append(tag(1, 2, byte(len(key))), key...)
	m = append(m, double(2, v)...)
	return append(tag(number, 2, byte(len(m))), m...)
}

func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

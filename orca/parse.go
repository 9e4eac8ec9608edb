package orca

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// maxLength is how long the value of a header may be.
const maxLength = 4 << 10

// maxOther is how many metrics a report may hold besides those of [Report].
// With it, no report costs more than a few thousand comparisons.
const maxOther = 64

// Parser reads reports. The zero value reads what [Report] has fields for. It
// is safe for concurrent use as long as Utilization is not changed.
type Parser struct {
	// Utilization are the metrics of which [Report.Named] is the maximum, by
	// their names in the text form: "named_metrics.queue". It is what the
	// weights of gRFC A58 take for the utilisation of a server that reports no
	// Application (metric_names_for_computing_utilization, gRFC A114). Empty
	// means none.
	Utilization []string
}

// Validate returns nil, or all that is wrong with the names in Utilization.
func (p Parser) Validate() error {
	var errs field.Errors
	for i, key := range p.Utilization {
		known := fieldOf(key) != 0
		for _, group := range [...]string{groupNamed, groupUtilization, groupCost} {
			known = known || strings.HasPrefix(key, group) && key != group
		}
		errs.Check(known, fmt.Sprintf("Utilization[%d]", i), key,
			`must be a metric of ORCA, such as "named_metrics.queue"`)
	}
	return errs.Err()
}

// SyntaxError says why a report was not accepted. All errors of this package's
// parser are of this type.
type SyntaxError struct {
	// Near is the metric, or the other piece of the report, that is at fault:
	// at most the first 32 bytes of it. It is what the server sent, so treat it
	// as hostile. It is empty if the report as a whole is.
	Near string

	// Problem says what is wrong with it, in words of this package only.
	Problem string
}

// Error implements error. What the server sent is quoted.
func (e *SyntaxError) Error() string {
	if e.Near == "" {
		return "orca: the report " + e.Problem
	}
	return "orca: " + strconv.Quote(e.Near) + " " + e.Problem
}

// maxNear is how much of what a server sent may be in an error.
const maxNear = 32

func syntaxError(near, problem string) error {
	return &SyntaxError{Near: near[:min(len(near), maxNear)], Problem: problem}
}

// ParseHeader reads the report of a response from its header or its trailer. If
// there is none, it returns the zero Report and no error. The older header
// endpoint-load-metrics-bin is read as well, and preferred, as Envoy does. A
// header that is there twice is an error.
func (p Parser) ParseHeader(h http.Header) (Report, error) {
	values, encoded := h[headerBin], true
	if len(values) == 0 {
		values, encoded = h[Header], false
	}
	switch {
	case len(values) == 0:
		return Report{}, nil
	case len(values) > 1:
		return Report{}, syntaxError("", "has more than one header")
	case encoded:
		return p.parse("BIN", values[0], len(values[0]))
	}
	return p.Parse(values[0])
}

// Parse reads the value of a header. It begins with the encoding: "TEXT " for
// pairs of key=value, or key:value from older senders, separated by commas;
// "JSON " for protobuf's JSON; "BIN " for protobuf in base64. Without one of
// these the value is not a report, as for Envoy.
//
// A report is taken as a whole or, with a [*SyntaxError], not at all: it must
// not exceed 4 KiB, name a metric twice or without a name, or hold a number that
// is negative, infinite or none; memory and utilization.* must not exceed 1.
// Metrics that the package does not know are checked and ignored, up to 64 of
// them. The text form is read without allocating.
func (p Parser) Parse(value string) (Report, error) {
	format, text, _ := strings.Cut(value, " ")
	return p.parse(format, text, len(value))
}

func (p Parser) parse(format, text string, length int) (Report, error) {
	if length > maxLength {
		return Report{}, syntaxError("", "is longer than 4 KiB")
	}
	c := collector{wanted: p.Utilization}
	var err error
	switch format {
	case "TEXT":
		err = c.text(text)
	case "JSON":
		err = c.json(text)
	case "BIN":
		err = c.binary(text)
	default:
		err = syntaxError(format, "is not an encoding of reports")
	}
	if err != nil {
		return Report{}, err
	}
	return c.finish(), nil
}

// collector takes the metrics of a report one by one, whatever its encoding.
type collector struct {
	report Report
	wanted []string
	rps    float64 // the deprecated integer
	hasRPS bool
	count  int
	seen   [maxOther]string // names without a field, an array so that it stays on the stack
}

// add takes a metric by its name in the text form.
func (c *collector) add(key string, v float64) error {
	switch key {
	case "", groupCost, groupUtilization, groupNamed:
		return syntaxError(key, "has a metric without a name")
	}
	f := fieldOf(key)
	if wrong := problem(f, key, v); wrong != "" {
		return syntaxError(key, wrong)
	}
	v = math.Abs(v) // of -0
	switch {
	case f == 0:
		if err := c.once(key); err != nil {
			return err
		}
	case c.report.Has(f):
		return syntaxError(key, "is there twice")
	default:
		c.report.set(f, v)
	}
	if key == "rps" {
		c.rps, c.hasRPS = v, true
	}
	if slices.Contains(c.wanted, key) {
		c.report.set(Named, max(c.report.Named, v))
	}
	return nil
}

// once notes a name that has no field, to find the same one again.
func (c *collector) once(key string) error {
	if slices.Contains(c.seen[:c.count], key) {
		return syntaxError(key, "is there twice")
	}
	if c.count == maxOther {
		return syntaxError("", "has too many metrics")
	}
	c.seen[c.count] = key
	c.count++
	return nil
}

// finish returns the report. The deprecated rps counts where the better one is
// missing.
func (c *collector) finish() Report {
	if c.hasRPS && !c.report.Has(RPS) {
		c.report.set(RPS, c.rps)
	}
	return c.report
}

// text reads a list of key=value. Empty items are skipped, as RFC 9110, section
// 5.6.1.2 wants it for lists in headers.
func (c *collector) text(list string) error {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if item = trim(item); item == "" {
			continue
		}
		key, value, found := strings.Cut(item, "=")
		if !found {
			key, value, _ = strings.Cut(item, ":")
		}
		key = trim(key)
		if !token(key) {
			return syntaxError(key, "is not a name")
		}
		v, ok := number(trim(value))
		if !ok {
			return syntaxError(key, "has no number")
		}
		if err := c.add(key, v); err != nil {
			return err
		}
	}
	return nil
}

// trim removes what a header may have around an item.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// token reports whether there are neither spaces nor control characters.
func token(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// number reads a decimal number. What else strconv takes, hexadecimal digits and
// names such as "inf", is none.
func number(s string) (float64, bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', c == '.', c == '-', c == '+', c == 'e', c == 'E':
		default:
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

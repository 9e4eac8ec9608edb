package health

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// fieldsOf returns the names of the fields that an error complains of.
func fieldsOf(t testing.TB, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var f *field.Error
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		require.ErrorAs(t, err, &f)
		return []string{f.Field}
	}
	var names []string
	for _, part := range joined.Unwrap() {
		require.ErrorAs(t, part, &f, "%v", part)
		names = append(names, f.Field)
	}
	return names
}

// Whatever is wrong is told by the name of its field, and nothing else is.
func TestCheckValidate_NamesTheField_P02(t *testing.T) {
	const tooLong = maxInterval + 1
	for _, row := range []struct {
		name  string
		check Check
		want  []string
	}{
		{"nothing", Check{}, nil},
		{"negative interval", Check{Interval: -time.Second}, []string{"Interval"}},
		{"tiny interval", Check{Interval: minInterval - 1}, []string{"Interval"}},
		{"huge interval", Check{Interval: tooLong}, []string{"Interval"}},
		{"least interval", Check{Interval: minInterval}, nil},
		{"longest interval", Check{Interval: maxInterval}, nil},
		{"negative timeout", Check{Timeout: -1}, []string{"Timeout"}},
		{"timeout longer than the default interval", Check{Timeout: 5*time.Second + 1}, []string{"Timeout"}},
		{"timeout as long", Check{Timeout: 5 * time.Second}, nil},
		{"timeout longer than the interval", Check{Interval: time.Second, Timeout: time.Second + 1}, []string{"Timeout"}},
		{"negative rise", Check{Rise: -1}, []string{"Rise"}},
		{"huge rise", Check{Rise: maxCount + 1}, []string{"Rise"}},
		{"negative fall", Check{Fall: -1}, []string{"Fall"}},
		{"huge fall", Check{Fall: math.MaxInt}, []string{"Fall"}},
		{"negative fast", Check{FastInterval: -1}, []string{"FastInterval"}},
		{"tiny fast", Check{FastInterval: time.Millisecond}, []string{"FastInterval"}},
		{"fast longer than the interval", Check{FastInterval: 6 * time.Second}, []string{"FastInterval"}},
		{"negative down", Check{DownInterval: -1}, []string{"DownInterval"}},
		{"tiny down", Check{DownInterval: 1}, []string{"DownInterval"}},
		{"huge down", Check{DownInterval: tooLong}, []string{"DownInterval"}},
		{"negative longest down", Check{MaxDownInterval: -1}, []string{"MaxDownInterval"}},
		{"longest down shorter than down", Check{DownInterval: 2 * time.Second, MaxDownInterval: 2*time.Second - 1}, []string{"MaxDownInterval"}},
		{"longest down shorter than the default", Check{MaxDownInterval: time.Second - 1}, []string{"MaxDownInterval"}},
		{"longest down as long", Check{MaxDownInterval: time.Second}, nil},
		{"idle off", Check{IdleInterval: Off}, nil},
		{"negative idle", Check{IdleInterval: -2}, []string{"IdleInterval"}},
		{"tiny idle", Check{IdleInterval: 1}, []string{"IdleInterval"}},
		{"short idle", Check{IdleInterval: time.Second}, nil},
		{"jitter off", Check{Jitter: Off}, nil},
		{"negative jitter", Check{Jitter: -0.1}, []string{"Jitter"}},
		{"all jitter", Check{Jitter: 1}, []string{"Jitter"}},
		{"almost all jitter", Check{Jitter: math.Nextafter(1, 0)}, nil},
		{"jitter NaN", Check{Jitter: math.NaN()}, []string{"Jitter"}},
		{"jitter without end", Check{Jitter: math.Inf(1)}, []string{"Jitter"}},
		{"negative hold", Check{HoldNew: -1}, []string{"HoldNew"}},
		{"huge hold", Check{HoldNew: tooLong}, []string{"HoldNew"}},
		{"negative concurrency", Check{MaxConcurrent: -1}, []string{"MaxConcurrent"}},
		{"huge concurrency", Check{MaxConcurrent: maxCount + 1}, []string{"MaxConcurrent"}},
		{"probe", Check{Probe: TCP{Port: -1}}, []string{"Probe.Port"}},
		{
			"all at once",
			Check{
				Interval: -1, Timeout: -1, Rise: -1, Fall: -1, FastInterval: -1, DownInterval: -1, MaxDownInterval: -1,
				IdleInterval: -2, Jitter: 2, HoldNew: -1, MaxConcurrent: -1, Probe: GRPC{Port: 65536, Service: "\xff"},
			},
			[]string{
				"Interval", "Timeout", "Rise", "Fall", "FastInterval", "DownInterval", "MaxDownInterval",
				"IdleInterval", "Jitter", "HoldNew", "MaxConcurrent", "Probe.Port", "Probe.Service",
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.ElementsMatch(t, row.want, fieldsOf(t, row.check.Validate()))
			set, err := newSettings(Config{Check: &row.check})
			if row.want == nil {
				require.NoError(t, err)
				return
			}
			assert.Nil(t, set)
			for _, name := range row.want {
				assert.ErrorContains(t, err, "Check."+name)
			}
		})
	}
}

func TestProbesValidate_NameTheField_P02(t *testing.T) {
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for _, row := range []struct {
		name  string
		probe Probe
		want  []string
	}{
		{"HTTP", HTTP{}, nil},
		{"all of it", HTTP{
			Method: "PURGE", Path: "/a%2Fb/?deep=1&b=%20", Host: "users.internal:8443", Port: 65535, Header: header("X-Token", "s3cret\tä"),
			Statuses: []Statuses{{100, 599}, {204, 204}}, BodyMatch: `^ok$`, Report: true, DrainOn404: true, HeedRetryAfter: true, NewConnections: true,
		}, nil},
		{"method", HTTP{Method: "G T"}, []string{"Method"}},
		{"method with a newline", HTTP{Method: "GET\r\nX: y"}, []string{"Method"}},
		{"path", HTTP{Path: "health"}, []string{"Path"}},
		{"a whole URL", HTTP{Path: "http://users/health"}, []string{"Path"}},
		{"path with a newline", HTTP{Path: "/a\r\nHost: b"}, []string{"Path"}},
		{"path with a bad escape", HTTP{Path: "/%zz"}, []string{"Path"}},
		{"query with a newline", HTTP{Path: "/health?a\nb"}, []string{"Path"}},
		{"path is *", HTTP{Path: "*"}, []string{"Path"}},
		{"host with a newline", HTTP{Host: "users\r\nX: y"}, []string{"Host"}},
		{"host with a space", HTTP{Host: "users internal"}, []string{"Host"}},
		{"host with a path", HTTP{Host: "users/health"}, []string{"Host"}},
		{"port", HTTP{Port: -1}, []string{"Port"}},
		{"port too high", HTTP{Port: 65536}, []string{"Port"}},
		{"header name", HTTP{Header: header("X Y", "")}, []string{"Header"}},
		{"no header name", HTTP{Header: header("", "")}, []string{"Header"}},
		{"header with a newline", HTTP{Header: header("X-Token", "s3cret\r\nX: y")}, []string{"Header"}},
		{"statuses upside down", HTTP{Statuses: []Statuses{{200, 299}, {299, 200}}}, []string{"Statuses[1]"}},
		{"status too low", HTTP{Statuses: []Statuses{{99, 200}}}, []string{"Statuses[0]"}},
		{"status too high", HTTP{Statuses: []Statuses{{200, 600}}}, []string{"Statuses[0]"}},
		{"zero statuses", HTTP{Statuses: []Statuses{{}}}, []string{"Statuses[0]"}},
		{"expression", HTTP{BodyMatch: "("}, []string{"BodyMatch"}},
		{"expression of Perl", HTTP{BodyMatch: `(a)\1`}, []string{"BodyMatch"}},
		{
			"all at once",
			HTTP{
				Method: " ", Host: "a b", Port: 70000, Header: header("a b", ""), Statuses: []Statuses{{1, 0}, {}}, BodyMatch: "[",
			},
			[]string{"Method", "Host", "Port", "Header", "Statuses[0]", "Statuses[1]", "BodyMatch"},
		},
		{"TCP", TCP{Port: 65535}, nil},
		{"TCP port", TCP{Port: 65536}, []string{"Port"}},
		{"gRPC", GRPC{Service: strings.Repeat("ä", maxService/2), Port: 1}, nil},
		{"gRPC port", GRPC{Port: -5}, []string{"Port"}},
		{"gRPC service that is no text", GRPC{Service: "a\xff"}, []string{"Service"}},
		{"gRPC service too long", GRPC{Service: strings.Repeat("s", maxService+1)}, []string{"Service"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.probe.Validate()
			assert.ElementsMatch(t, row.want, fieldsOf(t, err), "%v", err)
			if err != nil {
				assert.NotContains(t, err.Error(), "s3cret")
			}
			if row.want == nil {
				assert.NotPanics(t, func() { row.probe.prober() })
			}
		})
	}
}

// There is no field URL: what is wrong with the query is wrong with Path.
func TestHTTPValidate_QueryIsPartOfThePath_P02(t *testing.T) {
	assert.Equal(t, []string{"Path"}, fieldsOf(t, HTTP{Path: "/health?a b"}.Validate()))
}

// A bad path hides nothing else that is wrong.
func TestHTTPValidate_TellsAllBesideThePath_P02(t *testing.T) {
	p := HTTP{Method: " ", Path: "x", Host: "a b", Header: http.Header{"a b": {""}}}
	assert.ElementsMatch(t, []string{"Method", "Path", "Host", "Header"}, fieldsOf(t, p.Validate()))
}

func TestFunc_MustNotBeNil_P02(t *testing.T) {
	require.Error(t, Func(nil).Validate())
	err := Check{Probe: Func(nil), Rise: -1}.Validate()
	assert.ErrorContains(t, err, "Probe: ")
	assert.ErrorContains(t, err, "Rise: ")
}

func TestConfigValidate_Target_P02(t *testing.T) {
	for target, ok := range map[string]bool{
		"": true, "http://users": true, "https://users.internal:8443": true, "https://[::1]:8443/base?q": true,
		"users": false, "users:80": false, "//users": false, "ftp://users": false, "https://": false, "https:///path": false,
		"http://a b": false, "https://user:s3cret@": false, "http://users\n": false,
	} {
		err := Config{Target: target}.Validate()
		if ok {
			assert.NoError(t, err, "%q", target)
			continue
		}
		assert.Equal(t, []string{"Target"}, fieldsOf(t, err), "%q", target)
		assert.NotContains(t, err.Error(), "s3cret")
	}
}

// A transport that dials by itself for TLS would be asked for an address that does not exist, because
// a probe's URL names its endpoint. The pool refuses such a template; so must the monitor.
func TestConfigValidate_TransportThatDialsByItself_P02(t *testing.T) {
	for name, tr := range map[string]*http.Transport{
		"DialTLSContext": {DialTLSContext: (&net.Dialer{}).DialContext},
		"DialTLS":        {DialTLS: net.Dial},
		"Dial":           {Dial: net.Dial},
	} {
		err := Config{Transport: tr}.Validate()
		if assert.Error(t, err, "%s is never used as it is meant to be", name) {
			assert.Equal(t, []string{"Transport." + name}, fieldsOf(t, err))
		}
	}
}

// The zero Check does what its documentation says.
func TestCheck_DefaultsAreThoseOfTheDocumentation(t *testing.T) {
	assert.Equal(t, Check{
		Probe: HTTP{}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3,
		FastInterval: time.Second, DownInterval: time.Second, MaxDownInterval: 20 * time.Second,
		IdleInterval: time.Minute, Jitter: 0.1, MaxConcurrent: 128,
	}, Check{}.WithDefaults())
	source, err := os.ReadFile("check.go")
	require.NoError(t, err)
	docs := commentsOfFields(string(source))
	for name, phrase := range map[string]string{
		"Probe": "Nil means HTTP{}", "Interval": "Zero means 5s, at least 10ms", "Timeout": "Zero means 2s",
		"Rise": "Zero means 2", "Fall": "Zero means 3", "FastInterval": "Zero means a fifth of Interval, at most 1s",
		"DownInterval": "Zero means 1s, or Interval if that is shorter", "MaxDownInterval": "Zero means four times Interval, or DownInterval if that is longer",
		"IdleInterval": "Zero means 60s", "Jitter": "Zero means 0.1", "HoldNew": "Zero means that an endpoint serves from the start",
		"MaxConcurrent": "Zero means 128",
	} {
		assert.Contains(t, docs[name], phrase, name)
	}

	assert.Equal(t, Check{
		Probe: HTTP{}, Interval: time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
		FastInterval: 200 * time.Millisecond, DownInterval: time.Second, MaxDownInterval: 4 * time.Second,
		IdleInterval: time.Minute, Jitter: 0.1, MaxConcurrent: 128,
	}, Check{Interval: time.Second}.WithDefaults(), "what depends on the interval")
	short := Check{Interval: 100 * time.Millisecond}.WithDefaults()
	assert.Equal(t, 100*time.Millisecond, short.DownInterval)
	assert.Equal(t, 100*time.Millisecond, short.Timeout)
	assert.Equal(t, time.Hour, Check{DownInterval: time.Hour}.WithDefaults().MaxDownInterval)

	p := HTTP{}.withDefaults()
	assert.Equal(t, HTTP{Method: "GET", Path: "/health", Statuses: []Statuses{{200, 299}}}, p)
}

// commentsOfFields returns what stands above each field of a struct.
func commentsOfFields(source string) map[string]string {
	docs, comment := map[string]string{}, []string{}
	declared := regexp.MustCompile(`^\t(\w+) +\S+$`)
	for line := range strings.Lines(source) {
		line = strings.TrimRight(line, "\n")
		switch m := declared.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "\t// "):
			comment = append(comment, line[len("\t// "):])
			continue
		case m != nil && docs[m[1]] == "":
			docs[m[1]] = strings.Join(comment, " ")
		}
		comment = nil
	}
	return docs
}

// Given any valid check, then what it becomes with its defaults is valid, and has them already:
// whoever shows a check, or hands it on, may take that one.
func TestCheck_WithDefaultsIsValid(t *testing.T) {
	for _, interval := range []time.Duration{0, 10 * time.Millisecond, 49 * time.Millisecond, 50 * time.Millisecond, time.Second, time.Hour, 300 * time.Hour, maxInterval} {
		c := Check{Interval: interval}
		require.NoError(t, c.Validate(), "%v", interval)
		d := c.WithDefaults()
		assert.NoError(t, d.Validate(), "%v", interval)
		assert.Equal(t, d, d.WithDefaults(), "%v", interval)
		assert.LessOrEqual(t, d.Timeout, d.Interval)
		assert.LessOrEqual(t, d.FastInterval, d.Interval)
	}
}

func TestCheck_Jittered(t *testing.T) {
	c := Check{}.WithDefaults()
	assert.Equal(t, 900*time.Millisecond, c.jittered(time.Second, 0))
	assert.Equal(t, time.Second, c.jittered(time.Second, 0.5))
	assert.InDelta(t, 1100*time.Millisecond, c.jittered(time.Second, math.Nextafter(1, 0)), 1)
	c.Jitter = Off
	assert.Equal(t, time.Second, c.jittered(time.Second, 0))
	c.Jitter = math.Nextafter(1, 0)
	for _, random := range []float64{0, math.Nextafter(1, 0)} {
		assert.GreaterOrEqual(t, c.jittered(maxInterval, random), time.Duration(0))
		assert.LessOrEqual(t, c.jittered(maxInterval, random), 2*maxInterval)
	}
}

// The errors say what they are, and a probe that was too slow has met a deadline for everybody who
// asks.
func TestProbeErrors(t *testing.T) {
	var timeout interface{ Timeout() bool }
	require.ErrorAs(t, errTimeout, &timeout)
	assert.True(t, timeout.Timeout())
	assert.ErrorIs(t, errTimeout, context.DeadlineExceeded)
	assert.EqualError(t, &PanicError{Value: errors.New("x")}, "health: the probe panicked: x")
	assert.EqualError(t, &PanicError{}, "health: the probe panicked: <nil>")
}

package discovery_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/discovery"
)

func TestStatic_TellsItsAddressesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, discovery.Static{"10.0.0.1:80", "unix:/run/a.sock"})
		w.ask()
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"0s [10.0.0.1:80 unix:/run/a.sock]"}, lines(w.stop()))
	})
}

func TestList_TellsItsEndpointsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := discovery.List{{ID: "a", Address: "10.0.0.1:80", Weight: 3, Zone: "z"}}
		w := start(t, list)
		time.Sleep(time.Hour)
		said := w.stop()
		assert.Len(t, said, 1)
		assert.Equal(t, []discovery.Endpoint(list), said[0].set)
		list[0].Zone = "other"
		assert.Equal(t, "z", said[0].set[0].Zone, "what was told must not change with the list")
	})
}

func TestValidate_NamesAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		of   discovery.Validator
		want []string // the beginnings of the lines
	}{
		{"static", discovery.Static{"10.0.0.1:80"}, nil},
		{"static, empty", discovery.Static{}, []string{"Static: must not be empty"}},
		{"static, nil", discovery.Static(nil), []string{"Static: must not be empty"}},
		{
			"static, wrong",
			discovery.Static{"10.0.0.1:80", "10.0.0.1", "10.0.0.1:80", ""},
			[]string{"Static[1]: must be host:port", "Static[2]: must not repeat Static[0]", "Static[3]: must not be empty"},
		},
		{"list", discovery.List{{Address: "a:1"}, {Address: "a:1", ID: "other"}}, nil},
		{"list, empty", discovery.List{}, []string{"List: must not be empty"}},
		{
			"list, wrong",
			discovery.List{{Address: "a:1"}, {Address: "b:0", Weight: -1}, {Address: "a:1", ID: "a:1"}, {Address: "c:1", Weight: math.Inf(1)}},
			[]string{
				"List[1].Address: must have a port", "List[1].Weight: must not be negative",
				"List[2]: must not have the identity of List[0]", "List[3].Weight: must be a finite",
			},
		},
		{"DNS", discovery.DNS{Host: "users.internal.", Port: 80}, nil},
		{"DNS, literal", discovery.DNS{Host: "::1", Port: 80}, nil},
		{"DNS, nothing", discovery.DNS{}, []string{"Host: must not be empty", "Port: must be between"}},
		{
			"DNS, wrong",
			discovery.DNS{Host: "users:80", Port: 80, Family: 9, Interval: -1, MinInterval: -1, Timeout: -1},
			[]string{
				"Host: must be a name of letters", "Family: must be one of", "Interval: must not be negative",
				"MinInterval: must not be negative", "Timeout: must not be negative",
			},
		},
		{"DNS, half a literal", discovery.DNS{Host: "10.0.0", Port: 80}, []string{"Host: must be a name or a complete address"}},
		{"DNS, two dots", discovery.DNS{Host: "a..b", Port: 80}, []string{"Host: must have between 1 and 63"}},
		{"DNS, hyphen", discovery.DNS{Host: "-a.b", Port: 80}, []string{"Host: must not have a hyphen"}},
		{
			"DNS, intervals",
			discovery.DNS{Host: "a", Port: 80, Interval: time.Second, MinInterval: time.Minute},
			[]string{"MinInterval: must not be greater than Interval"},
		},
		{"DNS, long least interval", discovery.DNS{Host: "a", Port: 80, MinInterval: time.Minute}, nil},
		{"DNS, short interval", discovery.DNS{Host: "a", Port: 80, Interval: time.Second}, nil},
		{"SRV", discovery.SRV{Name: "users.service.consul"}, nil},
		{
			"SRV, wrong",
			discovery.SRV{Service: "_http", Name: "", Family: 9, Timeout: -1},
			[]string{
				"Proto: must be set if", "Service: must be without", "Name: must not be empty",
				"Family: must be one of", "Timeout: must not be negative",
			},
		},
		{"file", discovery.File{Path: "endpoints.json"}, nil},
		{"file, wrong", discovery.File{Interval: -1}, []string{"Path: must not be empty", "Interval: must not be negative"}},
		{"merge, empty", discovery.Merge{}, []string{"Merge: must not be empty"}},
		{
			"merge, wrong",
			discovery.Merge{nil, discovery.Static{"a"}, discovery.Merge{discovery.DNS{Host: "a"}}},
			[]string{"Merge[0]: must not be nil", "Merge[1].Static[0]: must be host:port", "Merge[2].Merge[0].Port: must be"},
		},
		{"last good", discovery.LastGood{Resolver: discovery.Static{"a:1"}, EmptyGrace: -1, MinShare: -1}, nil},
		{
			"last good, wrong",
			discovery.LastGood{MinShare: math.NaN()},
			[]string{"Resolver: must be set", "MinShare: must not be greater than 1"},
		},
		{
			"last good, wrong inside",
			discovery.LastGood{Resolver: discovery.File{}, MinShare: 1.1},
			[]string{"MinShare: must not be greater than 1", "Resolver.Path: must not be empty"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assertProblems(t, row.of.Validate(), row.want)
		})
	}
}

// TestWatch_RefusesWhatValidateRefuses: a negative interval must not become a
// busy loop where nobody has asked Validate.
func TestWatch_RefusesWhatValidateRefuses(t *testing.T) {
	t.Parallel()
	for _, r := range []discovery.Resolver{
		discovery.DNS{}, discovery.SRV{}, discovery.File{}, discovery.Merge{}, discovery.Merge{nil}, discovery.LastGood{},
	} {
		err := r.Watch(t.Context(), discovery.Sink{})
		assert.ErrorContains(t, err, "must", "%T", r)
	}
}

package discovery

import (
	"maps"
	"math"
	"net"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Endpoint is one place where a service can be reached. It is a value: what is
// known of an endpoint beyond this (its load, its latency, its health) lives in
// the pool, under the endpoint's [Key].
type Endpoint struct {
	// ID is the identity of the endpoint: what its state belongs to and
	// what hashes use. A registry's own ID (a pod UID, an instance ID) is
	// best, because it tells a restarted server at the same address from
	// the old one. Empty means Address.
	ID string

	// Address is where to connect: "host:port", with brackets around an IPv6
	// host, or "unix:/path/of.socket". It never changes what the server
	// is told: Host, TLS server name and certificate check stay those of the
	// target.
	Address string

	// Weight is the share of the traffic in relation to the other endpoints
	// of the same priority. Zero means 1; negative, infinite and NaN are
	// errors. For the weight 0 of other systems see Standby.
	Weight float64

	// Standby is what other systems express by the weight 0: no new traffic
	// unless nothing else is left.
	Standby bool

	// Priority is the tier: endpoints with a higher number are used while
	// none with a lower one can be. Zero, the default, is the first.
	Priority int

	// Zone is where the endpoint runs, such as "eu-west-1a". Empty means
	// unknown.
	Zone string

	// Draining means that the endpoint is going away: it finishes what it
	// has and gets nothing new.
	Draining bool

	// Attributes are whatever else the source knows, such as a version. They
	// must not be changed once the endpoint was handed over.
	Attributes map[string]string
}

// Key tells incarnations of endpoints apart. Two endpoints with equal keys are
// the same one, seen twice; everything that is known of it is kept. Another ID
// at the same address, or another address under the same ID, is a new endpoint
// about which nothing is known, and whose connections are its own.
type Key struct{ ID, Address string }

// Key returns the identity of the endpoint.
func (e Endpoint) Key() Key {
	if e.ID == "" {
		return Key{ID: e.Address, Address: e.Address}
	}
	return Key{ID: e.ID, Address: e.Address}
}

// EffectiveWeight returns the weight with its default: never zero.
func (e Endpoint) EffectiveWeight() float64 {
	if e.Weight == 0 {
		return 1
	}
	return e.Weight
}

// Equal reports whether nothing about the two endpoints differs.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.Key() == o.Key() && e.EffectiveWeight() == o.EffectiveWeight() &&
		e.Standby == o.Standby && e.Priority == o.Priority && e.Zone == o.Zone &&
		e.Draining == o.Draining && maps.Equal(e.Attributes, o.Attributes)
}

// String returns the address, with the ID before it where it differs.
func (e Endpoint) String() string {
	if e.ID == "" || e.ID == e.Address {
		return e.Address
	}
	return e.ID + "@" + e.Address
}

// Network returns what to pass to a dialer: "tcp" or "unix", and the address
// in that network.
func (e Endpoint) Network() (network, address string) {
	if path, ok := strings.CutPrefix(e.Address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", e.Address
}

// Validate returns nil, or all that is wrong with the endpoint: field errors
// (evenkeel.FieldError) joined.
func (e Endpoint) Validate() error {
	var errs field.Errors
	if problem := addressProblem(e.Address); problem != "" {
		errs.Add("Address", shown(e.Address), problem)
	}
	switch w := e.Weight; {
	case math.IsNaN(w) || math.IsInf(w, 0):
		errs.Add("Weight", w, "must be a finite number")
	case w < 0:
		errs.Add("Weight", w, "must not be negative")
	}
	errs.Check(e.Priority >= 0, "Priority", e.Priority, "must not be negative")
	return errs.Err()
}

// shown returns what an error may show of an address: not what somebody took for
// one, a URL with a password in it.
func shown(address string) string {
	if strings.ContainsAny(address, "@?#") {
		return "(not shown)"
	}
	return address
}

// label is String for errors.
func (e Endpoint) label() string {
	if shown(e.Address) != e.Address {
		return shown(e.Address)
	}
	return e.String()
}

func addressProblem(address string) string {
	if address == "" {
		return "must not be empty"
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return "must name a socket after unix:"
		}
		return ""
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "must be host:port or unix:path"
	}
	if host == "" || strings.ContainsAny(host, "/ @?#") {
		return "must have a valid host before the port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "must have a port between 1 and 65535"
	}
	return ""
}

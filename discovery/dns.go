package discovery

import (
	"context"
	"net/netip"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// DNS is a service whose endpoints are the addresses of one name, all on one
// port. The identity of an endpoint is its address.
//
// "No such name" and "no such records" are answers: the service has no
// endpoints. A time-out, SERVFAIL or REFUSED is an error, and what was known
// stays. A and AAAA records are looked up separately, and the failure of one
// family takes nothing away from what is known of either.
//
// Only Host and Port have to be set. A DNS is a value and may be used
// concurrently.
type DNS struct {
	// Host is the name to look up, or a literal address. End it in a dot to
	// keep the machine's search list out of it, which saves queries.
	Host string

	// Port is the port of all endpoints.
	Port uint16

	// Family says whether IPv4 or IPv6 addresses are used. The zero value
	// prefers IPv4 and uses IPv6 only while there are no IPv4 addresses.
	Family Family

	// Interval is the time between two look-ups, spread by 10 % either way.
	// Zero means 30s (or MinInterval, where that is longer), negative is an
	// error. Shorter sees new servers sooner; the standard resolver does not
	// tell how long an answer is good for.
	Interval time.Duration

	// MinInterval is the least time from one look-up to the next, whatever
	// happens: failing endpoints ask for a fresh look, and so do errors
	// and empty answers, after which the wait grows from MinInterval to at
	// most 5s. Zero means 3s (or Interval, where that is shorter), negative or
	// more than Interval is an error. Above 5s, a service that moved to
	// other addresses stays dark for as long.
	MinInterval time.Duration

	// Timeout bounds a look-up, both families together. Zero means 5s,
	// negative is an error.
	Timeout time.Duration

	// Lookup asks for the addresses of a host in one family, "ip4" or "ip6".
	// The method LookupNetIP of a [net.Resolver] is one. "Not found" is a
	// *[net.DNSError] that says so, or no addresses and no error. Lookup is
	// called for both families at once, and has to return soon after its
	// context is done: the next look-up waits for it.
	//
	// Nil means the name servers of the machine, asked in pure Go by the
	// Dial func of [net.DefaultResolver] if that has one. A name server gets a
	// third of Timeout before the next one is asked, and a look-up that is
	// given up leaves no goroutine behind, unlike one of a net.Resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Watch implements [Resolver]. It returns at once what Validate returns, if that
// is an error.
func (d DNS) Watch(ctx context.Context, sink Sink) error {
	if err := d.Validate(); err != nil {
		return err
	}
	d = d.withDefaults()
	lookup := d.Lookup
	if lookup == nil {
		lookup = machine{sink.Clock, d.Timeout}.LookupNetIP
	}
	h := newHost(d.Host, d.Family)
	return poll(ctx, sink, d.pace(), func(ctx context.Context) answer {
		addrs, skipped, err := h.look(ctx, lookup)
		return answer{endpoints: d.endpoints(addrs), skipped: skipped, failed: err}
	})
}

// Validate returns all problems joined, or nil.
func (d DNS) Validate() error {
	var errs field.Errors
	if _, err := netip.ParseAddr(d.Host); err != nil {
		problem := hostProblem(d.Host)
		errs.Check(problem == "", "Host", d.Host, problem)
	}
	errs.Check(d.Port > 0, "Port", d.Port, "must be between 1 and 65535")
	errs.Check(int(d.Family) < len(familyNames), "Family", uint8(d.Family), "must be one of the families")
	d.pace().check(&errs)
	return errs.Err()
}

func (d DNS) withDefaults() DNS {
	p := d.pace().withDefaults()
	d.Interval, d.MinInterval, d.Timeout = p.interval, p.min, p.timeout
	return d
}

func (d DNS) pace() pace {
	return pace{interval: d.Interval, min: d.MinInterval, timeout: d.Timeout}
}

func (d DNS) endpoints(addrs []netip.Addr) []Endpoint {
	endpoints := make([]Endpoint, len(addrs))
	for i, addr := range addrs {
		endpoints[i].Address = netip.AddrPortFrom(addr, d.Port).String()
	}
	return endpoints
}

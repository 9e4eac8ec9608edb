package balancer

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Zones keeps traffic in the zone of the caller as far as the endpoints there can
// carry it, by the formula of Envoy's zone-aware routing. What they cannot carry
// goes to the zones that have room. A zone without a healthy endpoint gets
// nothing, and the loss of one endpoint moves only the traffic that it carried. In
// panic there are no zones. They do not apply to algorithms that pick by key.
type Zones struct {
	// Local is the zone in which this client runs. Empty switches zones off.
	Local string
	// Clients is how many clients each zone has, or any measure of the traffic
	// that comes from it. Nil means as many in each zone that has endpoints.
	Clients map[string]float64
	// Overload is how much more than the mean an endpoint may get before
	// traffic leaves its zone. Zero means 1.4, 1 is perfectly even. At least 1.
	Overload float64
	// Tolerance is how much slower the local zone may be than another, and
	// still half as fast, before a request goes there, with algorithms that
	// can tell ([estimator]; [PeakEWMA] can). Zero means 5ms, negative that
	// it is not looked at.
	Tolerance time.Duration
	// MinEndpoints is how many endpoints a priority must have for zones to
	// matter. Zero means 6.
	MinEndpoints int
}

const (
	defaultOverload     = 1.4
	defaultTolerance    = 5 * time.Millisecond
	defaultMinEndpoints = 6
)

func (z Zones) withDefaults() Zones {
	orFloat(&z.Overload, defaultOverload)
	if z.Tolerance == 0 {
		z.Tolerance = defaultTolerance
	}
	if z.MinEndpoints == 0 {
		z.MinEndpoints = defaultMinEndpoints
	}
	return z
}

func (z Zones) validate() error {
	var errs field.Errors
	checkFloat(&errs, "Overload", z.Overload, 1, maxFactor)
	errs.Check(z.MinEndpoints >= 0, "MinEndpoints", z.MinEndpoints, "must not be negative")
	total := 0.0
	for _, name := range slices.Sorted(maps.Keys(z.Clients)) {
		n := z.Clients[name]
		errs.Check(n >= 0 && n <= math.MaxFloat64, "Clients["+name+"]", n, "must be a number that is not negative")
		total += n
	}
	errs.Check(z.Clients == nil || total != 0, "Clients", z.Clients, "must not all be zero")
	return errs.Err()
}

// zoneLoad is what is known of a zone, and what follows for it.
type zoneLoad struct {
	name      string
	available float64 // weight
	share     float64 // of this client's traffic, in 0..1
}

// divideZones gives each zone its share of the traffic of this client. With u the
// zone's share of the endpoints' weight, o its share of the clients and f the
// overload factor: all stays in the local zone if o <= f*u, else the part f*u/o,
// and the rest goes to other zones in proportion to the room that they have left,
// f*u - o.
func (z Zones) divideZones(zones []zoneLoad) {
	total := 0.0
	for _, l := range zones {
		total += l.available
	}
	clients := z.allClients(zones)
	// In u is what the zone can carry, in o what comes from it.
	carries := func(l zoneLoad) (u, o float64) {
		return z.Overload * l.available / total, z.clientsOf(l.name) / clients
	}
	local, rooms, others := 0.0, 0.0, 0.0
	for _, l := range zones {
		u, o := carries(l)
		if l.name == z.Local {
			local = 1
			if u < o {
				local = u / o
			}
			if l.available == 0 {
				local = 0
			}
			continue
		}
		rooms += max(u-o, 0)
		others += l.available
	}
	if others == 0 {
		local = 1
	}
	for i := range zones {
		l := &zones[i]
		u, o := carries(*l)
		switch {
		case l.name == z.Local:
			l.share = local
		case rooms > 0:
			l.share = (1 - local) * max(u-o, 0) / rooms
		case others > 0:
			l.share = (1 - local) * l.available / others
		}
	}
}

// clientsOf returns the measure of clients in a zone.
func (z Zones) clientsOf(name string) float64 {
	if z.Clients == nil {
		return 1
	}
	return z.Clients[name]
}

// allClients returns the measure of all clients, also of those in zones without
// endpoints.
func (z Zones) allClients(zones []zoneLoad) float64 {
	if z.Clients == nil {
		return float64(len(zones))
	}
	total := 0.0
	for _, n := range z.Clients {
		total += n
	}
	return total
}

// applies reports whether a tier with these zones is divided.
func (z Zones) applies(zones []zoneLoad, endpoints int) bool {
	return z.Local != "" && endpoints >= z.MinEndpoints && len(zones) > 1 &&
		slices.ContainsFunc(zones, func(l zoneLoad) bool { return l.name == z.Local })
}

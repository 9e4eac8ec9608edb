package balancer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Rules say which endpoints an [Algorithm] may choose from: they divide a pool by
// priority, health, zone and attributes, and work with every algorithm. They are
// data; the zero value has the recommended settings.
type Rules struct {
	// Priorities says when endpoints of a later priority help out.
	Priorities Priorities
	// Panic says what happens when too few endpoints are healthy.
	Panic Panic
	// Zones keeps traffic in the zone of the caller. Off unless Zones.Local
	// is set.
	Zones Zones
	// SlowStart brings traffic to a new endpoint bit by bit.
	SlowStart SlowStart
	// Subset is the part of the endpoints that this client uses.
	Subset Subset
	// Routes send some requests to some endpoints only, by attributes. The
	// first that applies to a request counts. None by default.
	Routes []Route

	// MaxInFlight is how many attempts an endpoint may have at once, response
	// bodies included. Those beyond go to other endpoints, also of later
	// priorities and on standby; while all are full, they wait in Queue. Zero
	// means no limit.
	MaxInFlight int
	// Queue is where attempts wait while every endpoint has MaxInFlight.
	Queue Queue

	// MaxPark bounds for how long an endpoint is left alone that answers 429, or 503 with
	// Retry-After, and says for how long it wants to be: it is not picked while another one of
	// its priority is available, also in panic, and if that was for a second or longer, it comes
	// back by way of slow start. Up to half of its wish is added, so that not all clients come
	// back at once. Zero means 5m, negative that no endpoint is left alone because of its wish.
	MaxPark time.Duration

	// MaxConnectionAge is how long connections to an endpoint are used for
	// new requests. Older ones finish what they have and are closed, so
	// that what listens behind one address gets its share of a load that
	// long-lived connections of HTTP/2 would keep where it is. Each is cut
	// by up to a tenth at random. Zero means for ever. It has no effect on
	// what Config.EndpointTransport makes.
	MaxConnectionAge time.Duration

	// HideLoadReports removes the header endpoint-load-metrics from responses
	// once it is read. By default callers see it.
	HideLoadReports bool
}

// Priorities says how traffic is divided between endpoints of different
// priorities, with the formulas of Envoy. A priority whose endpoints are healthy to
// more than 1/Overprovisioning takes all that those before it leave; below that
// it gets what it can carry, and the rest goes to the next one.
type Priorities struct {
	// Overprovisioning is how much more than its share a healthy endpoint can
	// take. Zero means 1.4: with fewer than 1/1.4 = 71 % of its endpoints, a
	// priority gives traffic away. 1 gives it away from the first one that is
	// down. At least 1.
	Overprovisioning float64
}

// Panic says what happens when too few endpoints of a priority are healthy. So
// many cannot have failed independently: it is more likely that the health check
// is wrong, and certain that the others cannot take the whole load.
type Panic struct {
	// Threshold is the healthy share, by weight, below which a priority is in
	// panic, unless the others can carry its load. Zero means 0.5, negative
	// that there is no panic: then no endpoint that is unhealthy is ever used.
	// At most 1.
	Threshold float64
	// Reject makes calls fail at once while every priority is in panic. By
	// default health is ignored then and all endpoints are used; those that
	// are draining never are.
	Reject bool
}

// SlowStart gives a growing share of the traffic to an endpoint that has joined
// or become healthy, so that its caches and pools can fill. The endpoints that
// a pool finds first all start at once and are not slowed, and neither are those
// that were used in panic. Where most are new, they begin with as much as it takes
// for the others not to get more than twice their share. It does not apply to
// algorithms that pick by key.
type SlowStart struct {
	// Window is how long it takes. Zero means 30s, negative off.
	Window time.Duration
	// Floor is the share of its weight with which an endpoint begins. Zero
	// means 0.1. At most 1.
	Floor float64
	// Aggression bends the curve: the share is (age/Window) to the power of
	// 1/Aggression. Zero means 1, a straight line; more is faster at first.
	Aggression float64
}

// Subset is the part of the endpoints that this client uses. What an algorithm
// learns of an endpoint gets stale when requests there are rare: with many
// clients, each of which has few requests for each of many endpoints, they learn
// more from fewer. It does not apply to algorithms that pick by key.
//
// Each client orders the endpoints in its own way and uses the first that are
// available. By default the order is a rendezvous hash (gRFC A68), which needs no
// coordination, and which a change of the endpoints changes by at most one; the
// number of clients per endpoint then varies as chance has it, unless Clients is set.
type Subset struct {
	// Size is how many endpoints of each priority are used. Zero means that
	// the traffic decides, for the algorithms that learn from answers
	// (PeakEWMA, LeastRequest, HotCold, LoadWeighted): as many as this client
	// has requests per second, but at least 12. It begins with all, grows
	// within 2s of the traffic, shrinks after 2, 4, 8s and so on up to each
	// minute, and changes by a factor of two or more only. Other algorithms use
	// all. Negative means all.
	Size int
	// Seed makes the order repeatable, and must be this client's own, such
	// as the name of its pod. Empty means a random one.
	Seed string
	// Clients is how many clients there are, and Ordinal the number of this
	// one, from 0. With them, connections are spread evenly by the method of
	// Google's "Rocksteadier": exactly so if both endpoints and clients come
	// in tens, else no endpoint has much more than twice the mean. A change
	// of the endpoints then moves more than with the default. Zero Clients
	// means not known.
	Clients, Ordinal int
}

// Route sends requests to the endpoints of which an attribute has the value that
// the request asks for, such as those of version "canary".
type Route struct {
	// Attribute is the name of the attribute (discovery.Endpoint.Attributes).
	Attribute string
	// From says where in the request the value is. The first that is there
	// counts.
	From []HashKey
	// Default is the value where the request has none. Empty means that the
	// route does not apply then.
	Default string
	// Fallback is what happens if no endpoint has the value, or none that is
	// healthy.
	Fallback RouteFallback
}

// RouteFallback is what happens if no endpoint has the value of a [Route], or none
// that is healthy.
type RouteFallback int

// The fallbacks.
const (
	// FallbackAny: any endpoint will do.
	FallbackAny RouteFallback = iota
	// FallbackDefault: the endpoints with the Default of the route; if there
	// are none, the request fails.
	FallbackDefault
	// FallbackFail: the request fails if there is none; if there are, but too
	// few are healthy, Panic decides.
	FallbackFail
)

// Queue is where attempts wait while every endpoint has [Rules.MaxInFlight].
type Queue struct {
	// Size is how many may wait. Zero means 128, negative none.
	Size int
	// Timeout is how long each may wait. Zero means 1s.
	Timeout time.Duration
}

const (
	defaultOverprovisioning = 1.4
	defaultPanicThreshold   = 0.5
	defaultSlowStart        = 30 * time.Second
	defaultSlowStartFloor   = 0.1
	defaultQueueSize        = 128
	defaultQueueTimeout     = time.Second
)

// WithDefaults returns the rules as they are applied.
func (r Rules) WithDefaults() Rules {
	orFloat(&r.Priorities.Overprovisioning, defaultOverprovisioning)
	orFloat(&r.Panic.Threshold, defaultPanicThreshold)
	orFloat(&r.SlowStart.Floor, defaultSlowStartFloor)
	orFloat(&r.SlowStart.Aggression, 1)
	if r.SlowStart.Window == 0 {
		r.SlowStart.Window = defaultSlowStart
	}
	if r.MaxPark == 0 {
		r.MaxPark = defaultMaxPark
	}
	if r.Zones.Local != "" {
		r.Zones = r.Zones.withDefaults()
	}
	r.Zones.Clients, r.Routes = maps.Clone(r.Zones.Clients), slices.Clone(r.Routes) // the caller may change its own
	for i := range r.Routes {
		r.Routes[i].From = slices.Clone(r.Routes[i].From)
	}
	if r.MaxInFlight > 0 {
		if r.Queue.Size == 0 {
			r.Queue.Size = defaultQueueSize
		}
		if r.Queue.Timeout == 0 {
			r.Queue.Timeout = defaultQueueTimeout
		}
	}
	return r
}

func orFloat(f *float64, value float64) {
	if *f == 0 {
		*f = value
	}
}

// Validate returns nil, or all that is wrong with the rules.
func (r Rules) Validate() error {
	var errs field.Errors
	checkFloat(&errs, "Priorities.Overprovisioning", r.Priorities.Overprovisioning, 1, maxFactor)
	checkFloat(&errs, "Panic.Threshold", max(r.Panic.Threshold, 0), 0, 1) // negative is off
	checkFloat(&errs, "SlowStart.Floor", r.SlowStart.Floor, 0, 1)
	checkFloat(&errs, "SlowStart.Aggression", r.SlowStart.Aggression, 0, math.MaxFloat64)
	errs.Under("Zones", r.Zones.validate())
	errs.Check(r.Subset.Clients >= 0, "Subset.Clients", r.Subset.Clients, "must not be negative")
	errs.Check(r.Subset.Ordinal >= 0 && (r.Subset.Ordinal == 0 || r.Subset.Ordinal < r.Subset.Clients),
		"Subset.Ordinal", r.Subset.Ordinal, "must be below Clients")
	for i, route := range r.Routes {
		errs.Under(fmt.Sprintf("Routes[%d]", i), route.validate())
	}
	errs.Check(r.MaxInFlight >= 0 && r.MaxInFlight <= maxInFlight, "MaxInFlight", r.MaxInFlight,
		fmt.Sprintf("must be between 0 and %d", maxInFlight))
	errs.Check(r.Queue.Timeout >= 0, "Queue.Timeout", r.Queue.Timeout, "must not be negative")
	errs.Check(r.MaxConnectionAge >= 0, "MaxConnectionAge", r.MaxConnectionAge, "must not be negative")
	return errs.Err()
}

// maxFactor is far above what makes a difference.
const maxFactor = 1000

// maxInFlight is below what the counter of a node can hold.
const maxInFlight = 1 << 20

// checkFloat refuses what is outside of the range, unless it is zero, which means
// the default. The comparison is false for NaN.
func checkFloat(errs *field.Errors, name string, f, least, most float64) {
	if f == 0 || (f >= least && f <= most) {
		return
	}
	problem := fmt.Sprintf("must be a number from %g", least)
	if most < math.MaxFloat64 {
		problem += fmt.Sprintf(" to %g", most)
	}
	errs.Add(name, f, problem)
}

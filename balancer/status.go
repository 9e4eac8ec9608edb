package balancer

import (
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Status is what a pool knows at one moment.
type Status struct {
	// LastSuccess is when the resolver last said what the endpoints are. Zero
	// means never.
	LastSuccess time.Time
	// Err is the resolver's latest error, nil after a success.
	Err error
	// Endpoints are the members of the pool.
	Endpoints []EndpointStatus
	// Draining is how many endpoints have left and still have requests.
	Draining int
	// Panic says that so few endpoints are healthy that their health is
	// ignored, or calls fail.
	Panic bool
	// Subset is how many endpoints of each priority this client uses, 0 for
	// all. See Rules.Subset.
	Subset int
	// RejectedReports is how many load reports (package orca) could not be read
	// and were ignored, by an algorithm that uses them.
	RejectedReports uint64
	// Waiting is how many attempts wait for room, see Rules.MaxInFlight.
	Waiting int
}

// EndpointStatus is what a pool knows of one endpoint.
type EndpointStatus struct {
	// Endpoint is what discovery says of it.
	Endpoint discovery.Endpoint
	// Unavailable says why the endpoint is not picked; empty means that it is.
	Unavailable string
	// InFlight is how many attempts have not ended, bodies included.
	InFlight int64
	// Attempts is how many attempts were begun since the endpoint joined,
	// Failures how many of them spoke against it.
	Attempts, Failures uint64
	// Connections is how many connections to the endpoint are open. It is
	// zero where Config.EndpointTransport makes them.
	Connections int
}

// Status returns what the pool knows now. The counts of different endpoints are
// not of exactly the same instant.
func (p *Pool) Status() Status {
	p.mu.Lock()
	status, members := p.status, p.members
	status.Panic, status.Subset = p.panics, p.subsetSize(p.rules)
	if r, ok := p.builder.(interface{ RejectedReports() uint64 }); ok {
		status.RejectedReports = r.RejectedReports()
	}
	status.Waiting = int(p.queue.waiting.Load())
	for n := range p.draining {
		if n.InFlight() > 0 {
			status.Draining++
		}
	}
	p.mu.Unlock()
	status.Endpoints = make([]EndpointStatus, len(members))
	for i, m := range members {
		status.Endpoints[i] = endpointStatus(m.node)
	}
	return status
}

func endpointStatus(n *node.Node) EndpointStatus {
	s := EndpointStatus{Endpoint: n.Endpoint(), InFlight: n.InFlight(), Attempts: n.Picks(), Failures: n.Failures()}
	if r := n.Reasons(); r != 0 {
		s.Unavailable = r.String()
	}
	if c, ok := n.Base().(*conns); ok {
		s.Connections = c.openConns()
	}
	return s
}

// noteDiscovery keeps what the resolver's events say for Status.
func (p *Pool) noteDiscovery(e discovery.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case discovery.Failed:
		p.status.Err = e.Err
	case discovery.Updated, discovery.Unchanged, discovery.Held, discovery.Emptied:
		p.status.LastSuccess, p.status.Err = e.Time, nil
	case discovery.Skipped, discovery.Dropped: // one of the others follows
	}
}

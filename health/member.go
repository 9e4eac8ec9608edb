package health

import (
	"fmt"
	"net/http"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Member is an endpoint that is watched without a balancer.Pool, for those who have a balancer of
// their own. It is safe for concurrent use.
type Member struct{ watch *watch }

// Add begins to watch an endpoint. An error says what is wrong with it, or that the monitor belongs
// to a pool.
func (m *Monitor) Add(e discovery.Endpoint) (*Member, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("health: the endpoint is not valid: %w", err)
	}
	m.mu.Lock()
	attached := m.attached
	m.serial++
	serial := m.serial
	m.mu.Unlock()
	if attached {
		return nil, errAttached
	}
	return &Member{m.watch(node.New(e, serial, noConnections{}, nil))}, nil
}

// Answered tells how a request to the endpoint went. It allocates nothing. A Now of zero is the
// present; Header is not looked at.
func (m *Member) Answered(a outcome.Answer) {
	m.watch.Answered(a)
	if a.Class.Good() {
		m.watch.Whole()
	}
}

// Available reports whether the endpoint can serve, as far as is known.
func (m *Member) Available() bool { return m.watch.node.Reasons() == 0 }

// Status returns what is known of the endpoint.
func (m *Member) Status() Status {
	m.watch.monitor.mu.Lock()
	defer m.watch.monitor.mu.Unlock()
	return m.watch.statusLocked()
}

// Remove ends the watch. No probe begins any more.
func (m *Member) Remove() { m.watch.Gone() }

// noConnections stands for those of an endpoint whose requests somebody else sends.
type noConnections struct{}

func (noConnections) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, http.ErrNotSupported
}

func (noConnections) CloseIdleConnections() {}

func (noConnections) DropIdle() {}

func (noConnections) Close() {}

package evenkeel

import (
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/events"
)

// relays hand to hooks what the parts of a transport tell, those of policies that are gone
// included, until it is closed.
type relays struct {
	endpoints relay[balancer.Change]
	breaker   relay[breaker.Change]
	health    relay[health.Change]
	held      atomic.Bool // the policy is being replaced: a hook may want to do that, too, so it waits
}

func newRelays(h Hooks) *relays {
	r := &relays{}
	r.endpoints = relay[balancer.Change]{events.Queue[balancer.Change]{Tell: h.Endpoints}, &r.held}
	r.breaker = relay[breaker.Change]{events.Queue[breaker.Change]{Tell: h.Breaker}, &r.held}
	r.health = relay[health.Change]{events.Queue[health.Change]{Tell: h.Health}, &r.held}
	return r
}

// flush tells what was held back.
func (r *relays) flush() {
	defer r.health.Flush() // also if a hook panics
	defer r.breaker.Flush()
	r.endpoints.Flush()
}

// close ends all: no hook is called any more.
func (r *relays) close() {
	r.endpoints.Close()
	r.breaker.Close()
	r.health.Close()
}

// relay is that of one kind of events.
type relay[E any] struct {
	events.Queue[E]
	held *atomic.Bool
}

// hook returns what is to be told of events, nil if nobody wants to know.
func (r *relay[E]) hook() func(E) {
	if r.Tell == nil {
		return nil
	}
	return func(e E) {
		r.Add(e)
		if !r.held.Load() { // else whoever holds it flushes, after this has been added
			r.Flush()
		}
	}
}

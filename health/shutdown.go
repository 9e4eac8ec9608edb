package health

import (
	"context"

	"github.com/evenkeel-go/evenkeel/internal/wait"
)

// What a server is in. It only goes forward.
const (
	phaseServing int32 = iota
	phaseStarting
	phaseDraining
)

// textDraining is what a report says of a server that is draining.
const textDraining = "draining"

// notServing returns why readiness is down whatever the components say, or "".
func (h *Handler) notServing() string {
	switch h.phase.Load() {
	case phaseStarting:
		return "starting"
	case phaseDraining:
		return textDraining
	default:
		return ""
	}
}

// Started says that the server can do its work: with [HandlerConfig] StartDown, readiness is
// Down until then. It does not bring back a server that is draining.
func (h *Handler) Started() { h.phase.CompareAndSwap(phaseStarting, phaseServing) }

// Drain turns readiness Down, for good, so that clients go elsewhere. The server goes on;
// liveness stays Up.
func (h *Handler) Drain() { h.phase.Store(phaseDraining) }

// Shutdown ends a server without losing requests: it does what [Handler.Drain] does, waits for
// DrainFor, during which the server serves as before, and returns what Shutdown of the server
// returns, which is an [*net/http.Server] or alike.
//
// If ctx ends during the wait, it goes on at once with Shutdown of the server, whose context
// is ctx: that closes the listeners and waits for no request. So ctx must last longer than
// DrainFor, by as long as requests may take.
func (h *Handler) Shutdown(ctx context.Context, server interface{ Shutdown(context.Context) error }) error {
	h.Drain()
	_ = wait.Sleep(ctx, h.clock, h.drainFor) // an error means that ctx has ended, which the server sees itself
	return server.Shutdown(ctx)
}

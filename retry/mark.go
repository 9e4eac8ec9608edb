package retry

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/call"
)

// Mark is what one call wants different from the policy. Marks can be joined by |.
type Mark uint8

// The marks.
const (
	// Idempotent is the caller's promise that the request may reach a server more than once,
	// whatever its method.
	Idempotent Mark = 1 << iota
	// NotIdempotent says that it must not, whatever its method. That binds evenkeel; net/http
	// itself repeats a GET without a body when an idle connection turns out to be dead.
	NotIdempotent
	// Once allows a single attempt: no retry, no hedge, no move.
	Once
	// NoHedge allows no attempt beside another.
	NoHedge
)

type markKey struct{}

// WithMark returns a context for requests whose calls want it so. Marks of ctx stay.
func WithMark(ctx context.Context, m Mark) context.Context {
	return context.WithValue(ctx, markKey{}, markOf(ctx)|m)
}

func markOf(ctx context.Context) Mark {
	m, _ := ctx.Value(markKey{}).(Mark)
	return m
}

// idempotent reports whether the request may reach a server more than once: by
// its method (RFC 9110, section 9.2.2, or the policy), or because its caller says so.
func (p *Policy) idempotent(req *http.Request) bool {
	if isUpgrade(req) {
		return false
	}
	switch m := markOf(req.Context()); {
	case m&NotIdempotent != 0:
		return false
	case m&Idempotent != 0:
		return true
	}
	return isIdempotent(req.Method) || slices.Contains(p.Idempotent, req.Method) || call.HasIdempotencyKey(req.Header)
}

func isIdempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// isUpgrade reports whether the request asks for another protocol on its
// connection.
func isUpgrade(req *http.Request) bool {
	if req.Method == http.MethodConnect {
		return true
	}
	return len(req.Header) > 0 && (strings.EqualFold(req.Header.Get("Connection"), "upgrade") || req.Header.Get("Upgrade") != "")
}

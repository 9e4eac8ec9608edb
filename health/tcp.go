package health

import (
	"context"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// TCP finds an endpoint able to serve if a connection to it can be opened. It is closed at once. That
// says little: a server that hangs has a kernel that still accepts.
type TCP struct {
	// Port is where to connect, if it is not the port of the endpoint. It makes no difference to
	// Unix sockets.
	Port int
}

// Validate implements [Probe].
func (p TCP) Validate() error {
	var errs field.Errors
	checkPort(&errs, p.Port)
	return errs.Err()
}

func checkPort(errs *field.Errors, port int) {
	errs.Check(port >= 0 && port <= 65535, "Port", port, "must be from 1 to 65535, or 0 for that of the endpoint")
}

func (p TCP) prober() prober { return p }

func (p TCP) ask(ctx context.Context, l *line) answer {
	nc, err := l.dial(ctx, p.Port)
	if err == nil {
		_ = nc.Close()
	}
	return answer{err: err}
}

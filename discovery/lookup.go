package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// machine asks the name servers of the machine (and reads its hosts file), in a
// way that can be given up. It dials as net.DefaultResolver does, should the
// program have changed that, but is always the pure Go resolver: a call of the C
// library holds a thread until it returns. It differs from the one in package
// net:
//
//   - Errors are strict. Otherwise a SERVFAIL on one entry of the search list and
//     "no such name" on the next are together "no such name": an error would
//     pass for an empty answer.
//   - It ends when its context does, with all that it began. Package net
//     applies only deadlines to a connection that it waits on, not
//     cancellation, and leaves a goroutine behind that waits for seconds.
//   - A name server gets a third of the time, so that a dead first one leaves
//     enough for the second: by default, resolv.conf grants 5s to each, which
//     is all the time there is here.
type machine struct {
	clock   clock.Clock
	timeout time.Duration // for one look-up
}

func (m machine) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return m.resolver(ctx).LookupNetIP(context.WithoutCancel(ctx), network, host)
}

func (m machine) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	return m.resolver(ctx).LookupSRV(context.WithoutCancel(ctx), service, proto, name)
}

// resolver returns a resolver for one look-up. That must not see the end of the
// context, or it would leave at once and its goroutine later; its connections
// end with the context instead, and then no more can be had.
func (m machine) resolver(ctx context.Context) *net.Resolver {
	dial := net.DefaultResolver.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(exchange context.Context, network, address string) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Package net cancels exchange when it has the answer.
		exchange, cancel := context.WithCancel(exchange)
		context.AfterFunc(ctx, cancel)
		conn, err := dial(exchange, network, address)
		if err != nil {
			cancel()
			return nil, err
		}
		patience := m.clock.AfterFunc(m.timeout/3, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		context.AfterFunc(exchange, func() {
			patience.Stop()
			_ = conn.Close()
		})
		return conn, nil
	}}
}

// isNotFound reports whether err is an answer: the name does not exist, or has
// no records of the kind asked for.
func isNotFound(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound && !dns.IsTemporary && !dns.IsTimeout
	}
	// What package net returns when there are addresses, but of the other
	// family only: for a literal address or from the hosts file.
	var otherFamily *net.AddrError
	return errors.As(err, &otherFamily)
}

// hostProblem returns what is wrong with the name of a host, or "". To package
// net, a name that cannot exist is one that does not exist at present: a
// legitimate answer. So it has to be found before anyone asks.
func hostProblem(name string) string {
	name = strings.TrimSuffix(name, ".")
	switch {
	case name == "":
		return "must not be empty"
	case len(name) > 253:
		return "must not be longer than 253 characters"
	case !strings.ContainsFunc(name, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }):
		return "must be a name or a complete address"
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "" || len(label) > 63:
			return "must have between 1 and 63 characters between dots"
		case strings.ContainsFunc(label, notInHostName):
			return "must be a name of letters, digits, hyphens and underscores, without scheme and port"
		case label[0] == '-' || label[len(label)-1] == '-':
			return "must not have a hyphen beside a dot or at either end"
		}
	}
	return ""
}

func notInHostName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	default:
		return true
	}
}

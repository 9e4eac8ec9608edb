package memnet

import (
	"net"
	"strconv"
	"strings"
)

// Addr is the address of one end of a connection.
type Addr struct {
	network string // "tcp" or "unix"
	address string
}

// Network returns "tcp" or "unix".
func (a Addr) Network() string { return a.network }

// String returns "host:port", or the path of a Unix socket.
func (a Addr) String() string { return a.address }

// parseAddr understands what [Network.Listen] and the faults are given:
// "host:port" or "unix:path", the forms of an endpoint's address.
func parseAddr(address string) Addr {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return Addr{network: "unix", address: path}
	}
	return Addr{network: "tcp", address: address}
}

// dialAddr understands what a dialer is given.
func dialAddr(network, address string) (Addr, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return Addr{network: "tcp", address: address}, nil
	case "unix":
		return Addr{network: "unix", address: address}, nil
	}
	return Addr{}, net.UnknownNetworkError(network)
}

const (
	firstPort = 49152 // the range that IANA leaves to clients
	portCount = 65536 - firstPort
)

// clientAddr returns the address of the n-th dialler: a new port each time and,
// when all of them were used, another host of 192.0.2.0/24, which RFC 5737
// reserves for examples.
func clientAddr(network string, n int) Addr {
	if network == "unix" {
		return Addr{network: network, address: "@" + strconv.Itoa(n)}
	}
	host := "192.0.2." + strconv.Itoa(1+n/portCount%254)
	return Addr{network: network, address: net.JoinHostPort(host, strconv.Itoa(firstPort+n%portCount))}
}

// given returns the address in the form that parseAddr understands.
func (a Addr) given() string {
	if a.network == "unix" {
		return "unix:" + a.address
	}
	return a.address
}

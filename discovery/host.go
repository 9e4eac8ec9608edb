package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// lookupFunc is the shape of (*net.Resolver).LookupNetIP.
type lookupFunc = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// host is what is known of the addresses of one name. It is used by one
// goroutine at a time.
type host struct {
	name     string
	all      bool // the addresses of all families count, not only of the first that has any
	families []family
}

// family is what is known of the addresses of a host in one address family.
type family struct {
	network string       // "ip4" or "ip6"
	known   []netip.Addr // from the latest answer, however old
	skipped error        // the records of that answer which were left out
	failed  error        // why the latest look-up got no answer; nil if it did
}

func newHost(name string, f Family) *host {
	networks, all := f.networks()
	h := &host{name: name, all: all}
	for _, network := range networks {
		h.families = append(h.families, family{network: network})
	}
	return h
}

// look asks for the addresses of the host and returns those to use from now on,
// in a fixed order. No addresses and no error mean that there are none. An error
// means that nothing new is known. The error beside addresses, skipped, tells
// of bad records and of a family which could not be asked.
func (h *host) look(ctx context.Context, lookup lookupFunc) (addrs []netip.Addr, skipped, failed error) {
	h.ask(ctx, lookup)
	return h.conclude()
}

// ask looks all families up at the same time. Once the preferred one has
// addresses, the outcome of the others does not matter, and a name server that
// never answers them must not hold the rest up.
func (h *host) ask(ctx context.Context, lookup lookupFunc) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range h.families {
		f := &h.families[i]
		wg.Go(func() {
			f.ask(ctx, h.name, lookup)
			if i == 0 && !h.all && f.failed == nil && len(f.known) > 0 {
				cancel()
			}
		})
	}
	wg.Wait()
}

// ask looks one family up. A failure leaves what is known as it is.
func (f *family) ask(ctx context.Context, name string, lookup lookupFunc) {
	addrs, err := f.addresses(ctx, name, lookup)
	if err != nil && !isNotFound(err) {
		f.failed = fmt.Errorf("look-up of %s (%s): %w", name, f.network, why(ctx, err))
		return
	}
	var skipped SkippedError
	good := usable(addrs, f.network, &skipped)
	if len(good) == 0 && skipped.Count > 0 { // an answer, but not a believable one
		f.failed = fmt.Errorf("look-up of %s (%s): %w", name, f.network, &skipped)
		return
	}
	f.known, f.skipped, f.failed = good, skipped.Err(), nil
}

func (f *family) addresses(ctx context.Context, name string, lookup lookupFunc) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(strings.TrimSuffix(name, ".")); err == nil {
		return []netip.Addr{literal}, nil
	}
	return lookup(ctx, f.network, name)
}

// conclude decides what the answers, and failures, of the families mean
// together. The deciding families are those up to the first that has addresses,
// or all of them if all count.
func (h *host) conclude() (addrs []netip.Addr, skipped, failed error) {
	var beside, failures []error
	answered := 0
	for _, f := range h.families {
		if f.failed != nil {
			failures = append(failures, f.failed)
		} else {
			answered++
			beside = append(beside, f.skipped)
		}
		addrs = append(addrs, f.known...)
		if len(f.known) > 0 && !h.all {
			break
		}
	}
	// "No addresses" counts only if every deciding family says so.
	if answered == 0 || (len(addrs) == 0 && len(failures) > 0) {
		return nil, nil, errors.Join(failures...)
	}
	return addrs, errors.Join(append(beside, failures...)...), nil
}

// usable returns the addresses of the wanted family that can be connected to,
// sorted and without duplicates. Addresses of the other family are left out
// silently, since a look-up func may ignore which one it was asked for.
func usable(addrs []netip.Addr, network string, skipped *SkippedError) []netip.Addr {
	var good []netip.Addr
	for _, addr := range addrs {
		addr = addr.Unmap() // package net gives IPv4 addresses in IPv6 form, too
		switch {
		case !addr.IsValid():
			skipped.Add(errors.New("not an address"))
		case addr.Is4() != (network == "ip4"):
		case addr.IsUnspecified() || addr.IsMulticast():
			skipped.Add(fmt.Errorf("%v cannot be connected to", addr))
		default:
			good = append(good, addr)
		}
	}
	slices.SortFunc(good, netip.Addr.Compare)
	return slices.Compact(good)
}

package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// zeroShare is what an SRV weight of 0 is in relation to the smallest weight
// above 0 beside it. RFC 2782 wants "a very small chance of being selected".
const zeroShare = 0.01

// srvRecord is an SRV record in our terms.
type srvRecord struct {
	target   string // in lower case, ending in a dot
	port     uint16
	priority int
	weight   float64 // never 0
}

// usableRecords returns the records that name a place to connect to, in a fixed
// order: package net shuffles them.
func usableRecords(records []*net.SRV, skipped *SkippedError) []srvRecord {
	weight := srvWeights(records)
	absent := !slices.ContainsFunc(records, func(r *net.SRV) bool { return r == nil || r.Target != "." })
	var usable []srvRecord
	for _, r := range records {
		switch {
		case r == nil:
			skipped.Add(errors.New("not a record"))
		case absent:
			// "The service is decidedly not available at this domain."
		case r.Target == "." || r.Target == "":
			skipped.Add(errors.New("a record without target beside others"))
		case r.Port == 0:
			skipped.Add(fmt.Errorf("no port for %s", r.Target))
		default:
			usable = append(usable, srvRecord{absolute(r.Target), r.Port, int(r.Priority), weight(r)})
		}
	}
	slices.SortFunc(usable, func(a, b srvRecord) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.target, b.target),
			cmp.Compare(a.port, b.port), cmp.Compare(a.weight, b.weight))
	})
	return usable
}

// srvWeights returns what the weights of records mean among each other.
func srvWeights(records []*net.SRV) func(*net.SRV) float64 {
	smallest := map[uint16]uint16{} // above 0, by priority
	for _, r := range records {
		if r == nil || r.Weight == 0 {
			continue
		}
		if least, known := smallest[r.Priority]; !known || r.Weight < least {
			smallest[r.Priority] = r.Weight
		}
	}
	return func(r *net.SRV) float64 {
		switch least, others := smallest[r.Priority]; {
		case r.Weight > 0:
			return float64(r.Weight)
		case others:
			return zeroShare * float64(least)
		default:
			return 1
		}
	}
}

// absolute returns the name in the form that is its own key. A target is never
// relative, so the machine's search list must stay out of its look-up.
func absolute(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + "."
}

// assemble makes endpoints of the records and what is known of their targets.
// Records there are, so to be left with nothing is a failure and not an empty
// answer.
func (w *srvWatch) assemble(records []srvRecord, skipped *SkippedError) answer {
	set := srvSet{at: map[string]int{}}
	var beside []error
	reported := map[*target]bool{}
	for _, r := range records {
		t := w.targets[r.target]
		if len(t.addrs) == 0 {
			skipped.Add(t.unusable())
			continue
		}
		if !reported[t] {
			beside = append(beside, t.beside, t.failed)
			reported[t] = true
		}
		set.add(r, t.addrs)
	}
	if len(set.endpoints) == 0 {
		return answer{failed: fmt.Errorf("no usable record of %s: %w", w.query(), skipped)}
	}
	return answer{endpoints: set.endpoints, skipped: errors.Join(append(beside, skipped.Err())...)}
}

func (t *target) unusable() error {
	if t.failed != nil {
		return t.failed
	}
	return fmt.Errorf("%s has no addresses", t.host.name)
}

// srvSet collects endpoints, each address and port once.
type srvSet struct {
	endpoints []Endpoint
	at        map[string]int // index by address
}

// add adds the endpoints of a record. Records come by rising priority, so where
// two lead to the same place the earlier one decides its priority, and its
// weight is the sum of those of that priority.
func (s *srvSet) add(r srvRecord, addrs []netip.Addr) {
	share := r.weight / float64(len(addrs))
	for _, addr := range addrs {
		address := netip.AddrPortFrom(addr, r.port).String()
		i, twice := s.at[address]
		if !twice {
			s.at[address] = len(s.endpoints)
			s.endpoints = append(s.endpoints, Endpoint{Address: address, Weight: share, Priority: r.priority})
			continue
		}
		if e := &s.endpoints[i]; e.Priority == r.priority {
			e.Weight += share
		}
	}
}

package discovery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// SRV is a service that publishes SRV records (RFC 2782): each names a host, a
// port of its own, a priority and a weight. They become endpoints as follows.
//
//   - The priority is that of the endpoint: a higher number is used only while
//     no endpoint of a lower one can be.
//   - The weight is the weight. A weight of 0 beside others is a hundredth
//     of the smallest other one in the same priority, which is "a very small
//     chance of being selected" in a number; where all are 0, all are equal.
//   - A host with several addresses is several endpoints, which share its weight.
//   - The target "." says that the service is decidedly not available: an empty
//     answer.
//
// A record that makes no sense, or whose target does not exist, is left out and
// counted; the others are used. A target that could not be asked for keeps the
// addresses it had. The identity of an endpoint is its address. What DNS says
// of answers and errors holds here, too.
//
// Only Name has to be set. An SRV is a value and may be used concurrently.
type SRV struct {
	// Service and Proto are the first two labels of the name to look up,
	// without their underscores, such as "http" and "tcp". Both empty mean
	// that Name is the complete name.
	Service, Proto string

	// Name is the domain, such as "example.com".
	Name string

	// Family says which addresses of a target are used. See [Family].
	Family Family

	// Interval is the time between two look-ups, spread by 10 % either way.
	// Zero means 30s (or MinInterval, where that is longer), negative is an
	// error.
	Interval time.Duration

	// MinInterval is the least time from one look-up to the next. Zero means
	// 3s (or Interval, where that is shorter), negative or more than Interval
	// is an error. See [DNS].
	MinInterval time.Duration

	// Timeout bounds a look-up: that of the records and those of all targets
	// together. Zero means 5s, negative is an error.
	Timeout time.Duration

	// LookupSRV asks for the records. The method LookupSRV of a [net.Resolver]
	// is one. Records beside an error are used and the error is told. It has
	// to return soon after its context is done. Nil means the resolver of the
	// machine, as in [DNS].
	LookupSRV func(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)

	// Lookup asks for the addresses of a target, which always ends in a dot.
	// See [DNS]; here it is called for several targets at once.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Watch implements [Resolver]. It returns at once what Validate returns, if that
// is an error.
func (s SRV) Watch(ctx context.Context, sink Sink) error {
	if err := s.Validate(); err != nil {
		return err
	}
	s = s.withDefaults()
	if s.LookupSRV == nil {
		s.LookupSRV = machine{sink.Clock, s.Timeout}.LookupSRV
	}
	if s.Lookup == nil {
		s.Lookup = machine{sink.Clock, s.Timeout}.LookupNetIP
	}
	w := srvWatch{SRV: s, targets: map[string]*target{}}
	return poll(ctx, sink, s.pace(), w.look)
}

const underscored = "must be without the underscore, which is added"

// Validate returns all problems joined, or nil.
func (s SRV) Validate() error {
	var errs field.Errors
	errs.Check((s.Service == "") == (s.Proto == ""), "Proto", s.Proto, "must be set if, and only if, Service is")
	errs.Check(!strings.HasPrefix(s.Service, "_"), "Service", s.Service, underscored)
	errs.Check(!strings.HasPrefix(s.Proto, "_"), "Proto", s.Proto, underscored)
	problem := hostProblem(s.Name)
	errs.Check(problem == "", "Name", s.Name, problem)
	errs.Check(int(s.Family) < len(familyNames), "Family", uint8(s.Family), "must be one of the families")
	s.pace().check(&errs)
	return errs.Err()
}

func (s SRV) withDefaults() SRV {
	p := s.pace().withDefaults()
	s.Interval, s.MinInterval, s.Timeout = p.interval, p.min, p.timeout
	return s
}

func (s SRV) pace() pace {
	return pace{interval: s.Interval, min: s.MinInterval, timeout: s.Timeout}
}

// query returns the name that is looked up.
func (s SRV) query() string {
	if s.Service == "" {
		return s.Name
	}
	return "_" + s.Service + "._" + s.Proto + "." + s.Name
}

// targetsAtOnce bounds the look-ups of targets that run at the same time, two
// queries each: enough to hide the latency, few enough for a small name server.
const targetsAtOnce = 16

// srvWatch is the state of one watch. It is used by one goroutine at a time.
type srvWatch struct {
	SRV
	targets map[string]*target // of the latest answer
}

// target is what is known of the host that a record names.
type target struct {
	host   *host
	addrs  []netip.Addr // the latest that were known
	beside error        // what was wrong with a part of them
	failed error        // why the latest look-up got no answer
}

// look asks for the records, then for the addresses of their targets.
func (w *srvWatch) look(ctx context.Context) answer {
	_, records, err := w.LookupSRV(ctx, w.Service, w.Proto, w.Name)
	if err != nil && len(records) == 0 {
		if isNotFound(err) {
			return answer{}
		}
		return answer{failed: fmt.Errorf("look-up of %s (SRV): %w", w.query(), why(ctx, err))}
	}
	var skipped SkippedError
	if err != nil { // package net found bad records among these good ones
		skipped.Add(err)
	}
	usable := usableRecords(records, &skipped)
	if len(usable) == 0 && skipped.Count == 0 {
		return answer{}
	}
	w.resolve(ctx, usable)
	return w.assemble(usable, &skipped)
}

// resolve looks up each target once, and forgets those that are gone.
func (w *srvWatch) resolve(ctx context.Context, records []srvRecord) {
	wanted := make(map[string]*target, len(records))
	slots := make(chan struct{}, targetsAtOnce)
	var wg sync.WaitGroup
	for _, r := range records {
		if wanted[r.target] != nil {
			continue
		}
		t := w.targets[r.target]
		if t == nil {
			t = &target{host: newHost(r.target, w.Family)}
		}
		wanted[r.target] = t
		slots <- struct{}{}
		wg.Go(func() {
			t.look(ctx, w.Lookup)
			<-slots
		})
	}
	wg.Wait()
	w.targets = wanted
}

func (t *target) look(ctx context.Context, lookup lookupFunc) {
	addrs, beside, failed := t.host.look(ctx, lookup)
	t.beside, t.failed = beside, failed
	if failed == nil {
		t.addrs = addrs
	}
}

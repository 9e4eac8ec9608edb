package evenkeel

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// index is how requests find their service.
type index struct {
	names   map[string]*member
	targets map[target]*member // nil where several have the same
}

// member is a service whose configuration is valid.
type member struct {
	name      string // in lower case
	text      string // the target as it is written
	target    target
	options   []Option
	transport atomic.Pointer[Transport] // nil until it is made
}

// members returns the services, or all that is wrong with them.
func (c *ServicesConfig) members() ([]*member, error) {
	var errs field.Errors
	if c.Find != nil {
		_, err := c.member("placeholder", Service{})
		errs.Under("Defaults", err)
	}
	members := make([]*member, 0, len(c.Services))
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		path, service := pathOf(name), c.Services[name]
		lower := strings.ToLower(name)
		if !isName(name) {
			errs.Add(path, name, "must have a host name without a port as its name")
			lower = "placeholder" // or the target would say the same again
		} else if other, twice := seen[lower]; twice {
			errs.Add(path, name, fmt.Sprintf("must differ from %q by more than case", other))
		} else {
			seen[lower] = name
		}
		m, err := c.member(lower, service)
		errs.Under(path, err)
		members = append(members, m)
	}
	return members, errs.Err()
}

func pathOf(name string) string { return fmt.Sprintf("Services[%q]", name) }

// isName reports whether s may be the name of a service.
func isName(s string) bool { return isHost(s) && !strings.Contains(s, ":") }

// member completes a service, and returns what is wrong with it.
func (c *ServicesConfig) member(name string, service Service) (*member, error) {
	m := &member{name: name, text: service.Target, options: slices.Concat(c.Defaults, service.Options)}
	if m.text == "" {
		m.text = "http://" + name
	}
	var s settings
	for _, o := range m.options {
		o.apply(&s)
	}
	var err error
	m.target, err = s.check(m.text)
	return m, err
}

// open makes the transport of the service.
func (m *member) open() (*Transport, error) {
	t, err := New(m.text, m.options...)
	if err != nil {
		return nil, err
	}
	t.address, err = url.Parse(m.text) // before anybody calls
	return t, err
}

// allows reports whether a request of that scheme may go to the service: who asks for TLS must get
// it.
func (m *member) allows(scheme string) bool {
	return scheme != "https" || m.target.scheme == scheme
}

// with returns an index that has more services.
func (x *index) with(more ...*member) *index {
	next := &index{names: map[string]*member{}, targets: map[target]*member{}}
	maps.Copy(next.names, x.names)
	maps.Copy(next.targets, x.targets)
	for _, m := range more {
		next.names[m.name] = m
		if _, shared := next.targets[m.target]; shared {
			next.targets[m.target] = nil
		} else {
			next.targets[m.target] = m
		}
	}
	return next
}

// ready returns the transport of nearly all requests, nil if it takes a closer look: it is not made
// yet, or the URL is not written in the simplest form.
func (x *index) ready(u *url.URL) *Transport {
	if u == nil {
		return nil
	}
	m := x.names[u.Host]
	if m == nil || (u.Scheme != "http" && u.Scheme != logical && (u.Scheme != "https" || !m.allows("https"))) {
		return nil
	}
	return m.transport.Load()
}

// find returns the service that a URL is for, and its name if the URL has the form of one. Either
// may be missing.
func (x *index) find(u *url.URL) (m *member, name string) {
	if u == nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != logical) {
		return nil, ""
	}
	t, ok := targetOf(u.Scheme, u.Host)
	if !ok {
		return nil, ""
	}
	if t.port == defaultPort(t.scheme) && isName(t.host) && (t.scheme != logical || u.Port() == "") {
		name = t.host
	}
	if m = x.names[name]; m == nil {
		m = x.targets[t] // none has the scheme lb
	}
	return m, name
}

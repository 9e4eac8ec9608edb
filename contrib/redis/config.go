package redis

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/session"
)

// Config says where Redis is, and how a [Store] uses it. Only Options has no default.
type Config struct {
	// Options are those of go-redis. Addrs must name Redis: one server, several nodes of a
	// cluster, or the sentinels if MasterName is set. The store has a client of its own, because its
	// time limits are other ones than those of data. It sets ContextTimeoutEnabled, and MaxRetries
	// to none. Where they are zero, DialTimeout, ReadTimeout, WriteTimeout and PoolTimeout become
	// Timeout, DialerRetries 1, and notifications of maintenance are off. A DialTimeout longer than
	// Timeout is for a Redis that is far away: nobody waits for longer than Timeout, and who comes
	// later has the connection. ReadOnly, RouteByLatency and RouteRandomly must not be set.
	Options redis.UniversalOptions

	// Prefix is what all keys begin with. Empty means "evenkeel:session:". Services which share a
	// Redis need prefixes of their own: the same session key may mean something else to another one.
	Prefix string

	// TTL is how long a key is remembered after its last use, give or take a quarter. Zero means 10m,
	// at least 1ms. It should be the same in all replicas.
	TTL time.Duration

	// Timeout bounds one operation, with all its round trips. Zero means 50ms. It should be shorter
	// than session.Policy.StoreTimeout: a Redis that hangs is only found out by who waits for it
	// longer than this.
	Timeout time.Duration

	// Breaker says when Redis is left alone because it fails. Other than elsewhere,
	// ConsecutiveFailures are 3 by default, OpenFor is 1s, MaxOpenFor 10s, and Probes 1: while Redis
	// hangs, one call waits for it every few seconds. Its OnChange tells when Redis is away.
	Breaker breaker.Config

	// Local is what this replica remembers by itself, for when Redis cannot be asked. Its TTL is that
	// of the store by default, and should be the same in all replicas.
	Local session.TableConfig

	// Clock is the clock of Breaker and Local where they have none; nil means the system's. The time
	// limits are in real time, as networks are.
	Clock clock.Clock
}

const (
	defaultPrefix  = "evenkeel:session:"
	defaultTTL     = 10 * time.Minute
	defaultTimeout = 50 * time.Millisecond

	defaultConsecutive = 3
	defaultOpenFor     = time.Second
	defaultMaxOpenFor  = 10 * time.Second
	defaultProbes      = 1

	minTTL = time.Millisecond // Redis counts in these
)

// withDefaults returns the configuration as it is applied.
func (c Config) withDefaults() Config {
	byDefault(&c.Prefix, defaultPrefix)
	byDefault(&c.TTL, defaultTTL)
	byDefault(&c.Timeout, defaultTimeout)

	o := &c.Options
	o.Addrs = slices.Clone(o.Addrs)
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1
	byDefault(&o.DialTimeout, c.Timeout)
	byDefault(&o.ReadTimeout, c.Timeout)
	byDefault(&o.WriteTimeout, c.Timeout)
	byDefault(&o.PoolTimeout, c.Timeout)
	byDefault(&o.DialerRetries, 1)
	if o.MaintNotificationsConfig == nil {
		// They cost a round trip on each new connection, and goroutines, for waiting longer.
		o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled, EndpointType: maintnotifications.EndpointTypeNone}
	}

	byDefault(&c.Breaker.ConsecutiveFailures, defaultConsecutive)
	byDefault(&c.Breaker.OpenFor, defaultOpenFor)
	byDefault(&c.Breaker.MaxOpenFor, max(defaultMaxOpenFor, c.Breaker.OpenFor))
	byDefault(&c.Breaker.Probes, defaultProbes)

	byDefault(&c.Local.TTL, c.TTL)
	if c.Breaker.Clock == nil {
		c.Breaker.Clock = c.Clock
	}
	if c.Local.Clock == nil {
		c.Local.Clock = c.Clock
	}
	return c
}

// byDefault replaces a value that was left out.
func byDefault[T comparable](value *T, other T) {
	var zero T
	if *value == zero {
		*value = other
	}
}

// Validate returns nil, or all that is wrong with the configuration: field errors
// ([evenkeel.FieldError]) joined.
func (c Config) Validate() error {
	var p problems
	p.checkOptions(c.Options)
	p.check(c.TTL == 0 || c.TTL >= minTTL, "TTL", c.TTL, "must be at least 1ms")
	p.check(c.Timeout >= 0, "Timeout", c.Timeout, "must not be negative")
	// Of what follows from a wrong TTL, the cause is enough.
	d := c.withDefaults()
	p.under("Breaker", d.Breaker.Validate())
	if d.Local.TTL != d.TTL {
		p.under("Local", d.Local.Validate())
	} else {
		p.under("Local", session.TableConfig{MaxSessions: d.Local.MaxSessions}.Validate())
	}
	return p.err()
}

func (p *problems) checkOptions(o redis.UniversalOptions) {
	p.check(len(o.Addrs) > 0, "Options.Addrs", o.Addrs, "must name a server")
	for _, addr := range o.Addrs {
		if !isAddress(addr) {
			// The address is not shown: a URL has a password.
			p.add("Options.Addrs", "something else", "must be host:port each, or the path of a socket, and no URLs")
			break
		}
	}
	const stale = "must not be set: replicas of Redis may not have heard of a pin yet"
	p.check(!o.ReadOnly, "Options.ReadOnly", o.ReadOnly, stale)
	p.check(!o.RouteByLatency, "Options.RouteByLatency", o.RouteByLatency, stale)
	p.check(!o.RouteRandomly, "Options.RouteRandomly", o.RouteRandomly, stale)
	for _, limit := range []struct {
		name  string
		value time.Duration
	}{
		{"Options.DialTimeout", o.DialTimeout},
		{"Options.ReadTimeout", o.ReadTimeout},
		{"Options.WriteTimeout", o.WriteTimeout},
		{"Options.PoolTimeout", o.PoolTimeout},
	} {
		p.check(limit.value >= 0, limit.name, limit.value, "must not be negative: nothing waits for ever")
	}
}

// isAddress reports whether go-redis can dial an address.
func isAddress(addr string) bool {
	if strings.HasPrefix(addr, "/") {
		return true
	}
	_, port, err := net.SplitHostPort(addr)
	return err == nil && port != "" && !strings.ContainsAny(addr, "/@")
}

// problems are what is wrong with a configuration.
type problems []error

func (p *problems) add(field string, value any, problem string) {
	*p = append(*p, &evenkeel.FieldError{Field: field, Value: value, Problem: problem})
}

func (p *problems) check(ok bool, field string, value any, problem string) {
	if !ok {
		p.add(field, value, problem)
	}
}

// under notes problems of a part of the configuration.
func (p *problems) under(field string, err error) {
	switch err := err.(type) { //nolint:errorlint // takes apart what Validate has joined
	case nil:
	case *evenkeel.FieldError:
		p.add(field+"."+err.Field, err.Value, err.Problem)
	case interface{ Unwrap() []error }:
		for _, part := range err.Unwrap() {
			p.under(field, part)
		}
	default:
		*p = append(*p, fmt.Errorf("%s: %w", field, err))
	}
}

func (p *problems) err() error { return errors.Join(*p...) }

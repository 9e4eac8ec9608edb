package redis

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/session"
)

func at(addrs ...string) redis.UniversalOptions { return redis.UniversalOptions{Addrs: addrs} }

func TestConfig_Validate(t *testing.T) {
	for _, row := range []struct {
		name string
		c    Config
		want string // fields
	}{
		{"the least", Config{Options: at("localhost:6379")}, ""},
		{"a socket and nodes", Config{Options: at("/run/redis.sock", "[::1]:6379", "b:1")}, ""},
		{"nothing", Config{}, "Options.Addrs"},
		{"a host alone", Config{Options: at("localhost")}, "Options.Addrs"},
		{"no port", Config{Options: at("localhost:")}, "Options.Addrs"},
		{"a URL", Config{Options: at("redis://:hunter2@localhost:6379")}, "Options.Addrs"},
		{"with a password", Config{Options: at("a:1", "hunter2@localhost:6379")}, "Options.Addrs"},
		{
			"replicas",
			Config{Options: redis.UniversalOptions{Addrs: []string{"a:1"}, ReadOnly: true, RouteByLatency: true, RouteRandomly: true}},
			"Options.ReadOnly Options.RouteByLatency Options.RouteRandomly",
		},
		{
			"no limits",
			Config{Options: redis.UniversalOptions{Addrs: []string{"a:1"}, DialTimeout: -1, ReadTimeout: -1, WriteTimeout: -2, PoolTimeout: -1}},
			"Options.DialTimeout Options.ReadTimeout Options.WriteTimeout Options.PoolTimeout",
		},
		{"TTL", Config{Options: at("a:1"), TTL: -1}, "TTL"},
		{"TTL of less than Redis counts", Config{Options: at("a:1"), TTL: time.Microsecond}, "TTL"},
		{"parts", Config{
			Options: at("a:1"),
			Breaker: breaker.Config{Probes: -1, MaxOpenFor: time.Millisecond},
			Local:   session.TableConfig{TTL: -1, MaxSessions: -1},
		}, "Breaker.Probes Breaker.MaxOpenFor Local.TTL Local.MaxSessions"},
		{"long open", Config{Options: at("a:1"), Breaker: breaker.Config{OpenFor: time.Hour}}, ""},
		{"all at once", Config{TTL: -1, Timeout: -1, Breaker: breaker.Config{Probes: -1}, Local: session.TableConfig{MaxSessions: -1}}, "Options.Addrs TTL Timeout Breaker.Probes Local.MaxSessions"},
	} {
		t.Run(row.name, func(t *testing.T) {
			store, err := New(row.c)
			assert.Equal(t, row.want, strings.Join(fields(t, err), " "))
			if err == nil {
				assert.NoError(t, store.Close())
				return
			}
			assert.Nil(t, store)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// fields returns the fields that an error tells of.
func fields(t *testing.T, err error) (names []string) {
	t.Helper()
	if err == nil {
		return nil
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	for _, part := range parts {
		var problem *evenkeel.FieldError
		require.ErrorAs(t, part, &problem)
		names = append(names, problem.Field)
	}
	return names
}

// go-redis panics on sizes that it cannot make.
func TestNew_WhatGoRedisCannotUse(t *testing.T) {
	for _, o := range []redis.UniversalOptions{
		{Addrs: []string{"a:1"}, PoolSize: -1},
		{Addrs: []string{"a:1"}, PoolSize: math.MaxInt},
	} {
		_, err := New(Config{Options: o})
		assert.Equal(t, []string{"Options"}, fields(t, err), "%v", err)
	}
}

func TestConfig_Defaults(t *testing.T) {
	c := Config{Options: at("a:1")}.withDefaults()
	assert.Equal(t, "evenkeel:session:", c.Prefix)
	assert.Equal(t, 10*time.Minute, c.TTL)
	assert.Equal(t, 10*time.Minute, c.Local.TTL)
	assert.Equal(t, 50*time.Millisecond, c.Timeout)
	assert.Equal(t, 3, c.Breaker.ConsecutiveFailures)
	assert.Equal(t, time.Second, c.Breaker.OpenFor)
	assert.Equal(t, 10*time.Second, c.Breaker.MaxOpenFor)
	assert.Equal(t, 1, c.Breaker.Probes)
	o := c.Options
	assert.True(t, o.ContextTimeoutEnabled)
	assert.Equal(t, -1, o.MaxRetries)
	assert.Equal(t, 1, o.DialerRetries)
	for _, d := range []time.Duration{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout} {
		assert.Equal(t, 50*time.Millisecond, d)
	}

	fake, other := clock.NewFake(time.Time{}), clock.NewFake(time.Time{})
	given := Config{
		Options: redis.UniversalOptions{
			Addrs: []string{"a:1"}, DialTimeout: 1, ReadTimeout: 2, WriteTimeout: 3, PoolTimeout: 4, DialerRetries: 5,
		},
		Prefix: "p", TTL: time.Hour, Timeout: time.Second,
		Breaker: breaker.Config{ConsecutiveFailures: breaker.Off, OpenFor: time.Minute, Clock: other},
		Local:   session.TableConfig{TTL: time.Minute},
		Clock:   fake,
	}.withDefaults()
	assert.Equal(t, breaker.Off, given.Breaker.ConsecutiveFailures)
	assert.Equal(t, time.Minute, given.Breaker.MaxOpenFor)
	assert.Same(t, other, given.Breaker.Clock)
	assert.Same(t, fake, given.Local.Clock)
	assert.Equal(t, time.Minute, given.Local.TTL)
	o = given.Options
	assert.Equal(t, []time.Duration{1, 2, 3, 4, 5}, []time.Duration{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, time.Duration(o.DialerRetries)})
}

func TestExplain(t *testing.T) {
	assert.NoError(t, explain(nil))
	inner := errors.New("inner")
	assert.ErrorIs(t, explain(inner), inner)
	for text, want := range map[string]string{
		"WRONGPASS invalid username-password pair or user is disabled.":       "WRONGPASS invalid username-password pair or user is disabled.",
		"ERR unknown command 'AUTH', with args beginning with: 'hunter2' ":    "ERR unknown command ...",
		"ERR unknown command `AUTH`, with args beginning with: `hunter2`, ":   "ERR unknown command ...",
		"NOPERM User default has no permissions to run the 'evalsha' command": "NOPERM User default has no permissions to run the ...",
	} {
		assert.Equal(t, want, withoutQuotes(text))
	}
}

package evenkeel

import (
	"reflect"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/session"
)

// sessionConfig completes the configuration of the sessions with what the transport decides for all
// policies.
func (s *settings) sessionConfig(c Config, target string) session.Config {
	return session.Config{Policy: c.Session, Target: target, OnEvent: s.hooks.Session, Clock: s.clock}
}

// picksAs reports whether two policies pick endpoints in the same way.
func (c Config) picksAs(o Config) bool {
	return reflect.DeepEqual(c.Balancer, o.Balancer) && reflect.DeepEqual(c.Rules, o.Rules) &&
		reflect.DeepEqual(c.hash(), o.hash())
}

// hash returns the session policy if sessions are kept by a hash, else nil.
func (c Config) hash() *session.Hash {
	if c.Session == nil {
		return nil
	}
	if h, ok := c.Session.By.(session.Hash); ok {
		return &h
	}
	return nil
}

// algorithm returns how endpoints are picked: sessions by hash are the balancer's doing.
func (c Config) algorithm() balancer.Algorithm {
	hash := c.hash()
	if hash == nil {
		return c.Balancer
	}
	keys := []balancer.HashKey{{Func: session.KeyOf, Terminal: true}}
	for _, p := range hash.From {
		keys = append(keys, balancer.HashKey{
			Header: p.Header, Cookie: p.Cookie, Query: p.Query, Path: p.Path,
			ClientAddress: p.ClientAddress, Func: p.Func, Terminal: true,
		})
	}
	return balancer.Maglev{Keys: keys, Fallback: c.Balancer}
}

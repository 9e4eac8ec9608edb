package evenkeel

import (
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/session"
)

// sessionConfig completes the configuration of the sessions with what the transport decides for all
// policies.
func (s *settings) sessionConfig(c Config, target string) session.Config {
	return session.Config{Policy: c.Session, Target: target, OnEvent: s.hooks.Session, Clock: s.clock}
}

// algorithm returns how endpoints are picked: sessions by hash are the balancer's doing.
func (c Config) algorithm() balancer.Algorithm {
	if c.Session == nil {
		return c.Balancer
	}
	hash, ok := c.Session.By.(session.Hash)
	if !ok {
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

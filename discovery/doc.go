// Package discovery finds the endpoints of a service and keeps watching them.
//
// A [Resolver] describes where endpoints come from: [Static] and [List] from
// the program, [DNS] and [SRV] from the name service, [File] from a JSON file
// that something else writes, [Merge] from several of these. Registries such as
// Consul, etcd and Kubernetes are modules of their own, built on the same
// interface.
//
// Every resolver says plainly what its source says, errors and empty answers
// included. [LastGood] stands between a resolver and whoever uses its endpoints,
// so that a source which hiccups, lies or falls silent does not take a service
// down. The pool of package balancer wraps its resolver in it.
package discovery

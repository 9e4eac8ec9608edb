// Package balancer picks the endpoint of each attempt and keeps the endpoints'
// connections.
//
// A [Pool] watches a discovery.Resolver. It holds, for every endpoint, what is
// known of it: how many requests it has, what an [Algorithm] has learnt of its
// latency, its connections. All of that belongs to the endpoint's identity
// (discovery.Key): an update of the set keeps it for those that stay, and an
// address that returns under another identity starts afresh.
//
// What picks read is an immutable snapshot behind one atomic pointer. It holds
// only the endpoints that may be used, in tiers by priority, so a pick takes no
// lock, allocates nothing, and looks at no endpoint that cannot serve.
//
// # Algorithms
//
// Start with [PeakEWMA], which is the default: it learns how long each endpoint
// takes, and avoids what is slow, overloaded or failing. Take another one
//
//   - where answers are too few or too different to learn from: [LeastRequest];
//   - where requests must be even in number: [RoundRobin];
//   - as a baseline, or for very many clients with a few requests each: [Random];
//   - where requests with the same key should meet the same endpoint, for its
//     cache: [Rendezvous] up to about 100 endpoints, [Maglev] above, [RingHash] to
//     match a ring that exists;
//   - where servers report their load (package orca): [HotCold], or [LoadWeighted]
//     for weights that change slowly.
//
// An algorithm of your own implements the three small interfaces that these do.
//
// # Rules
//
// [Rules] say which endpoints the algorithm may choose from, and work with every
// one of them. A pick goes through them in this order:
//
//  1. A [Route] that applies to the request leaves the endpoints whose attribute
//     has the value that it asks for.
//  2. Of these, those that are draining are never used. Those that are unhealthy
//     are not, unless so many are that it is [Panic].
//  3. A priority is drawn, by how much each can carry ([Priorities]). Standby
//     endpoints serve when nothing else can.
//  4. A zone is drawn, mostly the local one ([Zones]).
//  5. Of a large pool, this client uses a part ([Subset]).
//  6. The algorithm picks. An endpoint that is new counts for less ([SlowStart]);
//     one that the call has tried, or that is full (MaxInFlight), is passed over.
//
// All but the draws is done when something changes, not when a request comes.
//
// # Connections
//
// [Transport] is the http.RoundTripper for a pool. Each endpoint has connections
// of its own, made from a template; requests keep the URL, Host and TLS server
// name of their target, and only the dial goes to the endpoint. The defaults of
// those transports: dial within 3s, TLS handshake within 5s, 100 idle connections
// per endpoint for 90s, and on HTTP/2 a ping after 15s of silence, to be answered
// within 5s.
//
// An endpoint that leaves gets nothing new at once. The requests that it has may
// end; then its connections are closed.
//
// The package repeats nothing: package retry does. It does not probe endpoints
// either: what it knows of their health is what an algorithm learns from attempts,
// what the breakers of package breaker find ([Config].Breakers), and what
// [Pool.SetHealthy] is told.
package balancer

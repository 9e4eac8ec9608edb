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
// Start with [PeakEWMA], which is the default. Take [LeastRequest] where answers
// are too few to learn from, [RoundRobin] where requests must be even in number,
// [Random] as a baseline. An algorithm of your own implements the three small
// interfaces that these do.
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
// either; what it knows of their health is what an algorithm learns from attempts.
package balancer

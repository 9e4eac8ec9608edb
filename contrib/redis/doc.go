// Package redis remembers sessions in Redis, for all replicas of a service.
//
// A session.Table knows what one process has seen. Behind a load balancer of its own, a service has
// several replicas, and the requests of one session come to any of them: they must agree on the
// session's endpoint, and a replica that has just started must know it. A [Store] is a session.Store
// which keeps that in Redis, through go-redis. Start with [New], and give the store to session.Key or
// session.Learn.
//
// # What Redis holds
//
// A session is one key of Redis: Config.Prefix and the SHA-256 of the session's key, in base64, so
// that neither secrets nor long or binary keys get there. (A hash does not hide what can be guessed:
// whoever reads Redis and suspects a key can see whether it is there.) Its value is the identity of an
// endpoint; an empty one says that the session was ended (see below). It expires Config.TTL after its last
// use. A use is not a write: to look a key up is to read it with the life that it has left, in one round
// trip, and only when less than three quarters of TTL are left is a second one spent on extending it. So a
// session is forgotten between three quarters of TTL and TTL after its last request, unless a replica
// remembers it itself (see below).
//
// Pinning and extending are scripts that Redis runs in one piece. Of any number of replicas that pin a key at
// once, one succeeds, and all learn the same endpoint.
//
// # When Redis is away
//
// To know a session's endpoint is worth a few milliseconds, and not an error: calls must go on without
// Redis. So each operation has a time limit of its own (Config.Timeout), and a breaker
// (Config.Breaker) leaves Redis alone for a while after a few failures in a row, so that nobody waits.
//
// What this replica has seen in Redis it also remembers in a session.Table (Config.Local). When Redis
// cannot be asked, the store answers from there, and pins there. It then returns both an endpoint and
// an error: the endpoint is to be used, and the error says that other replicas may disagree. As
// soon as Redis answers, what it says counts, and replaces what is remembered.
//
// A Redis that has been restarted without its data answers, and knows nothing. A key that is unknown
// there and remembered here is pinned there again, when it is looked up and when it is pinned. So
// replicas restore together what they know, and agree: if they remember different endpoints, the first
// one wins. It also means that keys which somebody deletes from Redis come back, as long as a replica
// remembers them.
//
// # Ending a session
//
// To end a session, pin it to nothing: Pin(ctx, key, endpoint, "") forgets the key if that is its
// endpoint. As other replicas may still remember it, Redis keeps a mark in its place, an empty value: a
// replica that finds it forgets the key, too, in place of restoring it. A pin replaces the mark, so the
// same key can begin anew. A mark lives for the longer one of TTL and Config.Local.TTL, and a Timeout
// more, after which no replica remembers what it knew. To look it up does not extend its life.
//
// While Redis cannot be asked, a key is forgotten in the memory of this replica only, and Pin returns
// an error: try again later, as the session goes on otherwise. A forgotten key can come back from a
// replica that has not found the mark: if Redis has lost it, or if that replica could not ask Redis
// for as long as the mark lived, and had requests of the session in that time.
//
// # What it does not do
//
// It does not read from replicas of Redis, which may not have heard of a pin yet. After a failover of
// Redis, the newest pins may be lost, as Redis replicates without being waited for; the same restoring
// makes up for that. Services which share a Redis need prefixes of their own.
//
// A caller that gives up is not told before its operation ends, as go-redis reads on: Config.Timeout
// later at most. Only a deadline is kept to. go-redis writes failed dials to the standard error; its
// SetLogger changes that. The goroutines that there are belong to go-redis: those that dial, and
// one that goes on trying while no connection can be had, which notices up to a second after
// [Store.Close] that it is not needed any more.
package redis

// Package session keeps each caller at one server, for servers that hold state of their callers in
// memory, without making that server a single point of failure.
//
// A [Policy] says how a caller is known again:
//
//   - [Cookie]: by a signed cookie that evenkeel adds to answers. For browsers behind a gateway, and
//     for an [http.Client] with a Jar. Needs no memory, here or elsewhere.
//   - [Key]: by a key, in the request's context ([WithKey]) or anywhere in the request. For Go programs that
//     call on somebody's behalf. Needs a [Store].
//   - [Learn]: by the session cookie, or a header, of the servers themselves. Needs a [Store].
//   - [Route]: by the name of the endpoint somewhere in the request, where servers put it.
//   - [Hash]: by a hash of a key, an address, a header. Needs no memory, and moves some callers whenever
//     endpoints come and go.
//
// In evenkeel.New, evenkeel.WithSession switches it on. Alone, it is put together with a pool:
//
//	keeper, err := session.NewKeeper(session.Config{Policy: &session.Policy{By: session.Key{}}})
//	pool, err := balancer.NewPool(balancer.Config{Resolver: endpoints, Sessions: keeper})
//	t, err := session.NewTransport(balancer.NewTransport(pool, nil), keeper)
//
// # When a session moves
//
// A session stays at its endpoint as long as that can serve: also when endpoints come that are better,
// when a priority with a lower number is back, and when its endpoint is draining, a standby, asked to be left
// alone for a while (by a 429 or a Retry-After: otherwise one caller who asks too much could move all
// others), or waits for its first probe. Then it gets no new sessions, and keeps those it has.
//
// A session moves when its endpoint has left, is found unhealthy by a probe, is ejected, or has an open
// circuit breaker; when it has as many requests as balancer.Rules.MaxInFlight allows; when the request
// is for another route; and when an attempt there has failed and another endpoint has answered the
// retry, or a hedge. (A 429 is no failure in that sense: the retry stays where it is, after its wait.) Where so many endpoints look broken that health is ignored (balancer.Panic),
// sessions stay. A session that has moved is at home where it is: it does not move back. Each
// move is counted, and told with its cause. [Policy.Strict] makes calls fail instead.
//
// A session's requests count in the share of its endpoint: algorithms that look at load see them
// in flight, and those that do not (balancer.RoundRobin, balancer.Random) give the turn of an endpoint that
// got clearly more requests of late to another, so that one with many sessions gets fewer new ones.
//
// Replicas that share a Secret or a Store must have the same endpoints, under the same identities. One that
// has not heard of a new endpoint yet takes it for gone, and moves the sessions that it had in that time.
//
// # What it does not do
//
// It does not keep the state of sessions. Where the state can be kept outside of the servers, in a
// database or in Redis, all servers are equal and no request needs affinity: that is the better way,
// and libraries for it are plenty: examples/sessions in the repository shows both.
package session

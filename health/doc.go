// Package health finds out which endpoints of a service can serve, and says of a server whether it
// can.
//
// On the side of the client a [Monitor] watches endpoints in two ways. It probes them ([Check]): by
// [HTTP], [TCP], [GRPC] or a [Func] of the user's own; probes find what is broken before a request
// does, and cost the endpoints requests. And it looks at the answers to the traffic ([Outlier]):
// endpoints that fail in a row, or more often than the others, are ejected for a while; that is
// free, and finds only what requests run into.
//
// The two do not fight. An endpoint is used while neither speaks against it; a probe that fails
// never ends an ejection, and the end of an ejection makes no endpoint healthy. Of an endpoint of
// which nothing is known yet, the best is assumed. If too much is found unhealthy, the balancer
// ignores health (balancer.Panic), and no more than half of the endpoints are ejected at a time, so
// that a broken check cannot take a service down.
//
// A Monitor is given to a balancer.Pool, or to evenkeel.New by its options. Alone, it watches the
// endpoints that are added to it by [Monitor.Add], and tells what it finds.
//
// On the side of the server a [Handler] answers probes: whether the process lives, whether it is
// ready, and how its components do.
//
// What it does not do: it measures no throughput, and it does not restart anything.
package health

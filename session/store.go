package session

import "context"

// StoreKey returns the key under which a [Store] of a [Policy] knows a caller's key, to end a session by
// hand, say. The target is that of [Config], and for evenkeel.New the scheme, host and port of its URL, such
// as "http://users:80"; the services that share a store do not share keys.
func StoreKey(target, key string) string {
	if target == "" {
		return key
	}
	return target + " " + key
}

// Store remembers where keys are pinned, for [Key] and [Learn]. A [Table] is one in memory;
// contrib/redis has one that all replicas of a service share. It is used concurrently.
//
// Endpoints are named by their identity: discovery.Endpoint.ID, or the address of one without.
// A key is whatever identifies a session: it may be long or binary, and is a secret.
//
// An error is reported, and calls go on, but for those in strict mode. An endpoint beside an error is what
// the store remembers although it cannot be sure: it is used. Methods must return when their context
// ends. They are asked with each call: a store that can be slow for long should notice that, and
// fail at once, as that of contrib/redis does by a circuit breaker.
type Store interface {
	// Lookup returns the endpoint to which the key is pinned, "" if there is none. To be looked
	// up extends a key's life.
	Lookup(ctx context.Context, key string) (endpoint string, err error)

	// Pin pins the key to an endpoint, unless it is pinned to another one than from: then that
	// stays. An empty from means that it was not pinned. It returns where the key is pinned now, so
	// that of many who pin the same key at once, all learn the same. An empty to forgets the key, on the same
	// condition: so ends a session. [Keeper] does not do that by itself.
	Pin(ctx context.Context, key, from, to string) (endpoint string, err error)
}

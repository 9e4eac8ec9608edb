package session

import "context"

// Store remembers where keys are pinned, for [Key] and [Learn]. A [Table] is one in memory;
// contrib/redis has one that all replicas of a service share. It is used concurrently.
//
// Endpoints are named by their identity: discovery.Endpoint.ID, or the address of one without.
// A key is whatever identifies a session: it may be long or binary, and is a secret.
//
// An error is reported, and calls go on. An endpoint beside an error is what the store remembers
// although it cannot be sure: it is used.
type Store interface {
	// Lookup returns the endpoint to which the key is pinned, "" if there is none. To be looked
	// up extends a key's life.
	Lookup(ctx context.Context, key string) (endpoint string, err error)

	// Pin pins the key to an endpoint, unless it is pinned to another one than from: then that
	// stays. An empty from means that it was not pinned. It returns where the key is pinned now, so
	// that of many who pin the same key at once, all learn the same.
	Pin(ctx context.Context, key, from, to string) (endpoint string, err error)
}

// Package hashkey finds the key of a request and hashes it, for policies that
// send equal keys to the same endpoint: a [Sources] says where a request
// carries its key, the [Extractor] made of it reads one, and [String], [Sum64]
// and [Mix] hash. Two clients, on whatever machine, get the same number for
// the same key. That is why neither hash/maphash, whose seed is new in each
// process, nor the order of a map takes part.
//
// The hash is fast and spreads well, but it is no defence: who knows the seed
// can make keys that collide.
package hashkey

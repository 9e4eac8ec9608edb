package hashkey

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH64, as its specification lists them.
const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

// Sum64 returns the XXH64 of b with seed 0. Envoy, gRPC and skipper use the same
// function for consistent hashing.
func Sum64(b []byte) uint64 { return sum(b, 0) }

// String returns the XXH64 of the bytes of s with seed 0.
func String(s string) uint64 { return sum([]byte(s), 0) }

// StringSeed returns the XXH64 of the bytes of s with the given seed. Other
// seeds are other hash functions, where one is not enough.
func StringSeed(s string, seed uint64) uint64 { return sum([]byte(s), seed) }

// Mix returns the XXH64, with seed 0, of the sixteen bytes that are a and then b,
// both little endian. It hashes a pair, such as key and identity, from the
// hashes of its parts. The order of the two matters; for either argument fixed,
// different values of the other give different results.
func Mix(a, b uint64) uint64 {
	return avalanche(mix8(mix8(prime5+16, a), b))
}

// sum is XXH64 (doc/xxhash_spec.md of github.com/Cyan4973/xxHash, "XXH64
// algorithm description"). It neither changes nor keeps b, so that the
// compiler passes it the bytes of a string without copying them.
func sum(b []byte, seed uint64) uint64 {
	n := uint64(len(b))
	h := seed + prime5
	if n >= 32 {
		h, b = stripes(b, seed)
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h = mix8(h, binary.LittleEndian.Uint64(b))
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * prime1
		h = bits.RotateLeft64(h, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * prime5
		h = bits.RotateLeft64(h, 11) * prime1
	}
	return avalanche(h)
}

// stripes takes all whole stripes of 32 bytes in, in four lanes that do not wait
// for each other, and returns what they come to and the bytes that are left.
func stripes(b []byte, seed uint64) (uint64, []byte) {
	v1, v2, v3, v4 := seed+prime1+prime2, seed+prime2, seed, seed-prime1
	for ; len(b) >= 32; b = b[32:] {
		v1 = round(v1, binary.LittleEndian.Uint64(b))
		v2 = round(v2, binary.LittleEndian.Uint64(b[8:]))
		v3 = round(v3, binary.LittleEndian.Uint64(b[16:]))
		v4 = round(v4, binary.LittleEndian.Uint64(b[24:]))
	}
	h := bits.RotateLeft64(v1, 1) + bits.RotateLeft64(v2, 7) + bits.RotateLeft64(v3, 12) + bits.RotateLeft64(v4, 18)
	return merge(merge(merge(merge(h, v1), v2), v3), v4), b
}

func merge(h, lane uint64) uint64 { return (h^round(0, lane))*prime1 + prime4 }

func round(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*prime2, 31) * prime1
}

// mix8 takes eight bytes after the last whole stripe in.
func mix8(h, lane uint64) uint64 {
	return bits.RotateLeft64(h^round(0, lane), 27)*prime1 + prime4
}

// avalanche makes every bit of h count in every bit of the result.
func avalanche(h uint64) uint64 {
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

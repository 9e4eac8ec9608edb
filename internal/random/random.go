// Package random makes the random numbers of a policy: from the runtime's source, or
// from one of the user's, for tests that must be repeatable.
package random

import (
	"math/rand/v2"
	"sync"
)

// Bits returns what draws 64 random bits. Nil means the runtime's source. Access to
// any other is serialised.
func Bits(source rand.Source) func() uint64 {
	if source == nil {
		return rand.Uint64
	}
	var mu sync.Mutex
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}

// Floats returns what draws numbers of [0,1), as [Bits] does.
func Floats(source rand.Source) func() float64 {
	if source == nil {
		return rand.Float64
	}
	bits := Bits(source)
	return func() float64 { return float64(bits()<<11>>11) / (1 << 53) }
}

package random

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Given a source, then the numbers are those that math/rand/v2 draws from it: the same
// in each run.
func TestRandom_FollowsTheSource(t *testing.T) {
	const seed = 11
	bits, floats := Bits(rand.NewPCG(seed, 0)), Floats(rand.NewPCG(seed, 0))
	wantBits, wantFloats := rand.NewPCG(seed, 0), rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		assert.Equal(t, wantBits.Uint64(), bits())
		assert.InDelta(t, wantFloats.Float64(), floats(), 0)
	}
}

// always is a source of one number.
type always uint64

func (a always) Uint64() uint64 { return uint64(a) }

func TestFloats_BelowOne(t *testing.T) {
	assert.Zero(t, Floats(always(0))())
	most := Floats(always(math.MaxUint64))()
	assert.Less(t, most, 1.0)
	assert.Greater(t, most, 1-1e-15)
}

func TestRandom_WithoutASource(t *testing.T) {
	bits, floats := Bits(nil), Floats(nil)
	seen, drawn, sum := map[uint64]bool{}, map[float64]bool{}, 0.0
	const n = 10_000
	for range n {
		seen[bits()] = true
		f := floats()
		drawn[f] = true
		assert.True(t, f >= 0 && f < 1, "%v", f)
		sum += f
	}
	assert.Greater(t, len(seen), n-2)
	assert.Greater(t, len(drawn), n-2)
	assert.InDelta(t, n/2, sum, 150, "five standard deviations of the sum are 144")
}

// counting is a source that must not be used by two at once: the race detector sees it.
type counting struct{ n uint64 }

func (c *counting) Uint64() uint64 {
	c.n++
	return c.n
}

func TestRandom_SerialisesTheSource(t *testing.T) {
	for name, source := range map[string]*counting{"bits": {}, "floats": {}} {
		t.Run(name, func(t *testing.T) {
			bits, floats := Bits(source), Floats(source)
			if name == "bits" {
				floats = nil
			}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 1000 {
						if floats != nil {
							floats()
						} else {
							bits()
						}
					}
				})
			}
			wg.Wait()
			assert.EqualValues(t, 8000, source.n)
		})
	}
}

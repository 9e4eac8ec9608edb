package hashkey

import (
	"encoding/binary"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestString_CheckValues(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]uint64{
		"":              0xef46db3751d8e999,
		"a":             0xd24ec4f1a98c6e5b,
		"abc":           0x44bc2cf5ad770999,
		"10.0.0.1:8080": 0xcb972177068eb685,
	} {
		assert.Equal(t, want, String(s), s)
	}
}

func TestStringSeed_Vectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors {
		b := vectorInput(v.n)
		for i, seed := range vectorSeeds {
			assert.Equal(t, v.want[i], StringSeed(string(b), seed), "%d bytes, seed %#x", v.n, seed)
		}
		assert.Equal(t, v.want[0], Sum64(b), "%d bytes", v.n)
		assert.Equal(t, v.want[0], String(string(b)), "%d bytes", v.n)
		assert.Equal(t, vectorInput(v.n), b, "the input is not changed")
	}
}

// The bytes of a word are found wherever it begins.
func TestSum64_Unaligned(t *testing.T) {
	t.Parallel()
	for shift := range 8 {
		for _, v := range vectors {
			b := append(make([]byte, shift), vectorInput(v.n)...)
			assert.Equal(t, v.want[0], Sum64(b[shift:]), "%d bytes from byte %d", v.n, shift)
		}
	}
}

// The third column is what github.com/cespare/xxhash/v2 v2.3.0 makes of the
// sixteen bytes.
func TestMix_Table(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ a, b, want uint64 }{
		{0x0, 0x0, 0xaf09f71516247c32},
		{0x0, 0x1, 0x5522e3e91134a8fb},
		{0x1, 0x0, 0x6c1cff0459c8bb10},
		{0x1, 0x1, 0xed7aead4b89ab6fc},
		{0x2, 0x1, 0x41525b709a47b22b},
		{0x8000000000000000, 0x0, 0x9f205b53c4272b04},
		{0x0, 0x8000000000000000, 0x4bf71ab29797344d},
		{0xffffffffffffffff, 0xffffffffffffffff, 0xa721445d6a57c444},
		{0xd24ec4f1a98c6e5b, 0xcb972177068eb685, 0x1e99912f87516891},
		{0xcb972177068eb685, 0xd24ec4f1a98c6e5b, 0xa01fe099b0292b12},
	} {
		assert.Equal(t, v.want, Mix(v.a, v.b), "%#x, %#x", v.a, v.b)
		pair := binary.LittleEndian.AppendUint64(nil, v.a)
		pair = binary.LittleEndian.AppendUint64(pair, v.b)
		assert.Equal(t, v.want, Sum64(pair), "%#x, %#x", v.a, v.b)
	}
}

// Each bit of either argument turns each bit of the result over in about half of
// the cases. With 4096 cases a bit, 256 is eight standard deviations.
func TestMix_Avalanche(t *testing.T) {
	t.Parallel()
	const cases = 4096
	var turned [128][64]int
	for i := range uint64(cases) {
		a, b := String("a"+string(rune(i))), i // one argument well mixed, one not
		h := Mix(a, b)
		for bit := range 64 {
			for d := h ^ Mix(a^1<<bit, b); d != 0; d &= d - 1 {
				turned[bit][bits.TrailingZeros64(d)]++
			}
			for d := h ^ Mix(a, b^1<<bit); d != 0; d &= d - 1 {
				turned[64+bit][bits.TrailingZeros64(d)]++
			}
		}
	}
	for in := range turned {
		for out, n := range turned[in] {
			assert.InDelta(t, cases/2, n, 256, "bit %d in, bit %d out", in, out)
		}
	}
}

package session

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const target = "http://users:80"

// strictly is the encoding of values.
var strictly = base64.RawURLEncoding.Strict()

func newTestSigner() *signer { return newSigner(secretNo(1), target, "evenkeel") }

// sealed returns a value that opens.
func sealed(s *signer, endpoint string, at time.Time) string { return s.seal(s.tag(endpoint), at) }

func TestSeal_RoundTrip(t *testing.T) {
	t.Parallel()
	s := newTestSigner()
	for _, at := range []time.Time{
		dawn, dawn.Add(999 * time.Millisecond), time.Unix(0, 0), time.Unix(1<<31, 0), time.Unix(1<<32-1, 0),
	} {
		for _, endpoint := range []string{"", "a:80", "[::1]:80", strings.Repeat("x", 10_000), "\x00\xff"} {
			value := sealed(s, endpoint, at)
			assert.Len(t, value, 39)
			got, issued, err := s.open(value)
			require.NoError(t, err)
			assert.Equal(t, s.tag(endpoint), got)
			assert.Equal(t, at.Unix(), issued.Unix())
			assert.Equal(t, value, s.seal(got, issued))
		}
	}
	assert.Equal(t, sealed(s, "a:80", dawn), sealed(newTestSigner(), "a:80", dawn), "replicas with one secret agree")
}

// Secret, target and name each make all keys others, and no two divisions of the same letters
// among target and name are alike.
func TestSeal_KeysAreDerived_S03(t *testing.T) {
	t.Parallel()
	seen := map[tag]string{}
	values := map[string]string{}
	for _, row := range []struct {
		secret       Secret
		target, name string
	}{
		{secretNo(1), target, "evenkeel"},
		{secretNo(2), target, "evenkeel"},
		{NewSecret(append(keyNo(1), 1)), target, "evenkeel"},
		{secretNo(1), "http://orders:80", "evenkeel"},
		{secretNo(1), target + "e", "venkeel"},
		{secretNo(1), target + "evenkeel", ""},
		{secretNo(1), "", target + "evenkeel"},
		{secretNo(1), target, "Evenkeel"},
	} {
		s := newSigner(row.secret, row.target, row.name)
		about := fmt.Sprintf("%x %q %q", row.secret.bytes(), row.target, row.name)
		assert.Empty(t, seen[s.tag("a:80")], about)
		value := sealed(s, "a:80", dawn)
		assert.Empty(t, values[value[len(value)-20:]], about)
		seen[s.tag("a:80")], values[value[len(value)-20:]] = about, about
	}
}

// refuses fails the test unless the value is refused as such.
func refuses(t *testing.T, s *signer, value string, want error, about any) {
	t.Helper()
	got, issued, err := s.open(value)
	require.ErrorIs(t, err, want, "%v", about)
	assert.Zero(t, got)
	assert.True(t, issued.IsZero())
}

// Given a value of which one bit was changed, be it of the key's number, the date, the tag or the
// signature, then it is forged.
func TestCookie_Forged_S03(t *testing.T) {
	t.Parallel()
	s := newTestSigner()
	raw, err := strictly.DecodeString(sealed(s, "a:80", dawn))
	require.NoError(t, err)
	require.Len(t, raw, sealedLen)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			refuses(t, s, strictly.EncodeToString(raw), errForged, fmt.Sprintf("byte %d, bit %d", i, bit))
			raw[i] ^= 1 << bit
		}
	}
	var zero [sealedLen]byte
	refuses(t, s, strictly.EncodeToString(zero[:]), errForged, "zeros")
	zero[0] = raw[0]
	refuses(t, s, strictly.EncodeToString(zero[:]), errForged, "zeros under our number")
	other := strings.Clone(sealed(s, "b:80", dawn.Add(time.Second)))
	mine := sealed(s, "a:80", dawn)
	for i := range mine {
		if both := mine[:i] + other[i:]; both != mine && both != other {
			refuses(t, s, both, errForged, fmt.Sprintf("two values, put together at %d", i))
		}
	}
}

func TestCookie_WrongLength_S03(t *testing.T) {
	t.Parallel()
	s := newTestSigner()
	value := sealed(s, "a:80", dawn)
	for n := range len(value) {
		refuses(t, s, value[:n], errMalformed, n)
		refuses(t, s, value[n+1:], errMalformed, -n)
		refuses(t, s, value+value[:n+1], errMalformed, len(value)+n+1)
		refuses(t, s, value+strings.Repeat("A", n+1), errMalformed, len(value)+n+1)
	}
	refuses(t, s, strings.Repeat("A", 1<<20), errMalformed, "1 MiB")
	refuses(t, s, value+strings.Repeat("=", 1<<20), errMalformed, "1 MiB of padding")
}

// What decodes to the same bytes is not the same value.
func TestCookie_NotCanonical_S03(t *testing.T) {
	t.Parallel()
	const urlSafe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	s := newTestSigner()
	at := dawn
	value := sealed(s, "a:80", at)
	for !strings.Contains(value, "-") || !strings.Contains(value, "_") {
		at = at.Add(time.Second)
		value = sealed(s, "a:80", at)
	}
	last := strings.IndexByte(urlSafe, value[len(value)-1])
	require.Zero(t, last&3, "two bits are of no use")
	rows := map[string]string{
		"trailing bits 1":        value[:38] + urlSafe[last|1:last|1+1],
		"trailing bits 2":        value[:38] + urlSafe[last|2:last|2+1],
		"trailing bits 3":        value[:38] + urlSafe[last|3:last|3+1],
		"padding":                value + "=",
		"padding in place":       value[:38] + "=",
		"padding before":         "=" + value[:38],
		"plus":                   strings.ReplaceAll(value, "-", "+"),
		"slash":                  strings.ReplaceAll(value, "_", "/"),
		"space before":           " " + value,
		"space after":            value + " ",
		"space in place":         value[:20] + " " + value[21:],
		"line feed":              value[:20] + "\n" + value[20:],
		"line feed in place":     value[:38] + "\n",
		"carriage return":        "\r" + value,
		"zero byte":              value[:38] + "\x00",
		"high byte":              value[:38] + "\xff",
		"percent":                strings.ReplaceAll(value, "-", "%2D"),
		"lower case":             strings.ToLower(value),
		"quotes":                 `"` + value + `"`,
		"hexadecimal":            fmt.Sprintf("%x", value)[:39],
		"all line feeds":         strings.Repeat("\n", 39),
		"standard, with padding": base64.StdEncoding.EncodeToString([]byte(value)),
	}
	_, _, err := s.open(value)
	require.NoError(t, err)
	for about, value := range rows {
		refuses(t, s, value, errMalformed, about)
	}
}

func TestCookie_Foreign_S03(t *testing.T) {
	t.Parallel()
	s := newTestSigner()
	for about, other := range map[string]*signer{
		"another secret":   newSigner(secretNo(2), target, "evenkeel"),
		"a longer secret":  newSigner(NewSecret(append(keyNo(1), 1)), target, "evenkeel"),
		"another target":   newSigner(secretNo(1), "http://orders:80", "evenkeel"),
		"another port":     newSigner(secretNo(1), "http://users:8080", "evenkeel"),
		"another name":     newSigner(secretNo(1), target, "evenkeel2"),
		"letters moved on": newSigner(secretNo(1), target+"e", "venkeel"),
	} {
		value := sealed(other, "a:80", dawn)
		refuses(t, s, value, errForged, about)
		raw, err := strictly.DecodeString(value)
		require.NoError(t, err)
		raw[0] = s.id
		refuses(t, s, strictly.EncodeToString(raw), errForged, about+", under our number")
	}
}

// Neither the text nor the bytes of a value have anything of an endpoint in them.
func TestCookie_TellsNoAddress_S03(t *testing.T) {
	t.Parallel()
	s := newTestSigner()
	tags := map[tag]bool{}
	for i := range 1000 {
		address := fmt.Sprintf("10.1.%d.%d:8080", i/250, i%250)
		value := sealed(s, address, dawn)
		raw, err := strictly.DecodeString(value)
		require.NoError(t, err)
		parts := append(strings.FieldsFunc(address, func(r rune) bool { return r == ':' }), address, "10.1.")
		for _, part := range parts {
			assert.NotContains(t, value, part)
			assert.NotContains(t, string(raw), part)
		}
		assert.NotContains(t, string(raw), string([]byte{10, 1, byte(i / 250), byte(i % 250)}))
		tags[tag(raw[sealedTag:sealedMAC])] = true
	}
	assert.Len(t, tags, 1000)
	id := sealed(s, "pod-7f9c", dawn)
	raw, err := strictly.DecodeString(id)
	require.NoError(t, err)
	assert.NotContains(t, id+string(raw), "pod")
	assert.NotContains(t, id+string(raw), "7f9c")
}

// Whatever opens was sealed: it is the text that sealing makes of what it says.
func FuzzOpen(f *testing.F) {
	s := newTestSigner()
	value := sealed(s, "a:80", dawn)
	for _, seed := range []string{
		value, "", value[:38], value + "=", value[:38] + "\n", strings.Repeat("A", 39), strings.Repeat("\xff", 39), `"` + value + `"`,
		sealed(newSigner(secretNo(2), target, "evenkeel"), "a:80", dawn), sealed(s, "", time.Unix(0, 0)),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, issued, err := s.open(value)
		if err != nil {
			if got != (tag{}) || !issued.IsZero() {
				t.Errorf("%q is refused, and tells %x, %v", value, got, issued)
			}
			return
		}
		if again := s.seal(got, issued); again != value {
			t.Errorf("%q opens, and %q is what is sealed", value, again)
		}
	})
}

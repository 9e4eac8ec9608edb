package session

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
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
			assert.Len(t, value, 44)
			raw, err := strictly.DecodeString(value)
			require.NoError(t, err)
			assert.Len(t, raw, 33)
			for _, opener := range []*signer{s, newTestSigner()} { // replicas with one secret agree
				got, issued, err := opener.open(value)
				require.NoError(t, err)
				assert.Equal(t, s.tag(endpoint), got)
				assert.Equal(t, opener.tag(endpoint), got)
				assert.Equal(t, at.Unix(), issued.Unix())

				again, err := strictly.DecodeString(opener.seal(got, issued))
				require.NoError(t, err)
				assert.Equal(t, raw[:sealedRandom], again[:sealedRandom])
				assert.NotEqual(t, raw[sealedRandom:sealedTag], again[sealedRandom:sealedTag], "by chance once in 2^32")
				assert.Equal(t, raw[sealedTag:sealedMAC], again[sealedTag:sealedMAC])
				assert.NotEqual(t, raw[sealedMAC:], again[sealedMAC:])
			}
		}
	}
}

// No two sessions have the same cookie, be they of one endpoint and one second.
func TestSeal_NoTwoAreEqual(t *testing.T) {
	t.Parallel()
	s, values := newTestSigner(), map[string]bool{}
	for range 50 {
		values[sealed(s, "a:80", dawn)] = true
	}
	assert.Len(t, values, 50)
}

// signature returns that of these bytes.
func signature(s *signer, of []byte) string {
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	copy(m.raw[:sealedMAC], of)
	return string(m.sign())
}

// Secret, target and name each make all keys others, and no two divisions of the same letters
// among target and name are alike.
func TestSeal_KeysAreDerived_S03(t *testing.T) {
	t.Parallel()
	seen := map[tag]string{}
	signatures := map[string]string{}
	said := bytes.Repeat([]byte{1}, sealedMAC) // whoever says it
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
		assert.Empty(t, signatures[signature(s, said)], about)
		seen[s.tag("a:80")], signatures[signature(s, said)] = about, about
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

// Given a value of which one bit was changed, be it of the key's number, the date, the random part, the
// tag or the signature, then it is forged.
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
	require.Len(t, value, 44)
	for !strings.Contains(value, "-") || !strings.Contains(value, "_") {
		at = at.Add(time.Second)
		value = sealed(s, "a:80", at)
	}
	rows := map[string]string{
		"padding":                value + "=",
		"padding in place":       value[:43] + "=",
		"two of padding":         value[:42] + "==",
		"padding before":         "=" + value[:43],
		"plus":                   strings.ReplaceAll(value, "-", "+"),
		"slash":                  strings.ReplaceAll(value, "_", "/"),
		"space before":           " " + value,
		"space after":            value + " ",
		"space in place":         value[:20] + " " + value[21:],
		"line feed":              value[:20] + "\n" + value[20:],
		"line feed in place":     value[:43] + "\n",
		"four in place":          value[:40] + "\n\n\n\n",
		"four among the letters": value[:20] + "\n\n\n\n" + value[24:],
		"carriage return":        "\r" + value,
		"zero byte":              value[:43] + "\x00",
		"high byte":              value[:43] + "\xff",
		"percent":                strings.ReplaceAll(value, "-", "%2D"),
		"quotes":                 `"` + value + `"`,
		"hexadecimal":            fmt.Sprintf("%x", value),
		"all line feeds":         strings.Repeat("\n", 44),
		"standard, with padding": base64.StdEncoding.EncodeToString([]byte(value)),
	}
	_, _, err := s.open(value)
	require.NoError(t, err)
	for about, value := range rows {
		refuses(t, s, value, errMalformed, about)
	}
	// All bits of all letters count: one that is another letter says something else.
	for i := range value {
		for j := range urlSafe {
			if other := value[:i] + urlSafe[j:j+1] + value[i+1:]; other != value {
				refuses(t, s, other, errForged, fmt.Sprintf("%c at %d", urlSafe[j], i))
			}
		}
	}
	refuses(t, s, strings.ToLower(value), errForged, "lower case")
	refuses(t, s, strings.ToUpper(value), errForged, "upper case")
	refuses(t, s, fmt.Sprintf("%x", value)[:44], errForged, "hexadecimal, cut")
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
		parts := append(strings.FieldsFunc(address, func(r rune) bool { return r == ':' }), address, "10.1.")
		tellsNone(t, s, address, append(parts, string([]byte{10, 1, byte(i / 250), byte(i % 250)})))
		tags[s.tag(address)] = true
	}
	assert.Len(t, tags, 1000)
	tellsNone(t, s, "pod-7f9c", []string{"pod", "7f9c"})
}

// tellsNone fails the test if one of these parts is in the values of an endpoint: in each one, since chance may
// put anything into the random part of some.
func tellsNone(t *testing.T, s *signer, endpoint string, parts []string) {
	t.Helper()
	told := map[string]int{}
	const values = 4
	for range values {
		value := sealed(s, endpoint, dawn)
		raw, err := strictly.DecodeString(value)
		require.NoError(t, err)
		got := s.tag(endpoint)
		assert.Equal(t, got[:], raw[sealedTag:sealedMAC])
		for _, part := range parts {
			if strings.Contains(value, part) || bytes.Contains(raw, []byte(part)) {
				told[part]++
			}
			assert.NotContains(t, string(got[:]), part)
		}
	}
	for part, n := range told {
		assert.Less(t, n, values, "%q tells %q", endpoint, part)
	}
}

// Whatever opens was sealed: it says what its bytes say, which are signed, and is the text that they make.
func FuzzOpen(f *testing.F) {
	s := newTestSigner()
	value := sealed(s, "a:80", dawn)
	for _, seed := range []string{
		value, "", value[:43], value + "=", value[:43] + "\n", value[:40] + "\n\n\n\n", strings.Repeat("A", 39), strings.Repeat("A", 44),
		strings.Repeat("\xff", 44), strings.ToLower(value), `"` + value + `"`,
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
		raw, err := strictly.DecodeString(value)
		if err != nil || len(raw) != sealedLen || strictly.EncodeToString(raw) != value {
			t.Fatalf("%q opens, and is not the text of its bytes %x: %v", value, raw, err)
		}
		if raw[0] != s.id || got != tag(raw[sealedTag:sealedMAC]) || uint32(issued.Unix()) != binary.BigEndian.Uint32(raw[sealedDate:]) {
			t.Errorf("%q tells %x, %v, and is of the bytes %x", value, got, issued, raw)
		}
		if signature(s, raw[:sealedMAC]) != string(raw[sealedMAC:]) {
			t.Errorf("%q opens, and is not signed", value)
		}
	})
}

package session

import (
	"bytes"
	"fmt"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Secret is a key with which cookies are signed: at least 32 random bytes, such as crypto/rand
// makes, the same for all replicas of a service, and none that signs anything else. The zero Secret is none.
// It is never printed, not even as a part of something else: package fmt does not always ask what is deep
// inside for its methods, but it does not follow a pointer there.
type Secret struct{ key *hidden }

// hidden is a pointer more: of one pointer, fmt shows where it leads if the verb is none for pointers.
type hidden struct{ key *[]byte }

// NewSecret returns a secret that is a copy of these bytes.
func NewSecret(key []byte) Secret {
	key = bytes.Clone(key)
	return Secret{&hidden{&key}}
}

// bytes returns the key, nil without one.
func (s Secret) bytes() []byte {
	if s.key == nil {
		return nil
	}
	return *s.key.key
}

// Equal reports whether two secrets are the same.
func (s Secret) Equal(o Secret) bool { return bytes.Equal(s.bytes(), o.bytes()) }

// String implements [fmt.Stringer] without telling the secret.
func (s Secret) String() string { return fmt.Sprintf("(%d secret bytes)", len(s.bytes())) }

// GoString implements [fmt.GoStringer] without telling the secret.
func (s Secret) GoString() string { return s.String() }

// Format implements [fmt.Formatter] without telling the secret, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText makes encoders, such as that of JSON, not tell the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// minSecret is the length of the hash's output, below which a key of HMAC is weaker than the hash
// (RFC 2104, section 3).
const minSecret = 32

// validate checks a secret that is set.
func (s Secret) validate(name string, errs *field.Errors) {
	key := s.bytes()
	errs.Check(len(key) >= minSecret, name, s, fmt.Sprintf("must have at least %d bytes", minSecret))
	errs.Check(len(key) < minSecret || !uniform(key), name, s, "must be random")
}

// uniform reports whether all bytes are the same, as in a buffer that nobody has filled.
func uniform(key []byte) bool { return bytes.Count(key, key[:1]) == len(key) }

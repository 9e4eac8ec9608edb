package session

import (
	"fmt"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Secret is a key with which cookies are signed: at least 32 random bytes, such as crypto/rand
// makes, the same for all replicas of a service, and none that signs anything else. It is never
// printed.
type Secret []byte

// minSecret is the length of the hash's output, below which a key of HMAC is weaker than the hash
// (RFC 2104, section 3).
const minSecret = 32

// String implements [fmt.Stringer] without telling the secret.
func (s Secret) String() string { return fmt.Sprintf("(%d secret bytes)", len(s)) }

// GoString implements [fmt.GoStringer] without telling the secret.
func (s Secret) GoString() string { return s.String() }

// Format implements [fmt.Formatter] without telling the secret, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText makes encoders, such as that of JSON, not tell the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// validate checks a secret that is set.
func (s Secret) validate(name string, errs *field.Errors) {
	errs.Check(len(s) >= minSecret, name, s, fmt.Sprintf("must have at least %d bytes", minSecret))
	errs.Check(len(s) < minSecret || !uniform(s), name, s, "must be random")
}

// uniform reports whether all bytes are the same, as in a buffer that nobody has filled.
func uniform(s Secret) bool {
	for _, b := range s {
		if b != s[0] {
			return false
		}
	}
	return true
}

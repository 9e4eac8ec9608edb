package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"time"
)

// A cookie's value is the URL-safe base64 of
//
//	byte 0       which secret it was signed with, as far as a byte tells
//	bytes 1-4    when, in seconds since 1970
//	bytes 5-8    random, so that no two sessions have the same
//	bytes 9-16   the tag of the endpoint
//	bytes 17-32  the first half of the HMAC-SHA256 of the bytes before
//
// The tag is a keyed hash of the endpoint's identity, so that nobody finds the identity by trying all
// addresses. The keys of both are derived from the secret, the target and the cookie's name, so that no
// cookie is good for another service.
const (
	sealedDate   = 1
	sealedRandom = 5
	sealedTag    = 9
	sealedMAC    = 17
	sealedLen    = 33
	sealedText   = sealedLen / 3 * 4

	macLen = sealedLen - sealedMAC
)

// tag stands for an endpoint in cookies.
type tag [sealedMAC - sealedTag]byte

// signer signs and verifies with one secret. It is safe for concurrent use.
type signer struct {
	id     byte
	macs   sync.Pool        // of *mac, for signatures
	tags   sync.Pool        // of *mac, for tags
	base64 *base64.Encoding // refuses what decodes to the same bytes without being the same text
}

// mac is an HMAC with the room that it needs, so that verifying allocates nothing.
type mac struct {
	hash.Hash
	raw [sealedLen]byte
	sum [sha256.Size]byte
}

func newSigner(secret Secret, target, name string) *signer {
	derive := func(purpose string) []byte {
		h := hmac.New(sha256.New, secret.bytes())
		for _, part := range []string{"evenkeel session 1", purpose, target, name} {
			var length [8]byte
			binary.BigEndian.PutUint64(length[:], uint64(len(part)))
			h.Write(length[:]) // so that no two lists of parts are the same bytes
			h.Write([]byte(part))
		}
		return h.Sum(nil)
	}
	key := derive("mac")
	s := &signer{id: derive("id")[0], base64: base64.RawURLEncoding.Strict()}
	tags := derive("tag")
	s.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, key)} }
	s.tags.New = func() any { return &mac{Hash: hmac.New(sha256.New, tags)} }
	return s
}

// tag returns that of an endpoint.
func (s *signer) tag(endpoint string) (t tag) {
	m := s.tags.Get().(*mac)
	defer s.tags.Put(m)
	m.Reset()
	m.Write([]byte(endpoint))
	copy(t[:], m.Sum(m.sum[:0]))
	return t
}

// seal returns the value of a cookie.
func (s *signer) seal(t tag, now time.Time) string {
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	m.raw[0] = s.id
	binary.BigEndian.PutUint32(m.raw[sealedDate:], uint32(now.Unix()))
	_, _ = rand.Read(m.raw[sealedRandom:sealedTag]) // it never fails
	copy(m.raw[sealedTag:], t[:])
	copy(m.raw[sealedMAC:], m.sign())
	return s.base64.EncodeToString(m.raw[:])
}

// sign returns the signature of what is in raw.
func (m *mac) sign() []byte {
	m.Reset()
	m.Write(m.raw[:sealedMAC])
	return m.Sum(m.sum[:0])[:macLen]
}

// Why a cookie is not valid. None of them says more than its author knows.
var (
	errMalformed = errors.New("malformed")
	errForged    = errors.New("not signed with our secret, for this target and name")
	errExpired   = errors.New("expired")
	errFuture    = errors.New("from the future")
)

// open returns what a value says if the signer has signed it.
func (s *signer) open(value string) (t tag, issued time.Time, err error) {
	m := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	if len(value) != sealedText {
		return t, issued, errMalformed
	}
	var text [sealedText]byte
	copy(text[:], value)
	if n, err := s.base64.Decode(m.raw[:], text[:]); err != nil || n != sealedLen {
		return t, issued, errMalformed
	}
	if m.raw[0] != s.id || !hmac.Equal(m.raw[sealedMAC:], m.sign()) {
		return t, issued, errForged
	}
	copy(t[:], m.raw[sealedTag:])
	return t, time.Unix(int64(binary.BigEndian.Uint32(m.raw[sealedDate:])), 0), nil
}

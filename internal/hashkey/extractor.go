package hashkey

import (
	"math/bits"
	"net/http"
)

// Extractor reads the key of a request. [Sources.Compile] makes one; the zero
// value finds nothing. It may be used concurrently, and allocates only where
// escapes must be undone, where an address must be rewritten for Value, and
// what a Func allocates.
type Extractor struct{ parts []part }

type part struct {
	value    func(*http.Request) string // "" is none
	address  bool                       // value is the client's address
	terminal bool
}

// Hash returns the hash of all values up to that of the first Terminal source
// that has one, and whether there was any. A request may be nil, which has none.
//
// A value is hashed by [String], and several are combined as Envoy's hash
// policies are: h = rotl(h, 1) XOR hash(value). A single value therefore has
// the hash of its text.
func (e *Extractor) Hash(req *http.Request) (h uint64, ok bool) {
	if req == nil {
		return 0, false
	}
	for i := range e.parts {
		p := &e.parts[i]
		v, found := p.hash(req)
		if !found {
			continue
		}
		h, ok = bits.RotateLeft64(h, 1)^v, true
		if p.terminal {
			break
		}
	}
	return h, ok
}

// Value returns the first value and true, or "" and false if there is none. A
// request may be nil.
func (e *Extractor) Value(req *http.Request) (string, bool) {
	if req == nil {
		return "", false
	}
	for i := range e.parts {
		if v := e.parts[i].value(req); v != "" {
			return v, true
		}
	}
	return "", false
}

func (p *part) hash(req *http.Request) (uint64, bool) {
	if p.address { // hashed where it is written, without becoming a string
		var buf addressBuf
		text := appendAddress(buf[:0], addressPart(req.RemoteAddr))
		return Sum64(text), len(text) > 0
	}
	v := p.value(req)
	return String(v), v != ""
}

package health

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// readStatus is servingStatus once more, written another way: it cuts the message into fields first.
func readStatus(body []byte) (uint64, bool) {
	if len(body) < 5 || body[0] != 0 {
		return 0, false
	}
	length, message := binary.BigEndian.Uint32(body[1:]), body[5:]
	if uint64(length) != uint64(len(message)) {
		return 0, false
	}
	number := func() (uint64, bool) {
		var value uint64
		for i := range 10 {
			if i >= len(message) || (i == 9 && message[i] > 1) {
				return 0, false
			}
			value |= uint64(message[i]&0x7f) << (7 * i)
			if message[i] < 0x80 {
				message = message[i+1:]
				return value, true
			}
		}
		return 0, false
	}
	skip := func(n uint64) bool {
		if n > uint64(len(message)) {
			return false
		}
		message = message[n:]
		return true
	}
	var status uint64
	for len(message) > 0 {
		tag, ok := number()
		if !ok {
			return 0, false
		}
		var value uint64
		switch tag % 8 {
		case 0:
			value, ok = number()
		case 1:
			ok = skip(8)
		case 2:
			if value, ok = number(); ok {
				ok = skip(value)
			}
		case 5:
			ok = skip(4)
		default:
			ok = false
		}
		if !ok {
			return 0, false
		}
		if tag == 8 {
			status = value
		}
	}
	return status, true
}

// Whatever arrives, it is read as the other reader does, and never panics.
func FuzzServingStatus(f *testing.F) {
	for _, seed := range []string{
		"", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x02\x08\x01", "\x01\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x03\x12\x05a",
		"\x00\x00\x00\x00\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x00\xff\xff\xff\xff", "\x00\x00\x00\x00\x04\x15abc",
		"\x00\x00\x00\x00\x0c\x12\xf8\xff\xff\xff\xff\xff\xff\xff\x7fab",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		status, err := servingStatus(body)
		want, ok := readStatus(body)
		if (err == nil) != ok || (ok && status != want) {
			t.Fatalf("%q: got %d and %v, want %d and %v", body, status, err, want, ok)
		}
	})
}

// Every name that is valid arrives as it is.
func FuzzGRPCMessage(f *testing.F) {
	for _, seed := range []string{"", "users", "users.v1.Users", strings.Repeat("s", 128), "ä\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, service string) {
		p := GRPC{Service: service}
		if valid := utf8.ValidString(service) && len(service) <= 1024; (p.Validate() == nil) != valid {
			t.Fatalf("%q: valid is %v", service, valid)
		}
		if p.Validate() != nil {
			return
		}
		m := p.message()
		if m[0] != 0 || int(binary.BigEndian.Uint32(m[1:5])) != len(m)-5 {
			t.Fatalf("%q: prefix %q", service, m[:5])
		}
		m = m[5:]
		if service == "" {
			if len(m) != 0 {
				t.Fatalf("%q", m)
			}
			return
		}
		length, n := binary.Uvarint(m[1:])
		if m[0] != 0x0a || n <= 0 || int(length) != len(service) || string(m[1+n:]) != service {
			t.Fatalf("%q became %q", service, m)
		}
	})
}

// Whatever a server reports, only DOWN is, and the text of it is fit for a line of a log.
func FuzzReported(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "[]", "null", `"DOWN"`, `{"status":"DOWN"}`, `{"status":"UP"}`, `{"status":"DEGRADED"}`, `{"status":"DOWN","details":{"a\nb":{"status":"DOWN"}}}`,
		`{"status":"DOWN","timestamp":"2000-01-01T00:00:00Z","details":{"db":{"status":"DOWN","error":"x"},"q":{"status":"UP"}}}`,
		`{"status":"DOWN","details":null}`, `{"status":"DOWN","timestamp":12}`, `{"status":`, strings.Repeat(`{"details":`, 100),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		err := reported(body)
		var r struct{ Status string }
		if err == nil {
			return
		}
		if !errors.Is(err, ErrDown) || json.Unmarshal(body, &r) != nil || r.Status != "DOWN" {
			t.Fatalf("%q: %v", body, err)
		}
		if text := err.Error(); strings.ContainsAny(text, "\n\r\x00\x1b") || !utf8.ValidString(text) {
			t.Fatalf("%q: %q", body, text)
		}
	})
}

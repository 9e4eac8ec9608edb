package orca

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"
)

// The wire types of protobuf. Groups are deprecated, and refused.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// binary reads protobuf's wire format in base64, with or without padding. The
// message is OrcaLoadReport of cncf/xds, xds/data/orca/v3. Where protobuf lets
// the last of several values of a metric win, two are an error, as in the other
// encodings. Fields that the definition does not have are ignored.
func (c *collector) binary(text string) error {
	message, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return syntaxError("", "is not base64")
	}
	return fields(message, c.binaryField)
}

func (c *collector) binaryField(f wireField) error {
	switch f.number {
	case 1:
		return c.double("cpu_utilization", f)
	case 2:
		return c.double("mem_utilization", f)
	case 3:
		if f.wire != wireVarint {
			return errBinary()
		}
		return c.add("rps", float64(f.value))
	case 4:
		return c.entry(groupCost, f)
	case 5:
		return c.entry(groupUtilization, f)
	case 6:
		return c.double("rps_fractional", f)
	case 7:
		return c.double("eps", f)
	case 8:
		return c.entry(groupNamed, f)
	case 9:
		return c.double("application_utilization", f)
	}
	return nil
}

func (c *collector) double(key string, f wireField) error {
	if f.wire != wireFixed64 {
		return errBinary()
	}
	return c.add(key, math.Float64frombits(f.value))
}

// entry reads an entry of a map: a message with the key in 1, the value in 2.
func (c *collector) entry(group string, f wireField) error {
	if f.wire != wireBytes {
		return errBinary()
	}
	var name string
	var value float64
	err := fields(f.bytes, func(f wireField) error {
		switch {
		case f.number == 1 && f.wire == wireBytes:
			name = string(f.bytes)
		case f.number == 2 && f.wire == wireFixed64:
			value = math.Float64frombits(f.value)
		case f.number <= 2:
			return errBinary()
		}
		return nil
	})
	if err == nil && !utf8.ValidString(name) {
		err = errBinary()
	}
	if err != nil {
		return err
	}
	return c.add(group+name, value)
}

// wireField is a field of a message in protobuf's wire format.
type wireField struct {
	number uint64
	wire   uint64
	value  uint64 // of a number
	bytes  []byte // of what has a length
}

// fields hands out the fields of a message in turn.
func fields(message []byte, each func(wireField) error) error {
	for len(message) > 0 {
		f, size := readField(message)
		if size == 0 {
			return errBinary()
		}
		if err := each(f); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}

// readField returns the first field of b and its size, which is 0 if there is
// no whole field.
func readField(b []byte) (wireField, int) {
	tag, size := binary.Uvarint(b)
	f := wireField{number: tag >> 3, wire: tag & 7}
	if size <= 0 || f.number == 0 || f.number >= 1<<29 {
		return f, 0
	}
	rest := b[size:]
	switch f.wire {
	case wireVarint:
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return f, 0
		}
		f.value = v
		return f, size + n
	case wireFixed64:
		if len(rest) < 8 {
			return f, 0
		}
		f.value = binary.LittleEndian.Uint64(rest)
		return f, size + 8
	case wireBytes:
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) {
			return f, 0
		}
		f.bytes = rest[n : n+int(length)]
		return f, size + n + int(length)
	case wireFixed32:
		if len(rest) < 4 {
			return f, 0
		}
		return f, size + 4
	}
	return f, 0
}

func errBinary() error { return syntaxError("", "is not a protobuf message") }

package orca

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// json reads protobuf's JSON: names as in the definition or in camel case,
// numbers also as strings, null for what is not reported. Names that the
// definition does not have are ignored, whatever their values.
func (c *collector) json(text string) error {
	if !utf8.ValidString(text) {
		return errJSON()
	}
	return object(text, func(name string, value json.RawMessage) error {
		switch key := snake(name); key {
		case "cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "rps", "eps":
			return c.jsonNumber(key, value)
		case "request_cost", "utilization", "named_metrics":
			return c.jsonGroup(key, value)
		default:
			return c.once(key)
		}
	})
}

func (c *collector) jsonGroup(group string, value json.RawMessage) error {
	if err := c.once(group); err != nil || string(value) == "null" {
		return err
	}
	return object(string(value), func(name string, value json.RawMessage) error {
		return c.jsonNumber(group+"."+name, value)
	})
}

func (c *collector) jsonNumber(key string, value json.RawMessage) error {
	text := string(value)
	if text == "null" {
		return nil
	}
	if s, quoted := strings.CutPrefix(text, `"`); quoted {
		text = strings.TrimSuffix(s, `"`)
	}
	v, ok := number(text)
	if !ok {
		return syntaxError(key, "has no number")
	}
	return c.add(key, v)
}

// object hands out the members of a JSON object. Unlike json.Unmarshal it also
// hands out those that have the name of an earlier one.
func object(text string, member func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(strings.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errJSON()
	}
	for d.More() {
		token, _ := d.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if !ok || d.Decode(&value) != nil {
			return errJSON()
		}
		if err := member(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return errJSON()
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errJSON()
	}
	return nil
}

func errJSON() error { return syntaxError("", "is not a JSON object") }

// snake returns the name of a field as in the definition, from its JSON name.
func snake(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

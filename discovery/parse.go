package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// fileDocument is the content of a file. Entries are decoded one by one, so that
// a bad one does not take the others with it.
type fileDocument struct {
	Endpoints []json.RawMessage `json:"endpoints"`
}

// fileEntry is one endpoint in a file.
type fileEntry struct {
	Address    string            `json:"address"`
	ID         string            `json:"id"`
	Weight     *float64          `json:"weight"` // nil and 0 differ here
	Priority   int               `json:"priority"`
	Zone       string            `json:"zone"`
	Draining   bool              `json:"draining"`
	Standby    bool              `json:"standby"`
	Attributes map[string]string `json:"attributes"`
}

// parseFile returns the good entries of a document, what was wrong with the
// others, or why the document as a whole makes no sense.
func parseFile(content []byte) (endpoints []Endpoint, skipped, failed error) {
	var document fileDocument
	if err := decodeStrictly(content, &document); err != nil {
		return nil, nil, fmt.Errorf("parse the list of endpoints: %w", err)
	}
	if document.Endpoints == nil { // missing or null; an empty list is neither
		return nil, nil, errors.New(`parse the list of endpoints: no "endpoints"`)
	}
	var bad SkippedError
	endpoints = make([]Endpoint, 0, len(document.Endpoints))
	for i, raw := range document.Endpoints {
		e, err := parseEntry(raw)
		if err != nil {
			bad.Add(fmt.Errorf("endpoints[%d]: %w", i, err))
			continue
		}
		endpoints = append(endpoints, e)
	}
	if len(endpoints) == 0 && bad.Count > 0 {
		return nil, nil, fmt.Errorf("parse the list of endpoints: none is valid: %w", &bad)
	}
	return endpoints, bad.Err(), nil
}

func parseEntry(raw json.RawMessage) (Endpoint, error) {
	var entry fileEntry
	if err := decodeStrictly(raw, &entry); err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{
		ID: entry.ID, Address: entry.Address, Priority: entry.Priority, Zone: entry.Zone,
		Draining: entry.Draining, Standby: entry.Standby, Attributes: entry.Attributes,
	}
	if entry.Weight != nil {
		e.Weight = *entry.Weight
		e.Standby = e.Standby || e.Weight == 0
	}
	return e, e.Validate()
}

// decodeStrictly decodes one JSON value and nothing after it, and takes a field
// that does not exist for the typing error it is.
func decodeStrictly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more data after the end")
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel"
)

// fleet is the servers of the service, and the file that says where they are.
type fleet struct {
	dir, file string
	backends  []*backend
}

func newFleet(names ...string) (*fleet, error) {
	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		return nil, err
	}
	f := &fleet{dir: dir, file: filepath.Join(dir, "users.json")}
	for _, name := range names {
		if err := f.add(name); err != nil {
			f.close()
			return nil, err
		}
	}
	if err := f.publish(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// close leaves nothing behind.
func (f *fleet) close() {
	for _, b := range f.backends {
		b.kill()
	}
	_ = os.RemoveAll(f.dir)
}

// story is what the servers go through.
func (f *fleet) story(ctx context.Context, length time.Duration, t *evenkeel.Transport, note func(string)) error {
	for _, b := range f.backends {
		note(fmt.Sprintf("%s is at %s", b.name, b.address))
	}
	a, b := f.backends[0], f.backends[1]
	steps := []struct {
		at float64 // in lengths of the story
		do func() error
	}{
		{0.2, func() error {
			b.kill()
			note("killed b, in the middle of its calls")
			return nil // nobody tells evenkeel: b is still in the file
		}},
		{0.4, func() error {
			err := b.start()
			note("b is back")
			return err
		}},
		{0.55, func() error {
			if err := f.add("d"); err != nil {
				return err
			}
			note("added d")
			return f.publish()
		}},
		{0.7, func() error { return f.retire(ctx, a, t, note) }},
		{1, func() error { return nil }},
	}
	begin := time.Now()
	for _, s := range steps {
		at := begin.Add(time.Duration(s.at * float64(length)))
		if !pause(ctx, time.Until(at)) {
			note("interrupted")
			return nil
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) add(name string) error {
	b := &backend{name: name}
	if err := b.start(); err != nil {
		return err
	}
	f.backends = append(f.backends, b)
	return nil
}

// retire takes a server away as one should: it gets nothing new, finishes what it
// has, and only then is told to end.
func (f *fleet) retire(ctx context.Context, b *backend, t *evenkeel.Transport, note func(string)) error {
	b.draining = true
	note("draining " + b.name)
	if err := f.publish(); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); !drained(t.Stats(), b.name); {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still has calls after %v", b.name, patience)
		}
		if !pause(ctx, 10*time.Millisecond) {
			return nil // the end of the program interrupts no call either
		}
	}
	if err := b.stop(); err != nil {
		return fmt.Errorf("stopping %s: %w", b.name, err)
	}
	f.backends = slices.DeleteFunc(f.backends, func(o *backend) bool { return o == b })
	note(b.name + " had no more calls, and has ended")
	return f.publish()
}

// drained reports whether evenkeel knows that the endpoint is to be left alone,
// and has nothing there.
func drained(s evenkeel.Stats, id string) bool {
	for _, e := range s.Pool.Endpoints {
		if e.Endpoint.ID == id {
			return e.Unavailable != "" && e.InFlight == 0
		}
	}
	return true
}

// publish writes the file. It is replaced in one step, so nobody ever reads half
// of it.
func (f *fleet) publish() error {
	type entry struct {
		ID       string `json:"id"`
		Address  string `json:"address"`
		Draining bool   `json:"draining"`
	}
	entries := make([]entry, len(f.backends))
	for i, b := range f.backends {
		entries[i] = entry{b.name, b.address, b.draining}
	}
	text, err := json.MarshalIndent(map[string]any{"endpoints": entries}, "", "  ")
	if err != nil {
		return err
	}
	next := f.file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, f.file)
}

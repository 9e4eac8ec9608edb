package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// File is a service whose endpoints stand in a JSON file that something else
// writes:
//
//	{"endpoints": [
//	  {"address": "10.0.0.1:8080", "id": "a", "weight": 5, "priority": 0,
//	   "zone": "eu-west-1a", "draining": false, "standby": false,
//	   "attributes": {"version": "1"}}
//	]}
//
// Only the address has to be there. A missing weight means 1, a weight of 0
// means standby. An entry that is invalid, or has a field which is not one of
// these, is left out and counted; the others are used. "endpoints": [] is
// an empty answer. A file that is missing, empty, cut off, larger than 16 MiB or
// otherwise no such document is an error.
//
// The file is read and compared again and again, rather than watched: so every
// kind of change is seen, on every file system (a write in place, a rename over
// it, a swapped symbolic link, a removal), and times of modification do
// not matter. What is read is told if it differs from what was told last.
//
// A File is a value and may be used concurrently.
type File struct {
	// Path names the file. Symbolic links are followed anew each time.
	Path string

	// Interval is the time between two looks at the file. Zero means 1s,
	// negative is an error. A refresh is granted after 1s at the earliest.
	Interval time.Duration
}

const (
	defaultFileInterval = time.Second
	maxFileSize         = 16 << 20
)

// Watch implements [Resolver]. It returns at once what Validate returns, if that
// is an error.
func (f File) Watch(ctx context.Context, sink Sink) error {
	if err := f.Validate(); err != nil {
		return err
	}
	f = f.withDefaults()
	least := min(f.Interval, defaultFileInterval)
	var last fileState
	for {
		began := sink.Clock.Now()
		if now := readState(f.Path); !now.same(last) {
			now.answer().tell(sink)
			last = now
		}
		if err := pause(ctx, sink, began, least, f.Interval); err != nil {
			return err
		}
	}
}

// Validate returns all problems joined, or nil. The file itself need not be
// there yet.
func (f File) Validate() error {
	var errs field.Errors
	errs.Check(f.Path != "", "Path", f.Path, "must not be empty")
	errs.Check(f.Interval >= 0, "Interval", f.Interval, "must not be negative")
	return errs.Err()
}

func (f File) withDefaults() File {
	if f.Interval == 0 {
		f.Interval = defaultFileInterval
	}
	return f
}

// fileState is what one look at the file showed. The zero value is that of a
// file never looked at.
type fileState struct {
	content []byte
	failed  error
}

func (s fileState) same(o fileState) bool {
	if s.failed != nil || o.failed != nil {
		return s.failed != nil && o.failed != nil && s.failed.Error() == o.failed.Error()
	}
	return bytes.Equal(s.content, o.content)
}

func (s fileState) answer() answer {
	if s.failed != nil {
		return answer{failed: s.failed}
	}
	endpoints, skipped, err := parseFile(s.content)
	return answer{endpoints: endpoints, skipped: skipped, failed: err}
}

func readState(path string) fileState {
	content, err := readRegular(path)
	return fileState{content: content, failed: err}
}

// readRegular reads a file that has something in it. An empty one is what
// a writer leaves that truncates before it writes.
func readRegular(path string) (content []byte, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // to open a pipe would block for ever
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	case info.Size() > maxFileSize:
		return nil, tooLarge(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	buffer := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, err = buffer.ReadFrom(io.LimitReader(f, maxFileSize+1)) // it may have grown, or been swapped
	switch {
	case err != nil:
		return nil, err
	case buffer.Len() == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case buffer.Len() > maxFileSize:
		return nil, tooLarge(path)
	}
	return buffer.Bytes(), nil
}

func tooLarge(path string) error { return fmt.Errorf("%s is larger than %d bytes", path, maxFileSize) }

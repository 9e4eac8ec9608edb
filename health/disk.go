package health

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/evenkeel-go/evenkeel/internal/field"
)

// Disk returns the check of the file system that path is on: at least the part minFree of it,
// above 0 and below 1, must be free for users without privileges. Where the system cannot be
// asked, it returns [errors.ErrUnsupported]; it can on Linux, macOS, FreeBSD and DragonFly. A
// path that does not exist is for the check to tell.
func Disk(path string, minFree float64) (func(context.Context) error, error) {
	if !diskKnown {
		return nil, fmt.Errorf("health: free space of a disk on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	var errs field.Errors
	errs.Check(path != "", "path", path, "must not be empty")
	errs.Check(minFree > 0 && minFree < 1, "minFree", minFree, "must be above 0 and below 1")
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		free, err := diskFree(path)
		if err != nil {
			return fmt.Errorf("health: free space of %s: %w", path, err)
		}
		return enoughFree(path, free, minFree)
	}, nil
}

func enoughFree(path string, free, minFree float64) error {
	if free >= minFree {
		return nil
	}
	return fmt.Errorf("health: %.1f%% of %s is free, less than %.1f%%", 100*free, path, 100*minFree)
}

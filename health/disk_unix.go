//go:build linux || darwin || freebsd || dragonfly

package health

import (
	"errors"
	"syscall"
)

const diskKnown = true

// diskFree returns the part of a file system that is free. On some systems it is negative
// when only root can still write.
func diskFree(path string) (float64, error) {
	var stat syscall.Statfs_t
	err := syscall.Statfs(path, &stat)
	for err == syscall.EINTR {
		err = syscall.Statfs(path, &stat)
	}
	if err != nil {
		return 0, err
	}
	if stat.Blocks == 0 {
		return 0, errors.New("this file system has no size")
	}
	return float64(stat.Bavail) / float64(stat.Blocks), nil
}

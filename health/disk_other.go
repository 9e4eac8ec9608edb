//go:build !(linux || darwin || freebsd || dragonfly)

package health

import "errors"

const diskKnown = false

func diskFree(string) (float64, error) { return 0, errors.ErrUnsupported }

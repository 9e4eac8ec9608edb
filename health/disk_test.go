package health

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if !diskKnown {
		_, err := Disk(dir, 0.1)
		assert.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	free, err := diskFree(dir)
	require.NoError(t, err)
	require.Greater(t, free, 0.0)
	require.LessOrEqual(t, free, 1.0)

	check, err := Disk(dir, free/2)
	require.NoError(t, err)
	assert.NoError(t, check(t.Context()))

	missing := filepath.Join(dir, "missing")
	check, err = Disk(missing, 0.1)
	require.NoError(t, err, "a volume may come later")
	assert.ErrorContains(t, check(t.Context()), missing)
}

func TestDiskArguments(t *testing.T) {
	t.Parallel()
	if !diskKnown {
		return
	}
	nan := 0.0
	nan /= nan
	for _, free := range []float64{0, 1, -0.1, 10, nan} {
		_, err := Disk("/", free)
		assert.ErrorContains(t, err, "minFree: must be above 0 and below 1", free)
	}
	_, err := Disk("", 2)
	assert.EqualError(t, err, "path: must not be empty (got \"\")\nminFree: must be above 0 and below 1 (got 2)")
}

func TestEnoughFree(t *testing.T) {
	t.Parallel()
	assert.NoError(t, enoughFree("/data", 0.1, 0.1))
	assert.EqualError(t, enoughFree("/data", 0.0999, 0.1), "health: 10.0% of /data is free, less than 10.0%")
	assert.EqualError(t, enoughFree("/data", -0.02, 0.1), "health: -2.0% of /data is free, less than 10.0%")
}

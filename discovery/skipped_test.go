package discovery

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCountSkipped(t *testing.T) {
	t.Parallel()
	plain := errors.New("x")
	three := &SkippedError{}
	for range 3 {
		three.Add(plain)
	}
	for i, row := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{plain, 1},
		{three, 3},
		{errors.Join(three, plain), 4},
		{fmt.Errorf("source: %w", errors.Join(three, plain)), 4},
		{fmt.Errorf("source: %w", plain), 1},
		{errors.Join(errors.Join(plain, plain), three), 5},
	} {
		assert.Equal(t, row.want, countSkipped(row.err), "row %d", i)
	}
}

func TestSkippedError(t *testing.T) {
	t.Parallel()
	var e SkippedError
	require.NoError(t, e.Err())
	e.Add(errors.New("x"))
	e.Add(errors.New("y"))
	require.EqualError(t, e.Err(), "2 left out: x; y")
	for range 10 {
		e.Add(errors.New("z"))
	}
	require.EqualError(t, e.Err(), "12 left out: x; y; z; z; z; and 7 more")
}

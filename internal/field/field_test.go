package field

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestErrors(t *testing.T) {
	var inner Errors
	inner.Add("Max", -1, "must not be negative")
	inner.Check(true, "Min", 0, "is fine")

	var outer Errors
	outer.Under("Retry", errors.Join(inner.Err(), io.EOF))
	outer.Under("", inner.Err())
	outer.Under("Nothing", nil)
	err := outer.Err()

	assert.EqualError(t, err, "Retry.Max: must not be negative (got -1)\nRetry: EOF\nMax: must not be negative (got -1)")
	require.ErrorIs(t, err, io.EOF)
	var problem *Error
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, Error{Field: "Retry.Max", Value: -1, Problem: "must not be negative"}, *problem)
	assert.NoError(t, (&Errors{}).Err())
}

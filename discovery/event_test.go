package discovery

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEventKind_String(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "updated", Updated.String())
	assert.Equal(t, "dropped", Dropped.String())
	assert.Equal(t, "EventKind(0)", EventKind(0).String())
	assert.Equal(t, "EventKind(8)", (Dropped + 1).String())
}

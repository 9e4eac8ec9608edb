package session

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// WithDefaults of a nil pointer does not panic: Validate says what is wrong.
func TestPolicy_NilPointerWithDefaults(t *testing.T) {
	for _, by := range []Kind{(*Cookie)(nil), (*Key)(nil), (*Learn)(nil), (*Route)(nil), (*Hash)(nil)} {
		assert.Error(t, Policy{By: by}.Validate())
		assert.NotPanics(t, func() { Policy{By: by}.WithDefaults() })
	}
	p := Policy{By: &Key{}}
	assert.Error(t, p.Validate())
	assert.Error(t, p.WithDefaults().Validate(), "defaults do not make a bad policy good")
}

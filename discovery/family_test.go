package discovery

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFamily_Text(t *testing.T) {
	t.Parallel()
	for f := range Family(len(familyNames)) {
		text, err := f.MarshalText()
		require.NoError(t, err)
		var back Family
		require.NoError(t, back.UnmarshalText(text))
		assert.Equal(t, f, back)
		assert.Equal(t, string(text), f.String())
	}
	unknown := Family(len(familyNames))
	_, err := unknown.MarshalText()
	require.Error(t, err)
	require.Error(t, unknown.UnmarshalText([]byte("ipv5")))
	assert.Equal(t, "Family(5)", unknown.String())
}

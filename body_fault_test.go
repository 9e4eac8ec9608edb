package evenkeel_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// errDisk is what a caller's body fails with.
var errDisk = errors.New("the disk is broken")

// brokenUpload is a body that cannot be read to its end.
func brokenUpload() io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader("begun"), brokenDisk{}))
}

type brokenDisk struct{}

func (brokenDisk) Read([]byte) (int, error) { return 0, errDisk }

// Given a body that its caller cannot read, then the call fails with that error after one attempt, and no
// endpoint is blamed, whether or not the body could be had again.
func TestBody_UnreadableBlamesNobody_K01_R05(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, []string{"a"}, evenkeel.WithBreaker(fragile))
			for range 20 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://users/", brokenUpload())
				require.NoError(t, err)
				if again {
					req.GetBody = func() (io.ReadCloser, error) { return brokenUpload(), nil }
				}
				_, err = f.send(req)
				require.ErrorIs(t, err, errDisk)
				var failed *evenkeel.Error
				require.ErrorAs(t, err, &failed)
				assert.Equal(t, outcome.Caller, failed.Reason)
				require.Len(t, failed.Attempts, 1)
				assert.Equal(t, outcome.Canceled, failed.Attempts[0].Outcome.Class)
			}
			assert.Equal(t, breaker.Closed, f.breakerOf("a").State())
			synctest.Wait()
		})
	}
}

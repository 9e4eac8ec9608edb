package evenkeeltest_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestBodyAccount(t *testing.T) {
	t.Parallel()
	body := evenkeeltest.NewBody("abc")
	p := make([]byte, 2)
	for _, want := range []string{"ab", "c", ""} {
		n, err := body.Read(p)
		assert.Equal(t, want, string(p[:n]))
		assert.Equal(t, want == "", errors.Is(err, io.EOF))
	}
	assert.Equal(t, evenkeeltest.BodyAccount{Reads: 3, Bytes: 3, EOF: true}, body.Account())
	j := &judge{TB: t}
	body.AssertClosed(j)
	assert.Len(t, j.errors, 1)

	require.NoError(t, body.Close())
	body.AssertClosed(t)
	_, err := body.Read(p)
	assert.Equal(t, http.ErrBodyReadAfterClose, err)
	assert.Equal(t, 1, body.Account().ReadsAfterClose)
	body.AssertClosed(t)

	require.NoError(t, body.Close())
	body.AssertClosed(j)
	assert.Len(t, j.errors, 2)
}

func TestBodySize(t *testing.T) {
	t.Parallel()
	body := evenkeeltest.NewBodySize(1 << 20)
	n, err := io.Copy(io.Discard, body)
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20, n)
}

func TestOverlappingReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := evenkeeltest.NewBody("ab").Drip(1, time.Second)
		done := make(chan struct{})
		for range 2 {
			go func() {
				_, err := body.Read(make([]byte, 2))
				assert.NoError(t, err)
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		require.NoError(t, body.Close())
		assert.Equal(t, 1, body.Account().Overlaps)
		j := &judge{TB: t}
		body.AssertClosed(j)
		assert.Len(t, j.errors, 1)
	})
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := evenkeeltest.NewBody("ab").Drip(1, time.Hour)
		time.AfterFunc(time.Second, func() { assert.NoError(t, body.Close()) })
		start := time.Now()
		_, err := body.Read(make([]byte, 2))
		assert.Equal(t, http.ErrBodyReadAfterClose, err)
		assert.Equal(t, time.Second, time.Since(start))
		assert.Zero(t, body.Account().ReadsAfterClose, "it began before")
	})
}

func TestReplayableBody(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		body := evenkeeltest.NewBody("content")
		req := request(t.Context(), t, http.MethodPost, t.url, "")
		body.Replayable(req)
		again, err := req.GetBody()
		require.NoError(t, err)
		resp, err := t.tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		req.Body = again
		resp, err = t.tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		synctest.Wait()
		body.AssertClosed(t)
		require.Len(t, body.Copies(), 1)
		assert.EqualValues(t, 7, body.Copies()[0].Account().Bytes)
		for _, received := range t.server.Received() {
			assert.Equal(t, "content", string(received.Body))
			assert.EqualValues(t, 7, received.ContentLength)
		}
	})
}

func TestStreamedBody(t *testing.T) {
	everyProtocol(t, steps(), func(t *rig) {
		body := evenkeeltest.NewBody("content").Drip(3, time.Second)
		req := request(t.Context(), t, http.MethodPost, t.url, "")
		body.Stream(req)
		assert.Nil(t, req.GetBody)
		resp, err := t.tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		synctest.Wait()
		body.AssertClosed(t)
		received := t.server.Received()
		assert.Equal(t, "content", string(received[0].Body))
		assert.EqualValues(t, -1, received[0].ContentLength)
	})
}

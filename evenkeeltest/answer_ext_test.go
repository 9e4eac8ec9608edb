package evenkeeltest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

func TestAnswer(t *testing.T) {
	answer := evenkeeltest.Status(503).Header("Retry-After", "1").Header("X", "a").Header("X", "b").Body("busy")
	everyProtocol(t, steps(answer), func(t *rig) {
		start := time.Now()
		resp, err := t.get()
		require.NoError(t, err)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, t.proto, resp.Proto)
		assert.Equal(t, "1", resp.Header.Get("Retry-After"))
		assert.Equal(t, []string{"a", "b"}, resp.Header.Values("X"))
		assert.EqualValues(t, 4, resp.ContentLength)
		assert.Equal(t, "busy", readAll(t, resp))
		assert.Zero(t, time.Since(start))
	})
}

func TestAnswersShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		common := evenkeeltest.OK("x").Header("A", "1")
		network.Serve("b:80", common.Header("A", "2").Trailer("T", "2"))
		network.Serve("c:80", common.Header("A", "3").Trailer("T", "3"))
		tr := network.Transport()
		defer tr.CloseIdleConnections()
		for host, want := range map[string]string{"b:80": "2", "c:80": "3"} {
			resp, err := tr.RoundTrip(request(t.Context(), t, http.MethodGet, "http://"+host, ""))
			require.NoError(t, err)
			readAll(t, resp)
			assert.Equal(t, []string{"1", want}, resp.Header.Values("A"))
			assert.Equal(t, []string{want}, resp.Trailer.Values("T"))
		}
	})
}

func TestAnswerWithoutBody(t *testing.T) {
	answers := steps(evenkeeltest.Status(204).Body("no"), evenkeeltest.Status(304), evenkeeltest.OK("head"))
	everyProtocol(t, answers, func(t *rig) {
		assert.Empty(t, t.getBody())
		assert.Empty(t, t.getBody())
		resp, err := t.tr.RoundTrip(request(t.Context(), t, http.MethodHead, t.url, ""))
		require.NoError(t, err)
		assert.Empty(t, readAll(t, resp))
		assert.EqualValues(t, 4, resp.ContentLength)
	})
}

func TestTrailer(t *testing.T) {
	for _, row := range []struct {
		name      string
		answer    evenkeeltest.Answer
		announced bool
	}{
		{"unannounced", evenkeeltest.OK("x").Trailer("Checksum", "42"), false},
		{"announced", evenkeeltest.OK("x").Header("Trailer", "Checksum").Trailer("Checksum", "42"), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			everyProtocol(t, steps(row.answer), func(t *rig) {
				resp, err := t.get()
				require.NoError(t, err)
				_, announced := resp.Trailer["Checksum"]
				assert.Equal(t, row.announced, announced)
				assert.Equal(t, "x", readAll(t, resp))
				assert.Equal(t, "42", resp.Trailer.Get("Checksum"))
			})
		})
	}
}

func TestDelay(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.OK("late").Delay(time.Minute)), func(t *rig) {
		start := time.Now()
		assert.Equal(t, "late", t.getBody())
		assert.Equal(t, time.Minute, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := t.tr.RoundTrip(request(ctx, t, http.MethodPost, t.url, "upload"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		assert.Zero(t, t.server.ActiveRequests(), "the handler ends with its client")
	})
}

func TestDrip(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.OK("abcde").Drip(2, time.Second)), func(t *rig) {
		start := time.Now()
		resp, err := t.get()
		require.NoError(t, err)
		for i, piece := range []string{"ab", "cd", "e"} {
			p := make([]byte, len(piece))
			_, err := io.ReadFull(resp.Body, p)
			require.NoError(t, err)
			assert.Equal(t, piece, string(p))
			assert.Equal(t, time.Duration(i)*time.Second, time.Since(start))
		}
		assert.Empty(t, readAll(t, resp))
	})
}

func TestDripEndsWithItsClient(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.OK("abcde").Drip(1, time.Hour)), func(t *rig) {
		resp, err := t.get()
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		synctest.Wait()
		assert.Zero(t, t.server.ActiveRequests())
	})
}

func TestCloseMidBody(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer evenkeeltest.Answer
	}{
		{"of known length", evenkeeltest.OK("abcde")},
		{"in chunks", evenkeeltest.OK("abcde").Trailer("Never", "sent")},
		{"dripping", evenkeeltest.OK("abcde").Drip(1, time.Second)},
	} {
		t.Run(row.name, func(t *testing.T) {
			everyProtocol(t, steps(row.answer.CloseMidBody(3)), func(t *rig) {
				resp, err := t.get()
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.Error(t, err)
				if !t.http2() {
					assert.Equal(t, io.ErrUnexpectedEOF, err)
				}
				assert.Equal(t, "abc", string(body))
				require.NoError(t, resp.Body.Close())
			})
		})
	}
}

func TestEarlyStatus(t *testing.T) {
	everyProtocol(t, steps(evenkeeltest.EarlyStatus(503).Body("full")), func(t *rig) {
		body := evenkeeltest.NewBodySize(10<<20).Drip(1<<10, time.Second)
		req := request(t.Context(), t, http.MethodPost, t.url, "")
		body.Stream(req)
		start := time.Now()
		resp, err := t.tr.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Less(t, time.Since(start), 10*time.Second, "long before the upload is over")
		assert.Equal(t, "full", readAll(t, resp))
		time.Sleep(time.Hour)
		assert.Less(t, body.Account().Bytes, int64(1<<20))
		received := t.server.Received()
		require.Len(t, received, 1)
		assert.Zero(t, received[0].BodyRead)
		assert.False(t, received[0].BodyEnd)
	})
}

// Given a small body, which is read after the answer, then the connection serves the next request.
func TestEarlyStatus_SmallBody(t *testing.T) {
	everyProtocol(t, func() http.Handler { return evenkeeltest.EarlyStatus(503) }, func(t *rig) {
		for range 100 {
			resp, err := t.tr.RoundTrip(request(t.Context(), t, http.MethodPost, t.url, "small"))
			require.NoError(t, err)
			assert.Equal(t, 503, resp.StatusCode)
			assert.Empty(t, readAll(t, resp))
			synctest.Wait()
		}
		assert.Equal(t, 1, t.network.Dials(t.server.Addr()))
	})
}

func TestBigAnswer(t *testing.T) {
	text := strings.Repeat("evenkeel", 1<<17) // more than all buffers hold
	everyProtocol(t, steps(evenkeeltest.OK(text)), func(t *rig) {
		assert.Equal(t, text, t.getBody())
	})
}

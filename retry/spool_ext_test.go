package retry_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// Given a stream, then it is sent again if all of it fits; otherwise it is sent once, whole.
func TestSpool_Cap_T04(t *testing.T) {
	const content = "0123456789"
	for _, row := range []struct {
		name   string
		spool  int
		length int64
		sends  int
	}{
		{"off", 0, -1, 1},
		{"of unknown length", 100, -1, 3},
		{"of known length", 100, 10, 3},
		{"just fits", 10, -1, 3},
		{"just fits, of known length", 10, 10, 3},
		{"one too long", 9, -1, 1},
		{"one too long, of known length", 9, 10, 1},
		{"much too long", 1, -1, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := scripted(answer(503))
				body := evenkeeltest.NewBody(content).Drip(3, 0)
				req := request(t.Context(), http.MethodPut, nil)
				body.Stream(req)
				req.ContentLength = row.length
				resp, err := around(t, base, retry.Policy{Spool: row.spool}).RoundTrip(req)
				require.NoError(t, err)
				info, _ := retry.InfoOf(resp)
				status, _ := read(t, resp)
				assert.Equal(t, 503, status)
				assert.Equal(t, map[bool]outcome.Reason{true: outcome.Attempts, false: outcome.NotReplayable}[row.sends > 1], info.Reason)
				require.Len(t, base.all(), row.sends)
				for _, one := range base.all() {
					assert.Equal(t, content, string(one.body))
					assert.Equal(t, row.length, one.req.ContentLength)
				}
				body.AssertClosed(t)
				assert.EqualValues(t, len(content), body.Account().Bytes, "the caller's body is read once")
				base.assertClean(t, false)
			})
		})
	}
}

// Given a first attempt that breaks after k bytes, then the second one has all of them.
func TestSpool_FailsOverWithTheWholeBody_T01(t *testing.T) {
	const content = "0123456789"
	for k := range len(content) + 1 {
		t.Run(fmt.Sprintf("after %d bytes", k), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []string
				base := tripper(func(req *http.Request) (*http.Response, error) {
					defer req.Body.Close()
					if len(got) < 2 { // the second one breaks, too, a little later
						part, err := io.ReadAll(io.LimitReader(req.Body, int64(min(k+len(got), len(content)))))
						require.NoError(t, err)
						got = append(got, string(part))
						return nil, errReset
					}
					all, err := io.ReadAll(req.Body)
					got = append(got, string(all))
					return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, err
				})
				body := evenkeeltest.NewBody(content).Drip(4, ms)
				req := request(retry.WithMark(t.Context(), retry.Idempotent), http.MethodPost, nil)
				body.Stream(req)
				resp, err := around(t, base, retry.Policy{Spool: len(content)}).RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
				assert.Equal(t, []string{content[:k], content[:min(k+1, len(content))], content}, got)
				body.AssertClosed(t)
			})
		})
	}
}

// The same on the wire: the server reads a part and breaks.
func TestSpool_OnTheWire_T01(t *testing.T) {
	const size = 100 << 10
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			handler := evenkeeltest.Script(evenkeeltest.ResetAfter(10<<10), evenkeeltest.OK("x"))
			online(t, protocol, handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				body := evenkeeltest.NewBodySize(size)
				req := to(request(t.Context(), http.MethodPut, nil), address)
				body.Stream(req)
				resp, err := around(t, base, retry.Policy{Spool: size}).RoundTrip(req)
				require.NoError(t, err)
				status, _ := read(t, resp)
				assert.Equal(t, 200, status)
				synctest.Wait()
				server.AssertRequests(t, 2)
				assert.EqualValues(t, size, server.Received()[1].BodyRead)
				assert.True(t, server.Received()[1].BodyEnd)
				body.AssertClosed(t)
			})
		})
	}
}

// Given a server that answers 503 before it has the upload, and goes on reading or not, then the
// retry has all of it, and no two read the caller's body at once.
func TestSpool_EarlyAnswer_T05(t *testing.T) {
	const size = 64 << 10
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			handler := evenkeeltest.Script(evenkeeltest.EarlyStatus(503), evenkeeltest.OK("x"))
			online(t, protocol, handler, func(t *testing.T, server *evenkeeltest.Server, base http.RoundTripper, address string) {
				body := evenkeeltest.NewBodySize(size).Drip(16<<10, 5*ms)
				req := to(request(t.Context(), http.MethodPut, nil), address)
				body.Stream(req)
				resp, err := around(t, base, retry.Policy{Spool: size, Backoff: waits(ms)}).RoundTrip(req)
				require.NoError(t, err)
				status, _ := read(t, resp)
				assert.Equal(t, 200, status)
				synctest.Wait()
				server.AssertRequests(t, 2)
				assert.EqualValues(t, size, server.Received()[1].BodyRead)
				body.AssertClosed(t)
			})
		})
	}
}

// brokenBody fails after its content.
type brokenBody struct {
	io.Reader
	closes int
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = errReset
	}
	return n, err
}

func (b *brokenBody) Close() error {
	b.closes++
	return nil
}

// Given a body that breaks, then that error is the caller's, and nothing is sent again.
func TestSpool_BrokenBody_T02(t *testing.T) {
	for _, content := range []string{"", "0123"} {
		sends := 0
		base := tripper(func(req *http.Request) (*http.Response, error) {
			sends++
			defer req.Body.Close()
			_, err := io.Copy(io.Discard, req.Body)
			return nil, err
		})
		body := &brokenBody{Reader: strings.NewReader(content)}
		_, err := around(t, base, retry.Policy{Spool: 100}).RoundTrip(request(t.Context(), http.MethodPut, body))
		require.ErrorIs(t, err, errReset)
		assert.Equal(t, outcome.Caller, failure(t, err).Reason)
		assert.Equal(t, 1, sends)
		assert.Equal(t, 1, body.closes)
	}
}

// Given a reader of the first attempt that is still at it, then the next one waits for it, but not
// long; nothing is read by two at once.
func TestSpool_ReaderIsStillAtIt_T05(t *testing.T) {
	const content = "0123456789"
	for _, row := range []struct {
		name   string
		pause  time.Duration
		status int
		took   time.Duration
		sends  int
	}{
		{"for a while", 40 * ms, 200, 0, 2},
		{"for too long", time.Hour, 503, 60 * ms, 1},
	} {
		for _, spool := range []int{0, 100} {
			t.Run(fmt.Sprintf("%s, spool %d", row.name, spool), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var readers sync.WaitGroup
					var got []string
					base := tripper(func(req *http.Request) (*http.Response, error) {
						if len(got) == 0 { // an early answer, while the upload goes on
							got = append(got, "")
							readers.Go(func() {
								_, _ = io.ReadAll(req.Body)
								_ = req.Body.Close()
							})
							synctest.Wait()
							return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: req}, nil
						}
						all, err := io.ReadAll(req.Body)
						got = append(got, string(all))
						_ = req.Body.Close()
						return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, err
					})
					body := evenkeeltest.NewBody(content).Drip(4, row.pause)
					req := request(t.Context(), http.MethodPut, nil)
					body.Stream(req)
					start := time.Now()
					resp, err := around(t, base, retry.Policy{Spool: spool, Backoff: waits(10 * ms)}).RoundTrip(req)
					require.NoError(t, err)
					status, _ := read(t, resp)
					if took := time.Since(start); spool == 0 { // it was looked at already: lost
						assert.Zero(t, took)
					} else if row.took > 0 {
						assert.Equal(t, row.took, took)
					}
					readers.Wait()
					body.AssertClosed(t)
					if spool == 0 && row.sends == 2 { // what was read is gone
						assert.Equal(t, []string{""}, got)
						assert.Equal(t, 503, status)
						return
					}
					assert.Equal(t, row.status, status)
					assert.Len(t, got, row.sends)
					assert.Equal(t, map[int]string{1: "", 2: content}[row.sends], got[len(got)-1])
				})
			})
		}
	}
}

// endless is a body of so many zeros, which take no memory.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	e.left -= n
	return int(n), nil
}

// Given 1 GiB, then the heap grows by less than 1 MiB, by default and with a spool that is too
// small for it.
func TestSpool_Memory_T04(t *testing.T) {
	buffer := make([]byte, 1<<20)
	for _, p := range []retry.Policy{{}, {Spool: 64 << 10}} {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		before, most, total := stats.HeapAlloc, uint64(0), int64(0)
		base := tripper(func(req *http.Request) (*http.Response, error) {
			defer req.Body.Close()
			var err error
			for i := 0; err == nil; i++ {
				var n int
				n, err = req.Body.Read(buffer)
				total += int64(n)
				if i%64 == 0 {
					runtime.ReadMemStats(&stats)
					most = max(most, stats.HeapAlloc)
				}
			}
			if err != io.EOF {
				return nil, err
			}
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: req}, nil
		})
		resp, err := around(t, base, p).RoundTrip(request(t.Context(), http.MethodPut, &endless{1 << 30}))
		require.NoError(t, err)
		read(t, resp)
		assert.EqualValues(t, 1<<30, total)
		assert.Less(t, int64(most)-int64(before), int64(1<<20))
	}
}

//go:build unix

package nginx_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// probed is the check of these tests.
var probed = health.Check{
	Interval: 500 * time.Millisecond, Timeout: 200 * time.Millisecond, Fall: 3, Rise: 2, FastInterval: 100 * time.Millisecond,
	DownInterval: 250 * time.Millisecond, MaxDownInterval: 500 * time.Millisecond, IdleInterval: health.Off, IgnoreTraffic: true,
}

const (
	// jitter is that of the probes, a tenth.
	jitter = 1.1
	// slack is what a busy machine may take beside.
	slack = 3 * time.Second
	// attempt is how long one may take, so that a hung server fails no call.
	attempt = time.Second
)

// leavesWithin is how long probes take to find that a server is down: the next one begins within an
// Interval, those that follow each a FastInterval after the one before has ended, and each may take
// its Timeout.
func leavesWithin(c health.Check) time.Duration {
	waits := c.Interval + time.Duration(c.Fall-1)*c.FastInterval
	return time.Duration(jitter*float64(waits)) + time.Duration(c.Fall)*c.Timeout
}

// returnsWithin is how long they take to find that it is up again: one may be under way that fails
// yet, the next one comes within MaxDownInterval, and the others each a FastInterval later.
func returnsWithin(c health.Check) time.Duration {
	waits := c.MaxDownInterval + time.Duration(c.Rise-1)*c.FastInterval
	return time.Duration(jitter*float64(waits)) + time.Duration(c.Rise+1)*c.Timeout
}

// patient is a server that can fall ill: an nginx before an application of its own.
type patient struct {
	*nginx
	flag  string // a file that makes nginx answer 500 itself
	delay atomic.Int64
}

func startPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Duration(p.delay.Load())):
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(app.Close)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // the worker may be another user
	p.flag = filepath.Join(dir, "ill")
	p.nginx = startServer(t, settings{Location: fmt.Sprintf("if (-f %s) { return 500; } proxy_pass %s;", p.flag, app.URL)})
	return p
}

// illness is something that can happen to a server, and be mended.
type illness struct {
	name       string
	fall, mend func(*testing.T, *patient)
}

func illnesses() []illness {
	send := func(signal syscall.Signal) func(*testing.T, *patient) {
		return func(t *testing.T, p *patient) {
			t.Helper()
			require.NoError(t, syscall.Kill(-p.Group(), signal))
		}
	}
	return []illness{
		{"answers 500", func(t *testing.T, p *patient) {
			t.Helper()
			require.NoError(t, os.WriteFile(p.flag, nil, 0o600))
		}, func(t *testing.T, p *patient) {
			t.Helper()
			require.NoError(t, os.Remove(p.flag))
		}},
		{"hangs", send(syscall.SIGSTOP), send(syscall.SIGCONT)},
		{"refuses", func(t *testing.T, p *patient) {
			t.Helper()
			p.Kill(t)
		}, func(t *testing.T, p *patient) {
			t.Helper()
			p.Start(t)
		}},
		{"is slow", func(_ *testing.T, p *patient) { p.delay.Store(int64(2 * attempt)) }, func(_ *testing.T, p *patient) { p.delay.Store(0) }},
	}
}

// gets makes GETs, from several callers, until the function that it returns is called, which returns
// all calls.
func (c *client) gets(t *testing.T) (stop func() []call) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls := make([][]call, 4)
	var wg sync.WaitGroup
	for caller := range calls {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				calls[caller] = append(calls[caller], c.send(http.MethodGet, fmt.Sprintf("GET-%d-%d", caller, i)))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	stop = func() []call {
		cancel()
		wg.Wait()
		return slices.Concat(calls...)
	}
	t.Cleanup(func() { stop() })
	return stop
}

// at returns what is known of a server.
func (c *client) at(s *nginx) (known balancer.EndpointStatus) {
	for _, e := range c.transport.Stats().Pool.Endpoints {
		if e.Endpoint.Address == s.Address {
			known = e
		}
	}
	return known
}

// repeating is the retries of these tests: a 500 may be repeated, too.
func repeating() []evenkeel.Option {
	return []evenkeel.Option{
		evenkeel.WithRetry(retry.Policy{PerAttemptTimeout: attempt, Budget: retry.Quota{Size: -1}}),
		evenkeel.WithClassifier(func(a outcome.Attempt) outcome.Outcome {
			o := outcome.Classify(a)
			if a.Response != nil && a.Response.StatusCode == http.StatusInternalServerError {
				o.Again = outcome.Anywhere
			}
			return o
		}),
	}
}

// Given four servers of which one falls ill, then probes find that out within the time that follows
// from their settings, and it gets no request any more; when it is mended, it is used again within
// such a time. No GET fails meanwhile. Nothing but probes looks at the servers here.
func TestNginx_ProbesFindTheIll_H01_H07(t *testing.T) {
	t.Parallel()
	for _, ill := range illnesses() {
		t.Run(ill.name, func(t *testing.T) {
			t.Parallel()
			client, servers := newIllClient(t, evenkeel.WithHealthCheck(probed), evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}))
			bad := servers[1]
			eventually(t, func() bool {
				return !slices.ContainsFunc(client.transport.Stats().Health, func(s health.Status) bool { return s.State != health.Healthy })
			}, "they are not all found healthy")
			stop := client.gets(t)
			client.awaitCalls(t, 40)

			ill.fall(t, bad)
			leaves, returns := client.leavesAndReturns(t, bad, "unhealthy", func() { ill.mend(t, bad) })
			client.awaitCalls(t, 100)
			calls := stop()
			t.Logf("left after %v (at most %v), returned after %v (at most %v); %d calls", leaves, leavesWithin(probed),
				returns, returnsWithin(probed), len(calls))
			assert.LessOrEqual(t, leaves, leavesWithin(probed)+slack)
			assert.LessOrEqual(t, returns, returnsWithin(probed)+slack)
			assertNoGetFailed(t, calls)
			client.quitAll(t, servers)
		})
	}
}

// ejecting is the detection of these tests: three failures in a row are enough, the first ejection
// lasts 2 s and up to a quarter more.
var ejecting = health.Outlier{ConsecutiveFailures: 3, LocalFailures: 3, EjectFor: 2 * time.Second, MaxEjectFor: 4 * time.Second, Jitter: 0.25}

// The same without a probe: three attempts at the ill server find it out, each of which is repeated
// elsewhere. Four callers in turn send one of four requests there, each of which takes the time limit
// of an attempt at most: the third has failed after three such times. It is back when its ejection
// ends: 2.5 s later at most, and 4 s if it was ill then and was ejected for the second time.
func TestNginx_AnswersFindTheIll_B08_B11(t *testing.T) {
	t.Parallel()
	for _, ill := range illnesses() {
		t.Run(ill.name, func(t *testing.T) {
			t.Parallel()
			var told sync.Mutex
			causes := map[string][]health.Cause{} // by address: on a busy machine another one may be ejected, too
			client, servers := newIllClient(t, evenkeel.WithOutlierDetection(ejecting), evenkeel.WithHooks(evenkeel.Hooks{
				Health: func(c health.Change) {
					told.Lock()
					defer told.Unlock()
					if c.Kind == health.Eject {
						causes[c.Endpoint.Address] = append(causes[c.Endpoint.Address], c.Cause)
					}
				},
			}))
			bad := servers[1]
			stop := client.gets(t)
			client.awaitCalls(t, 40)

			ill.fall(t, bad)
			leaves, returns := client.leavesAndReturns(t, bad, "ejected", func() { ill.mend(t, bad) })
			client.awaitCalls(t, 100)
			calls := stop()
			t.Logf("left after %v, returned after %v; %d calls", leaves, returns, len(calls))
			assert.LessOrEqual(t, leaves, 3*attempt+slack)
			assert.LessOrEqual(t, returns, ejecting.MaxEjectFor+slack)
			assertNoGetFailed(t, calls)
			want := health.LocalFailures
			if ill.name == "answers 500" {
				want = health.ConsecutiveFailures
			}
			told.Lock()
			assert.Equal(t, want, causes[bad.Address][0])
			assert.LessOrEqual(t, len(causes[bad.Address]), 2)
			told.Unlock()
			client.quitAll(t, servers)
		})
	}
}

// newIllClient starts four servers and a client that uses them in turn, without breakers.
func newIllClient(t *testing.T, options ...evenkeel.Option) (*client, []*patient) {
	t.Helper()
	var servers []*patient
	var plain []*nginx
	for range 4 {
		p := startPatient(t)
		servers, plain = append(servers, p), append(plain, p.nginx)
	}
	options = append(append(repeating(), evenkeel.WithResolver(newEndpoints(plain...)), evenkeel.WithBalancer(balancer.RoundRobin{}),
		withoutBreaker(), evenkeel.WithRules(balancer.Rules{SlowStart: balancer.SlowStart{Window: -1}})), options...)
	return newClient(t, "http://svc.example", options...), servers
}

// leavesAndReturns waits until an ill server is out of use for that reason, sees that it gets
// nothing, mends it, and waits until it has requests again.
func (c *client) leavesAndReturns(t *testing.T, bad *patient, reason string, mend func()) (leaves, returns time.Duration) {
	t.Helper()
	start := time.Now()
	eventually(t, func() bool { return c.at(bad.nginx).Unavailable == reason }, "%s goes on being used", bad.Address)
	leaves = time.Since(start)
	time.Sleep(20 * time.Millisecond) // a pick may be under way
	attempts := c.at(bad.nginx).Attempts
	c.awaitCalls(t, 100)
	if c.at(bad.nginx).Unavailable == reason {
		assert.Equal(t, attempts, c.at(bad.nginx).Attempts)
	}
	mend()
	start = time.Now()
	eventually(t, func() bool { return c.at(bad.nginx).Unavailable == "" }, "%s is not used any more", bad.Address)
	returns = time.Since(start)
	had := c.at(bad.nginx).Attempts
	eventually(t, func() bool { return c.at(bad.nginx).Attempts > had+3 }, "%s gets nothing", bad.Address)
	return leaves, returns
}

func (c *client) quitAll(t *testing.T, servers []*patient) {
	t.Helper()
	for _, p := range servers {
		c.quit(t, p.nginx)
	}
}

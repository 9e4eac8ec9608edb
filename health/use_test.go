package health

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// patiently is a check that does what Retry-After asks for, up to an hour.
var patiently = Check{
	Probe: HTTP{HeedRetryAfter: true}, Interval: second, Timeout: 500 * ms, Fall: 1, Rise: 1,
	FastInterval: second, DownInterval: second, MaxDownInterval: time.Hour, Jitter: Off, IdleInterval: Off,
}

// Given an endpoint that wants to be left alone for an hour, when the check becomes one that asks
// something else or waits less, or is switched off and on, then it is asked within the intervals of the
// new one, and serves again.
func TestUse_ForgetsRetryAfter_P01(t *testing.T) {
	ready := patiently
	ready.Probe, ready.MaxDownInterval = HTTP{Path: "/ready"}, second
	heeds := ready
	heeds.Probe = HTTP{Path: "/ready", HeedRetryAfter: true}
	tcp := ready
	tcp.Probe = TCP{}
	shorter := patiently
	shorter.MaxDownInterval = 5 * second
	for name, row := range map[string]struct {
		checks []*Check // one after the other, nil for none
		within time.Duration
		serves bool
	}{
		"another path":                {[]*Check{&ready}, second, true},
		"another path, as heedful":    {[]*Check{&heeds}, second, true},
		"another probe":               {[]*Check{&tcp}, second, true},
		"a shorter wait":              {[]*Check{&shorter}, 5 * second, false},
		"off and on":                  {[]*Check{nil, &patiently}, second, false},
		"off and on with another one": {[]*Check{nil, &ready}, second, true},
		"off":                         {[]*Check{nil}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				server := network.Start(evenkeeltest.ServerConfig{Address: "a:80", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/health" {
						w.Header().Set("Retry-After", "3600")
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				})})
				m := newMonitor(t, Config{Check: &patiently, Transport: network.Transport(), Outlier: Outlier{Disabled: true}})
				defer m.Close()
				e, err := m.Add(server.Endpoint())
				require.NoError(t, err)
				time.Sleep(10 * time.Minute)
				require.Len(t, server.Received(), 1, "it is left alone")
				require.Equal(t, Unhealthy, e.Status().State)
				dials := server.Dials()
				for _, c := range row.checks {
					require.NoError(t, m.Use(Config{Check: c, Outlier: Outlier{Disabled: true}}))
				}
				require.Equal(t, row.checks[0] == nil, e.Available(), "what is switched off is forgotten")
				if row.within == 0 {
					time.Sleep(2 * time.Hour)
					assert.Len(t, server.Received(), 1)
					return
				}
				time.Sleep(row.within + ms)
				synctest.Wait()
				assert.Greater(t, len(server.Received())+server.Dials(), 1+dials, "it is asked")
				assert.Equal(t, row.serves, e.Available())
			})
		})
	}
}

// Given an endpoint with few answers, where the slow are ejected, too, then its good service shortens
// the next ejection as it does anywhere, unless it was ejected because it was slow: so few do not show
// that it is not.
func TestUse_CreditWithFewAnswers_B11(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		slowerBy float64
		tripped  func(*ward) // ejects a
		want     []int       // the level after each interval
	}{
		"by a row, nobody is judged by latency": {0, byRow(err500), []int{1, 0, 0, 0}},
		"by a row":                              {3, byRow(err500), []int{1, 0, 0, 0}},
		"by a row without answers":              {3, byRow(noDial), []int{1, 0, 0, 0}},
		"by rate":                               {3, byRate, []int{1, 0, 0, 0}},
		"by latency":                            {3, bySlowness, []int{1, 1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t, Config{Outlier: Outlier{SlowerBy: row.slowerBy, Jitter: Off}}, "a", "b", "c", "d")
			row.tripped(w)
			require.Equal(t, 1, w.members["a"].Status().Level, w.out())
			w.fake.Advance(w.lasts("a"))
			require.Empty(t, w.out())
			for i, want := range row.want {
				w.fewGood(10)
				assert.Equal(t, want, w.members["a"].Status().Level, "after %d", i+1)
			}
			if row.want[1] == 1 { // enough answers say that it is fast again
				w.fewGood(100)
				w.fewGood(100)
				assert.Zero(t, w.members["a"].Status().Level)
			}
		})
	}
}

// fewGood lets so many good answers of each pass, and an interval with them.
func (w *ward) fewGood(n int) {
	w.Helper()
	for _, name := range []string{"a", "b", "c", "d"} {
		w.answers(name, n, took(ms, ok200))
	}
	w.fake.Advance(10 * second)
}

func byRow(a outcome.Answer) func(*ward) { return func(w *ward) { w.answers("a", 5, a) } }

func byRate(w *ward) {
	for range 4 {
		w.answers("a", 4, err500)
		w.answers("a", 1, ok200)
	}
	for _, name := range []string{"b", "c", "d"} {
		w.answers(name, 100, took(ms, ok200))
	}
	w.fake.Advance(10 * second)
}

func bySlowness(w *ward) {
	w.answers("a", 200, took(second, ok200))
	for _, name := range []string{"b", "c", "d"} {
		w.answers(name, 200, took(ms, ok200))
	}
	w.fake.Advance(10 * second)
}

// tardy is a clock whose timers cannot be stopped any more: it is always too late.
type tardy struct{ *clock.Fake }

func (c tardy) AfterFunc(d time.Duration, f func()) clock.Timer {
	return unstopped{c.Fake.AfterFunc(d, f)}
}

type unstopped struct{ clock.Timer }

func (unstopped) Stop() bool { return false }

// Given settings that change often, just when the rates are about to be looked at, then they go on being
// looked at once in an interval: there is one chain of sweeps, however many timers could not be stopped.
func TestUse_OneChainOfSweeps_B10_P04(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(firstDay)
	o := Outlier{Interval: second, SlowerBy: 3}
	m := newMonitor(t, Config{Clock: tardy{fake}, Outlier: o})
	e, err := m.Add(discovery.Endpoint{Address: "a:80"})
	require.NoError(t, err)
	sweeps := func(over time.Duration) (n int) {
		last := m.swept
		for range over / (10 * ms) {
			e.Answered(ok200)
			fake.Advance(10 * ms)
			if m.swept != last {
				last = m.swept
				n++
			}
		}
		return n
	}
	require.InDelta(t, 20, sweeps(20*second), 1)
	for i := range 150 {
		o.Interval = second + time.Duration(i%2)*10*ms
		require.NoError(t, m.Use(Config{Outlier: o}))
		e.Answered(ok200)
		fake.Advance(990 * ms)
		e.Answered(ok200)
	}
	sweeps(3 * second) // the late ones have come
	assert.InDelta(t, 20, sweeps(20*second), 1)
	assert.Equal(t, 1, fake.Pending())
	fake.Advance(time.Minute)
	assert.Zero(t, fake.Pending(), "there is no traffic")
	assert.InDelta(t, 5, sweeps(5*second), 1, "and there is, again")
}

// The same with timers that do stop: the time is counted anew from when the interval changes, and an
// Update that leaves it alone changes nothing.
func TestUse_IntervalOfSweeps_P01(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Interval: 10 * second}}, "a", "b")
	w.answers("a", 1, ok200)
	for i := range 9 {
		w.at(time.Duration(i+1) * second)
		require.NoError(t, w.Use(Config{Outlier: Outlier{Interval: 10 * second, EjectFor: time.Duration(i+1) * second}}))
		w.answers("a", 1, ok200)
		require.Equal(t, 1, w.fake.Pending())
	}
	require.Zero(t, w.swept)
	w.at(10 * second)
	assert.Equal(t, 10*second, w.swept)
	w.answers("a", 1, ok200)
	w.at(12 * second)
	require.NoError(t, w.Use(Config{Outlier: Outlier{Interval: 3 * second}}))
	w.answers("a", 1, ok200)
	require.Equal(t, 1, w.fake.Pending())
	w.at(15*second - 1)
	assert.Equal(t, 10*second, w.swept)
	w.at(15 * second)
	assert.Equal(t, 15*second, w.swept)
}

// signer is a transport of the user's own that looks at the first value of each header, as those do
// that sign them.
type signer struct {
	mu     sync.Mutex
	signed []string
	closed chan struct{} // if set, requests wait for it, and then to close its idle connections is a bug, once
	buggy  sync.Once
}

func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.closed != nil {
		<-s.closed
		return nil, http.ErrNotSupported
	}
	text := r.Method
	for name, values := range r.Header {
		text += " " + name + "=" + values[0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed = append(s.signed, text)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

func (s *signer) CloseIdleConnections() {
	if s.closed == nil {
		return
	}
	select {
	case <-s.closed:
		s.buggy.Do(func() { panic("a bug of the user's") })
	default:
	}
}

// over makes a monitor of endpoint a whose transport is the user's own, and lets it probe for a while.
func (s *signer) over(t *testing.T, p Probe) (*Monitor, *Member) {
	t.Helper()
	m := newMonitor(t, Config{Check: &Check{Probe: p, Interval: second, Timeout: 500 * ms, Jitter: Off, Fall: 1}})
	require.NoError(t, m.Attach(node.Ways{Template: &http.Transport{}, Custom: func(discovery.Endpoint) http.RoundTripper { return s }}))
	m.attached = false // so that Add takes endpoints; it is as in a pool otherwise
	e, err := m.Add(discovery.Endpoint{Address: "a:80"})
	require.NoError(t, err)
	time.Sleep(3 * second)
	synctest.Wait()
	return m, e
}

// Transports of the user's own get no header without a value: neither those that look at each header
// nor those that sign it expect one. What is configured is sent.
func TestHTTP_OwnTransportsGetNoEmptyHeader_H05(t *testing.T) {
	for name, row := range map[string]struct {
		probe HTTP
		want  string
	}{
		"GET":                   {HTTP{}, "GET"},
		"POST":                  {HTTP{Method: http.MethodPost}, "POST"},
		"HEAD":                  {HTTP{Method: http.MethodHead}, "HEAD"},
		"a header":              {HTTP{Header: http.Header{"X-Probe": {"1"}}}, "GET X-Probe=1"},
		"a key":                 {HTTP{Method: http.MethodPost, Header: http.Header{"Idempotency-Key": {"7"}}}, "POST Idempotency-Key=7"},
		"connections each anew": {HTTP{NewConnections: true}, "GET"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &signer{}
				m, e := s.over(t, row.probe)
				defer m.Close()
				assert.Equal(t, Healthy, e.Status().State, "%v", e.Status().Err)
				require.NotEmpty(t, s.signed)
				for _, signed := range s.signed {
					assert.Equal(t, row.want, signed)
				}
			})
		})
	}
}

// Given a transport of the user's own that panics when its idle connections are closed, because its
// endpoint has left while it was probed, then the process goes on.
func TestProbes_OwnTransportPanicsInTheEnd_H06(t *testing.T) {
	for name, end := range map[string]func(*Monitor, *Member){
		"removal": func(_ *Monitor, e *Member) { e.Remove() },
		"Close":   func(m *Monitor, _ *Member) { m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &signer{closed: make(chan struct{})}
				m, e := s.over(t, HTTP{})
				defer m.Close()
				end(m, e)
				synctest.Wait()
				close(s.closed)
				synctest.Wait()
			})
		})
	}
}

// Given settings that change while a pool takes the monitor, then there is no race, and the probes are
// those of the pool.
func TestUse_WhileItIsAttached_P03(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		fake := clock.NewFake(firstDay)
		m := newMonitor(t, Config{Clock: fake, Check: &Check{Probe: HTTP{Path: "/0"}}})
		var both sync.WaitGroup
		begun := make(chan struct{})
		both.Go(func() {
			close(begun)
			for range 5 {
				for _, p := range []Probe{TCP{}, HTTP{}, GRPC{}, HTTP{Path: "/1"}} {
					assert.NoError(t, m.Use(Config{Check: &Check{Probe: p}}))
				}
			}
		})
		<-begun
		ways := node.Ways{Template: &http.Transport{}, Custom: func(discovery.Endpoint) http.RoundTripper {
			return noConnections{}
		}}
		assert.NoError(t, m.Attach(ways))
		m.Monitor(node.New(discovery.Endpoint{Address: "a:80"}, 1, noConnections{}, nil))
		both.Wait()
		assert.Error(t, m.Attach(ways))
		assert.NotNil(t, m.lines.custom, "run %d", i)
		m.Close()
		assert.Zero(t, fake.Pending())
	}
}

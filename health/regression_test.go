package health

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
)

// Probes without a template, or with one that sets nothing, speak HTTP/2 where the server does: a clone
// of such a transport offers it, but does not understand the answer, because it has a dialer of ours.
func TestLines_HTTP2WithoutATemplate_H05(t *testing.T) {
	used := (&http.Transport{}).Clone() // to clone the zero transport is to use it: it offers HTTP/2 now
	require.NotNil(t, used.TLSClientConfig)
	for name, row := range map[string]struct {
		template *http.Transport
		proto    string
	}{
		"none":                 {nil, "HTTP/2.0"},
		"the zero one":         {&http.Transport{}, "HTTP/2.0"},
		"one that was used":    {used, "HTTP/2.0"},
		"one with HTTP/2":      {&http.Transport{ForceAttemptHTTP2: true}, "HTTP/2.0"},
		"one with a timeout":   {&http.Transport{TLSHandshakeTimeout: time.Second}, "HTTP/2.0"},
		"one with TLS of ours": {&http.Transport{TLSClientConfig: evenkeeltest.NewNetwork(t).ClientTLS()}, "HTTP/1.1"}, // net/http's own rule
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				server := network.Start(evenkeeltest.ServerConfig{Address: "10.0.0.1:443", Protocol: evenkeeltest.HTTPS})
				check := Check{Fall: 1}
				m, err := NewMonitor(Config{Check: &check, Target: "https://users.internal", Transport: row.template})
				require.NoError(t, err)
				defer m.Close()
				m.lines.dial = network.DialContext                                // nothing else of the template may be set
				m.lines.web.TLSClientConfig.RootCAs = network.ClientTLS().RootCAs // it is not the system's
				e, err := m.Add(discovery.Endpoint{Address: "10.0.0.1:443"})
				require.NoError(t, err)
				time.Sleep(20 * time.Second)
				assert.Equal(t, Healthy, e.Status().State, "%v", e.Status().Err)
				require.NotEmpty(t, server.Received())
				assert.Equal(t, row.proto, server.Received()[0].Proto)
				assert.Equal(t, "users.internal", server.Received()[0].ServerName)
				assert.Equal(t, 1, server.Dials())
			})
		})
	}
}

// A target that is not in ASCII is refused by its name if there are probes: they would ask for a
// certificate of another name than the traffic does, which has it in ASCII.
func TestConfigValidate_TargetInUnicode_P02(t *testing.T) {
	t.Parallel()
	check := &Check{}
	for target, ok := range map[string]bool{
		"https://bücher.example": false, "http://bücher.example:8080": false, "https://例え.テスト": false, "https://xn--bcher-kva.example": true,
	} {
		assert.NoError(t, Config{Target: target}.Validate(), "%s: nobody is probed", target)
		err := Config{Target: target, Check: check}.Validate()
		if ok {
			assert.NoError(t, err, target)
			continue
		}
		assert.Equal(t, []string{"Target"}, fieldsOf(t, err), target)
		_, err = NewMonitor(Config{Target: target, Check: check})
		assert.Equal(t, []string{"Target"}, fieldsOf(t, err), target)
		m, err := NewMonitor(Config{Target: target})
		require.NoError(t, err)
		assert.Equal(t, []string{"Target"}, fieldsOf(t, m.Use(Config{Target: target, Check: check})), target)
		m.Close()
	}
}

// However odd the rest of a report is, one that says DOWN is believed: the timestamp, the latencies
// and the details are for people, and each of the details stands alone.
func TestReported_WhateverTheOtherFields(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		body string
		want string // part of the error, empty for none
	}{
		"a timestamp in seconds":        {`{"status":"DOWN","timestamp":1767225600}`, "is down"},
		"it comes first":                {`{"timestamp":1767225600,"status":"DOWN"}`, "is down"},
		"a timestamp without a zone":    {`{"status":"DOWN","timestamp":"2026-01-02 15:04:05"}`, "is down"},
		"a timestamp that is an object": {`{"status":"DOWN","timestamp":{"seconds":1}}`, "is down"},
		"a latency with a fraction":     {`{"status":"DOWN","details":{"db":{"status":"DOWN","latencyMs":2.5}}}`, `is down: "db"`},
		"a latency as text":             {`{"status":"DOWN","details":{"db":{"status":"DOWN","latencyMs":"2ms"}}}`, `is down: "db"`},
		"a huge latency":                {`{"status":"DOWN","details":{"db":{"status":"DOWN","latencyMs":1e99}}}`, `is down: "db"`},
		"a detail that is a text":       {`{"status":"DOWN","details":{"error":"no database"}}`, "is down"},
		"such a detail beside another":  {`{"status":"DOWN","details":{"a":"no","db":{"status":"DOWN"},"z":7}}`, `is down: "db"`},
		"a detail whose error is none":  {`{"status":"DOWN","details":{"db":{"error":{"code":7},"status":"DOWN"}}}`, `is down: "db"`},
		"a detail whose status is none": {`{"status":"DOWN","details":{"a":{"status":0},"db":{"status":"DOWN"}}}`, `is down: "db"`},
		"details in a list":             {`{"status":"DOWN","details":[]}`, "is down"},
		"details as text":               {`{"status":"DOWN","details":"no database"}`, "is down"},
		"other fields":                  {`{"status":"DOWN","version":1,"checks":[[]],"output":null}`, "is down"},
		"the server is leaving":         {`{"status":"DOWN","timestamp":0,"details":{"a":1,"server":{"status":"DOWN","latencyMs":0.1,"error":"draining"}}}`, "is draining"},
		"UP":                            {`{"status":"UP","timestamp":1767225600,"details":[7]}`, ""},
		"DEGRADED":                      {`{"status":"DEGRADED","details":{"db":"DOWN"}}`, ""},
		"a status of another type":      {`{"status":1,"details":{"db":{"status":"DOWN"}}}`, ""},
		"a status that is an object":    {`{"status":{"status":"DOWN"}}`, ""},
	} {
		err := reported([]byte(row.body))
		if row.want == "" {
			assert.NoError(t, err, name)
			continue
		}
		if assert.ErrorContains(t, err, row.want, name) {
			want := ErrDown
			if row.want == "is draining" {
				want = ErrDraining
			}
			assert.ErrorIs(t, err, want, name)
		}
	}
}

// intruder is a source of randomness that does something else meanwhile.
type intruder struct{ during func() }

func (i *intruder) Uint64() uint64 {
	i.during()
	return 0
}

// Given a look at the rates that takes its time, then no request waits until it is over.
func TestSweep_NobodyWaits(t *testing.T) {
	t.Parallel()
	var w *ward
	looks, stuck := 0, 0
	chance := &intruder{during: func() {}}
	w = newWard(t, Config{Rand: chance, Outlier: Outlier{ConsecutiveFailures: Off}}, "a", "b", "c", "d")
	w.answers("a", 100, err500)
	for _, name := range []string{"b", "c", "d"} {
		w.answers(name, 1000, ok200)
	}
	var answering sync.WaitGroup
	chance.during = func() { // under the lock of the monitor, for the length of an ejection
		looks++
		require.False(t, w.mu.TryLock(), "it is under way")
		done := make(chan struct{})
		answering.Go(func() {
			defer close(done)
			for _, a := range []func(){
				func() { w.members["b"].Answered(ok200) },
				func() { w.members["c"].Answered(err500) },
			} {
				a()
			}
		})
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			stuck++
		}
	}
	w.fake.Advance(10 * second)
	answering.Wait()
	assert.Equal(t, 1, looks)
	assert.Zero(t, stuck, "a request has waited for it")
	assert.Equal(t, "a: deviation", w.out())
	chance.during = func() {}
	w.answers("b", 1, ok200)
	w.fake.Advance(9 * second)
	require.Equal(t, 2, w.fake.Pending(), "the return of a, and the next look, which the requests have made due")
}

// FalseAlarms is how likely it is that anybody is ejected by chance: the more priorities there are in which
// somebody may be, the more it takes. What is bad enough in one priority alone is not in one of five.
func TestSweep_FalseAlarmsAreOfAllPriorities(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		priorities int
		failures   int
		out        bool
	}{{1, 10, false}, {1, 11, true}, {5, 11, false}, {5, 12, false}, {5, 15, true}} { // of 100, where the other has none
		w := newWard(t, Config{Outlier: judged(Outlier{})})
		for priority := range row.priorities {
			for _, name := range []string{"a", "b"} {
				name = fmt.Sprint(name, priority)
				w.joinAs(name, discovery.Endpoint{Address: name + ":80", Priority: priority})
				failures := 0
				if name == "a0" {
					failures = row.failures
				}
				w.some(name, 100, failures)
			}
		}
		w.fake.Advance(10 * second)
		assert.Equal(t, row.out, w.countOut() == 1, "%d failures, %d priorities: %s", row.failures, row.priorities, w.out())
	}
}

// Given an ejection that was ended early, and another one since, then the end of the first is not that
// of the second, should its timer be late.
func TestEject_LateTimerOfOneThatEndedEarly_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{MaxEjected: 1}}, "a", "b")
	a := w.members["a"].watch
	w.answers("a", 5, err500)
	w.at(10 * second)
	w.mu.Lock()
	w.returnLocked(a, w.fake.Now())
	w.unlock()
	w.answers("a", 5, err500)
	require.Equal(t, byServer, w.out())
	w.comeBack(a, 1)
	require.Equal(t, byServer, w.out())
	assert.Equal(t, 1, w.census.out)
	w.comeBack(a, 2)
	require.Empty(t, w.out())
	assert.Zero(t, w.census.out)
	w.checkEvents()
}

// Given an ejected endpoint that is about to leave, then it takes no place of the cap from those who get
// traffic, nor brings one of them back.
func TestEject_WhoDrainsTakesNoPlace_B10(t *testing.T) {
	t.Parallel()
	w := newWard(t, Config{Outlier: Outlier{Deviation: Off, MaxEjected: 0.4}}, "a", "b", "c", "d", "e", "f")
	w.answers("a", 5, err500)
	n := w.members["a"].watch.node
	e := n.Endpoint()
	e.Draining = true
	n.Update(e)
	w.Settle()
	w.answers("b", 5, err500)
	w.answers("c", 5, err500)
	assert.False(t, w.members["b"].Available())
	assert.False(t, w.members["c"].Available(), "two of five may be out")
}

// A probe that is cancelled because probes are switched off says nothing, and when they are on again
// before it has returned, the endpoint is probed as one of which nothing is known.
func TestUse_OffAndOnDuringAProbe_P01(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second, time.Minute} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				check := Check{Fall: 1, HoldNew: time.Hour, Probe: Func(func(ctx context.Context, _ discovery.Endpoint) error {
					if calls.Add(1) > 1 {
						return nil
					}
					<-ctx.Done()
					time.Sleep(late)
					return errors.New("cancelled")
				}), Interval: time.Hour, Timeout: time.Hour}
				m, err := NewMonitor(Config{Check: &check})
				require.NoError(t, err)
				defer m.Close()
				e, err := m.Add(discovery.Endpoint{Address: "a:80"})
				require.NoError(t, err)
				for calls.Load() == 0 {
					time.Sleep(time.Minute)
					synctest.Wait()
				}
				require.NoError(t, m.Use(Config{}))
				require.NoError(t, m.Use(Config{Check: &check}))
				synctest.Wait()
				assert.Zero(t, e.Status().Probed, "what was cancelled is no result")
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				assert.GreaterOrEqual(t, calls.Load(), int64(2))
				assert.Equal(t, Healthy, e.Status().State, "%v", e.Status().Err)
			})
		})
	}
}

// The error of a report names what is down, in order, whoever else is odd.
func TestReported_NamesInOrder(t *testing.T) {
	t.Parallel()
	err := reported([]byte(`{"status":"DOWN","details":{"z":{"status":"DOWN"},"m":[],"a":{"status":"DOWN"}}}`))
	require.ErrorIs(t, err, ErrDown)
	assert.True(t, strings.HasSuffix(err.Error(), `: "a", "z"`), err.Error())
}

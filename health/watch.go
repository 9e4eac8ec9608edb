package health

import (
	"context"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/row"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// watch is what a monitor knows of one endpoint. What each request counts is counted under no lock;
// the rest is guarded by that of the monitor.
type watch struct {
	monitor *Monitor
	node    *node.Node
	line    *line

	good      tally // answers that were a success
	bad       atomic.Uint64
	failing   row.Row // failures that the endpoint has answered
	gateway   row.Row // those of them that blame what is behind it
	local     row.Row // requests without an answer
	latencies atomic.Pointer[latencies]
	since     atomic.Int64 // requests that began before do not count: an instant of the monitor's
	hurried   atomic.Int64 // when the last probe was asked for because a request failed

	place int  // in the monitor's list
	gone  bool // the endpoint has left

	condition
	probing
	ejection
	seen counted // when the rates were last looked at: sums that only grow
}

// never is a since that nothing began after.
const never = math.MaxInt64

// meaning is what an answer says of the health of its endpoint.
type meaning uint8

const (
	silence meaning = iota // nothing
	served                 // it does what it should
	alive                  // it answers: enough for a row of requests without an answer, no more
	failed                 // it has answered with a failure
	blamed                 // so it has, and blames what is behind it
	lost                   // there was no answer
)

func meaningOf(a outcome.Answer) meaning {
	switch {
	case a.Class == outcome.Success:
		return served
	case a.Class == outcome.ClientError:
		return alive
	case a.Class == outcome.Overload && a.Status == http.StatusServiceUnavailable:
		return blamed
	case a.Class == outcome.Overload:
		return alive
	case a.Class == outcome.Failure && a.Status == 0, a.Class == outcome.NeverSent && !a.Connected:
		return lost
	case a.Class != outcome.Failure:
		return silence
	}
	switch a.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return blamed
	}
	return failed
}

// Answered implements [node.Monitor].
func (w *watch) Answered(a outcome.Answer) {
	if !w.monitor.busy.Load() {
		w.monitor.wake()
	}
	switch m := meaningOf(a); m {
	case silence:
	case served:
		w.good.add()
		w.failing.End(true)
		w.gateway.End(true)
		fallthrough
	case alive:
		w.local.End(true)
		if l := w.latencies.Load(); l != nil {
			l.record(a.Took)
		}
	default:
		w.suffer(a, m)
	}
}

// Whole implements [node.Monitor].
func (w *watch) Whole() {
	w.failing.Whole()
	w.gateway.Whole()
	w.local.Whole()
}

// Broke implements [node.Monitor].
func (w *watch) Broke(a outcome.Answer) {
	if meaningOf(a) == served {
		w.good.takeBack()
	}
	w.bad.Add(1)
	w.failing.Whole()
	w.gateway.Whole()
	w.judge(w.local.Broke(), LocalFailures)
}

// suffer counts a failure, unless it is one of before the endpoint came back from an ejection.
func (w *watch) suffer(a outcome.Answer, m meaning) {
	if began := w.monitor.at(a.Now) - a.Took; int64(began) < w.since.Load() {
		return
	}
	w.bad.Add(1)
	switch m {
	case lost:
		w.judge(w.local.Failed(), LocalFailures)
	case blamed:
		w.judge(w.gateway.Failed(), GatewayFailures)
		fallthrough
	default:
		w.local.End(false)
		if m != blamed {
			w.gateway.End(false)
		}
		w.judge(w.failing.Failed(), ConsecutiveFailures)
	}
	w.monitor.hurry(w)
}

// judge ejects the endpoint if a row has become long enough, or as long again: there may have been
// no room for it before.
func (w *watch) judge(row int, cause Cause) {
	o, limit := &w.monitor.settings.Load().outlier, 0
	switch cause {
	case ConsecutiveFailures:
		limit = o.ConsecutiveFailures
	case GatewayFailures:
		limit = o.GatewayFailures
	default:
		limit = o.LocalFailures
	}
	if limit > 0 && row%limit == 0 && !o.Disabled {
		w.monitor.trip(w, cause)
	}
}

// Gone implements [node.Monitor].
func (w *watch) Gone() { w.monitor.forget(w) }

// restart makes what was counted so far as if it had not been.
func (w *watch) restart(at time.Duration) {
	w.seen = w.counts()
	w.failing.End(false)
	w.gateway.End(false)
	w.local.End(false)
	w.since.Store(int64(at))
	if l := w.latencies.Load(); l != nil {
		w.latencies.Store(newLatencies())
	}
}

// counts returns the sums of what was counted: requests without the failures, and failures.
func (w *watch) counts() counted { return counted{w.good.sum(), w.bad.Load()} }

// interval returns what was counted since it was last asked.
func (w *watch) interval() counted {
	sums := w.counts()
	c := counted{failures: sums.failures - w.seen.failures}
	if successes := sums.requests - w.seen.requests; successes < math.MaxInt64 { // else broken bodies of before
		c.requests = successes
	}
	c.requests += c.failures
	w.seen = sums
	return c
}

// probing is the probes of an endpoint.
type probing struct {
	timer    clock.Timer // nil if no probe is waited for
	timers   int         // how many there were
	due      time.Time   // when the timer is
	underWay bool        // or in the queue
	cancel   context.CancelFunc
	stuck    atomic.Bool // a function has not returned
	held     clock.Timer // until when traffic is kept away, nil if it was not

	err  error // of the last one
	took time.Duration
	when time.Time
}

// ejection is that of an endpoint. The zero ejection is none.
type ejection struct {
	cause  Cause // empty if it is not ejected
	shadow bool  // it is only reported
	until  time.Time
	back   clock.Timer
	weight float64 // what counts as ejected
	rise   int     // how many probes in a row were good since
	level  int     // how many times the first ejection's time the last one took
	number uint64  // how often it was ejected
}

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
	good tally // answers that were a success; it comes first, on cache lines of its own

	monitor *Monitor
	node    *node.Node
	line    *line

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

// The instants before and after all others.
const (
	always = math.MinInt64
	never  = math.MaxInt64
)

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
		w.local.End(a.Class.Good()) // of others, nobody tells how their bodies end
		if l := w.latencies.Load(); l != nil && a.Class.Good() {
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
	if w.before(a) {
		return
	}
	if meaningOf(a) == served {
		w.good.takeBack()
	}
	w.bad.Add(1)
	w.failing.Whole()
	w.gateway.Whole()
	row, added := w.local.Broke()
	w.judge(row, added, LocalFailures)
}

// before reports whether a request began before the endpoint came back from an ejection.
func (w *watch) before(a outcome.Answer) bool {
	return int64(w.monitor.at(a.Now)-a.Took) < w.since.Load()
}

// suffer counts a failure, unless it is one of before the endpoint came back from an ejection.
func (w *watch) suffer(a outcome.Answer, m meaning) {
	if w.before(a) {
		return
	}
	w.bad.Add(1)
	switch m {
	case lost:
		w.judge(w.local.Failed(), 1, LocalFailures)
	case blamed:
		w.judge(w.gateway.Failed(), 1, GatewayFailures)
		fallthrough
	default:
		w.local.End(false)
		if m != blamed {
			w.gateway.End(false)
		}
		w.judge(w.failing.Failed(), 1, ConsecutiveFailures)
	}
	w.monitor.hurry(w)
}

// judge ejects the endpoint if a row to which some were added has become long enough, or as long
// again: there may have been no room for it before.
func (w *watch) judge(row, added int, cause Cause) {
	o := &w.monitor.settings.Load().outlier
	limit := o.LocalFailures
	if cause == ConsecutiveFailures {
		limit = o.ConsecutiveFailures
	} else if cause == GatewayFailures {
		limit = o.GatewayFailures
	}
	if limit > 0 && row/limit != (row-added)/limit && !o.Disabled {
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
		w.latencies.Store(newLatencies(w.monitor.bits))
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
	timer     clock.Timer // nil if no probe is waited for
	timers    int         // how many there were
	due       time.Time   // when the timer is
	notBefore time.Time   // when the endpoint wants to be asked again, if it has said that
	underWay  bool        // or in the queue
	cancel    context.CancelFunc
	stuck     atomic.Bool // a function has not returned
	held      clock.Timer // until when traffic is kept away, nil if it was not

	latest struct { // what the last one has found
		err  error
		took time.Duration
		when time.Time
	}
}

// ejection is that of an endpoint. The zero ejection is none.
type ejection struct {
	cause  Cause // empty if it is not ejected
	shadow bool  // it is only reported
	until  time.Time
	back   clock.Timer
	was    Cause  // why it was ejected the last time
	rise   int    // how many probes in a row were good since
	level  int    // how many times the first ejection's time the last one took
	number uint64 // how often it was ejected
}

package health

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/wait"
)

// beginLocked lets the probes of an endpoint begin: after a random part of the interval, so that
// clients which start together do not ask together.
func (m *Monitor) beginLocked(w *watch, c *Check) {
	m.startDispatcherLocked()
	within := c.Interval
	if w.node.Reasons()&node.Pending != 0 {
		within = min(within, c.HoldNew)
	}
	m.scheduleLocked(w, time.Duration(m.chance()*float64(within)))
}

// holdLocked keeps traffic away from an endpoint that joins others of which one is known to be
// healthy.
func (m *Monitor) holdLocked(w *watch, c *Check) {
	if c.HoldNew > 0 && m.healthy > 0 {
		w.node.Set(node.Pending, node.Pending) // nobody has it yet who could be told
		w.held = m.clock.AfterFunc(c.HoldNew, func() { m.release(w) })
	}
}

// releaseLocked lets traffic come to all that are held back, if nobody is left who could serve
// meanwhile: the first to be healthy would get everything.
func (m *Monitor) releaseLocked() {
	if set := m.settings.Load(); set.check == nil || set.check.HoldNew == 0 {
		return
	}
	for _, w := range m.watches {
		if w.state == Healthy && w.cause == "" && !w.leaving() {
			return
		}
	}
	for _, w := range m.watches {
		m.setLocked(w, node.Pending, 0)
	}
}

// release lets traffic come to an endpoint of which nothing is known, because it was held back for
// long enough.
func (m *Monitor) release(w *watch) {
	m.mu.Lock()
	defer m.unlock()
	if !w.gone && !m.closed {
		m.setLocked(w, node.Pending, 0)
	}
}

// scheduleLocked makes the next probe due after d, or when the endpoint wants to be asked again.
func (m *Monitor) scheduleLocked(w *watch, d time.Duration) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timers++
	which := w.timers
	now := m.now()
	if w.due = now.Add(d); w.due.Before(w.notBefore) {
		w.due, d = w.notBefore, w.notBefore.Sub(now)
	}
	w.timer = m.clock.AfterFunc(d, func() { m.enqueue(w, which) })
}

// stopProbingLocked ends the probes of an endpoint.
func (m *Monitor) stopProbingLocked(w *watch) {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if w.held != nil {
		w.held.Stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
}

// enqueue hands a probe that is due to the dispatcher.
func (m *Monitor) enqueue(w *watch, timer int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.timer == nil || timer != w.timers || m.closed {
		return // it was too late to stop it
	}
	w.timer, w.underWay = nil, true
	m.queue = append(m.queue, w)
	m.wakeDispatcher()
}

func (m *Monitor) wakeDispatcher() {
	select {
	case m.wanted <- struct{}{}:
	default: // it is awake
	}
}

// startDispatcherLocked starts what carries out the probes, unless it runs.
func (m *Monitor) startDispatcherLocked() {
	if m.dispatching || m.closed {
		return
	}
	m.dispatching = true
	m.dispatch.Go(m.carryOut)
}

// carryOut begins the probes that are due, as many at once as are allowed, until the monitor is
// closed.
func (m *Monitor) carryOut() {
	probes, limit := new(errgroup.Group), 0
	defer func() { _ = probes.Wait() }() // none returns an error
	for m.ctx.Err() == nil {
		w, set := m.nextDue()
		if w == nil {
			select {
			case <-m.wanted:
			case <-m.ctx.Done():
			}
			continue
		}
		if limit != set.check.MaxConcurrent {
			before := probes // the bound of a group cannot change while it is at work
			m.dispatch.Go(func() { _ = before.Wait() })
			probes, limit = new(errgroup.Group), set.check.MaxConcurrent
			probes.SetLimit(limit)
		}
		ctx, cancel := context.WithCancel(m.ctx)
		if m.setCancel(w, cancel) {
			probes.Go(func() error {
				defer cancel()
				m.probe(ctx, w, set)
				return nil
			})
		}
	}
}

// nextDue takes the next probe from the queue, nil if there is none.
func (m *Monitor) nextDue() (*watch, *settings) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.settings.Load()
	for len(m.queue) > 0 {
		w := m.queue[0]
		m.queue = m.queue[1:]
		if !w.gone && set.check != nil {
			return w, set
		}
		w.underWay = false
	}
	m.queue = nil
	return nil, nil
}

// setCancel notes how the probe of an endpoint is ended. It reports whether it is to begin.
func (m *Monitor) setCancel(w *watch, cancel context.CancelFunc) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.gone {
		cancel()
		return false
	}
	w.cancel = cancel
	return true
}

// probe asks an endpoint once, and takes what it says.
func (m *Monitor) probe(ctx context.Context, w *watch, set *settings) {
	began := m.now()
	var a answer
	if m.wants(ctx) { // else it has waited for its turn for too long
		timed, deadline := wait.NewDeadline(ctx, m.clock, set.check.Timeout, errTimeout)
		a = m.ask(timed, w, set.prober)
		if deadline.Passed() {
			a = failing(errTimeout)
		}
		deadline.End()
	}
	m.take(w, a, began, ctx.Err() != nil)
}

// wants reports whether a probe is still to begin. Under the lock, nobody is about to end it.
func (m *Monitor) wants(ctx context.Context) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.closed && ctx.Err() == nil
}

// ask asks an endpoint. What the user has written is not relied on to return in time.
func (m *Monitor) ask(ctx context.Context, w *watch, p prober) answer {
	if _, users := p.(Func); !users && w.line.lines.custom == nil {
		return p.ask(ctx, w.line).judged()
	}
	if w.stuck.Swap(true) {
		return failing(errStuck)
	}
	done := make(chan answer, 1)
	go func() {
		a := failing(errGone)
		defer func() {
			if v := recover(); v != nil {
				a = failing(&PanicError{v})
			}
			w.stuck.Store(false)
			done <- a
		}()
		defer w.line.closeOwn(true) // if the endpoint has left meanwhile
		a = p.ask(ctx, w.line).judged()
	}()
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
		return failing(context.Cause(ctx))
	}
}

// errGone is the result of a probe that has ended its goroutine.
var errGone = errors.New("health: the probe did not return: it has called runtime.Goexit")

// take notes what a probe has found, unless it was cancelled, and makes the next one due.
func (m *Monitor) take(w *watch, a answer, began time.Time, cancelled bool) {
	m.mu.Lock()
	defer m.unlock()
	set, now := m.settings.Load(), m.now()
	w.underWay, w.cancel = false, nil
	switch {
	case w.gone || m.closed || set.check == nil:
		return
	case cancelled: // somebody has switched probes off, and on again
		m.beginLocked(w, set.check)
		return
	}
	w.latest.err, w.latest.when, w.latest.took = a.err, m.clock.Now(), now.Sub(began)
	before := w.state
	w.condition.take(a.found, set.check)
	m.showLocked(w, before)
	if w.rise++; a.err != nil {
		w.rise = 0
	}
	if set.outlier.ReturnOnRise && w.rise >= set.check.Rise {
		m.returnLocked(w, now)
	}
	w.notBefore = now.Add(min(a.wait, set.check.MaxDownInterval))
	m.scheduleLocked(w, set.check.jittered(w.condition.wait(set.check, m.idleLocked(set, now)), m.chance()))
}

// showLocked makes everybody see the state of an endpoint.
func (m *Monitor) showLocked(w *watch, before State) {
	reason := node.Reasons(0)
	switch w.state {
	case Unhealthy:
		reason = node.Unhealthy
	case Withdrawn:
		reason = node.Withdrawn
	case Unknown:
		reason = w.node.Reasons() & node.Pending
	case Healthy:
	}
	m.setLocked(w, node.Unhealthy|node.Withdrawn|node.Pending, reason)
	if w.state == before {
		return
	}
	if before == Healthy {
		m.healthy--
	}
	kind := TurnedHealthy
	switch w.state {
	case Unhealthy:
		kind = TurnedUnhealthy
		m.dropped = append(m.dropped, w.node)
	case Withdrawn:
		kind = TurnedAway
	case Unknown:
		kind = TurnedUnknown
	case Healthy:
		m.healthy++
	}
	m.changes.Add(Change{Time: m.clock.Now(), Endpoint: w.node.Endpoint(), Kind: kind, Err: w.latest.err})
}

// idleLocked reports whether there has been no traffic for long.
func (m *Monitor) idleLocked(set *settings, now time.Time) bool {
	return set.check != nil && set.check.IdleInterval != Off && (m.attached || m.told) && !m.busy.Load() && now.Sub(m.traffic) >= set.check.IdleInterval
}

// rouse spreads the next probes over an interval, because there is traffic again.
func (m *Monitor) rouse() {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.settings.Load()
	if m.closed || set.check == nil {
		return
	}
	now := m.now()
	for _, w := range m.watches {
		m.hastenLocked(w, set.check, now)
	}
}

// hastenLocked makes the next probe of a healthy endpoint due within an interval.
func (m *Monitor) hastenLocked(w *watch, c *Check, now time.Time) {
	if w.timer != nil && w.state != Unhealthy && w.due.Sub(now) > c.Interval {
		m.scheduleLocked(w, time.Duration(m.chance()*float64(c.Interval)))
	}
}

// useCheckLocked brings an endpoint under another check.
func (m *Monitor) useCheckLocked(w *watch, c *Check, now time.Time) {
	switch {
	case c == nil:
		m.stopProbingLocked(w)
		before := w.state
		w.condition = condition{}
		w.latest.err, w.latest.when, w.latest.took = nil, time.Time{}, 0
		m.setLocked(w, node.Pending, 0)
		m.showLocked(w, before)
	case w.timer == nil && !w.underWay:
		m.beginLocked(w, c)
	default:
		m.startDispatcherLocked()
		if longest := w.condition.wait(c, false); w.timer != nil && w.due.Sub(now) > longest {
			m.scheduleLocked(w, time.Duration(m.chance()*float64(longest)))
		}
	}
}

// hurry makes a probe due now, because a request has failed: at most once a second, and not for an
// endpoint that is known to be down.
func (m *Monitor) hurry(w *watch) {
	set := m.settings.Load()
	if set.check == nil || set.check.IgnoreTraffic {
		return
	}
	now := m.at(time.Time{})
	last := w.hurried.Load()
	if (last != 0 && int64(now)-last < int64(time.Second)) || !w.hurried.CompareAndSwap(last, max(int64(now), 1)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.timer != nil && !m.closed && w.state != Unhealthy && w.due.After(m.now()) {
		m.scheduleLocked(w, 0)
	}
}

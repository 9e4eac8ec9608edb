package balancer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// result is what somebody got who waited for a pick.
type result struct {
	name string
	Pick
	err    error
	waited time.Duration
}

// line is a queue in a bubble, seen from outside.
type line struct {
	*testing.T
	p       *Pool
	results chan result
}

func newLine(t *testing.T, p *Pool) *line {
	t.Helper()
	return &line{t, p, make(chan result, 1000)}
}

// join makes somebody ask for a pick who may have to wait, and returns when he
// has it or is waiting.
func (l *line) join(ctx context.Context, name string, info Info) {
	l.Helper()
	go func() {
		begin := time.Now()
		pick, err := l.p.PickWait(ctx, info)
		l.results <- result{name, pick, err, time.Since(begin)}
	}()
	synctest.Wait()
}

// served returns who got an answer since the last call, in that order.
func (l *line) served() []result {
	l.Helper()
	synctest.Wait()
	var all []result
	for len(l.results) > 0 {
		all = append(all, <-l.results)
	}
	return all
}

func (l *line) none() {
	l.Helper()
	require.Empty(l, l.served(), "everybody waits")
}

// one returns the only one who got an answer.
func (l *line) one() result {
	l.Helper()
	all := l.served()
	require.Len(l, all, 1)
	return all[0]
}

func inFlight(p *Pool) (n int64) {
	for _, e := range p.Status().Endpoints {
		n += e.InFlight
	}
	return n
}

// Given a cap of two, and two endpoints with as many attempts each, then those who
// come wait, and each end lets the one go on who has waited longest.
func TestQueue_FirstComeFirstServed(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := testPool(t, Config{Algorithm: a, Rules: Rules{MaxInFlight: 2, Queue: Queue{Timeout: time.Hour}}}, addresses("a", "b")...)
				l := newLine(t, p)
				var held []Pick
				for range 4 {
					held = append(held, mustPick(t, p, Info{Now: time.Now()}))
				}
				_, err := p.Pick(Info{Now: time.Now()})
				require.ErrorIs(t, err, ErrSaturated, "Pick never waits")
				for i := range 8 {
					l.join(t.Context(), fmt.Sprint(i), Info{Now: time.Now()})
				}
				l.none()
				for i := range 8 {
					time.Sleep(time.Second)
					at := held[i].Endpoint()
					finish(p, held[i])
					next := l.one()
					require.NoError(t, next.err)
					assert.Equal(t, fmt.Sprint(i), next.name, "in their order")
					assert.Equal(t, at, next.Endpoint(), "where there is room")
					assert.Equal(t, time.Duration(i+1)*time.Second, next.waited)
					held = append(held, next.Pick)
				}
				for _, pick := range held[8:] {
					finish(p, pick)
				}
				assert.Zero(t, inFlight(p))
				assert.Zero(t, p.queue.inFlight.Load())
			})
		})
	}
}

// Nobody who comes later overtakes those who wait, also when there happens to be
// room.
func TestQueue_NobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		l.join(t.Context(), "first", Info{})
		held.pick.Node.Release() // the first half of its end: there is room, and nobody was told
		l.join(t.Context(), "second", Info{})
		first := l.one() // served by the one who came later
		assert.Equal(t, "first", first.name)
		p.ended(true) // the other half
		require.NoError(t, first.err)
		first.Done()
		second := l.one()
		require.NoError(t, second.err)
		second.Done()
		assert.Zero(t, inFlight(p))
	})
}

func canceled(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestQueue_Full(t *testing.T) {
	for _, row := range []struct{ size, places int }{{0, 128}, {3, 3}, {1, 1}, {-1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Size: row.size}}}, addresses("a")...)
			l := newLine(t, p)
			held := mustPick(t, p, Info{})
			for range row.places {
				l.join(t.Context(), "", Info{})
			}
			l.none()
			l.join(t.Context(), "", Info{})
			late := l.one()
			require.ErrorIs(t, late.err, ErrSaturated)
			assert.EqualError(t, late.err, "balancer: every endpoint has as many requests as MaxInFlight allows, and the queue is full")
			var saturated *SaturatedError
			require.ErrorAs(t, late.err, &saturated)
			assert.Equal(t, SaturatedError{QueueFull: true}, *saturated)
			assert.Equal(t, outcome.Limiter, outcome.ReasonOf(late.err))
			assert.Zero(t, late.waited)
			for range row.places {
				held.Done()
				held = l.one().Pick
			}
			held.Done()
			assert.Zero(t, inFlight(p))
		})
	}
}

func TestQueue_Timeout(t *testing.T) {
	for _, row := range []struct{ timeout, want time.Duration }{{0, time.Second}, {250 * time.Millisecond, 250 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: row.timeout}}}, addresses("a")...)
			l := newLine(t, p)
			held := mustPick(t, p, Info{})
			l.join(t.Context(), "", Info{})
			time.Sleep(row.want - time.Nanosecond)
			l.none()
			time.Sleep(time.Nanosecond)
			late := l.one()
			require.ErrorIs(t, late.err, ErrSaturated)
			var saturated *SaturatedError
			require.ErrorAs(t, late.err, &saturated)
			assert.Equal(t, SaturatedError{Waited: row.want}, *saturated)
			assert.ErrorContains(t, late.err, "for the "+row.want.String())
			held.Done()
			mustPick(t, p, Info{}).Done() // nothing was handed to the one who had gone
			assert.Zero(t, inFlight(p))
			assert.Zero(t, p.queue.waiting.Load())
		})
	}
}

// The caller's context ends the wait, and the one behind moves up.
func TestQueue_CallerGivesUp_B16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		cause := errors.New("the user has left")
		ctx, cancel := context.WithCancelCause(t.Context())
		l.join(ctx, "gives up", Info{})
		deadline, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer stop()
		l.join(deadline, "deadline", Info{})
		l.join(t.Context(), "patient", Info{})
		l.join(canceled(t), "came too late", Info{})
		assert.ErrorIs(t, l.one().err, context.Canceled)
		cancel(cause)
		assert.ErrorIs(t, l.one().err, cause)
		time.Sleep(200 * time.Millisecond)
		late := l.one()
		assert.ErrorIs(t, late.err, context.DeadlineExceeded)
		assert.Equal(t, 200*time.Millisecond, late.waited)
		held.Done()
		next := l.one()
		assert.Equal(t, "patient", next.name)
		require.NoError(t, next.err)
		next.Done()
		assert.Zero(t, inFlight(p))
	})
}

// Given that a place is handed to somebody who gives up at the same moment, then he
// either gets it or has left before: it is not lost.
func TestQueue_GivesUpWhenServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a")...)
		l := newLine(t, p)
		for range 50 { // which of the two is seen first is chance
			held := mustPick(t, p, Info{})
			ctx, cancel := context.WithCancel(t.Context())
			l.join(ctx, "", Info{})
			cancel()
			held.Done() // mostly before the other one has moved
			if next := l.one(); next.err == nil {
				next.Done()
			}
			require.Zero(t, inFlight(p))
		}
	})
}

// Whatever makes room lets those go on who wait: not only the end of an attempt.
func TestQueue_RoomComesFromElsewhere(t *testing.T) {
	for _, row := range []struct {
		name string
		make func(p *Pool) // makes room for two, or more
	}{
		{"the cap is raised", func(p *Pool) { _ = p.Use(nil, Rules{MaxInFlight: 3}) }},
		{"the cap is lifted", func(p *Pool) { _ = p.Use(nil, Rules{}) }},
		{"endpoints join", func(p *Pool) { p.update(addresses("a", "b", "c")) }},
		{"endpoints recover", func(p *Pool) {
			p.SetHealthy(discovery.Key{ID: "ill-1:80", Address: "ill-1:80"}, true)
			p.SetHealthy(discovery.Key{ID: "ill-2:80", Address: "ill-2:80"}, true)
		}},
		{"endpoints are replaced", func(p *Pool) { p.update(addresses("b", "c")) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Panic: Panic{Threshold: -1}, Queue: Queue{Timeout: time.Hour}}},
					addresses("a", "ill-1", "ill-2")...)
				judge(t, p, false, addresses("ill-1", "ill-2")...)
				l := newLine(t, p)
				held := mustPick(t, p, Info{})
				l.join(t.Context(), "first", Info{})
				l.join(t.Context(), "second", Info{})
				l.none()
				row.make(p)
				got := l.served()
				require.Len(t, got, 2)
				for _, r := range got {
					require.NoError(t, r.err)
					finish(p, r.Pick)
				}
				finish(p, held)
				assert.Zero(t, inFlight(p))
				assert.Zero(t, p.Status().Draining)
			})
		})
	}
}

// Those who wait learn at once that there is nothing to wait for any more.
func TestQueue_NothingLeftToWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		for range 3 {
			l.join(t.Context(), "", Info{})
		}
		p.update(nil)
		got := l.served()
		require.Len(t, got, 3)
		for _, r := range got {
			assert.ErrorIs(t, r.err, ErrNoEndpoints)
			assert.NotErrorIs(t, r.err, ErrSaturated)
		}
		held.Done()
	})
}

func TestQueue_CloseReleasesThoseWhoWait_T18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		for range 3 {
			l.join(t.Context(), "", Info{})
		}
		p.Close()
		got := l.served()
		require.Len(t, got, 3)
		for _, r := range got {
			assert.ErrorIs(t, r.err, ErrClosed)
		}
		l.join(t.Context(), "", Info{})
		assert.ErrorIs(t, l.one().err, ErrClosed)
		held.Done()
	})
}

// Given rules without a cap, and attempts under way, when a cap comes, then the
// ends of those attempts make room as well.
func TestQueue_CapComesWhileAttemptsAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		require.NoError(t, p.Use(nil, Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}))
		l.join(t.Context(), "", Info{})
		l.none()
		held.Done()
		next := l.one()
		require.NoError(t, next.err)
		next.Done()
		assert.Zero(t, inFlight(p))
		assert.Zero(t, p.queue.inFlight.Load())
	})
}

// Given that the cap is lifted, then no attempt is refused any more, also while
// others still are in the queue.
func TestQueue_NobodyIsRefusedOnceTheCapIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *Pool
		var during error
		asked := false
		p = testPool(t, Config{
			Rules: Rules{MaxInFlight: 1, Panic: Panic{Threshold: -1}, Queue: Queue{Timeout: time.Hour}},
			OnChange: func(c Change) {
				if c.Panic { // it is told between the new rules and those who wait
					var pick Pick
					if pick, during = p.PickWait(t.Context(), Info{}); during == nil {
						pick.Done()
					}
					asked = true
				}
			},
		}, addresses("a", "b")...)
		judge(t, p, false, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		l.join(t.Context(), "", Info{})
		require.NoError(t, p.Use(nil, Rules{Panic: Panic{Threshold: 1}}))
		require.True(t, asked)
		assert.NoError(t, during)
		next := l.one()
		require.NoError(t, next.err)
		next.Done()
		held.Done()
	})
}

// A hook that takes its time holds up nobody who waits for room.
func TestQueue_SlowHookHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := time.Duration(0)
		p := testPool(t, Config{
			Rules:    Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}},
			OnChange: func(Change) { time.Sleep(slow) },
		}, addresses("a")...)
		l := newLine(t, p)
		held := mustPick(t, p, Info{})
		l.join(t.Context(), "", Info{})
		slow = time.Minute
		go p.update(addresses("a", "b"))
		next := l.one()
		require.NoError(t, next.err)
		assert.Zero(t, next.waited)
		next.Done()
		held.Done()
		time.Sleep(time.Hour)
	})
}

// versions returns an endpoint for each version, and the route that leads there.
func versions(names ...string) (endpoints []discovery.Endpoint, route Route) {
	for _, name := range names {
		endpoints = append(endpoints, discovery.Endpoint{Address: name + ":80", Attributes: map[string]string{"version": name}})
	}
	return endpoints, Route{Attribute: "version", From: []HashKey{{Header: "X-Version"}}}
}

func asksFor(version string) Info {
	return Info{Request: &http.Request{Header: http.Header{"X-Version": {version}}}}
}

// Those who wait for the endpoints of one route do not hold up those who want
// others: neither who waits behind them, nor who comes when there is room.
func TestQueue_RoutesDoNotHoldUpEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoints, route := versions("canary", "stable")
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Routes: []Route{route}, Queue: Queue{Timeout: time.Hour}}}, endpoints...)
		l := newLine(t, p)
		canary := mustPick(t, p, asksFor("canary"))
		stable := mustPick(t, p, asksFor("stable"))
		l.join(t.Context(), "first", asksFor("canary"))
		l.join(t.Context(), "second", asksFor("stable"))
		l.none()
		stable.Done()
		second := l.one()
		require.NoError(t, second.err)
		assert.Equal(t, "second", second.name)
		second.Done()

		l.join(t.Context(), "third", asksFor("stable"))
		third := l.one()
		require.NoError(t, third.err)
		assert.Zero(t, third.waited, "there is room")
		third.Done()
		l.join(t.Context(), "fourth", asksFor("canary"))
		l.none()
		canary.Done()
		first := l.one()
		assert.Equal(t, "first", first.name)
		first.Done()
		assert.Equal(t, "fourth", l.one().name)
	})
}

// A call that has tried an endpoint waits for another only if that one is full too:
// what it has tried is better than nothing.
func TestQueue_WithTried_R17(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}}, addresses("a", "b")...)
		l := newLine(t, p)
		first := mustPick(t, p, Info{})
		other := mustPick(t, p, Info{Tried: []uint64{first.Serial()}})
		require.NotEqual(t, first.Serial(), other.Serial())
		first.Done()
		again := mustPick(t, p, Info{Tried: []uint64{first.Serial()}})
		assert.Equal(t, first.Serial(), again.Serial(), "the other one is full")
		l.join(t.Context(), "", Info{Tried: []uint64{first.Serial()}})
		l.none()
		other.Done()
		next := l.one()
		require.NoError(t, next.err)
		assert.Equal(t, other.Serial(), next.Serial())
		next.Done()
		again.Done()
		assert.Zero(t, inFlight(p))
	})
}

// Given priorities and zones that are full, then what has room is used, wherever it
// is, before anybody waits.
func TestQueue_OtherPrioritiesAndZonesFirst(t *testing.T) {
	for _, a := range allAlgorithms {
		endpoints := append(in(0, 8), in(1, 2)...)
		for i := range 4 {
			endpoints[i].Zone, endpoints[4+i].Zone = "here", "there"
		}
		p, _ := fakePool(t, Config{Algorithm: a, Rules: Rules{MaxInFlight: 2, Zones: Zones{Local: "here"}}}, endpoints...)
		got := map[string]int{}
		for k := range 20 {
			e := mustPick(t, p, Info{Now: p.now()}).Endpoint()
			got[e.Address]++
			if k < 16 {
				require.Zero(t, e.Priority, "%T: pick %d", a, k)
			}
		}
		assert.Len(t, got, 10, "%T", a)
		for address, n := range got {
			assert.Equal(t, 2, n, "%T: %s", a, address)
		}
		_, err := p.Pick(Info{})
		assert.ErrorIs(t, err, ErrSaturated, "%T", a)
	}
}

// roundTripFunc is a transport of the test's own.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Given a transport on top, then an attempt has its place until the end of its body,
// the wait for a place is nobody's latency, and who finds none is told so.
func TestQueue_ThroughTheTransport_B01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPool(t, Config{
			Rules: Rules{MaxInFlight: 1, Queue: Queue{Size: 1, Timeout: time.Minute}},
			EndpointTransport: func(discovery.Endpoint) http.RoundTripper {
				return roundTripFunc(func(req *http.Request) (*http.Response, error) {
					time.Sleep(10 * time.Millisecond)
					return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("x")), Request: req}, nil
				})
			},
		}, addresses("a")...)
		rt := NewTransport(p, nil)
		get := func() (*http.Response, error) { return rt.RoundTrip(request(t, "http://svc.example/")) }
		first, err := get()
		require.NoError(t, err)
		second := make(chan *http.Response)
		go func() {
			resp, err := get()
			assert.NoError(t, err)
			second <- resp
		}()
		time.Sleep(30 * time.Second)
		assert.EqualValues(t, 1, inFlight(p), "the first one's body is open")
		_, err = get()
		require.ErrorIs(t, err, ErrSaturated, "one waits already")
		assert.Equal(t, outcome.Limiter, outcome.ReasonOf(err))

		_, err = io.ReadAll(first.Body)
		require.NoError(t, err)
		require.NoError(t, first.Body.Close())
		resp := <-second
		latency := ewmaSample(p.members[0].observer.(*ewmaState).sample.Load()).seconds()
		assert.InDelta(t, 0.010, latency, 0.001, "half a minute of waiting is not in it")

		begin := time.Now()
		_, err = get()
		require.ErrorIs(t, err, ErrSaturated)
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, resp.Body.Close(), "without having been read")
		resp, err = get()
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Zero(t, inFlight(p))
		assert.Zero(t, p.queue.inFlight.Load())
		assert.Zero(t, p.Status().Endpoints[0].Failures, "to wait is no failure of the endpoint")
	})
}

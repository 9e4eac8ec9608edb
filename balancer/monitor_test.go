package balancer

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// doctor is a physician of the test's own, which writes down what it is told.
type doctor struct {
	mu       sync.Mutex
	ways     []node.Ways
	patients map[string][]*chart // by address, one for each incarnation
	at       func(*node.Node)    // called when a watch begins, nil for nothing
	refuse   error
}

// chart is what was told of one node.
type chart struct {
	doctor *doctor
	node   *node.Node
	told   []string
}

func (d *doctor) Attach(w node.Ways) error {
	d.ways = append(d.ways, w)
	return d.refuse
}

func (d *doctor) Monitor(n *node.Node) node.Monitor {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &chart{doctor: d, node: n}
	if d.patients == nil {
		d.patients = map[string][]*chart{}
	}
	address := n.Endpoint().Address
	d.patients[address] = append(d.patients[address], c)
	if d.at != nil {
		d.at(n)
	}
	return c
}

func (c *chart) add(format string, args ...any) {
	c.doctor.mu.Lock()
	defer c.doctor.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf(format, args...))
}

func (c *chart) Answered(a outcome.Answer) { c.add("answered %v", a.Class) }

func (c *chart) Whole() { c.add("whole") }

func (c *chart) Broke(outcome.Answer) { c.add("broke") }

// Settle has nothing to conclude.
func (d *doctor) Settle() bool { return false }

func (c *chart) Gone() { c.add("gone") }

// of returns what was told of an address, incarnation by incarnation.
func (d *doctor) of(address string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, c := range d.patients[address] {
		all = append(all, strings.Join(c.told, "; "))
	}
	return all
}

// Whoever watches the endpoints is told once how connections are made, once of each that joins, of
// each answer, and once that it has left, by an update or by Close.
func TestMonitor_IsToldOfEachIncarnation_B14_H06(t *testing.T) {
	d := &doctor{}
	template := &http.Transport{MaxIdleConnsPerHost: 7}
	p := testPool(t, Config{Health: d, Template: template, Algorithm: RoundRobin{}}, addresses("a", "b")...)
	require.Len(t, d.ways, 1)
	assert.Equal(t, 7, d.ways[0].Template.MaxIdleConnsPerHost)
	assert.NotSame(t, template, d.ways[0].Template)
	assert.Nil(t, d.ways[0].Custom)
	p.update(addresses("a", "b"))
	require.NoError(t, p.Use(Random{}, Rules{}))
	require.NoError(t, p.Use(RoundRobin{}, Rules{}))
	assert.Equal(t, []string{""}, d.of("a:80"), "it has joined once")

	for _, class := range []outcome.Class{outcome.Success, outcome.Success, outcome.Failure, outcome.Canceled} {
		pick := mustPick(t, p, Info{})
		pick.Answered(outcome.Answer{Class: class})
		pick.Done()
	}
	var told []string
	for _, address := range []string{"a:80", "b:80"} {
		told = append(told, d.of(address)[0])
	}
	assert.ElementsMatch(t, []string{"answered success; answered failure", "answered success; answered canceled"}, told)

	p.update([]discovery.Endpoint{{ID: "other", Address: "a:80"}, addresses("b")[0]})
	p.update(addresses("b"))
	of := d.of("a:80")
	require.Len(t, of, 2)
	assert.Equal(t, 1, strings.Count(of[0], "gone"))
	assert.Equal(t, "gone", of[1])
	p.Close()
	assert.Equal(t, 1, strings.Count(d.of("b:80")[0], "gone"))
	assert.Equal(t, of, d.of("a:80"))
}

// Given a pick of before, when its endpoint has left, then its answer is told nevertheless, and
// nothing comes of it.
func TestMonitor_AnswerAfterRemoval_B12(t *testing.T) {
	d := &doctor{}
	p := testPool(t, Config{Health: d}, addresses("a")...)
	pick := mustPick(t, p, Info{})
	p.update(addresses("b"))
	pick.Answered(outcome.Answer{Class: outcome.Failure})
	pick.Done()
	assert.Equal(t, []string{"gone; answered failure"}, d.of("a:80"))
}

// Given that the watch is refused, then there is no pool.
func TestMonitor_RefusedAttach(t *testing.T) {
	refusal := errors.New("not mine")
	_, err := NewPool(Config{Resolver: silent{}, Health: &doctor{refuse: refusal}})
	assert.ErrorIs(t, err, refusal)
}

// A real monitor serves one pool.
func TestMonitor_ServesOnePool(t *testing.T) {
	m, err := health.NewMonitor(health.Config{})
	require.NoError(t, err)
	defer m.Close()
	testPool(t, Config{Health: m}, addresses("a")...)
	_, err = NewPool(Config{Resolver: silent{}, Health: m})
	assert.ErrorContains(t, err, "another pool")
	_, err = m.Add(discovery.Endpoint{Address: "b:80"})
	assert.Error(t, err)
}

// Given an endpoint that is held back from the start, then no snapshot ever shows it as available,
// and no event counts it; alone, or with others like it, it is used.
func TestMonitor_HeldFromTheStart_H03(t *testing.T) {
	d := &doctor{}
	var changes []Change
	p := testPool(t, Config{Health: d, Algorithm: RoundRobin{}, OnChange: func(c Change) { changes = append(changes, c) }}, addresses("a", "b")...)
	d.at = func(n *node.Node) { n.Set(node.Pending, node.Pending) }
	changes = nil
	p.update(addresses("a", "b", "c"))
	assert.Equal(t, []Change{{Added: addresses("c"), Size: 3, Available: 2}}, changes)
	assert.Zero(t, picked(t, p, 20)["c:80"])
	assert.Equal(t, "pending", p.Status().Endpoints[2].Unavailable)
	p.update(addresses("c", "d"))
	assert.Equal(t, map[string]int{"c:80": 10, "d:80": 10}, picked(t, p, 20))
	assert.False(t, p.Status().Panic, "that nothing is known is no reason for panic")
}

// Given an endpoint that returns after any of the reasons of a monitor, then it starts slowly, but
// for those who pick by key; when one of several reasons goes, nothing happens.
func TestMonitor_ReturnsSlowly_B04(t *testing.T) {
	for _, reason := range []node.Reasons{node.Unhealthy, node.Ejected, node.Withdrawn, node.Unhealthy | node.Ejected} {
		t.Run(reason.String(), func(t *testing.T) {
			d := &doctor{}
			p, fake := fakePool(t, Config{Health: d, Algorithm: RoundRobin{}}, addresses("a", "b", "c")...)
			share := func() float64 { return float64(attempts(t, p, 3000)["a:80"]) / 1000 }
			assert.InDelta(t, 1, share(), 0.01)
			a := d.patients["a:80"][0].node
			a.Mark(reason)
			assert.Zero(t, share())
			fake.Advance(time.Hour)
			a.Clear(reason &^ node.Ejected)
			if reason&node.Ejected != 0 {
				assert.Zero(t, share())
				a.Clear(node.Ejected)
			}
			before := share()
			assert.InDelta(t, 0.143, before, 0.02, "0.1 of 2.1")
			for range 6 {
				fake.Advance(5 * time.Second)
				now := share()
				assert.GreaterOrEqual(t, now, before-0.01)
				before = now
			}
			assert.InDelta(t, 1, before, 0.01)
		})
	}
}

// Given keys, when an endpoint is out of use and returns, then only its keys move, and they come
// back.
func TestMonitor_KeysOfTheOthersStay_B16(t *testing.T) {
	keys := []HashKey{{Header: "X-User"}}
	for _, a := range []Algorithm{RingHash{Keys: keys}, Maglev{Keys: keys, TableSize: 251}, Rendezvous{Keys: keys}} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			d := &doctor{}
			p, _ := fakePool(t, Config{Health: d, Algorithm: a}, addresses("a", "b", "c", "d")...)
			place := func() map[int]string {
				places := map[int]string{}
				for user := range 400 {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://users/", http.NoBody)
					require.NoError(t, err)
					req.Header.Set("X-User", fmt.Sprint(user))
					pick := mustPick(t, p, Info{Request: req})
					places[user] = pick.Endpoint().Address
					finish(p, pick)
				}
				return places
			}
			before := place()
			a := d.patients["a:80"][0].node
			a.Mark(node.Ejected)
			moved := 0
			for user, address := range place() {
				switch before[user] {
				case "a:80":
					assert.NotEqual(t, "a:80", address)
					moved++
				default:
					assert.Equal(t, before[user], address)
				}
			}
			assert.Positive(t, moved)
			a.Clear(node.Ejected)
			assert.Equal(t, before, place())
		})
	}
}

// Given panic, then what a probe or the answers say is ignored. What an endpoint says itself, or nobody
// knows yet, makes no panic, and is ignored only if nobody is available.
func TestMonitor_PanicIgnoresOpinions_B09(t *testing.T) {
	for _, row := range []struct {
		reasons []node.Reasons // of a, b and c
		want    map[string]int
		panics  bool
	}{
		{[]node.Reasons{node.Ejected, 0, 0}, map[string]int{"b:80": 15, "c:80": 15}, false},
		{[]node.Reasons{node.Ejected, node.Unhealthy, 0}, map[string]int{"a:80": 10, "b:80": 10, "c:80": 10}, true},
		{[]node.Reasons{node.Withdrawn, node.Unhealthy, 0}, map[string]int{"c:80": 30}, false},
		{[]node.Reasons{node.Withdrawn | node.Ejected, node.Unhealthy, 0}, map[string]int{"c:80": 30}, false},
		{[]node.Reasons{node.Withdrawn, node.Withdrawn, 0}, map[string]int{"c:80": 30}, false},
		{[]node.Reasons{node.Withdrawn, node.Unhealthy, node.Ejected}, map[string]int{"a:80": 10, "b:80": 10, "c:80": 10}, true},
		{[]node.Reasons{node.Pending, 0, 0}, map[string]int{"b:80": 15, "c:80": 15}, false},
		{[]node.Reasons{node.Withdrawn, node.Withdrawn, node.Withdrawn}, map[string]int{"a:80": 10, "b:80": 10, "c:80": 10}, false},
		{[]node.Reasons{node.Draining, node.Ejected, node.Unhealthy}, map[string]int{"b:80": 15, "c:80": 15}, true},
	} {
		t.Run(fmt.Sprint(row.reasons), func(t *testing.T) {
			d := &doctor{}
			p, _ := fakePool(t, Config{Health: d, Algorithm: RoundRobin{}}, addresses("a", "b", "c")...)
			for i, address := range []string{"a:80", "b:80", "c:80"} {
				d.patients[address][0].node.Mark(row.reasons[i])
			}
			assert.Equal(t, row.want, attempts(t, p, 30))
			assert.Equal(t, row.panics, p.Status().Panic)
		})
	}
}

// A real monitor in a pool without anything else: rows of failures eject, in time it is over, and the
// clock is the pool's.
func TestMonitor_EjectsInAPool_B08(t *testing.T) {
	fake := clock.NewFake(epoch)
	m, err := health.NewMonitor(health.Config{Clock: fake, Outlier: health.Outlier{Jitter: health.Off}})
	require.NoError(t, err)
	p := testPool(t, Config{Health: m, Clock: fake, Algorithm: RoundRobin{}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, addresses("a", "b")...)
	for range 10 {
		pick := mustPick(t, p, Info{})
		class := outcome.Success
		if pick.Endpoint().Address == "a:80" {
			class = outcome.Failure
		}
		pick.Answered(outcome.Answer{Class: class})
		pick.Done()
	}
	assert.Equal(t, "ejected", p.Status().Endpoints[0].Unavailable)
	assert.Equal(t, map[string]int{"b:80": 10}, picked(t, p, 10))
	fake.Advance(30*time.Second - 1)
	assert.Equal(t, "ejected", p.Status().Endpoints[0].Unavailable)
	fake.Advance(1)
	assert.Equal(t, map[string]int{"a:80": 5, "b:80": 5}, picked(t, p, 10))
	p.Close()
	m.Close()
	assert.Zero(t, fake.Pending())
}

// Given an endpoint that turns unhealthy, then its idle connections are closed.
func TestMonitor_UnhealthyClosesIdle_H05(t *testing.T) {
	closed := make(chan string, 10)
	fake := clock.NewFake(epoch)
	m, err := health.NewMonitor(health.Config{Clock: fake, Check: &health.Check{Fall: 1, Probe: health.HTTP{Path: "/ill"}}})
	require.NoError(t, err)
	p := testPool(t, Config{Health: m, Clock: fake, EndpointTransport: func(e discovery.Endpoint) http.RoundTripper {
		return closing{e.Address, closed}
	}}, addresses("a")...)
	pick := mustPick(t, p, Info{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a/", http.NoBody)
	require.NoError(t, err)
	resp, err := pick.Transport().RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	pick.Done()
	fake.Advance(5 * time.Second)
	select {
	case address := <-closed:
		assert.Equal(t, "a:80", address)
	case <-time.After(10 * time.Second):
		require.Fail(t, "they are open")
	}
	p.Close()
	m.Close()
}

// closing is a transport that tells of CloseIdleConnections, and knows one path that is ill.
type closing struct {
	address string
	closed  chan string
}

func (c closing) RoundTrip(req *http.Request) (*http.Response, error) {
	status := http.StatusOK
	if req.URL.Path == "/ill" {
		status = http.StatusInternalServerError
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

func (c closing) CloseIdleConnections() { c.closed <- c.address }

package evenkeel_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/session"
)

var secret = session.NewSecret([]byte("0123456789abcdef0123456789abcdef"))

// What a server of a theatre does instead of answering with a status.
const (
	breaks  = -1 // the connection, after the request
	refuses = -2 // connections
)

// theatre is servers whose callers have seats: each answers with its name, or fails as it is told. It
// is made in a bubble.
type theatre struct {
	tr     *evenkeel.Transport
	list   *pushed
	learns bool // the servers set a cookie of their own

	mu       sync.Mutex
	fails    map[string]int           // the status by address, or one of the above
	ill      map[string]bool          // to probes
	takes    map[string]time.Duration // how long an answer takes
	seen     map[string]int           // requests
	sids     int                      // cookies of the servers
	visitors int
	events   []session.Event
}

// newTheatre makes a transport that picks in turn, without breakers and outlier detection, unless the
// options say otherwise.
func newTheatre(t *testing.T, p session.Policy, addresses []string, options ...evenkeel.Option) *theatre {
	t.Helper()
	_, learns := p.By.(session.Learn)
	h := &theatre{
		list: newPushed(), learns: learns, fails: map[string]int{}, ill: map[string]bool{},
		takes: map[string]time.Duration{}, seen: map[string]int{},
	}
	h.tr = h.transport(t, h.list, append([]evenkeel.Option{evenkeel.WithSession(p)}, options...)...)
	h.set(addresses...)
	return h
}

// transport makes a transport for the servers of the theatre.
func (h *theatre) transport(t *testing.T, list discovery.Resolver, options ...evenkeel.Option) *evenkeel.Transport {
	t.Helper()
	options = append([]evenkeel.Option{
		evenkeel.WithResolver(list),
		evenkeel.WithEndpointTransport(func(e discovery.Endpoint) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) { return h.answer(e.Address, req) })
		}),
		evenkeel.WithHooks(evenkeel.Hooks{Session: h.note}), evenkeel.WithRand(seeded(t, 1)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), noBreaker, evenkeel.WithOutlierDetection(health.Outlier{Disabled: true}),
		evenkeel.WithRules(balancer.Rules{SlowStart: balancer.SlowStart{Window: -1}}),
	}, options...)
	tr, err := evenkeel.New("http://users", options...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tr.Close()) })
	return tr
}

// listed are endpoints as text: "a:80", "a:80 draining", "a:80 standby" or "a:80 second".
func listed(addresses ...string) (all []discovery.Endpoint) {
	for _, a := range addresses {
		address, state, _ := strings.Cut(a, " ")
		e := discovery.Endpoint{Address: address, Draining: state == "draining", Standby: state == "standby"}
		if state == "second" {
			e.Priority = 1
		}
		all = append(all, e)
	}
	return all
}

// set makes these the endpoints.
func (h *theatre) set(addresses ...string) { h.list.push(listed(addresses...)...) }

var errBroken = errors.New("the connection broke")

func (h *theatre) answer(address string, req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	status, takes, probe := h.fails[address], h.takes[address], req.URL.Path == "/health"
	if !probe {
		h.seen[address]++
	} else if status = 0; h.ill[address] {
		status = 503
	}
	h.sids++
	sid := fmt.Sprint("sid", h.sids)
	h.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	switch status {
	case breaks:
		return nil, errBroken
	case refuses:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%w: %w", outcome.ErrNeverSent, syscall.ECONNREFUSED)}
	}
	resp := answerTo(req, max(status, http.StatusOK), textBody(address))
	if status == 0 && req.URL.Path == "/elsewhere" {
		resp.StatusCode = http.StatusFound
		resp.Header.Set("Location", "/")
	}
	if status == 0 && req.URL.Path == "/upgrade" {
		resp.StatusCode = http.StatusSwitchingProtocols
		resp.Body = upgraded{}
	}
	if _, err := req.Cookie("SID"); err != nil && h.learns && status == 0 {
		resp.Header.Add("Set-Cookie", "SID="+sid+"; Path=/")
	}
	return resp, nil
}

func (h *theatre) note(e session.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Time = time.Time{}
	h.events = append(h.events, e)
}

// told returns the events since it was last asked, without instants.
func (h *theatre) told() []session.Event {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.events = nil }()
	return h.events
}

// fail makes endpoints fail in some way, or heals them: 0.
func (h *theatre) fail(status int, addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addresses {
		h.fails[a] = status
	}
}

// sick makes an endpoint fail its probes, or not.
func (h *theatre) sick(sick bool, addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addresses {
		h.ill[a] = sick
	}
}

// take makes endpoints take so long.
func (h *theatre) take(d time.Duration, addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addresses {
		h.takes[a] = d
	}
}

// requests is how many an endpoint has had.
func (h *theatre) requests(address string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[address]
}

// why says why an endpoint gets no new calls.
func (h *theatre) why(address string) string {
	synctest.Wait()
	for _, e := range h.tr.Stats().Pool.Endpoints {
		if e.Endpoint.Address == address {
			return e.Unavailable
		}
	}
	return "not there"
}

// crowd makes calls of nobody in particular until an endpoint is away.
func (h *theatre) crowd(t *testing.T, address, why string) {
	t.Helper()
	for i := 0; h.why(address) != why; i++ {
		require.Less(t, i, 1000, "it is %s", h.why(address))
		resp, err := h.tr.RoundTrip(getRequest(t, "http://users/"))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		time.Sleep(step)
	}
}

// visitor is somebody with a session, who keeps cookies and has a key.
type visitor struct {
	*http.Client
	key    string
	issued []*http.Cookie // those of ours in the last answer
}

func (h *theatre) visitor(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	h.visitors++
	return &visitor{Client: &http.Client{Transport: h.tr, Jar: jar}, key: fmt.Sprint("visitor ", h.visitors)}
}

// do makes a call.
func (v *visitor) do(t *testing.T, path string) (*http.Response, error) {
	t.Helper()
	req := getRequest(t, "http://users"+path)
	resp, err := v.Do(req.WithContext(session.WithKey(req.Context(), v.key)))
	v.issued = nil
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
		for _, c := range resp.Cookies() {
			if c.Name != "SID" {
				v.issued = append(v.issued, c)
			}
		}
	}
	return resp, err
}

// visit makes a call that is answered, and returns by whom.
func (v *visitor) visit(t *testing.T) string {
	t.Helper()
	resp, err := v.do(t, "/")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(body)
}

// stays asserts that a visitor stays where he is, and gets no new cookie.
func (v *visitor) stays(t *testing.T, address string) {
	t.Helper()
	for range 7 {
		require.Equal(t, address, v.visit(t))
		require.Empty(t, v.issued)
	}
}

// seating is a way in which somebody is known again.
type seating struct {
	name string
	by   session.Kind
}

// cookies is how many cookies of ours those get who begin, or move.
func (k seating) cookies() int {
	if _, ok := k.by.(session.Cookie); ok {
		return 1
	}
	return 0
}

// seatings are those that find out where somebody belongs when he comes first.
var seatings = []seating{
	{"cookie", session.Cookie{Secret: secret}}, {"key", session.Key{}}, {"learn", session.Learn{Cookie: "SID"}},
}

// forKinds runs a test in a bubble for each of them.
func forKinds(t *testing.T, name string, test func(t *testing.T, k seating)) {
	t.Helper()
	for _, k := range seatings {
		t.Run(strings.TrimPrefix(name+"/"+k.name, "/"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, k) })
		})
	}
}

var (
	probed = evenkeel.WithHealthCheck(keenCheck)
	judged = evenkeel.WithOutlierDetection(brisk)
	broken = evenkeel.WithBreaker(fragile)
)

// Given somebody whose endpoint is gone or down, then he is served by another one, gets one new cookie,
// and is not moved back.
func TestSession_FallsOver_S01_S06(t *testing.T) {
	all := []string{"a:80", "b:80", "c:80", "d:80"}
	heals := func(_ *testing.T, h *theatre, at string) { h.fail(0, at) }
	for _, row := range []struct {
		name, cause string
		down, up    func(t *testing.T, h *theatre, at string)
		option      evenkeel.Option
	}{
		{"removed", "removed", func(_ *testing.T, h *theatre, at string) {
			var others []string
			for _, a := range all {
				if a != at {
					others = append(others, a)
				}
			}
			h.set(others...)
		}, func(_ *testing.T, h *theatre, _ string) { h.set(all...) }, noBreaker},
		{"ejected", "ejected", func(t *testing.T, h *theatre, at string) {
			t.Helper()
			h.fail(500, at)
			h.crowd(t, at, "ejected")
			h.fail(0, at)
		}, func(*testing.T, *theatre, string) { time.Sleep(time.Minute) }, judged},
		{"breaker open", "open", func(t *testing.T, h *theatre, at string) {
			t.Helper()
			h.fail(500, at)
			h.crowd(t, at, "open")
			h.fail(0, at)
		}, func(t *testing.T, h *theatre, at string) {
			t.Helper()
			time.Sleep(time.Minute)
			h.crowd(t, at, "")
		}, broken},
		{"breaker forced open", "forced open", func(t *testing.T, h *theatre, at string) {
			t.Helper()
			for _, b := range h.tr.Breakers() {
				if b.Name() == at {
					require.NoError(t, b.SetMode(breaker.ForcedOpen))
				}
			}
			require.Equal(t, "forced open", h.why(at))
		}, func(t *testing.T, h *theatre, at string) {
			t.Helper()
			for _, b := range h.tr.Breakers() {
				require.NoError(t, b.SetMode(breaker.Auto))
			}
			require.Empty(t, h.why(at))
		}, broken},
		{"unhealthy", "unhealthy", func(t *testing.T, h *theatre, at string) {
			t.Helper()
			h.sick(true, at)
			h.crowd(t, at, "unhealthy")
		}, func(t *testing.T, h *theatre, at string) {
			t.Helper()
			h.sick(false, at)
			h.crowd(t, at, "")
		}, probed},
		{"refuses connections", "attempt failed", func(_ *testing.T, h *theatre, at string) { h.fail(refuses, at) }, heals, noBreaker},
		{"breaks connections", "attempt failed", func(_ *testing.T, h *theatre, at string) { h.fail(breaks, at) }, heals, noBreaker},
		{"is overloaded", "attempt failed", func(_ *testing.T, h *theatre, at string) { h.fail(503, at) }, heals, noBreaker},
	} {
		forKinds(t, row.name, func(t *testing.T, k seating) {
			h := newTheatre(t, session.Policy{By: k.by}, all, row.option)
			v := h.visitor(t)
			first := v.visit(t)
			assert.Len(t, v.issued, k.cookies())
			v.stays(t, first)
			assert.Empty(t, h.told())

			row.down(t, h, first)
			h.told()
			before := h.requests(first)
			second := v.visit(t)
			assert.NotEqual(t, first, second)
			assert.Len(t, v.issued, k.cookies(), "one new cookie")
			if row.cause != "attempt failed" {
				assert.Equal(t, before, h.requests(first), "nobody asks it")
			}
			from := first
			if row.name == "removed" && k.cookies() > 0 {
				from = "" // a cookie does not tell who that was
			}
			assert.Equal(t, []session.Event{{Kind: session.Moved, From: from, To: second, Cause: row.cause}}, h.told())
			v.stays(t, second)
			row.up(t, h, first)
			require.Empty(t, h.why(first))
			v.stays(t, second)
			stats := h.tr.Stats().Session
			assert.EqualValues(t, 1, stats.Moved)
			assert.EqualValues(t, 21, stats.Kept)
			assert.Zero(t, stats.Refused+stats.Rejected+stats.StoreErrors)
			for _, e := range h.told() {
				assert.NotEqual(t, second, e.From, "he is not moved back")
			}
		})
	}
}

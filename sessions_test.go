package evenkeel_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

var secret = session.Secret("0123456789abcdef0123456789abcdef")

// theatre is servers whose callers have seats: each answers with its name, or fails as it is told. It
// is made in a bubble.
type theatre struct {
	tr     *evenkeel.Transport
	client *http.Client
	list   *pushed

	mu     sync.Mutex
	fails  map[string]int // the status by address, -1 for a broken connection
	events []session.Event
	seen   map[string]int
}

func newTheatre(t *testing.T, p session.Policy, addresses []string, options ...evenkeel.Option) *theatre {
	t.Helper()
	h := &theatre{list: newPushed(), fails: map[string]int{}, seen: map[string]int{}}
	options = append([]evenkeel.Option{
		evenkeel.WithResolver(h.list),
		evenkeel.WithEndpointTransport(func(e discovery.Endpoint) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) { return h.answer(e, req) })
		}),
		evenkeel.WithSession(p),
		evenkeel.WithHooks(evenkeel.Hooks{Session: h.note}),
		evenkeel.WithBalancer(balancer.RoundRobin{}),
	}, options...)
	tr, err := evenkeel.New("http://users", options...)
	require.NoError(t, err)
	h.tr, h.client = tr, h.newClient(t, tr)
	h.set(t, addresses...)
	return h
}

// newClient returns a client with cookies of its own.
func (h *theatre) newClient(t *testing.T, rt http.RoundTripper) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &http.Client{Transport: rt, Jar: jar}
}

// set makes these the endpoints: "a:80", "a:80 draining" or "a:80 standby".
func (h *theatre) set(t *testing.T, addresses ...string) {
	t.Helper()
	var all []discovery.Endpoint
	for _, a := range addresses {
		address, state, _ := strings.Cut(a, " ")
		all = append(all, discovery.Endpoint{Address: address, Draining: state == "draining", Standby: state == "standby"})
	}
	h.list.push(all...)
}

var errBroken = errors.New("the connection broke")

func (h *theatre) answer(e discovery.Endpoint, req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status := h.fails[e.Address]
	h.seen[e.Address]++
	if status < 0 {
		return nil, errBroken
	}
	return &http.Response{
		StatusCode: max(status, http.StatusOK), Header: http.Header{}, Request: req,
		Body: io.NopCloser(strings.NewReader(e.Address)),
	}, nil
}

func (h *theatre) note(e session.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// fail makes an endpoint fail with a status, or heals it.
func (h *theatre) fail(address string, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails[address] = status
}

// get returns which endpoint has answered, and the cookies that it set.
func (h *theatre) get(t *testing.T, client *http.Client) (name string, cookies []*http.Cookie) {
	t.Helper()
	resp, err := client.Get("http://users/")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body), resp.Cookies()
}

func TestSession_Cookie_S01_S02_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Cookie{Secret: secret}}, []string{"a:80", "b:80", "c:80"},
			evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled}))
		defer h.tr.Close()
		first, cookies := h.get(t, h.client)
		require.Len(t, cookies, 1)
		for range 10 {
			name, cookies := h.get(t, h.client)
			assert.Equal(t, first, name)
			assert.Empty(t, cookies)
		}
		h.fail(first, -1)
		second, cookies := h.get(t, h.client)
		assert.NotEqual(t, first, second)
		require.Len(t, cookies, 1)
		h.fail(first, 0)
		for range 10 {
			name, cookies := h.get(t, h.client)
			assert.Equal(t, second, name)
			assert.Empty(t, cookies)
		}
		assert.Len(t, h.events, 1)
		assert.Equal(t, session.Moved, h.events[0].Kind)
		assert.Equal(t, "attempt failed", h.events[0].Cause)
		assert.Equal(t, uint64(1), h.tr.Stats().Session.Moved)
	})
}

package evenkeel_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/retry"
)

// closesSlowly is an endpoint's transport that takes a moment to close.
type closesSlowly struct{ *http.Transport }

func (s closesSlowly) CloseIdleConnections() {
	time.Sleep(time.Millisecond)
	s.Transport.CloseIdleConnections()
}

// Given endpoints that are ejected, when the transport is closed, then nobody is told that they have
// returned: neither because others have left before them, however long that takes, nor afterwards.
func TestHealth_RegressionCloseIsNoReturn_O04(t *testing.T) {
	for _, way := range []string{"Close", "Shutdown"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := serveWard(t, "a", "b", "c", "d", "e", "f")
				w.use(evenkeel.WithResolver(w.list), noBreaker, evenkeel.WithHooks(w.hooks()), evenkeel.WithHealthCheck(keenCheck),
					evenkeel.WithOutlierDetection(brisk), evenkeel.WithTransport(nil),
					evenkeel.WithEndpointTransport(func(e discovery.Endpoint) http.RoundTripper {
						tr := w.network.Transport()
						tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
							return w.network.DialContext(ctx, network, e.Address)
						}
						return closesSlowly{tr}
					}))
				require.NoError(t, w.Ready(t.Context()))
				w.until(time.Minute, 0, func() bool { return w.health("f").State == health.Healthy })
				for _, name := range []string{"b", "d", "f"} { // the others leave first
					w.of[name].traffic.Store(500)
				}
				w.calls(60)
				told := strings.Join(w.events(), "; ")
				require.Equal(t, 3, strings.Count(told, "eject, consecutive failures"), told)
				if way == "Close" {
					require.NoError(t, w.Close())
				} else {
					require.NoError(t, w.Shutdown(t.Context()))
				}
				assert.Empty(t, w.events())
				time.Sleep(time.Hour)
				assert.Empty(t, w.events())
			})
		})
	}
}

// Given a hook of any kind that replaces the policy, when an Update brings about what it is told of, then
// neither waits for the other, and the hook's policy is the one that counts.
func TestHealth_RegressionHookUpdatesDuringUpdate_P01(t *testing.T) {
	healed := func(c *evenkeel.Config) { c.Outlier.Disabled = true }
	for name, row := range map[string]struct {
		hooks  func(tell func()) evenkeel.Hooks
		change func(*evenkeel.Config)
	}{
		"Health": {func(tell func()) evenkeel.Hooks {
			return evenkeel.Hooks{Health: func(health.Change) { tell() }}
		}, healed},
		"Endpoints, by the health": {func(tell func()) evenkeel.Hooks {
			return evenkeel.Hooks{Endpoints: func(balancer.Change) { tell() }}
		}, healed},
		"Endpoints, by the rules": {func(tell func()) evenkeel.Hooks {
			return evenkeel.Hooks{Endpoints: func(balancer.Change) { tell() }}
		}, func(c *evenkeel.Config) { c.Rules.Panic.Threshold = 1 }},
		"Breaker": {func(tell func()) evenkeel.Hooks {
			return evenkeel.Hooks{Breaker: func(breaker.Change) { tell() }}
		}, func(c *evenkeel.Config) { c.Breaker.Mode = breaker.Disabled }},
	} {
		t.Run(name, func(t *testing.T) { // not in a bubble, where a deadlock would not be found
			var tr *evenkeel.Transport
			began, told := make(chan struct{}), make(chan error, 100)
			hooks := row.hooks(func() {
				select {
				case <-began:
				default:
					return // what led to it
				}
				c := tr.Config()
				c.Timeout += time.Second
				told <- tr.Update(c)
			})
			threeInARow := fragile
			threeInARow.ConsecutiveFailures = 3
			tr, err := evenkeel.New("http://users",
				evenkeel.WithResolver(discovery.Static{"a:80", "b:80"}), evenkeel.WithBalancer(first("a:80")), evenkeel.WithBreaker(threeInARow),
				evenkeel.WithRetry(retry.Policy{MaxAttempts: 1}), evenkeel.WithOutlierDetection(health.Outlier{ConsecutiveFailures: 3, EjectFor: time.Hour, MaxEjectFor: time.Hour}),
				evenkeel.WithEndpointTransport(func(discovery.Endpoint) http.RoundTripper { return status500{} }),
				evenkeel.WithHooks(hooks))
			require.NoError(t, err)
			require.NoError(t, tr.Ready(t.Context()))
			for range 3 { // one of two is out, then
				if resp, err := tr.RoundTrip(getRequest(t, "http://users/")); err == nil {
					resp.Body.Close()
				}
			}
			require.NotEmpty(t, tr.Stats().Pool.Endpoints[0].Unavailable)
			close(began)
			c := tr.Config()
			row.change(&c)
			updated := make(chan error, 1)
			go func() { updated <- tr.Update(c) }()
			for _, done := range []chan error{told, updated} {
				select {
				case err := <-done:
					require.NoError(t, err)
				case <-time.After(10 * time.Second):
					require.Fail(t, "the hook waits for itself")
				}
			}
			assert.GreaterOrEqual(t, tr.Config().Timeout, time.Second, "it came last")
			require.NoError(t, tr.Close())
		})
	}
}

// Given a target that is not in ASCII, then probes of it are refused by name, by New and by Update,
// and a transport without probes works.
func TestHealth_RegressionTargetInUnicode_P02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const target = "https://bücher.example"
		network := evenkeeltest.NewNetwork(t)
		server := network.Start(evenkeeltest.ServerConfig{Address: "a:443", Protocol: evenkeeltest.HTTPS})
		options := []evenkeel.Option{evenkeel.WithResolver(discovery.List{server.Endpoint()}), evenkeel.WithTransport(network.Transport())}
		_, err := evenkeel.New(target, append(options, evenkeel.WithHealthCheck(health.Check{}))...)
		require.Error(t, err)
		assert.Equal(t, []string{"Target"}, fieldsOf(err))

		tr, err := evenkeel.New(target, options...)
		require.NoError(t, err)
		defer tr.Close()
		call := func() {
			t.Helper()
			resp, err := tr.RoundTrip(getRequest(t, target+"/"))
			require.NoError(t, err)
			readBody(t, resp)
		}
		call()
		before := tr.Config()
		c := tr.Config()
		c.HealthCheck = &health.Check{}
		assert.Equal(t, []string{"Target"}, fieldsOf(tr.Update(c)))
		assert.Equal(t, before, tr.Config())
		time.Sleep(time.Minute)
		call()
		server.AssertRequests(t, 2)
		assert.Equal(t, "xn--bcher-kva.example", server.Received()[0].ServerName)
	})
}

// Given an Update that is refused because the target cannot be probed, then nothing of it is in force,
// the balancer and the breakers included.
func TestHealth_RegressionRefusedUpdateChangesNothing_P02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := evenkeeltest.NewNetwork(t)
		a, b := network.Serve("a:80", nil), network.Serve("b:80", nil)
		tr, err := evenkeel.New("http://bücher.example", evenkeel.WithResolver(discovery.List{a.Endpoint(), b.Endpoint()}),
			evenkeel.WithTransport(network.Transport()), evenkeel.WithBalancer(balancer.RoundRobin{}))
		require.NoError(t, err)
		defer tr.Close()
		require.NoError(t, tr.Ready(t.Context()))
		c := tr.Config()
		c.Balancer, c.Breaker.Mode, c.HealthCheck = first("a:80"), breaker.ForcedOpen, &health.Check{}
		require.Error(t, tr.Update(c))
		assert.Equal(t, balancer.RoundRobin{}, tr.Config().Balancer)
		for range 10 {
			resp, err := tr.RoundTrip(getRequest(t, "http://bücher.example/"))
			require.NoError(t, err)
			readBody(t, resp)
		}
		a.AssertRequests(t, 5)
		b.AssertRequests(t, 5)
	})
}

// Probes name the service as the traffic does, also where the host is an IPv6 address.
func TestHealth_RegressionHostOfProbes_H05(t *testing.T) {
	for target, protocol := range map[string]evenkeeltest.Protocol{
		"http://[::1]": evenkeeltest.HTTP1, "http://[::1]:80": evenkeeltest.HTTP1, "http://[::1]:8080": evenkeeltest.HTTP1,
		"https://[::1]": evenkeeltest.HTTPS, "https://users:443": evenkeeltest.HTTPS, "http://Users.Internal": evenkeeltest.HTTP1,
		"http://users.internal./": evenkeeltest.HTTP1,
	} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := evenkeeltest.NewNetwork(t)
				config := evenkeeltest.ServerConfig{Address: "a:1", Protocol: protocol}
				if strings.HasPrefix(target, "https://[") {
					config.Certificate = "::1" // nobody asks for an address by name
				}
				server := network.Start(config)
				tr, err := evenkeel.New(target, evenkeel.WithResolver(discovery.List{server.Endpoint()}),
					evenkeel.WithTransport(network.Transport()), evenkeel.WithHealthCheck(health.Check{}))
				require.NoError(t, err)
				defer tr.Close()
				resp, err := tr.RoundTrip(getRequest(t, strings.TrimSuffix(target, "/")+"/"))
				require.NoError(t, err)
				readBody(t, resp)
				time.Sleep(6 * time.Second)
				synctest.Wait()
				assert.Equal(t, health.Healthy, tr.Stats().Health[0].State, "%v", tr.Stats().Health[0].Err)
				got := server.Received()
				require.GreaterOrEqual(t, len(got), 2)
				assert.Equal(t, got[0].Host, got[1].Host)
				assert.Equal(t, got[0].ServerName, got[1].ServerName)
			})
		})
	}
}

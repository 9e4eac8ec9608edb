package evenkeel_test

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
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

// Given a target that cannot be probed, because it is not in ASCII, when an Update wants that, then it
// is refused, and nothing of it is in force: neither balancer, rules, breakers nor detection.
func TestHealth_RefusedUpdateLeavesAll_P02(t *testing.T) {
	for name, change := range map[string]func(*evenkeel.Config){
		"nothing else":   func(*evenkeel.Config) {},
		"the balancer":   func(c *evenkeel.Config) { c.Balancer = first("a:443") },
		"the rules":      func(c *evenkeel.Config) { c.Rules.MaxInFlight, c.Rules.Queue.Size = 1, -1 },
		"the breakers":   func(c *evenkeel.Config) { c.Breaker.Mode = breaker.ForcedOpen },
		"the target's":   func(c *evenkeel.Config) { c.TargetBreaker.Mode = breaker.ForcedOpen },
		"the throttle":   func(c *evenkeel.Config) { c.Throttle = nil },
		"the detection":  func(c *evenkeel.Config) { c.Outlier.Disabled = true },
		"the time limit": func(c *evenkeel.Config) { c.Timeout = time.Second },
		"all of it": func(c *evenkeel.Config) {
			*c = evenkeel.Config{Balancer: first("b:443"), Rules: balancer.Rules{MaxInFlight: 1}, Breaker: breaker.Config{Mode: breaker.ForcedOpen}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const target = "https://bücher.example"
				network := evenkeeltest.NewNetwork(t)
				var servers []*evenkeeltest.Server
				var list discovery.List
				for _, address := range []string{"a:443", "b:443"} {
					s := network.Start(evenkeeltest.ServerConfig{Address: address, Protocol: evenkeeltest.HTTPS, Handler: evenkeeltest.OK(address)})
					servers, list = append(servers, s), append(list, s.Endpoint())
				}
				tr, err := evenkeel.New(target, evenkeel.WithConfig(evenkeel.Config{
					Balancer: balancer.RoundRobin{}, TargetBreaker: &breaker.Config{}, Throttle: &breaker.ThrottleConfig{}, Outlier: brisk,
				}), evenkeel.WithResolver(list), evenkeel.WithTransport(network.Transport()), evenkeel.WithRand(seeded(t, 1)))
				require.NoError(t, err)
				defer tr.Close()
				require.NoError(t, tr.Ready(t.Context()))
				config, stats := tr.Config(), tr.Stats()
				c := tr.Config()
				change(&c)
				c.HealthCheck = &health.Check{}
				for range 3 {
					assert.Equal(t, []string{"Target"}, fieldsOf(tr.Update(c)))
				}
				assert.Equal(t, config, tr.Config())
				assert.Equal(t, stats, tr.Stats())

				var under []*http.Response // so many at once
				for range 6 {
					resp, err := tr.RoundTrip(getRequest(t, target+"/"))
					require.NoError(t, err)
					under = append(under, resp)
				}
				for _, resp := range under {
					readBody(t, resp)
				}
				servers[0].AssertRequests(t, 3)
				servers[1].AssertRequests(t, 3)

				c.HealthCheck = nil
				require.NoError(t, tr.Update(c), "without probes it is fine")
				time.Sleep(time.Minute)
				assert.Len(t, servers[0].Received(), 3, "nobody was probed")
			})
		})
	}
}

// shares reports where two values that are equal share memory that can be written: maps, arrays
// behind slices, and what pointers point to, below the path.
func shares(a, b reflect.Value, path string) (found []string) {
	if a.Kind() != b.Kind() || a.Type() != b.Type() {
		return nil
	}
	switch a.Kind() {
	case reflect.Interface, reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return nil
		}
		if a.Kind() == reflect.Pointer && a.Pointer() == b.Pointer() {
			return []string{path}
		}
		return shares(a.Elem(), b.Elem(), path)
	case reflect.Struct:
		for i := range a.NumField() {
			found = append(found, shares(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name)...)
		}
	case reflect.Map:
		if a.Len() > 0 && a.Pointer() == b.Pointer() {
			return []string{path}
		}
		for _, key := range a.MapKeys() {
			if other := b.MapIndex(key); other.IsValid() {
				found = append(found, shares(a.MapIndex(key), other, path+"["+key.String()+"]")...)
			}
		}
	case reflect.Slice:
		if a.Len() > 0 && b.Len() > 0 && a.Pointer() == b.Pointer() {
			return []string{path}
		}
		for i := range min(a.Len(), b.Len()) {
			found = append(found, shares(a.Index(i), b.Index(i), path+"[]")...)
		}
	default:
	}
	return found
}

// wholePolicy returns a policy with all that a caller could share, made anew each time.
func wholePolicy() evenkeel.Config {
	return evenkeel.Config{
		Balancer: balancer.RoundRobin{},
		Rules: balancer.Rules{
			Zones:     balancer.Zones{Local: "a", Clients: map[string]float64{"a": 1, "b": 2}},
			SlowStart: balancer.SlowStart{Window: -1},
			Routes: []balancer.Route{
				{Attribute: "version", From: []balancer.HashKey{{Header: "X-Version"}, {Query: "v"}}},
				{Attribute: "shard", From: []balancer.HashKey{{Header: "X-Shard"}}},
			},
		},
		TargetBreaker: &breaker.Config{}, Throttle: &breaker.ThrottleConfig{},
		HealthCheck: &health.Check{Probe: health.HTTP{
			Header: http.Header{"X-Probe": {"1"}}, Statuses: []health.Statuses{{From: 200, To: 204}, {From: 404, To: 404}},
		}},
	}
}

// Nothing is shared between what New and Update are given, what is in force, and what Config returns:
// neither maps, nor arrays, nor what is in them.
func TestHealth_NothingIsShared_P02(t *testing.T) {
	given := wholePolicy()
	tr, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{"a:80"}), evenkeel.WithConfig(given))
	require.NoError(t, err)
	defer tr.Close()
	check := func(what string, a, b evenkeel.Config) {
		t.Helper()
		assert.Empty(t, shares(reflect.ValueOf(a), reflect.ValueOf(b), ""), what)
	}
	c := tr.Config()
	check("New", given, c)
	check("Config", c, tr.Config())
	require.NoError(t, tr.Update(c))
	check("Update", c, tr.Config())
	updated := wholePolicy()
	require.NoError(t, tr.Update(updated))
	check("Update with another one", updated, tr.Config())

	rules, probe := wholePolicy().Rules, *wholePolicy().HealthCheck
	one, err := evenkeel.New("http://users", evenkeel.WithResolver(discovery.Static{"a:80"}), evenkeel.WithRules(rules), evenkeel.WithHealthCheck(probe))
	require.NoError(t, err)
	defer one.Close()
	check("options", evenkeel.Config{Rules: rules, HealthCheck: &probe}, one.Config())
}

// Given a caller that changes what it has given, or was given, then what is in force stays; when that
// is applied, it is in force: calls follow the route, and probes have the header and the statuses.
func TestHealth_ChangesCountWhenTheyAreApplied_P02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serveWard(t, "a", "b")
		for i, version := range []string{"old", "new"} {
			w.list[i].Attributes = map[string]string{"version": version}
		}
		given := wholePolicy()
		given.Rules.Zones = balancer.Zones{}
		probe := given.HealthCheck.Probe.(health.HTTP)
		given.HealthCheck.Interval, given.HealthCheck.IdleInterval = time.Second, health.Off
		w.of["b"].probe.Store(404) // which is fine
		w.begin(evenkeel.WithConfig(given), noBreaker)
		by := func(header string) map[string]int {
			t.Helper()
			got := map[string]int{}
			for range 10 {
				req := getRequest(t, "http://users/")
				req.Header.Set(header, "new")
				who, err := w.send(req)
				require.NoError(t, err)
				got[who]++
			}
			return got
		}
		spoil := func(c evenkeel.Config) {
			c.Rules.Routes[0].From[0].Header = "X-Other"
			probe := c.HealthCheck.Probe.(health.HTTP)
			probe.Header.Set("X-Probe", "2")
			probe.Statuses[1] = health.Statuses{From: 405, To: 405}
		}
		probedBy := func() string {
			t.Helper()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			got := w.servers[1].Received()
			for _, r := range slices.Backward(got) {
				if strings.HasPrefix(r.Path, "/health") {
					return r.Header.Get("X-Probe")
				}
			}
			return "never"
		}
		asGiven := func(what string) {
			t.Helper()
			assert.Equal(t, map[string]int{"b": 10}, by("X-Version"), what)
			assert.Equal(t, map[string]int{"a": 5, "b": 5}, by("X-Other"), what)
			assert.Equal(t, "1", probedBy(), what)
			assert.Equal(t, health.Healthy, w.health("b").State, what)
			assert.Equal(t, "X-Version", w.Config().Rules.Routes[0].From[0].Header, what)
			assert.Equal(t, "1", w.Config().HealthCheck.Probe.(health.HTTP).Header.Get("X-Probe"), what)
		}
		asGiven("New")
		spoil(given)
		require.Equal(t, "2", probe.Header.Get("X-Probe"), "it is the caller's own")
		w.set(func(c *evenkeel.Config) { c.Timeout = time.Minute }) // which publishes nothing of it
		asGiven("the options are changed")
		c := w.Config()
		spoil(c)
		asGiven("what Config has returned is changed")

		require.NoError(t, w.Update(c))
		assert.Equal(t, map[string]int{"b": 10}, by("X-Other"))
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, by("X-Version"))
		assert.Equal(t, "2", probedBy())
		assert.Equal(t, health.Unhealthy, w.health("b").State, "404 is not fine any more")
		spoil(wholePolicy())
		c.HealthCheck.Probe.(health.HTTP).Header.Set("X-Probe", "3")
		assert.Equal(t, "2", probedBy())
	})
}

// Given an Update that ends an ejection, a breaker and panic, when a hook panics that is told of one,
// then the caller of Update gets that, what the other hooks are told of is told all the same, and the
// policy is in force.
func TestHealth_HookPanicsDuringUpdate_O04(t *testing.T) {
	for _, bad := range []string{"", "Endpoints", "Breaker", "Health"} {
		t.Run(bad, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var armed atomic.Bool
				var told counter
				hook := func(name string) {
					told.add(name)
					if name == bad && armed.Swap(false) {
						panic("a bug of the user's")
					}
				}
				w := serveWard(t, "a", "b", "c", "d")
				w.begin(
					evenkeel.WithBreaker(breaker.Config{ConsecutiveFailures: 3}), evenkeel.WithOutlierDetection(brisk),
					evenkeel.WithHooks(evenkeel.Hooks{
						Endpoints: func(balancer.Change) { hook("Endpoints") },
						Breaker:   func(breaker.Change) { hook("Breaker") },
						Health:    func(health.Change) { hook("Health") },
					}))
				w.of["a"].traffic.Store(500)
				w.calls(12)
				require.Contains(t, w.reasons("a"), "open")
				c := w.Config() // the same by detection
				c.Outlier.ConsecutiveFailures = 1
				require.NoError(t, w.Update(c))
				w.of["b"].traffic.Store(500)
				w.until(10*time.Second, 1, func() bool { return strings.Contains(w.reasons("b"), "ejected") })
				synctest.Wait()
				before := map[string]int{}
				for _, name := range []string{"Endpoints", "Breaker", "Health"} {
					before[name] = told.get(name)
				}

				armed.Store(bad != "")
				c = w.Config()
				c.Breaker.Mode, c.Outlier.Disabled = breaker.Disabled, true
				update := func() { assert.NoError(t, w.Update(c)) }
				if bad == "" {
					update()
				} else {
					assert.PanicsWithValue(t, "a bug of the user's", update)
				}
				synctest.Wait()
				assert.False(t, armed.Load())
				for _, name := range []string{"Endpoints", "Breaker", "Health"} {
					assert.Greater(t, told.get(name), before[name], "%s, at once", name)
				}
				assert.True(t, w.Config().Outlier.Disabled)
				assert.Empty(t, w.reasons("a"))
				assert.Empty(t, w.reasons("b"))

				had := told.get("Endpoints")
				c = w.Config()
				c.Rules.Panic.Threshold, c.Outlier.Disabled = 1, false
				require.NoError(t, w.Update(c), "nothing is held any more, nor locked")
				w.of["b"].traffic.Store(500)
				w.until(10*time.Second, 1, func() bool { return strings.Contains(w.reasons("b"), "ejected") })
				assert.Greater(t, told.get("Endpoints"), had)
			})
		})
	}
}

// Given a Close that has to wait, for a resolver that takes its time and for a dial of a probe that does
// not heed its context, then no attempt begins meanwhile, nobody looks for endpoints any more, and no
// hook is called: neither during Close nor afterwards, although an ejection ends.
func TestHealth_CloseIsAtOnce_O04(t *testing.T) {
	for _, way := range []string{"Close", "Shutdown"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stuck, watched atomic.Bool
				release := make(chan struct{})
				w := serveWard(t, "a", "b", "c")
				template := w.network.Transport()
				template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					if stuck.Load() {
						<-release
						return nil, net.ErrClosed
					}
					return w.network.DialContext(ctx, network, address)
				}
				check := keenCheck
				check.Probe = health.TCP{}
				w.begin(
					evenkeel.WithTransport(template), evenkeel.WithHealthCheck(check), evenkeel.WithOutlierDetection(brisk),
					evenkeel.WithRetry(retry.Policy{MaxAttempts: 3, PerAttemptTimeout: 5 * time.Second}),
					evenkeel.WithResolver(resolverFunc(func(ctx context.Context, sink discovery.Sink) error {
						watched.Store(true)
						err := w.list.Watch(ctx, sink)
						watched.Store(false)
						time.Sleep(15 * time.Second) // it takes its time
						return err
					})))
				time.Sleep(5 * time.Second) // all are healthy
				w.of["a"].traffic.Store(500)
				w.until(time.Minute, 1, w.isAway("a"))
				w.of["a"].traffic.Store(0)
				require.Equal(t, map[string]int{"b": 5, "c": 5}, w.calls(10))
				w.of["b"].traffic.Store(hangs)
				w.of["c"].traffic.Store(hangs)
				ended := make(chan error, 1)
				go func() {
					_, err := w.call()
					ended <- err
				}()
				stuck.Store(true)
				time.Sleep(1500 * time.Millisecond) // the probes of all hang
				w.events()
				requests := func() (n int) {
					for _, s := range w.servers {
						n += s.Requests()
					}
					return n
				}
				had := requests()
				require.True(t, watched.Load())

				closed := make(chan struct{})
				go func() {
					defer close(closed)
					if way == "Close" {
						assert.NoError(t, w.Close())
						return
					}
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					assert.ErrorIs(t, w.Shutdown(ctx), context.Canceled)
				}()
				synctest.Wait()
				assert.False(t, watched.Load(), "nobody looks for endpoints")
				time.Sleep(20 * time.Second)
				synctest.Wait()
				select {
				case <-closed:
					require.Fail(t, "it does not wait: this test shows nothing")
				default:
				}
				assert.ErrorIs(t, <-ended, evenkeel.ErrClosed, "its second attempt is refused")
				assert.Equal(t, had, requests())
				assert.Empty(t, w.events(), "the ejection would be over")
				close(release)
				<-closed
				time.Sleep(time.Hour)
				assert.Empty(t, w.events())
				assert.Equal(t, had, requests())
			})
		})
	}
}

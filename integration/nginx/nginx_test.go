//go:build unix

package nginx_test

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// phase is how many calls are made between two events.
const phase = 250

// The main job: servers die, come back, join and leave, and nobody notices but
// those whose POST was at the server that died. No POST reaches two servers, or
// one twice.
func TestNginx_NoPostTwice_R01(t *testing.T) {
	t.Parallel()
	// Round robin sends calls to the dead server all the time, but for its breaker,
	// which here is open for a moment only; the default avoids it.
	for name, algorithm := range map[string]balancer.Algorithm{"round robin": balancer.RoundRobin{}, "default": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startApp(t)
			s := settings{Location: app.location()}
			a, b, c := startServer(t, s), startServer(t, s), startServer(t, s)
			set := newEndpoints(a, b, c)
			client := newClient(t, "http://svc.example", evenkeel.WithResolver(set), evenkeel.WithBalancer(algorithm), brief())
			stop := client.traffic(t)
			client.awaitCalls(t, phase)

			b.Kill(t)
			client.awaitCalls(t, phase)
			b.Start(t)
			client.awaitCalls(t, phase)
			d := startServer(t, s)
			set.add(d)
			client.awaitCalls(t, phase)
			set.drain(a)
			client.awaitDrained(t, a)
			set.remove(a) // closes the connections, for which nginx would wait
			a.quit(t)
			client.awaitCalls(t, phase)
			calls := stop()
			client.quit(t, b, c, d)

			assertNoGetFailed(t, calls)
			assertPostsOnce(t, calls, app, a, b, c, d)
			assertFailedAt(t, calls, b)
			assert.NotEmpty(t, d.log(t))
			if algorithm != nil {
				assert.Equal(t, 2, b.workers(t), "the server that came back must have had calls before and after")
			}
		})
	}
}

// A server that answers 503 costs idempotent calls a retry. Of the others the
// caller gets the answer as it is: whether it may be repeated is for him to say.
func TestNginx_UnavailableServerIsAvoided_R01(t *testing.T) {
	t.Parallel()
	app := startApp(t)
	good := startServer(t, settings{Location: app.location()})
	bad := startServer(t, settings{Location: "return 503;"})
	client := newClient(t, "http://svc.example", evenkeel.WithResolver(newEndpoints(good, bad)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), withoutBreaker(), withoutOutliers())
	gets, posts := client.series(http.MethodGet, 10), client.series(http.MethodPost, 10)
	client.quit(t, good, bad)

	assertNoGetFailed(t, gets)
	refused := 0
	for _, p := range posts {
		require.NoError(t, p.err)
		if p.status == http.StatusServiceUnavailable {
			refused++
			assert.Equal(t, bad.Address, p.server)
			assert.Equal(t, outcome.NotIdempotent, p.info.Reason)
			assert.Len(t, p.info.Attempts, 1)
		}
	}
	assert.Equal(t, 5, refused, "every other POST, in turn")
	times := timesLogged(t, good, bad)
	for _, p := range posts {
		assert.Equal(t, 1, times[p.id], "%s", p.id)
	}
	assert.NotEmpty(t, idsOf(bad.log(t), http.MethodGet), "the server must have been asked")
}

// A server that closes the connection without an answer may have done its work.
func TestNginx_EmptyReply_R01(t *testing.T) {
	t.Parallel()
	for name, location := range map[string]string{
		"on every connection": "return 444;",
		// The case in which net/http repeats requests by itself.
		"on a connection that was used before": "if ($connection_requests != 1) { return 444; } ",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := startApp(t)
			good := startServer(t, settings{Location: app.location()})
			bad := startServer(t, settings{Location: location + app.location()})
			client := newClient(t, "http://svc.example", evenkeel.WithResolver(newEndpoints(good, bad)),
				evenkeel.WithBalancer(balancer.RoundRobin{}), withoutBreaker(), withoutOutliers())
			gets, posts := client.series(http.MethodGet, 10), client.series(http.MethodPost, 10)
			client.quit(t, good, bad)

			assertNoGetFailed(t, gets)
			assertPostsOnce(t, posts, app, good, bad)
			assertFailedAt(t, posts, bad)
			times := timesLogged(t, good, bad)
			failed := 0
			for _, p := range posts {
				assert.Equal(t, 1, times[p.id], "%s", p.id)
				if p.err != nil {
					failed++
				}
			}
			assert.Positive(t, failed, "the server must have been asked")
		})
	}
}

// The endpoints are addresses, but what the servers are told, and what their
// certificates are checked for, is the name of the service.
func TestNginx_SNIAndHostStayLogical_T13(t *testing.T) {
	t.Parallel()
	app, authority := startApp(t), newAuthority(t)
	s := settings{Location: app.location(), Certificate: authority.issue(t, "svc.example")}
	servers := []*nginx{startServer(t, s), startServer(t, s), startServer(t, s)}
	client := newClient(t, "https://svc.example", evenkeel.WithResolver(newEndpoints(servers...)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), trusting(authority))
	calls := append(client.series(http.MethodGet, 15), client.series(http.MethodPost, 15)...)

	for _, c := range calls {
		require.NoError(t, c.err)
		assert.Equal(t, http.StatusOK, c.status)
		assert.Equal(t, c.info.Endpoint.Address, c.server, "a connection to one endpoint was used for another")
	}
	client.quit(t, servers...)
	for _, s := range servers {
		entries := s.log(t)
		assert.Len(t, entries, 10)
		for _, e := range entries {
			assert.Equal(t, "svc.example", e.serverName)
			assert.Equal(t, "svc.example", e.host)
			assert.Equal(t, "HTTP/2.0", e.protocol)
		}
	}
}

// An address that was given to somebody else has somebody else's certificate. No
// request reaches it, and no call fails, whatever its method.
func TestNginx_WrongCertificateGetsNoRequest_T13(t *testing.T) {
	t.Parallel()
	app, authority := startApp(t), newAuthority(t)
	good := startServer(t, settings{Location: app.location(), Certificate: authority.issue(t, "svc.example")})
	other := startServer(t, settings{Location: app.location(), Certificate: authority.issue(t, "other.example")})
	client := newClient(t, "https://svc.example", evenkeel.WithResolver(newEndpoints(good, other)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), trusting(authority))
	for _, c := range append(client.series(http.MethodGet, 10), client.series(http.MethodPost, 10)...) {
		require.NoError(t, c.err)
		assert.Equal(t, good.Address, c.server)
	}
	assert.Positive(t, client.transport.Stats().Retries, "the other server must have been tried")
	client.quit(t, other)
	assert.Empty(t, other.log(t))
}

// A graceful end of a connection of HTTP/2 says which streams were not processed.
// So a reload, or an end of which discovery has not heard, fails no GET, and a POST
// at most where it may have been processed.
func TestNginx_HTTP2GoesAwayGracefully_R02(t *testing.T) {
	t.Parallel()
	app, authority := startApp(t), newAuthority(t)
	s := settings{Location: app.location(), Certificate: authority.issue(t, "svc.example")}
	a, b, c := startServer(t, s), startServer(t, s), startServer(t, s)
	client := newClient(t, "https://svc.example", evenkeel.WithResolver(newEndpoints(a, b, c)),
		evenkeel.WithBalancer(balancer.RoundRobin{}), trusting(authority))
	stop := client.traffic(t)

	const reloads = 4
	for range reloads {
		client.awaitCalls(t, phase/2)
		a.reload(t)
	}
	client.awaitCalls(t, phase)
	b.quit(t)
	client.awaitCalls(t, phase)
	calls := stop()
	client.quit(t, a, c)

	assertNoGetFailed(t, calls)
	assertPostsOnce(t, calls, app, a, b, c)
	assertFailedAt(t, calls, a, b)
	assert.Equal(t, reloads+1, a.workers(t))
}

// trusting makes the authority's certificates good, and asks for HTTP/2.
// withoutBreaker is for tests of what happens to calls at a server that a breaker would
// keep them away from.
func withoutBreaker() evenkeel.Option {
	return evenkeel.WithBreaker(breaker.Config{Mode: breaker.Disabled})
}

// withoutOutliers is for the same: whoever answers nothing five times in a row is ejected.
func withoutOutliers() evenkeel.Option {
	return evenkeel.WithOutlierDetection(health.Outlier{Disabled: true})
}

// brief makes breakers try again soon.
func brief() evenkeel.Option {
	const soon = 100 * time.Millisecond
	return evenkeel.WithBreaker(breaker.Config{OpenFor: soon, MaxOpenFor: soon})
}

func trusting(a *authority) evenkeel.Option {
	return evenkeel.WithTransport(&http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: a.pool},
		ForceAttemptHTTP2: true, // net/http does not, where a TLS configuration is set
	})
}

func assertNoGetFailed(t *testing.T, calls []call) {
	t.Helper()
	for _, c := range calls {
		if c.method == http.MethodGet {
			require.NoError(t, c.err, "%s", c.id)
			require.Equal(t, http.StatusOK, c.status, "%s", c.id)
		}
	}
}

// assertPostsOnce says that no POST has reached two servers, or one twice, and
// that all that succeeded have reached one.
func assertPostsOnce(t *testing.T, calls []call, app *app, servers ...*nginx) {
	t.Helper()
	for id, times := range timesLogged(t, servers...) {
		assert.Equal(t, 1, times, "%s in the access logs", id)
	}
	posts, failed := 0, 0
	for _, c := range calls {
		switch {
		case c.method != http.MethodPost:
			continue
		case c.err != nil:
			failed++
			assert.LessOrEqual(t, app.times(c.id), 1, "%s, which failed", c.id)
		default:
			assert.Equal(t, http.StatusOK, c.status, "%s", c.id)
			assert.Equal(t, 1, app.times(c.id), "%s", c.id)
		}
		posts++
	}
	t.Logf("%d calls, of %d POSTs %d failed", len(calls), posts, failed)
}

// assertFailedAt says that calls failed for no other reason than that one of
// these servers may have had them.
func assertFailedAt(t *testing.T, calls []call, servers ...*nginx) {
	t.Helper()
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.Address)
	}
	for _, c := range calls {
		if c.err == nil {
			continue
		}
		var typed *evenkeel.Error
		require.ErrorAs(t, c.err, &typed)
		assert.Equal(t, outcome.NotIdempotent, typed.Reason, "%v", c.err)
		assert.Contains(t, addresses, typed.Endpoint, "%v", c.err)
	}
}

// timesLogged returns how often each POST is in the access logs.
func timesLogged(t *testing.T, servers ...*nginx) map[string]int {
	t.Helper()
	times := map[string]int{}
	for _, s := range servers {
		for _, id := range idsOf(s.log(t), http.MethodPost) {
			times[id]++
		}
	}
	require.NotEmpty(t, times)
	return times
}

func idsOf(entries []entry, method string) []string {
	var ids []string
	for _, e := range entries {
		if e.method == method {
			ids = append(ids, e.id)
		}
	}
	return ids
}

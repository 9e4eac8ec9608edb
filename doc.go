// Package evenkeel keeps a service's outgoing HTTP calls on an even keel while the
// servers that it calls die, slow down, restart, move and overload.
//
// A [Transport] is an [http.RoundTripper] for one target, a logical service with
// any number of endpoints:
//
//	t, err := evenkeel.New("http://users.internal:8080")
//	if err != nil { ... }
//	defer t.Close()
//	client := &http.Client{Transport: t}
//	resp, err := client.Get("http://users.internal:8080/api/users/42")
//
// # What happens to one request
//
// The request is checked for what could never be sent, and for being meant for
// this target. A record of the call is made; everything below shares it. Where there are
// sessions, it notes where the caller belongs, and the balancer sends it there if it can. The
// retry layer makes the first attempt: it gets the request with a body of its own
// and a context that lives until the response's body has ended. The balancer picks
// an endpoint (waiting, if no endpoints are known yet), one that is healthy and whose circuit
// breaker lets it, and the attempt goes out on a connection that belongs to that endpoint. The URL, the Host header, the TLS
// server name and the certificate check stay those of the target; only the
// connection is made to the endpoint's address.
//
// When the response's headers arrive, or the attempt fails, one classifier
// (package outcome) says what that meant, and everybody is told: the balancer's
// latencies, the endpoint's breaker, the outlier detection, the quota of retries, the hooks. If the attempt failed and may be
// repeated, it is, at another endpoint if there is one; the answer before is
// thrown away only when the next attempt goes out. The last response is the
// caller's, whatever its status. The endpoint counts the request as in flight
// until the last byte of the body was read or the body was closed.
//
// # What New switches on
//
//	policy               default
//	endpoints            DNS, each 30s and sooner when some fail; last good set kept
//	balancer             peak EWMA, the best of 4
//	priorities           the next helps out below 71 % healthy
//	panic                below 50 % healthy, health is ignored
//	slow start           30s, from a tenth of the weight
//	subset               12 endpoints or more, if traffic is too sparse to learn from
//	drain                30s for requests at an endpoint that has left
//	idle connections     100 per endpoint, closed after 90s
//	dial, TLS handshake  3s, 5s
//	HTTP/2 health        ping after 15s of silence, answer within 5s
//	circuit breaker      per endpoint: opens after 5 failures in a row, or half of 20 or more
//	                     in 10s, for 5s growing to 5m; 3 probes
//	outlier detection    an endpoint that fails more often than the others, looked at each 10s, is
//	                     ejected for 30s growing to 5m; at most half of them; rows of failures are left to the
//	                     circuit breaker
//	retry                3 attempts; full jitter from 50ms to 2s at the same endpoint
//	retry quota          500 tokens; 5 per retry, 10 after a timeout; +1 per success
//	free moves           2 per call, after a refused connection
//	Retry-After          heard up to 10s; the endpoint is left alone for up to 5m
//	hedging              none: WithRetry, retry.Policy.Hedge
//	probes               none: WithHealthCheck
//	zones, routes        none: WithRules
//	limit per endpoint   none: WithRules
//	sessions             none: WithSession
//	target's breaker     none: WithTargetBreaker
//	adaptive throttle    none: WithThrottle
//	timeouts             none besides the caller's: WithTimeout, retry.Policy
//	fallback, hooks      none
//
// Each is a plain struct whose zero value is this default; see the options, and
// [Config] for what can be replaced while calls are under way.
//
// [Services] has many targets behind one RoundTripper, by their names.
//
// # Errors
//
// A response is returned with a nil error, also the last one of a call that
// failed; [InfoOf] tells which attempts it took. Without a response there is an
// [*Error], which says why, tells of each attempt, and holds all causes.
package evenkeel

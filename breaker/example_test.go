package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"time"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// exampleClock returns a clock that moves only when the example says so. A program leaves
// Config.Clock out.
func exampleClock() *clock.Fake { return clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) }

// exampleBreaker returns a breaker, or ends the example.
func exampleBreaker(name string, cfg breaker.Config) *breaker.Breaker {
	b, err := breaker.New(name, cfg)
	if err != nil {
		panic(err)
	}
	return b
}

var errUsersDown = errors.New("users is down")

// statusServer is a transport that answers by itself, in place of a network.
type statusServer struct{ status int }

func (s *statusServer) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// Each host has its own breaker, which opens after five failures in a row, or when half of
// the calls fail. A refused request ends with an *OpenError.
func ExampleNewTransport() {
	now, users := exampleClock(), &statusServer{status: http.StatusBadGateway}
	transport, err := breaker.NewTransport(users, breaker.Config{Clock: now, Jitter: breaker.Off})
	if err != nil {
		panic(err)
	}
	defer transport.Close()
	client := &http.Client{Transport: transport}
	get := func() {
		resp, err := client.Get("http://users/42")
		if err != nil {
			fmt.Println("refused:", errors.Is(err, breaker.ErrOpen))
			return
		}
		defer resp.Body.Close()
		fmt.Println(resp.StatusCode)
	}
	for range 6 {
		get()
	}
	users.status = http.StatusOK
	now.Advance(5 * time.Second)
	get()
	// Output:
	// 502
	// 502
	// 502
	// 502
	// 502
	// refused: true
	// 200
}

// Any function can be guarded. Its error comes back as it is.
func ExampleDo() {
	b := exampleBreaker("users", breaker.Config{ConsecutiveFailures: 2, Jitter: breaker.Off, Clock: exampleClock()})
	name := func(context.Context) (string, error) { return "", errUsersDown }
	for range 3 {
		_, err := breaker.Do(context.Background(), b, name)
		fmt.Println(err)
	}
	// Output:
	// users is down
	// users is down
	// breaker: users is open (consecutive_failures), next try in 5s
}

// The fallback answers when the call has failed, and when it was refused.
func ExampleDoOr() {
	b := exampleBreaker("users", breaker.Config{ConsecutiveFailures: 1, Clock: exampleClock()})
	name := func(context.Context) (string, error) { return "", errUsersDown }
	stale := func(_ context.Context, err error) (string, error) {
		return fmt.Sprintf("Ada, as of yesterday (refused: %t)", errors.Is(err, breaker.ErrOpen)), nil
	}
	for range 2 {
		fmt.Println(breaker.DoOr(context.Background(), b, name, stale))
	}
	// Output:
	// Ada, as of yesterday (refused: false) <nil>
	// Ada, as of yesterday (refused: true) <nil>
}

// What is no function is guarded in two steps: a stream holds its permit until it ends. A
// long stream is not a slow one, so it tells how long its first message took.
func ExampleBreaker_Allow() {
	now := exampleClock()
	b := exampleBreaker("feed", breaker.Config{ConsecutiveFailures: 2, SlowAfter: time.Second, Clock: now})
	follow := func(messages int, end error) {
		permit, err := b.Allow()
		if err != nil {
			fmt.Println("refused")
			return
		}
		defer permit.Done(outcome.Canceled) // gives it back if following panics; otherwise it comes second
		now.Advance(100 * time.Millisecond) // until the first message
		result := breaker.Result{Class: outcome.Success, Took: 100 * time.Millisecond}
		now.Advance(time.Duration(messages) * time.Minute)
		if !errors.Is(end, io.EOF) {
			result.Class = outcome.Failure
		}
		permit.Report(result)
		fmt.Printf("%d messages, %s, slow: %d\n", messages, result.Class, b.Counts().Slow)
	}
	follow(60, io.EOF)
	follow(3, io.ErrUnexpectedEOF)
	follow(1, io.ErrUnexpectedEOF)
	follow(60, io.EOF)
	// Output:
	// 60 messages, success, slow: 0
	// 3 messages, failure, slow: 0
	// 1 messages, failure, slow: 0
	// refused
}

// A group has a breaker for each key, here for each tenant's database.
func ExampleGroup() {
	databases, err := breaker.NewGroup(breaker.Config{ConsecutiveFailures: 1, Clock: exampleClock()})
	if err != nil {
		panic(err)
	}
	defer databases.Close()
	for tenant, err := range map[string]error{"acme": nil, "initech": errUsersDown} {
		_ = databases.Breaker(tenant).Do(context.Background(), func(context.Context) error { return err })
	}
	for _, status := range databases.Status() {
		fmt.Println(status.Name, status.State)
	}
	// Output:
	// acme closed
	// initech open
}

// A server that is asked for 100 calls a second and accepts 10 is sent about twice as many
// as it accepts. The others are refused before they cost it anything.
func ExampleNewThrottle() {
	now := exampleClock()
	throttle, err := breaker.NewThrottle(breaker.ThrottleConfig{Clock: now, Rand: rand.NewPCG(1, 2)})
	if err != nil {
		panic(err)
	}
	for second := range 60 {
		sent, accepted := 0, 0
		for range 100 {
			now.Advance(10 * time.Millisecond)
			// If the call is refused, the error is breaker.ErrThrottled.
			_ = throttle.Do(context.Background(), func(context.Context) error {
				if sent++; accepted == 10 {
					return errUsersDown
				}
				accepted++
				return nil
			})
		}
		if second%20 == 0 || second == 59 {
			fmt.Printf("second %2d: %3d sent, %d accepted\n", second, sent, accepted)
		}
	}
	// Output:
	// second  0:  68 sent, 10 accepted
	// second 20:  18 sent, 10 accepted
	// second 40:  21 sent, 10 accepted
	// second 59:  18 sent, 10 accepted
}

// A gateway whose backend is kept from calls answers 503, and says when to come back.
func ExampleOpenError_ServeHTTP() {
	backend, err := breaker.NewTransport(&statusServer{status: http.StatusInternalServerError}, breaker.Config{
		ConsecutiveFailures: 1, OpenFor: 30 * time.Second, Jitter: breaker.Off, Clock: exampleClock(),
	})
	if err != nil {
		panic(err)
	}
	defer backend.Close()
	gateway := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "users" },
		Transport: backend,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var refused *breaker.OpenError
			if errors.As(err, &refused) {
				refused.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	for range 2 {
		answer := httptest.NewRecorder()
		gateway.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/42", http.NoBody))
		fmt.Printf("%d, Retry-After: %q\n", answer.Code, answer.Header().Get("Retry-After"))
	}
	// Output:
	// 500, Retry-After: ""
	// 503, Retry-After: "30"
}

// OnChange is where logs, metrics and alerts begin. A probe that fails doubles the open time.
func ExampleConfig_onChange() {
	now := exampleClock()
	b := exampleBreaker("users", breaker.Config{
		Jitter: breaker.Off, Probes: 1, Clock: now,
		OnChange: func(c breaker.Change) {
			fmt.Printf("%s %s: %s -> %s (%s), %d of %d failed\n", c.At.Format(time.TimeOnly),
				c.Name, c.From, c.To, c.Reason, c.Counts.Failures, c.Counts.Calls())
		},
	})
	call := func(err error) { _ = b.Do(context.Background(), func(context.Context) error { return err }) }
	call(nil)
	for range 5 {
		call(errUsersDown)
	}
	now.Advance(5 * time.Second)
	call(errUsersDown)
	now.Advance(10 * time.Second)
	call(nil)
	// Output:
	// 00:00:00 users: closed -> open (consecutive_failures), 5 of 6 failed
	// 00:00:05 users: open -> half-open (open_time_over), 0 of 0 failed
	// 00:00:05 users: half-open -> open (probe_failed), 1 of 1 failed
	// 00:00:15 users: open -> half-open (open_time_over), 0 of 0 failed
	// 00:00:15 users: half-open -> closed (probes_succeeded), 0 of 1 failed
}

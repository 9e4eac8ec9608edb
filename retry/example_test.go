package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/retry"
)

// exampleClock spares the examples their waits, and notes them. Time limits, which are
// longer, never end. A program leaves Policy.Clock out.
type exampleClock struct {
	mu    sync.Mutex
	now   time.Time
	waits []time.Duration
}

func newExampleClock() *exampleClock {
	return &exampleClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (c *exampleClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *exampleClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d < 10*time.Second {
		c.mu.Lock()
		c.now, c.waits = c.now.Add(d), append(c.waits, d)
		c.mu.Unlock()
		f()
	}
	return exampleTimer{}
}

type exampleTimer struct{}

func (exampleTimer) Stop() bool { return false }

// exampleServer is a transport that answers by itself, in place of a network: with these
// statuses in turn, of which the last one stays. 0 is a lost connection.
type exampleServer struct {
	statuses []int
	requests int
}

func (s *exampleServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	status := s.statuses[min(s.requests, len(s.statuses)-1)]
	s.requests++
	if status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// exampleClient returns a client whose calls are repeated as the policy says, or ends the
// example.
func exampleClient(server http.RoundTripper, p retry.Policy) *http.Client {
	transport, err := retry.NewTransport(server, p)
	if err != nil {
		panic(err)
	}
	return &http.Client{Transport: transport}
}

// exampleRetrier returns a Retrier, or ends the example.
func exampleRetrier(p retry.Policy) *retry.Retrier {
	r, err := retry.NewRetrier(p)
	if err != nil {
		panic(err)
	}
	return r
}

// The zero Policy is the recommended one: three attempts, of requests that may be repeated.
func ExampleNewTransport() {
	users := &exampleServer{statuses: []int{503, 502, 200}} // or http.DefaultTransport
	transport, err := retry.NewTransport(users, retry.Policy{Clock: newExampleClock()})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: transport}
	resp, err := client.Get("http://users/42")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, "after", users.requests, "requests")
	// Output:
	// 200 after 3 requests
}

// A Retrier is made once for each target. An error that is Permanent ends the call at once.
func ExampleDo() {
	r := exampleRetrier(retry.Policy{Clock: newExampleClock()})
	calls := 0
	name := func(id int) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			switch calls++; {
			case id < 0:
				return "", retry.Permanent(errors.New("there is no such user"))
			case calls < 3:
				return "", errors.New("the replica is not ready")
			}
			return "Ada", nil
		}
	}
	ada, err := retry.Do(context.Background(), r, name(42))
	fmt.Printf("%q, %v, %d calls\n", ada, err, calls)

	calls = 0
	_, err = retry.Do(context.Background(), r, name(-1))
	var failed *retry.Error
	fmt.Println(errors.As(err, &failed), failed.Err, calls)
	// Output:
	// "Ada", <nil>, 3 calls
	// true there is no such user 1
}

// A POST is sent once, unless its caller knows that it may reach the server more than once.
func ExampleWithMark() {
	search := func(ctx context.Context) {
		users := &exampleServer{statuses: []int{503, 200}}
		client := exampleClient(users, retry.Policy{Clock: newExampleClock()})
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://users/search", strings.NewReader(`{"name":"Ada"}`))
		if err != nil {
			panic(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		fmt.Println(resp.StatusCode, "after", users.requests, "request(s)")
	}
	ctx := context.Background()
	search(ctx)
	search(retry.WithMark(ctx, retry.Idempotent))
	// Output:
	// 503 after 1 request(s)
	// 200 after 2 request(s)
}

// hangingServer never answers the first request, and all others at once.
type hangingServer struct {
	clock    *clock.Fake
	requests atomic.Int32
}

func (s *hangingServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.requests.Add(1) == 1 {
		for s.clock.Pending() == 0 { // until somebody waits for the delay
			runtime.Gosched()
		}
		s.clock.Advance(50 * time.Millisecond)
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// A GET that has no answer after 50 ms is sent once more. The first answer wins. Without
// After, the delay is learnt from the latencies.
func ExampleHedge() {
	now := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) // a program has none
	client := exampleClient(&hangingServer{clock: now}, retry.Policy{
		Clock: now,
		Hedge: &retry.Hedge{
			After:  50 * time.Millisecond,
			Budget: 1, // so that the first call has one; 0.05 of the calls is the default
		},
	})
	resp, err := client.Get("http://users/42")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	info, _ := retry.InfoOf(resp)
	for _, a := range info.Attempts {
		fmt.Printf("%d: %s, hedge: %t\n", a.Number, a.Outcome.Class, a.Hedge)
	}
	// Output:
	// 1: superseded, hedge: false
	// 2: success, hedge: true
}

// The waits can be those of any policy of cenkalti/backoff.
func ExamplePolicy_newBackOff() {
	now := newExampleClock()
	client := exampleClient(&exampleServer{statuses: []int{503}}, retry.Policy{
		MaxAttempts: 10,
		Clock:       now,
		NewBackOff: func() backoff.BackOff {
			waits := backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(100*time.Millisecond),
				backoff.WithMultiplier(3),
				backoff.WithRandomizationFactor(0), // for the example; leave it out
			)
			return backoff.WithMaxRetries(waits, 4)
		},
	})
	resp, err := client.Get("http://users/42")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	info, _ := retry.InfoOf(resp)
	fmt.Println(now.waits)
	fmt.Println(len(info.Attempts), "attempts, then", info.Reason)
	// Output:
	// [100ms 300ms 900ms 2.7s]
	// 5 attempts, then backoff
}

// While a target is down, its budget says how many retries add to the load. Here they are
// those of 100 calls.
func ExampleBudget() {
	for _, budget := range []retry.Budget{
		retry.Quota{},                           // the default: what successes have put in, 100 retries at most
		retry.Ratio{PerCall: 0.25, Reserve: -1}, // a quarter of the calls
		retry.Throttle{},                        // none while more than about a tenth of the attempts fail
		retry.Quota{Size: -1},                   // no bound
	} {
		users := &exampleServer{statuses: []int{503}}
		client := exampleClient(users, retry.Policy{Budget: budget, Clock: newExampleClock()})
		for range 100 {
			resp, err := client.Get("http://users/42")
			if err != nil {
				panic(err)
			}
			resp.Body.Close()
		}
		fmt.Printf("%T: %d retries\n", budget, users.requests-100)
	}
	// Output:
	// retry.Quota: 100 retries
	// retry.Ratio: 25 retries
	// retry.Throttle: 3 retries
	// retry.Quota: 200 retries
}

// How a call went is known of each of its answers, whatever their status.
func ExampleInfoOf() {
	client := exampleClient(&exampleServer{statuses: []int{503, 0, 502}}, retry.Policy{Clock: newExampleClock()})
	resp, err := client.Get("http://users/42")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	if info, ok := retry.InfoOf(resp); ok {
		for _, a := range info.Attempts {
			fmt.Printf("%d: %s, status %d, %v\n", a.Number, a.Outcome.Class, a.StatusCode, a.Err)
		}
		fmt.Println("no more:", info.Reason)
	}
	// Output:
	// 1: failure, status 503, <nil>
	// 2: failure, status 0, unexpected EOF
	// 3: failure, status 502, <nil>
	// no more: attempts
}

// A call that brought no answer tells how each of its attempts went.
func ExampleError() {
	client := exampleClient(&exampleServer{statuses: []int{0}}, retry.Policy{Clock: newExampleClock()})
	_, err := client.Get("http://users/42")
	var failed *retry.Error
	if errors.As(err, &failed) {
		fmt.Println(len(failed.Attempts), "attempts, then", failed.Reason)
		fmt.Println(errors.Is(err, io.ErrUnexpectedEOF), failed.Timeout())
		fmt.Println(failed)
	}
	// Output:
	// 3 attempts, then attempts
	// true false
	// retry: failed after 3 attempt(s) (attempts): unexpected EOF (failure, 0s); unexpected EOF (failure, 0s); unexpected EOF (failure, 0s)
}

// What NewClient of hashicorp/go-retryablehttp does without any setting. When it gives up, it
// returns an error; here the last answer is the caller's, as with its PassthroughErrorHandler.
func ExamplePolicy_fromRetryablehttp() {
	now := newExampleClock()
	client := exampleClient(&exampleServer{statuses: []int{500}}, retry.Policy{
		MaxAttempts: 5, // RetryMax and the first one
		Backoff:     retry.Backoff{Kind: retry.Exponential, Base: time.Second, Max: 30 * time.Second},
		Pushback:    retry.Pushback{Max: 24 * time.Hour}, // as long as a Retry-After says

		// Better left out, because they are what makes an outage worse or an order a double one:
		Budget:     retry.Quota{Size: -1},
		Statuses:   []int{500},
		Idempotent: []string{http.MethodPost, http.MethodPatch},

		Clock: now,
	})
	resp, err := client.Post("http://orders/", "text/plain", strings.NewReader("a book"))
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, "after waits of", now.waits)
	// Output:
	// 500 after waits of [1s 2s 4s 8s]
}

// What these policies of failsafe-go do:
//
//	retries := failsafehttp.NewRetryPolicyBuilder().
//		WithBackoff(100*time.Millisecond, time.Second).
//		WithMaxRetries(4).
//		ReturnLastFailure().
//		Build()
//	limit := timeout.New[*http.Response](10 * time.Second)
//	failsafehttp.NewRoundTripper(users, retries, limit)
//
// With the limit outside of the retries it is Timeout. A hedgepolicy.NewWithDelay is Hedge with
// After, and a budget for retries is Budget.
func ExamplePolicy_fromFailsafe() {
	now := newExampleClock()
	users := &exampleServer{statuses: []int{500}}
	client := exampleClient(users, retry.Policy{
		MaxAttempts:       5, // the retries and the first one
		PerAttemptTimeout: 10 * time.Second,
		Backoff:           retry.Backoff{Kind: retry.Exponential, Base: 100 * time.Millisecond, Max: time.Second},

		// Better left out, as after go-retryablehttp:
		Budget:     retry.Quota{Size: -1},
		Statuses:   []int{500},
		Idempotent: []string{http.MethodPost, http.MethodPatch},

		Clock: now,
	})
	resp, err := client.Get("http://users/42")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, "after waits of", now.waits)
	// Output:
	// 500 after waits of [100ms 200ms 400ms 800ms]
}

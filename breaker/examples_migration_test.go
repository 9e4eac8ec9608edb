package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/outcome"
)

var errNotFound = errors.New("no such user")

// calls makes so many calls that end in the same way.
func calls(b *breaker.Breaker, n int, err error) {
	for range n {
		_ = b.Do(context.Background(), func(context.Context) error { return err })
	}
}

// The same policy as with github.com/sony/gobreaker:
//
//	gobreaker.Settings{
//		Name:        "users",
//		MaxRequests: 3,
//		Interval:    10 * time.Second,
//		Timeout:     30 * time.Second,
//		ReadyToTrip: func(c gobreaker.Counts) bool {
//			return c.Requests >= 3 && float64(c.TotalFailures)/float64(c.Requests) >= 0.6
//		},
//		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, errNotFound) },
//	}
//
// What differs:
//   - Interval without BucketPeriod forgets everything at once; Window slides, as with
//     BucketPeriod at a tenth of it. An Interval of zero never forgets: WindowCalls is nearest.
//   - Requests includes calls that are still under way. What counts here has ended.
//   - A ReadyToTrip that is no rate becomes TripIf, with the defaults switched off. The default
//     of gobreaker, more than five failures in a row, is ConsecutiveFailures: 6.
//   - The open time is fixed, which takes MaxOpenFor equal to OpenFor and no Jitter. Left to
//     their defaults it grows while the server stays down, and clients do not come back together.
//   - A caller that gives up is a failure for gobreaker, unless IsSuccessful or IsExcluded
//     say otherwise. Here it counts nothing. What IsExcluded does is outcome.Canceled.
//   - A probe that hangs keeps a gobreaker half-open. Here ProbeTimeout ends that.
//   - OnStateChange is called under gobreaker's lock. OnChange may use the breaker.
func Example_fromGobreaker() {
	now := exampleClock()
	b := exampleBreaker("users", breaker.Config{
		Probes:              3,                // MaxRequests: so many at once, and so many good ones close it
		Window:              10 * time.Second, // Interval
		OpenFor:             30 * time.Second, // Timeout
		MaxOpenFor:          30 * time.Second, // does not grow
		Jitter:              breaker.Off,
		ConsecutiveFailures: breaker.Off,
		MinCalls:            3, // ReadyToTrip
		FailureRate:         0.6,
		Classifier: func(a outcome.Attempt) outcome.Outcome { // IsSuccessful
			if errors.Is(a.Err, errNotFound) {
				return outcome.Outcome{Class: outcome.Success}
			}
			return outcome.Classify(a)
		},
		Clock: now,
	})
	calls(b, 2, errUsersDown)
	fmt.Println("two calls, both failed:", b.State())
	calls(b, 2, errNotFound)
	fmt.Println("two of four failed:", b.State())
	calls(b, 1, errUsersDown)
	fmt.Println("three of five failed:", b.State())
	now.Advance(30 * time.Second)
	fmt.Println("after the timeout:", b.State())
	calls(b, 2, nil)
	fmt.Println("two good probes:", b.State())
	calls(b, 1, nil)
	fmt.Println("three good probes:", b.State())
	// Output:
	// two calls, both failed: closed
	// two of four failed: closed
	// three of five failed: open
	// after the timeout: half-open
	// two good probes: half-open
	// three good probes: closed
}

// The same policy as with Hystrix and its defaults, for a command with a fallback:
//
//	metrics.rollingStats.timeInMilliseconds       10000
//	metrics.rollingStats.numBuckets               10
//	circuitBreaker.requestVolumeThreshold         20
//	circuitBreaker.errorThresholdPercentage       50
//	circuitBreaker.sleepWindowInMilliseconds      5000
//
// What differs:
//   - Hystrix computes the rate every 500 ms (metrics.healthSnapshot.intervalInMilliseconds),
//     from buckets of that length. Here each failure is judged at once, from tenths of Window.
//   - A HystrixBadRequestException counts nothing and gets no fallback: outcome.ClientError
//     does the same. As the trial call it opens a Hystrix command again; here the server has
//     answered, and that closes the breaker.
//   - Hystrix ends a command after a second and counts that as failed. Here the function sets
//     its own time limit, on the context that it gets.
//   - A trial call that hangs is ended by that limit in Hystrix, and given up after
//     ProbeTimeout here.
//   - circuitBreaker.forceOpen is ForcedOpen. forceClosed still measures: MetricsOnly. With
//     circuitBreaker.enabled false there is no breaker: Disabled.
//   - The sleep window is fixed: MaxOpenFor equal to OpenFor, and no Jitter.
//   - Semaphores and thread pools limit concurrency, which a breaker does not; what they refuse
//     counts as failed in Hystrix.
func Example_fromHystrix() {
	now := exampleClock()
	b := exampleBreaker("users", breaker.Config{
		ConsecutiveFailures: breaker.Off,      // Hystrix knows the rate only
		Window:              10 * time.Second, // metrics.rollingStats
		MinCalls:            20,               // circuitBreaker.requestVolumeThreshold
		FailureRate:         0.5,              // circuitBreaker.errorThresholdPercentage
		OpenFor:             5 * time.Second,  // circuitBreaker.sleepWindowInMilliseconds
		MaxOpenFor:          5 * time.Second,
		Jitter:              breaker.Off,
		Probes:              1, // a single trial call
		Classifier: func(a outcome.Attempt) outcome.Outcome { // HystrixBadRequestException
			if errors.Is(a.Err, errNotFound) {
				return outcome.Outcome{Class: outcome.ClientError}
			}
			return outcome.Classify(a)
		},
		Clock: now,
	})
	execute := func(what string, end error) {
		run := func(context.Context) (string, error) {
			if end != nil {
				return "", end
			}
			return "Ada", nil
		}
		fallback := func(context.Context, error) (string, error) { return "somebody", nil } // getFallback
		name, err := breaker.DoOr(context.Background(), b, run, fallback)
		fmt.Printf("%s: %q, %v; %s\n", what, name, err, b.State())
	}
	calls(b, 9, nil)
	calls(b, 9, errUsersDown)
	execute("a good call", nil)
	execute("10 of 20 failed", errUsersDown)
	execute("refused", nil)
	now.Advance(5 * time.Second)
	fmt.Println("after the sleep window:", b.State())
	trial, _ := b.Allow()
	execute("beside the trial call", nil)
	trial.Done(outcome.Success)
	execute("the trial call was good", nil)
	execute("a bad request", errNotFound)
	// Output:
	// a good call: "Ada", <nil>; closed
	// 10 of 20 failed: "somebody", <nil>; open
	// refused: "somebody", <nil>; open
	// after the sleep window: half-open
	// beside the trial call: "somebody", <nil>; half-open
	// the trial call was good: "Ada", <nil>; closed
	// a bad request: "", no such user; closed
}

// The same policy as with Resilience4j:
//
//	CircuitBreakerConfig.custom()
//		.slidingWindow(100, 20, COUNT_BASED) // and minimumNumberOfCalls
//		.failureRateThreshold(50)
//		.slowCallDurationThreshold(Duration.ofSeconds(2))
//		.slowCallRateThreshold(80)
//		.waitDurationInOpenState(Duration.ofSeconds(60))
//		.permittedNumberOfCallsInHalfOpenState(10)
//		.recordExceptions(IOException.class)
//		.ignoreExceptions(NotFoundException.class)
//
// What differs:
//   - Resilience4j waits for all 10 probes and then asks whether 5 of them failed. Here 5 that
//     failed open the breaker and 6 that did not close it, which is the same and sooner. If
//     minimumNumberOfCalls is less than 10, so many probes are enough for Resilience4j.
//   - A slow probe counts as failed. Resilience4j computes two rates of the probes as well.
//   - Resilience4j looks at the rates after each call, this package after those that failed or
//     were slow. So where a good call completes the minimum, the breaker opens at the next bad one.
//   - Calls that began in another state count nothing. With Resilience4j they count in the state
//     in which they end, also as probes.
//   - With recordExceptions every other error is a success. Leaving it to outcome.Classify is
//     mostly better, and a caller that gives up says nothing about the server.
//   - The state is half-open as soon as the time is over, as with
//     automaticTransitionFromOpenToHalfOpenEnabled.
//   - Probes that never end keep Resilience4j half-open, unless maxWaitDurationInHalfOpenState
//     is set. ProbeTimeout is for each of them, and 30s if it is not set.
//   - waitDurationInOpenState is fixed: MaxOpenFor equal to OpenFor, and no Jitter. A
//     waitIntervalFunctionInOpenState with exponential backoff is what they do otherwise.
//   - The states DISABLED, FORCED_OPEN and METRICS_ONLY are modes.
func Example_fromResilience4j() {
	now := exampleClock()
	b := exampleBreaker("users", breaker.Config{
		ConsecutiveFailures: breaker.Off,
		WindowCalls:         100,              // slidingWindowSize, COUNT_BASED; TIME_BASED is Window
		MinCalls:            20,               // minimumNumberOfCalls
		FailureRate:         0.5,              // failureRateThreshold
		SlowAfter:           2 * time.Second,  // slowCallDurationThreshold
		SlowRate:            0.8,              // slowCallRateThreshold
		OpenFor:             60 * time.Second, // waitDurationInOpenState
		MaxOpenFor:          60 * time.Second,
		Jitter:              breaker.Off,
		Probes:              10, // permittedNumberOfCallsInHalfOpenState
		ProbeSuccesses:      6,  // fewer than half failed
		ProbeFailures:       5,  // half failed
		Classifier: func(a outcome.Attempt) outcome.Outcome {
			switch {
			case errors.Is(a.Err, errNotFound): // ignoreExceptions
				return outcome.Outcome{Class: outcome.Canceled}
			case errors.Is(a.Err, io.ErrUnexpectedEOF): // recordExceptions
				return outcome.Outcome{Class: outcome.Failure}
			default:
				return outcome.Outcome{Class: outcome.Success}
			}
		},
		Clock: now,
	})
	status := func(what string) {
		s := b.Status()
		fmt.Printf("%s: %s (%s)\n", what, s.State, s.Because)
	}
	calls(b, 30, nil)
	calls(b, 29, io.ErrUnexpectedEOF)
	calls(b, 50, errNotFound)
	status("29 of 59 failed, 50 ignored")
	calls(b, 1, io.ErrUnexpectedEOF)
	status("30 of 60 failed")
	now.Advance(time.Minute)
	status("a minute later")
	calls(b, 4, io.ErrUnexpectedEOF)
	calls(b, 5, nil)
	status("4 of 9 probes failed")
	calls(b, 1, nil)
	status("4 of 10 probes failed")

	slow := func(context.Context) error {
		now.Advance(3 * time.Second)
		return nil
	}
	calls(b, 5, nil)
	for range 20 {
		_ = b.Do(context.Background(), slow)
	}
	status("20 of 25 were slow")
	// Output:
	// 29 of 59 failed, 50 ignored: closed (created)
	// 30 of 60 failed: open (failure_rate)
	// a minute later: half-open (open_time_over)
	// 4 of 9 probes failed: half-open (open_time_over)
	// 4 of 10 probes failed: closed (probes_succeeded)
	// 20 of 25 were slow: open (slow_rate)
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// breakerRows are the ways of counting that BenchmarkBreaker measures, as near to each
// other as the libraries can be set: five failures in a row, half of the last hundred
// calls, half of the calls of the last ten seconds in ten buckets.
//
// They do not do the same. gobreaker and failsafe-go take a mutex twice in each call;
// gobreaker looks at the clock both times whatever it counts, failsafe-go only while it
// is open or counts by time, as evenkeel does. Beside its rate evenkeel always tracks what
// failed in a row. It tells a permit of an earlier state from those of this one, as
// gobreaker does and failsafe-go does not.
var breakerRows = []struct {
	name      string
	evenkeel  breaker.Config
	gobreaker *gobreaker.Settings // nil where it has nothing of the kind
	failsafe  circuitbreaker.Builder[int]
}{
	{
		name:     "consecutive",
		evenkeel: breaker.Config{FailureRate: breaker.Off, OpenFor: time.Hour},
		gobreaker: &gobreaker.Settings{
			Timeout:     time.Hour,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 5 },
		},
		failsafe: circuitbreaker.NewBuilder[int]().WithFailureThreshold(5).WithDelay(time.Hour),
	},
	{
		// gobreaker counts all calls of a time, not the last so many. failsafe-go trips on 50
		// failures also before there are 100 calls, and has no minimum. evenkeel does not count
		// on while the last 100 calls are all good; the rows with failures tell what counting costs.
		name:     "count",
		evenkeel: breaker.Config{ConsecutiveFailures: breaker.Off, WindowCalls: 100, OpenFor: time.Hour},
		failsafe: circuitbreaker.NewBuilder[int]().WithFailureThresholdRatio(50, 100).WithDelay(time.Hour),
	},
	{
		name:     "time",
		evenkeel: breaker.Config{ConsecutiveFailures: breaker.Off, OpenFor: time.Hour},
		gobreaker: &gobreaker.Settings{
			Interval:     10 * time.Second,
			BucketPeriod: time.Second,
			Timeout:      time.Hour,
			ReadyToTrip: func(c gobreaker.Counts) bool {
				return c.Requests >= 20 && float64(c.TotalFailures) >= 0.5*float64(c.Requests)
			},
		},
		failsafe: circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(0.5, 20, 10*time.Second).WithDelay(time.Hour),
	},
}

// circuit is a breaker of some library, in both of its forms.
type circuit struct {
	name string
	// step asks for a call and tells how it went. It reports whether it was allowed.
	step func(failed bool) bool
	// guard puts the breaker around a function, and returns the error.
	guard func(func() (int, error)) error
}

// BenchmarkBreaker measures what a breaker adds to a call: asking and telling in two
// steps, and around a function that does nothing.
func BenchmarkBreaker(b *testing.B) {
	for _, row := range breakerRows {
		for _, c := range circuits(b, row.evenkeel, row.gobreaker, row.failsafe) {
			both(b, "closed/"+row.name+"/"+c.name, func() { must(c.step(false)) })
			each(b, "failing=1%/"+row.name+"/"+c.name, failingOnceIn(100, c))
			if row.name != "consecutive" { // on many cores there would be five in a row
				each(b, "failing=25%/"+row.name+"/"+c.name, failingOnceIn(4, c))
			}
		}
	}
	row := breakerRows[2]
	both(b, "guarded/bare", func() {
		_, err := nothing()
		must(err == nil)
	})
	for _, c := range circuits(b, row.evenkeel, row.gobreaker, row.failsafe) {
		both(b, "guarded/"+c.name, func() { must(c.guard(nothing) == nil) })
	}
	row = breakerRows[0]
	for _, c := range circuits(b, row.evenkeel, row.gobreaker, row.failsafe) {
		for range 5 {
			c.step(true)
			must(c.guard(failing) != nil)
		}
		both(b, "open/"+c.name, func() { must(!c.step(false)) })
		both(b, "guarded-open/"+c.name, func() { must(c.guard(nothing) != nil) })
	}
}

// failingOnceIn returns calls of which the last of every n fails.
func failingOnceIn(n int, c circuit) func() func() {
	return func() func() {
		i := 0
		return func() {
			i++
			must(c.step(i%n == 0))
		}
	}
}

// must stops a benchmark whose breaker is not in the state that its name says. It is
// measured, so it takes no testing.TB.
func must(ok bool) {
	if !ok {
		panic("a call went as it should not")
	}
}

func nothing() (int, error) { return 1, nil }

var errBroken = errors.New("broken")

func failing() (int, error) { return 0, errBroken }

// circuits returns new breakers of all libraries.
func circuits(tb testing.TB, e breaker.Config, g *gobreaker.Settings, f circuitbreaker.Builder[int]) []circuit {
	tb.Helper()
	br, err := breaker.New("bench", e)
	if err != nil {
		tb.Fatal(err)
	}
	all := []circuit{ofEvenkeel(br)}
	if g != nil {
		all = append(all, ofGobreaker(*g))
	}
	return append(all, ofFailsafe(f.Build()))
}

func ofEvenkeel(br *breaker.Breaker) circuit {
	ctx := context.Background()
	return circuit{
		name: "evenkeel",
		step: func(failed bool) bool {
			permit, err := br.Allow()
			if err != nil {
				return false
			}
			class := outcome.Success
			if failed {
				class = outcome.Failure
			}
			permit.Done(class)
			return true
		},
		guard: func(fn func() (int, error)) error {
			_, err := breaker.Do(ctx, br, func(context.Context) (int, error) { return fn() })
			return err
		},
	}
}

// ofGobreaker returns two breakers: gobreaker's two-step form is a type of its own.
func ofGobreaker(st gobreaker.Settings) circuit {
	two, one := gobreaker.NewTwoStepCircuitBreaker[int](st), gobreaker.NewCircuitBreaker[int](st)
	return circuit{
		name: "gobreaker",
		step: func(failed bool) bool {
			done, err := two.Allow()
			if err != nil {
				return false
			}
			if failed {
				err = errBroken
			}
			done(err)
			return true
		},
		guard: func(fn func() (int, error)) error {
			_, err := one.Execute(fn)
			return err
		},
	}
}

func ofFailsafe(br circuitbreaker.CircuitBreaker[int]) circuit {
	executor := failsafe.With[int](br)
	return circuit{
		name: "failsafe-go",
		step: func(failed bool) bool {
			if !br.TryAcquirePermit() {
				return false
			}
			if failed {
				br.RecordFailure()
			} else {
				br.RecordSuccess()
			}
			return true
		},
		guard: func(fn func() (int, error)) error {
			_, err := executor.Get(fn)
			return err
		},
	}
}

// BenchmarkBreakerKeyed measures finding the breaker of a key, out of ten thousand, with
// one call through it in two steps. A Group bounds their number and drops those that are
// not used; the map only grows, which is why its look-up has nothing to note.
func BenchmarkBreakerKeyed(b *testing.B) {
	row := breakerRows[2]
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("%016x", rand.Uint64())
	}

	group, err := breaker.NewGroup(row.evenkeel)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(group.Close)
	keyed(b, "evenkeel-Group", keys, func(key string) {
		permit, err := group.Breaker(key).Allow()
		must(err == nil)
		permit.Done(outcome.Success)
	})

	var mu sync.RWMutex
	byKey := map[string]*gobreaker.TwoStepCircuitBreaker[int]{}
	keyed(b, "map+gobreaker", keys, func(key string) {
		mu.RLock()
		br := byKey[key]
		mu.RUnlock()
		if br == nil {
			mu.Lock()
			if br = byKey[key]; br == nil {
				br = gobreaker.NewTwoStepCircuitBreaker[int](*row.gobreaker)
				byKey[key] = br
			}
			mu.Unlock()
		}
		done, err := br.Allow()
		must(err == nil)
		done(nil)
	})
}

// keyed measures calls with the keys in turn, each goroutine from a place of its own.
func keyed(b *testing.B, name string, keys []string, call func(key string)) {
	b.Helper()
	for _, key := range keys { // so that all are there
		call(key)
	}
	each(b, name, func() func() {
		i := rand.IntN(len(keys))
		return func() {
			call(keys[i%len(keys)])
			i++
		}
	})
}

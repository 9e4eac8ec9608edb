package balancer

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/breaker"
	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// guarded is a pool with breakers of which one failure opens one, for exactly 5 s, and
// one good probe closes it. Without a configuration of its own there is no panic.
type guarded struct {
	*Pool
	breakers *breaker.Group
	changes  []breaker.Change
}

func newGuarded(t *testing.T, cfg Config, b breaker.Config, endpoints ...discovery.Endpoint) *guarded {
	t.Helper()
	if b.ConsecutiveFailures == 0 {
		b.ConsecutiveFailures = 1
	}
	if b.Probes == 0 {
		b.Probes = 1
	}
	b.Jitter, b.Clock = breaker.Off, cfg.Clock
	if cfg.Rules.Panic == (Panic{}) {
		cfg.Rules.Panic.Threshold = -1
	}
	g := &guarded{}
	told := b.OnChange
	b.OnChange = func(c breaker.Change) {
		g.changes = append(g.changes, c)
		if told != nil {
			told(c)
		}
	}
	var err error
	g.breakers, err = breaker.NewGroup(b)
	require.NoError(t, err)
	t.Cleanup(g.breakers.Close)
	cfg.Breakers = g.breakers
	g.Pool = testPool(t, cfg, endpoints...)
	return g
}

// still returns a guarded pool with a clock that stands still.
func still(t *testing.T, cfg Config, b breaker.Config, endpoints ...discovery.Endpoint) (*guarded, *clock.Fake) {
	t.Helper()
	fake := clock.NewFake(epoch)
	cfg.Clock = fake
	return newGuarded(t, cfg, b, endpoints...), fake
}

// at returns the breaker of an endpoint.
func (g *guarded) at(t testing.TB, address string) *breaker.Breaker {
	t.Helper()
	for _, b := range g.breakers.All() {
		if b.Name() == address || strings.HasPrefix(b.Name(), address+" (") {
			return b
		}
	}
	require.Fail(t, "no breaker", address)
	return nil
}

// fail makes an attempt at the endpoint fail.
func (g *guarded) fail(t testing.TB, address string) {
	t.Helper()
	for range 1000 {
		pick := mustPick(t, g.Pool, Info{Now: g.now()})
		class := outcome.Canceled
		if pick.Endpoint().Address == address {
			class = outcome.Failure
		}
		pick.Answered(outcome.Answer{Now: g.now(), Class: class})
		pick.Done()
		if class == outcome.Failure {
			return
		}
	}
	require.Fail(t, "it is not picked", address)
}

// endpoint returns what the pool knows of an address.
func (g *guarded) endpoint(t testing.TB, address string) EndpointStatus {
	t.Helper()
	for _, e := range g.Status().Endpoints {
		if e.Endpoint.Address == address {
			return e
		}
	}
	require.Fail(t, "no endpoint", address)
	return EndpointStatus{}
}

// stubborn is an algorithm that wants the endpoint "a:80" while it is a candidate. Before
// it says so for the first time, something else happens.
type stubborn struct {
	Random
	before *func()
}

func (a stubborn) NewBuilder(Env) (Builder, error)              { return a, nil }
func (stubborn) Observer(discovery.Endpoint, Observer) Observer { return nil }
func (a stubborn) Build(g Group) Picker                         { return stubbornPicker{g.Candidates, a.before} }

type stubbornPicker struct {
	candidates []Candidate
	before     *func()
}

func (p stubbornPicker) Pick(Info) int {
	if f := *p.before; f != nil {
		*p.before = nil
		f()
	}
	for i := range p.candidates {
		if e := p.candidates[i].Endpoint(); e.Address == "a:80" {
			return i
		}
	}
	return 0
}

// Given an endpoint whose breaker is open, then nobody picks it, whatever the algorithm,
// until its time is up.
func TestGate_OpenIsNotPicked_K15(t *testing.T) {
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			g, fake := still(t, Config{Algorithm: a}, breaker.Config{}, addresses("a", "b", "c")...)
			g.fail(t, "a:80")
			assert.Equal(t, "open", g.endpoint(t, "a:80").Unavailable)
			before := g.endpoint(t, "a:80").Attempts
			fake.Advance(5*time.Second - 1)
			assert.Zero(t, attempts(t, g.Pool, 200)["a:80"])
			assert.Equal(t, before, g.endpoint(t, "a:80").Attempts)
			fake.Advance(1)
			assert.Empty(t, g.endpoint(t, "a:80").Unavailable)
			assert.Positive(t, attempts(t, g.Pool, 1000)["a:80"])
			assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
		})
	}
}

// Given a half-open endpoint with room for one probe, of which somebody else takes it
// after we have decided for that endpoint, then we get another one.
func TestGate_LostRaceIsAnotherPick_K03_K15(t *testing.T) {
	var before func()
	g, fake := still(t, Config{Algorithm: stubborn{before: &before}}, breaker.Config{}, addresses("a", "b")...)
	g.fail(t, "a:80")
	fake.Advance(5 * time.Second)
	require.Equal(t, breaker.HalfOpen, g.at(t, "a:80").State())
	had := g.endpoint(t, "a:80").Attempts
	var winner Pick
	before = func() { winner = mustPick(t, g.Pool, Info{Now: g.now()}) }
	loser := mustPick(t, g.Pool, Info{Now: g.now()})
	assert.Equal(t, "a:80", winner.Endpoint().Address)
	assert.Equal(t, "b:80", loser.Endpoint().Address)

	assert.Equal(t, "open", g.endpoint(t, "a:80").Unavailable, "nobody else need try")
	assert.EqualValues(t, 1, g.endpoint(t, "a:80").InFlight)
	assert.EqualValues(t, 1, g.endpoint(t, "b:80").InFlight)
	assert.EqualValues(t, 1, g.at(t, "a:80").Counts().Rejected)
	assert.Equal(t, had+1, g.endpoint(t, "a:80").Attempts, "there was one attempt")
	assert.Equal(t, "b:80", mustPick(t, g.Pool, Info{Now: g.now()}).Endpoint().Address)

	finish(g.Pool, winner)
	assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
	assert.Equal(t, "a:80", mustPick(t, g.Pool, Info{Now: g.now()}).Endpoint().Address)
}

// Given that all who could be picked are refused, and there is no panic, then the pick
// ends with an error that says why.
func TestGate_AllRefusedEnds_K15(t *testing.T) {
	var before func()
	g, fake := still(t, Config{Algorithm: stubborn{before: &before}}, breaker.Config{}, addresses("a")...)
	g.fail(t, "a:80")
	check := func(state breaker.State, until time.Time) {
		t.Helper()
		_, err := g.Pick(Info{Now: g.now()})
		require.ErrorIs(t, err, ErrNoEndpoints)
		var none *NoEndpointsError
		require.ErrorAs(t, err, &none)
		var refused *breaker.OpenError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, state, refused.State)
		assert.Equal(t, until, refused.Until)
		assert.Equal(t, outcome.Open, outcome.ReasonOf(err))
	}
	check(breaker.Open, epoch.Add(5*time.Second))
	_, err := g.Pick(Info{Now: g.now()})
	assert.EqualError(t, err, "balancer: no endpoints: all of them are draining or unhealthy: "+
		"breaker: a:80 is open (consecutive_failures), next try in 5s")

	fake.Advance(5 * time.Second)
	var winner Pick
	before = func() { winner = mustPick(t, g.Pool, Info{Now: g.now()}) }
	check(breaker.HalfOpen, time.Time{})
	assert.EqualValues(t, 1, inFlight(g.Pool))
	finish(g.Pool, winner)
	finish(g.Pool, mustPick(t, g.Pool, Info{Now: g.now()}))
}

// Of several that are open, the error is that of the one which is tried first.
func TestGate_ErrorOfTheSoonest_K15(t *testing.T) {
	g, fake := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, addresses("a", "b", "c")...)
	for _, address := range []string{"b:80", "c:80", "a:80"} {
		g.fail(t, address)
		fake.Advance(time.Second)
	}
	soonest := func() string {
		_, err := g.Pick(Info{Now: g.now()})
		var refused *breaker.OpenError
		require.ErrorAs(t, err, &refused)
		return refused.Name
	}
	assert.Equal(t, "b:80", soonest())
	fake.Advance(2 * time.Second)
	held := mustPick(t, g.Pool, Info{Now: g.now()}) // the probe of b, which nobody knows the end of
	assert.Equal(t, "c:80", soonest())
	finish(g.Pool, held)
	require.NoError(t, g.at(t, "b:80").SetMode(breaker.ForcedOpen))
	assert.Equal(t, "c:80", soonest())
}

// Given 200 callers at the instant at which the time is up, then exactly Probes of them
// get the endpoint, with algorithms that choose by key as well.
func TestGate_ExactlyNProbes_K03(t *testing.T) {
	algorithms := append([]Algorithm{
		Maglev{Keys: userKey, TableSize: 251},
		RingHash{Keys: userKey},
		Rendezvous{Keys: userKey},
		HotCold{},
		LoadWeighted{},
	}, allAlgorithms...)
	for _, a := range algorithms {
		for _, probes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%T %d", a, probes), func(t *testing.T) {
				g, fake := still(t, Config{Algorithm: a, Rules: Rules{SlowStart: SlowStart{Window: -1}}},
					breaker.Config{Probes: probes}, addresses("a", "b", "c")...)
				users := make([]Info, 200)
				for i := range users {
					req := request(t, "http://svc/")
					req.Header.Set("X-User", fmt.Sprint(i))
					users[i] = Info{Request: req, Now: g.now()}
				}
				for i := 0; g.at(t, "a:80").State() == breaker.Closed; i++ {
					pick := mustPick(t, g.Pool, users[i])
					class := outcome.Success
					if pick.Endpoint().Address == "a:80" {
						class = outcome.Failure
					}
					pick.Answered(outcome.Answer{Now: g.now(), Took: time.Millisecond, Class: class})
					pick.Done()
				}
				had := g.endpoint(t, "a:80").Attempts
				fake.Advance(5 * time.Second)
				picks := make([]Pick, len(users))
				begin, over := make(chan struct{}), sync.WaitGroup{}
				for i := range users {
					info := users[i]
					info.Now = g.now()
					over.Go(func() {
						<-begin
						pick, err := g.Pick(info)
						assert.NoError(t, err)
						picks[i] = pick
					})
				}
				close(begin)
				over.Wait()
				got := map[string]int{}
				for _, pick := range picks {
					got[pick.Endpoint().Address]++
				}
				switch a.(type) {
				case LeastRequest, PeakEWMA, HotCold, LoadWeighted: // they may prefer others
					assert.LessOrEqual(t, got["a:80"], probes)
				default:
					assert.Equal(t, probes, got["a:80"])
				}
				assert.Equal(t, had+uint64(got["a:80"]), g.endpoint(t, "a:80").Attempts, "who was refused made no attempt")
				assert.EqualValues(t, len(users), inFlight(g.Pool))
				for _, pick := range picks {
					finish(g.Pool, pick)
				}
				assert.Zero(t, inFlight(g.Pool))
				if got["a:80"] == probes {
					assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
				}
			})
		}
	}
}

// A probe that hangs is given up after ProbeTimeout, without anybody asking.
func TestGate_HungProbe_K08(t *testing.T) {
	var before func()
	g, fake := still(t, Config{Algorithm: stubborn{before: &before}}, breaker.Config{ProbeTimeout: 3 * time.Second}, addresses("a", "b")...)
	g.fail(t, "a:80")
	fake.Advance(5 * time.Second)
	hung := mustPick(t, g.Pool, Info{Now: g.now()})
	require.Equal(t, "a:80", hung.Endpoint().Address)
	fake.Advance(3 * time.Second)
	require.Len(t, g.changes, 3)
	assert.Equal(t, breaker.ProbeTimedOut, g.changes[2].Reason)
	assert.Equal(t, "open", g.endpoint(t, "a:80").Unavailable)
	fake.Advance(10 * time.Second)
	next := mustPick(t, g.Pool, Info{Now: g.now()})
	assert.Equal(t, "a:80", next.Endpoint().Address)
	finish(g.Pool, hung)
	assert.Equal(t, breaker.HalfOpen, g.at(t, "a:80").State(), "what comes so late is of an older phase")
	finish(g.Pool, next)
	assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
}

// Given a probe that is canceled, then the next one has its place.
func TestGate_CanceledProbe_K02(t *testing.T) {
	var before func()
	g, fake := still(t, Config{Algorithm: stubborn{before: &before}}, breaker.Config{}, addresses("a", "b")...)
	g.fail(t, "a:80")
	fake.Advance(5 * time.Second)
	for range 5 {
		probe := mustPick(t, g.Pool, Info{Now: g.now()})
		require.Equal(t, "a:80", probe.Endpoint().Address)
		require.Equal(t, "open", g.endpoint(t, "a:80").Unavailable)
		finishCanceled(g.Pool, probe)
		assert.Empty(t, g.endpoint(t, "a:80").Unavailable)
		assert.Equal(t, breaker.HalfOpen, g.at(t, "a:80").State())
	}
}

// Who does not know what time it is may leave it out.
func TestGate_WithoutTheTime(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin{}, Random{}, LeastRequest{}, PeakEWMA{}} {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			g, fake := still(t, Config{Algorithm: a}, breaker.Config{SlowAfter: time.Second}, addresses("a")...)
			fake.Advance(time.Hour)
			end := func(pick Pick, class outcome.Class) {
				pick.Answered(outcome.Answer{Class: class, Took: time.Millisecond})
				pick.Done()
			}
			end(mustPick(t, g.Pool, Info{}), outcome.Success)
			assert.Equal(t, 1, g.at(t, "a:80").Counts().Successes)
			fake.Advance(11 * time.Second)
			assert.Zero(t, g.at(t, "a:80").Counts().Successes, "it was counted at its time")
			end(mustPick(t, g.Pool, Info{}), outcome.Failure)
			_, err := g.Pick(Info{})
			var refused *breaker.OpenError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, fake.Now().Add(5*time.Second), refused.Until)
			fake.Advance(5 * time.Second)
			end(mustPick(t, g.Pool, Info{}), outcome.Success)
			assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
		})
	}
}

// A date in Retry-After is compared with the present, also if the answer does not say when
// it came.
func TestGate_RetryAfterDateWithoutTheTime_R11(t *testing.T) {
	for _, timed := range []bool{true, false} {
		g, fake := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, addresses("a")...)
		pick := mustPick(t, g.Pool, Info{})
		answer := outcome.Answer{Class: outcome.Overload, Status: 503, Header: http.Header{
			"Retry-After": {fake.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)},
		}}
		if timed {
			answer.Now = fake.Now()
		}
		pick.Answered(answer)
		pick.Done()
		assert.Equal(t, fake.Now().Add(20*time.Second), g.at(t, "a:80").Status().Until, "timed: %v", timed)
	}
}

// Given weights of which one is lost in the sum, when one of them is open, then picks do
// not search for ever.
func TestGate_WeightsFarApart(t *testing.T) {
	endpoints := addresses("light", "heavy")
	endpoints[0].Weight, endpoints[1].Weight = 1, 1e100
	for _, a := range append([]Algorithm{Rendezvous{Keys: userKey}}, allAlgorithms...) {
		for _, panicking := range []Panic{{Threshold: -1}, {}, {Reject: true}} {
			for _, open := range []string{"light:80", "heavy:80"} {
				t.Run(fmt.Sprintf("%T %+v %s", a, panicking, open), func(t *testing.T) {
					rules := Rules{Panic: panicking, SlowStart: SlowStart{Window: -1}}
					fake := clock.NewFake(epoch)
					b, err := breaker.NewGroup(breaker.Config{Clock: fake, Jitter: breaker.Off, Probes: 1})
					require.NoError(t, err)
					t.Cleanup(b.Close)
					p := testPool(t, Config{Algorithm: a, Rules: rules, Breakers: b, Clock: fake}, endpoints...)
					n := p.byKey[endpoints[0].Key()].node
					if open == "heavy:80" {
						n = p.byKey[endpoints[1].Key()].node
					}
					for range 5 {
						pass := n.Gate().Acquire(fake.Now(), true).Pass
						pass.Answered(0, outcome.Answer{Now: fake.Now(), Class: outcome.Failure})
					}
					require.NotZero(t, n.Reasons()&node.Open)
					pick := func() (got map[string]int, refused int) {
						got = map[string]int{}
						for range 300 {
							pick, err := p.Pick(Info{Now: p.now()})
							if err != nil {
								require.ErrorIs(t, err, ErrNoEndpoints)
								refused++
								continue
							}
							got[pick.Endpoint().Address]++
							pick.Answered(outcome.Answer{Now: p.now(), Took: time.Millisecond, Class: outcome.Canceled})
							pick.Done()
						}
						return got, refused
					}
					got, refused := pick()
					switch {
					case open == "light:80":
						assert.Equal(t, map[string]int{"heavy:80": 300}, got)
					case panicking.Reject:
						assert.Equal(t, 300, refused)
					case panicking.Threshold < 0:
						assert.Equal(t, map[string]int{"light:80": 300}, got)
					default:
						assert.Positive(t, got["heavy:80"], "panic ignores health")
					}
					fake.Advance(5 * time.Second)
					got, _ = pick() // half-open, with a probe that is canceled each time
					assert.NotEmpty(t, got)
				})
			}
		}
	}
}

// In panic all are used, open or not, and what passes by force finds out that an endpoint
// works again, and that it does not.
func TestGate_Panic_B09_K08(t *testing.T) {
	g, fake := still(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Threshold: 0.5}, SlowStart: SlowStart{Window: -1}}},
		breaker.Config{ProbeSuccesses: 3}, addresses("a", "b", "c")...)
	g.fail(t, "a:80")
	g.fail(t, "b:80")
	require.True(t, g.Status().Panic)
	assert.Len(t, g.changes, 2)
	for range 2 { // forced calls that succeed
		got := attempts(t, g.Pool, 3)
		assert.Equal(t, map[string]int{"a:80": 1, "b:80": 1, "c:80": 1}, got)
	}
	assert.Equal(t, breaker.Open, g.at(t, "a:80").State())
	g.fail(t, "a:80") // takes back what a has shown
	for range 6 {
		finish(g.Pool, mustPick(t, g.Pool, Info{Now: g.now()}))
	}
	assert.Equal(t, breaker.Closed, g.at(t, "b:80").State(), "three good ones")
	assert.Equal(t, breaker.Open, g.at(t, "a:80").State())
	assert.False(t, g.Status().Panic)
	assert.Zero(t, attempts(t, g.Pool, 20)["a:80"])
	fake.Advance(5 * time.Second)
	assert.Positive(t, attempts(t, g.Pool, 20)["a:80"])
}

// Given an endpoint that somebody has forced open, then it is never picked, not even in
// panic, and not even if it is the only one.
func TestGate_ForcedOpen_B09(t *testing.T) {
	g, fake := still(t, Config{Algorithm: RoundRobin{}, Rules: Rules{Panic: Panic{Threshold: 1}}}, breaker.Config{}, addresses("a", "b", "c")...)
	require.NoError(t, g.at(t, "a:80").SetMode(breaker.ForcedOpen))
	assert.Equal(t, "forced open", g.endpoint(t, "a:80").Unavailable)
	g.fail(t, "b:80")
	g.fail(t, "c:80")
	require.True(t, g.Status().Panic)
	for range 5 {
		assert.Zero(t, attempts(t, g.Pool, 100)["a:80"])
		fake.Advance(10 * time.Second)
	}
	for _, address := range []string{"b:80", "c:80"} {
		require.NoError(t, g.at(t, address).SetMode(breaker.ForcedOpen))
	}
	_, err := g.Pick(Info{Now: g.now()})
	require.ErrorIs(t, err, ErrNoEndpoints)
	var refused *breaker.OpenError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, breaker.ModeSet, refused.Because)
	assert.Zero(t, refused.Until)
	assert.Zero(t, refused.RetryAfter())

	require.NoError(t, g.at(t, "a:80").SetMode(breaker.Auto))
	assert.Equal(t, map[string]int{"a:80": 20}, attempts(t, g.Pool, 20))
}

// Who joins is forced open from the beginning, if that is what the configuration says.
func TestGate_ForcedOpenFromTheBeginning(t *testing.T) {
	g, _ := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{Mode: breaker.ForcedOpen}, addresses("a")...)
	g.update(addresses("a", "b"))
	for _, e := range g.Status().Endpoints {
		assert.Equal(t, "forced open", e.Unavailable)
	}
	_, err := g.Pick(Info{Now: g.now()})
	require.ErrorIs(t, err, ErrNoEndpoints)
	assert.ErrorIs(t, err, breaker.ErrOpen)
	require.NoError(t, g.at(t, "b:80").SetMode(breaker.Auto))
	assert.Equal(t, map[string]int{"b:80": 10}, attempts(t, g.Pool, 10))
}

// Given an endpoint that is forced open in panic while a pick is on its way to it, then
// that pick, too, goes elsewhere.
func TestGate_ForcedOpenWhilePicking_B09(t *testing.T) {
	var before func()
	g, _ := still(t, Config{Algorithm: stubborn{before: &before}, Rules: Rules{Panic: Panic{Threshold: 1}}}, breaker.Config{}, addresses("a", "b")...)
	require.NoError(t, g.at(t, "b:80").SetMode(breaker.Auto))
	judge(t, g.Pool, false, addresses("b")...)
	require.True(t, g.Status().Panic)
	before = func() { require.NoError(t, g.at(t, "a:80").SetMode(breaker.ForcedOpen)) }
	assert.Equal(t, "b:80", mustPick(t, g.Pool, Info{Now: g.now()}).Endpoint().Address)
	assert.Zero(t, g.endpoint(t, "a:80").InFlight)
}

// In these modes nobody is kept from an endpoint, and only MetricsOnly tells what would
// have been.
func TestGate_ModesThatDoNotInterfere(t *testing.T) {
	for _, row := range []struct {
		mode breaker.Mode
		want []breaker.State
	}{
		{breaker.MetricsOnly, []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Open}},
		{breaker.Disabled, nil},
	} {
		t.Run(row.mode.String(), func(t *testing.T) {
			g, fake := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{Mode: row.mode}, addresses("a", "b")...)
			for range 20 {
				g.fail(t, "a:80")
				assert.Empty(t, g.endpoint(t, "a:80").Unavailable)
			}
			fake.Advance(5 * time.Second)
			g.fail(t, "a:80")
			var got []breaker.State
			for _, c := range g.changes {
				assert.Equal(t, "a:80", c.Name)
				got = append(got, c.To)
			}
			assert.Equal(t, row.want, got)
			assert.Equal(t, map[string]int{"a:80": 5, "b:80": 5}, attempts(t, g.Pool, 10))
		})
	}
}

// What is known of an endpoint's breaker goes with the endpoint: nothing is left of it, not
// even a timer, and what is still in flight does no harm.
func TestGate_EndpointLeaves_K14_B14(t *testing.T) {
	for _, state := range []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Closed} {
		t.Run(state.String(), func(t *testing.T) {
			var before func()
			g, fake := still(t, Config{Algorithm: stubborn{before: &before}}, breaker.Config{}, addresses("a", "b")...)
			quiet := fake.Pending()
			first, second := mustPick(t, g.Pool, Info{Now: g.now()}), mustPick(t, g.Pool, Info{Now: g.now()})
			if state != breaker.Closed {
				g.fail(t, "a:80")
				require.Equal(t, quiet+1, fake.Pending(), "the end of the open time")
			}
			if state == breaker.HalfOpen {
				fake.Advance(5 * time.Second)
				first = mustPick(t, g.Pool, Info{Now: g.now()})
				require.Equal(t, quiet+1, fake.Pending(), "the end of the probe's time")
			}
			old := g.at(t, "a:80")
			g.update(addresses("b"))
			assert.Len(t, g.breakers.All(), 1)
			drains := 1
			assert.Equal(t, quiet+drains, fake.Pending())
			for _, pick := range []Pick{first, second} {
				pick.Answered(outcome.Answer{Now: g.now(), Class: outcome.Failure})
				pick.Done()
			}
			assert.LessOrEqual(t, fake.Pending(), quiet+drains, "not even a failure arms one")
			if state != breaker.Closed {
				fake.Advance(time.Hour)
			}
			require.NotNil(t, old)

			renamed := discovery.Endpoint{ID: "pod-2", Address: "a:80"}
			g.update([]discovery.Endpoint{renamed, addresses("b")[0]})
			assert.NotSame(t, old, g.at(t, "a:80"))
			assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
			assert.Equal(t, breaker.Counts{}, g.at(t, "a:80").Counts())
			assert.Equal(t, "a:80 (pod-2)", g.at(t, "a:80").Name())
			assert.Equal(t, renamed, mustPick(t, g.Pool, Info{Now: g.now()}).Endpoint())
		})
	}
}

// An address that changes its identity in one step starts closed, too; an endpoint of which
// only the weight changes does not.
func TestGate_BelongsToTheIncarnation_B14_D15(t *testing.T) {
	g, _ := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, addresses("a", "b")...)
	g.fail(t, "a:80")
	heavier := addresses("a", "b")
	heavier[0].Weight = 3
	g.update(heavier)
	assert.Equal(t, breaker.Open, g.at(t, "a:80").State())
	assert.Zero(t, attempts(t, g.Pool, 20)["a:80"])
	require.NoError(t, g.Use(Random{}, Rules{Panic: Panic{Threshold: -1}}))
	assert.Zero(t, attempts(t, g.Pool, 20)["a:80"])
	renamed := slices.Clone(heavier)
	renamed[0].ID = "pod-2"
	g.update(renamed)
	assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
	assert.Len(t, g.breakers.All(), 2)
	assert.Positive(t, attempts(t, g.Pool, 50)["a:80"])
}

// Reasons add up, and one does not end the other.
func TestGate_StatusOfSeveralReasons(t *testing.T) {
	g, fake := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, addresses("a", "b")...)
	g.fail(t, "a:80")
	judge(t, g.Pool, false, addresses("a")...)
	draining := addresses("a", "b")
	draining[0].Draining = true
	g.update(draining)
	assert.Equal(t, "draining,marked unhealthy,open", g.endpoint(t, "a:80").Unavailable)
	require.NoError(t, g.at(t, "a:80").SetMode(breaker.ForcedOpen))
	assert.Equal(t, "draining,marked unhealthy,forced open", g.endpoint(t, "a:80").Unavailable)
	require.NoError(t, g.at(t, "a:80").SetMode(breaker.Auto))
	assert.Equal(t, "draining,marked unhealthy", g.endpoint(t, "a:80").Unavailable)
	g.update(addresses("a", "b"))
	assert.Equal(t, "marked unhealthy", g.endpoint(t, "a:80").Unavailable)
	g.fail(t, "b:80")
	fake.Advance(5 * time.Second)
	assert.Equal(t, "marked unhealthy", g.endpoint(t, "a:80").Unavailable)
	assert.Empty(t, g.endpoint(t, "b:80").Unavailable)
}

// The pool tells of endpoints that open and of those that are tried again.
func TestGate_PoolEvents(t *testing.T) {
	var told []Change
	g, fake := still(t, Config{Algorithm: RoundRobin{}, OnChange: func(c Change) { told = append(told, c) }},
		breaker.Config{}, addresses("a", "b")...)
	told = nil
	g.fail(t, "a:80")
	assert.Equal(t, []Change{{Size: 2, Available: 1}}, told)
	fake.Advance(5 * time.Second)
	assert.Equal(t, []Change{{Size: 2, Available: 1}, {Size: 2, Available: 2}}, told)
}

// After it was open, the share of an endpoint grows from a tenth to the whole.
func TestGate_SlowStartAfterOpen_K12(t *testing.T) {
	g, fake := still(t, Config{Algorithm: RoundRobin{}}, breaker.Config{}, in(0, 10)...)
	fake.Advance(time.Hour)
	g.fail(t, "p0-0:80")
	fake.Advance(5 * time.Second)
	for g.at(t, "p0-0:80").State() != breaker.Closed {
		finish(g.Pool, mustPick(t, g.Pool, Info{Now: g.now()}))
	}
	before := 0.0
	for second := range 33 {
		weight := weightsOf(g.Pool)["p0-0:80"]
		switch {
		case second == 0:
			assert.InDelta(t, 0.1, weight, 1e-9)
		case second > 31:
			assert.InDelta(t, 1, weight, 0)
		}
		assert.GreaterOrEqual(t, weight, before)
		before = weight
		fake.Advance(time.Second)
	}
	for address, weight := range weightsOf(g.Pool) {
		assert.InDelta(t, 1, weight, 0, address)
	}
}

// Given callers who wait for room, when the breaker of an endpoint opens, then they wait for
// the others, and are served when it is tried again, by the clock alone.
func TestGate_Queue_K08(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, Config{Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}},
			breaker.Config{}, addresses("a", "b")...)
		l := newLine(t, g.Pool)
		held := map[string]Pick{}
		for range 2 {
			pick := mustPick(t, g.Pool, Info{Now: time.Now()})
			held[pick.Endpoint().Address] = pick
		}
		for i := range 3 {
			l.join(t.Context(), fmt.Sprint(i), Info{Now: time.Now()})
		}
		l.none()
		held["a:80"].Answered(outcome.Answer{Now: time.Now(), Class: outcome.Failure})
		held["a:80"].Done()
		l.none() // there is room, but not for them
		time.Sleep(5*time.Second - 1)
		l.none()
		time.Sleep(time.Nanosecond)
		probe := l.one()
		require.NoError(t, probe.err)
		assert.Equal(t, "a:80", probe.Endpoint().Address)
		assert.Equal(t, "0", probe.name)
		finishCanceled(g.Pool, probe.Pick)
		probe = l.one()
		require.NoError(t, probe.err)
		assert.Equal(t, "a:80", probe.Endpoint().Address)
		finish(g.Pool, probe.Pick)
		last := l.one()
		require.NoError(t, last.err)
		finish(g.Pool, last.Pick)
		finish(g.Pool, held["b:80"])
		assert.Zero(t, inFlight(g.Pool))
		assert.Zero(t, g.Status().Waiting)
	})
}

// Given callers who wait, when all endpoints are open, then they get the error at once.
func TestGate_QueueEndsWhenAllAreOpen_K15(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, Config{Algorithm: RoundRobin{}, Rules: Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}},
			breaker.Config{}, addresses("a")...)
		l := newLine(t, g.Pool)
		held := mustPick(t, g.Pool, Info{Now: time.Now()})
		for i := range 3 {
			l.join(t.Context(), fmt.Sprint(i), Info{Now: time.Now()})
		}
		held.Answered(outcome.Answer{Now: time.Now(), Class: outcome.Failure})
		held.Done()
		all := l.served()
		require.Len(t, all, 3)
		for _, r := range all {
			assert.ErrorIs(t, r.err, ErrNoEndpoints)
			assert.ErrorIs(t, r.err, breaker.ErrOpen)
		}
	})
}

// A callback may use the pool, also if it is told of a change that a pick has brought about:
// the last place of a half-open breaker taken, or, in panic, a time that is up.
func TestGate_CallbackUsesThePool_K13(t *testing.T) {
	for _, queued := range []bool{false, true} {
		for _, panicking := range []Panic{{Threshold: -1}, {Threshold: 1}} {
			t.Run(fmt.Sprintf("queue=%v %v", queued, panicking), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var g *guarded
					var told atomic.Int32
					rules := Rules{Panic: panicking, SlowStart: SlowStart{Window: -1}}
					if queued {
						rules.MaxInFlight, rules.Queue = 2, Queue{Timeout: time.Hour}
					}
					use := func() {
						if g == nil {
							return
						}
						g.Status()
						g.breakers.Status()
						if told.Add(1) > 5 { // each pick of a probe is a change, which is told
							return
						}
						ctx, cancel := context.WithCancel(context.Background())
						cancel()
						if pick, err := g.PickWait(ctx, Info{Now: g.now()}); err == nil {
							finishCanceled(g.Pool, pick)
						}
					}
					cfg := Config{Algorithm: RoundRobin{}, Rules: rules, OnChange: func(Change) { use() }}
					g = newGuarded(t, cfg, breaker.Config{OnChange: func(breaker.Change) { use() }}, addresses("a")...)
					for range 5 {
						told.Store(0)
						g.fail(t, "a:80")
						require.Positive(t, told.Load())
						told.Store(0)
						late := time.Now().Add(time.Hour) // the timer has not noticed
						pick, err := g.PickWait(t.Context(), Info{Now: late})
						if panicking.Threshold > 0 {
							require.NoError(t, err)
							assert.Positive(t, told.Load())
							pick.Answered(outcome.Answer{Now: late, Class: outcome.Success})
							pick.Done()
							continue
						}
						require.ErrorIs(t, err, ErrNoEndpoints)
						time.Sleep(time.Hour)
						synctest.Wait()
						told.Store(0)
						pick, err = g.PickWait(t.Context(), Info{Now: time.Now()})
						require.NoError(t, err)
						assert.Positive(t, told.Load(), "it is not available any more")
						finish(g.Pool, pick)
						require.Equal(t, breaker.Closed, g.at(t, "a:80").State())
					}
					assert.Zero(t, inFlight(g.Pool))
				})
			})
		}
	}
}

// The same for who waits in the queue, and is served by somebody else.
func TestGate_CallbackUsesThePoolWhenServed_K13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *guarded
		var told atomic.Int32
		use := func() {
			if g == nil {
				return
			}
			g.Status()
			if told.Add(1) > 5 {
				return
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if pick, err := g.PickWait(ctx, Info{Now: g.now()}); err == nil {
				finishCanceled(g.Pool, pick)
			}
		}
		rules := Rules{MaxInFlight: 1, Queue: Queue{Timeout: time.Hour}}
		g = newGuarded(t, Config{Algorithm: RoundRobin{}, Rules: rules, OnChange: func(Change) { use() }},
			breaker.Config{OnChange: func(breaker.Change) { use() }}, addresses("a", "b")...)
		g.fail(t, "a:80")
		held := mustPick(t, g.Pool, Info{Now: time.Now()})
		l := newLine(t, g.Pool)
		for i := range 4 {
			l.join(t.Context(), fmt.Sprint(i), Info{Now: time.Now()})
		}
		l.none()
		told.Store(0)
		time.Sleep(5 * time.Second)
		for range 4 {
			next := l.one()
			require.NoError(t, next.err)
			finish(g.Pool, next.Pick)
		}
		assert.Positive(t, told.Load())
		finish(g.Pool, held)
		synctest.Wait()
		assert.Zero(t, inFlight(g.Pool))
	})
}

// Given a callback that panics in a pick, then the panic is the caller's, the pick that he
// does not get is given back, and the pool goes on, up to its Close.
func TestGate_CallbackPanicsInAPick_B01_K13(t *testing.T) {
	for _, whose := range []string{"pool", "breaker"} {
		t.Run(whose, func(t *testing.T) {
			boom := ""
			explode := func(here string) {
				if boom == here {
					boom = ""
					panic("ordered")
				}
			}
			fake := clock.NewFake(epoch)
			b, err := breaker.NewGroup(breaker.Config{
				ConsecutiveFailures: 1, Probes: 1, Jitter: breaker.Off, Clock: fake,
				OnChange: func(breaker.Change) { explode("breaker") },
			})
			require.NoError(t, err)
			rules := Rules{Panic: Panic{Threshold: -1}}
			if whose == "breaker" { // in panic it is asked although it is open, and learns the time
				rules.Panic.Threshold = 1
			}
			p, err := NewPool(Config{
				Resolver: silent{}, Algorithm: RoundRobin{}, Rules: rules, Breakers: b, Clock: fake,
				OnChange: func(Change) { explode("pool") },
			})
			require.NoError(t, err)
			p.update(addresses("a"))
			g := &guarded{Pool: p, breakers: b}
			t.Cleanup(func() {
				closed := make(chan struct{})
				go func() {
					p.Close()
					b.Close()
					close(closed)
				}()
				select {
				case <-closed:
				case <-time.After(10 * time.Second):
					assert.Fail(t, "Close hangs")
				}
			})

			g.fail(t, "a:80")
			at := fake.Now().Add(5 * time.Second)
			if whose == "pool" {
				fake.Advance(5 * time.Second)
			}
			boom = whose
			assert.PanicsWithValue(t, "ordered", func() { _, _ = g.Pick(Info{Now: at}) })
			assert.Zero(t, inFlight(g.Pool))
			pick, err := g.Pick(Info{Now: at})
			require.NoError(t, err, "the place of the probe is free")
			pick.Answered(outcome.Answer{Now: at, Class: outcome.Success})
			pick.Done()
			assert.Equal(t, breaker.Closed, g.at(t, "a:80").State())
		})
	}
}

package health

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// firstDay is when the clocks of these tests begin.
var firstDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// What endpoints can answer, or not.
var (
	ok200    = answered(outcome.Success, 200)
	not404   = answered(outcome.ClientError, 404)
	not501   = answered(outcome.ClientError, 501)
	err500   = answered(outcome.Failure, 500)
	err502   = answered(outcome.Failure, 502)
	err503   = answered(outcome.Failure, 503)
	err504   = answered(outcome.Failure, 504)
	busy503  = answered(outcome.Overload, 503) // with Retry-After
	busy429  = answered(outcome.Overload, 429)
	lostIt   = answered(outcome.Failure, 0)
	noDial   = outcome.Answer{Class: outcome.NeverSent}
	notBegun = answered(outcome.NeverSent, 0) // the server, which is there, would not begin
	gaveUp   = answered(outcome.Canceled, 0)
	hedged   = answered(outcome.Superseded, 0)
	refusal  = answered(outcome.Refused, 0)
	unknown  = answered(outcome.Unknown, 0)
)

func answered(c outcome.Class, status int) outcome.Answer {
	return outcome.Answer{Class: c, Status: status, Connected: true}
}

// fixed is a source of randomness that always says the same.
type fixed struct{ bits atomic.Uint64 }

func (f *fixed) Uint64() uint64 { return f.bits.Load() }

// say sets what it says, a number of [0,1).
func (f *fixed) say(u float64) { f.bits.Store(uint64(u*(1<<53)) << 11) }

// ward is a monitor whose time and chance are the test's.
type ward struct {
	testing.TB
	*Monitor
	fake    *clock.Fake
	chance  *fixed
	told    []Change
	members map[string]*Member
}

// newWard returns a monitor of endpoints by name, "name" or "name*weight". Its jitter draws zero,
// unless the configuration brings its own source.
func newWard(tb testing.TB, cfg Config, names ...string) *ward {
	tb.Helper()
	w := &ward{TB: tb, fake: clock.NewFake(firstDay), chance: &fixed{}, members: map[string]*Member{}}
	cfg.Clock = w.fake
	if cfg.Rand == nil {
		cfg.Rand = w.chance
	}
	tell := cfg.OnChange
	cfg.OnChange = func(c Change) {
		w.told = append(w.told, c)
		if tell != nil {
			tell(c)
		}
	}
	w.Monitor = newMonitor(tb, cfg)
	for _, name := range names {
		w.join(name)
	}
	return w
}

// join adds an endpoint.
func (w *ward) join(spec string) {
	w.Helper()
	name, weight, _ := strings.Cut(spec, "*")
	e := discovery.Endpoint{Address: name + ":80"}
	if weight != "" {
		_, err := fmt.Sscan(weight, &e.Weight)
		require.NoError(w, err)
	}
	w.joinAs(name, e)
}

func (w *ward) joinAs(name string, e discovery.Endpoint) {
	w.Helper()
	m, err := w.Add(e)
	require.NoError(w, err)
	w.members[name] = m
}

// at moves the clock to an instant, counted from when the monitor was made.
func (w *ward) at(d time.Duration) { w.fake.Advance(firstDay.Add(d).Sub(w.fake.Now())) }

// answers tells of so many answers of an endpoint that came at this instant.
func (w *ward) answers(name string, n int, a outcome.Answer) {
	w.Helper()
	require.Contains(w, w.members, name)
	for range n {
		w.members[name].Answered(a)
	}
}

// out names the endpoints that get no traffic because they are ejected, in order, and why.
func (w *ward) out() string {
	list := []string{}
	for name, m := range w.members {
		s := m.Status()
		ejected := m.watch.node.Reasons()&node.Ejected != 0
		require.Equal(w, s.Ejected != "" && !s.Shadow, ejected, "what is said of %s is what is done", name)
		require.Equal(w, s.Ejected == "", s.Until.IsZero(), "%s: there is an end if there is an ejection", name)
		if ejected {
			list = append(list, fmt.Sprintf("%s: %s", name, s.Ejected))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// lasts returns how long the ejection of an endpoint goes on, 0 if there is none.
func (w *ward) lasts(name string) time.Duration {
	s := w.members[name].Status()
	if s.Ejected == "" {
		return 0
	}
	return s.Until.Sub(w.fake.Now())
}

// events says what was told.
func (w *ward) events() []string {
	list := make([]string, len(w.told))
	for i, c := range w.told {
		list[i] = fmt.Sprintf("%v %s %v (%s) until %v", c.Time.Sub(firstDay), strings.TrimSuffix(c.Endpoint.Address, ":80"), c.Kind, c.Cause, c.Until.Sub(firstDay))
		if c.Shadow {
			list[i] += " shadow"
		}
	}
	return list
}

// event is something that happens.
type event func(*ward)

// send is so many answers of endpoint a.
func send(n int, a outcome.Answer) event { return func(w *ward) { w.answers("a", n, a) } }

// arrives is the headers of an answer of endpoint a whose body is under way.
func arrives(a outcome.Answer) event { return func(w *ward) { w.members["a"].watch.Answered(a) } }

// breaks is the end of such a body in the middle.
func breaks(a outcome.Answer) event { return func(w *ward) { w.members["a"].watch.Broke(a) } }

// ends is the end of such a body as it should be.
func ends(w *ward) { w.members["a"].watch.Whole() }

// took makes an answer one to a request that began so long ago.
func took(d time.Duration, a outcome.Answer) outcome.Answer {
	a.Took = d
	return a
}

// use changes the settings.
func use(o Outlier) event {
	return func(w *ward) { require.NoError(w, w.Use(Config{Outlier: o})) }
}

// idle is nothing.
func idle(*ward) {}

// step is what happens at an instant, and who is ejected then, why.
type step struct {
	at    time.Duration
	event event
	want  string
}

// follow goes through the steps with the endpoints a to d, of which a is what it is about. Nobody
// is judged by deviation unless that is set.
func follow(t *testing.T, o Outlier, steps []step) *ward {
	t.Helper()
	if o.Deviation == 0 {
		o.Deviation = Off
	}
	w := newWard(t, Config{Outlier: o}, "a", "b", "c", "d")
	for i, s := range steps {
		w.at(s.at)
		s.event(w)
		require.Equal(t, s.want, w.out(), "step %d, at %v", i, s.at)
	}
	w.checkEvents()
	return w
}

// checkEvents checks that the events make a story for each endpoint, which leads to the present.
func (w *ward) checkEvents() {
	w.Helper()
	last := map[string]Change{}
	at := firstDay
	for _, c := range w.told {
		if c.Kind != Eject && c.Kind != Return {
			continue
		}
		before := last[c.Endpoint.Address]
		fits := !c.Time.Before(at) && c.Cause != ""
		if c.Kind == Eject {
			fits = fits && before.Kind != Eject && c.Until.After(c.Time)
		} else {
			fits = fits && before.Kind == Eject && before.Cause == c.Cause && before.Until.Equal(c.Until) && before.Shadow == c.Shadow && !c.Time.After(c.Until)
		}
		if !fits {
			require.Fail(w, "an event does not fit", "%+v, after %+v: %v", c, before, w.events())
		}
		at = c.Time
		last[c.Endpoint.Address] = c
	}
	for name, m := range w.members {
		s := m.Status()
		c := last[s.Endpoint.Address]
		require.Equal(w, s.Ejected != "", c.Kind == Eject, "the last event of %s tells its state", name)
		require.Equal(w, s.Shadow, s.Ejected != "" && c.Shadow, name)
	}
}

const (
	ms     = time.Millisecond
	second = time.Second
)

// exactTail returns how likely it is that as many failures or more are among the requests of one
// endpoint, if those of all are dealt out at random: by counting the ways, with so many bits that
// nothing is lost.
func exactTail(c, others counted) *big.Float {
	all, bad := int64(c.requests+others.requests), int64(c.failures+others.failures)
	n := int64(c.requests)
	ways, some := new(big.Int), new(big.Int)
	for k := int64(c.failures); k <= min(n, bad); k++ {
		if n-k > all-bad {
			continue
		}
		ways.Add(ways, some.Mul(some.Binomial(bad, k), new(big.Int).Binomial(all-bad, n-k)))
	}
	const bits = 400
	of := new(big.Float).SetPrec(bits).SetInt(new(big.Int).Binomial(all, n))
	return of.Quo(new(big.Float).SetPrec(bits).SetInt(ways), of)
}

// logOf returns the natural logarithm of a positive number of any size.
func logOf(x *big.Float) float64 {
	mantissa := new(big.Float)
	exponent := x.MantExp(mantissa)
	m, _ := mantissa.Float64()
	return math.Log(m) + float64(exponent)*math.Ln2
}

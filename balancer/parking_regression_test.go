package balancer

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Given two of three that have asked to be left alone, then there is panic, and the third one gets
// all traffic nevertheless, by each algorithm: what they have said themselves is no opinion.
func TestParking_OneIsLeft_B09(t *testing.T) {
	for name, algorithm := range map[string]Algorithm{
		"round robin": RoundRobin{}, "least request": LeastRequest{}, "peak EWMA": PeakEWMA{}, "random": Random{},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLot(t, Rules{}, "a", "b", "c")
			require.NoError(t, l.Use(algorithm, Rules{SlowStart: SlowStart{Window: -1}}))
			both := []Pick{l.at(t, "a:80"), l.at(t, "b:80")}
			for _, pick := range both {
				l.answer(pick, 503, "Retry-After", "60")
			}
			require.True(t, l.Status().Panic)
			assert.Equal(t, map[string]int{"c:80": 300}, attempts(t, l.Pool, 300))
			l.Advance(2 * time.Minute)
			assert.Len(t, attempts(t, l.Pool, 300), 3)
		})
	}
}

// Given one of four that is ill and one that is parked, then panic sends traffic to the first and
// not to the second.
func TestParking_PanicIsForTheIll_B09(t *testing.T) {
	l := newLot(t, Rules{Panic: Panic{Threshold: 0.9}}, "a", "b", "c", "d")
	l.busy(t, "a:80", 60)
	require.True(t, l.SetHealthy(discovery.Endpoint{Address: "b:80"}.Key(), false))
	require.True(t, l.Status().Panic)
	got := attempts(t, l.Pool, 300)
	assert.Zero(t, got["a:80"])
	assert.Equal(t, 100, got["b:80"])
}

// Given an endpoint that was parked for less than a second, then it has its whole share at once: to
// begin slowly would cost it 30 s.
func TestParking_ShortOnesBeginAtOnce_B04(t *testing.T) {
	for _, row := range []struct {
		name   string
		header []string
		slowly bool
	}{
		{"a millisecond", []string{"X-Ratelimit-Reset", "0.001"}, false},
		{"half a second", []string{"X-Ratelimit-Reset", "0.5"}, false},
		{"a second", []string{"Retry-After", "1"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLot(t, Rules{SlowStart: SlowStart{Window: 30 * time.Second}}, "a", "b", "c")
			l.Advance(time.Minute)
			l.answer(l.at(t, "a:80"), 429, row.header...)
			require.Equal(t, "parked", l.why(t, "a:80"))
			l.Advance(2 * time.Second)
			require.Empty(t, l.why(t, "a:80"))
			if row.slowly {
				assert.Less(t, weightsOf(l.Pool)["a:80"], 0.2)
				return
			}
			assert.InDelta(t, 1, weightsOf(l.Pool)["a:80"], 0)
			assert.Equal(t, map[string]int{"a:80": 100, "b:80": 100, "c:80": 100}, attempts(t, l.Pool, 300))
		})
	}
}

// hasty is a clock whose timers ring before their time if that is more than a second away.
type hasty struct{ *clock.Fake }

func (h hasty) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d > time.Second {
		d -= d / 4
	}
	return h.Fake.AfterFunc(d, f)
}

// Given a timer that rings early, then the endpoint is left alone until its time has come, and not
// for ever.
func TestParking_EarlyTimer_X01(t *testing.T) {
	fake := clock.NewFake(epoch)
	p := testPool(t, Config{Algorithm: RoundRobin{}, Clock: hasty{fake}, Rules: Rules{SlowStart: SlowStart{Window: -1}}}, addresses("a", "b", "c")...)
	l := lot{p, fake, fake.Pending()}
	l.busy(t, "a:80", 20)
	after := l.comesBack(t, "a:80")
	assert.GreaterOrEqual(t, after, 20*time.Second)
	assert.LessOrEqual(t, after, 30*time.Second+100*time.Millisecond)
	assert.Zero(t, l.timers())
}

// Given an endpoint that is not in the pool any more, but was not yet marked as removed, then an
// answer of that instant sets no timer: nobody would stop it.
func TestParking_AnswerWhileItLeaves_T18(t *testing.T) {
	l := newLot(t, Rules{}, "a", "b", "c")
	m := l.members[0]
	before := l.Pending()
	l.mu.Lock()
	_, gone := l.takeLocked(addresses("b", "c"), l.now())
	l.mu.Unlock()
	m.Overloaded(outcome.Answer{Now: l.Fake.Now(), Status: 503, Header: http.Header{"Retry-After": {"20"}}})
	assert.Equal(t, before, l.Pending())
	for _, n := range gone {
		n.Remove()
	}
	l.update(addresses("b", "c"))
	assert.LessOrEqual(t, l.Pending(), before)
}

// A date in an answer is compared with what the clock shows. Instants of calls are for subtracting:
// they go on from the first one when the machine's clock is set.
func TestParking_DatesByTheClock_R11(t *testing.T) {
	for name, header := range map[string]http.Header{
		"Retry-After": {"Retry-After": {epoch.Add(20 * time.Second).Format(http.TimeFormat)}},
		"RateLimit":   {"X-Ratelimit-Reset": {"1767225620"}}, // the same instant
	} {
		for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
			t.Run(name+" "+off.String(), func(t *testing.T) {
				l := newLot(t, Rules{}, "a", "b", "c")
				l.members[0].Overloaded(outcome.Answer{Now: l.Fake.Now().Add(off), Status: 429, Header: header})
				require.Equal(t, "parked", l.why(t, "a:80"))
				after := l.comesBack(t, "a:80")
				assert.GreaterOrEqual(t, after, 20*time.Second)
				assert.LessOrEqual(t, after, 30*time.Second+100*time.Millisecond)
			})
		}
	}
}

// Given one endpoint that has asked to be left alone and another that is ill, then the one that
// works is better than the one that does not: both are picked, as in any panic.
func TestParking_BetterThanIll_B09(t *testing.T) {
	l := newLot(t, Rules{}, "a", "b")
	require.NoError(t, l.Use(RoundRobin{}, Rules{}))
	l.busy(t, "a:80", 60)
	require.True(t, l.SetHealthy(discovery.Endpoint{Address: "b:80"}.Key(), false))
	assert.True(t, l.Status().Panic)
	assert.Equal(t, map[string]int{"a:80": 20, "b:80": 20}, attempts(t, l.Pool, 40))
}

package retry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// leg is an attempt that is under way.
type leg struct{ cost int }

// model drives one plan with events that follow from random numbers, and knows what may come.
type model struct {
	r       *Retrier
	random  func(n int) int
	started int
	legs    []leg // under way, two at most
	mostAt  int   // once
	refund  func(cost int, o outcome.Outcome) int
	quota   int // what must be in it, -1 if unknown
	size    int
}

// outcomes are those of the default classifier, and one of Policy.Statuses.
var outcomes = [...]outcome.Outcome{
	good, failed, failed, failed, timedOut, final, noConn, noConn, noConn, dialSlow, badCert, overload, overload, blamed, callerWas,
	{Class: outcome.Failure, Again: outcome.Elsewhere},
	conflict,
}

// event makes an event up.
func (m *model) event(now time.Time) Event {
	e := Event{
		Now: now, Outcome: outcomes[m.random(len(outcomes))], Took: time.Duration(m.random(2000)-10) * time.Millisecond,
		Idempotent: m.random(8) != 0, Replayable: m.random(10) != 0, Others: m.random(2) != 0, Exhausted: m.random(30) == 0,
		Running: len(m.legs) > 0,
	}
	if m.random(4) == 0 {
		e.Deadline = now.Add(time.Duration(m.random(5000)-100) * time.Millisecond)
	}
	if m.random(4) == 0 {
		e.Asked, e.Pushback = true, time.Duration(m.random(15000))*time.Millisecond
	}
	if m.random(8) == 0 {
		e.Verdict = Verdict(m.random(3))
	}
	return e
}

// call drives one call to its end and returns what is wrong with it, if anything is.
func (m *model) call(now time.Time) error {
	plan := m.r.Begin()
	m.legs, m.started = []leg{{}}, 1
	most, hedges := m.r.policy.MaxAttempts, m.r.hedges != nil
	for steps := 0; ; steps++ {
		if steps > 100 {
			return fmt.Errorf("it does not end")
		}
		now = now.Add(time.Duration(m.random(100)) * time.Millisecond)
		var a Action
		isHedge := hedges && len(m.legs) == 1 && m.random(3) == 0
		var e Event
		if isHedge {
			m.r.hedges.begin("GET", now)
			e = m.event(now)
			e.Running = true
			a = plan.Hedge(e)
			hedges = a.Again                 // one that was refused is the last
			if a.Again && m.random(6) == 0 { // a layer below refuses it
				plan.Withdrawn(a, true)
				hedges = false
				if err := m.tokens(0); err != nil {
					return err
				}
				continue
			}
		} else {
			i := m.random(len(m.legs))
			ended := m.legs[i]
			m.legs = append(m.legs[:i], m.legs[i+1:]...)
			e = m.event(now)
			e.Cost = ended.cost
			a = plan.Next(e)
			if m.quota >= 0 {
				m.quota = min(m.quota+m.refund(ended.cost, e.Outcome), max(m.size, m.quota))
			}
		}
		switch {
		case a.Wait < 0 || a.Cost < 0:
			return fmt.Errorf("%+v after %+v", a, e)
		case !a.Again && (a.Wait != 0 || a.Cost != 0):
			return fmt.Errorf("a stop that takes something: %+v after %+v", a, e)
		case a.Again && (a.Await || a.Reason != ""):
			return fmt.Errorf("neither nor: %+v after %+v", a, e)
		case a.Await && !e.Running, isHedge && (a.Await || a.Wait != 0):
			return fmt.Errorf("%+v after %+v", a, e)
		case a.Again && !isHedge && e.Running:
			return fmt.Errorf("a failed attempt decides while another runs: %+v after %+v", a, e)
		case a.Again && (!e.Replayable || e.Exhausted || e.Outcome.Class == outcome.Canceled && !isHedge):
			return fmt.Errorf("sent again: %+v after %+v", a, e)
		case a.Again && !e.Idempotent && e.Verdict != Repeat && (isHedge || e.Outcome.Class != outcome.NeverSent):
			return fmt.Errorf("sent twice: %+v after %+v", a, e)
		case a.Again && !e.Deadline.IsZero() && !e.Deadline.After(now.Add(a.Wait)) && e.Outcome.Class != outcome.NeverSent:
			return fmt.Errorf("too late: %+v after %+v", a, e)
		}
		if err := m.tokens(a.Cost); err != nil {
			return err
		}
		if a.Again {
			m.legs = append(m.legs, leg{a.Cost})
			m.started++
		}
		m.mostAt = max(m.mostAt, len(m.legs))
		if m.started > most+maxFreeMoves || m.mostAt > 2 {
			return fmt.Errorf("%d attempts of %d, %d at once", m.started, most, m.mostAt)
		}
		if !a.Again && !a.Await && !isHedge {
			return nil // what still runs has lost
		}
	}
}

// tokens takes a cost and checks what is left.
func (m *model) tokens(cost int) error {
	left := m.r.Tokens()
	if m.quota >= 0 {
		if m.quota -= cost; m.quota != left {
			return fmt.Errorf("%d tokens, not %d", left, m.quota)
		}
	}
	if left < 0 || left > m.size {
		return fmt.Errorf("%d tokens of %d", left, m.size)
	}
	return nil
}

func newModel(r *Retrier, random func(int) int) *model {
	m := &model{r: r, random: random, quota: -1}
	switch b := r.policy.Budget.(type) {
	case Quota:
		m.size = max(b.Size, 0)
		if b.Size > 0 {
			m.quota = r.Tokens()
			m.refund = func(cost int, o outcome.Outcome) int { // as 4.3 of ALGORITHMS has it
				switch {
				case o.Class != outcome.Success:
					return 0
				case cost == 0:
					return 1
				}
				return cost
			}
		}
	case Throttle:
		m.size = b.MaxTokens
	case Ratio:
		m.size = b.Max
	}
	return m
}

var modelled = []Policy{
	{},
	{MaxAttempts: 1},
	{MaxAttempts: 2, Budget: Quota{Size: 30}},
	{MaxAttempts: 10, Budget: Quota{Size: -1}, Hedge: &Hedge{After: 1, Budget: -1}},
	{MaxAttempts: 5, Budget: Quota{Size: 200}, Hedge: &Hedge{After: 1, Budget: 0.5}},
	{MaxAttempts: 4, Budget: Throttle{}, Hedge: &Hedge{After: 1}, Pushback: Pushback{Shorten: true}},
	{MaxAttempts: 4, Budget: Ratio{}, Hedge: &Hedge{After: 1, Budget: 1}, Backoff: Backoff{Kind: Decorrelated}},
	{MaxAttempts: 3, Budget: Ratio{Reserve: -1, Max: 5}, Pushback: Pushback{Max: -1}, Backoff: Backoff{Kind: EqualJitter, Base: 1}},
	{MaxAttempts: 6, NewBackOff: func() backoff.BackOff { return backoff.WithMaxRetries(&backoff.ZeroBackOff{}, 3) }},
	{MaxAttempts: 3, NewBackOff: func() backoff.BackOff { return &scriptedWaits{[]time.Duration{-5, math.MaxInt64, math.MinInt64}} }},
}

// Whatever happens to a call: no more attempts than allowed, no wait below zero, none after a
// stop, and tokens neither below zero nor above the size.
func TestPlan_AnySequenceOfEvents_R01_R04_R05_R06_R19(t *testing.T) {
	const seed, plans = 20260301, 100_000
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	most := make([]int, len(modelled))
	atOnce := 0
	for i, p := range modelled {
		m := newModel(retrier(t, p), random.IntN)
		for n := range plans / len(modelled) {
			if err := m.call(epoch.Add(time.Duration(n) * time.Second)); err != nil {
				t.Fatalf("policy %d, plan %d: %v", i, n, err)
			}
			most[i] = max(most[i], m.started)
		}
		atOnce = max(atOnce, m.mostAt)
	}
	t.Logf("most attempts of a call, by policy: %v", most)
	require.Equal(t, 2, atOnce, "hedges were tried")
	require.Equal(t, 1, most[1])
	require.Equal(t, 4, most[2], "2 attempts and 2 moves")
}

// The same, for sequences that a fuzzer makes up.
func FuzzPlan(f *testing.F) {
	f.Add(uint8(0), []byte{})
	f.Add(uint8(4), []byte("\x01\x00\x05\xff\x10 any bytes are a call"))
	f.Add(uint8(9), []byte{255, 254, 253, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		p := modelled[int(which)%len(modelled)]
		p.Rand = rand.NewPCG(uint64(which), 0)
		r, err := NewRetrier(p)
		require.NoError(t, err)
		tail := rand.New(rand.NewPCG(uint64(len(script)), 1)) // when the script ends
		m := newModel(r, func(n int) int {
			if len(script) == 0 {
				return tail.IntN(n)
			}
			b := script[0]
			script = script[1:]
			return int(b) * n / 256
		})
		for n := range 5 {
			if err := m.call(epoch.Add(time.Duration(n) * time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// R-08 for any backoff that Validate lets pass.
func FuzzBackoff_R08(f *testing.F) {
	f.Add(uint8(0), int64(0), int64(0), 0.0, uint64(1))
	f.Add(uint8(4), int64(1), int64(math.MaxInt64), 1.5, uint64(2))
	f.Add(uint8(2), int64(math.MaxInt64), int64(math.MaxInt64), 1e300, uint64(3))
	f.Add(uint8(1), int64(time.Hour), int64(math.MaxInt64-1), math.Inf(1), uint64(4))
	f.Fuzz(func(t *testing.T, kind uint8, base, limit int64, factor float64, seed uint64) {
		b := Backoff{Kind: Kind(kind), Base: time.Duration(base), Max: time.Duration(limit), Factor: factor}
		if b.validate() != nil {
			t.Skip()
		}
		checkWaits(t, b.withDefaults(), 200, rand.New(rand.NewPCG(seed, 0)).Float64)
	})
}

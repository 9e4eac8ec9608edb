package health

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// findings reads F for a failure, S for a good probe, D for an endpoint that says that it is down, and L
// for one that is about to leave.
func findings(t testing.TB, letters string) []finding {
	t.Helper()
	var fs []finding
	for _, letter := range letters {
		f, ok := map[rune]finding{'F': bad, 'S': good, 'D': down, 'L': leaving}[letter]
		require.True(t, ok, "%c", letter)
		fs = append(fs, f)
	}
	return fs
}

// states writes the state after each finding as a letter: ?, h, u or w.
func states(c *condition, s *Check, fs []finding) string {
	after := ""
	for _, f := range fs {
		c.take(f, s)
		after += string("?huw"[c.state])
	}
	return after
}

// Given fall 3 and rise 2, then the endpoint is unhealthy exactly when the third probe in a row has
// failed, and healthy exactly after two good ones in a row.
func TestCondition_RiseAndFall_H01(t *testing.T) {
	for _, row := range []struct {
		what       string
		rise, fall int
		from       State
		given      string
		want       string
	}{
		{"the example, from nothing", 2, 3, Unknown, "FFSFFFSS", "??hhhuuh"},
		{"the example, from healthy", 2, 3, Healthy, "FFSFFFSS", "hhhhhuuh"},
		{"the example, once more", 2, 3, Healthy, "FFSFFFSSFFSFFFSS", "hhhhhuuhhhhhhuuh"},
		{"the first good one is enough", 5, 3, Unknown, "S", "h"},
		{"also after a failure", 5, 3, Unknown, "FFS", "??h"},
		{"never a good one", 2, 3, Unknown, "FFFFF", "??uuu"},
		{"down for long", 2, 3, Unknown, "FFFFFFFFSS", "??uuuuuuuh"},
		{"good ones must be in a row", 2, 3, Healthy, "FFFSFSFSFSS", "hhuuuuuuuuh"},
		{"failures must be in a row", 2, 3, Healthy, "FFSFFSFFSFFS", "hhhhhhhhhhhh"},
		{"1 and 1", 1, 1, Unknown, "SFSFFSS", "huhuuhh"},
		{"1 and 1, the first fails", 1, 1, Unknown, "FSF", "uhu"},
		{"rise 3", 3, 2, Healthy, "FFSSFSSSFF", "huuuuuuhhu"},
		{"down counts at once", 2, 3, Healthy, "DSS", "uuh"},
		{"down counts at once, from nothing", 2, 3, Unknown, "DSS", "uuh"},
		{"down between failures", 2, 3, Healthy, "FDS", "huu"},
		{"down undoes a rise", 2, 3, Healthy, "FFFSDSS", "hhuuuuh"},
		{"leaving counts at once", 2, 3, Healthy, "LSS", "wwh"},
		{"leaving counts at once, from nothing", 2, 3, Unknown, "LSS", "wwh"},
		{"back from leaving needs a row", 2, 3, Healthy, "LSLSS", "wwwwh"},
		{"down while leaving", 2, 3, Healthy, "LDSS", "wuuh"},
		{"leaving after it was down", 2, 3, Healthy, "DLLSS", "uwwwh"},
		{"leaving does not count as good", 2, 3, Healthy, "DSLS", "uuww"},
	} {
		t.Run(row.what, func(t *testing.T) {
			s := Check{Rise: row.rise, Fall: row.fall}.WithDefaults()
			c := condition{state: row.from}
			assert.Equal(t, row.want, states(&c, &s, findings(t, row.given)), row.given)
		})
	}
}

// To say that it is leaving is not to fail: an endpoint that has said so for long, and then once does
// not answer, has failed once, not Fall times.
func TestCondition_OneFailureWhileLeavingIsOne_H01(t *testing.T) {
	s := Check{}.WithDefaults()
	c := condition{state: Healthy}
	assert.Equal(t, "wwwwwu", states(&c, &s, findings(t, "LLLFFF")), "three in a row have failed")
}

// The wait until the next probe, after each finding: fast while the state is changing, ever longer
// while it is down, seldom if nobody calls.
func TestCondition_Waits_H07(t *testing.T) {
	s := Check{Interval: 30 * time.Second, FastInterval: 500 * time.Millisecond, IdleInterval: 70 * time.Second}.WithDefaults()
	const fast, idle = 500, 70_000
	for _, row := range []struct {
		given string
		idle  bool
		want  []int // milliseconds
	}{
		{"S", false, []int{30_000}},
		{"S", true, []int{idle}},
		{"SFSF", false, []int{30_000, fast, 30_000, fast}},
		{"SFSF", true, []int{idle, fast, idle, fast}},
		{"FFS", false, []int{fast, fast, 30_000}},
		{"FFFFFFFFFFFFFF", false, []int{fast, fast, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 120_000, 120_000, 120_000, 120_000, 120_000}},
		{"DDDDDDDDDD", true, []int{1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 120_000, 120_000, 120_000}},
		{"DDDDSS", false, []int{1000, 2000, 4000, 8000, fast, 30_000}},
		{"DDDDSD", false, []int{1000, 2000, 4000, 8000, fast, 1000}},
		{"DLLF", false, []int{1000, 30_000, 30_000, fast}},
		{"LLSS", false, []int{30_000, 30_000, fast, 30_000}},
		{"LLSS", true, []int{idle, idle, fast, idle}},
		{"SLF", false, []int{30_000, 30_000, fast}},
	} {
		c, got := condition{}, []int{}
		for _, f := range findings(t, row.given) {
			c.take(f, &s)
			got = append(got, int(c.wait(&s, row.idle)/time.Millisecond))
		}
		assert.Equal(t, row.want, got, "%s, idle %v", row.given, row.idle)
	}
	var unknown condition
	assert.Equal(t, 30*time.Second, unknown.wait(&s, false))
}

func TestCondition_WaitWhileDownIsBounded_H07(t *testing.T) {
	for _, row := range []struct{ first, most time.Duration }{
		{time.Second, time.Second},
		{time.Second, 1500 * time.Millisecond},
		{time.Second, 2 * time.Second},
		{3 * time.Second, 20 * time.Second},
		{minInterval, maxInterval},
		{maxInterval, maxInterval},
	} {
		s := Check{DownInterval: row.first, MaxDownInterval: row.most}.WithDefaults()
		want := row.first
		for downs := 1; downs < 200; downs++ {
			c := condition{state: Unhealthy, last: bad, downs: downs}
			require.Equal(t, want, c.wait(&s, false), "%v to %v after %d", row.first, row.most, downs)
			want = min(2*want, row.most)
		}
		c := condition{state: Unhealthy, last: bad, downs: 1 << 30}
		assert.Equal(t, row.most, c.wait(&s, true), "after any time")
	}
}

// An IdleInterval that is shorter than Interval, or switched off, has no effect.
func TestCondition_IdleIntervalIsNoShorter(t *testing.T) {
	for _, idle := range []time.Duration{Off, 10 * time.Millisecond, 29 * time.Second, 30 * time.Second} {
		s := Check{Interval: 30 * time.Second, IdleInterval: idle}.WithDefaults()
		c := condition{state: Healthy}
		assert.Equal(t, 30*time.Second, c.wait(&s, true), "%v", idle)
	}
}

// history says what must be the state from all that was ever found: it looks back, and keeps no
// counts. It was written from the documentation of Check.
type history struct {
	rise, fall int
	past       []finding
	state      State
}

func (h *history) note(f finding) State {
	h.past = append(h.past, f)
	switch {
	case f == good && h.state == Unknown, f == good && h.tail(h.rise, true):
		h.state = Healthy
	case f == down:
		h.state = Unhealthy
	case f == leaving:
		h.state = Withdrawn
	case f == bad && h.tail(h.fall, false):
		h.state = Unhealthy
	}
	return h.state
}

// tail reports whether the last n probes all were good, or all were not.
func (h *history) tail(n int, able bool) bool {
	if len(h.past) < n {
		return false
	}
	for _, f := range h.past[len(h.past)-n:] {
		if (f == good) != able {
			return false
		}
	}
	return true
}

// A long walk at random: the state is always what the whole history says.
func TestCondition_RandomWalk_H01(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := Check{Rise: 1 + random.IntN(4), Fall: 1 + random.IntN(4)}.WithDefaults()
		model := &history{rise: s.Rise, fall: s.Fall}
		var c condition
		stay, f := 0.5+random.Float64()/2, good // runs, not only coins
		for step := range 500 {
			if random.Float64() > stay {
				f = finding(random.IntN(4))
			}
			c.take(f, &s)
			want := model.note(f)
			if f == leaving {
				model.past, c.row = nil, 0 // whether it is part of a row is not asked here
			}
			require.Equal(t, want, c.state, "seed %d, step %d: rise %d, fall %d", seed, step, s.Rise, s.Fall)
			require.GreaterOrEqual(t, c.wait(&s, false), min(s.FastInterval, s.DownInterval), "seed %d", seed)
			require.LessOrEqual(t, c.wait(&s, true), max(s.IdleInterval, s.MaxDownInterval), "seed %d", seed)
			if c.state == Unhealthy && f != good {
				require.Positive(t, c.downs, "seed %d", seed)
			}
		}
	}
}

func TestState_String(t *testing.T) {
	for s, want := range map[State]string{Unknown: "unknown", Healthy: "healthy", Unhealthy: "unhealthy", Withdrawn: "withdrawn", 4: "invalid", 255: "invalid"} {
		assert.Equal(t, want, s.String())
	}
	for k, want := range map[Kind]string{
		0: "invalid", TurnedHealthy: "healthy", TurnedUnhealthy: "unhealthy", TurnedAway: "withdrawn",
		Eject: "eject", Return: "return", 200: "Kind(200)",
	} {
		assert.Equal(t, want, k.String())
	}
}

// What is wrapped means the same, and down counts more than leaving.
func TestFindingOf(t *testing.T) {
	for _, row := range []struct {
		err  error
		want finding
	}{
		{nil, good},
		{assert.AnError, bad},
		{errTimeout, bad},
		{errStuck, bad},
		{errGone, bad},
		{&PanicError{Value: nil}, bad},
		{ErrDown, down},
		{ErrDraining, leaving},
		{fmt.Errorf("a: %w", fmt.Errorf("b: %w", ErrDown)), down},
		{fmt.Errorf("a: %w", ErrDraining), leaving},
		{fmt.Errorf("%w and %w", ErrDraining, ErrDown), down},
	} {
		assert.Equal(t, row.want, findingOf(row.err), "%v", row.err)
	}
}

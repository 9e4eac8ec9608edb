package health_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/health"
)

// set returns endpoints by name: "a", "a*3" with a weight, "a-" and "a-*3" that drain.
func set(t testing.TB, specs string) (endpoints []discovery.Endpoint) {
	t.Helper()
	for spec := range strings.FieldsSeq(specs) {
		name, weight, weighted := strings.Cut(spec, "*")
		e := discovery.Endpoint{Draining: strings.HasSuffix(name, "-")}
		e.Address = strings.TrimSuffix(name, "-") + ":80"
		if weighted {
			_, err := fmt.Sscan(weight, &e.Weight)
			require.NoError(t, err)
		}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

// lineUp is a pool of a scene whose endpoints fail by name, and that tells of its changes.
type lineUp struct {
	*traffic
	mu      sync.Mutex
	changes []balancer.Change
}

// newLineUp watches for rows of five failures, and for nothing else: each ejection lasts 30 s.
func (s *scene) newLineUp(specs string) *lineUp {
	s.Helper()
	l := &lineUp{}
	s.watch(health.Config{Outlier: health.Outlier{Deviation: health.Off, Jitter: health.Off}})
	l.traffic = s.balance(balancer.Config{OnChange: func(c balancer.Change) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changes = append(l.changes, c)
	}})
	l.push(specs)
	return l
}

// push makes the endpoints those that are given, and returns what the pool has told of it.
func (l *lineUp) push(specs string) []balancer.Change {
	l.Helper()
	synctest.Wait()
	l.mu.Lock()
	l.changes = nil
	l.mu.Unlock()
	l.sets <- set(l, specs)
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

// fail makes an endpoint answer so many requests with a failure, in a row. The others do well.
func (l *lineUp) fail(name string, times int) {
	l.Helper()
	for i := 0; times > 0; i++ {
		require.Less(l, i, 1000, "it is not picked")
		pick, err := l.pool.Pick(balancer.Info{})
		require.NoError(l, err)
		if pick.Endpoint().Address == name+":80" {
			pick.Answered(failure())
			times--
		} else {
			pick.Answered(succeeded())
		}
		pick.Done()
	}
	synctest.Wait()
}

// out names those that are ejected, as the monitor says and as the pool does.
func (l *lineUp) out() string {
	l.Helper()
	var told, done []string
	for _, s := range l.monitor.Status() {
		if s.Ejected != "" {
			told = append(told, strings.TrimSuffix(s.Endpoint.Address, ":80"))
		}
	}
	for _, e := range l.pool.Status().Endpoints {
		if strings.Contains(e.Unavailable, "ejected") {
			done = append(done, strings.TrimSuffix(e.Endpoint.Address, ":80"))
		}
	}
	slices.Sort(told)
	slices.Sort(done)
	assert.Equal(l, told, done, "what is said is what is done")
	return strings.Join(done, " ")
}

// ejected makes a line-up of which some are ejected, one a second, and nothing was told since.
func (s *scene) ejected(specs, names string) *lineUp {
	s.Helper()
	l := s.newLineUp(specs)
	for name := range strings.FieldsSeq(names) {
		l.fail(name, 5)
		s.settle(time.Second)
	}
	require.Equal(s, names, l.out())
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.list = nil
	return l
}

// Given ejections, when endpoints leave, drain, join or change their weight, then no more than half of
// those that stay are ejected, by number and by weight as they are now, and nobody comes back who need
// not: first the one whose time is over first. Those that leave or drain count neither as endpoints nor
// as ejected. It is done with the update: the pool tells of one change.
func TestSettle_NobodyReturnsWhoNeedNot_B10(t *testing.T) {
	for _, row := range []struct {
		name    string
		before  string
		ejected string // in this order
		after   string
		want    string
		events  string // the returns
	}{
		{"ejected ones leave", "a b c d e f g h", "a b c d", "a d e f g h", "a d", ""},
		{"all ejected ones leave", "a b c d e f g h", "a b c d", "e f g h", "", ""},
		{"the first leaves", "a b c d e f g h", "a b c d", "b c d e f g h", "b c d", ""},
		{"the first leaves, and others", "a b c d e f g h", "a b c d", "b c d g h", "c d", "b"},
		{"others leave", "a b c d e f g h", "a b c d", "a b c d h", "c d", "a b"},
		{"one and one", "a b c d", "a b", "b d", "b", ""},
		{"those are left that are ejected", "a b c d", "a b", "a b", "b", "a"},
		{"one is left that is ejected", "a b c d", "a b", "b", "", "b"},
		{"an ejected one drains", "a b c d", "a b", "a b- c d", "a b", ""},
		{"the first drains", "a b c d", "a b", "a- b c d", "a b", ""},
		{"both drain", "a b c d", "a b", "a- b- c d", "a b", ""},
		{"the others drain", "a b c d", "a b", "a b c- d-", "b", "a"},
		{"the first drains, and others leave", "a b c d e f g h", "a b c d", "a- b c d g h", "a c d", "b"},
		{"some drain, some leave", "a b c d e f g h", "a b c d", "a- b c d f g h", "a b c d", ""},
		{"others join", "a b c d", "a b", "a b c d e f", "a b", ""},
		{"ejected ones leave, others join", "a b c d", "a b", "b c d e", "b", ""},
		{"another order", "a b c d", "a b", "d c b a", "a b", ""},
		{"all weights are divided", "a*100 b*100 c*100 d*100 e*100 f*100 g*100 h*100 i*100 j*100", "a", "a b c d e f g h i j", "a", ""},
		{"all weights are multiplied", "a b c d", "a b", "a*1000 b*1000 c*1000 d*1000", "a b", ""},
		{"another unit, and one leaves", "a*100 b*100 c*100 d*100 e*100 f*100", "a b", "a b c d e", "a b", ""},
		{"one weighs as much as the rest", "a b c d", "a", "a*3 b c d", "a", ""},
		{"one weighs more than the rest", "a b c d", "a", "a*4 b c d", "", "a"},
		{"the rest weighs less", "a*4 b*4 c*4 d*4 e*4 f*4", "a b", "a*4 b*4 c d e f", "b", "a"},
		{"a heavy one drains", "a*8 b*4 c*4 d*4 e*4", "a b", "a-*8 b*4 c*4 d*4 e*4", "a b", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				l := s.ejected(row.before, row.ejected)
				changes := l.push(row.after)
				assert.Equal(t, row.want, l.out())
				returns := []string{}
				for name := range strings.FieldsSeq(row.events) {
					returns = append(returns, name+":80 return")
				}
				assert.Equal(t, returns, s.journal.kinds())
				if row.name == "another order" {
					assert.LessOrEqual(t, len(changes), 1)
					return
				}
				require.Len(t, changes, 1, "with the update, not after it")
				available := 0
				for _, e := range l.pool.Status().Endpoints {
					if e.Unavailable == "" {
						available++
					}
				}
				assert.Equal(t, available, changes[0].Available)
			})
		})
	}
}

// Those that stay ejected come back at the instant that they had, whatever has left or drains; so does
// one that drains, and nothing is left.
func TestSettle_EndsStayAsTheyWere_B10_B11(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		l := s.ejected("a b c d e f g h", "a b c d") // at 0, 1, 2 and 3 s
		l.push("a- b d e f g h")
		for _, step := range []struct {
			at   time.Duration
			want string
		}{{30*time.Second - 1, "a b d"}, {30 * time.Second, "b d"}, {31 * time.Second, "d"}, {33*time.Second - 1, "d"}, {33 * time.Second, ""}} {
			s.settle(step.at - s.elapsed())
			assert.Equal(t, step.want, l.out(), "%v", step.at)
		}
		assert.Equal(t, []string{"a:80 return", "b:80 return", "d:80 return"}, s.journal.kinds())
	})
}

// Given an ejected endpoint that drains, when its ejection ends, then that makes no room for another:
// it took none.
func TestSettle_WhoDrainsMakesNoRoom_B10(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		l := s.ejected("a b c d e f", "a b c") // at 0, 1 and 2 s
		s.settle(29500*time.Millisecond - s.elapsed())
		l.push("a- b c d e f")
		require.Equal(t, "a b c", l.out())
		s.settle(600 * time.Millisecond)
		require.Equal(t, "b c", l.out(), "two of five")
		l.fail("d", 5)
		assert.Equal(t, "b c", l.out())
		s.settle(time.Second)
		require.Equal(t, "c", l.out())
		l.fail("d", 5)
		assert.Equal(t, "c d", l.out(), "there is room again")
	})
}

// Given ejected endpoints that have left, then they take no room: others can be ejected, as many as
// there may be, and no more.
func TestSettle_WhoHasLeftTakesNoRoom_B10(t *testing.T) {
	for _, after := range []string{"c d e f", "a- b- c d e f"} {
		t.Run(after, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				l := s.ejected("a b c d", "a b")
				l.push(after)
				l.fail("c", 5)
				l.fail("d", 5)
				l.fail("e", 20)
				assert.Equal(t, "c d", strings.TrimPrefix(l.out(), "a b "))
			})
		})
	}
}

// Given weights that change, then what may be ejected follows the weights of the present: neither does
// an endpoint that was light count as light for ever, nor one that was heavy as heavy.
func TestSettle_RoomByPresentWeights_B10(t *testing.T) {
	for _, row := range []struct {
		name, before, after string
		want                string // after a was ejected, and b fails
	}{
		{"the ejected one has grown", "a b c d e f g h i j", "a*9 b c d e f g h i j", "a"},
		{"all have grown", "a b c d", "a*10 b*10 c*10 d*10", "a b"},
		{"all have shrunk", "a*10 b*10 c*10 d*10", "a b c d", "a b"},
		{"the ejected one has shrunk", "a*3 b c d", "a b c d", "a b"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inScene(t, func(t *testing.T, s *scene) {
				l := s.ejected(row.before, "a")
				l.push(row.after)
				require.Equal(t, "a", l.out())
				l.fail("b", 5)
				assert.Equal(t, row.want, l.out())
			})
		})
	}
}

// Given ejected endpoints that drained, so that nobody counted as ejected, when they stay after all and
// the others drain, then the cap holds for them.
func TestSettle_WhoStaysAfterAllCounts_B10(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		l := s.ejected("a b c d", "a b")
		l.push("a- b- c d")
		l.push("a b c- d-")
		assert.Len(t, strings.Fields(l.out()), 1)
		assert.False(t, l.pool.Status().Panic)
		assert.Equal(t, []string{"a:80 return"}, s.journal.kinds())
	})
}

// Given an ejection that is only reported, when an update ends it, then that is told.
func TestSettle_EndsOfShadowsAreTold_B10(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		l := &lineUp{}
		s.watch(health.Config{Outlier: health.Outlier{Deviation: health.Off, Jitter: health.Off, Shadow: true, EjectFor: time.Minute}})
		l.traffic = s.balance(balancer.Config{})
		l.push("a b")
		l.fail("a", 5)
		l.push("a")
		s.settle(0)
		assert.Equal(t, []string{"a:80 eject", "a:80 return"}, s.journal.kinds())
	})
}

// Given a new set in place of the old one, then nobody is held back: the first of them that is known to
// be healthy would get everything.
func TestSettle_NobodyIsHeldAfterAReplacement_H03(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		names := []string{"a:80", "b:80", "c:80", "d:80"}
		for _, e := range names {
			s.network.Serve(e, nil)
		}
		a := &asked{}
		s.check(health.Check{Probe: a.probe(), Interval: 10 * time.Second, HoldNew: time.Minute})
		traffic := s.balance(balancer.Config{}, names[0])
		s.settle(20 * time.Second)
		traffic.say(names[1:]...)
		s.settle(0)
		for range 12 {
			assert.Equal(t, map[string]int{"b:80": 4, "c:80": 4, "d:80": 4}, traffic.share(12))
			s.settle(time.Second)
		}
	})
}

// Given another probe while one is under way, then what that finds does not count.
func TestUse_ProbesOfBefore_P01(t *testing.T) {
	inScene(t, func(t *testing.T, s *scene) {
		begun := make(chan struct{}, 1)
		s.check(health.Check{Interval: 10 * time.Second, Timeout: 10 * time.Second, Probe: health.Func(func(context.Context, discovery.Endpoint) error {
			begun <- struct{}{}
			time.Sleep(5 * time.Second)
			return health.ErrDown
		})})
		s.add("a:80")
		<-begun
		s.use(&health.Check{Interval: 10 * time.Second, Probe: health.Func(func(context.Context, discovery.Endpoint) error { return nil })})
		s.settle(5 * time.Second)
		assert.NotEqual(t, health.Unhealthy, s.status("a:80").State)
		s.settle(20 * time.Second)
		assert.Equal(t, health.Healthy, s.status("a:80").State)
		assert.Equal(t, []string{"a:80 healthy"}, s.journal.kinds())
	})
}

package balancer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fallbackSpy notes what a fallback is given.
type fallbackSpy struct {
	Builder
	groups *[]Group
	every  time.Duration
}

func (s fallbackSpy) NewBuilder(env Env) (Builder, error) {
	b, err := RoundRobin{}.NewBuilder(env)
	s.Builder = b
	if s.every > 0 {
		return refreshingSpy{s}, err
	}
	return s, err
}

func (s fallbackSpy) Build(g Group) Picker {
	*s.groups = append(*s.groups, g)
	return s.Builder.Build(g)
}

func (s fallbackSpy) useInFlight(total func() int64) bool { return total() > 0 }

type refreshingSpy struct{ fallbackSpy }

func (s refreshingSpy) RefreshInterval() time.Duration { return s.every }

// A request without a key is the fallback's, which sees only who is available and
// goes on where it was.
func TestHash_FallbackPicksWithoutAKey(t *testing.T) {
	var groups []Group
	forAll(t, hashing{fallback: fallbackSpy{groups: &groups}}, func(t *testing.T, a Algorithm) {
		groups = nil
		c := newHashCluster(t, a, manyEndpoints(4)...)
		c.build()
		i := c.group.Previous.Pick(Info{})
		assert.Equal(t, (i+1)%4, c.group.Previous.Pick(keyed("")), "in turn")
		c.away[c.all[3].Endpoint().Address] = true
		c.build()
		got := counts(c.group.Previous, 3, 300)
		assert.Equal(t, []int{100, 100, 100}, got)
		require.Len(t, groups, 2)
		assert.Nil(t, groups[0].Previous)
		assert.IsType(t, &roundRobinPicker{}, groups[1].Previous, "its own picker, not ours")
		assert.Len(t, groups[1].Candidates, 3)
		assert.Empty(t, groups[1].Unavailable)
		assert.Equal(t, epoch, groups[1].Now)
		for _, key := range users(20) {
			owner := c.address(keyed(key))
			assert.Equal(t, owner, c.address(keyed(key)), "keys are ours")
		}
	})
}

// What the fallback keeps of each endpoint is kept and told.
func TestHash_FallbackLearns(t *testing.T) {
	forAll(t, hashing{fallback: LeastRequest{}}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(2)...)
		p := c.build()
		for _, one := range c.all {
			require.IsType(t, &leastRequestState{}, one.Observer())
		}
		hold(c.group.Candidates[1], 2)
		assert.Equal(t, []int{50, 0}, counts(p, 2, 50))
	})
}

func TestHash_FallbackRefreshes(t *testing.T) {
	var groups []Group
	spy := fallbackSpy{groups: &groups, every: time.Second}
	forAll(t, hashing{fallback: spy}, func(t *testing.T, a Algorithm) {
		c := newHashCluster(t, a, manyEndpoints(2)...)
		r, ok := c.builder.(Refresher)
		require.True(t, ok)
		assert.Equal(t, time.Second, r.RefreshInterval())
		assert.Implements(t, (*Keyer)(nil), c.builder)
	})
	forAll(t, hashing{fallback: RoundRobin{}}, func(t *testing.T, a Algorithm) {
		_, ok := newHashCluster(t, a).builder.(Refresher)
		assert.False(t, ok, "nothing to refresh")
	})
}

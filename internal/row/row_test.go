package row

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What can happen to a row: a failure; a success that is one for good; a success whose body is under
// way, its end, and its end in the middle.
const (
	failed  = 'f'
	good    = 'g'
	arrives = 'a'
	whole   = 'w'
	broke   = 'b'
)

// happens lets something happen, and returns the length of the row.
func happens(t *testing.T, r *Row, what rune) int {
	t.Helper()
	switch what {
	case failed:
		assert.Equal(t, r.Len()+1, r.Failed())
	case good:
		r.End(false)
		assert.Zero(t, r.Len())
	case arrives:
		r.End(true)
		assert.Zero(t, r.Len())
	case whole:
		before := r.Len()
		r.Whole()
		assert.Equal(t, before, r.Len(), "the end of a body adds no failure, and takes none away")
	case broke:
		before := r.Len()
		n, added := r.Broke()
		assert.Positive(t, added)
		assert.Equal(t, before+added, n)
		assert.Equal(t, n, r.Len())
	default:
		require.Fail(t, "no such event", "%c", what)
	}
	return r.Len()
}

func TestRow_Steps(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		events string
		want   []int
	}{
		{"nothing but failures", "fff", []int{1, 2, 3}},
		{"a success ends it", "ffgf", []int{1, 2, 0, 1}},
		{"the end of nothing", "gwf", []int{0, 0, 1}},
		{"a success whose body remains whole", "ffaw" + "f", []int{1, 2, 0, 0, 1}},
		{"a success whose body breaks", "ffab", []int{1, 2, 0, 3}},
		{"two of them", "ffabab", []int{1, 2, 0, 3, 0, 4}},
		{"two under way, and both break", "ffaabb", []int{1, 2, 0, 0, 3, 4}},
		{"two under way, and one remains a success", "ffaawb", []int{1, 2, 0, 0, 0, 1}},
		{"a failure while a body is under way that breaks", "ffafb", []int{1, 2, 0, 1, 4}},
		{"a failure while a body is under way that ends well", "ffafwb", []int{1, 2, 0, 1, 1, 2}},
		{"a success for good while a body is under way", "ffagb", []int{1, 2, 0, 0, 1}},
		{"a body that breaks without failures before", "ab", []int{0, 1}},
		{"each breaks", "ababab", []int{0, 1, 0, 2, 0, 3}},
		{"what was suspended is so once", "ffabgb", []int{1, 2, 0, 3, 0, 1}},
		{"a later body does not bring back an older row", "ffaw" + "ab", []int{1, 2, 0, 0, 0, 1}},
		{"the end of a failure's row that is over", "ffafaw" + "b", []int{1, 2, 0, 1, 0, 0, 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var r Row
			for i, what := range row.events {
				require.Equal(t, row.want[i], happens(t, &r, what), "after %s", row.events[:i+1])
			}
		})
	}
}

func TestRow_Take(t *testing.T) {
	t.Parallel()
	var a, b Row
	a.Failed()
	a.Failed()
	b.Failed()
	b.Take(&a)
	assert.Equal(t, 2, b.Len())
	assert.Equal(t, 2, a.Len())
	assert.Equal(t, 3, b.Failed())
	assert.Equal(t, 2, a.Len(), "they are two rows")
	b.Take(&Row{})
	assert.Zero(t, b.Len())
}

// Whatever happens, a row is at least as long as the failures since the last that looked like a
// success, and at most as those since one remained so.
func TestRow_RandomEvents(t *testing.T) {
	t.Parallel()
	const seed = 17
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		var r Row
		events := ""
		underWay, since, most := 0, 0, 0
		for range 30 {
			what := []rune{failed, good, arrives, whole, broke}[random.IntN(5)]
			if (what == whole || what == broke) && underWay == 0 {
				continue
			}
			events += string(what)
			switch what {
			case failed:
				since, most = since+1, most+1
			case good:
				since, most = 0, 0
			case arrives:
				since = 0
				underWay++
			case whole:
				most = r.Len() // what is suspended is forgotten
				underWay--
			case broke:
				since, most = since+1, most+1
				underWay--
			}
			n := happens(t, &r, what)
			require.GreaterOrEqual(t, n, since, events)
			require.LessOrEqual(t, n, most, events)
		}
	}
}

// Failures are counted exactly, by however many at once.
func TestRow_Concurrent(t *testing.T) {
	t.Parallel()
	var r Row
	var wg sync.WaitGroup
	const each = 1000
	seen := make([][]int, 8)
	for g := range seen {
		wg.Go(func() {
			for range each {
				seen[g] = append(seen[g], r.Failed())
			}
		})
	}
	wg.Wait()
	assert.Equal(t, len(seen)*each, r.Len())
	all := map[int]bool{}
	for _, list := range seen {
		for _, n := range list {
			assert.False(t, all[n], "%d was said twice", n)
			all[n] = true
		}
	}
	for range 4 {
		wg.Go(func() {
			for i := range each {
				switch i % 4 {
				case 0:
					r.End(true)
				case 1:
					r.Whole()
				case 2:
					r.Broke()
				default:
					r.Len()
				}
			}
		})
	}
	wg.Wait()
	r.End(false)
	assert.Zero(t, r.Len())
	n, added := r.Broke()
	assert.Equal(t, []int{1, 1}, []int{n, added}, "nothing is left")
}

package call

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nest returns limits inside each other, the outermost first; 0 is no bound.
func nest(bounds ...int) []*Limit {
	var all []*Limit
	for i, n := range bounds {
		l := new(Limit)
		if i > 0 {
			l.inside(all[i-1])
		}
		if n > 0 {
			l.set(n)
		}
		all = append(all, l)
	}
	return all
}

func TestLimit_Arithmetic_R05(t *testing.T) {
	type step struct {
		limit  int // which one, from the outermost
		unsent bool
	}
	spend := func(l int) step { return step{limit: l} }
	unspend := func(l int) step { return step{limit: l, unsent: true} }
	for _, row := range []struct {
		name   string
		bounds []int
		steps  []step
		spent  []int32
		allows bool // says the innermost
	}{
		{"nothing yet", []int{3}, nil, []int32{0}, true},
		{"below the bound", []int{3}, []step{spend(0), spend(0)}, []int32{2}, true},
		{"the bound", []int{3}, []step{spend(0), spend(0), spend(0)}, []int32{3}, false},
		{"no bound", []int{0}, []step{spend(0), spend(0), spend(0)}, []int32{3}, true},
		{"a bound of one", []int{1}, []step{spend(0)}, []int32{1}, false},
		{"never sent", []int{1}, []step{spend(0), unspend(0)}, []int32{0}, true},
		{"never sent, then sent", []int{2}, []step{spend(0), unspend(0), spend(0), spend(0)}, []int32{2}, false},

		{"the first inside is the one under way", []int{3, 3}, []step{spend(0), spend(1)}, []int32{1, 1}, true},
		{"the second inside counts outside", []int{3, 3}, []step{spend(0), spend(1), spend(1)}, []int32{2, 2}, true},
		{"used up inside", []int{3, 3}, []step{spend(0), spend(1), spend(1), spend(1)}, []int32{3, 3}, false},
		{"the outer bound counts", []int{2, 9}, []step{spend(0), spend(1), spend(1)}, []int32{2, 2}, false},
		{"also if it is the larger one", []int{9, 2}, []step{spend(0), spend(1), spend(1)}, []int32{2, 2}, true},
		{"used up outside", []int{2, 2}, []step{spend(0), spend(0), spend(1)}, []int32{2, 1}, false},
		{"no bound outside", []int{0, 2}, []step{spend(0), spend(1), spend(1)}, []int32{1, 2}, false},
		{"none inside", []int{2, 0}, []step{spend(0), spend(1), spend(1)}, []int32{2, 2}, false},
		{"none at all", []int{0, 0}, []step{spend(0), spend(1), spend(1)}, []int32{1, 2}, true},
		{"never sent inside", []int{3, 3}, []step{spend(0), spend(1), spend(1), unspend(1)}, []int32{1, 1}, true},
		{"never sent at all", []int{3, 3}, []step{spend(0), spend(1), unspend(1), unspend(0)}, []int32{0, 0}, true},

		{"three deep", []int{3, 3, 3}, []step{spend(0), spend(1), spend(2), spend(2), spend(2)}, []int32{3, 3, 3}, false},
		{"three deep, the middle again", []int{3, 3, 3}, []step{spend(0), spend(1), spend(2), spend(2), spend(1)}, []int32{3, 3, 2}, false},
		{"three deep, never sent", []int{3, 3, 3}, []step{spend(0), spend(1), spend(2), spend(2), unspend(2)}, []int32{1, 1, 1}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			limits := nest(row.bounds...)
			for _, s := range row.steps {
				if s.unsent {
					limits[s.limit].Unspend()
				} else {
					limits[s.limit].Spend()
				}
			}
			var spent []int32
			for _, l := range limits {
				spent = append(spent, l.spent.Load())
			}
			assert.Equal(t, row.spent, spent)
			assert.Equal(t, row.allows, limits[len(limits)-1].Allows())
		})
	}
}

// However calls are nested, and whatever each of them would allow, the sends are at most as many
// as the outermost allows.
func TestLimit_LayersDoNotMultiply_R05(t *testing.T) {
	for _, bounds := range [][]int{{3}, {3, 3}, {3, 9}, {9, 3}, {3, 3, 3}, {2, 9, 9, 9}, {1, 5}, {20, 2, 2}} {
		sends := 0
		var call func(outer *Limit, rest []int)
		call = func(outer *Limit, rest []int) {
			if len(rest) == 0 {
				sends++
				return
			}
			l := new(Limit)
			if outer != nil {
				l.inside(outer)
			}
			l.set(rest[0])
			for n := 0; n == 0 || (n < rest[0] && l.Allows()); n++ { // each allows its own, too
				l.Spend()
				call(l, rest[1:])
			}
		}
		call(nil, bounds)
		assert.LessOrEqual(t, sends, bounds[0], "%v", bounds)
		assert.Positive(t, sends)
	}
}

func TestLimit_ConcurrentUse(t *testing.T) {
	const workers, each = 8, 1000
	limits := nest(workers*each+2, 5)
	limits[0].Spend()
	limits[1].Spend()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range each {
				limits[1].Spend()
				_ = limits[1].Allows()
				if i%2 == 0 {
					limits[1].Unspend()
				}
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, workers*each/2+1, limits[0].spent.Load())
	assert.EqualValues(t, workers*each/2+1, limits[1].spent.Load())
}

// A function that is repeated bounds the requests inside it, and is bounded by what is around it.
func TestLimit_Scope_R05(t *testing.T) {
	outer := NewScope(t.Context(), 2)
	outer.Spend()
	inner := NewScope(context.WithoutCancel(outer), 9)
	inner.Spend()
	assert.True(t, inner.Allows())
	inner.Spend()
	assert.False(t, inner.Allows())
	assert.False(t, outer.Allows())

	outer = NewScope(t.Context(), 2)
	outer.Spend()
	req, err := http.NewRequestWithContext(outer, http.MethodGet, "http://users/", nil)
	require.NoError(t, err)
	r := New(req, Config{}.Resolve())
	r.LimitAttempts(9)
	r.limit.Spend()
	assert.True(t, r.MayAttempt())
	r.limit.Spend()
	assert.False(t, r.MayAttempt())
	light := NewLight(req, Config{}.Resolve(), 9)
	assert.False(t, light.limit.Allows(), "what was spent outside counts")

	// What is around the function is not joined.
	wrapped := NewScope(r, 5)
	assert.Nil(t, From(wrapped))
	assert.Nil(t, FromAttempt(wrapped))
	assert.Nil(t, NewScope(light, 5).Value(lightKey{}))
}

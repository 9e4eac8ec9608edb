package call

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
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
	const reserve, release = 1, -1
	for _, row := range []struct {
		name   string
		bounds []int
		steps  []int // at the innermost
		left   int   // how many more it allows; -1 is any number
	}{
		{"nothing yet", []int{3}, nil, 2},
		{"the first one is free", []int{1}, nil, 0},
		{"one more", []int{3}, []int{reserve}, 1},
		{"the bound", []int{3}, []int{reserve, reserve}, 0},
		{"not made after all", []int{3}, []int{reserve, reserve, release}, 1},
		{"no bound", []int{0}, []int{reserve, reserve, reserve}, -1},
		{"inside, the first one is the one under way", []int{3, 3}, nil, 2},
		{"what is more inside counts outside", []int{3, 3}, []int{reserve}, 1},
		{"used up inside", []int{3, 3}, []int{reserve, reserve}, 0},
		{"the outer bound counts", []int{2, 9}, []int{reserve}, 0},
		{"also if it is the larger one", []int{9, 2}, []int{reserve, reserve, reserve}, 5},
		{"no bound outside", []int{0, 2}, []int{reserve}, 0},
		{"none inside", []int{2, 0}, []int{reserve}, 0},
		{"none at all", []int{0, 0}, []int{reserve, reserve}, -1},
		{"three deep", []int{3, 9, 9}, []int{reserve, reserve}, 0},
		{"three deep, not made after all", []int{3, 9, 9}, []int{reserve, release}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			limits := nest(row.bounds...)
			inner := limits[len(limits)-1]
			for _, s := range row.steps {
				if s == release {
					inner.Release()
				} else {
					require.True(t, inner.Reserve())
				}
			}
			left := 0
			for left < 100 && inner.Reserve() {
				left++
			}
			if left == 100 {
				left = -1
			}
			assert.Equal(t, row.left, left)
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
			for n := 0; n == 0 || (n < rest[0] && l.Reserve()); n++ { // each allows its own, too
				call(l, rest[1:])
			}
		}
		call(nil, bounds)
		assert.LessOrEqual(t, sends, bounds[0], "%v", bounds)
		assert.Positive(t, sends)
	}
}

// Who asks at the same time gets no more than there is.
func TestLimit_ConcurrentUse(t *testing.T) {
	const workers, each, most = 8, 1000, 500
	limits := nest(most+1, 5)
	var wg sync.WaitGroup
	var got atomic.Int32
	for range workers {
		wg.Go(func() {
			for range each {
				if limits[1].Reserve() {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, most, got.Load())
}

// A function that is repeated bounds the requests inside it, and is bounded by what is around it.
func TestLimit_Scope_R05(t *testing.T) {
	outer := NewScope(t.Context(), 2)
	inner := NewScope(context.WithoutCancel(outer), 9)
	req, err := http.NewRequestWithContext(inner, http.MethodGet, "http://users/", http.NoBody)
	require.NoError(t, err)
	record := New(req, Config{}.Resolve())
	limit := record.LimitAttempts(9)
	assert.True(t, limit.Reserve())
	assert.False(t, limit.Reserve(), "the outermost allows two")
	assert.False(t, inner.Reserve())
	assert.False(t, outer.Reserve())

	// What is around the function is not joined.
	wrapped := NewScope(record, 5)
	assert.Nil(t, From(wrapped))
	assert.Nil(t, FromAttempt(wrapped))
	assert.Nil(t, NewScope(NewLight(req, Config{}.Resolve(), 9), 5).Value(lightKey{}))
}

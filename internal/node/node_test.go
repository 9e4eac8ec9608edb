package node

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

type base struct {
	http.RoundTripper
	closed atomic.Int32
}

func (b *base) CloseIdleConnections() {}
func (b *base) DropIdle()             {}
func (b *base) Close()                { b.closed.Add(1) }

func TestNode_LastOneOutClosesTheConnections_B12(t *testing.T) {
	b := &base{}
	n := New(discovery.Endpoint{Address: "a:80"}, 7, b, nil)
	require.Equal(t, Granted, n.Acquire())
	require.Equal(t, Granted, n.Acquire())
	n.Remove()
	assert.Equal(t, Gone, n.Acquire(), "a removed node takes nothing new")
	assert.Equal(t, int64(2), n.InFlight())
	n.Release()
	assert.Zero(t, b.closed.Load())
	n.Release()
	assert.Equal(t, int32(1), b.closed.Load())
	assert.Equal(t, Removed, n.Reasons())
	assert.Equal(t, uint64(7), n.Serial())
}

// Whoever comes last, the remover or the last request, the connections get
// closed, and the count is zero.
func TestNode_RemovalRacesWithRequests_B01(t *testing.T) {
	for range 500 {
		b := &base{}
		n := New(discovery.Endpoint{Address: "a:80"}, 1, b, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n.Acquire() == Granted {
					n.Release()
				}
			})
		}
		n.Remove()
		wg.Wait()
		assert.Zero(t, n.InFlight())
		assert.Positive(t, b.closed.Load())
	}
}

func TestNode_Reasons(t *testing.T) {
	n := New(discovery.Endpoint{Address: "a:80"}, 1, &base{}, nil)
	assert.Equal(t, "available", n.Reasons().String())
	n.Update(discovery.Endpoint{Address: "a:80", Draining: true, Zone: "z"})
	assert.Equal(t, Draining, n.Reasons())
	assert.Equal(t, "z", n.Endpoint().Zone)
	n.Remove()
	assert.Equal(t, "removed,draining", n.Reasons().String())
	n.Update(discovery.Endpoint{Address: "a:80"})
	assert.Equal(t, Removed, n.Reasons(), "what was removed does not come back")
}

func TestPick_Counts(t *testing.T) {
	n := New(discovery.Endpoint{Address: "a:80"}, 1, &base{}, nil)
	for _, c := range []outcome.Class{outcome.Success, outcome.ClientError, outcome.Failure, outcome.NeverSent, outcome.Canceled} {
		require.Equal(t, Granted, n.Acquire())
		p := Pick{Node: n}
		p.Answered(outcome.Answer{Class: c})
		p.Done()
	}
	assert.Equal(t, uint64(5), n.Picks())
	assert.Equal(t, uint64(2), n.Failures())
	p := Pick{Node: n}
	p.Broke(outcome.Answer{Class: outcome.Success})
	assert.Equal(t, uint64(3), n.Failures())
	assert.Zero(t, n.InFlight())
}

func TestNode_FillsItsCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		assert.EqualValues(t, 128, unsafe.Sizeof(Node{}))
	}
}

// Given a node with so many picks that their number begins anew, then nothing else
// changes: a node was once taken for removed when it had had enough of them.
func TestNode_PicksWrap(t *testing.T) {
	b := &base{}
	n := New(discovery.Endpoint{Address: "a:80"}, 1, b, nil)
	n.load.Store((PicksWrap - 2) * onePick)
	for i := range 4 {
		require.Equal(t, Granted, n.Acquire())
		assert.Equal(t, (uint64(PicksWrap)-2+uint64(i)+1)%PicksWrap, n.Picks())
		assert.Equal(t, int64(i+1), n.InFlight())
		assert.Equal(t, "available", n.Reasons().String())
	}
	for range 4 {
		n.Release()
	}
	assert.Zero(t, n.InFlight())
	assert.Equal(t, "available", n.Reasons().String())
	assert.Zero(t, b.closed.Load())

	n.load.Store((PicksWrap - 1) * onePick)
	n.SetLimit(1)
	require.Equal(t, Granted, n.Acquire())
	assert.Equal(t, Full, n.Acquire(), "what is refused is given back")
	assert.Zero(t, n.Picks())
	assert.Equal(t, int64(1), n.InFlight())

	n.load.Add((PicksWrap - 1) * onePick)
	n.Remove()
	assert.Equal(t, Gone, n.Acquire(), "over the end and back")
	assert.Equal(t, Removed, n.Reasons())
	assert.Zero(t, b.closed.Load())
	n.Release()
	assert.Equal(t, int32(1), b.closed.Load())
	assert.Zero(t, n.InFlight())
}

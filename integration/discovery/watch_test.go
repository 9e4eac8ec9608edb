package discovery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
)

// watch is a watch and what it says.
type watch struct {
	stop func() // ends it and waits for that

	mu      sync.Mutex
	updates int
	set     []discovery.Endpoint
	skipped error
	fails   int
	failed  error
}

func start(t *testing.T, r discovery.Resolver) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{}
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, discovery.Sink{
			Update: w.update, Fail: w.fail, Clock: clock.System, Rand: rand.Float64,
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
	t.Cleanup(w.stop)
	return w
}

func (w *watch) update(set []discovery.Endpoint, skipped error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.updates++
	w.set, w.skipped = set, skipped
}

func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails++
	w.failed = err
}

func (w *watch) counts() (updates, fails int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.updates, w.fails
}

func (w *watch) latest() (set []discovery.Endpoint, skipped, failed error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set, w.skipped, w.failed
}

// eventually waits for the set to be this one: "address/priority/weight" each,
// where a priority of 0 and a weight of 1 are left out.
func (w *watch) eventually(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	ok := assert.Eventually(t, func() bool {
		set, _, _ := w.latest()
		got = describe(set)
		return slices.Equal(want, got) && w.hasAnswered()
	}, soon, poll)
	if !ok {
		_, _, err := w.latest()
		require.Failf(t, "the set is another one", "got %v, want %v, last error %v", got, want, err)
	}
}

func (w *watch) hasAnswered() bool {
	updates, _ := w.counts()
	return updates > 0
}

// more waits until n more updates and m more failures were told.
func (w *watch) more(t *testing.T, n, m int) {
	t.Helper()
	updates, fails := w.counts()
	require.Eventually(t, func() bool {
		u, f := w.counts()
		return u >= updates+n && f >= fails+m
	}, soon, poll)
}

func describe(set []discovery.Endpoint) []string {
	var list []string
	for _, e := range set {
		parts := []string{e.Address}
		if e.Priority != 0 || e.EffectiveWeight() != 1 {
			parts = append(parts, fmt.Sprint(e.Priority), fmt.Sprintf("%.3g", e.EffectiveWeight()))
		}
		list = append(list, strings.Join(parts, "/"))
	}
	slices.Sort(list)
	return list
}

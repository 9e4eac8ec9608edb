package balancer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// Ten thousand random operations, looked at whenever nobody moves: no endpoint gets
// more than the cap; as long as somebody waits, no endpoint has room; those who
// get something are those who have waited longest; nothing is left in the end.
func TestQueue_RandomOperations_B01(t *testing.T) {
	t.Parallel()
	const seed, operations = 11, 10000
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 0))
		rules := func(limit int) Rules {
			return Rules{MaxInFlight: limit, Panic: Panic{Threshold: -1}, Queue: Queue{Size: 5, Timeout: 3 * time.Second}}
		}
		limit := 2
		p := testPool(t, Config{Rand: rand.NewPCG(seed, 1), Rules: rules(limit), DrainTimeout: -1}, in(0, 3)...)
		l := newLine(t, p)
		var held []Pick
		var line []string // who waits
		granted, refused := 0, 0
		load := map[discovery.Key]int64{} // before the operation
		settle := func(i int, op string) {
			for _, r := range l.served() {
				if r.err != nil {
					refused++
					line = slices.DeleteFunc(line, func(name string) bool { return name == r.name })
					continue
				}
				granted++
				held = append(held, r.Pick)
				at := slices.Index(line, r.name)
				require.GreaterOrEqual(t, at, 0)
				line[at] = ""
			}
			for len(line) > 0 && line[0] == "" { // several at once come in any order
				line = line[1:]
			}
			require.NotContains(t, line, "", "operation %d, %s: somebody was served out of turn", i, op)
			now := map[discovery.Key]int64{}
			for _, e := range p.Status().Endpoints {
				if limit > 0 {
					require.LessOrEqual(t, e.InFlight, max(int64(limit), load[e.Endpoint.Key()]), "operation %d, %s", i, op)
				}
				if len(line) > 0 && e.Unavailable == "" {
					require.Positive(t, limit, "operation %d, %s: somebody waits for nothing", i, op)
					require.GreaterOrEqual(t, e.InFlight, int64(limit), "operation %d, %s: there is room, and somebody waits", i, op)
				}
				now[e.Endpoint.Key()] = e.InFlight
			}
			load = now
		}
		for i := range operations {
			op := "join"
			switch k := random.IntN(20); {
			case k < 9:
				ctx := t.Context()
				if random.IntN(4) == 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Duration(random.IntN(2000))*time.Millisecond)
					t.Cleanup(cancel)
				}
				info := Info{Now: time.Now()}
				if len(held) > 0 && random.IntN(4) == 0 {
					info.Tried = []uint64{held[0].Serial()}
				}
				line = append(line, fmt.Sprint(i))
				l.join(ctx, fmt.Sprint(i), info)
			case k < 16 && len(held) > 0:
				op = "end"
				last, at := len(held)-1, random.IntN(len(held))
				held[at], held[last] = held[last], held[at]
				finish(p, held[last])
				held = held[:last]
			case k == 16:
				op = "sleep"
				time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
			case k == 17:
				op = "endpoints"
				p.update(in(0, 1+random.IntN(5))[random.IntN(2):])
			case k == 18:
				op = "health"
				p.SetHealthy(in(0, 5)[random.IntN(5)].Key(), random.IntN(3) > 0)
			default:
				op = "rules"
				limit = random.IntN(5) // 0 is no cap
				require.NoError(t, p.Use(nil, rules(limit)))
			}
			settle(i, op)
		}
		t.Logf("%d granted, %d refused", granted, refused)
		assert.Greater(t, granted, operations/5)
		assert.Greater(t, refused, operations/50)
		for i := 0; len(held) > 0 || len(line) > 0; i++ {
			for _, pick := range held {
				finish(p, pick)
			}
			held = nil
			settle(i, "the last ends")
			require.Less(t, i, 10)
		}
		assert.Zero(t, inFlight(p))
		assert.Zero(t, p.queue.inFlight.Load())
		assert.Zero(t, p.queue.waiting.Load())
		assert.Empty(t, p.draining)
	})
}

// The limit of a single endpoint holds, whoever comes at the same time, and those
// whom it refuses leave no trace.
func TestQueue_LimitOfANode_B01(t *testing.T) {
	const limit, workers = 3, 8
	n := node.New(discovery.Endpoint{Address: "a:80"}, 1, &conns{}, nil)
	n.SetLimit(limit)
	for range limit {
		require.Equal(t, node.Granted, n.Acquire())
	}
	assert.Equal(t, node.Full, n.Acquire())
	assert.True(t, n.Full())
	n.Release()
	assert.False(t, n.Full())
	require.Equal(t, node.Granted, n.Acquire())
	assert.EqualValues(t, limit, n.InFlight())
	assert.EqualValues(t, limit+1, n.Picks(), "refusals are no picks")
	n.SetLimit(limit - 1)
	n.Release()
	assert.True(t, n.Full(), "a lower limit takes nothing away from anybody")
	n.SetLimit(0)
	require.Equal(t, node.Granted, n.Acquire())
	for range limit {
		n.Release()
	}
	assert.Zero(t, n.InFlight())

	n.SetLimit(limit)
	var wg sync.WaitGroup
	var now, most, granted atomic.Int64
	for range workers {
		wg.Go(func() {
			for range 2000 {
				if n.Acquire() != node.Granted {
					continue
				}
				granted.Add(1)
				k := now.Add(1)
				for m := most.Load(); k > m; m = most.Load() {
					most.CompareAndSwap(m, k)
				}
				runtime.Gosched()
				now.Add(-1)
				n.Release()
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(limit))
	assert.Zero(t, n.InFlight())
	assert.EqualValues(t, limit+2+granted.Load(), n.Picks())
}

// Many goroutines, few places, and endpoints that come and go: the cap holds at
// every moment, everybody is served, and no place is lost.
func TestQueue_CapHoldsConcurrently_B01(t *testing.T) {
	const limit, workers, calls = 2, 40, 120
	for _, a := range allAlgorithms {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := testPool(t, Config{
					Algorithm: a, DrainTimeout: -1,
					Rules: Rules{MaxInFlight: limit, Queue: Queue{Size: workers, Timeout: time.Hour}},
				}, in(0, 3)...)
				var loads sync.Map // serial -> *atomic.Int64
				most := atomic.Int64{}
				var wg sync.WaitGroup
				for w := range workers {
					wg.Go(func() {
						for k := range calls {
							pick, err := p.PickWait(t.Context(), Info{Now: time.Now()})
							if !assert.NoError(t, err) {
								return
							}
							counter, _ := loads.LoadOrStore(pick.Serial(), new(atomic.Int64))
							n := counter.(*atomic.Int64).Add(1)
							for m := most.Load(); n > m; m = most.Load() {
								most.CompareAndSwap(m, n)
							}
							if (w+k)%7 == 0 {
								time.Sleep(time.Millisecond)
							}
							counter.(*atomic.Int64).Add(-1)
							finish(p, pick)
						}
					})
				}
				for i := range 100 {
					time.Sleep(time.Millisecond)
					p.update(in(0, 2+i%3))
				}
				wg.Wait()
				assert.Equal(t, int64(limit), most.Load(), "the cap is reached and not exceeded")
				assert.Zero(t, inFlight(p))
				assert.Zero(t, p.queue.inFlight.Load())
				assert.Zero(t, p.queue.waiting.Load())
				assert.Empty(t, p.draining)
			})
		})
	}
}

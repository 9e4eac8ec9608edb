package balancer

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// The workload of Linkerd's "Beyond Round Robin": 11 servers of 167 ms, 1,000 requests a second
// for a minute, and for half of it one server takes 2 s. Requests are hedged after 185 ms, and
// the attempts that lose are cancelled: if nothing were learnt from them, the slow server would
// get its share for ever, and 3.3 % of all requests would be sent twice; if it were only that it
// takes as long as they did, 1.2 %.
func TestPeakEWMA_LearnsFromHedgesThatLost_R20(t *testing.T) {
	for seed := range uint64(3) {
		s := newSlowHost(t, seed)
		s.run(60 * time.Second)
		t.Logf("seed %d: %d hedges, %d attempts at the slow server, %d answers after more than a second", seed, s.hedges, s.toSlow, s.late)
		assert.Zero(t, s.late, "answers that took more than a second")
		assert.Less(t, s.hedges, 120, "of 60,000 requests")
		assert.Less(t, s.toSlow, 120, "attempts at the slow server")
		for _, e := range s.pool.Status().Endpoints {
			assert.Zero(t, e.InFlight)
			assert.Zero(t, e.Failures, "to lose is no failure")
		}
	}
}

type slowHost struct {
	pool                 *Pool
	clock                *clock.Fake
	rand                 *rand.Rand
	begin                time.Time
	events               eventHeap
	serial               int
	late, hedges, toSlow int
}

func newSlowHost(t *testing.T, seed uint64) *slowHost {
	t.Helper()
	s := &slowHost{begin: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), rand: rand.New(rand.NewPCG(seed, 2))}
	s.clock = clock.NewFake(s.begin)
	var servers discovery.Static
	for i := range 11 {
		servers = append(servers, fmt.Sprintf("10.0.0.%d:80", i))
	}
	var err error
	s.pool, err = NewPool(Config{Resolver: servers, Clock: s.clock, Rand: rand.NewPCG(seed, 1)})
	require.NoError(t, err)
	t.Cleanup(s.pool.Close)
	require.NoError(t, s.pool.Ready(t.Context()))
	return s
}

// hedged is one request: its attempts, of which the first answer counts.
type hedged struct {
	sent time.Time
	legs []*hedgedLeg
	over bool
}

type hedgedLeg struct {
	pick Pick
	sent time.Time
}

func (s *slowHost) run(lasts time.Duration) {
	for at := time.Duration(0); at < lasts; at += time.Millisecond {
		s.at(at, func() {
			r := &hedged{sent: s.clock.Now()}
			s.send(r, Info{Now: r.sent})
			s.at(r.sent.Sub(s.begin)+185*time.Millisecond, func() {
				if !r.over {
					s.hedges++
					s.send(r, Info{Now: s.clock.Now(), Tried: []uint64{r.legs[0].pick.Serial()}})
				}
			})
		})
	}
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		s.clock.Advance(max(e.at-s.clock.Now().Sub(s.begin), 0))
		e.happens()
	}
}

func (s *slowHost) send(r *hedged, info Info) {
	pick, err := s.pool.Pick(info)
	if err != nil {
		panic(err)
	}
	now := info.Now.Sub(s.begin)
	takes := time.Duration(max(1, s.rand.NormFloat64()*5+167) * float64(time.Millisecond))
	if pick.Endpoint().Address == "10.0.0.0:80" && now >= 15*time.Second && now < 45*time.Second {
		takes = 2 * time.Second
		s.toSlow++
	}
	leg := &hedgedLeg{pick, info.Now}
	r.legs = append(r.legs, leg)
	s.at(now+takes, func() { s.answer(r, leg) })
}

// answer ends a request, unless another attempt was faster.
func (s *slowHost) answer(r *hedged, winner *hedgedLeg) {
	if r.over {
		return
	}
	r.over = true
	now := s.clock.Now()
	if now.Sub(r.sent) > time.Second {
		s.late++
	}
	for _, leg := range r.legs {
		a := outcome.Answer{Now: now, Took: now.Sub(leg.sent), Class: outcome.Superseded, Connected: true}
		if leg == winner {
			a.Class, a.Status = outcome.Success, 200
		}
		leg.pick.Answered(a)
		leg.pick.Done()
	}
}

func (s *slowHost) at(at time.Duration, happens func()) {
	s.serial++
	heap.Push(&s.events, event{at, s.serial, happens})
}

type event struct {
	at      time.Duration
	serial  int
	happens func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }

func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || (h[i].at == h[j].at && h[i].serial < h[j].serial)
}

func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) }

func (h *eventHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

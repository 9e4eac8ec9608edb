package balancer

import (
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// contended is a service whose servers have neighbours, after the evaluation of
// Prequal (NSDI 2024): they share their cores among their requests, a tenth of them has
// one core, the others have two to four, and which is which changes with every
// shuffle. Each of the clients has a balancer of its own, and knows nothing but the
// answers that it gets. Times are in seconds.
type contended struct {
	servers, clients      int
	subset                int     // how many servers each client uses, 0 for all
	load                  float64 // 0.93 is 1.1 cores per server
	length, skip, shuffle float64
}

// contention is a run of it.
type contention struct {
	contended
	random    *rand.Rand
	pickers   []Picker // by client
	endpoints [][]Candidate
	uses      [][]int // the servers that they are
	busy      []*contendedServer
	latencies []float64
}

// run returns the latencies, sorted.
func (c contended) run(t testing.TB, a Algorithm, seed uint64) []float64 {
	t.Helper()
	r := &contention{contended: c, random: rand.New(rand.NewPCG(seed, 1))}
	for range c.servers {
		r.busy = append(r.busy, &contendedServer{took: map[int][]float64{}})
	}
	for range c.clients {
		uses := make([]int, c.servers)
		for i := range uses {
			uses[i] = i
		}
		if c.subset > 0 {
			uses = r.random.Perm(c.servers)[:c.subset]
		}
		p, endpoints := picker(t, a, r.random.Uint64, slices.Repeat([]float64{1}, len(uses))...)
		r.pickers, r.endpoints, r.uses = append(r.pickers, p), append(r.endpoints, endpoints), append(r.uses, uses)
	}
	arrival, shuffle := 0.0, 0.0
	for now := 0.0; now < c.length; {
		end, server := r.next()
		switch now = min(end, arrival, shuffle); now {
		case end:
			r.leave(now, server)
		case shuffle:
			r.shuffled(now)
			shuffle += c.shuffle
		default:
			r.arrive(now)
			arrival += r.random.ExpFloat64() / (c.load * float64(c.servers) / 1.0833 / 0.075)
		}
	}
	for _, s := range r.busy {
		for _, j := range s.jobs {
			if age := c.length - j.arrived; age > 1 {
				r.took(j, age) // at least; the others say nothing yet
			}
		}
	}
	slices.Sort(r.latencies)
	return r.latencies
}

func percentile(a []float64, p float64) float64 { return a[min(len(a)-1, int(p*float64(len(a))))] }

// next returns when the next request ends, and where.
func (r *contention) next() (at float64, server int) {
	at = math.Inf(1)
	for i, s := range r.busy {
		if end, _ := s.next(); end < at {
			at, server = end, i
		}
	}
	return at, server
}

func (r *contention) arrive(now float64) {
	demand := 0.0
	for demand <= 0 {
		demand = 0.075 + 0.075*r.random.NormFloat64()
	}
	client, at := r.random.IntN(r.clients), seconds(now)
	i := r.pickers[client].Pick(Info{Now: at})
	c, s := r.endpoints[client][i], r.busy[r.uses[client][i]]
	s.work(now)
	j := &contendedJob{rest: demand, arrived: now, found: len(s.jobs), endpoint: c}
	s.jobs = append(s.jobs, j)
	hold(c, 1)
	if c.observer != nil {
		j.token = c.observer.Picked(at)
	}
}

func (r *contention) leave(now float64, server int) {
	j := r.busy[server].leave(now)
	r.took(j, now-j.arrived)
	j.endpoint.node.Release()
	if j.endpoint.observer != nil {
		j.endpoint.observer.Answered(j.token, outcome.Answer{
			Now: seconds(now), Took: seconds(now).Sub(seconds(j.arrived)),
			Class: outcome.Success, Header: r.busy[server].report(),
		})
	}
}

func (r *contention) shuffled(now float64) {
	for k, i := range r.random.Perm(r.servers) {
		r.busy[i].work(now)
		r.busy[i].cores = 1
		if k >= r.servers/10 {
			r.busy[i].cores = 2 + 2*r.random.Float64()
		}
	}
}

func (r *contention) took(j *contendedJob, latency float64) {
	if j.arrived >= r.skip {
		r.latencies = append(r.latencies, latency)
	}
}

func seconds(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// contendedServer shares its cores among its jobs, of which each uses at most one,
// and reports its load.
type contendedServer struct {
	cores float64
	jobs  []*contendedJob
	until float64           // until when the work is done
	took  map[int][]float64 // the last latencies, by requests in flight on arrival
}

type contendedJob struct {
	rest, arrived float64
	found         int // requests in flight
	endpoint      Candidate
	token         uint32
}

func (s *contendedServer) speed() float64 { return min(1, s.cores/float64(len(s.jobs))) }

// work does what there is to do until now.
func (s *contendedServer) work(now float64) {
	for _, j := range s.jobs {
		j.rest -= (now - s.until) * s.speed()
	}
	s.until = now
}

// next returns when the next job ends, and its index.
func (s *contendedServer) next() (at float64, first int) {
	at = math.Inf(1)
	for i, j := range s.jobs {
		if end := s.until + j.rest/s.speed(); end < at {
			at, first = end, i
		}
	}
	return at, first
}

func (s *contendedServer) leave(now float64) *contendedJob {
	_, i := s.next()
	s.work(now)
	j := s.jobs[i]
	s.jobs = slices.Delete(s.jobs, i, i+1)
	latencies := append(s.took[j.found], now-j.arrived)
	s.took[j.found] = latencies[max(0, len(latencies)-5):]
	return j
}

// report returns the header of a response: the requests in flight, and the median
// latency of those that found about as many.
func (s *contendedServer) report() http.Header {
	r := orca.Report{Fields: orca.InFlight | orca.Latency, InFlight: float64(len(s.jobs))}
	for away := range 60 {
		latencies := s.took[len(s.jobs)-away]
		if len(latencies) == 0 {
			latencies = s.took[len(s.jobs)+away]
		}
		if n := len(latencies); n > 0 {
			r.Latency = time.Duration(slices.Sorted(slices.Values(latencies))[n/2] * float64(time.Second))
			break
		}
	}
	return http.Header{orca.Header: {r.String()}}
}

// Each of many clients knows too little to find the servers that are slow; reports
// tell it.
func TestHotCold_ContendedServers(t *testing.T) {
	w := contended{servers: 20, clients: 20, load: 1.1, length: 14, skip: 4, shuffle: 5}
	const seeds = 4 // of which a single one is off by 10, 30 and 15 %
	p99 := func(a Algorithm) (mean float64) {
		for seed := range uint64(seeds) {
			mean += percentile(w.run(t, a, 1+seed), 0.99) / seeds
		}
		return mean
	}
	hotCold, peakEWMA, random := p99(HotCold{}), p99(PeakEWMA{}), p99(Random{})
	t.Logf("seeds 1 to 4: p99 is %.3fs, with PeakEWMA %.3fs, with Random %.3fs", hotCold, peakEWMA, random)
	assert.Less(t, hotCold, 0.420) // 0.353
	assert.Less(t, 1.1*hotCold, peakEWMA)
	assert.Less(t, 4*hotCold, random)
}

func TestHotCold_SameSeedSamePicks(t *testing.T) {
	w := contended{servers: 10, clients: 3, load: 1, length: 5, shuffle: 2}
	first := w.run(t, HotCold{}, 7)
	assert.Equal(t, first, w.run(t, HotCold{}, 7), "seed 7")
	assert.NotEqual(t, first, w.run(t, HotCold{}, 8))
}

// With ten clients, each knows enough: latencies find what in-flight counts do not.
func TestPeakEWMA_ContendedServers(t *testing.T) {
	w := contended{servers: 100, clients: 10, load: 0.93, length: 20, skip: 6, shuffle: 10}
	p99 := func(a Algorithm) (mean float64) {
		for _, seed := range []uint64{11, 12} {
			mean += percentile(w.run(t, a, seed), 0.99) / 2
		}
		return mean
	}
	peakEWMA, leastRequest := p99(PeakEWMA{}), p99(LeastRequest{})
	t.Logf("seeds 11 and 12: p99 is %.3fs, with LeastRequest %.3fs", peakEWMA, leastRequest)
	assert.Less(t, peakEWMA, 0.36) // 0.318
	assert.Less(t, 1.5*peakEWMA, leastRequest)
}

// With as many clients as servers, each has too few requests for each server to learn
// from, unless it uses a part of them: what Rules.Subset does by itself.
func TestSubset_SparseClientsLearnMore(t *testing.T) {
	w := contended{servers: 50, clients: 50, load: 0.93, length: 16, skip: 6, shuffle: 10}
	p99 := func(subset int) (mean float64) {
		w.subset = subset
		for _, seed := range []uint64{11, 12} {
			mean += percentile(w.run(t, PeakEWMA{}, seed), 0.99) / 2
		}
		return mean
	}
	part, all := p99(minSubset), p99(0)
	t.Logf("seeds 11 and 12: p99 is %.3fs, with all %.3fs", part, all)
	assert.Less(t, 1.5*part, all)
}

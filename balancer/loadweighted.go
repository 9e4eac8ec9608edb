package balancer

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// LoadWeighted picks the endpoints in turn, as often as they say that they can
// bear: it is [RoundRobin] with weights that the endpoints report in their
// responses (package orca). Use it where machines differ in size, or share their
// work with something that the clients do not see, and requests cost about the
// same. It evens out how busy the endpoints are, which takes it seconds. It does
// not see that one is slow for another reason, or what it does right now; where
// that matters, take [HotCold] or [PeakEWMA].
//
// The weight of an endpoint is that of gRFC A58 and of Envoy's client-side
// weighted round robin,
//
//	requests per second / (utilisation + errors per second / requests per second · ErrorPenalty)
//
// times the weight that discovery gives it. The utilisation is what the
// application reports as its own, else the highest of Metrics, else that of the
// processor. A report without a utilisation or without requests changes nothing.
// An endpoint of which nothing is known counts as the mean of the others, and
// with fewer than two known ones only the weights of discovery count. To this,
// evenkeel adds:
//
//   - a weight that is in use at most doubles or halves in an UpdateInterval, so
//     that one odd report does not move the traffic;
//   - a weight counts as at most ten times the median one, and at least a tenth
//     of it, so that a report that is wrong does not bring an endpoint everything;
//   - reports in responses that failed do not count.
//
// A new weight takes effect with the next update, which costs about 0.1 µs for
// each endpoint. What fails or hangs is not avoided: that is left to health checks
// and outlier detection. And an endpoint that gets next to nothing reports next to
// nothing: if its processor is busy even when idle, its weight stays low until
// that expires.
type LoadWeighted struct {
	// Metrics are the metrics whose maximum stands for the utilisation of an
	// endpoint that reports none of its own, such as "named_metrics.queue".
	// Empty means the processor's. What they measure should be 1 when full.
	Metrics []string

	// ErrorPenalty is how much of its utilisation an endpoint whose requests
	// all fail is taken to have besides what it reports. Zero means 1, negative
	// that errors do not count.
	ErrorPenalty float64

	// Blackout is how long an endpoint must have been reporting before its
	// weight is used, so that one which has just started is not judged by its
	// first requests. It applies again after Expiry. Zero means 10s, negative
	// none. At most a day.
	Blackout time.Duration

	// Expiry is how long a weight is used without a new report. Zero means 3
	// minutes. At most a day.
	Expiry time.Duration

	// UpdateInterval is how often the reports are turned into a new schedule.
	// Zero means 1s. At least 100ms.
	UpdateInterval time.Duration
}

const (
	defaultErrorPenalty   = 1
	defaultBlackout       = 10 * time.Second
	defaultExpiry         = 3 * time.Minute
	defaultUpdateInterval = time.Second
	leastUpdateInterval   = 100 * time.Millisecond
	// longestAge keeps what is compared in ticks far from where they wrap.
	longestAge = 24 * time.Hour
	// mostWeight is Envoy's bound for a reported weight, leastWeight ours:
	// within them sums of weights are finite and quotients are not zero.
	mostWeight  = math.MaxUint32
	leastWeight = 1.0 / math.MaxUint32
)

// NewBuilder implements [Algorithm].
func (a LoadWeighted) NewBuilder(env Env) (Builder, error) {
	err := a.validate()
	a = a.withDefaults()
	return &loadShared{
		ticks: ticks{env.Now.Add(-longestAge)}, start: env.Now, rand: env.Rand,
		reports:  reports{parser: orca.Parser{Utilization: slices.Clone(a.Metrics)}},
		interval: a.UpdateInterval,
		penalty:  a.ErrorPenalty,
		blackout: uint32(a.Blackout / tick),
		expiry:   uint32(a.Expiry / tick),
	}, err
}

func (a LoadWeighted) validate() error {
	var errs field.Errors
	for i, name := range a.Metrics {
		known := orca.Parser{Utilization: []string{name}}.Validate() == nil
		errs.Check(known, fmt.Sprintf("Metrics[%d]", i), name, `must be the name of a metric, such as "named_metrics.queue"`)
	}
	finite := !math.IsNaN(a.ErrorPenalty) && !math.IsInf(a.ErrorPenalty, 0)
	errs.Check(finite, "ErrorPenalty", a.ErrorPenalty, "must be a finite number")
	errs.Check(a.Blackout <= longestAge, "Blackout", a.Blackout, "must be at most a day")
	errs.Check(a.Expiry >= 0 && a.Expiry <= longestAge, "Expiry", a.Expiry, "must not be negative, and at most a day")
	errs.Check(a.UpdateInterval == 0 || a.UpdateInterval >= leastUpdateInterval, "UpdateInterval", a.UpdateInterval, "must be at least 100ms")
	return errs.Err()
}

// withDefaults returns the settings in force. Negative ones are off, which is 0.
func (a LoadWeighted) withDefaults() LoadWeighted {
	if a.ErrorPenalty == 0 {
		a.ErrorPenalty = defaultErrorPenalty
	}
	if a.Blackout == 0 {
		a.Blackout = defaultBlackout
	}
	if a.Expiry == 0 {
		a.Expiry = defaultExpiry
	}
	if a.UpdateInterval == 0 {
		a.UpdateInterval = defaultUpdateInterval
	}
	a.ErrorPenalty, a.Blackout = max(a.ErrorPenalty, 0), max(a.Blackout, 0)
	return a
}

// reports reads the load reports that responses carry, and counts those that
// cannot be read.
type reports struct {
	parser   orca.Parser
	rejected atomic.Uint64
}

// RejectedReports returns how many responses had a load report that could not be
// read and was ignored.
func (r *reports) RejectedReports() uint64 { return r.rejected.Load() }

// read returns the report in the header of a response, if there is one.
func (r *reports) read(h http.Header) (orca.Report, bool) {
	report, err := r.parser.ParseHeader(h)
	if err != nil {
		r.rejected.Add(1)
		return orca.Report{}, false
	}
	return report, report.Fields != 0
}

// loadShared is what the endpoints of one pool have in common, and its builder.
type loadShared struct {
	ticks // they begin a day before start, so that what is taken over has a place
	reports
	start    time.Time
	rand     func() uint64
	interval time.Duration
	penalty  float64
	blackout uint32 // ticks
	expiry   uint32 // ticks
}

// RefreshInterval implements [Refresher].
func (s *loadShared) RefreshInterval() time.Duration { return s.interval }

func (s *loadShared) Observer(_ discovery.Endpoint, previous Observer) Observer {
	if old, ok := previous.(*loadState); ok {
		return old.under(s)
	}
	return &loadState{shared: s}
}

// Build makes a schedule of what the endpoints have reported until now. It goes
// on where the one before was.
func (s *loadShared) Build(g Group) Picker {
	candidates := slices.Clone(g.Candidates)
	known, total := 0, 0.0
	for i := range candidates {
		if w := candidates[i].observer.(*loadState).advance(g.Now); w != 0 {
			known++
			total += w
		}
	}
	if known > 0 { // with one, the mean is its own weight, which changes nothing
		least, most := bounds(candidates, known)
		for i := range candidates {
			w := candidates[i].observer.(*loadState).used
			if w == 0 {
				w = total / float64(known)
			}
			candidates[i].weight *= min(max(w, least), most)
		}
	}
	return roundRobinBuilder{s.rand}.Build(Group{Candidates: candidates, Previous: g.Previous})
}

// trusted is by how much a reported weight may differ from the median one: a report
// that is wrong, or a lie, must not bring an endpoint all traffic.
const trusted = 10

// bounds returns the range of the weights that are believed.
func bounds(candidates []Candidate, known int) (least, most float64) {
	used := make([]float64, 0, known)
	for i := range candidates {
		if w := candidates[i].observer.(*loadState).used; w != 0 {
			used = append(used, w)
		}
	}
	slices.Sort(used)
	median := used[(known-1)/2]
	return median / trusted, median * trusted
}

// weight returns what a report says of the endpoint's weight, or 0 if it does
// not say enough. That errors do not count where there is no utilisation is
// gRPC's rule; Envoy takes them for one.
func (s *loadShared) weight(r orca.Report) float64 {
	utilization := r.Application
	if utilization == 0 {
		utilization = r.Named
	}
	if utilization == 0 {
		utilization = r.CPU
	}
	if utilization == 0 || r.RPS == 0 {
		return 0
	}
	if s.penalty > 0 {
		utilization += r.EPS / r.RPS * s.penalty
	}
	return min(max(r.RPS/utilization, leastWeight), mostWeight)
}

// loadState is what is known of one endpoint.
type loadState struct {
	shared *loadShared

	// latest is a loadSample. began is the tick of the first report of a series
	// without a gap as long as Expiry, and 0 once that is longer ago than
	// Blackout: then it no longer matters. A new series stores began before
	// latest, and readers load them the other way round, so whoever sees its
	// first weight sees its beginning. A reader that sees the beginning only
	// has a weight that expired.
	latest atomic.Uint64
	began  atomic.Uint32

	// used is the weight in the schedule that was built at usedAt, or 0 for
	// none. Only Build uses it.
	used   float64
	usedAt time.Time
}

// under returns the state for a pool's new settings. The answers to what is in
// flight are told to the old state, which nobody reads any more.
func (s *loadState) under(shared *loadShared) *loadState {
	next := &loadState{shared: shared, used: s.used, usedAt: s.usedAt}
	then, now := s.shared.at(shared.start), shared.at(shared.start)
	moved := func(at uint32) uint32 { return now - min(since(at, then), now-1) }
	if latest := loadSample(s.latest.Load()); latest != 0 {
		next.latest.Store(uint64(newLoadSample(latest.weight(), moved(latest.tick()))))
	}
	if began := s.began.Load(); began != 0 {
		next.began.Store(moved(began))
	}
	return next
}

// Picked implements [Observer].
func (*loadState) Picked(time.Time) uint32 { return 0 }

// Answered implements [Observer].
func (s *loadState) Answered(_ uint32, a outcome.Answer) {
	if !a.Class.Good() {
		return
	}
	report, ok := s.shared.read(a.Header)
	if !ok {
		return
	}
	if weight := s.shared.weight(report); weight != 0 {
		s.reported(weight, s.shared.at(a.Now))
	}
}

func (s *loadState) reported(weight float64, now uint32) {
	latest, began := loadSample(s.latest.Load()), s.began.Load()
	switch {
	case latest == 0 || since(latest.tick(), now) >= s.shared.expiry:
		s.began.Store(now)
	case began != 0 && since(began, now) >= s.shared.blackout:
		s.began.CompareAndSwap(began, 0)
	}
	s.latest.Store(uint64(newLoadSample(weight, now)))
}

// known returns the weight to use, or 0 if there is none, or not yet. What has
// expired it forgets, before ticks wrap.
func (s *loadState) known(now uint32) float64 {
	latest := loadSample(s.latest.Load())
	began := s.began.Load()
	switch {
	case latest == 0:
		return 0
	case since(latest.tick(), now) >= s.shared.expiry:
		s.latest.CompareAndSwap(uint64(latest), 0)
		return 0
	case began != 0 && since(began, now) < s.shared.blackout:
		return 0
	}
	return latest.weight()
}

// advance returns the weight for a schedule that is built now: what is known,
// as near to it as one may come from the weight in use before.
func (s *loadState) advance(now time.Time) float64 {
	weight := s.known(s.shared.at(now))
	if weight != 0 && s.used != 0 {
		intervals := max(now.Sub(s.usedAt), 0).Seconds() / s.shared.interval.Seconds()
		most := math.Exp2(intervals) // schedules are built at other times as well
		weight = min(max(weight, s.used/most), s.used*most)
	}
	s.used, s.usedAt = weight, now
	return weight
}

// loadSample is a weight and the tick at which it was reported in one word: 32
// bits of float, 32 bits of ticks. Zero means none.
type loadSample uint64

func newLoadSample(weight float64, tick uint32) loadSample {
	return loadSample(math.Float32bits(float32(weight)))<<32 | loadSample(tick)
}

func (s loadSample) weight() float64 { return float64(math.Float32frombits(uint32(s >> 32))) }

func (s loadSample) tick() uint32 { return uint32(s) }

package balancer

import (
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// PeakEWMA picks, out of a few endpoints drawn at random, the one with the
// lowest expected latency, times the requests that would share it. It is the
// default: it steers away from an endpoint that is slow, overloaded or failing,
// whatever the cause, and needs no settings.
//
// The latency of an endpoint is the decaying average of the peak EWMA of
// Finagle: a sample above the average replaces it at once, one below pulls it
// down slowly. To this, evenkeel adds:
//
//   - the age of the oldest request that still waits for its answer counts as a
//     latency, so that a hanging endpoint is left alone before its first slow
//     answer, not after;
//   - an endpoint whose last attempt failed, or was refused because of overload,
//     loses to any other for a second, and for twice as long if that happens
//     again when the time is over, up to 30 s; from the second time on it counts
//     as a latency, too, so that failing fast attracts nothing;
//   - a failure, and a single answer that is eight times as slow as the others and
//     that no second one confirms, is forgotten ten times as fast, so that a
//     restart or a pause does not keep an endpoint out for long;
//   - an endpoint about which nothing is known gets one request to learn from,
//     and until its answer no other.
//
// The weight of an endpoint says how often it is among those that are compared, and
// how many requests at once are its share; while there is hardly any load, one that
// is light and fast may get more.
//
// With few requests per endpoint and second there is little to learn from. Among
// many endpoints, Rules.Subset therefore makes them fewer.
type PeakEWMA struct {
	// Decay is the time in which the weight of old samples falls to 1/e, a
	// tenth of it for failures and for single slow answers. Zero means 10s.
	// Shorter forgets a slow endpoint sooner.
	Decay time.Duration

	// Choices is how many different endpoints are compared. Zero means 4, or
	// all if there are fewer; at least 2, at most 16.
	Choices int

	// Penalty bounds the latency that a failure counts as. Zero means 5s. The
	// second failure in a row counts as ten times the pool's median latency,
	// each further one as four times that of the one before.
	Penalty time.Duration
}

const (
	defaultDecay   = 10 * time.Second
	defaultPenalty = 5 * time.Second
	// defaultRTT stands in where an endpoint is known without a latency: its
	// first attempt was given up by its caller.
	defaultRTT = 0.030
	// floorRTT makes endpoints whose average has decayed to nothing compare
	// by their load.
	floorRTT = 0.001
	// unknownScore is worse than any latency, failingScore worse still.
	unknownScore = 1e9
	failingScore = 1e12
)

// NewBuilder implements [Algorithm].
func (a PeakEWMA) NewBuilder(env Env) (Builder, error) {
	var errs field.Errors
	errs.Check(a.Decay >= 0, "Decay", a.Decay, "must not be negative")
	errs.Check(a.Penalty >= 0, "Penalty", a.Penalty, "must not be negative")
	choices, err := checkChoices(a.Choices)
	if a.Decay == 0 {
		a.Decay = defaultDecay
	}
	if a.Penalty == 0 {
		a.Penalty = defaultPenalty
	}
	shared := &ewmaShared{
		ticks: ticks{env.Now}, rand: env.Rand, choices: choices,
		perTick: -float64(tick) / float64(a.Decay),
		penalty: a.Penalty.Seconds(),
	}
	return shared, errors.Join(errs.Err(), err)
}

// ewmaShared is what the endpoints of one pool have in common, and its builder.
type ewmaShared struct {
	ticks
	rand    func() uint64
	choices int
	perTick float64 // the exponent of the decay per tick, negative
	penalty float64 // seconds
	known   ewmaCensus
	failing anyFailing
}

func (s *ewmaShared) Observer(_ discovery.Endpoint, previous Observer) Observer {
	if wrapped, ok := previous.(*hotColdState); ok {
		previous = wrapped.fallback
	}
	if old, ok := previous.(*ewmaState); ok {
		return old.under(s)
	}
	state := &ewmaState{shared: s}
	s.known.add(state)
	return state
}

func (s *ewmaShared) Build(g Group) Picker {
	return &ewmaPicker{
		shared:     s,
		candidates: g.Candidates,
		limited:    g.limited,
		mean:       totalWeight(g.Candidates) / float64(len(g.Candidates)),
		sampler:    newSampler(g.Candidates, s.rand),
	}
}

type ewmaPicker struct {
	shared     *ewmaShared
	candidates []Candidate
	limited    bool
	mean       float64 // weight
	sampler    sampler
}

// Pick compares the scores. Of equals the first that was drawn wins. All are drawn
// before the first is looked at, so that the processor can fetch them together.
func (p *ewmaPicker) Pick(info Info) int {
	now := p.shared.at(info.Now)
	someFail := p.shared.failing.now(now)
	choosy := p.limited || len(info.Tried) > 0
	var drawn draw
	for range min(p.shared.choices, len(p.candidates)) {
		p.sampler.nextAny(&drawn)
	}
	best, least := int32(0), math.Inf(1)
	for _, i := range drawn.drawn[:drawn.count] {
		c := &p.candidates[i]
		if choosy && !c.Usable(info) {
			continue
		}
		score := p.score(c, now)
		if someFail && c.observer.(*ewmaState).avoided(now) {
			score += failingScore
		}
		if score < least {
			best, least = i, score
		}
	}
	return int(best)
}

// score is the latency to expect in seconds, times the requests that share it.
func (p *ewmaPicker) score(c *Candidate, now uint32) float64 {
	state, inflight := c.observer.(*ewmaState), c.node.InFlight()
	average := ewmaSample(state.sample.Load())
	if average == 0 { // unknown
		if !state.waiting.any() {
			return 0 // one request to learn from, whatever streams there are
		}
		return unknownScore + float64(inflight)
	}
	latency := average.at(now, p.shared.perTick)
	if inflight == 0 {
		return max(latency, floorRTT)
	}
	latency = max(latency, state.waiting.oldest(now), floorRTT)
	return latency * (1 + float64(inflight)*p.mean/c.weight)
}

// estimate implements [estimator]. It is not the score: the requests in flight are
// not in it, because this client's say little about an endpoint to which it sends
// little; where they matter, they show in the latency.
func (p *ewmaPicker) estimate(info Info, i int, fades bool) float64 {
	c, now, perTick := &p.candidates[i], p.shared.at(info.Now), p.shared.perTick
	if !fades {
		perTick /= 100
	}
	state := c.observer.(*ewmaState)
	average := ewmaSample(state.sample.Load())
	switch {
	case p.shared.failing.now(now) && state.avoided(now):
		return math.Inf(1)
	case average != 0:
		return max(average.at(now, perTick), state.waiting.oldest(now))
	case state.waiting.any():
		return math.Inf(1)
	}
	return 0 // one request to learn from
}

// ewmaCensus is a sample of the endpoints of a pool: the last that joined.
type ewmaCensus struct {
	joined atomic.Uint32
	states [32]atomic.Pointer[ewmaState]
}

func (c *ewmaCensus) add(s *ewmaState) {
	c.states[(c.joined.Add(1)-1)%uint32(len(c.states))].Store(s)
}

// median returns the median latency of the sample: enough to tell what is usual
// in the pool. Those of whom nothing was heard for as long as a decay takes do
// not count: they may have left. Nor do those that fail: their penalties would
// raise those of the others.
func (c *ewmaCensus) median(now uint32, perTick float64) float64 {
	var known [len(c.states)]float64
	count := 0
	for i := range c.states {
		s := c.states[i].Load()
		if s == nil {
			break
		}
		average := ewmaSample(s.sample.Load())
		if average != 0 && s.row.Load() == 0 && float64(since(average.tick(), now))*perTick > -1 {
			known[count] = max(average.at(now, perTick), floorRTT)
			count++
		}
	}
	if count == 0 {
		return defaultRTT
	}
	slices.Sort(known[:count])
	return known[count/2]
}

// ewmaState is what is known of one endpoint.
type ewmaState struct {
	shared *ewmaShared
	sample atomic.Uint64 // an ewmaSample
	failing
	waiting startTimes
}

// under returns the state for a pool's new settings. What was in flight is told
// to the old state, which then forgets it.
func (s *ewmaState) under(shared *ewmaShared) *ewmaState {
	next := &ewmaState{shared: shared}
	before, now := s.shared.at(shared.epoch), shared.at(shared.epoch) // the new epoch is now
	if old := ewmaSample(s.sample.Load()); old != 0 {
		next.sample.Store(uint64(newSample(old.at(before, s.shared.perTick), now, old.fast())))
	}
	next.takeOver(&s.failing, before, now, &shared.failing)
	shared.known.add(next)
	return next
}

// Picked implements [Observer].
func (s *ewmaState) Picked(now time.Time) uint32 { return s.waiting.begin(s.shared.at(now)) }

// Answered implements [Observer].
func (s *ewmaState) Answered(token uint32, a outcome.Answer) {
	s.waiting.end(token)
	now := s.shared.at(a.Now)
	switch {
	case a.Class.Good():
		s.succeeded()
		s.observe(a.Took.Seconds(), now, false)
	case a.Class.Avoid():
		s.fail(a.Took.Seconds(), now)
	case a.Class == outcome.Superseded:
		s.outlasted(a.Took.Seconds(), now)
	default:
		s.sample.CompareAndSwap(0, uint64(newSample(defaultRTT, now, false)))
	}
}

// fail takes a failure into the average. It never improves it. The first one in a
// row counts as what it took: that the endpoint is avoided for a while is enough,
// and one request in a hundred fails in many services. Each further one counts as a
// penalty.
func (s *ewmaState) fail(took float64, now uint32) {
	median := s.shared.known.median(now, s.shared.perTick)
	row := s.failed(now, &s.shared.failing)
	x := max(took, median)
	if row > 1 {
		x = max(took, min(10*median*math.Pow(4, float64(row-2)), s.shared.penalty))
	}
	if average := ewmaSample(s.sample.Load()); average == 0 || x > average.at(now, s.shared.perTick) {
		s.observe(x, now, true)
	}
}

// outlasted takes an attempt into the average that was given up because another one of its
// call was faster. It would have taken longer, nobody knows how much: at least as long as it
// took, and if the endpoint has lost the one before, too, at least twice what was thought. That
// is forgotten as fast as a failure.
func (s *ewmaState) outlasted(took float64, now uint32) {
	average := ewmaSample(s.sample.Load())
	if average == 0 {
		s.sample.CompareAndSwap(0, uint64(newSample(took, now, true)))
		return
	}
	v, x := average.at(now, s.shared.perTick), took
	if average.fast() {
		x = max(x, min(2*v, s.shared.penalty))
	}
	if x > v {
		s.observe(x, now, true)
	}
}

// observe takes a latency in seconds into the average.
func (s *ewmaState) observe(x float64, now uint32, failed bool) {
	for {
		old := s.sample.Load()
		next := ewmaSample(old).with(x, now, s.shared.perTick, failed)
		if s.sample.CompareAndSwap(old, uint64(next)) {
			return
		}
	}
}

// ewmaSample is an average and its instant in one word, so that both are read
// and written together: 32 bits of float seconds, 32 bits of ticks. The sign of
// the seconds marks an average that fades fast: it rests on a failure, or on a
// single slow answer. Zero means that nothing is known.
type ewmaSample uint64

// fading is how much faster an average fades that no second answer confirms. An
// endpoint that was slow once, or restarted, is back after seconds; one that is
// slow again and again is avoided for as long as Decay says.
const fading = 10

// lonePeak is by how much a single answer must be slower than the average to be taken
// for a pause of the endpoint, and not for its load: what is less says something, and
// to forget it costs a third of the 99th percentile where servers are contended.
const lonePeak = 8

func newSample(seconds float64, tick uint32, fast bool) ewmaSample {
	bits := math.Float32bits(float32(max(seconds, 1e-9)))
	if fast {
		bits |= 1 << 31
	}
	return ewmaSample(bits)<<32 | ewmaSample(tick)
}

func (e ewmaSample) seconds() float64 {
	return float64(math.Float32frombits(uint32(e>>32) &^ (1 << 31)))
}

func (e ewmaSample) tick() uint32 { return uint32(e) }

func (e ewmaSample) fast() bool { return e>>63 != 0 }

// keep returns the share of the average that is left now.
func (e ewmaSample) keep(now uint32, perTick float64) float64 {
	if e.fast() {
		perTick *= fading
	}
	return decay(since(e.tick(), now), perTick)
}

// at returns the average as it has decayed until now.
func (e ewmaSample) at(now uint32, perTick float64) float64 {
	return e.seconds() * e.keep(now, perTick)
}

// with returns the average after a sample: a peak resets it, anything else pulls
// it down as far as time has passed. It starts from what the average has decayed
// to; Finagle starts from what it was, so that a good sample, after a pause, makes
// an endpoint look worse than before. A peak of more than lonePeak
// times the average is confirmed by the next sample of at least half of it.
func (e ewmaSample) with(x float64, now uint32, perTick float64, failed bool) ewmaSample {
	if e == 0 {
		return newSample(x, now, failed)
	}
	k := e.keep(now, perTick)
	v := e.seconds() * k
	if x > v {
		return newSample(x, now, failed || x > lonePeak*v)
	}
	return newSample(x*(1-k)+v*k, now, failed || (e.fast() && x < v/2))
}

// decay returns e to the power of ticks*perTick. Samples of endpoints in use are
// young, for which four terms of the series are exact to 5e-6 and cost a fraction
// of [math.Exp].
func decay(ticks uint32, perTick float64) float64 {
	x := float64(ticks) * perTick
	if x > -0.1 {
		return 1 + x*(1+x*(1./2+x*(1./6)))
	}
	return math.Exp(x)
}

// startTimes holds when up to 16 requests began that still wait for their
// answer, to know the oldest. With more, those beyond are not seen; they are
// younger than the oldest when they come.
type startTimes [16]atomic.Uint32

// begin notes a start and returns its place, counted from 1; 0 is no place.
func (s *startTimes) begin(tick uint32) (token uint32) {
	for i := range s {
		if s[i].Load() == 0 && s[i].CompareAndSwap(0, tick) {
			return uint32(i + 1)
		}
	}
	return 0
}

func (s *startTimes) end(token uint32) {
	if token != 0 {
		s[token-1].Store(0)
	}
}

// any reports whether a request waits.
func (s *startTimes) any() bool {
	for i := range s {
		if s[i].Load() != 0 {
			return true
		}
	}
	return false
}

// oldest returns how long the oldest has been waiting, in seconds.
func (s *startTimes) oldest(now uint32) float64 {
	var age uint32
	for i := range s {
		if began := s[i].Load(); began != 0 {
			age = max(age, since(began, now))
		}
	}
	return float64(age) * tick.Seconds()
}

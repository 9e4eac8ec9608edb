package orca

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

func TestBucketOf(t *testing.T) {
	for _, row := range []struct {
		inflight int64
		want     int
	}{
		{-1, 0},
		{0, 0},
		{1, 0},
		{2, 1},
		{63, 62},
		{64, 63}, // exact
		{65, 64},
		{80, 64},
		{81, 65},
		{96, 65},
		{97, 66},
		{113, 67},
		{128, 67}, // quarters of 64
		{129, 68},
		{160, 68},
		{161, 69},
		{256, 71},
		{257, 72},
		{1 << 20, 119},
		{1<<20 + 1, 119},
		{math.MaxInt64, 119},
	} {
		assert.Equal(t, row.want, bucketOf(row.inflight), "%d in flight", row.inflight)
	}
	for n := int64(1); n < 1<<21; n++ {
		if step := bucketOf(n+1) - bucketOf(n); step < 0 || step > 1 {
			t.Fatalf("bucket of %d is %d after that of %d", n+1, step, n)
		}
	}
}

// A step is a request that ends, or a look.
type step struct {
	at      float64 // seconds
	arrived int64   // in flight at its arrival; 0 is a look
	took    time.Duration
	now     int64 // in flight, for a look
	want    time.Duration
	none    bool
}

func TestHistory_Latency(t *testing.T) {
	const ms = time.Millisecond
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"nothing yet", []step{{at: 0, now: 1, none: true}}},
		{"one", []step{{at: 1, arrived: 1, took: 5 * ms}, {at: 1, now: 1, want: 5 * ms}}},
		{"the median, not the mean", []step{
			{at: 1, arrived: 3, took: 90 * ms},
			{at: 1, arrived: 3, took: 1 * ms},
			{at: 1, arrived: 3, took: 2 * ms},
			{at: 1, now: 3, want: 2 * ms},
		}},
		{"of two the middle", []step{
			{at: 1, arrived: 3, took: 4 * ms}, {at: 1, arrived: 3, took: 2 * ms}, {at: 1, now: 3, want: 3 * ms},
		}},
		{"the nearest bucket", []step{
			{at: 1, arrived: 1, took: 1 * ms},
			{at: 1, arrived: 10, took: 10 * ms},
			{at: 1, now: 0, want: 1 * ms},
			{at: 1, now: 5, want: 1 * ms},
			{at: 1, now: 6, want: 10 * ms},
			{at: 1, now: 1000, want: 10 * ms},
		}},
		{"of two as near the lower", []step{
			{at: 1, arrived: 4, took: 4 * ms}, {at: 1, arrived: 6, took: 6 * ms}, {at: 1, now: 5, want: 4 * ms},
		}},
		{"a bucket for many", []step{
			{at: 1, arrived: 130, took: 4 * ms}, {at: 1, arrived: 150, took: 6 * ms}, {at: 1, now: 160, want: 5 * ms},
		}},
		{"not older than 10s", []step{
			{at: 1, arrived: 2, took: 1 * ms},
			{at: 5, arrived: 2, took: 5 * ms},
			{at: 11, now: 2, want: 3 * ms},
			{at: 11.001, now: 2, want: 5 * ms},
			{at: 15, now: 2, want: 5 * ms},
			{at: 15.001, now: 2, none: true},
		}},
		{"an old bucket gives way to one farther off", []step{
			{at: 1, arrived: 2, took: 1 * ms},
			{at: 5, arrived: 9, took: 5 * ms},
			{at: 11, now: 2, want: 1 * ms},
			{at: 12, now: 2, want: 5 * ms},
		}},
		{"the newest 16", append(repeat(16, step{at: 1, arrived: 1, took: 100 * ms}),
			append(repeat(8, step{at: 1, arrived: 1, took: 2 * ms}),
				step{at: 1, now: 1, want: 51 * ms}, // 8 of each
				step{at: 1, arrived: 1, took: 2 * ms},
				step{at: 1, now: 1, want: 2 * ms})...)},
		{"a clock that goes back", []step{
			{at: 100, arrived: 1, took: 1 * ms},
			{at: 50, arrived: 1, took: 3 * ms},
			{at: 50, now: 1, want: 2 * ms},
			{at: 61, now: 1, none: true}, // as old as what came last
		}},
	} {
		h := history{epoch: start}
		for i, s := range row.steps {
			if s.arrived > 0 {
				h.add(at(s.at), ended{took: s.took, arrived: s.arrived})
				continue
			}
			got, ok := h.latency(at(s.at), s.now)
			assert.Equal(t, s.want, got, "%s, step %d", row.name, i)
			assert.Equal(t, !s.none, ok, "%s, step %d", row.name, i)
		}
	}
}

func repeat(n int, s step) []step {
	steps := make([]step, n)
	for i := range steps {
		steps[i] = s
	}
	return steps
}

func TestHistory_UntimedIsCountedOnly(t *testing.T) {
	h := history{epoch: start}
	h.add(at(0), ended{took: time.Hour, arrived: 1, untimed: true})
	_, ok := h.latency(at(0), 1)
	rps, eps := h.rates(at(0))
	assert.False(t, ok)
	assert.InDelta(t, 0.1, rps, 0)
	assert.Zero(t, eps)
}

func TestRate(t *testing.T) {
	const e = math.E
	for _, row := range []struct {
		name   string
		events []float64 // seconds
		at     float64
		want   float64
	}{
		{"nothing yet", nil, 5, 0},
		{"one", []float64{1}, 1, 0.1},
		{"fades", []float64{1}, 11, 0.1 / e},
		{"two", []float64{1, 11}, 11, 0.1 + 0.1/e},
		{"at once", []float64{1, 1, 1}, 1, 0.3},
		{"a look before the last one", []float64{20}, 10, 0.1},
		{"a clock that goes back", []float64{11, 1}, 11, 0.2},
		{"a clock that goes back, later", []float64{11, 1}, 21, 0.2 / e},
	} {
		h := history{epoch: start}
		for _, s := range row.events {
			h.add(at(s), ended{arrived: 1, failed: true})
		}
		rps, eps := h.rates(at(row.at))
		assert.InDelta(t, row.want, rps, 1e-12, row.name)
		assert.InDelta(t, row.want, eps, 1e-12, row.name)
	}
}

func TestRate_OfASteadyStream(t *testing.T) {
	h := history{epoch: start}
	for i := range 100 * 60 { // a minute of 100 per second, each fifth a failure
		h.add(at(float64(i)/100), ended{arrived: 1, failed: i%5 == 0})
	}
	rps, eps := h.rates(at(60))
	assert.InEpsilon(t, 100, rps, 0.01)
	assert.InEpsilon(t, 20, eps, 0.01)
}

package balancer

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/outcome"
)

// avoiding are the algorithms that avoid what fails, before they look at load.
var avoiding = []Algorithm{LeastRequest{}, PeakEWMA{}}

// failsUntil is a load of which everything that endpoint 0 gets fails in a
// millisecond until an instant, while the others take 50 ms.
func failsUntil(until time.Duration) func(int, time.Duration) (time.Duration, outcome.Class) {
	return func(i int, at time.Duration) (time.Duration, outcome.Class) {
		if i == 0 && at < until {
			return time.Millisecond, outcome.Failure
		}
		return 50 * time.Millisecond, outcome.Success
	}
}

func TestFailing_FastAttractsNothing_B02(t *testing.T) {
	for _, a := range avoiding {
		for _, every := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%T %v", a, every), func(t *testing.T) {
				p, c := picker(t, a, seeded(t, 2), 1, 1)
				got := load{1000, every, failsUntil(time.Hour)}.run(p, c)
				assert.Positive(t, got[0])
				assert.Less(t, got[0], 20, "%v", got)
			})
		}
	}
}

// However many requests the others have, they come first.
func TestFailing_StatusComesBeforeLoad_B02(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 2), 1, 1)
			answered(c[1], epoch, 50*time.Millisecond, outcome.Success)
			answered(c[0], epoch, time.Millisecond, outcome.Failure)
			hold(c[1], 10000)
			assert.Equal(t, 1, p.Pick(Info{Now: epoch.Add(999 * time.Millisecond)}))
			assert.Equal(t, 0, p.Pick(Info{Now: epoch.Add(time.Second + tick)}), "its chance")
		})
	}
}

// A black-holed endpoint costs one request per chance, and chances get rare.
func TestFailing_IsLearntAcrossRequests_B08(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 3), 1, 1, 1)
			took := func(i int, _ time.Duration) (time.Duration, outcome.Class) {
				if i == 0 {
					return time.Second, outcome.NeverSent // the dial timed out
				}
				return 20 * time.Millisecond, outcome.Success
			}
			got := load{6000, 10 * time.Millisecond, took}.run(p, c) // a minute
			// Chances after 1, 3, 7, 15 and 31 s and so on, each with those that
			// come in the second before the first failure is known.
			assert.Less(t, got[0], 30, "%v", got)
		})
	}
}

// The time doubles with each failure in a row, up to 30 s, and one success ends it.
func TestFailing_GrowsAndEnds_B11(t *testing.T) {
	var f failing
	var pool anyFailing
	now := uint32(1)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		f.failed(now, &pool)
		until := now + uint32(want*time.Second/tick)
		assert.True(t, f.avoided(until-1), "%v", want)
		assert.True(t, pool.now(until-1))
		assert.False(t, f.avoided(until), "%v", want)
		now = until
	}
	assert.False(t, pool.now(now), "nobody is")
	f.failed(now, &pool)
	f.succeeded()
	assert.False(t, f.avoided(now))
	f.failed(now, &pool)
	assert.False(t, f.avoided(now+uint32(time.Second/tick)), "it begins anew")
}

// The one whose time ends last decides for how long picks have to look.
func TestAnyFailing_LongestCounts(t *testing.T) {
	var pool anyFailing
	pool.note(30000, 1)
	pool.note(10000, 1)
	assert.True(t, pool.now(29999))
	assert.False(t, pool.now(30000))
}

// If all fail, load decides, as if none did.
func TestFailing_AllOfThem(t *testing.T) {
	for _, a := range avoiding {
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			p, c := picker(t, a, seeded(t, 4), 1, 1)
			for _, one := range c {
				answered(one, epoch, 50*time.Millisecond, outcome.Failure)
			}
			hold(c[0], 5)
			for range 20 {
				assert.Equal(t, 1, p.Pick(Info{Now: epoch.Add(time.Millisecond)}))
			}
		})
	}
}

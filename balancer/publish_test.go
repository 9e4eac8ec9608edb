package balancer

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/clock"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// restless is an algorithm of a user's own that breaks the contract of Refresher.
type restless struct {
	Random
	builds *int
}

func (r restless) NewBuilder(Env) (Builder, error)              { return r, nil }
func (restless) Observer(discovery.Endpoint, Observer) Observer { return nil }
func (restless) RefreshInterval() time.Duration                 { return 0 }
func (r restless) Build(Group) Picker                           { *r.builds++; return theFirst{} }

type theFirst struct{}

func (theFirst) Pick(Info) int { return 0 }

// An algorithm that wants to be refreshed all the time does not keep a processor busy.
func TestRefresher_WithoutAnInterval(t *testing.T) {
	fake, builds := clock.NewFake(epoch), 0
	testPool(t, Config{Algorithm: restless{builds: &builds}, Clock: fake}, addresses("a")...)
	fake.Advance(10 * time.Millisecond)
	assert.Equal(t, 1+10, builds)
}

// What HotCold's fallback has learnt is not lost when it takes over.
func TestPeakEWMA_TakesOverFromHotCold_P01(t *testing.T) {
	p := testPool(t, Config{Algorithm: HotCold{}, Clock: clock.NewFake(epoch)}, addresses("a")...)
	pick := mustPick(t, p, Info{Now: epoch})
	pick.Answered(outcome.Answer{Now: epoch, Took: 40 * time.Millisecond, Class: outcome.Success})
	pick.Done()
	require.NoError(t, p.Use(PeakEWMA{}, Rules{}))
	known := ewmaSample(p.members[0].observer.(*ewmaState).sample.Load())
	assert.InDelta(t, 0.04, known.seconds(), 1e-6)
}

func TestStatus_CountsRejectedReports(t *testing.T) {
	p := testPool(t, Config{Algorithm: LoadWeighted{}, Clock: clock.NewFake(epoch)}, addresses("a")...)
	pick := mustPick(t, p, Info{Now: epoch})
	pick.Answered(outcome.Answer{Now: epoch, Class: outcome.Success, Header: http.Header{orca.Header: {"TEXT cpu=="}}})
	pick.Done()
	assert.Equal(t, uint64(1), p.Status().RejectedReports)
}

// Endpoints that move to another priority are ordered among those that are there.
func TestSubset_OrderFollowsThePriority(t *testing.T) {
	rules := Rules{Subset: Subset{Size: 5, Clients: 10, Ordinal: 3}}
	moved := in(0, 40)
	for i := range moved {
		moved[i].Priority = i % 2
	}
	p, _ := fakePool(t, Config{Algorithm: Random{}, Rules: rules}, in(0, 40)...)
	p.update(moved)
	fresh, _ := fakePool(t, Config{Algorithm: Random{}, Rules: rules}, moved...)
	assert.ElementsMatch(t, used(fresh), used(p))
}

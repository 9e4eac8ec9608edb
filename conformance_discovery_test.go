package evenkeel_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// discoveryRows are what B-16 says of a cold start.
func discoveryRows() []row {
	return []row{
		{"B-16", "a cold start waits for the endpoints", whereBalanced, false, aColdStartWaits},
		{"B-16", "the error names the resolver's failure", whereBalanced, false, theErrorNamesTheFailure},
		{"B-16", "a hung resolver ends with the caller's deadline", whereBalanced, false, aHungResolverEndsWithTheDeadline},
		{"B-16", "a hung resolver ends with the caller's cancel", whereBalanced, false, aHungResolverEndsWithTheCancel},
		{"B-16", "a hung resolver ends without a deadline too", whereBalanced, false, aHungResolverEndsAnyway},
		{"B-16", "a hung resolver ends with the call's time limit", wholeOnly, false, aHungResolverEndsWithTheLimit},
		{"B-16", "the first endpoints may come with the cancel", whereBalanced, false, endpointsMayComeWithTheCancel},
		{"B-16", "an empty answer is named as such", whereBalanced, false, anEmptyAnswerIsNamed},
		{"B-16", "Ready waits as calls do", whereBalanced, false, readyWaits},
	}
}

// after makes a resolver that answers after a while.
func after(d time.Duration, servers ...*evenkeeltest.Server) discovery.Resolver {
	return resolverFunc(func(ctx context.Context, sink discovery.Sink) error {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
		var list []discovery.Endpoint
		for _, s := range servers {
			list = append(list, s.Endpoint())
		}
		sink.Update(list, nil)
		<-ctx.Done()
		return ctx.Err()
	})
}

func aColdStartWaits(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{resolver: after(3*time.Second, a)})
	start := time.Now()

	status, _ := s.answer(s.stream(http.MethodPost, evenkeeltest.NewBody("patience")))

	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, 3*time.Second, time.Since(start))
}

var errNameServer = errors.New("name server: SERVFAIL")

func failingResolver() discovery.Resolver {
	return resolverFunc(func(ctx context.Context, sink discovery.Sink) error {
		sink.Fail(errNameServer)
		<-ctx.Done()
		return ctx.Err()
	})
}

// Given a resolver that fails, then the call ends with its deadline, and the error
// says what the resolver said and that there are no endpoints.
func theErrorNamesTheFailure(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: failingResolver()})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	require.ErrorIs(t, err, errNameServer)
	require.ErrorIs(t, err, balancer.ErrNoEndpoints)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Contains(t, err.Error(), errNameServer.Error())
	assert.ErrorIs(t, s.status().Err, errNameServer)
}

func aHungResolverEndsWithTheDeadline(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: hungResolver()})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, 200*time.Millisecond, time.Since(start))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorIs(t, err, balancer.ErrNoEndpoints)
}

func aHungResolverEndsWithTheCancel(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: hungResolver()})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(200*time.Millisecond, func() { cancel(errGaveUp) })
	start := time.Now()

	err := s.fail(s.request(http.MethodGet).WithContext(ctx))

	assert.Equal(t, 200*time.Millisecond, time.Since(start))
	assert.ErrorIs(t, err, errGaveUp)
}

func aHungResolverEndsAnyway(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: hungResolver()})
	start := time.Now()

	err := s.fail(s.request(http.MethodGet))

	assert.Equal(t, 10*time.Second, time.Since(start))
	require.ErrorIs(t, err, balancer.ErrNoEndpoints)
	assert.Equal(t, outcome.NoEndpoints, reason(err))
}

func aHungResolverEndsWithTheLimit(t *testing.T, s *stackUnderTest) {
	s.use(config{resolver: hungResolver(), timeout: time.Second})
	start := time.Now()

	err := s.fail(s.request(http.MethodGet))

	assert.Equal(t, time.Second, time.Since(start))
	assert.Equal(t, outcome.Deadline, reason(err))
	assert.ErrorIs(t, err, balancer.ErrNoEndpoints)
}

// Given endpoints that become known just when a call finds that its caller is gone,
// then the call fails, and nothing stays in flight: once a pick was made only to be
// told why there was none.
func endpointsMayComeWithTheCancel(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	r := newPushed()
	s.use(config{resolver: r})
	ctx := &lateContext{Context: t.Context(), done: make(chan struct{}), look: func() { r.pushServers(a) }}
	close(ctx.done)

	err := s.fail(s.stream(http.MethodPost, evenkeeltest.NewBody("never sent")).WithContext(ctx))

	require.ErrorIs(t, err, context.Canceled)
	assert.NotContains(t, err.Error(), "%!", "an error made of nothing")
	require.Len(t, s.status().Endpoints, 1)
	assert.Zero(t, s.status().Endpoints[0].InFlight)
	a.AssertRequests(t, 0)
}

// lateContext has ended, and does something when somebody looks for the first
// time.
type lateContext struct {
	context.Context
	done chan struct{}
	once sync.Once
	look func()
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	c.once.Do(c.look)
	return context.Canceled
}

// Given an answer without endpoints, then calls fail at once, and the cause is not
// confused with endpoints that are unwell.
func anEmptyAnswerIsNamed(t *testing.T, s *stackUnderTest) {
	r := newPushed()
	s.use(config{resolver: r})
	r.push()
	start := time.Now()

	err := s.fail(s.request(http.MethodGet))

	assert.Zero(t, time.Since(start))
	assert.Contains(t, err.Error(), "there are none")
	r.push(discovery.Endpoint{Address: "a:80", Draining: true})
	assert.Contains(t, s.fail(s.request(http.MethodGet)).Error(), "draining")
}

func readyWaits(t *testing.T, s *stackUnderTest) {
	a := s.serve("a")
	s.use(config{resolver: after(3*time.Second, a)})
	ready := func(ctx context.Context) error {
		if s.whole != nil {
			return s.whole.Ready(ctx)
		}
		return s.pool.Ready(ctx)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, ready(ctx), context.DeadlineExceeded)
	require.NoError(t, ready(t.Context()))
	s.get()
}

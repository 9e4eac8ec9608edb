package evenkeel_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/retry"
)

// defectRows are the defects of other libraries that no row with an ID shows. The
// rest of those that concern the shell are: 3 and 6 in B-16, 5 in B-12, 13 in
// T-04, 14 in T-06 and T-07.
func defectRows() []row {
	return []row{
		{"defect-1", "a response keeps its own request", everywhere, false, aResponseKeepsItsRequest},
		{"defect-2", "the idle pool fits the concurrency", whereBalanced.over("HTTP/2 has one connection anyway", http1), false, theIdlePoolFitsTheConcurrency},
		{"defect-5", "every draining endpoint is accounted for", whereBalanced, false, everyDrainIsAccountedFor},
		{"defect-7", "two targets share nothing", wholeOnly, false, twoTargetsShareNothing},
		{"defect-11", "ten POSTs are ten requests", whereRetried, false, tenPostsAreTenRequests},
		{"defect-12", "ten failed calls use one connection", whereRetried.over("HTTP/2 has one connection anyway", http1), false, tenFailedCallsUseOneConnection},
		{"defect-22", "a failed call closes nobody's connection", whereRetried, false, aFailedCallClosesNobodysConnection},
		{"defect-25", "redirects are not followed", everywhere, false, redirectsAreNotFollowed},
	}
}

// Given responses that are kept, also while other calls go on, then each tells the
// URL of its own request.
func aResponseKeepsItsRequest(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.use(config{})
	var kept []*http.Response
	for i := range 20 {
		req := s.request(http.MethodGet)
		req.URL.Path = fmt.Sprintf("/%d", i)
		resp, err := s.do(req)
		require.NoError(t, err)
		readBody(t, resp)
		kept = append(kept, resp)
	}
	for i, resp := range kept {
		require.NotNil(t, resp.Request)
		assert.Equal(t, fmt.Sprintf("/%d", i), resp.Request.URL.Path)
	}
}

// Given 20 bursts of 16 requests at one endpoint, then there are 16 connections.
func theIdlePoolFitsTheConcurrency(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.OK("a").Delay(time.Millisecond))
	s.use(config{})
	for range 20 {
		var burst sync.WaitGroup
		for range 16 {
			burst.Go(func() { s.get() })
		}
		burst.Wait()
	}
	a.AssertRequests(t, 20*16)
	assert.Equal(t, 16, a.Dials())
}

// Given three endpoints that drain and one that ends, then the other two are still
// known, and so are the live ones.
func everyDrainIsAccountedFor(t *testing.T, s *stackUnderTest) {
	var list []*evenkeeltest.Server
	for i := range 3 {
		list = append(list, s.serve(fmt.Sprintf("old%d", i), evenkeeltest.OK("old").Delay(time.Duration(i+1)*time.Second)))
	}
	live := s.serve("live")
	r := newPushed()
	s.use(config{resolver: r})
	r.pushServers(list...)
	var calls sync.WaitGroup
	for range list {
		calls.Go(func() { assert.Equal(t, "old", s.get()) })
	}
	synctest.Wait()

	r.pushServers(live)
	for want := 3; want >= 0; want-- {
		synctest.Wait()
		assert.Equal(t, want, s.status().Draining)
		assert.Len(t, s.status().Endpoints, 1)
		if want > 0 {
			time.Sleep(time.Second)
		}
	}
	calls.Wait()
	assert.Equal(t, "live", s.get())
}

// Given two targets with every algorithm, used at once, then the race detector has
// nothing to say.
func twoTargetsShareNothing(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	s.serve("b")
	for _, a := range algorithms() {
		var calls sync.WaitGroup
		for range 2 {
			other := &stackUnderTest{t: t, kind: s.kind, protocol: s.protocol, network: s.network, servers: s.servers}
			other.use(config{balancer: a})
			for range 4 {
				calls.Go(func() {
					for range 10 {
						other.get()
					}
				})
			}
			calls.Go(func() { assert.NoError(t, other.whole.Update(policyWith(balancer.Random{}, 2))) })
			defer other.close()
		}
		calls.Wait()
	}
}

func tenPostsAreTenRequests(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503))
	s.use(config{})
	for range 10 {
		status, _ := s.answer(s.replayable(http.MethodPost, evenkeeltest.NewBody("x")))
		assert.Equal(t, 503, status)
	}
	a.AssertRequests(t, 10)
}

func tenFailedCallsUseOneConnection(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(503).Body(strings.Repeat("x", 1000)))
	s.use(config{retry: retry.Policy{Backoff: retry.Backoff{Base: soon}}})
	for range 10 {
		status, _ := s.answer(s.request(http.MethodGet))
		assert.Equal(t, 503, status)
	}
	a.AssertRequests(t, 30)
	assert.Equal(t, 1, a.Dials())
}

// Given idle connections, when a call fails for good, in whatever way, then they
// are still there.
func aFailedCallClosesNobodysConnection(t *testing.T, s *stackUnderTest) {
	const warm = 8
	step := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/503":
			evenkeeltest.Status(503).ServeHTTP(w, r)
		case "/hang":
			evenkeeltest.Hang().ServeHTTP(w, r)
		default:
			evenkeeltest.OK("a").Delay(time.Millisecond).ServeHTTP(w, r)
		}
	})
	a := s.serve("a", step)
	s.use(config{
		template: func(tr *http.Transport) { tr.MaxIdleConnsPerHost = warm },
		retry:    retry.Policy{MaxAttempts: 2, Backoff: retry.Backoff{Base: soon}},
	})
	var calls sync.WaitGroup
	for range warm {
		calls.Go(func() { s.get() })
	}
	calls.Wait()
	s.settle()
	before := a.OpenConns()

	req := s.request(http.MethodGet)
	req.URL.Path = "/503"
	_, _ = s.answer(req)
	s.settle()
	assert.Equal(t, before, a.OpenConns(), "after a final 503")

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	req = s.request(http.MethodGet).WithContext(ctx)
	req.URL.Path = "/hang"
	_ = s.fail(req)
	synctest.Wait()
	lost := 1 // HTTP/1.1 has no other way to end a request
	if s.protocol != http1 {
		lost = 0
	}
	assert.Equal(t, before-lost, a.OpenConns(), "after a call that was given up")
}

func redirectsAreNotFollowed(t *testing.T, s *stackUnderTest) {
	a := s.serve("a", evenkeeltest.Status(302).Header("Location", s.url()+"elsewhere"))
	s.use(config{})
	resp, err := s.do(s.request(http.MethodGet))
	require.NoError(t, err)
	readBody(t, resp)
	assert.Equal(t, 302, resp.StatusCode)
	a.AssertRequests(t, 1)
}

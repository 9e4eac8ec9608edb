package evenkeel_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/evenkeeltest"
	"github.com/evenkeel-go/evenkeel/outcome"
	"github.com/evenkeel-go/evenkeel/retry"
)

// secretRows are O-03 and O-04.
func secretRows() []row {
	const noNetwork = "nothing is sent"
	rows := []row{
		{"O-03", "no secret in what a call tells", everywhere, false, noSecretInWhatACallTells},
		{"O-03", "no secret in the errors of New", wholeOnly.over(noNetwork, http1), false, noSecretInTheErrorsOfNew},
		{"O-04", "every stop has its reason", whereRetried, false, everyStopHasItsReason},
	}
	for _, r := range refusals() {
		rows = append(rows, row{"O-03", "no secret in the error of " + r.name, r.applies, false, r.hidesSecrets})
	}
	return rows
}

// What must not be seen anywhere.
const (
	password = "hunter2"
	bearer   = "t0ken"
)

func withSecrets(req *http.Request) *http.Request {
	if req.URL != nil {
		changed := *req.URL
		changed.User = url.UserPassword("u", password)
		changed.RawQuery = "token=" + bearer
		req.URL = &changed
	}
	return req
}

func assertNoSecret(t *testing.T, what, text string) {
	t.Helper()
	for _, secret := range []string{password, bearer} {
		assert.NotContains(t, text, secret, what)
	}
}

// spell writes an error and all that it wraps.
func spell(err error) string {
	var b strings.Builder
	var walk func(error)
	walk = func(err error) {
		fmt.Fprintf(&b, "%v\n%+v\n", err, err)
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if next := e.Unwrap(); next != nil {
				walk(next)
			}
		case interface{ Unwrap() []error }:
			for _, next := range e.Unwrap() {
				walk(next)
			}
		}
	}
	walk(err)
	return b.String()
}

func (r refusal) hidesSecrets(t *testing.T, s *stackUnderTest) {
	s.serve("a")
	r.prepare(s)
	err := s.fail(r.request(s, withSecrets(s.request(http.MethodGet))))
	assertNoSecret(t, "error", spell(err))
}

// Given a call with a password and a token in its URL that fails in many ways,
// then no error, no event and no statistic shows them.
func noSecretInWhatACallTells(t *testing.T, s *stackUnderTest) {
	s.serve("a", evenkeeltest.Status(503), evenkeeltest.ResetAfter(0), evenkeeltest.CloseAfter(0),
		evenkeeltest.OK("a").CloseMidBody(1), evenkeeltest.Hang())
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var told strings.Builder
	s.use(config{
		timeout: time.Minute,
		retry:   retry.Policy{MaxAttempts: 2, PerAttemptTimeout: time.Second, Backoff: retry.Backoff{Base: soon}},
		hooks: evenkeel.Hooks{
			Attempt: func(a evenkeel.Attempt) { fmt.Fprintf(&told, "%+v\n", a) },
			Decided: func(d retry.Decision) { fmt.Fprintf(&told, "%+v\n", d) },
			Called:  func(c evenkeel.Call) { fmt.Fprintf(&told, "%+v %v %v\n", c.Info, c.StatusCode, c.Err) },
		},
	})
	for range 5 {
		resp, err := s.do(withSecrets(s.request(http.MethodGet).WithContext(ctx)))
		if err != nil {
			assertNoSecret(t, "error", spell(err))
			continue
		}
		_, err = resp.Body.Read(make([]byte, 100))
		for err == nil {
			_, err = resp.Body.Read(make([]byte, 100))
		}
		assertNoSecret(t, "error of the body", spell(err))
		resp.Body.Close()
	}
	assertNoSecret(t, "events", told.String())
	assertNoSecret(t, "status", fmt.Sprintf("%+v", s.status()))
	if s.whole != nil {
		assert.NotEmpty(t, told.String())
		assertNoSecret(t, "statistics", fmt.Sprintf("%+v", s.whole.Stats()))
		assertNoSecret(t, "policy", fmt.Sprintf("%+v", s.whole.Config()))
	}
}

// Given targets and addresses that are wrong, and hold secrets that do not belong
// there, then the error says what is wrong without showing them.
func noSecretInTheErrorsOfNew(t *testing.T, _ *stackUnderTest) {
	for _, target := range []string{
		"https://u:" + password + "@" + host + "/?token=" + bearer,
		"https://u:" + password + "@" + host,
		"https://" + host + "/?token=" + bearer,
		"ftp://u:" + password + "@" + host + "/",
		"https://u:" + password + "@" + host + ":99999999/",
		"https://u:" + password + "@[::1/",
		"https://" + host + "/#token=" + bearer,
		"u:" + password + "@" + host + ":80", // the scheme was forgotten
		"https:u:" + password + "@" + host,   // and here the slashes
		"u:" + password + "@" + host + "/?token=" + bearer,
	} {
		_, err := evenkeel.New(target)
		require.Error(t, err)
		assertNoSecret(t, "New "+target, spell(err))
	}
	for _, address := range []string{
		"https://u:" + password + "@10.0.0.1:80/?token=" + bearer,
		"u:" + password + "@10.0.0.1:80",
	} {
		for _, r := range []discovery.Resolver{discovery.Static{address}, discovery.List{{Address: address}}} {
			_, err := evenkeel.New("http://"+host, evenkeel.WithResolver(r))
			require.Error(t, err)
			assertNoSecret(t, "resolver", spell(err))
		}
	}
}

// Given every way in which retries end, then call and event say why.
func everyStopHasItsReason(t *testing.T, s *stackUnderTest) {
	for i, c := range []struct {
		name   string
		step   http.Handler
		policy retry.Policy
		req    func() *http.Request
		want   outcome.Reason
	}{
		{"attempts", evenkeeltest.CloseAfter(0), retry.Policy{}, nil, outcome.Attempts},
		{"quota", evenkeeltest.CloseAfter(0), retry.Policy{Budget: retry.Quota{Size: 1}}, nil, outcome.Quota},
		{"not idempotent", evenkeeltest.CloseAfter(0), retry.Policy{}, func() *http.Request {
			return s.replayable(http.MethodPost, evenkeeltest.NewBody("x"))
		}, outcome.NotIdempotent},
		{"not replayable", evenkeeltest.CloseAfter(1), retry.Policy{}, func() *http.Request {
			return s.stream(http.MethodPut, evenkeeltest.NewBody("x"))
		}, outcome.NotReplayable},
		{"deadline of the attempt", evenkeeltest.Hang(), retry.Policy{MaxAttempts: 2, PerAttemptTimeout: time.Second}, nil, outcome.Attempts},
	} {
		a := s.serve(fmt.Sprintf("a%d", i), c.step)
		s.servers = []*evenkeeltest.Server{a}
		var decided []outcome.Reason
		note := func(d retry.Decision) {
			if !d.Action.Again {
				decided = append(decided, d.Action.Reason)
			}
		}
		c.policy.Backoff.Base = soon
		c.policy.Hooks.Decided = note
		s.use(config{retry: c.policy, hooks: evenkeel.Hooks{Decided: note}})
		req := s.request(http.MethodGet)
		if c.req != nil {
			req = c.req()
		}
		err := s.fail(req)
		assert.Equal(t, c.want, reason(err), "%s: %v", c.name, err)
		assert.Equal(t, []outcome.Reason{c.want}, decided, c.name)
		assert.Contains(t, err.Error(), string(c.want), c.name)
		s.close()
	}
}

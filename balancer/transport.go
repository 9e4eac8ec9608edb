package balancer

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/orca"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Transport is an [http.RoundTripper] that sends each request to an endpoint of
// a pool. It does not repeat anything: put a retry.Transport around it, or use
// evenkeel.New, which does. Inside such a stack it avoids the endpoints that the
// call has tried. It is safe for concurrent use.
type Transport struct {
	layer //nolint:unused // makes it join attempts
	pool  *Pool
	cfg   *call.Config
}

type layer = call.Layer //nolint:unused // embedded, for its unexported method

// NewTransport returns a transport for the pool, which its owner closes. A nil
// classifier means [outcome.Classify].
func NewTransport(pool *Pool, classify outcome.Classifier) *Transport {
	return &Transport{pool: pool, cfg: call.Config{Clock: pool.clock, Classify: classify}.Resolve()}
}

// RoundTrip implements [http.RoundTripper]. Until the first endpoints are known
// it waits, as [Pool.PickWait] does. The errors of its own are those of
// [Pool.Pick]; others are the endpoint's.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if a := call.Joinable(req.Context()); a != nil {
		return t.send(a) //nolint:contextcheck // the attempt is the context
	}
	return call.Once(req, t.cfg, t.send) //nolint:contextcheck // the record is the context
}

// errNoOther is the answer to an attempt that is of use only at another endpoint than the one
// which the call is waiting for.
var errNoOther = errors.New("balancer: there is no other endpoint for another attempt beside the one under way")

// send picks an endpoint for the attempt and sends it there.
func (t *Transport) send(a *call.Attempt) (*http.Response, error) {
	info := Info{Now: t.pool.now(), Tried: a.Tried, Request: a.Request()}
	affinity := a.Record().Affinity()
	if affinity != nil {
		info.Pin = affinity.Pin()
	}
	pick, waited, err := t.pool.pickWait(a, info)
	if err == nil && affinity != nil && len(a.Tried) == 0 {
		pick, waited, err = t.claim(a, affinity, info, pick, waited)
	}
	if err != nil {
		return nil, err
	}
	sending := info.Now
	if waited {
		sending = time.Time{} // not known yet: the wait is nobody's failure
	}
	if slices.Contains(a.Tried, pick.Serial()) { // all were tried
		if a.Beside {
			pick.giveBack(info.Now)
			return nil, errNoOther
		}
		a.StartedOver = true
	}
	a.Take(pick.pick, sending)
	resp, err := a.Send(pick.Transport())
	if resp != nil && t.pool.hideReports.Load() {
		resp.Header.Del(orca.Header)
		resp.Header.Del(orca.Header + "-Bin") // its older form
	}
	if err != nil && a.Outcome.Class.Bad() { // it may have moved; one that answers has not
		t.pool.Refresh()
	}
	return resp, err
}

// claim asks whether a call that was picked elsewhere than where it belongs may go there: somebody else
// may have decided meanwhile where it belongs from now on.
func (t *Transport) claim(a *call.Attempt, affinity call.Affinity, info Info, pick Pick, waited bool) (Pick, bool, error) {
	held, kept := true, false
	release := func() {
		held = false // before callbacks, which may panic
		pick.giveBack(info.Now)
	}
	defer func() {
		if held && !kept {
			release()
		}
	}()
	for range mostClaims {
		if info.Pin != nil && info.Pin.ID == pick.id() {
			break
		}
		elsewhere, err := affinity.Claim(a, pick.id(), t.pool.missed(&info))
		waited = true
		if err != nil {
			return Pick{}, waited, err
		}
		if elsewhere == "" || elsewhere == pick.id() {
			break
		}
		info.Pin, info.Now = affinity.Pin(), t.pool.now()
		if info.strict() { // only there, and if need be later
			release()
			if pick, _, err = t.pool.pickWait(a, info); err != nil {
				return Pick{}, waited, err
			}
			held = true
			continue
		}
		other, err := t.pool.Pick(info)
		if err != nil {
			break // better here than nowhere
		}
		pick, other = other, pick
		other.giveBack(info.Now)
	}
	kept = true
	return pick, waited, nil
}

// mostClaims bounds how often a call is sent elsewhere because endpoints go as fast as others pin it to
// them.
const mostClaims = 3

// CloseIdleConnections closes the connections of all endpoints that nobody uses.
func (t *Transport) CloseIdleConnections() { t.pool.CloseIdleConnections() }

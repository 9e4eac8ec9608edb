package session

import (
	"net/http"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// Transport is an [http.RoundTripper] that finds out where each call belongs, and lets what picks
// endpoints below it know. It is safe for concurrent use.
type Transport struct {
	next   http.RoundTripper
	keeper *Keeper
	cfg    *call.Config
}

// NewTransport returns a transport for a keeper that is also Config.Sessions of the pool whose
// balancer.Transport is next, or is below next, which then is a retry.Transport: sessions are of calls,
// not of attempts. The error says what is wrong with them.
func NewTransport(next http.RoundTripper, k *Keeper) (*Transport, error) {
	var errs field.Errors
	errs.Check(call.Joins(next) || call.MakesAttempts(next), "next", nil, "must be a transport of package balancer, breaker or retry")
	errs.Check(k != nil, "k", nil, "must be set")
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return k.Transport(next), nil
}

// Transport is [NewTransport] for a next that is known to be good.
func (k *Keeper) Transport(next http.RoundTripper) *Transport {
	return &Transport{next: next, keeper: k, cfg: call.Config{Clock: k.clock}.Resolve()}
}

// RoundTrip implements [http.RoundTripper]. Errors are those of the transport below; one that is because
// of strict mode wraps [ErrUnavailable].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.keeper.work.Load() == nil {
		return t.next.RoundTrip(req)
	}
	if record := call.Join(req); record != nil {
		return t.visit(record)
	}
	if call.Joins(t.next) {
		return call.Once(req, t.cfg, t.visitOnce)
	}
	if err := call.Check(req); err != nil {
		call.Refuse(req)
		return nil, err
	}
	return t.visit(call.New(req, t.cfg))
}

// visit makes a call of any number of attempts.
func (t *Transport) visit(record *call.Record) (resp *http.Response, err error) {
	defer record.Abort() // of use only if a store panics
	v := &visit{keeper: t.keeper, record: record}
	if err := v.begin(record.Request()); err != nil {
		record.Reason = outcome.ReasonOf(err)
		record.Finish(nil)
		return nil, err
	}
	resp, err = t.next.RoundTrip(record.Request())
	v.close(resp, err, record.Final())
	return resp, err
}

// visitOnce makes a call of one attempt.
func (t *Transport) visitOnce(a *call.Attempt) (*http.Response, error) {
	v := &visit{keeper: t.keeper, record: a.Record()}
	if err := v.begin(a.Request()); err != nil {
		return nil, err
	}
	resp, err := a.Through(t.next)
	v.close(resp, err, a)
	return resp, err
}

// begin finds out where the call belongs. An error ends it.
func (v *visit) begin(req *http.Request) error {
	if err := v.keeper.await(v.record); err != nil {
		return err
	}
	if v.work = v.keeper.work.Load(); v.work == nil { // it was not, before the wait
		return nil
	}
	v.work.way.begin(v, req)
	if v.refusal != nil {
		v.end(nil, v.refusal, nil)
		return v.refusal
	}
	v.record.SetAffinity(v)
	return nil
}

// close is end. If a callback or a store panics, nobody gets the response.
func (v *visit) close(resp *http.Response, err error, final *call.Attempt) {
	if v.work == nil {
		return
	}
	done := false
	defer func() {
		if !done {
			call.Close(resp)
		}
	}()
	v.end(resp, err, final)
	done = true
}

// CloseIdleConnections passes the call on.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

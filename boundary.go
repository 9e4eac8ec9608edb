package evenkeel

import (
	"fmt"
	"net/http"

	"github.com/evenkeel-go/evenkeel/internal/call"
)

// boundary is the outermost layer that knows of attempts: it makes the record of
// the call, bounds the call's time, and makes the one error that callers see.
type boundary struct {
	transport *Transport
	stack     *stack
	next      http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (b *boundary) RoundTrip(req *http.Request) (*http.Response, error) {
	record := call.New(req, b.stack.calls)
	if to := b.transport.address; to != nil {
		record.Address(to.Scheme, to.Host)
	}
	limit := b.stack.config.timeout()
	if limit > 0 {
		record.Bound(limit, call.NewTimeout(fmt.Sprintf("evenkeel: no response within the call's time limit of %v", limit)))
	}
	resp, err := b.next.RoundTrip(record.Request())
	if err == nil {
		resp, err = record.InTime(resp)
	}
	if err != nil {
		resp, err = nil, b.fail(record, err)
	}
	b.transport.count(record.Sent(), err != nil || record.Failed())
	if b.transport.settings.hooks.Called != nil {
		b.tell(Call{Request: req, Info: infoOf(record), Err: err}, resp)
	}
	return resp, err
}

// tell tells the hook. If that panics, nobody gets the response.
func (b *boundary) tell(event Call, resp *http.Response) {
	told := false
	defer func() {
		if !told && resp != nil {
			_ = resp.Body.Close()
		}
	}()
	if resp != nil {
		event.StatusCode = resp.StatusCode
	}
	b.transport.settings.hooks.Called(event)
	told = true
}

// fail makes the error that the caller sees.
func (b *boundary) fail(record *call.Record, err error) error {
	info := infoOf(record)
	return &Error{
		Target: b.transport.target.String(), Reason: record.Ending(),
		Attempts: info.Attempts, Endpoint: info.Endpoint.Address, Err: err,
	}
}

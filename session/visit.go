package session

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/node"
	"github.com/evenkeel-go/evenkeel/internal/wait"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// visit is one call. The goroutine of the call owns it; what is atomic is also used by its attempts.
type visit struct {
	keeper *Keeper
	work   *working
	record *call.Record

	pin   atomic.Pointer[node.Pin] // where it belongs, nil if nowhere
	cause atomic.Pointer[string]   // why its endpoint cannot take it
	first node.Pin                 // room for the first pin

	key     string // with which a store knows it
	renew   bool   // the cookie is to be issued anew in any case
	secure  bool   // and to be sent over TLS only
	refusal error  // why the call is not made

	began  atomic.Bool  // the session begins with this call
	waited atomic.Int64 // for the store, in nanoseconds
	failed atomic.Bool  // the store has
}

// gone is the identity of an endpoint that is not known any more.
const gone = "\x00gone"

// belongs notes that the call belongs to an endpoint.
func (v *visit) belongs(endpoint string) {
	v.first = node.Pin{ID: endpoint, Strict: v.work.Strict, DrainFor: v.work.DrainFor}
	v.pin.Store(&v.first)
}

// home returns the identity of the endpoint where the call belongs, "" if it belongs nowhere.
func (v *visit) home() string {
	if pin := v.pin.Load(); pin != nil {
		return pin.ID
	}
	return ""
}

// Pin implements [call.Affinity].
func (v *visit) Pin() *node.Pin { return v.pin.Load() }

// Claim implements [call.Affinity].
func (v *visit) Claim(_ context.Context, endpoint, cause string) (string, error) {
	if cause != "" {
		because := cause
		v.cause.Store(&because)
	}
	return v.work.way.claim(v, endpoint, cause)
}

// Bound implements [call.Affinity]. In strict mode a call stays where it belongs; but nothing is lost yet of a
// session that begins with it, if its endpoint could not even be reached, or did not want it.
func (v *visit) Bound(class outcome.Class) bool {
	pin := v.pin.Load()
	if pin == nil || !pin.Strict {
		return false
	}
	if (class == outcome.NeverSent || class == outcome.Overload) && v.began.Load() {
		v.pin.Store(&node.Pin{ID: pin.ID, DrainFor: pin.DrainFor})
		return false
	}
	return true
}

// Begins implements [call.Affinity].
func (v *visit) Begins() bool { return v.began.Load() }

// pinTo asks a store to pin a key, and makes the call belong where that is pinned then. changed says that it is
// this call which has pinned it, as far as can be told.
func (v *visit) pinTo(store Store, key, from, to string) (now string, changed, ok bool) {
	if table, local := store.(*Table); local {
		now, changed = table.pin(key, from, to)
		return now, changed, true
	}
	now, ok = v.ask(store, func(ctx context.Context) (string, error) { return store.Pin(ctx, key, from, to) })
	return now, now == to, ok && now != ""
}

// gone returns the error of a call whose caller has gone, or which has no more time.
func (v *visit) gone() error {
	if err := context.Cause(v.record); err != nil {
		return err
	}
	return errStoreSilent // it has taken all the time that there was
}

// join makes the call belong where others have pinned its session.
func (v *visit) join(endpoint string) {
	v.pin.Store(&node.Pin{ID: endpoint, Strict: v.work.Strict, DrainFor: v.work.DrainFor})
}

// end is told how the call went.
func (v *visit) end(resp *http.Response, err error, final *call.Attempt) {
	k := v.keeper
	home := v.home()
	if err != nil {
		if errors.Is(err, ErrUnavailable) {
			k.counts.refused.Add(1)
			k.tell(Event{Kind: Refused, From: shown(home), Cause: v.refused(), Err: err})
		}
		return
	}
	if final == nil || final.EndpointID() == "" {
		return // nobody has picked
	}
	endpoint := final.EndpointID()
	if home == endpoint && v.first.ID == endpoint { // else it has only just begun
		k.counts.kept.Add(1)
	}
	v.work.way.end(v, resp, endpoint, final.Outcome.Class.Good())
}

// pinned notes that the session belongs to an endpoint now.
func (v *visit) pinned(from, to, cause string) {
	k := v.keeper
	if from == "" {
		k.counts.pinned.Add(1)
		return
	}
	k.counts.moved.Add(1)
	k.tell(Event{Kind: Moved, From: shown(from), To: to, Cause: cause})
}

// shown returns an identity as events show it.
func shown(endpoint string) string {
	if endpoint == gone {
		return ""
	}
	return endpoint
}

// moving returns why another endpoint has answered than the one where the call belongs.
func (v *visit) moving() string {
	if cause := v.cause.Load(); cause != nil {
		return *cause
	}
	if first := v.record.Attempts(); len(first) > 0 && first[0].Lost() == outcome.Superseded {
		return "another attempt was faster"
	}
	return "attempt failed"
}

// refused returns why a call in strict mode has failed.
func (v *visit) refused() string {
	if v.failed.Load() {
		return "store failed"
	}
	return "endpoint unavailable"
}

// errSlow is the cause of the end of an operation's context.
var errSlow = errors.New("session: the store has not answered within StoreTimeout")

// ask asks the store, unless this call has no time left for it. ok says whether the answer is one to
// go by. A store that has failed is asked again: it may remember by itself.
func (v *visit) ask(store Store, op func(context.Context) (string, error)) (endpoint string, ok bool) {
	if _, local := store.(*Table); local {
		endpoint, _ = op(v.record)
		return endpoint, true
	}
	left := v.work.StoreTimeout - time.Duration(v.waited.Load())
	if left <= 0 {
		return "", false
	}
	ctx, deadline := wait.NewDeadline(v.record, v.record.Clock(), left, errSlow)
	defer deadline.End()
	began := v.record.Clock().Now()
	endpoint, err := op(ctx)
	v.waited.Add(int64(v.record.Clock().Now().Sub(began)))
	switch {
	case err == nil:
		v.keeper.answered()
		return endpoint, true
	case v.record.CallerErr() != nil || v.record.TimedOut(): // says nothing about the store
		return "", false
	}
	v.failed.Store(true)
	v.keeper.failed(err)
	return endpoint, endpoint != ""
}

// failed notes that the store could not be asked.
func (k *Keeper) failed(err error) {
	k.counts.storeErrors.Add(1)
	if !k.down.Swap(true) {
		k.tell(Event{Kind: StoreFailed, Err: err})
	}
}

// answered notes that it could.
func (k *Keeper) answered() {
	if k.down.Load() && k.down.Swap(false) {
		k.tell(Event{Kind: StoreRecovered})
	}
}

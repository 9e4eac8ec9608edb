package session

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// keyWay is [Key] at work.
type keyWay struct {
	store  Store
	prefix string // of keys in the store
	from   hashkey.Extractor
}

func (w *keyWay) begin(v *visit, req *http.Request) {
	key := KeyOf(req)
	if key == "" {
		key, _ = w.from.Value(req)
	}
	w.lookup(v, key) //nolint:contextcheck // the record is the context
}

// lookup finds out where the call belongs by its key, if it has one.
func (w *keyWay) lookup(v *visit, key string) {
	if key == "" {
		return
	}
	v.key = w.prefix + key
	endpoint, ok := v.ask(w.store, func(ctx context.Context) (string, error) { return w.store.Lookup(ctx, v.key) })
	switch {
	case endpoint != "":
		v.belongs(endpoint)
	case ok || !v.work.Strict:
	case v.failed.Load():
		v.refusal = errStoreSilent
	default: // the caller has gone
		v.refusal = v.gone()
	}
}

// claim implements way: of many calls with one key, the first one decides where all of them go, before
// any of them is sent.
func (w *keyWay) claim(v *visit, endpoint, cause string) (string, error) {
	if v.key == "" {
		return "", nil
	}
	home := v.home()
	now, changed, ok := v.pinTo(w.store, v.key, home, endpoint)
	switch {
	case !ok && v.work.Strict && v.failed.Load():
		return "", errStoreFull
	case !ok && v.work.Strict: // the caller has gone
		return "", v.gone()
	case !ok:
		return "", nil
	case changed:
		v.began.Store(home == "")
		v.pinned(home, endpoint, cause)
	}
	v.cause.Store(nil) // a second move has another one
	v.join(now)
	return now, nil
}

func (w *keyWay) end(v *visit, _ *http.Response, endpoint string, good bool) {
	home := v.home()
	if v.key == "" || !good || home == endpoint || (home == "" && v.failed.Load()) {
		return
	}
	if _, changed, ok := v.pinTo(w.store, v.key, home, endpoint); ok && changed {
		v.pinned(home, endpoint, v.moving())
	}
}

// learnWay is [Learn] at work.
type learnWay struct {
	Learn
	keyWay
}

func (w *learnWay) begin(v *visit, req *http.Request) {
	key, _ := w.from.Value(req)
	w.lookup(v, key) //nolint:contextcheck // the record is the context
}

// claim is that of [keyWay], for values that are known: what callers make up takes no place in the store.
func (w *learnWay) claim(v *visit, endpoint, cause string) (string, error) {
	if v.home() == "" {
		return "", nil
	}
	return w.keyWay.claim(v, endpoint, cause)
}

func (w *learnWay) end(v *visit, resp *http.Response, endpoint string, good bool) {
	learnt := w.learnt(resp, v.keeper.clock.Now)
	if learnt != "" {
		learnt = w.prefix + learnt
	}
	switch {
	case learnt != "" && learnt != v.key:
		v.key = learnt // it is the session's from now on
		now, changed, ok := v.pinTo(w.store, learnt, "", endpoint)
		if ok && now != endpoint {
			_, changed, ok = v.pinTo(w.store, learnt, now, endpoint) // who set it last has it
		}
		if ok && changed {
			v.pinned("", endpoint, "")
		}
	case learnt != "" || v.home() != "":
		w.keyWay.end(v, resp, endpoint, good || learnt != "")
	}
}

// learnt returns the value that the answer sets, "" if it sets none or takes it back. Of several, callers
// keep the last one.
func (w *learnWay) learnt(resp *http.Response, now func() time.Time) (value string) {
	if w.Header != "" {
		return resp.Header.Get(w.Header)
	}
	for _, line := range resp.Header["Set-Cookie"] {
		if !strings.Contains(line, w.Cookie) {
			continue
		}
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != w.Cookie {
			continue
		}
		value = c.Value
		if c.MaxAge < 0 || (c.MaxAge == 0 && !c.Expires.IsZero() && !c.Expires.After(now())) { // RFC 6265, section 5.3
			value = ""
		}
	}
	return value
}
